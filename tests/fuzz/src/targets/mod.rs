//! The targets, by what they read.

pub mod chain;
pub mod consensus;
pub mod images;
pub mod json;
pub mod judge;
pub mod ledger;
pub mod light;
pub mod machine;
pub mod mempool;
pub mod miner;
pub mod network;
mod peers;
pub mod png;
pub mod pulse;
pub mod snapshot;

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode;

/// Reads a value; what is read is written as it came.
pub(crate) fn canonical<T: BorshSerialize + BorshDeserialize>(bytes: &[u8], limit: usize) -> Option<T> {
    let value: T = encode::decode("input", bytes, limit).ok()?;
    assert!(bytes.len() <= limit);
    assert!(encode::encode(&value) == bytes, "one value has two byte strings");
    Some(value)
}
