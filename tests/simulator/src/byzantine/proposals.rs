//! Lies with blocks.

use std::collections::BTreeMap;

use perturb_consensus::wire::{Gossip, Response, SignedProposal, SignedVote, Topic};
use perturb_ledger::{Block, ProposalInput, Transaction};
use perturb_types::{Digest, encode};
use rand::Rng;

use super::{Answer, Said, Scene, Strategy};

/// How an own block is bent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bend {
    /// Two valid blocks, one to each half.
    Two,
    /// A body that the header does not name.
    Body,
    /// A root that is not what execution gives.
    Roots,
    /// Nothing of the others' in it.
    Censored,
    /// A time just after its parent's, whenever that was.
    Time,
}

/// Proposes something else than its machine, and votes for that.
pub(super) struct Bent {
    bend: Bend,
    held: Option<SignedProposal>,
    /// The machine's block to the one that was sent instead.
    instead: BTreeMap<Digest, Digest>,
}

impl Bent {
    pub fn new(bend: Bend) -> Self {
        Self { bend, held: None, instead: BTreeMap::new() }
    }

    /// Another valid block at the same place.
    fn another(scene: &Scene<'_>, block: &Block, keep: impl Fn(&Transaction) -> bool) -> Option<Block> {
        Self::at(scene, block, block.header.time_ms + 1, keep)
    }

    /// The same with a time of its own.
    fn at(scene: &Scene<'_>, block: &Block, time_ms: u64, keep: impl Fn(&Transaction) -> bool) -> Option<Block> {
        let head = scene.machine.ledger().head();
        if block.header.height != head.height + 1 {
            return None;
        }
        let input = ProposalInput {
            time_ms,
            proposer: scene.pair().public(),
            reference: head.reference.clone(),
            snapshot: None,
            transactions: block.body.transactions.iter().filter(|t| keep(t)).cloned().collect(),
        };
        scene.machine.ledger().propose(input).ok().map(|(block, _)| block)
    }

    fn bent(&self, scene: &mut Scene<'_>, block: &Block) -> Option<Block> {
        let me = scene.pair().public();
        match self.bend {
            Bend::Two => Self::another(scene, block, |_| true),
            Bend::Time => {
                let parent_ms = scene.machine.ledger().head().time_ms;
                Self::at(scene, block, parent_ms + 1, |t| !matches!(t, Transaction::EpochClose { .. }))
            }
            Bend::Censored => Self::another(scene, block, |t| match t {
                Transaction::RoundOpen(e)
                | Transaction::RoundCommits(e)
                | Transaction::RoundResult(e)
                | Transaction::Readiness(e) => e.signer == me,
                _ => false,
            }),
            Bend::Roots => {
                let mut block = block.clone();
                let bit = 1 << scene.rng.random_range(0..8);
                match scene.rng.random_range(0..4) {
                    0 => block.header.state_root.0[3] ^= bit,
                    1 => block.header.results_root.0[3] ^= bit,
                    2 => block.header.next_validators.0[3] ^= bit,
                    _ => block.header.epoch += 1,
                }
                Some(block)
            }
            Bend::Body => Some(block.clone()),
        }
    }

    fn propose(&mut self, scene: &mut Scene<'_>, held: &SignedProposal, block: &Block) -> Option<Vec<Said>> {
        let bent = self.bent(scene, block)?;
        let id = scene.cast.network;
        let digest = bent.header.digest(&id);
        let proposal = SignedProposal::sign(scene.pair(), &id, held.height, held.round, digest, held.pol_round);
        let proposal = encode::encode(&Gossip::Proposal(proposal));
        let mut body = bent.clone();
        if self.bend == Bend::Body {
            // The header stays, the body is another.
            if body.body.transactions.pop().is_none() {
                body.body.parent_certificate = None;
            }
        }
        let body = encode::encode(&body);
        let pair = [(Topic::Consensus, proposal), (Topic::Blocks, body)];
        let to = |side: Vec<usize>, messages: &[(Topic, Vec<u8>)]| -> Vec<Said> {
            let one = |to: usize| {
                messages.iter().map(move |(topic, bytes)| Said { to, topic: *topic, bytes: bytes.clone(), after_ms: 0 })
            };
            side.into_iter().flat_map(one).collect()
        };
        if self.bend == Bend::Two {
            let honest = [
                (Topic::Consensus, encode::encode(&Gossip::Proposal(held.clone()))),
                (Topic::Blocks, encode::encode(block)),
            ];
            let (first, second) = scene.halves();
            let mut out = to(first, &honest);
            out.extend(to(second, &pair));
            return Some(out);
        }
        self.instead.insert(held.digest, digest);
        Some(to(scene.others.clone(), &pair))
    }
}

impl Strategy for Bent {
    fn say(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        let me = scene.pair().public();
        match topic {
            Topic::Consensus => match Gossip::decode(bytes) {
                Ok(Gossip::Proposal(p)) if p.proposer == me => {
                    self.held = Some(p);
                    Some(Vec::new())
                }
                Ok(Gossip::Vote(v)) if v.voter == me => {
                    let digest = *self.instead.get(&v.digest?)?;
                    let vote =
                        SignedVote::sign(scene.pair(), &scene.cast.network, v.step, v.height, v.round, Some(digest));
                    Some(scene.gossip(&Gossip::Vote(vote)))
                }
                _ => None,
            },
            Topic::Blocks => {
                let held = self.held.take()?;
                let block = Block::decode(bytes).ok()?;
                match self.propose(scene, &held, &block) {
                    Some(out) => Some(out),
                    None => {
                        let mut out = scene.gossip(&Gossip::Proposal(held));
                        out.extend(scene.to_all(topic, bytes));
                        Some(out)
                    }
                }
            }
            _ => None,
        }
    }
}

/// Proposes, and gives the body to nobody or to one.
pub(super) struct Withheld;

impl Strategy for Withheld {
    fn say(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        if topic != Topic::Blocks {
            return None;
        }
        let (some, _) = scene.halves();
        Some(some.into_iter().take(1).map(|to| Said { to, topic, bytes: bytes.to_vec(), after_ms: 0 }).collect())
    }

    fn answer(&mut self, scene: &mut Scene<'_>, _bytes: &[u8]) -> Answer {
        match scene.rng.random_range(0..3) {
            0 => Answer::Dropped,
            1 => Answer::Other(encode::encode(&Response::Body(None))),
            _ => Answer::Kept,
        }
    }
}
