//! A drand beacon: who signs its rounds, and when.
//!
//! Round `r`, counted from 1, is signed at `genesis + (r − 1) · period`. What a signature is over, and
//! how it is verified, is the ledger's and the chain's (scheme `bls-unchained-g1-rfc9380` of
//! <https://drand.love/docs/cryptography>): keys are points of G2 (96 bytes), signatures points of G1
//! (48 bytes), both compressed.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Bytes of a public key.
pub const KEY_BYTES: usize = 96;

/// Bytes of a round's signature.
pub const SIGNATURE_BYTES: usize = 48;

/// A drand beacon: who signs the rounds, and when.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beacon {
    /// Public key, compressed (G2, 96 bytes; hex in its serde form).
    #[serde(with = "key_hex")]
    pub public_key: [u8; KEY_BYTES],
    /// When round 1 was signed, in milliseconds since 1970.
    pub genesis_ms: u64,
    /// Time between two rounds in milliseconds; not 0.
    pub period_ms: u64,
}

impl Beacon {
    /// drand's quicknet, which Subtensor follows: a round every three seconds. Chain hash
    /// 52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971.
    pub const QUICKNET: Self = Self { public_key: QUICKNET_KEY, genesis_ms: 1_692_803_367_000, period_ms: 3_000 };

    /// The beacon of development chains: its rounds are quicknet's in time, and its secret is known
    /// to everybody ([`DEVELOPMENT_SECRET`]).
    pub const DEVELOPMENT: Self = Self { public_key: DEVELOPMENT_KEY, ..Self::QUICKNET };

    /// Whether everybody can sign its rounds: the key is the development chain's.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.public_key == DEVELOPMENT_KEY
    }

    /// When a round is signed, milliseconds since 1970; round 0 counts as round 1.
    #[must_use]
    pub fn time_of(&self, round: u64) -> u64 {
        round.saturating_sub(1).saturating_mul(self.period_ms).saturating_add(self.genesis_ms)
    }

    /// The first round, of those that `stride` divides, that is signed at `time_ms` or later. A stride
    /// or a period of 0 counts as 1.
    #[must_use]
    pub fn first_from(&self, time_ms: u64, stride: u64) -> u64 {
        let after = time_ms.saturating_sub(self.genesis_ms).div_ceil(self.period_ms.max(1));
        multiple_from(after.saturating_add(1), stride)
    }
}

/// The least multiple of `stride` (0 counts as 1) that is `round` or more; the greatest there is where
/// that would overflow.
#[must_use]
pub fn multiple_from(round: u64, stride: u64) -> u64 {
    let stride = stride.max(1);
    round.div_ceil(stride).checked_mul(stride).unwrap_or(u64::MAX - u64::MAX % stride)
}

impl Default for Beacon {
    fn default() -> Self {
        Self::QUICKNET
    }
}

impl std::fmt::Debug for Beacon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Beacon({}…, {} ms)", hex::encode(&self.public_key[..8]), self.period_ms)
    }
}

const QUICKNET_KEY: [u8; KEY_BYTES] = [
    0x83, 0xcf, 0x0f, 0x28, 0x96, 0xad, 0xee, 0x7e, 0xb8, 0xb5, 0xf0, 0x1f, 0xca, 0xd3, 0x91, 0x22, 0x12, 0xc4, 0x37,
    0xe0, 0x07, 0x3e, 0x91, 0x1f, 0xb9, 0x00, 0x22, 0xd3, 0xe7, 0x60, 0x18, 0x3c, 0x8c, 0x4b, 0x45, 0x0b, 0x6a, 0x0a,
    0x6c, 0x3a, 0xc6, 0xa5, 0x77, 0x6a, 0x2d, 0x10, 0x64, 0x51, 0x0d, 0x1f, 0xec, 0x75, 0x8c, 0x92, 0x1c, 0xc2, 0x2b,
    0x0e, 0x17, 0xe6, 0x3a, 0xaf, 0x4b, 0xcb, 0x5e, 0xd6, 0x63, 0x04, 0xde, 0x9c, 0xf8, 0x09, 0xbd, 0x27, 0x4c, 0xa7,
    0x3b, 0xab, 0x4a, 0xf5, 0xa6, 0xe9, 0xc7, 0x6a, 0x4b, 0xc0, 0x9e, 0x76, 0xea, 0xe8, 0x99, 0x1e, 0xf5, 0xec, 0xe4,
    0x5a,
];

