//! The randomness beacon that opens timelocked commits: drand's *quicknet* scheme, with a key that everybody knows.
//!
//! Round `r` is published at `genesis + (r − 1) · period`; its signature is the BLS signature (48 bytes in G1, hashed
//! to the curve as RFC 9380 says) of `sha256(r as 8 bytes, big-endian)`, its randomness the SHA-256 of the signature.
//! Scheme `bls-unchained-g1-rfc9380` of <https://drand.love/docs/cryptography>.

use ark_ec::PrimeGroup;
use ark_ff::PrimeField;
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use serde::{Deserialize, Serialize};
use sp_io::hashing::{keccak_512, sha2_256};
use timelock::engines::EngineBLS;
use timelock::engines::drand::TinyBLS381;
use timelock::ibe::fullident::Identity;

/// Where public keys live.
pub(crate) type PublicKeyGroup = <TinyBLS381 as EngineBLS>::PublicKeyGroup;
/// Where signatures live.
pub(crate) type SignatureGroup = <TinyBLS381 as EngineBLS>::SignatureGroup;

/// Bytes of a public key.
pub const PUBLIC_KEY_BYTES: usize = 96;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 48;

/// Name of the scheme, as drand's own `info` gives it.
pub const SCHEME: &str = "bls-unchained-g1-rfc9380";

/// Second at which quicknet published its round 1.
pub const QUICKNET_GENESIS_SECS: u64 = 1_692_803_367;
/// Milliseconds between two rounds of quicknet.
pub const QUICKNET_PERIOD_MS: u64 = 3000;
/// Quicknet's public key.
pub const QUICKNET_KEY: [u8; PUBLIC_KEY_BYTES] = [
    0x83, 0xcf, 0x0f, 0x28, 0x96, 0xad, 0xee, 0x7e, 0xb8, 0xb5, 0xf0, 0x1f, 0xca, 0xd3, 0x91, 0x22, 0x12, 0xc4, 0x37,
    0xe0, 0x07, 0x3e, 0x91, 0x1f, 0xb9, 0x00, 0x22, 0xd3, 0xe7, 0x60, 0x18, 0x3c, 0x8c, 0x4b, 0x45, 0x0b, 0x6a, 0x0a,
    0x6c, 0x3a, 0xc6, 0xa5, 0x77, 0x6a, 0x2d, 0x10, 0x64, 0x51, 0x0d, 0x1f, 0xec, 0x75, 0x8c, 0x92, 0x1c, 0xc2, 0x2b,
    0x0e, 0x17, 0xe6, 0x3a, 0xaf, 0x4b, 0xcb, 0x5e, 0xd6, 0x63, 0x04, 0xde, 0x9c, 0xf8, 0x09, 0xbd, 0x27, 0x4c, 0xa7,
    0x3b, 0xab, 0x4a, 0xf5, 0xa6, 0xe9, 0xc7, 0x6a, 0x4b, 0xc0, 0x9e, 0x76, 0xea, 0xe8, 0x99, 0x1e, 0xf5, 0xec, 0xe4,
    0x5a,
];
/// Hash by which drand's nodes know quicknet.
pub(crate) const QUICKNET_CHAIN_HASH: [u8; 32] = [
    0x52, 0xdb, 0x9b, 0xa7, 0x0e, 0x0c, 0xc0, 0xf6, 0xea, 0xf7, 0x80, 0x3d, 0xd0, 0x74, 0x47, 0xa1, 0xf5, 0x47, 0x77,
    0x35, 0xfd, 0x3f, 0x66, 0x17, 0x92, 0xba, 0x94, 0x60, 0x0c, 0x84, 0xe9, 0x71,
];

/// Hash of quicknet's group of nodes.
pub(crate) const QUICKNET_GROUP_HASH: [u8; 32] = [
    0xf4, 0x77, 0xd5, 0xc8, 0x9f, 0x21, 0xa1, 0x7c, 0x86, 0x3a, 0x7f, 0x93, 0x7c, 0x6a, 0x6d, 0x15, 0x85, 0x94, 0x14,
    0xd2, 0xbe, 0x09, 0xcd, 0x44, 0x8d, 0x42, 0x79, 0xaf, 0x33, 0x1c, 0x5d, 0x3e,
];

/// Shortest period (ms): the SDK's arithmetic is in seconds, tests may want more haste.
pub const MIN_PERIOD_MS: u64 = 100;
/// Longest period (ms): an hour.
pub const MAX_PERIOD_MS: u64 = 3_600_000;

