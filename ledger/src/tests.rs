//! The ledger as a whole: rounds, blocks, epochs, proofs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use perturb_challenge::rules::Rules;
use perturb_challenge::verify::Verdict;
use perturb_types::round::{AnswerStatement, Meaning, TransformSecret};
use perturb_types::{
    Beacon, ChallengeId, ConsensusPair, Digest, Entry, Hotkey, HotkeyPair, Measurement, Millionths, NetworkId, Reason,
    RoundCommits, RoundId, RoundOpen, RoundPair, RoundResult, Signed, encode,
};

use crate::block::{Block, ChainReference};
use crate::certificate::{Certificate, VoteKind, proposal_sign_bytes, vote_sign_bytes};
use crate::evidence::{DoubleProposal, DoubleVote, Equivocation};
use crate::genesis::{Aggregation, ChallengeSpec, Draws, Genesis, GenesisDelegation, Parameters, Timeouts};
use crate::ledger::{BlockError, Executed, Ledger, ProposalInput, genesis_commit};
use crate::proofs::StateProof;
use crate::pulse::Pulse;
use crate::receipt::{Effect, ReceiptProof};
use crate::store::MemoryStore;
use crate::tx::{Delegation, Neuron, Order, OwnerAction, Readiness, Snapshot, Transaction};
use crate::validators::PowerRule;
use crate::{query, state};

mod bounds;
mod checks;
mod commits;
mod draws;
mod lazy;
mod lots;
mod net;
mod orders;
mod owed;
mod past;
mod snapshot;
mod standing;
mod thirds;
mod town;
mod verdicts;
use net::{Net, pair, reference};

const ZERO: NetworkId = NetworkId([0; 32]);

#[test]
fn rounds_become_scores_and_an_epoch_becomes_weights() {
    let net = Net::new();
    let mut ls = pair(&net);
    for seq in 0..2 {
        let txs: Vec<_> = (0..4).flat_map(|v| net.whole(v, seq, 0)).collect();
        let input = net.input(&ls[0], txs);
        assert_eq!(net.step(&mut ls, input).body.transactions.len(), 12);
    }
    let standings = query::standings(ls[0].store(), ChallengeId(0)).unwrap();
    assert_eq!(standings[&net.miners[0].hotkey()].results, 8);
    let ready = (0..4).map(|v| net.ready(v, 0)).collect();
    net.close(&mut ls, 9, 1, ready);
    let record = crate::epoch::record(ls[0].store(), 0, ChallengeId(0)).unwrap().unwrap();
    assert_eq!(record.results, 24);
    assert_eq!(record.miners.len(), 3);
    // Uids 5, 6, 7 are the miners; shares 70 and 25 renormalised: 65535 and round(65535·25/70).
    let weights: Vec<(u16, u16)> = record.weights.iter().map(|w| (w.0, w.2)).collect();
    assert_eq!(weights, [(5, 65535), (6, 23405)]);
    assert_eq!(record.miners[2].aggregate.as_ref().unwrap().score, Millionths(0));
    assert_eq!(ls[0].head().epoch, 1);
    assert_eq!(query::meta(ls[0].store()).unwrap().results, 0);
}

#[test]
fn nobody_is_ranked_without_a_quorum_of_fresh_full_histories() {
    let net = Net::new();
    let mut ls = pair(&net);
    for seq in 0..2 {
        // Two of four validators are no quorum.
        let txs: Vec<_> = (0..2).flat_map(|v| net.whole(v, seq, 0)).collect();
        let input = net.input(&ls[0], txs);
        net.step(&mut ls, input);
    }
    net.close(&mut ls, 9, 1, vec![]);
    let record = crate::epoch::record(ls[0].store(), 0, ChallengeId(0)).unwrap().unwrap();
    assert!(record.miners.iter().all(|m| m.aggregate.is_none()));
    assert_eq!(record.weights, [(0, Some(net.hotkeys[0].hotkey()), 65535)], "all to the burn uid");
}

