//! Nobody dates a block back: an honest node prevotes a block that no earlier quorum prevoted only if,
//! when its proposal came, its own clock was ahead of the block's time by no more than the bound of
//! that round. So the time of whatever is decided lies no further behind than that.

use std::collections::BTreeMap;

use perturb_consensus::GuardMark;
use perturb_consensus::wire::SignedProposal;
use perturb_ledger::Block;
use perturb_types::Digest;

use super::{Judged, broken};
use crate::cast::{Cast, PROPOSAL_AGE_MS};

/// Milliseconds that each round allows more.
const PER_ROUND_MS: u64 = 2_000;

/// Milliseconds that no round exceeds.
const AT_MOST_MS: u64 = 30_000;

/// What was proposed when, and what time it names.
#[derive(Default)]
pub(super) struct Ages {
    times: BTreeMap<Digest, u64>,
    /// First arrival of a proposal without a valid round: (actor, height, round, block) to its clock.
    came: BTreeMap<(usize, u64, u32, Digest), u64>,
}

impl Ages {
    /// A block exists.
    pub fn block(&mut self, cast: &Cast, bytes: &[u8]) {
        if let Ok(block) = Block::decode(bytes) {
            self.times.insert(block.header.digest(&cast.network), block.header.time_ms);
        }
    }

    /// A proposal came to an actor.
    pub fn came(&mut self, actor: usize, clock: u64, p: &SignedProposal) {
        if p.pol_round.is_none() {
            self.came.entry((actor, p.height, p.round, p.digest)).or_insert(clock);
        }
    }

    /// An honest actor prevotes a block that no quorum prevoted before.
    pub fn prevoted(&self, actor: usize, mark: &GuardMark) -> Judged {
        let Some(digest) = mark.digest else { return Ok(()) };
        let came = self.came.get(&(actor, mark.height, mark.round, digest));
        let (Some(came), Some(time)) = (came, self.times.get(&digest)) else { return Ok(()) };
        let bound = (u64::from(PROPOSAL_AGE_MS) + PER_ROUND_MS * u64::from(mark.round)).min(AT_MOST_MS);
        if *came > time + bound {
            let what = format!("actor {actor} prevotes {mark}, {} ms old when it came, at most {bound}", came - time);
            return broken("age", what);
        }
        Ok(())
    }
}
