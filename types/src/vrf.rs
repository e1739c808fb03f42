//! Lots: what a validator draws, and cannot choose. Its key's holder can compute them, nobody else foresee
//! them, and everybody check them.
//!
//! A *round key* is an sr25519 key that does nothing else. What it draws for an input is one 32-byte value
//! (schnorrkel's non-malleable VRF: a Schnorr proof of equal discrete logarithms over Ristretto, the public
//! key hashed into the input), so that its holder cannot choose among values by signing again.
//!
//! Each round has two lots: one says which miners are asked and is shown with the opening, the other says
//! with which image and transform, and is shown with the result.
//!
//! Transcript: schnorrkel's signing context `perturb/vrf/1` over the bytes [`encode::signing_bytes`] of
//! the input in domain [`Domain::Lot`]. Value: 32 bytes of the in-out pair in context
//! `perturb/vrf-output/1`.
//!
//! The round key of a consensus key follows from its secret ([`RoundPair::of`]): one file to keep, and who
//! rotates the one rotates the other.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use rand_core_06::impls::{next_u32_via_fill, next_u64_via_fill};
use rand_core_06::{CryptoRng, RngCore};
use schnorrkel::context::{SigningTranscript, attach_rng};
use schnorrkel::vrf::{VRFPreOut, VRFProof};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::encode::{self, Domain};
use crate::ids::{ChallengeId, Digest, NetworkId};
use crate::keys::ConsensusPair;

/// Context of the proof that a delegated round key is its delegator's.
const POSSESSION: &[u8] = b"perturb/round-key/1";

/// Prefix under which a consensus key's secret is hashed to its round key's.
const SECRET: &[u8] = b"perturb/round-key-secret/1";

/// Context in which a value's bytes are made of a proof's points.
const OUTPUT: &[u8] = b"perturb/vrf-output/1";

/// A round key: an sr25519 public key.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RoundKey(pub [u8; 32]);

impl fmt::Debug for RoundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoundKey({})", hex::encode(self.0))
    }
}

/// What a lot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Purpose {
    /// Which miners a round asks (tag 0).
    Miners,
    /// With which image and transform (tag 1).
    Image,
}

/// What is drawn for: one value for each purpose and round of a validator under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Draw {
    /// What it says.
    pub purpose: Purpose,
    /// The challenge.
    pub challenge: ChallengeId,
    /// The agreed seed that is active.
    pub seed: Digest,
    /// The validator's running number in the challenge.
    pub seq: u64,
}

impl Draw {
    fn transcript(&self, network: &NetworkId) -> impl SigningTranscript {
        let bytes = encode::signing_bytes(Domain::Lot, network, &encode::encode(self));
        schnorrkel::signing_context(b"perturb/vrf/1").bytes(&bytes)
    }
}

/// A lot as it can be checked: 96 bytes.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Lot {
    /// What was drawn, as a Ristretto point.
    pub point: [u8; 32],
    /// The proof that it belongs to key and draw.
    pub proof: [u8; 64],
}

impl fmt::Debug for Lot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lot({})", hex::encode(self.point))
    }
}

/// Bytes that are known, over and over, where randomness is asked for.
struct Known([u8; 32]);

/// No randomness: nonces follow from the secret and from what is signed, as ed25519's do. Who draws or signs
/// again after a crash gives the same bytes.
const NOTHING: Known = Known([0; 32]);

impl RngCore for Known {
    fn next_u32(&mut self) -> u32 {
        next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for (byte, known) in bytes.iter_mut().zip(self.0.iter().cycle()) {
            *byte = *known;
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Known {}

/// A round key with its secret.
#[derive(Clone)]
pub struct RoundPair(schnorrkel::Keypair);

impl RoundPair {
    /// The round key that belongs to a consensus key.
    pub fn of(key: &ConsensusPair) -> Self {
        let secret: [u8; 32] = Sha256::new().chain_update(SECRET).chain_update(*key.seed()).finalize().into();
        let mini = schnorrkel::MiniSecretKey::generate_with(Known(secret));
        Self(mini.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519))
    }

    /// The public key.
    pub fn public(&self) -> RoundKey {
        RoundKey(self.0.public.to_bytes())
    }

    /// Draws: the value, and the lot that shows it. Both are always the same.
    pub fn draw(&self, network: &NetworkId, draw: &Draw) -> ([u8; 32], Lot) {
        let extra = attach_rng(merlin::Transcript::new(b"VRF"), NOTHING);
        let (pair, proof, _) = self.0.vrf_sign_extra(draw.transcript(network), extra);
        let lot = Lot { point: pair.to_preout().to_bytes(), proof: proof.to_bytes() };
        (pair.make_bytes(OUTPUT), lot)
    }

    /// A signature over a delegation's statement: whoever delegates to a key has it.
    pub fn possess(&self, network: &NetworkId, statement: &[u8]) -> [u8; 64] {
        let bytes = encode::signing_bytes(Domain::DelegationAccept, network, statement);
        self.0.sign(attach_rng(schnorrkel::signing_context(POSSESSION).bytes(&bytes), NOTHING)).to_bytes()
    }
}

impl fmt::Debug for RoundPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoundPair({:?})", self.public())
    }
}

