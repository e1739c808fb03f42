//! What validators put on the Bittensor chain, read from any Substrate node by plain JSON-RPC.
//!
//! Storage keys are computed by hand: `twox128(pallet) ‖ twox128(item)`, then each key part under
//! its hasher (pallet `SubtensorModule`, and `Commitments` for the last):
//!
//! | item | key parts | value |
//! |---|---|---|
//! | `Uids` | netuid u16 (Identity), hotkey (Blake2_128Concat) | u16 |
//! | `Weights` | storage index u16 (Identity), uid u16 (Identity) | `Vec<(u16, u16)>` |
//! | `LastUpdate` | storage index u16 (Identity) | `Vec<u64>` by uid |
//! | `CommitmentOf` | netuid u16 (Identity), hotkey (Twox64Concat) | [`Commitment`] |
//!
//! Numbers are little endian; a mechanism's storage index is mecid · 4096 + netuid. Nothing of this
//! is proved: it is what the node says of a block that the report names.

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest as _};
use perturb_types::{Digest, Hotkey};
use scale::{Decode, DecodeAll, Input};
use serde_json::{Value, json};
use twox_hash::XxHash64;

use crate::error::AuditError;
use crate::source::Source;

const PALLET: &str = "SubtensorModule";
const COMMITMENTS: &str = "Commitments";

/// Subnets of one mechanism: the storage index of mechanism m is m · 4096 + netuid.
const SUBNETS: u16 = 4096;

/// Two xxHash64 with seeds 0 and 1, little endian.
fn twox128(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&XxHash64::oneshot(0, name.as_bytes()).to_le_bytes());
    out[8..].copy_from_slice(&XxHash64::oneshot(1, name.as_bytes()).to_le_bytes());
    out
}

fn key(item: &str, parts: &[&[u8]]) -> Vec<u8> {
    key_of(PALLET, item, parts)
}

fn key_of(pallet: &str, item: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = twox128(pallet).to_vec();
    out.extend_from_slice(&twox128(item));
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// Key of a hotkey's uid on a subnet.
pub fn uid_key(netuid: u16, hotkey: &Hotkey) -> Vec<u8> {
    let hash: [u8; 16] = Blake2b::<U16>::digest(hotkey.0).into();
    key("Uids", &[&netuid.to_le_bytes(), &hash, &hotkey.0])
}

/// Key of a uid's weights.
pub fn weights_key(index: u16, uid: u16) -> Vec<u8> {
    key("Weights", &[&index.to_le_bytes(), &uid.to_le_bytes()])
}

/// Key of all uids' last updates.
pub fn last_update_key(index: u16) -> Vec<u8> {
    key("LastUpdate", &[&index.to_le_bytes()])
}

/// Key of a hotkey's commitment.
pub fn commitment_key(netuid: u16, hotkey: &Hotkey) -> Vec<u8> {
    let hash = XxHash64::oneshot(0, &hotkey.0).to_le_bytes();
    key_of(COMMITMENTS, "CommitmentOf", &[&netuid.to_le_bytes(), &hash, &hotkey.0])
}

/// The storage index of a subnet's mechanism.
///
/// # Errors
/// There is none.
pub fn storage_index(netuid: u16, mechanism: u8) -> Result<u16, AuditError> {
    let index = u16::from(mechanism).checked_mul(SUBNETS).filter(|_| netuid < SUBNETS);
    index
        .and_then(|i| i.checked_add(netuid))
        .ok_or_else(|| AuditError::Usage(format!("subnet {netuid} with mechanism {mechanism} has no storage index")))
}

/// A field of a commitment: the first byte says the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Up to 128 plain bytes (kinds 1 to 129: their number and one).
    Raw(Vec<u8>),
    /// A SHA-256 digest (131).
    Sha256(Digest),
    /// Any other kind.
    Other(u8),
}

