//! Block and extrinsic hashes: 32 bytes, written with 0x as the chain's explorers do.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subxt::config::substrate::H256;

/// A 32-byte hash of a block or an extrinsic; text form 0x and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockHash(pub [u8; 32]);

impl BlockHash {
    pub(crate) fn to_h256(self) -> H256 {
        H256(self.0)
    }
}

impl From<H256> for BlockHash {
    fn from(hash: H256) -> Self {
        Self(hash.0)
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for BlockHash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockHash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let mut out = [0u8; 32];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut out)
            .map_err(|_| serde::de::Error::custom("expected 32 bytes in hex"))?;
        Ok(Self(out))
    }
}

/// Bytes as hex digits, for `#[serde(with)]`.
pub(crate) mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_hash_reads_back_from_its_json_text() {
        let hash = BlockHash([0xab; 32]);
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(text, format!("\"0x{}\"", "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<BlockHash>(&text).unwrap(), hash);
        assert!(serde_json::from_str::<BlockHash>("\"0xab\"").is_err());
    }
}