impl RoundKey {
    /// What was drawn, if the lot is this key's.
    #[must_use]
    pub fn open(&self, network: &NetworkId, draw: &Draw, lot: &Lot) -> Option<[u8; 32]> {
        let key = schnorrkel::PublicKey::from_bytes(&self.0).ok()?;
        let point = VRFPreOut::from_bytes(&lot.point).ok()?;
        let proof = VRFProof::from_bytes(&lot.proof).ok()?;
        let (pair, _) = key.vrf_verify(draw.transcript(network), &point, &proof).ok()?;
        Some(pair.make_bytes(OUTPUT))
    }

    /// Whether a signature is this key's over a delegation's statement.
    #[must_use]
    pub fn is_possessed(&self, network: &NetworkId, statement: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(key) = schnorrkel::PublicKey::from_bytes(&self.0) else { return false };
        let Ok(signature) = schnorrkel::Signature::from_bytes(signature) else { return false };
        let bytes = encode::signing_bytes(Domain::DelegationAccept, network, statement);
        key.verify_simple(POSSESSION, &bytes, &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const NETWORK: NetworkId = NetworkId([9; 32]);
    const VALUE: &str = "faba4d9884156a6c2b4e03af5d5bd240da0e8a0c28243a1a7635c79bca154abc";

    fn pair(seed: u8) -> RoundPair {
        RoundPair::of(&ConsensusPair::from_seed(&[seed; 32]))
    }

    fn draw(seq: u64) -> Draw {
        Draw { purpose: Purpose::Image, challenge: ChallengeId(2), seed: Digest([5; 32]), seq }
    }

    #[test]
    fn a_key_draws_one_value_however_often_it_signs() {
        let (first, lot) = pair(1).draw(&NETWORK, &draw(7));
        assert_eq!(pair(1).draw(&NETWORK, &draw(7)), (first, lot));
        assert_eq!(pair(1).public().open(&NETWORK, &draw(7), &lot), Some(first));
        assert_eq!(hex::encode(first), VALUE, "a key's values are pinned");
        let others = [
            pair(2).draw(&NETWORK, &draw(7)).0,
            pair(1).draw(&NETWORK, &draw(8)).0,
            pair(1).draw(&NETWORK, &Draw { seed: Digest([6; 32]), ..draw(7) }).0,
            pair(1).draw(&NETWORK, &Draw { challenge: ChallengeId(3), ..draw(7) }).0,
            pair(1).draw(&NETWORK, &Draw { purpose: Purpose::Miners, ..draw(7) }).0,
            pair(1).draw(&NetworkId([8; 32]), &draw(7)).0,
        ];
        assert!(!others.contains(&first));
    }

    #[test]
    fn a_lot_of_anything_else_does_not_hold() {
        let (_, lot) = pair(1).draw(&NETWORK, &draw(7));
        let key = pair(1).public();
        assert_eq!(key.open(&NETWORK, &draw(8), &lot), None);
        assert_eq!(pair(2).public().open(&NETWORK, &draw(7), &lot), None);
        assert_eq!(key.open(&NetworkId([8; 32]), &draw(7), &lot), None);
        for byte in 0..96 {
            let mut bent = lot;
            match byte {
                0..32 => bent.point[byte] ^= 1,
                _ => bent.proof[byte - 32] ^= 1,
            }
            assert_eq!(key.open(&NETWORK, &draw(7), &bent), None, "byte {byte}");
        }
        let zero = Lot { point: [0; 32], proof: [0; 64] };
        assert_eq!(key.open(&NETWORK, &draw(7), &zero), None, "the identity is nobody's");
    }

    #[test]
    fn a_key_that_is_not_ones_own_cannot_be_delegated_to() {
        let signature = pair(1).possess(&NETWORK, b"statement");
        assert!(pair(1).public().is_possessed(&NETWORK, b"statement", &signature));
        assert!(!pair(2).public().is_possessed(&NETWORK, b"statement", &signature));
        assert!(!pair(1).public().is_possessed(&NETWORK, b"another", &signature));
    }
}