impl Decode for Field {
    fn decode<I: Input>(input: &mut I) -> Result<Self, scale::Error> {
        let kind = input.read_byte()?;
        match kind {
            0 | 135 => {}
            1..=129 => {
                let mut bytes = vec![0; usize::from(kind) - 1];
                input.read(&mut bytes)?;
                return Ok(Self::Raw(bytes));
            }
            131 => return Ok(Self::Sha256(Digest(Decode::decode(input)?))),
            130 | 132 | 133 => drop(<[u8; 32]>::decode(input)?),
            134 | 137 => drop(<(Vec<u8>, u64)>::decode(input)?),
            136 => drop(Vec::<u8>::decode(input)?),
            _ => return Err("unknown kind of commitment field".into()),
        }
        Ok(Self::Other(kind))
    }
}

/// A hotkey's commitment as the chain keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Decode)]
pub struct Commitment {
    /// Always 0.
    pub deposit: u64,
    /// The block it was made in.
    pub block: u32,
    /// What was committed: at most three.
    pub fields: Vec<Field>,
}

impl Commitment {
    /// Reads one from a storage value.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        Self::decode_all(&mut &*bytes).map_err(|e| e.to_string())
    }
}

/// One block of a chain node.
pub struct Chain<'a> {
    node: &'a dyn Source,
    /// The block's hash.
    pub hash: Digest,
    /// Its number.
    pub number: u64,
}

impl<'a> Chain<'a> {
    /// The block of a hash, or the newest finalized one; its chain has to begin with `genesis`.
    ///
    /// # Errors
    /// No answer, or another chain.
    pub fn at(node: &'a dyn Source, genesis: Option<&Digest>, hash: Option<Digest>) -> Result<Self, AuditError> {
        let wrong = |what: &str| AuditError::invalid(format!("{} of {}", what, node.name()), "no answer of that kind");
        let digest = |value: &Value| value.as_str().and_then(|text| text.parse::<Digest>().ok());
        if let Some(expected) = genesis {
            let first = node.call("chain_getBlockHash", json!([0]))?;
            let found = digest(&first).ok_or_else(|| wrong("genesis hash"))?;
            if found != *expected {
                return Err(AuditError::Untrusted(format!("{} has chain {found}, not {expected}", node.name())));
            }
        }
        let hash = match hash {
            Some(hash) => hash,
            None => digest(&node.call("chain_getFinalizedHead", json!([]))?).ok_or_else(|| wrong("finalized head"))?,
        };
        let header = node.call("chain_getHeader", json!([format!("0x{hash}")]))?;
        if header.is_null() {
            return Err(AuditError::NotHeld { node: node.name().into(), what: format!("chain block {hash}") });
        }
        let number = header.get("number").and_then(Value::as_str).and_then(|n| n.strip_prefix("0x"));
        let number = number.and_then(|n| u64::from_str_radix(n, 16).ok()).ok_or_else(|| wrong("header"))?;
        Ok(Self { node, hash, number })
    }

    /// A hotkey's latest commitment on a subnet.
    ///
    /// # Errors
    /// No answer, or none of the kind.
    pub fn commitment(&self, netuid: u16, hotkey: &Hotkey) -> Result<Option<Commitment>, AuditError> {
        self.value("commitment", &commitment_key(netuid, hotkey))
    }

