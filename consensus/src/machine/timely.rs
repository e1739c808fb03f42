//! How old a block may be when it is proposed.
//!
//! What is drawn for a block follows from its time, so a proposer must not date it back to before
//! something that is known by now. After the proposer-based timestamps of CometBFT:
//!
//! - A proposal without a valid round (a *fresh* one) is prevoted nil if, when its **signed proposal
//!   came**, the voter's clock was ahead of the block's time by more than the age bound. When the body
//!   came says nothing: the signature covers the time. The arrival is logged with the proposal, so that
//!   a node which crashes in between decides as it would have.
//! - The bound is `proposal_age_ms` and grows by [`AGE_DELTA_MS`] with each round up to
//!   [`bounds::MAX_PROPOSAL_AGE_MS`]: clocks that differ, and slow wires, cost rounds and not the network.
//! - It decides a prevote and nothing else. What a quorum prevoted or precommitted is followed whatever
//!   its time, and so are proposals with a valid round (a quorum found them in time when they were
//!   fresh), decided blocks, and blocks of a range.
//!
//! The engine knows one verdict per block, not per proposal, and votes as soon as it has block and
//! proposal. So it is shown a proposal not before its round has begun, and where that one is too old,
//! its wait for a proposal ends first: it prevotes nil, and what it learns then can only add up to a
//! quorum's votes.

use std::collections::BTreeMap;

use perturb_ledger::{StateStore, bounds};
use perturb_types::Digest;

use super::Machine;
use crate::Millis;
use crate::candidates::Seen;
use crate::planted::Planted;
use crate::record::{Record, Wait};
use crate::wire::{Gossip, SignedProposal};

/// Milliseconds by which each round lets a fresh proposal be older.
const AGE_DELTA_MS: Millis = 2_000;

/// Rounds whose proposals are held until they begin: as many as blocks are followed.
const MAX_EARLY: usize = 48;

/// Proposals held of one round: two show that a proposer equivocates.
const MAX_EARLY_PER_ROUND: usize = 2;

/// The age bound of a round, milliseconds.
fn max_age_ms(proposal_age_ms: u32, round: u32) -> Millis {
    let grown = AGE_DELTA_MS.saturating_mul(u64::from(round));
    u64::from(proposal_age_ms).saturating_add(grown).min(bounds::MAX_PROPOSAL_AGE_MS)
}

/// Proposals whose round has not begun here, by height and round.
#[derive(Default)]
pub(crate) struct Early(BTreeMap<(u64, u32), Vec<SignedProposal>>);

impl Early {
    /// Proposals held.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Forgets the heights below.
    pub fn start(&mut self, height: u64) {
        self.0 = self.0.split_off(&(height, 0));
    }

    /// Holds one; where there are too many, those of the furthest round go.
    pub fn put(&mut self, proposal: SignedProposal) {
        let of_round = self.0.entry((proposal.height, proposal.round)).or_default();
        if of_round.len() < MAX_EARLY_PER_ROUND && !of_round.contains(&proposal) {
            of_round.push(proposal);
        }
        if self.0.len() > MAX_EARLY {
            self.0.pop_last();
        }
    }

    /// Takes one of a height whose round is not above `round`.
    fn take(&mut self, height: u64, round: u32) -> Option<SignedProposal> {
        let (key, of_round) = self.0.range_mut((height, 0)..=(height, round)).next()?;
        let (key, proposal) = (*key, of_round.pop());
        if of_round.is_empty() {
            self.0.remove(&key);
        }
        proposal
    }
}

impl<S: StateStore> Machine<S> {
    /// Shows the engine a proposal whose round has begun. True if there was one.
    pub(super) fn let_in(&mut self) -> bool {
        let height = self.engine.height();
        let Some(proposal) = self.engine.round().and_then(|round| self.early.take(height, round)) else {
            return false;
        };
        let fresh = proposal.pol_round.is_none();
        let arrived = self.candidates.take_for_log(&proposal.digest, proposal.round, fresh);
        if let Some(at_ms) = arrived {
            self.append(&Record::Arrived { round: proposal.round, digest: proposal.digest, fresh, at_ms });
        }
        self.pass_over_old();
        self.feed_gossip(Gossip::Proposal(proposal));
        true
    }

    /// Ends the wait for a proposal where the round's own is too old. True if it was.
    pub(super) fn pass_over_old(&mut self) -> bool {
        let (height, Some(round)) = (self.engine.height(), self.engine.round()) else { return false };
        if !self.engine.is_proposing() {
            return false;
        }
        let Some(digest) = self.old_of(height, round) else { return false };
        tracing::warn!(height, round, digest = %digest.short(), "a proposed block is too old: prevoting nil");
        let outputs = self.engine.timeout(Wait::Propose, round);
        self.perform(outputs);
        true
    }

    /// A block that was too old when it was freshly proposed in this round.
    fn old_of(&self, height: u64, round: u32) -> Option<Digest> {
        let bound = max_age_ms(self.ledger.parameters().proposal_age_ms, round);
        let is_old = |seen: &Seen, time_ms: u64| {
            seen.fresh && seen.round == round && seen.arrived > time_ms.saturating_add(bound)
        };
        if self.config.planted == Planted::AgeUnbounded {
            return None;
        }
        self.candidates.with_bodies(height).find_map(|(digest, candidate, header)| {
            candidate.proposals.iter().any(|seen| is_old(seen, header.time_ms)).then_some(*digest)
        })
    }
}
