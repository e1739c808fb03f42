//! What a validator draws for its next round, and what it owes of the one before.
//!
//! Nothing here is chosen: both lots of a round follow from its number, the agreed seed and the round key
//! that the agreed state names. Drawing again gives the same, so a crash needs nothing.

use color_eyre::eyre::{Result, eyre};
use perturb_ledger::images::UnrevealedRow;
use perturb_ledger::seeds::Lots;
use perturb_types::{ChallengeId, Digest, Hotkey, NetworkId, RoundId, RoundKey, RoundPair, RoundReveal};

use crate::keys::Signer;

/// With what a validator draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// The epoch that seed and key are of.
    pub epoch: u64,
    /// The agreed seed.
    pub seed: Digest,
    /// The validator's round key.
    pub key: RoundKey,
    /// The number whose lot draws the next round's miners.
    pub miners: u64,
}

fn pair(signer: &Signer, key: &RoundKey) -> Result<RoundPair> {
    signer.round_pair(key).ok_or_else(|| eyre!("{key:?}, with which this validator draws, is none of its keys"))
}

impl Drawing {
    /// Draws for a round.
    ///
    /// # Errors
    /// The key is not here.
    pub fn lots(&self, signer: &Signer, network: &NetworkId, round: &RoundId) -> Result<Lots> {
        Ok(Lots::draw_for(&pair(signer, &self.key)?, network, self.seed, round, self.miners))
    }
}

/// What shows which images a round that ran out has used.
///
/// # Errors
/// The key is not here.
pub fn reveal(
    signer: &Signer,
    network: &NetworkId,
    (challenge, validator): (ChallengeId, Hotkey),
    owed: &UnrevealedRow,
) -> Result<RoundReveal> {
    let round = RoundId { validator, challenge, seq: owed.seq };
    let images = Lots::draw(&pair(signer, &owed.key)?, network, owed.seed, &round).images;
    Ok(RoundReveal { round, images })
}
