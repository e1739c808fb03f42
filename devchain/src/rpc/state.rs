//! `state_…`: storage, runtime calls, metadata, version. And `payment_queryInfo`, which is a runtime call.

use super::chain::send;
use super::{Answer, Hex, INVALID_PARAMS, Module, block_argument, only_block};
use crate::chain::Chain;
use crate::error::ChainError;
use crate::node::{Node, decode_extrinsic};
use crate::runtime::METADATA_VERSIONS;
use jsonrpsee::PendingSubscriptionSink;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use pallet_transaction_payment::RuntimeDispatchInfo;
use scale::{Decode, Encode};
use serde::Serialize;
use sp_core::H256;
use std::sync::Arc;

/// Most keys in one answer, as in Substrate.
const MAX_KEYS_PAGE: u32 = 1000;

/// Most keys of one query or subscription.
const MAX_KEYS: usize = 4096;

/// Values of keys at a block.
#[derive(Debug, Serialize, Clone)]
struct ChangeSet {
    block: H256,
    changes: Vec<(Hex, Option<Hex>)>,
}

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    module.register_method("state_getStorage", |params, node, _| -> Answer<Option<Hex>> {
        let mut params = params.sequence();
        let Hex(key) = params.next()?;
        Ok(node.chain().value(block_argument(&mut params)?, &key)?.map(Hex))
    })?;
    module.register_alias("state_getStorageAt", "state_getStorage")?;
    module.register_blocking_method("state_queryStorageAt", |params, node, _| -> Answer<Vec<ChangeSet>> {
        let mut params = params.sequence();
        let keys = bounded(params.next()?)?;
        let at = block_argument(&mut params)?;
        let chain = node.chain();
        let block = at.unwrap_or(chain.head().hash);
        Ok(vec![ChangeSet { block, changes: values(&chain, block, &keys)? }])
    })?;
    module.register_blocking_method("state_getKeysPaged", |params, node, _| -> Answer<Vec<Hex>> {
        let mut params = params.sequence();
        let prefix = params.optional_next::<Hex>()?.unwrap_or(Hex(Vec::new())).0;
        let count: u32 = params.next()?;
        let start = params.optional_next::<Hex>()?.map(|Hex(start)| start);
        let at = block_argument(&mut params)?;
        if count > MAX_KEYS_PAGE {
            let text = format!("count {count} exceeds {MAX_KEYS_PAGE}");
            return Err(ErrorObjectOwned::owned(INVALID_PARAMS, text, None::<()>));
        }
        let keys = node.chain().keys(at, &prefix, start.as_deref(), count as usize)?;
        Ok(keys.into_iter().map(Hex).collect())
    })?;
    module.register_alias("state_getKeysPagedAt", "state_getKeysPaged")?;
    module.register_blocking_method("state_call", |params, node, _| -> Answer<Hex> {
        let mut params = params.sequence();
        let function: String = params.next()?;
        let Hex(arguments) = params.next()?;
        Ok(Hex(node.chain().call(block_argument(&mut params)?, &function, &arguments)?))
    })?;
    module.register_alias("state_callAt", "state_call")?;
    module.register_method("state_getMetadata", |params, node, _| -> Answer<Hex> {
        let metadata = node.chain().metadata(only_block(&params)?)?;
        let oldest = metadata.get(&METADATA_VERSIONS[0]).map(|metadata| metadata.to_vec());
        oldest.map(Hex).ok_or_else(|| ChainError::State("no metadata".to_owned()).into())
    })?;
    module.register_method("state_getRuntimeVersion", |params, node, _| -> Answer<_> {
        Ok(serde_json::json!(node.chain().version(only_block(&params)?)?))
    })?;
    module.register_alias("chain_getRuntimeVersion", "state_getRuntimeVersion")?;
    module.register_blocking_method("payment_queryInfo", |params, node, _| -> Answer<RuntimeDispatchInfo<u64>> {
        let mut params = params.sequence();
        let Hex(mut arguments) = params.next()?;
        let at = block_argument(&mut params)?;
        decode_extrinsic(&arguments)?;
        let length = u32::try_from(arguments.len()).unwrap_or(u32::MAX);
        arguments.extend_from_slice(&length.encode());
        let answer = node.chain().call(at, "TransactionPaymentApi_query_info", &arguments)?;
        let info = RuntimeDispatchInfo::decode(&mut &answer[..]);
        info.map_err(|error| ChainError::State(error.to_string()).into())
    })?;
    module.register_subscription(
        "state_subscribeRuntimeVersion",
        "state_runtimeVersion",
        "state_unsubscribeRuntimeVersion",
        |_, pending, node, _| runtime_version(pending, node),
    )?;
    module.register_alias("chain_subscribeRuntimeVersion", "state_subscribeRuntimeVersion")?;
    module.register_alias("chain_unsubscribeRuntimeVersion", "state_unsubscribeRuntimeVersion")?;
    module.register_subscription(
        "state_subscribeStorage",
        "state_storage",
        "state_unsubscribeStorage",
        |params, pending, node, _| async move { storage(params, pending, node).await },
    )?;
    Ok(())
}

fn bounded(keys: Vec<Hex>) -> Answer<Vec<Hex>> {
    if keys.len() <= MAX_KEYS {
        return Ok(keys);
    }
    let text = format!("{} keys; at most {MAX_KEYS} can be asked for", keys.len());
    Err(ErrorObjectOwned::owned(INVALID_PARAMS, text, None::<()>))
}

fn values(chain: &Chain, at: H256, keys: &[Hex]) -> Result<Vec<(Hex, Option<Hex>)>, ChainError> {
    keys.iter().map(|key| Ok((key.clone(), chain.value(Some(at), &key.0)?.map(Hex)))).collect()
}

/// The version, and each later one.
async fn runtime_version(pending: PendingSubscriptionSink, node: Arc<Node>) {
    let Ok(sink) = pending.accept().await else { return };
    let mut heads = node.heads();
    let mut known = None;
    loop {
        heads.borrow_and_update();
        let Ok(current) = node.chain().version(None) else { return };
        if known.as_ref() != Some(&current) && !send(&sink, &current).await {
            return;
        }
        known = Some(current);
        tokio::select! {
            () = sink.closed() => return,
            changed = heads.changed() => if changed.is_err() { return },
        }
    }
}

/// The values of the keys, then those that differ, block by block.
async fn storage(params: Params<'static>, pending: PendingSubscriptionSink, node: Arc<Node>) {
    let keys = match params.one::<Vec<Hex>>().and_then(bounded) {
        Ok(keys) => keys,
        Err(error) => return pending.reject(error).await,
    };
    let Ok(sink) = pending.accept().await else { return };
    let mut heads = node.heads();
    let mut known: Option<Vec<(Hex, Option<Hex>)>> = None;
    loop {
        heads.borrow_and_update();
        let (block, current) = {
            let chain = node.chain();
            let block = chain.head().hash;
            (block, values(&chain, block, &keys))
        };
        let Ok(current) = current else { return };
        let changes = match &known {
            None => current.clone(),
            Some(known) => current.iter().filter(|change| !known.contains(change)).cloned().collect(),
        };
        if (known.is_none() || !changes.is_empty()) && !send(&sink, &ChangeSet { block, changes }).await {
            return;
        }
        known = Some(current);
        tokio::select! {
            () = sink.closed() => return,
            changed = heads.changed() => if changed.is_err() { return },
        }
    }
}
