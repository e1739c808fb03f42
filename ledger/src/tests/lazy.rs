//! Validators that vote and run nothing.

use super::town::{Run, Town};
use super::*;
use crate::work::IDLE_WAIT_EPOCHS;

/// An epoch in which everybody says that it is ready, and those who work close so many rounds.
fn epoch(run: &mut Run<'_>, validators: usize, rounds: impl Fn(usize) -> u64) {
    for v in 0..validators {
        run.ready(v);
        let hotkey = run.validator(v);
        (0..rounds(v)).for_each(|_| run.x.count_round(&hotkey).unwrap());
        run.x.state.accept();
    }
    run.close();
}

fn members(run: &Run<'_>, validators: usize) -> Vec<usize> {
    (0..validators).filter(|v| run.is_member(*v)).collect()
}

#[test]
fn who_votes_and_runs_no_rounds_loses_its_place_and_waits_four_epochs() {
    let town = Town::new(4, 1);
    let mut run = town.run();
    epoch(&mut run, 4, |v| if v == 3 { 0 } else { 20 });
    let dropped_at = run.x.frame.meta.epoch;
    for waited in 0..IDLE_WAIT_EPOCHS {
        assert_eq!(members(&run, 4), [0, 1, 2], "it says every time that it is ready; {waited} epochs later");
        assert_eq!(run.x.frame.meta.epoch, dropped_at + waited);
        epoch(&mut run, 4, |v| if v == 3 { 0 } else { 20 });
    }
    assert_eq!(members(&run, 4), [0, 1, 2, 3], "it may try again, as a newcomer");
    // It works this time, and stays.
    epoch(&mut run, 4, |_| 20);
    assert_eq!(members(&run, 4), [0, 1, 2, 3]);
}

#[test]
fn rounds_that_only_some_can_draw_are_owed_by_nobody() {
    let town = Town::new(4, 1);
    let mut run = town.run();
    // The fourth works, is silent once, and comes back; the seed that its key draws with stays away.
    let last = run.validator(3);
    (0..20).for_each(|_| run.x.count_round(&last).unwrap());
    epoch(&mut run, 3, |_| 20);
    assert_eq!(members(&run, 4), [0, 1, 2]);
    run.beacon = false;
    epoch(&mut run, 4, |v| if v == 3 { 0 } else { 20 });
    assert_eq!(members(&run, 4), [0, 1, 2, 3]);
    run.beacon = true;
    epoch(&mut run, 4, |v| if v == 3 { 0 } else { 20 });
    assert_eq!(members(&run, 4), [0, 1, 2, 3], "it held no key that draws");
    epoch(&mut run, 4, |v| if v == 3 { 0 } else { 20 });
    assert_eq!(members(&run, 4), [0, 1, 2], "now it could");
}

#[test]
fn verdicts_are_work_too() {
    let town = Town::new(4, 1);
    let mut run = town.run();
    for v in 0..4 {
        let hotkey = run.validator(v);
        (0..if v == 3 { 5 } else { 12 }).for_each(|_| run.x.count_verdict(&hotkey).unwrap());
    }
    assert_eq!(
        run.x.state.get(&state::work_key(&run.validator(3))).unwrap(),
        Some(crate::work::WorkRow { verdicts: 5, ..Default::default() })
    );
    epoch(&mut run, 4, |_| 20);
    assert_eq!(members(&run, 4), [0, 1, 2]);
    assert!(run.x.state.scan(state::work_prefix()).unwrap().is_empty(), "the next epoch counts from nothing");
}

#[test]
fn silence_keeps_silent_members_and_no_idle_ones() {
    let town = Town::new(7, 1);
    let mut run = town.run();
    // Four are ready and two silent, all of whom worked; the seventh is ready and idle.
    for v in [0, 1, 2, 3, 6] {
        run.ready(v);
    }
    for v in 0..6 {
        let hotkey = run.validator(v);
        (0..20).for_each(|_| run.x.count_round(&hotkey).unwrap());
    }
    run.close();
    assert_eq!(members(&run, 7), [0, 1, 2, 3, 4, 5], "four of seven are no quorum: the silent ones stay");
}

#[test]
fn idle_members_of_a_third_stay_since_without_them_there_is_no_quorum() {
    let town = Town::new(6, 1);
    let mut run = town.run();
    epoch(&mut run, 6, |v| if v < 2 { 0 } else { 20 });
    assert_eq!(members(&run, 6), [0, 1, 2, 3, 4, 5]);
    assert!(run.x.state.scan(state::idle_prefix()).unwrap().is_empty(), "who stays does not wait");
    epoch(&mut run, 6, |v| if v < 1 { 0 } else { 20 });
    assert_eq!(members(&run, 6), [1, 2, 3, 4, 5]);
}

