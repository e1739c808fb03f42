//! One miner against the standing of honest validators, over many epochs.

use super::town::{Run, Town, score};
use super::*;
use crate::parameters::MILLION;

/// Validators 8 and 9 lie; miner 0 is honest, the others are the attacker's.
const HONEST: std::ops::Range<usize> = 0..8;
const LIARS: std::ops::Range<usize> = 8..10;

/// The honest measure .60 or .61 of the honest miner, liars say that it does nothing.
fn measure_the_honest_miner(run: &mut Run<'_>) {
    HONEST.for_each(|v| run.measure(v, 0, if v % 2 == 0 { 600_000 } else { 610_000 }));
    LIARS.for_each(|v| run.measure(v, 0, 0));
}

/// Those who already stand lowest, as many as hold less than a third of what all stand for.
fn targets(run: &Run<'_>) -> Vec<usize> {
    let total: u64 = (0..10).map(|v| u64::from(run.standing(v))).sum();
    let mut order: Vec<usize> = HONEST.collect();
    order.sort_by_key(|v| (run.standing(*v), *v));
    let (mut sum, mut out) = (0, Vec::new());
    for v in order {
        sum += u64::from(run.standing(v));
        if sum * 3 < total {
            out.push(v);
        }
    }
    out
}

fn answered_well_by_all_but_its_targets(attackers: u8) {
    let town = Town::new(10, 1 + attackers);
    let mut run = town.run();
    for epoch in 0..100 {
        measure_the_honest_miner(&mut run);
        let targets = targets(&run);
        for m in 1..=usize::from(attackers) {
            (0..10).for_each(|v| run.measure(v, m, if targets.contains(&v) { 0 } else { 800_000 }));
        }
        let record = run.close();
        let score = score(&record, &run.miner(0)).unwrap();
        assert!((600_000..=610_000).contains(&score), "epoch {epoch}: the liars make it {score}");
        HONEST.for_each(|v| assert_eq!(run.standing(v), MILLION, "epoch {epoch}: validator {v} did nothing wrong"));
    }
}

#[test]
fn a_miner_that_answers_all_but_its_targets_takes_no_standing() {
    answered_well_by_all_but_its_targets(1);
}

#[test]
fn ten_miners_that_answer_all_but_their_targets_take_no_standing() {
    answered_well_by_all_but_its_targets(10);
}

/// What else the miners could try: each answers every validator as it likes, in every epoch anew.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// Half of the validators against the other half, another half each time.
    Halves,
    /// Well for the liars and their largest ally, badly for the others.
    Few,
    /// As many steps as there are validators, so that every reach is tried.
    Ladder,
    /// No answer at all to a third, which then has nothing to contribute.
    Absent,
}

fn answer(plan: Plan, epoch: usize, m: usize, v: usize) -> Option<u32> {
    match plan {
        Plan::Halves => Some(if (v + epoch + m).is_multiple_of(2) { 0 } else { 900_000 }),
        Plan::Few => Some(if LIARS.contains(&v) || v == epoch % 8 { 900_000 } else { 0 }),
        Plan::Ladder => Some((v as u32 + epoch as u32 + m as u32) % 10 * 100_000),
        Plan::Absent => (!(v + epoch).is_multiple_of(4)).then_some(900_000),
    }
}

#[test]
fn miners_of_many_owners_that_adapt_make_honest_validators_checked_more_often_and_no_more() {
    let town = Town::new(10, 11);
    let mut seen = 0;
    for plan in [Plan::Halves, Plan::Few, Plan::Ladder, Plan::Absent] {
        let mut run = town.run();
        for epoch in 0..30 {
            measure_the_honest_miner(&mut run);
            for (m, v) in (1..11).flat_map(|m| (0..10).map(move |v| (m, v))) {
                // The liars say what suits the attacker: that the target's measure is far from theirs.
                let said = if LIARS.contains(&v) { Some(1_000_000) } else { answer(plan, epoch, m, v) };
                said.into_iter().for_each(|mean| run.measure(v, m, mean));
            }
            let record = run.close();
            let score = score(&record, &run.miner(0)).unwrap();
            assert!((600_000..=610_000).contains(&score), "{plan:?}, epoch {epoch}: {score}");
            HONEST.for_each(|v| assert_eq!(run.standing(v), MILLION, "{plan:?}, epoch {epoch}"));
            let rate = town.net.genesis.parameters.spot_checks.rate;
            for o in &record.outliers {
                let round = RoundId { validator: o.validator, challenge: super::town::SPEC, seq: 0 };
                let drawn = run.x.check_rate(&round).unwrap();
                assert!(drawn == rate || (o.count.is_majority() && drawn == rate * crate::outliers::MORE_CHECKS));
                seen += u32::from(drawn > rate);
            }
        }
    }
    assert!(seen > 0, "none of this made an outlier of anybody");
}

#[test]
fn outliers_are_counted_by_owners_and_forgotten_with_the_next_close() {
    let mut town = Town::new(4, 5);
    // Four miners of one owner are one owner.
    town.owners = vec![None, Some(200), Some(200), Some(200), Some(200)];
    let mut run = town.run();
    for (v, m) in (0..4).flat_map(|v| (0..5).map(move |m| (v, m))) {
        run.measure(v, m, if v == 3 && m > 0 { 0 } else { 800_000 });
    }
    let record = run.close();
    let count =
        |v: &Hotkey, r: &crate::epoch::EpochRecord| r.outliers.iter().find(|o| o.validator == *v).unwrap().count;
    let row = count(&run.validator(3), &record);
    assert_eq!((row.rejected, row.owners, row.is_majority()), (1, 2, false));
    assert_eq!(count(&run.validator(0), &record).rejected, 0);
    let round = RoundId { validator: run.validator(3), challenge: super::town::SPEC, seq: 0 };
    let rate = town.net.genesis.parameters.spot_checks.rate;
    assert_eq!(run.x.check_rate(&round).unwrap(), rate);

    (0..4).for_each(|v| run.measure(v, 0, if v == 3 { 0 } else { 800_000 }));
    run.close();
    assert_eq!(run.x.check_rate(&round).unwrap(), 5 * rate, "for the one owner of which there are scores");
    (0..4).for_each(|v| run.measure(v, 0, 800_000));
    run.close();
    assert_eq!(run.x.check_rate(&round).unwrap(), rate);
}