#[test]
fn a_result_that_does_not_follow_its_opening_is_refused() {
    let net = Net::new();
    let mut ls = pair(&net);
    let open = net.open(0, 0, 0);
    let good = net.result(0, &open);
    let bound = net.bind(0, net.commits(&open, &good));
    let input = net.input(&ls[0], vec![Transaction::RoundOpen(open.envelope().clone()), bound]);
    net.step(&mut ls, input);
    let bad = |change: &dyn Fn(&mut RoundResult)| {
        let mut r = good.clone();
        change(&mut r);
        ls[0].check_transaction(&net.sign(0, r)).unwrap_err().to_string()
    };
    assert!(bad(&|r| r.open = Digest([0; 32])).contains("another opening"));
    assert!(bad(&|r| r.entries.swap(0, 1)).contains("order"));
    assert!(bad(&|r| r.entries.truncate(2)).contains("order"));
    assert!(bad(&|r| r.transform = TransformSecret([8; 32])).contains("transform"));
    assert!(bad(&|r| r.entries[0].answer.as_mut().unwrap().0[3] ^= 1).contains("not the one it was bound to"));
    assert!(!bad(&|r| r.entries[0].score = Millionths(999_999)).is_empty(), "a score that does not follow");
    assert!(!bad(&|r| r.entries[2].score = Millionths(1)).is_empty());
    ls[0].check_transaction(&net.sign(0, good.clone())).unwrap();
    // Another validator's signature is not the round's.
    assert!(ls[0].check_transaction(&net.sign(1, good)).is_err());
}

#[test]
fn round_numbers_are_contiguous_and_used_once() {
    let net = Net::new();
    let mut ls = pair(&net);
    let early = Transaction::RoundOpen(net.open(0, 1, 0).into_envelope());
    assert!(ls[0].check_transaction(&early).unwrap_err().is_early());
    let txs = net.whole(0, 0, 0).to_vec();
    let input = net.input(&ls[0], txs.clone());
    net.step(&mut ls, input);
    for replayed in &txs {
        assert!(!ls[0].check_transaction(replayed).unwrap_err().is_early());
    }
    // A stranger's key: the fifth hotkey has a permit and no place in the set.
    assert!(ls[0].check_transaction(&Transaction::RoundOpen(net.open(4, 0, 0).into_envelope())).is_err());
}

#[test]
fn a_round_that_is_never_closed_counts_against_its_validator() {
    let net = Net::new();
    let mut ls = pair(&net);
    let input = net.input(&ls[0], vec![Transaction::RoundOpen(net.open(0, 0, 0).into_envelope())]);
    net.step(&mut ls, input);
    for _ in 0..5 {
        let input = net.input(&ls[0], vec![]);
        net.step(&mut ls, input);
    }
    let v = net.hotkeys[0].hotkey();
    assert_eq!(query::reputation(ls[0].store(), &v).unwrap().epoch.unclosed, 1);
    assert!(!query::sequence(ls[0].store(), ChallengeId(0), &v).unwrap().open);
}

#[test]
fn a_fifth_validator_registers_is_ready_and_becomes_a_member() {
    let net = Net::new();
    let mut ls = pair(&net);
    let d = Delegation::sign(&net.id(), &net.hotkeys[4], &net.keys[4], 0);
    let stolen = Delegation { key: net.keys[0].public(), ..d.clone() };
    assert!(ls[0].check_transaction(&Transaction::KeyDelegation(Box::new(stolen))).is_err());
    assert!(ls[0].check_transaction(&net.ready(4, 0)).unwrap_err().is_early());
    let mut txs = vec![Transaction::KeyDelegation(Box::new(d.clone()))];
    txs.extend((0..5).map(|v| net.ready(v, 0)));
    let input = net.input(&ls[0], txs);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 6);
    assert!(ls[0].check_transaction(&Transaction::KeyDelegation(Box::new(d))).is_err(), "sequence must rise");
    let block = net.close(&mut ls, 9, 1, vec![]);
    assert_eq!(ls[0].validators().len(), 5);
    assert_ne!(block.header.validators, block.header.next_validators);
    // Four of five are ready: the silent member loses its place.
    let ready = (0..4).map(|v| net.ready(v, 1)).collect();
    net.close(&mut ls, 19, 2, ready);
    assert_eq!(ls[0].validators().len(), 4);
    // Those who are ready are no quorum of the others: nobody loses it.
    let ready = (0..2).map(|v| net.ready(v, 2)).collect();
    net.close(&mut ls, 29, 3, ready);
    assert_eq!(ls[0].validators().len(), 4);
    net.close(&mut ls, 39, 4, vec![]);
    assert_eq!(ls[0].validators().len(), 4);
}

