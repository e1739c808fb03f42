//! Spot checks: everybody verifies the same few rounds again.
//!
//! Which rounds are checked is drawn by pulses ([`crate::draw`]).
//!
//! The members fetch the images by their digests, verify again, and say what they find:
//! [`crate::verdict`].

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::{ChallengeId, Digest, RoundId};

use crate::execute::{Executor, TxError};
use crate::state::{self, check_prefix};
use crate::store::StateStore;

/// A round that was closed and may be drawn.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FreshRow {
    /// Digest of the result's transaction.
    pub result: Digest,
    /// Digest of the image that the miners got.
    pub image: Digest,
    /// What its image lot says: from it follow the secrets of the images that were passed over.
    pub value: [u8; 32],
    /// The height of the block that has the result.
    pub height: u64,
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// A challenge is gone or changed: its rounds are not checked any more.
    pub(crate) fn forget_checks(&mut self, challenge: ChallengeId) -> Result<(), TxError> {
        let of_another = |round: RoundId| round.challenge != challenge;
        self.state.retain(check_prefix(), |key| state::round_after(check_prefix(), key).is_some_and(of_another))?;
        self.forget_fresh(challenge)
    }
}
