//! The third is the set's third, and what is left where two thirds do not contribute.

use super::town::{SPEC, Town, score};
use super::*;
use crate::parameters::MILLION;

#[test]
fn an_absent_third_does_not_help_another_third_that_lies() {
    // 33 of 100 are absent; of the 67 that contribute 33 lie.
    let town = Town::new(100, 1);
    for lie in [0, 654_000, 1_000_000] {
        let mut run = town.run();
        (0..34).for_each(|v| run.measure(v, 0, if v % 2 == 0 { 600_000 } else { 610_000 }));
        (34..67).for_each(|v| run.measure(v, 0, lie));
        let record = run.close();
        let score = score(&record, &run.miner(0)).unwrap();
        assert!((600_000..=610_000).contains(&score), "with liars at {lie}: {score}");
        assert_eq!(record.total, 100 * u128::from(MILLION));
    }
}

#[test]
fn a_score_stands_for_four_epochs_without_contributors_and_says_how_old_it_is() {
    let town = Town::new(4, 2);
    let mut run = town.run();
    (0..4).for_each(|v| run.measure(v, 0, 700_000));
    let first = run.close();
    assert_eq!((score(&first, &run.miner(0)), first.miners[0].kept), (Some(700_000), None));
    // A third votes and measures nothing; another one lies about a new miner, which has nothing to keep.
    for epoch in 1..=5 {
        (0..2).for_each(|v| run.measure(v, 0, 100_000));
        run.measure(3, 1, 900_000);
        let record = run.close();
        let kept = (epoch <= 4).then_some(700_000);
        assert_eq!(score(&record, &run.miner(0)), kept, "epoch {epoch}");
        assert_eq!(record.miners[0].kept, kept.map(|_| 0), "epoch {epoch}: it is of epoch 0");
        assert_eq!(record.miners[0].contributions.len(), 2, "those that there are can be seen");
        assert_eq!(score(&record, &run.miner(1)), None);
        assert!(record.outliers.is_empty(), "nobody is an outlier about a score of another epoch");
        let burn = (0, Some(run.validator(0)), u16::MAX);
        assert_eq!(record.weights == [burn], epoch > 4, "epoch {epoch}: {:?}", record.weights);
    }
    // What was given up does not come back; a new score stands for itself.
    (0..2).for_each(|v| run.measure(v, 0, 100_000));
    assert_eq!(score(&run.close(), &run.miner(0)), None);
    (0..3).for_each(|v| run.measure(v, 0, 500_000));
    let record = run.close();
    assert_eq!((score(&record, &run.miner(0)), record.miners[0].kept), (Some(500_000), None));
}

#[test]
fn who_is_struck_counts_in_the_total_and_contributes_nothing() {
    let town = Town::new(4, 1);
    for struck in [1, 2] {
        let mut run = town.run();
        (0..4).for_each(|v| run.measure(v, 0, if v < struck { 0 } else { 700_000 }));
        for v in 0..struck {
            let key = state::struck_key(SPEC, &run.validator(v));
            run.x.state.put(key, &0u64);
        }
        let record = run.close();
        assert_eq!(record.total, 4 * u128::from(MILLION));
        assert_eq!(score(&record, &run.miner(0)), (struck == 1).then_some(700_000), "three of four, and two of four");
    }
}

#[test]
fn standing_and_not_power_alone_makes_the_two_thirds() {
    let town = Town::new(4, 1);
    let by = |standings: [u32; 4], contributors: &[usize]| {
        let mut run = town.run();
        (0..4).for_each(|v| run.set_standing(v, standings[v]));
        contributors.iter().for_each(|v| run.measure(*v, 0, 700_000));
        let record = run.close();
        (record.total, score(&record, &run.miner(0)))
    };
    let (whole, some) = (MILLION, Some(700_000));
    assert_eq!(by([whole, whole, 0, 0], &[0, 1]), (2_000_000, some), "who has no standing is missed by nobody");
    assert_eq!(by([whole, whole, 0, 0], &[0, 2, 3]), (2_000_000, None), "and takes nobody's place");
    assert_eq!(by([whole, whole, whole, 0], &[0, 1]), (3_000_000, None), "exactly two thirds are not enough");
    assert_eq!(by([0; 4], &[0, 1, 2, 3]), (0, None));
}

#[test]
fn without_any_standing_nothing_is_scored_or_kept() {
    let town = Town::new(4, 1);
    let mut run = town.run();
    (0..4).for_each(|v| run.measure(v, 0, 700_000));
    run.close();
    (0..4).for_each(|v| run.set_standing(v, 0));
    (0..4).for_each(|v| run.measure(v, 0, 700_000));
    assert_eq!(score(&run.close(), &run.miner(0)), None);
}

#[test]
fn where_standing_does_not_weigh_the_total_is_the_power() {
    let town = Town::new(4, 1).with(|p| p.reputation.weigh = false);
    let mut run = town.run();
    (0..4).for_each(|v| run.set_standing(v, 0));
    (0..3).for_each(|v| run.measure(v, 0, 700_000));
    let record = run.close();
    assert_eq!((record.total, score(&record, &run.miner(0))), (4, Some(700_000)));
}

#[test]
fn a_hotkey_that_left_between_keeps_nothing() {
    let mut town = Town::new(4, 2);
    town.owners = vec![None, None];
    let mut run = town.run();
    (0..4).for_each(|v| run.measure(v, 0, 700_000));
    run.close();
    // Its histories go with its registration, so the next epoch's record does not name it.
    for v in 0..4 {
        let key = state::history_key(SPEC, &run.miner(0), &run.validator(v));
        run.x.state.delete(key);
    }
    run.x.state.accept();
    (0..4).for_each(|v| run.measure(v, 1, 700_000));
    run.close();
    run.measure(0, 0, 700_000);
    assert_eq!(score(&run.close(), &run.miner(0)), None);
}