#[test]
fn a_half_that_outworks_the_rest_drops_nobody() {
    // They are the median, so that everybody else is idle: but the rest is more than a third.
    let town = Town::new(6, 1);
    let mut run = town.run();
    epoch(&mut run, 6, |v| if v < 3 { 200 } else { 20 });
    assert_eq!(members(&run, 6), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn newcomers_are_not_bound_in_the_epoch_in_which_they_join_and_are_in_the_next() {
    let mut town = Town::new(5, 1);
    town.net.genesis.delegations.truncate(4);
    let town = town.with(|_| ());
    let mut run = town.run();
    let (key, round_key) = (town.net.keys[4].public(), RoundPair::of(&town.net.keys[4]).public());
    run.x.state.put(state::key_key(&run.validator(4)), &state::KeyRow { key, round_key, sequence: 0 });
    run.x.state.accept();
    epoch(&mut run, 5, |v| if v == 4 { 0 } else { 20 });
    assert_eq!(members(&run, 5), [0, 1, 2, 3, 4]);
    epoch(&mut run, 5, |v| if v == 4 { 0 } else { 20 });
    assert_eq!(members(&run, 5), [0, 1, 2, 3]);
}

#[test]
fn a_lazy_validator_that_comes_back_whenever_it_may_has_one_epoch_of_five() {
    let town = Town::new(4, 1);
    let mut run = town.run();
    let mut held = 0;
    for _ in 0..50 {
        epoch(&mut run, 4, |v| if v == 3 { 0 } else { 20 });
        held += u32::from(run.is_member(3));
        assert_eq!(members(&run, 3), [0, 1, 2]);
    }
    assert_eq!(held, 10);
    // Neither silence nor work of another epoch shortens the wait.
    let mut run = town.run();
    epoch(&mut run, 3, |_| 20);
    assert!(!run.is_member(3));
    epoch(&mut run, 4, |v| if v == 3 { 100 } else { 20 });
    assert!(!run.is_member(3));
}

#[test]
fn rounds_of_a_member_whose_key_changes_are_its_own() {
    let mut net = Net::new();
    net.genesis.parameters.min_work = 2;
    let next = ConsensusPair::from_seed(&[16; 32]);
    net.keys.push(next.clone());
    let mut ls = pair(&net);
    for seq in 0..2 {
        let txs: Vec<_> = (0..4).flat_map(|v| net.whole(v, seq, 0)).collect();
        let input = net.input(&ls[0], txs);
        net.step(&mut ls, input);
    }
    let me = net.hotkeys[0].hotkey();
    let delegate = Delegation::sign(&net.id(), &net.hotkeys[0], &next, 1);
    let ready = Signed::sign(&next, &net.id(), Readiness { hotkey: me, epoch: 0 });
    let mut txs = vec![Transaction::KeyDelegation(Box::new(delegate)), Transaction::Readiness(ready.into_envelope())];
    txs.extend((1..4).map(|v| net.ready(v, 0)));
    let input = net.input(&ls[0], txs);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 5);
    assert_eq!(query::work(ls[0].store(), &me).unwrap().rounds, 2);
    net.close(&mut ls, 9, 1, vec![]);
    assert_eq!(ls[0].validators().by_hotkey(&me).unwrap().key, next.public());
    assert_eq!(query::work(ls[0].store(), &me).unwrap().rounds, 0);

    // Under its new key it does nothing for an epoch that has its seed: dropped, as anybody.
    let pulse = query::awaited_pulses(ls[0].store()).unwrap()[0];
    let pulse = Transaction::Pulse(Pulse::of_development(pulse).unwrap());
    let input = ProposalInput { proposer: net.keys[1].public(), ..net.input(&ls[0], vec![pulse]) };
    net.step(&mut ls, input);
    for seq in 2..4 {
        let txs: Vec<_> = (1..4).flat_map(|v| net.whole(v, seq, 1)).collect();
        let input = ProposalInput { proposer: net.keys[1].public(), ..net.input(&ls[0], txs) };
        net.step(&mut ls, input);
    }
    let ready = Signed::sign(&next, &net.id(), Readiness { hotkey: me, epoch: 1 });
    let mut txs = vec![Transaction::Readiness(ready.into_envelope())];
    txs.extend((1..4).map(|v| net.ready(v, 1)));
    let at = reference(19, 2);
    let input = ProposalInput {
        proposer: net.keys[1].public(),
        snapshot: Some(net.snapshot(at.clone())),
        reference: at,
        ..net.input(&ls[0], txs)
    };
    net.step(&mut ls, input);
    assert!(ls[0].validators().by_hotkey(&me).is_none());
    assert_eq!(query::idle_until(ls[0].store(), &me).unwrap(), Some(6));
}