/// Rounds that one block adds at most, as on the real chain; a chain that was stopped catches up block by block.
pub(crate) const MAX_ROUNDS_PER_BLOCK: u64 = 50;

/// The `beacon` of the genesis file: `"quicknet"`, or an object for a beacon of the chain's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a beacon is \"quicknet\" or an object with secret_seed, period_ms (a number) and genesis_time"
)]
pub enum BeaconSource {
    /// A beacon that exists elsewhere.
    Named(NamedBeacon),
    /// A beacon that this chain plays itself.
    Own(OwnBeacon),
}

/// A beacon that exists elsewhere. The chain has its public key and makes no rounds: `dev_putPulse` brings them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedBeacon {
    /// The one that the real chain follows.
    Quicknet,
}

/// A beacon that this chain plays itself. Its key follows from the seed, which the genesis file shows to everybody:
/// commits of a development chain are as secret as that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnBeacon {
    /// Any text.
    pub secret_seed: String,
    /// Milliseconds between two rounds. Default 3000, as quicknet.
    ///
    /// Clients aim at the round before the one that is newest three blocks after the reveal's beginning. Where three
    /// blocks take less time than a round, that round may be over when a commit is made late in an epoch, and the pool
    /// refuses it (`Custom(15)`), as a real chain with such fast blocks would.
    pub period_ms: u64,
    /// Unix time of round 1, in seconds. Default 1692803367, as quicknet, so that a client's own arithmetic holds.
    pub genesis_time: u64,
}

impl Default for OwnBeacon {
    fn default() -> Self {
        Self {
            secret_seed: "development".to_owned(),
            period_ms: QUICKNET_PERIOD_MS,
            genesis_time: QUICKNET_GENESIS_SECS,
        }
    }
}

impl Default for BeaconSource {
    fn default() -> Self {
        Self::Own(OwnBeacon::default())
    }
}

/// A beacon: its public side, and the key where it is ours to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    secret: Option<<TinyBLS381 as EngineBLS>::Scalar>,
    public_key: [u8; PUBLIC_KEY_BYTES],
    genesis_secs: u64,
    period_ms: u64,
}

impl Beacon {
    /// The beacon that a genesis file asks for. A period outside its bounds counts as the bound.
    #[must_use]
    pub fn new(source: &BeaconSource) -> Self {
        match source {
            BeaconSource::Named(NamedBeacon::Quicknet) => Self {
                secret: None,
                public_key: QUICKNET_KEY,
                genesis_secs: QUICKNET_GENESIS_SECS,
                period_ms: QUICKNET_PERIOD_MS,
            },
            BeaconSource::Own(own) => {
                let wide = keccak_512(&[b"development beacon: ", own.secret_seed.as_bytes()].concat());
                let secret = <TinyBLS381 as EngineBLS>::Scalar::from_le_bytes_mod_order(&wide);
                let mut public_key = [0; PUBLIC_KEY_BYTES];
                write_point(&(PublicKeyGroup::generator() * secret), &mut public_key);
                Self {
                    secret: Some(secret),
                    public_key,
                    genesis_secs: own.genesis_time,
                    period_ms: own.period_ms.clamp(MIN_PERIOD_MS, MAX_PERIOD_MS),
                }
            }
        }
    }

    /// The public key, compressed.
    #[must_use]
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.public_key
    }

    /// Unix time of round 1, in seconds.
    #[must_use]
    pub fn genesis_secs(&self) -> u64 {
        self.genesis_secs
    }

    /// Milliseconds between two rounds.
    #[must_use]
    pub fn period_ms(&self) -> u64 {
        self.period_ms
    }

    /// Does the chain play this beacon itself.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.secret.is_some()
    }

    /// The newest round at a time (ms since the Unix epoch); 0 before the first.
    #[must_use]
    pub fn round_at(&self, now_ms: u64) -> u64 {
        let since = now_ms.checked_sub(self.genesis_secs.saturating_mul(1000));
        since.map_or(0, |since| since.checked_div(self.period_ms).unwrap_or(0).saturating_add(1))
    }

    /// A round's signature; `None` where the beacon is not ours to play.
    #[must_use]
    pub fn sign(&self, round: u64) -> Option<[u8; SIGNATURE_BYTES]> {
        let mut signature = [0; SIGNATURE_BYTES];
        write_point(&(hashed(round) * self.secret?), &mut signature);
        Some(signature)
    }

    /// Rounds that are due at `now_ms` and not stored yet, at most [`MAX_ROUNDS_PER_BLOCK`] of them. The very first
    /// block stores the newest round only; rounds older than `kept` are passed over.
    pub(crate) fn due(&self, now_ms: u64, last_stored: u64, kept: u64) -> std::ops::RangeInclusive<u64> {
        let newest = if self.is_own() { self.round_at(now_ms) } else { 0 };
        let oldest = if last_stored == 0 { newest } else { newest.saturating_sub(kept).saturating_add(1) };
        let first = last_stored.saturating_add(1).max(oldest);
        first..=newest.min(first.saturating_add(MAX_ROUNDS_PER_BLOCK - 1))
    }
}

