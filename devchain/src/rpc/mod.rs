//! JSON-RPC: the older method set of Substrate nodes, over WebSocket and HTTP on one port.
//!
//! The newer methods (`chainHead_v1_…`, `archive_v1_…`) are not offered and not listed by `rpc_methods`, so that
//! clients fall back to these.

mod author;
mod chain;
mod dev;
mod state;
mod system;

use crate::error::ChainError;
use crate::node::Node;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::{ErrorObjectOwned, Params, ParamsSequence};
use jsonrpsee::{Methods, RpcModule};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sp_core::H256;
use sp_core::crypto::Ss58Codec;
use sp_runtime::AccountId32;
use std::sync::Arc;

/// Code of errors about blocks, states and runtime calls.
const STATE_ERROR: i32 = 4003;

/// Code of arguments that make no sense.
const INVALID_PARAMS: i32 = -32602;

type Module = RpcModule<Node>;
type Answer<V> = Result<V, ErrorObjectOwned>;

/// All methods.
pub(crate) fn methods(node: Arc<Node>) -> Result<Methods, RegisterMethodError> {
    let mut module = RpcModule::from_arc(node);
    chain::register(&mut module)?;
    state::register(&mut module)?;
    author::register(&mut module)?;
    system::register(&mut module)?;
    dev::register(&mut module)?;
    let mut names: Vec<&str> = module.method_names().chain(["rpc_methods"]).collect();
    names.sort_unstable();
    let list = serde_json::json!({ "methods": names });
    module.register_method("rpc_methods", move |_, _, _| list.clone())?;
    Ok(module.into())
}

/// Bytes in hex, with `0x` where we write them and with or without it where we read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0x{}", hex::encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text.strip_prefix("0x").unwrap_or(&text)).map(Self).map_err(serde::de::Error::custom)
    }
}

/// An account, as ss58 address or in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account(pub AccountId32);

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = text.strip_prefix("0x").and_then(|text| hex::decode(text).ok());
        let account = match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(bytes) => Some(AccountId32::new(bytes)),
            None => AccountId32::from_ss58check(&text).ok(),
        };
        account.map(Self).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not an account")))
    }
}

/// The block an answer is about: `null` or nothing for the newest.
fn block_argument(params: &mut ParamsSequence<'_>) -> Answer<Option<H256>> {
    let Some(Hex(bytes)) = params.optional_next::<Hex>()? else { return Ok(None) };
    let hash = <[u8; 32]>::try_from(bytes).map_err(|bytes| {
        ErrorObjectOwned::owned(INVALID_PARAMS, format!("a block hash has 32 bytes, not {}", bytes.len()), None::<()>)
    })?;
    Ok(Some(H256(hash)))
}

/// The only, optional argument: a block.
fn only_block(params: &Params<'_>) -> Answer<Option<H256>> {
    block_argument(&mut params.sequence())
}

impl From<ChainError> for ErrorObjectOwned {
    fn from(error: ChainError) -> Self {
        Self::owned(STATE_ERROR, format!("Client error: {error}"), None::<()>)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn hex_is_read_with_and_without_prefix_and_written_with_it() {
        for text in ["\"0x01ff\"", "\"01ff\""] {
            assert_eq!(serde_json::from_str::<Hex>(text).unwrap(), Hex(vec![1, 255]));
        }
        assert!(serde_json::from_str::<Hex>("\"0x1\"").is_err());
        assert_eq!(serde_json::to_string(&Hex(vec![1, 255])).unwrap(), "\"0x01ff\"");
    }

    #[test]
    fn accounts_are_read_as_address_and_as_hex() {
        let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
        let read = |text: &str| serde_json::from_str::<Account>(&format!("\"{text}\""));
        let account = read(alice).unwrap();
        assert_eq!(read(&format!("0x{}", hex::encode(&account.0))).unwrap(), account);
        assert!(read("5Grw").is_err());
        assert!(read("0x01").is_err());
    }
}
