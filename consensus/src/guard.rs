//! The signing guard: never two different signatures for one (height, round, step).
//!
//! Steps are ordered within a height: (round, proposal < prevote < precommit). What is signed
//! only ever moves forward, and repeating the same signature is allowed. The guard of this module
//! lives in memory; the driver keeps the same rule in a file of its own, synced before a message
//! leaves and never rolled back ([`crate::Action::Guard`]), so that a node whose database lost its
//! tail cannot contradict itself either.

use std::collections::BTreeMap;
use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::Digest;

/// Signatures kept of one height: a node would have to go through hundreds of rounds to reach it.
const MAX_REMEMBERED: usize = 4096;

/// What a signature is for, in the order in which a round signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Step {
    /// A proposal.
    Proposal = 0,
    /// A prevote.
    Prevote = 1,
    /// A precommit.
    Precommit = 2,
}

/// The last thing signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct GuardMark {
    /// The height.
    pub height: u64,
    /// The round.
    pub round: u32,
    /// The step.
    pub step: Step,
    /// What was signed for; `None` is nil. A proposal's also covers its `pol_round`.
    pub digest: Option<Digest>,
}

impl GuardMark {
    /// The position that only ever rises.
    pub fn position(&self) -> (u64, u32, Step) {
        (self.height, self.round, self.step)
    }

    /// Whether something else was signed at the same position, or the position lies behind.
    #[must_use]
    pub fn forbids(&self, next: &Self) -> bool {
        next.position() < self.position() || (next.position() == self.position() && next.digest != self.digest)
    }
}

impl fmt::Display for GuardMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.digest.map_or_else(|| "nil".to_owned(), |d| d.short());
        write!(f, "{:?} at height {} round {} for {what}", self.step, self.height, self.round)
    }
}

/// A signature that would contradict one given before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refusing to sign {wanted}: already signed {signed}")]
pub struct Conflict {
    /// What was signed.
    pub signed: GuardMark,
    /// What should have been.
    pub wanted: GuardMark,
}

/// The guard in memory.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    floor: Option<GuardMark>,
    signed: BTreeMap<(u64, u32, Step), Option<Digest>>,
}

impl Guard {
    /// A guard that starts from what the file remembers.
    pub fn new(floor: Option<GuardMark>) -> Self {
        Self { floor, signed: BTreeMap::new() }
    }

    /// The furthest position signed so far.
    pub fn floor(&self) -> Option<GuardMark> {
        self.floor
    }

    /// Whether a signature may be given; remembers it if so.
    ///
    /// # Errors
    /// It contradicts one given before.
    pub fn admit(&mut self, wanted: GuardMark) -> Result<(), Conflict> {
        if let Some(digest) = self.signed.get(&wanted.position()) {
            let signed = GuardMark { digest: *digest, ..wanted };
            return if *digest == wanted.digest { Ok(()) } else { Err(Conflict { signed, wanted }) };
        }
        if let Some(signed) = self.floor.filter(|floor| floor.forbids(&wanted)) {
            return Err(Conflict { signed, wanted });
        }
        self.remember(wanted);
        Ok(())
    }

    /// Takes over what the log says was signed in an earlier run.
    pub fn remember(&mut self, mark: GuardMark) {
        self.signed.entry(mark.position()).or_insert(mark.digest);
        if self.floor.is_none_or(|floor| mark.position() > floor.position()) {
            self.floor = Some(mark);
        }
        while self.signed.len() > MAX_REMEMBERED {
            self.signed.pop_first();
        }
    }

    /// Forgets heights below: the floor covers them.
    pub fn forget_below(&mut self, height: u64) {
        self.signed.retain(|(h, ..), _| *h >= height);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn mark(height: u64, round: u32, step: Step, digest: u8) -> GuardMark {
        GuardMark { height, round, step, digest: (digest > 0).then_some(Digest([digest; 32])) }
    }

    #[test]
    fn the_same_again_is_allowed_and_another_is_not() {
        let mut guard = Guard::default();
        guard.admit(mark(1, 0, Step::Prevote, 1)).unwrap();
        guard.admit(mark(1, 0, Step::Precommit, 1)).unwrap();
        guard.admit(mark(1, 0, Step::Prevote, 1)).unwrap();
        assert!(guard.admit(mark(1, 0, Step::Prevote, 2)).is_err());
        assert!(guard.admit(mark(1, 0, Step::Prevote, 0)).is_err());
    }

    #[test]
    fn nothing_behind_the_files_mark_is_signed() {
        let mut guard = Guard::new(Some(mark(5, 1, Step::Prevote, 1)));
        assert!(guard.admit(mark(5, 1, Step::Prevote, 1)).is_ok());
        assert!(guard.admit(mark(5, 1, Step::Proposal, 1)).is_err());
        assert!(guard.admit(mark(5, 0, Step::Precommit, 1)).is_err());
        assert!(guard.admit(mark(4, 9, Step::Precommit, 1)).is_err());
        assert!(guard.admit(mark(5, 1, Step::Precommit, 0)).is_ok());
    }

    proptest! {
        #[test]
        fn no_sequence_signs_two_things_at_one_position(
            wants in proptest::collection::vec((1u64..4, 0u32..3, 0u8..3, 0u8..3), 0..60),
        ) {
            let mut guard = Guard::default();
            let mut signed = BTreeMap::new();
            for (height, round, step, digest) in wants {
                let step = [Step::Proposal, Step::Prevote, Step::Precommit][usize::from(step)];
                let wanted = mark(height, round, step, digest);
                if guard.admit(wanted).is_ok() {
                    prop_assert_eq!(*signed.entry(wanted.position()).or_insert(wanted.digest), wanted.digest);
                }
            }
        }
    }
}
