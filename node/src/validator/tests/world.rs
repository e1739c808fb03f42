//! A network's beginning and a history of empty blocks, certified by all its founders.

use std::path::Path;

use perturb_ledger::ledger::{Ledger, ProposalInput, genesis_commit};
use perturb_ledger::seeds::{Lots, SeedsRow};
use perturb_ledger::tx::{Neuron, Snapshot};
use perturb_ledger::{Certificate, ChainReference, Genesis, Transaction, VoteKind, vote_sign_bytes};
use perturb_storage::{Database, Options};
use perturb_types::{ConsensusPair, Digest, Lot, RoundId, RoundPair};

use crate::localnet::plan::Plan;

/// The genesis of a plan: its validators have permits and stake.
pub fn genesis(plan: &Plan) -> Genesis {
    let all = plan.validators.iter().chain(&plan.miners).enumerate();
    let neurons = all.map(|(uid, member)| Neuron {
        uid: uid as u16,
        hotkey: member.hotkey.hotkey(),
        coldkey: [uid as u8; 32],
        stake_rao: if member.kind.is_none() { 5000 * 1_000_000_000 } else { 0 },
        permit: member.kind.is_none(),
    });
    let snapshot = Snapshot {
        reference: ChainReference { number: 1, hash: Digest([1; 32]), epoch_index: 0 },
        tempo: 10,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: neurons.collect(),
    };
    crate::localnet::genesis::of(plan, Digest([1; 32]), snapshot).unwrap()
}

/// The lot of the miners of a founder's first round.
pub fn miner_lot(genesis: &Genesis, pair: &ConsensusPair, round: &RoundId) -> Lot {
    let network = genesis.network_id();
    Lots::draw(&RoundPair::of(pair), &network, SeedsRow::first(&network).seed, round).miners
}

/// A database with the blocks up to a height.
pub fn history(dir: &Path, plan: &Plan, genesis: &Genesis, tip: u64) -> Database {
    let db = Database::open(dir, &genesis.network_id(), Options::default()).unwrap();
    db.commit(&genesis_commit(genesis).unwrap()).unwrap();
    let mut ledger = Ledger::new(genesis.clone(), db.clone()).unwrap();
    let pairs: Vec<_> = plan.validators.iter().map(|v| plan.consensus(v)).collect();
    for height in 1..=tip {
        let input = ProposalInput {
            time_ms: ledger.head().time_ms + 1000,
            proposer: pairs[0].public(),
            snapshot: None,
            reference: ledger.head().reference.clone(),
            transactions: vec![],
        };
        let (_, executed) = ledger.propose(input).unwrap();
        let bytes = vote_sign_bytes(&ledger.network(), VoteKind::Precommit, height, 0, Some(executed.digest()));
        let signatures = pairs.iter().map(|p| (p.public(), p.sign(&bytes))).collect();
        let certificate = Certificate::new(height, 0, executed.digest(), signatures);
        db.commit(&ledger.commit(executed, certificate).unwrap()).unwrap();
    }
    db
}

/// Commits a block with these transactions, certified by whoever of `pairs` is a member.
pub fn commit(ledger: &mut Ledger<Database>, pairs: &[ConsensusPair], txs: Vec<Transaction>, closes: bool) {
    let mut reference = ledger.head().reference.clone();
    let mut snapshot = None;
    if closes {
        let (number, epoch_index) = (reference.number + 9, reference.epoch_index + 1);
        reference = ChainReference { number, hash: Digest([number as u8; 32]), epoch_index };
        let old = perturb_ledger::query::snapshot(ledger.store()).unwrap();
        snapshot = Some(perturb_ledger::tx::Snapshot { reference: reference.clone(), ..old });
    }
    let members: Vec<_> = pairs.iter().filter(|p| ledger.validators().by_key(&p.public()).is_some()).collect();
    let count = txs.len() + usize::from(closes);
    let input = ProposalInput {
        time_ms: ledger.head().time_ms + 1000,
        proposer: members[0].public(),
        snapshot,
        reference,
        transactions: txs,
    };
    let (block, executed) = ledger.propose(input).unwrap();
    assert_eq!(block.body.transactions.len(), count, "everything was agreed");
    let height = block.header.height;
    let digest = executed.digest();
    let bytes = vote_sign_bytes(&ledger.network(), VoteKind::Precommit, height, 0, Some(digest));
    let signatures = members.iter().map(|p| (p.public(), p.sign(&bytes))).collect();
    let commit = ledger.commit(executed, Certificate::new(height, 0, digest, signatures));
    ledger.store().clone().commit(&commit.unwrap()).unwrap();
}