/// `keccak512("development beacon: development")` modulo the group's order, times G2's generator: what
/// `perturb-devchain` plays where its genesis file names no other beacon.
const DEVELOPMENT_KEY: [u8; KEY_BYTES] = [
    0x92, 0x84, 0x70, 0xa1, 0x08, 0x30, 0x48, 0xc3, 0x66, 0xf8, 0x49, 0xcf, 0xf6, 0x0c, 0xe9, 0x1e, 0x76, 0x4f, 0x47,
    0x01, 0x0c, 0xd8, 0xe2, 0x28, 0x5f, 0x0a, 0xe5, 0x9f, 0x72, 0xde, 0xe9, 0x12, 0xdc, 0xb0, 0x6e, 0xf6, 0x26, 0xd1,
    0x38, 0x76, 0xd9, 0xc4, 0x5c, 0x91, 0x98, 0x06, 0xe5, 0x6f, 0x03, 0x53, 0x41, 0xdb, 0xff, 0x59, 0x92, 0xef, 0x96,
    0xc2, 0x44, 0x19, 0xc7, 0xc3, 0xa6, 0xfd, 0xa7, 0xc9, 0xd6, 0x6b, 0x8d, 0x1d, 0x93, 0x4a, 0x7f, 0x13, 0xd1, 0xb7,
    0x1c, 0x2f, 0xa6, 0xcd, 0x7c, 0x89, 0x69, 0x79, 0x1f, 0x12, 0x00, 0xde, 0x0c, 0xd7, 0x2b, 0x58, 0x1a, 0xc5, 0x7a,
    0x43,
];

/// The secret behind the development beacon's key, big endian. It protects nothing: networks that name
/// this beacon are refused on public chains.
pub const DEVELOPMENT_SECRET: [u8; 32] = [
    0x34, 0xa4, 0x86, 0x03, 0x43, 0x6e, 0x59, 0x25, 0x9a, 0x3a, 0x82, 0x07, 0x8f, 0xd0, 0xb4, 0x13, 0x05, 0x59, 0xa2,
    0x4c, 0x06, 0x9c, 0xb8, 0xb3, 0x50, 0x88, 0xd1, 0x8f, 0xc6, 0xa1, 0x0c, 0xed,
];

mod key_hex {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::KEY_BYTES;

    pub(super) fn serialize<S: Serializer>(key: &[u8; KEY_BYTES], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(key))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; KEY_BYTES], D::Error> {
        let text = String::deserialize(d)?;
        let mut key = [0; KEY_BYTES];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut key)
            .map_err(|_| serde::de::Error::custom("a beacon's public key is 96 bytes in hex"))?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_first_round_from_a_time_is_never_one_that_was_signed_before_it() {
        let b = Beacon::QUICKNET;
        let start = b.genesis_ms;
        assert_eq!([0, start, start + 1, start + 3000, start + 3001].map(|t| b.first_from(t, 1)), [1, 1, 2, 2, 3]);
        assert_eq!([start, start + 27_000, start + 27_001].map(|t| b.first_from(t, 10)), [10, 10, 20]);
        assert_eq!(b.time_of(1), start);
        assert_eq!(b.time_of(1000), start + 2_997_000);
        for time in (start..start + 100_000).step_by(777) {
            for stride in [1, 2, 7, 10] {
                let round = b.first_from(time, stride);
                assert!(round.is_multiple_of(stride) && b.time_of(round) >= time);
                assert!(round < stride + 1 || b.time_of(round - stride) < time, "and no earlier one");
            }
        }
    }

    #[test]
    fn numbers_at_their_ends_neither_overflow_nor_divide_by_nothing() {
        let odd = Beacon { period_ms: 0, ..Beacon::QUICKNET };
        assert!(odd.first_from(u64::MAX, 0) > 0);
        assert_eq!(Beacon::QUICKNET.time_of(u64::MAX), u64::MAX);
        assert!(multiple_from(u64::MAX, 10).is_multiple_of(10));
    }

    #[test]
    fn a_beacon_is_written_in_hex_and_read_back() {
        let json = serde_json::to_string(&Beacon::QUICKNET).unwrap();
        assert_eq!(serde_json::from_str::<Beacon>(&json).unwrap(), Beacon::QUICKNET);
        assert!(!Beacon::QUICKNET.is_development() && Beacon::DEVELOPMENT.is_development());
    }
}