#[test]
fn a_next_key_signs_from_the_next_epoch_on_and_never_beside_the_old_one() {
    let mut net = Net::new();
    let next = ConsensusPair::from_seed(&[16; 32]);
    net.keys.push(next.clone());
    let me = net.hotkeys[0].hotkey();
    let mut ls = pair(&net);
    let delegate = |hotkey: usize, key: &ConsensusPair, sequence| {
        Transaction::KeyDelegation(Box::new(Delegation::sign(&net.id(), &net.hotkeys[hotkey], key, sequence)))
    };
    let ready_by = |pair: &ConsensusPair, epoch| {
        Transaction::Readiness(Signed::sign(pair, &net.id(), Readiness { hotkey: me, epoch }).into_envelope())
    };
    let input = net.input(&ls[0], (0..4).map(|v| net.ready(v, 0)).collect());
    net.step(&mut ls, input);
    assert!(query::is_ready(ls[0].store(), 0, &me).unwrap());

    // Registered at once; in this epoch the old one goes on.
    let input = net.input(&ls[0], vec![delegate(0, &next, 1)]);
    net.step(&mut ls, input);
    assert_eq!(query::registered_key(ls[0].store(), &me).unwrap().unwrap().key, next.public());
    assert_eq!(ls[0].validators().by_hotkey(&me).unwrap().key, net.keys[0].public());
    assert!(!query::is_ready(ls[0].store(), 0, &me).unwrap(), "the old key's word does not count for the next one");
    assert!(ls[0].check_transaction(&ready_by(&net.keys[0], 0)).is_err());
    for taken in [&next, &net.keys[0]] {
        assert!(ls[0].check_transaction(&delegate(4, taken, 0)).is_err(), "both keys are somebody's");
    }
    let open = net.open(0, 0, 0);
    let input = net.input(&ls[0], vec![ready_by(&next, 0), Transaction::RoundOpen(open.clone().into_envelope())]);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 2);

    net.close(&mut ls, 9, 1, vec![]);
    assert_eq!((ls[0].validators().len(), ls[0].validators().by_hotkey(&me).unwrap().key), (4, next.public()));
    assert!(ls[0].validators().by_key(&net.keys[0].public()).is_none());
    // A round that the old key opened is closed by the new one.
    let result = net.result(0, &open);
    assert!(ls[0].check_transaction(&net.sign(0, result.clone())).is_err());
    let bound = Signed::sign(&next, &net.id(), net.commits(&open, &result));
    let bound = Transaction::RoundCommits(bound.into_envelope());
    let again = Transaction::RoundResult(Signed::sign(&next, &net.id(), result).into_envelope());
    let input = ProposalInput { proposer: next.public(), ..net.input(&ls[0], vec![bound, again]) };
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 2);
}

#[test]
fn a_next_key_that_nobody_says_to_have_takes_no_place() {
    let net = Net::new();
    let mut ls = pair(&net);
    let next = ConsensusPair::from_seed(&[16; 32]);
    let d = Delegation::sign(&net.id(), &net.hotkeys[0], &next, 1);
    let mut txs: Vec<_> = (0..4).map(|v| net.ready(v, 0)).collect();
    txs.push(Transaction::KeyDelegation(Box::new(d)));
    let input = net.input(&ls[0], txs);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 5);
    net.close(&mut ls, 9, 1, vec![]);
    assert_eq!(ls[0].validators().len(), 3);
    assert!(ls[0].validators().by_hotkey(&net.hotkeys[0].hotkey()).is_none());
}

