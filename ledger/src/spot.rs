//! Spot checks: everybody verifies the same few rounds again.
//!
//! A round is *fresh* when it is closed. With the next block whose chain reference is later, the hash
//! of that finalized chain block draws: a round is checked if the first eight bytes of
//! `H(SpotCheck, network, borsh(chain hash, round))`, big endian, are below `rate`/10⁶ of 2⁶⁴. Its
//! validator signed the result before that block existed, so it cannot know which rounds are drawn,
//! and a proposer can at most choose among the blocks finalized since its parent's reference.
//!
//! The members fetch the images by their digests, verify again, and say what they find:
//! [`crate::verdict`].

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode::{self, Domain};
use perturb_types::{ChallengeId, Digest, NetworkId, RoundId};

use crate::execute::{Executor, TxError};
use crate::genesis::SpotChecks;
use crate::parameters::MILLION;
use crate::state::{self, check_key, check_prefix, fresh_key, fresh_prefix};
use crate::store::StateStore;
use crate::verdict::CheckRow;

/// A round that was closed and may be drawn.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FreshRow {
    /// Digest of the result's transaction.
    pub result: Digest,
    /// Digest of the image that the miners got.
    pub image: Digest,
    /// The height of the block that has the result.
    pub height: u64,
}

/// Whether a chain block's hash draws a round.
pub fn is_drawn(rule: &SpotChecks, network: &NetworkId, chain_hash: &Digest, round: &RoundId) -> bool {
    let digest = encode::digest_of(Domain::SpotCheck, network, &(chain_hash, round));
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest.0[..8]);
    u128::from(u64::from_be_bytes(first)) * u128::from(MILLION) < u128::from(rule.rate) << 64
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Where the block's chain reference is later than the parent's, draws among the fresh rounds.
    pub(crate) fn draw_checks(&mut self, chain_hash: &Digest) -> Result<(), TxError> {
        let rule = self.parameters().spot_checks;
        if *chain_hash != self.frame.meta.reference.hash {
            for (key, row) in self.state.scan(fresh_prefix())? {
                let Some(round) = state::round_after(fresh_prefix(), &key) else { continue };
                let fresh: FreshRow = state::parse(&key, &row)?;
                self.state.delete(key);
                if is_drawn(&rule, &self.network(), chain_hash, &round) {
                    let drawn = self.height();
                    self.state.put(check_key(&round), &CheckRow::new(fresh, drawn));
                }
            }
        }
        self.state.accept();
        Ok(())
    }

    /// A round was closed: it may be drawn.
    pub(crate) fn keep_fresh(&mut self, round: &RoundId, result: Digest, image: Digest) {
        if self.parameters().spot_checks.rate > 0 {
            let height = self.height();
            self.state.put(fresh_key(round), &FreshRow { result, image, height });
        }
    }

    /// A challenge is gone: its rounds are not checked any more.
    pub(crate) fn forget_checks(&mut self, challenge: ChallengeId) -> Result<(), TxError> {
        for prefix in [fresh_prefix(), check_prefix()] {
            for (key, _) in self.state.scan(prefix)? {
                if state::round_after(prefix, &key).is_none_or(|r| r.challenge == challenge) {
                    self.state.delete(key);
                }
            }
        }
        Ok(())
    }
}
