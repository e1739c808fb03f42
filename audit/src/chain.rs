//! What validators put on the Bittensor chain, read from any Substrate node by plain JSON-RPC.
//!
//! Storage keys are computed by hand: `twox128(pallet) ‖ twox128(item)`, then each key part under
//! its hasher (pallet `SubtensorModule`):
//!
//! | item | key parts | value |
//! |---|---|---|
//! | `Uids` | netuid u16 (Identity), hotkey (Blake2_128Concat) | u16 |
//! | `Weights` | storage index u16 (Identity), uid u16 (Identity) | `Vec<(u16, u16)>` |
//! | `LastUpdate` | storage index u16 (Identity) | `Vec<u64>` by uid |
//!
//! Numbers are little endian; a mechanism's storage index is mecid · 4096 + netuid. Nothing of this
//! is proved: it is what the node says of a block that the report names.

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest as _};
use perturb_types::{Digest, Hotkey};
use scale::DecodeAll;
use serde_json::{Value, json};
use twox_hash::XxHash64;

use crate::error::AuditError;
use crate::source::Source;

const PALLET: &str = "SubtensorModule";

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
    let mut out = twox128(PALLET).to_vec();
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
    }
}
