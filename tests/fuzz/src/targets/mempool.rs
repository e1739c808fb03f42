//! One validator floods the mempool; the others' transactions still find room.

use perturb_consensus::wire::Topic;
use perturb_consensus::{Action, Verdict};
use perturb_ledger::tx::Readiness;
use perturb_ledger::{Block, DoubleVote, Equivocation, Transaction, VoteKind, vote_sign_bytes};
use perturb_types::{ConsensusPair, Digest, Signed, encode};

use super::peers::Host;
use crate::bytes::Reader;
use crate::world::{World, world};

/// Messages of one flood.
const FLOOD: usize = 2000;

/// What one validator may occupy: its own part, one of its hotkey, one that strangers share.
const ROOM: usize = 3 * 256;

/// The flooder.
const LIAR: usize = 0;

/// The n-th transaction of a kind that the liar can make alone.
fn flood(world: &World, kind: usize, n: u64) -> Transaction {
    let network = &world.network;
    let stranger = || {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        ConsensusPair::from_seed(&seed)
    };
    match kind {
        0 => Transaction::RoundOpen(world.open(LIAR, n, 0).into_envelope()),
        1 => {
            let ready = Readiness { hotkey: perturb_types::Hotkey([n as u8; 32]), epoch: 0 };
            Transaction::Readiness(Signed::sign(&stranger(), network, ready).into_envelope())
        }
        2 => Transaction::KeyDelegation(Box::new(world.hotkeys[LIAR].delegate(network, &stranger(), n + 1))),
        3 => {
            let digests = [Some(Digest([1; 32])), Some(Digest([2; 32]))];
            let pair = &world.keys[LIAR];
            let signed = |digest| pair.sign(&vote_sign_bytes(network, VoteKind::Prevote, n, 0, digest));
            Transaction::Evidence(Box::new(Equivocation::Votes(DoubleVote {
                key: pair.public(),
                kind: VoteKind::Prevote,
                height: n,
                round: 0,
                digests,
                signatures: digests.map(signed),
            })))
        }
        _ => {
            let open = world.open(LIAR, n, 0);
            world.sign_result(LIAR, world.result(LIAR, &open))
        }
    }
}

fn taken(host: &mut Host, transaction: &Transaction) -> Verdict {
    let actions = host.gossip(LIAR, Topic::Rounds, encode::encode(transaction));
    let verdict = actions.into_iter().find_map(|a| match a {
        Action::Verdict { verdict, .. } => Some(verdict),
        _ => None,
    });
    verdict.unwrap()
}

/// A script of floods: kinds and counts.
pub fn mempool(bytes: &[u8]) {
    let (world, mut r) = (world(), Reader::new(bytes));
    let proposer = Host::new(world, 0, 0).machine().proposer(1, 0);
    let me = world.keys.iter().position(|k| k.public() == proposer).filter(|me| *me != LIAR);
    let mut host = Host::new(world, me.expect("the liar does not propose first"), 0);
    let (mut sent, mut serial) = (0, 0);
    while !r.is_done() && sent < FLOOD {
        let kind = r.below(6);
        let count = 1 + usize::from(r.byte()) * 2;
        for _ in 0..count.min(FLOOD - sent) {
            serial += 1;
            match kind {
                5 => {
                    let mut bytes = encode::encode(&flood(world, r.below(5), serial));
                    r.damage(&mut bytes);
                    host.gossip(LIAR, Topic::Rounds, bytes);
                }
                kind => drop(taken(&mut host, &flood(world, kind, serial))),
            }
            sent += 1;
        }
    }
    let held = host.load().transactions;
    assert!(held <= ROOM, "one validator occupies {held} places of the mempool");
    // The honest are heard.
    for v in [1, 2] {
        for transaction in world.whole(v, 0, 0) {
            let verdict = taken(&mut host, &transaction);
            assert!(verdict == Verdict::Accept, "crowded out: {verdict:?}");
        }
    }
    let order = world.order(perturb_ledger::tx::Order::SetRequiredVersion(1, 0, 0), 0, 5);
    let verdict = taken(&mut host, &order);
    assert!(verdict == Verdict::Accept, "the owner is crowded out: {verdict:?}");
    // And their rounds are in the next block.
    let block = (0..20).find_map(|_| {
        host.fire().into_iter().find_map(|a| match a {
            Action::Broadcast { topic: Topic::Blocks, bytes } => Block::decode(&bytes).ok(),
            _ => None,
        })
    });
    let block = block.expect("the first block is this node's to propose");
    for transaction in [1, 2].into_iter().flat_map(|v| world.whole(v, 0, 0)) {
        assert!(block.body.transactions.contains(&transaction), "the block has no room for the honest");
    }
}
