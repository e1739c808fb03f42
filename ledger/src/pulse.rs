//! Pulses: rounds of a drand beacon, which prove themselves against the key in genesis.
//!
//! Scheme `bls-unchained-g1-rfc9380`: the signature, a point of G1 (48 bytes), is over
//! `SHA-256(round u64 big endian)`, hashed to the curve as RFC 9380 says with the tag [`TAG`]; the key
//! is a point of G2 (96 bytes). A pulse is taken only if its point is of the right subgroup and not
//! infinity. BLS signatures are unique and a point has one compressed form, so that a round has exactly
//! one pulse: nobody can choose among several.
//!
//! A pulse is a transaction without a signer. Anybody may bring it, from the Bittensor chain's pallet
//! `Drand` or from drand itself, and no vote depends on whose chain node has it. What waits for which
//! pulse says [`crate::draw`].

use blst::BLST_ERROR::BLST_SUCCESS;
use blst::min_sig::{PublicKey, SecretKey, Signature};
use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::Beacon;
use perturb_types::beacon::{DEVELOPMENT_SECRET, SIGNATURE_BYTES};
use sha2::{Digest as _, Sha256};

use crate::genesis::GenesisError;

/// The domain separation tag of the hash to the curve.
pub const TAG: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// Shortest time between two rounds of a beacon, milliseconds: development chains in haste.
pub const MIN_PERIOD_MS: u64 = 100;

/// Longest time between two rounds, milliseconds: a draw must not wait for hours.
pub const MAX_PERIOD_MS: u64 = 600_000;

/// A round of the beacon, with the signature that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Pulse {
    /// The round's number, from 1 on.
    pub round: u64,
    /// The beacon's signature, compressed (G1).
    pub signature: [u8; SIGNATURE_BYTES],
}

/// What is signed for a round.
fn message(round: u64) -> [u8; 32] {
    Sha256::digest(round.to_be_bytes()).into()
}

impl Pulse {
    /// Whether the beacon signed it. One check of two pairings: about a millisecond.
    #[must_use]
    pub fn verify(&self, beacon: &Beacon) -> bool {
        let Ok(key) = PublicKey::from_bytes(&beacon.public_key) else { return false };
        let Ok(signature) = Signature::sig_validate(&self.signature, true) else { return false };
        // The key was checked with the genesis file.
        signature.verify(false, &message(self.round), TAG, &[], &key, false) == BLST_SUCCESS
    }

    /// A round of [`Beacon::DEVELOPMENT`], whose secret is no secret. `None` cannot happen: the secret
    /// is a scalar.
    #[must_use]
    pub fn of_development(round: u64) -> Option<Self> {
        let secret = SecretKey::from_bytes(&DEVELOPMENT_SECRET).ok()?;
        Some(Self { round, signature: secret.sign(&message(round), TAG, &[]).compress() })
    }
}

/// Whether a beacon can be followed: a key of the right subgroup that is not infinity, and a period
/// within its bounds.
///
/// # Errors
/// What does not hold.
pub fn check_beacon(beacon: &Beacon) -> Result<(), GenesisError> {
    let fault = |what: String| Err(GenesisError::Content(format!("beacon: {what}")));
    if !(MIN_PERIOD_MS..=MAX_PERIOD_MS).contains(&beacon.period_ms) {
        return fault(format!("period_ms must lie in {MIN_PERIOD_MS}..={MAX_PERIOD_MS}"));
    }
    if PublicKey::key_validate(&beacon.public_key).is_err() {
        return fault("its public key is no point of BLS12-381's G2".into());
    }
    Ok(())
}

#[cfg(test)]
#[path = "pulse_tests.rs"]
pub(crate) mod tests;