    /// An extrinsic of a finalized block, by its place.
    ///
    /// # Errors
    /// No answer; another block at that height, one that is not finalized, or no such place in it.
    pub fn extrinsic(&self, number: u64, hash: &Digest, index: u32) -> Result<Vec<u8>, AuditError> {
        let wrong = |why: String| AuditError::invalid(format!("block {number} of {}", self.node.name()), why);
        if number > self.number {
            return Err(wrong(format!("it is above block {}, which was asked about", self.number)));
        }
        let there = self.node.call("chain_getBlockHash", json!([number]))?;
        if there.as_str().and_then(|text| text.parse::<Digest>().ok()).as_ref() != Some(hash) {
            return Err(wrong(format!("its hash is not {hash}")));
        }
        let block = self.node.call("chain_getBlock", json!([format!("0x{hash}")]))?;
        let place = usize::try_from(index).ok();
        let text = place.and_then(|i| block.get("block")?.get("extrinsics")?.get(i)?.as_str());
        let text = text.ok_or_else(|| wrong(format!("there is no extrinsic {index}")))?;
        hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|e| wrong(e.to_string()))
    }

    fn value<T: DecodeAll>(&self, what: &str, key: &[u8]) -> Result<Option<T>, AuditError> {
        let wrong = |why: String| AuditError::invalid(format!("{what} of {}", self.node.name()), why);
        let found = self
            .node
            .call("state_getStorage", json!([format!("0x{}", hex::encode(key)), format!("0x{}", self.hash)]))?;
        let text = match &found {
            Value::Null => return Ok(None),
            Value::String(text) => text,
            _ => return Err(wrong("no text".into())),
        };
        let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|e| wrong(e.to_string()))?;
        T::decode_all(&mut bytes.as_slice()).map(Some).map_err(|e| wrong(e.to_string()))
    }

    /// A hotkey's uid; `None` where it is not registered.
    ///
    /// # Errors
    /// No answer, or none of the kind.
    pub fn uid(&self, netuid: u16, hotkey: &Hotkey) -> Result<Option<u16>, AuditError> {
        self.value("uid", &uid_key(netuid, hotkey))
    }

    /// What a uid put on chain: (uid, weight) as stored; empty where nothing.
    ///
    /// # Errors
    /// No answer, or none of the kind.
    pub fn weights(&self, index: u16, uid: u16) -> Result<Vec<(u16, u16)>, AuditError> {
        Ok(self.value("weights", &weights_key(index, uid))?.unwrap_or_default())
    }

    /// The blocks of the uids' last updates.
    ///
    /// # Errors
    /// No answer, or none of the kind.
    pub fn last_updates(&self, index: u16) -> Result<Vec<u64>, AuditError> {
        Ok(self.value("last updates", &last_update_key(index))?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_names_hash_as_every_substrate_chain_does() {
        // Well known: twox128("System"), twox128("Account").
        assert_eq!(hex::encode(twox128("System")), "26aa394eea5630e07c48ae0c9558cef7");
        assert_eq!(hex::encode(twox128("Account")), "b99d880ec681799c0cf30e8886371da9");
    }

    #[test]
    fn a_key_is_pallet_item_and_parts() {
        let alice: Hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY".parse().unwrap();
        let key = uid_key(1, &alice);
        // blake2_128 of Alice's key, as in every System.Account key of hers.
        let parts =
            "0100de1e86a9a8c739864cf3cc5ec2bea59fd43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";
        assert_eq!(hex::encode(&key[32..]), parts);
        assert_eq!(hex::encode(&weights_key(4097, 258)[32..]), "01100201");
        assert_eq!(storage_index(1, 1).unwrap(), 4097);
        assert!(storage_index(4096, 0).is_err() && storage_index(1, 16).is_err());
        // twox64 of Alice's key, as the SDK has it.
        let key = commitment_key(1, &alice);
        assert_eq!(hex::encode(&key[32..34]), "0100");
        assert_eq!(key[42..], alice.0);
    }

    #[test]
    fn a_commitment_is_read_whatever_its_fields() {
        let head = [&[0; 8][..], &[7, 0, 0, 0]].concat();
        let read = |fields: &[u8]| Commitment::read(&[&head, fields].concat());
        let fields = [&[12, 3, 5, 6, 131][..], &[9; 32], &[0]].concat();
        let expected = vec![Field::Raw(vec![5, 6]), Field::Sha256(Digest([9; 32])), Field::Other(0)];
        assert_eq!(read(&fields).unwrap(), Commitment { deposit: 0, block: 7, fields: expected });
        let others = [&[12, 130][..], &[1; 32], &[134, 4, 1], &[2; 8], &[136, 8, 1, 2]].concat();
        let expected = vec![Field::Other(130), Field::Other(134), Field::Other(136)];
        assert_eq!(read(&others).unwrap().fields, expected);
        // Cut off, too long, unknown, and a length that promises far more than there is.
        for bad in [&fields[..9], &[&fields[..], &[0]].concat(), &[4, 200], &[4, 136, 254, 255, 255, 255]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