#[test]
fn a_contradiction_is_recorded_once() {
    let net = Net::new();
    let mut ls = pair(&net);
    let key = net.keys[1].public();
    let evidence = |e: Equivocation| Transaction::Evidence(Box::new(e));
    let votes = |digests: [Option<Digest>; 2]| {
        let sign = |d| net.keys[1].sign(&vote_sign_bytes(&net.id(), VoteKind::Prevote, 1, 0, d));
        let (kind, signatures) = (VoteKind::Prevote, digests.map(sign));
        evidence(Equivocation::Votes(DoubleVote { key, kind, height: 1, round: 0, digests, signatures }))
    };
    let proposals = |digests: [Digest; 2], pol_rounds: [Option<u32>; 2]| {
        let sign = |i: usize| net.keys[1].sign(&proposal_sign_bytes(&net.id(), 1, 0, digests[i], pol_rounds[i]));
        let signatures = [sign(0), sign(1)];
        let double = DoubleProposal { key, height: 1, round: 0, digests, pol_rounds, signatures };
        evidence(Equivocation::Proposals(double))
    };
    let [one, two] = [1, 2].map(|i| Digest([i; 32]));
    for innocent in [votes([Some(one); 2]), proposals([one; 2], [None, Some(0)]), votes([Some(one), None])] {
        assert!(ls[0].check_transaction(&innocent).is_err());
    }
    let mut forged = proposals([one, two], [None; 2]);
    if let Transaction::Evidence(e) = &mut forged
        && let Equivocation::Proposals(p) = e.as_mut()
    {
        p.height = 2;
    }
    assert!(ls[0].check_transaction(&forged).is_err());
    let both = [votes([None, Some(one)]), proposals([one, two], [None, Some(0)])];
    let input = net.input(&ls[0], both.to_vec());
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 2);
    assert_eq!(query::reputation(ls[0].store(), &net.hotkeys[1].hotkey()).unwrap().epoch.equivocations, 2);
    for again in [votes([None, Some(two)]), both[1].clone()] {
        assert!(ls[0].check_transaction(&again).is_err(), "one fault is one, whatever shows it");
    }
}

#[test]
fn a_block_with_any_wrong_field_is_refused() {
    let net = Net::new();
    let ls = pair(&net);
    let (block, _) = ls[0].propose(net.input(&ls[0], net.whole(0, 0, 0).to_vec())).unwrap();
    let refuse = |change: &dyn Fn(&mut Block)| {
        let mut b = block.clone();
        change(&mut b);
        assert!(ls[1].check(&b).is_err());
    };
    refuse(&|b| b.header.protocol += 1);
    refuse(&|b| b.header.network = ZERO);
    refuse(&|b| b.header.height += 1);
    refuse(&|b| b.header.parent = Digest([9; 32]));
    refuse(&|b| b.header.time_ms = 1);
    refuse(&|b| b.header.proposer = net.keys[4].public());
    refuse(&|b| b.header.state_root = Digest([9; 32]));
    refuse(&|b| b.header.results_root = Digest([9; 32]));
    refuse(&|b| b.header.validators = Digest([9; 32]));
    refuse(&|b| b.header.next_validators = Digest([9; 32]));
    refuse(&|b| b.header.epoch += 1);
    refuse(&|b| b.header.reference.number = 0);
    refuse(&|b| b.header.reference = reference(9, 1));
    refuse(&|b| drop(b.body.transactions.pop()));
    refuse(&|b| b.body.transactions.swap(0, 1));
    refuse(&|b| b.body.transactions.push(b.body.transactions[0].clone()));
    ls[1].check(&block).unwrap();
}

