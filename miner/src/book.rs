//! What became of each round: offered, worked on, bound to an answer.
//!
//! A round is worked on once. What is kept is bounded: the oldest rounds go, long after their deadlines.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use perturb_ledger::ChallengeSpec;
use perturb_types::{Digest, RoundId};

/// Rounds kept: each was agreed, and a validator has few open at a time, so a few per validator of the
/// largest set suffice.
const KEPT_ROUNDS: usize = 512;

/// An agreed round that was not worked on yet.
#[derive(Clone, Debug)]
pub struct Work {
    /// The agreed digest of the image.
    pub image: Digest,
    /// The agreed specification.
    pub spec: ChallengeSpec,
    /// The validator's power.
    pub power: u64,
    /// This miner's place among the round's miners.
    pub place: usize,
}

/// What this miner is bound to in a round.
#[derive(Clone, Debug)]
pub struct Bound {
    /// This miner's place among the round's miners.
    pub place: usize,
    /// The commitment.
    pub commit: Digest,
    /// The answer.
    pub png: Arc<Vec<u8>>,
    /// When nobody can hand the answer in any more.
    pub show_from: Instant,
}

enum Stage {
    Offered(Box<Work>),
    Working,
    Bound(Box<Bound>),
}

/// The newest rounds.
#[derive(Default)]
pub struct Book(VecDeque<(RoundId, Stage)>);

impl Book {
    fn at(&mut self, round: &RoundId) -> Option<&mut Stage> {
        self.0.iter_mut().find(|(id, _)| id == round).map(|(_, stage)| stage)
    }

    fn put(&mut self, round: RoundId, stage: Stage) {
        if let Some(known) = self.at(&round) {
            *known = stage;
            return;
        }
        if self.0.len() >= KEPT_ROUNDS {
            self.0.pop_front();
        }
        self.0.push_back((round, stage));
    }

    /// Whether work on a round has begun.
    pub fn is_begun(&mut self, round: &RoundId) -> bool {
        self.at(round).is_some_and(|stage| !matches!(stage, Stage::Offered(_)))
    }

    /// An agreed round; nothing changes where work on it has begun.
    pub fn offer(&mut self, round: RoundId, work: Work) {
        if !self.is_begun(&round) {
            self.put(round, Stage::Offered(Box::new(work)));
        }
    }

    /// Begins a round that was offered, if the image is the agreed one.
    pub fn begin(&mut self, round: &RoundId, image: &Digest) -> Option<Work> {
        let stage = self.at(round)?;
        match stage {
            Stage::Offered(work) if work.image == *image => {
                let work = work.as_ref().clone();
                *stage = Stage::Working;
                Some(work)
            }
            _ => None,
        }
    }

    /// Binds this miner to an answer.
    pub fn bind(&mut self, round: RoundId, bound: Bound) {
        self.put(round, Stage::Bound(Box::new(bound)));
    }

    /// What this miner is bound to.
    pub fn bound(&mut self, round: &RoundId) -> Option<Bound> {
        match self.at(round)? {
            Stage::Bound(bound) => Some(bound.as_ref().clone()),
            _ => None,
        }
    }
}
