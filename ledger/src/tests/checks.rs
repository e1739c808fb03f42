//! Spot checks and reputation.

use super::*;
use crate::genesis::SpotChecks;
use crate::reputation::Faults;
use crate::verdict::{CheckVerdict, Checked, Finding};

/// A network in which every round is checked.
fn checked() -> Net {
    let mut net = Net::new();
    net.genesis.parameters.spot_checks = SpotChecks { rate: 1_000_000, window_blocks: 3, margin_tolerance: 50_000 };
    net
}

/// A member's verdict.
pub(super) fn say(net: &Net, by: usize, round: RoundId, result: &Transaction, verdict: Checked) -> Transaction {
    let hotkey = net.hotkeys[by].hotkey();
    let v = CheckVerdict { hotkey, round, result: result.digest(&net.id()), verdict };
    Transaction::CheckVerdict(Signed::sign(&net.keys[by], &net.id(), v).into_envelope())
}

#[test]
fn a_check_ends_with_its_window() {
    let net = checked();
    let mut ls = pair(&net);
    let [open, commits, result] = net.whole(0, 0, 0);
    let input = net.input(&ls[0], vec![open, commits, result.clone()]);
    net.step(&mut ls, input);
    net.step_empty(&mut ls);
    net.draw(&mut ls, vec![]);
    assert_eq!(query::checks(ls[0].store()).unwrap().len(), 1);
    for _ in 0..3 {
        let input = net.input(&ls[0], vec![]);
        net.step(&mut ls, input);
    }
    assert!(query::checks(ls[0].store()).unwrap().is_empty());
    let late = say(&net, 1, net.round(0, 0), &result, Checked::Fails(Finding::ImageMissing));
    let error = ls[0].check_transaction(&late).unwrap_err();
    assert!(!error.is_early(), "{error}");
}

#[test]
fn a_lower_standing_weighs_less_in_the_aggregate_and_not_in_votes() {
    let mut net = Net::new();
    net.genesis.parameters.power = PowerRule::Stake { max_share: 250_000 };
    let mut ls = pair(&net);
    // An equivocation, settled by a close: the standing falls to nothing.
    let sign = |d| net.keys[1].sign(&vote_sign_bytes(&net.id(), VoteKind::Prevote, 1, 0, d));
    let digests = [None, Some(Digest([1; 32]))];
    let double = DoubleVote {
        key: net.keys[1].public(),
        kind: VoteKind::Prevote,
        height: 1,
        round: 0,
        digests,
        signatures: digests.map(sign),
    };
    let mut txs = vec![Transaction::Evidence(Box::new(Equivocation::Votes(double)))];
    txs.extend((0..4).map(|v| net.ready(v, 0)));
    net.close(&mut ls, 5, 1, txs);
    let fallen = net.hotkeys[1].hotkey();
    assert_eq!(query::reputation(ls[0].store(), &fallen).unwrap().standing, 0);
    for seq in 0..2 {
        let txs: Vec<_> = (0..4).flat_map(|v| net.whole(v, seq, 1)).collect();
        let input = net.input(&ls[0], txs);
        net.step(&mut ls, input);
    }
    net.close(&mut ls, 9, 2, (0..4).map(|v| net.ready(v, 1)).collect());
    let record = crate::epoch::record(ls[0].store(), 1, ChallengeId(0)).unwrap().unwrap();
    for miner in record.miners {
        let weight = |h: &Hotkey| miner.contributions.iter().find(|c| c.validator == *h).unwrap().weight;
        assert_eq!(weight(&fallen), 0);
        assert!(weight(&net.hotkeys[0].hotkey()) > 1);
        assert!(miner.aggregate.is_some(), "three without it are enough");
    }
    let power = |v: usize| ls[0].validators().by_hotkey(&net.hotkeys[v].hotkey()).unwrap().power;
    assert_eq!(power(1), power(0), "voting power does not depend on it");
    let rule = net.genesis.parameters.reputation;
    assert_eq!(query::reputation(ls[0].store(), &fallen).unwrap().standing, rule.recovery, "a clean epoch");
}

#[test]
fn votes_that_certificates_lack_are_counted() {
    let net = Net::new();
    let mut ledger = net.ledger();
    for _ in 0..3 {
        let (_, executed) = ledger.propose(net.input(&ledger, vec![])).unwrap();
        let mut certificate = net.certify(&ledger, &executed);
        let silent = net.keys[2].public();
        certificate.signatures.retain(|(k, _)| *k != silent);
        let commit = ledger.commit(executed, certificate).unwrap();
        ledger.store_mut().commit(&commit);
    }
    let faults = |v: usize| query::reputation(ledger.store(), &net.hotkeys[v].hotkey()).unwrap().epoch;
    assert_eq!(faults(2), Faults { missed_votes: 2, ..Faults::default() }, "the first two certificates are in blocks");
    assert_eq!(faults(1), Faults::default());
}

#[test]
fn an_epoch_takes_only_so_many_proofs_against_one_validator() {
    let net = Net::new();
    let mut ls = pair(&net);
    let proof = |height: u64, round: u32| {
        let digests = [None, Some(Digest([1; 32]))];
        let sign = |d| net.keys[1].sign(&vote_sign_bytes(&net.id(), VoteKind::Prevote, height, round, d));
        let (key, kind, signatures) = (net.keys[1].public(), VoteKind::Prevote, digests.map(sign));
        let double = DoubleVote { key, kind, height, round, digests, signatures };
        Transaction::Evidence(Box::new(Equivocation::Votes(double)))
    };
    assert!(ls[0].check_transaction(&proof(2, 0)).is_err(), "of a height that is still to come");
    let input = net.input(&ls[0], (0..40).map(|round| proof(1, round)).collect());
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 16);
    assert_eq!(query::reputation(ls[0].store(), &net.hotkeys[1].hotkey()).unwrap().epoch.equivocations, 16);
    // The next epoch takes some again.
    net.close(&mut ls, 9, 1, (0..4).map(|v| net.ready(v, 0)).collect());
    ls[0].check_transaction(&proof(1, 50)).unwrap();
}