#[test]
fn the_parent_must_be_certified_by_its_own_set() {
    let net = Net::new();
    let mut ls = pair(&net);
    let input = net.input(&ls[0], vec![]);
    net.step(&mut ls, input);
    let digest = ls[0].head().digest;
    let bytes = vote_sign_bytes(&net.id(), VoteKind::Precommit, 1, 0, Some(digest));
    let signed = |n: std::ops::Range<usize>| {
        Certificate::new(1, 0, digest, net.keys[n].iter().map(|k| (k.public(), k.sign(&bytes))).collect())
    };
    // A node that saw other precommits proposes with those.
    let with = |certificate: Certificate| {
        let mut ledger = net.ledger();
        let (_, executed) = ledger.propose(net.input(&ledger, vec![])).unwrap();
        let commit = ledger.commit(executed, certificate).unwrap();
        ledger.store_mut().commit(&commit);
        ledger.propose(net.input(&ledger, vec![])).unwrap().0
    };
    ls[1].check(&with(signed(1..4))).unwrap();
    assert!(matches!(ls[1].check(&with(signed(2..4))), Err(BlockError::Parent { .. })));
}

#[test]
fn rows_and_their_absence_are_proved_against_the_state_root() {
    let net = Net::new();
    let mut ls = pair(&net);
    let input = net.input(&ls[0], net.whole(0, 0, 0).to_vec());
    net.step(&mut ls, input);
    let root = ls[0].head().state_root;
    let key = state::history_key(ChallengeId(0), &net.miners[0].hotkey(), &net.hotkeys[0].hotkey());
    let proof = StateProof::make(ls[0].store(), 1, &key).unwrap();
    assert!(proof.value.is_some() && proof.verify(&root));
    let mut other = proof.clone();
    other.value.as_mut().unwrap()[0] ^= 1;
    assert!(!other.verify(&root) && !proof.verify(&Digest([0; 32])));
    let absent = StateProof::make(ls[0].store(), 1, b"nothing here").unwrap();
    assert!(absent.value.is_none() && absent.verify(&root));
    let mut claimed = absent;
    claimed.value = Some(vec![1]);
    assert!(!claimed.verify(&root));
}

#[test]
fn a_genesis_file_reads_back_and_a_forged_founder_is_refused() {
    let net = Net::new();
    let json = serde_json::to_vec(&net.genesis).unwrap();
    let read = Genesis::load(&json).unwrap();
    assert_eq!(read, net.genesis);
    assert_eq!(read.network_id(), net.id());
    let mut forged = net.genesis.clone();
    forged.delegations[0].key = net.keys[4].public();
    assert!(Genesis::load(&serde_json::to_vec(&forged).unwrap()).unwrap_err().to_string().contains("signature"));
    let mut poor = net.genesis.clone();
    poor.parameters.min_stake_rao = 6000;
    assert!(poor.validate().unwrap_err().to_string().contains("minimum stake"));
    assert!(Genesis::load(b"{}").is_err());
}

#[test]
fn an_entry_keeps_its_place_in_the_record() {
    // The record's size is what the limits were made for.
    let net = Net::new();
    let open = net.open(0, 0, 0);
    let entry: Entry = net.result(0, &open).entries[0].clone();
    assert!(encode::encode(&entry).len() < 256);
    assert_eq!(Hotkey(net.miners[0].hotkey().0), entry.miner);
}