/// Is this the signature of the round under the public key.
#[must_use]
pub fn verify(public_key: &[u8], round: u64, signature: &[u8]) -> bool {
    let (Some(key), Some(signature)) = (read_point::<PublicKeyGroup>(public_key), read_signature(signature)) else {
        return false;
    };
    TinyBLS381::pairing(PublicKeyGroup::generator(), signature) == TinyBLS381::pairing(key, hashed(round))
}

/// What a pulse's `randomness` is.
#[must_use]
pub fn randomness(signature: &[u8]) -> [u8; 32] {
    sha2_256(signature)
}

/// The identity that a commit for the round is encrypted to.
pub(crate) fn identity(round: u64) -> Identity {
    Identity::new(b"", &sha2_256(&round.to_be_bytes()))
}

fn hashed(round: u64) -> SignatureGroup {
    identity(round).public::<TinyBLS381>()
}

/// A signature's point, if the bytes are one of the right subgroup.
pub(crate) fn read_signature(bytes: &[u8]) -> Option<SignatureGroup> {
    read_point(bytes)
}

/// A point of the right subgroup out of its compressed form, whole.
pub(crate) fn read_point<P: CanonicalDeserialize>(bytes: &[u8]) -> Option<P> {
    let reader = &mut &*bytes;
    let point = P::deserialize_compressed(&mut *reader).ok()?;
    reader.is_empty().then_some(point)
}

fn write_point<P: CanonicalSerialize>(point: &P, bytes: &mut [u8]) {
    // The arrays given have the sizes that the curve demands, so this cannot fail.
    drop(point.serialize_compressed(bytes));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Published by quicknet's nodes for round 1000.
    pub(crate) const ROUND_1000: &str =
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";

    fn own(seed: &str) -> Beacon {
        Beacon::new(&BeaconSource::Own(OwnBeacon { secret_seed: seed.to_owned(), ..OwnBeacon::default() }))
    }

    #[test]
    fn quicknets_published_round_1000_verifies_under_its_key_and_no_other() {
        let signature = hex::decode(ROUND_1000).unwrap();
        assert!(verify(&QUICKNET_KEY, 1000, &signature));
        assert!(!verify(&QUICKNET_KEY, 1001, &signature));
        assert!(!verify(&own("a").public_key(), 1000, &signature));
        assert!(!verify(&QUICKNET_KEY, 1000, &signature[..47]));
        assert!(!verify(&QUICKNET_KEY, 1000, &[0xff; 48]));
        assert_eq!(
            hex::encode(randomness(&signature)),
            "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd"
        );
    }

    #[test]
    fn an_own_beacons_rounds_verify_under_its_own_key_only() {
        let (one, two) = (own("a"), own("b"));
        let signature = one.sign(77).unwrap();
        assert!(verify(&one.public_key(), 77, &signature));
        assert!(!verify(&one.public_key(), 78, &signature));
        assert!(!verify(&two.public_key(), 77, &signature));
        assert_eq!(own("a"), one);
        assert_eq!(Beacon::new(&BeaconSource::Named(NamedBeacon::Quicknet)).sign(77), None);
    }

    #[test]
    fn rounds_are_counted_from_genesis_and_caught_up_in_steps() {
        let beacon = own("a");
        let genesis = QUICKNET_GENESIS_SECS * 1000;
        assert_eq!(
            [0, genesis - 1, genesis, genesis + 2999, genesis + 3000].map(|t| beacon.round_at(t)),
            [0, 0, 1, 1, 2]
        );
        let now = genesis + 3000 * 9_999;
        assert_eq!(beacon.due(now, 0, 4096), 10_000..=10_000);
        assert_eq!(beacon.due(now, 9_990, 4096), 9_991..=10_000);
        assert_eq!(beacon.due(now, 9_000, 4096), 9_001..=9_050);
        assert_eq!(beacon.due(now, 100, 4096), 5_905..=5_954);
        assert!(beacon.due(now, 10_000, 4096).is_empty());
        assert!(Beacon::new(&BeaconSource::Named(NamedBeacon::Quicknet)).due(now, 0, 4096).is_empty());
    }
}
