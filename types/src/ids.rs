//! Identities: hotkeys, consensus keys, digests, network and challenge ids.

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2b512, Digest as _};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The ss58 prefix of Bittensor addresses (the generic Substrate one).
pub const SS58_PREFIX: u8 = 42;

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not base58, or of the wrong length.
    #[error("`{0}` is not an ss58 address: expected a base58 text of 35 bytes")]
    Ss58Shape(String),
    /// A prefix of another network.
    #[error("ss58 address `{address}` has prefix {found}, expected {SS58_PREFIX}")]
    Ss58Prefix {
        /// The text given.
        address: String,
        /// Its first byte.
        found: u8,
    },
    /// The checksum does not follow from the key: a typing error.
    #[error("ss58 address `{0}` has a wrong checksum: check it for a typing error")]
    Ss58Checksum(String),
    /// Not 32 bytes of hex.
    #[error("`{0}` is not 32 bytes in hex (64 digits, 0x allowed)")]
    Hex(String),
}

fn from_hex(text: &str) -> Result<[u8; 32], IdError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut out = [0u8; 32];
    hex::decode_to_slice(digits, &mut out).map_err(|_| IdError::Hex(text.to_owned()))?;
    Ok(out)
}

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize,
        )]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                from_hex(text).map(Self)
            }
        }
    };
}

id32! {
    /// A neuron's sr25519 public key on the chain; text form ss58.
    Hotkey
}
id32! {
    /// The ed25519 public key that signs votes, blocks and rounds for a hotkey; text form hex.
    ConsensusKey
}
id32! {
    /// A SHA-256 digest; text form hex.
    Digest
}
id32! {
    /// The hash of the genesis file's canonical form; text form hex.
    NetworkId
}
hex_text!(ConsensusKey);
hex_text!(Digest);
hex_text!(NetworkId);

fn ss58_checksum(payload: &[u8]) -> [u8; 2] {
    let hash = Blake2b512::new().chain_update(b"SS58PRE").chain_update(payload).finalize();
    [hash[0], hash[1]]
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0u8; 35];
        bytes[0] = SS58_PREFIX;
        bytes[1..33].copy_from_slice(&self.0);
        let sum = ss58_checksum(&bytes[..33]);
        bytes[33..].copy_from_slice(&sum);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl FromStr for Hotkey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0u8; 35];
        let shape = || IdError::Ss58Shape(text.chars().take(64).collect());
        let n = bs58::decode(text).onto(&mut bytes[..]).map_err(|_| shape())?;
        if n != 35 {
            return Err(shape());
        }
        if bytes[0] != SS58_PREFIX {
            return Err(IdError::Ss58Prefix { address: text.to_owned(), found: bytes[0] });
        }
        if bytes[33..] != ss58_checksum(&bytes[..33]) {
            return Err(IdError::Ss58Checksum(text.to_owned()));
        }
        let mut key = [0u8; 32];
        key.copy_from_slice(&bytes[1..33]);
        Ok(Self(key))
    }
}

impl Digest {
    /// SHA-256 of plain bytes: content addresses of images and files. Anything *agreed* is
    /// hashed with a domain instead ([`crate::encode::digest`]).
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first eight hex digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl Hotkey {
    /// The first eight characters of the ss58 form, for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

/// A challenge of the network; each maps to one mechanism of the subnet.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct ChallengeId(pub u16);

impl fmt::Display for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Alice's well-known development key.
    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    #[test]
    fn a_hotkey_reads_back_from_its_ss58_text() {
        let key: Hotkey = ALICE.parse().unwrap();
        assert_eq!(hex::encode(key.0), "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d");
        assert_eq!(key.to_string(), ALICE);
    }

    #[test]
    fn a_mistyped_ss58_text_is_refused_with_its_reason() {
        let typo = ALICE.replace("Grwv", "Grwx");
        assert!(matches!(typo.parse::<Hotkey>(), Err(IdError::Ss58Checksum(_))));
        assert!(matches!("".parse::<Hotkey>(), Err(IdError::Ss58Shape(_))));
        assert!(matches!("0OIl".parse::<Hotkey>(), Err(IdError::Ss58Shape(_))));
        // A Polkadot address (prefix 0) has the same length.
        let polkadot = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5";
        assert!(polkadot.parse::<Hotkey>().is_err());
        assert!(ALICE.repeat(40).parse::<Hotkey>().is_err());
    }

    #[test]
    fn a_digest_reads_back_from_hex_with_and_without_prefix() {
        let d = Digest::of(b"perturb");
        assert_eq!(d.to_string().parse::<Digest>().unwrap(), d);
        assert_eq!(format!("0x{d}").parse::<Digest>().unwrap(), d);
        assert!("abcd".parse::<Digest>().is_err());
    }
}