#[test]
fn a_receipt_shows_what_counted_and_what_an_epoch_came_to() {
    let net = Net::new();
    let mut ls = pair(&net);
    let txs: Vec<_> = (0..4).flat_map(|v| net.whole(v, 0, 0)).collect();
    let (block, executed) = ls[0].propose(net.input(&ls[0], txs.clone())).unwrap();
    let proof = ReceiptProof::make(&net.id(), executed.receipts(), 2).unwrap();
    assert!(proof.verify(&net.id(), &block.header.results_root));
    assert_eq!(proof.receipt.transaction, txs[2].digest(&net.id()));
    let Effect::Scored { round, counted } = &proof.receipt.effect else { panic!("{:?}", proof.receipt) };
    assert_eq!(*round, net.round(0, 0));
    let standings = |ls: &[Ledger<MemoryStore>; 2]| query::standings(ls[0].store(), ChallengeId(0)).unwrap();
    let input = net.input(&ls[0], txs);
    net.step(&mut ls, input);
    for (miner, score) in counted {
        assert_eq!(u64::from(score.0), standings(&ls)[miner].mean, "all four validators scored it the same");
    }
    let mut other = proof.clone();
    other.receipt.effect = Effect::Applied;
    assert!(!other.verify(&net.id(), &block.header.results_root));
    assert!(ReceiptProof::make(&net.id(), executed.receipts(), 12).is_none());

    let close = net.close(&mut ls, 9, 1, vec![]);
    let record = crate::epoch::record(ls[0].store(), 0, ChallengeId(0)).unwrap().unwrap();
    let effect = Effect::Closed {
        epoch: 0,
        weights: vec![(ChallengeId(0), record.weights)],
        next_validators: close.header.next_validators,
    };
    let receipt = crate::Receipt { transaction: close.body.transactions[0].digest(&net.id()), effect };
    assert_eq!(close.header.results_root, crate::receipt::root(&net.id(), &[receipt]));
}

#[test]
fn a_changed_challenge_voids_the_rounds_that_are_open_and_blames_nobody() {
    let net = Net::new();
    let order = |nonce, order| {
        Transaction::OwnerAction(Box::new(OwnerAction::sign(&net.id(), &net.owner, order, nonce, 3, 100)))
    };
    let spec = net.genesis.challenges[0].clone();
    for change in [Order::UpdateChallenge(Box::new(spec)), Order::RemoveChallenge(ChallengeId(0))] {
        let mut ls = pair(&net);
        let open = net.open(0, 1, 0);
        let mut txs = net.whole(0, 0, 0).to_vec();
        txs.push(Transaction::RoundOpen(open.envelope().clone()));
        let input = net.input(&ls[0], txs);
        net.step(&mut ls, input);
        let removed = matches!(change, Order::RemoveChallenge(_));
        let input = net.input(&ls[0], vec![order(0, change)]);
        assert_eq!(net.step(&mut ls, input).body.transactions.len(), 1);
        assert!(query::sequence(ls[0].store(), ChallengeId(0), &net.hotkeys[0].hotkey()).unwrap().open);
        let input = net.input(&ls[0], vec![]);
        net.step(&mut ls, input);
        let v = net.hotkeys[0].hotkey();
        let row = query::sequence(ls[0].store(), ChallengeId(0), &v).unwrap();
        assert_eq!((row.next, row.open), (2, false), "numbers are never used again");
        assert_eq!(query::reputation(ls[0].store(), &v).unwrap().epoch.unclosed, 0);
        assert!(ls[0].check_transaction(&net.sign(0, net.result(0, &open))).is_err());
        assert_eq!(query::standings(ls[0].store(), ChallengeId(0)).unwrap().is_empty(), removed);
    }
}

#[test]
fn an_epochs_close_forgets_who_is_no_longer_registered() {
    let net = Net::new();
    let mut ls = pair(&net);
    let txs: Vec<_> = (0..4).flat_map(|v| net.whole(v, 0, 0)).collect();
    let input = net.input(&ls[0], txs);
    net.step(&mut ls, input);
    let at = reference(9, 1);
    let mut snapshot = net.snapshot(at.clone());
    let (gone_validator, gone_miner) = (net.hotkeys[3].hotkey(), net.miners[1].hotkey());
    snapshot.neurons.retain(|n| n.hotkey != gone_validator && n.hotkey != gone_miner);
    let input = ProposalInput { snapshot: Some(snapshot), reference: at, ..net.input(&ls[0], vec![]) };
    net.step(&mut ls, input);
    let there = |v: &Hotkey, m: &Hotkey| {
        let key = state::history_key(ChallengeId(0), m, v);
        StateProof::make(ls[0].store(), 2, &key).unwrap().value.is_some()
    };
    assert!(there(&net.hotkeys[0].hotkey(), &net.miners[0].hotkey()));
    assert!(!there(&gone_validator, &net.miners[0].hotkey()) && !there(&net.hotkeys[0].hotkey(), &gone_miner));
}
