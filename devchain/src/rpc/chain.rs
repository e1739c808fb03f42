//! `chain_…`: blocks, headers, and the streams of new ones.

use super::{Answer, Hex, INVALID_PARAMS, Module, only_block};
use crate::chain::StoredBlock;
use crate::node::Node;
use crate::runtime::Header;
use jsonrpsee::core::{RegisterMethodError, to_json_raw_value};
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{PendingSubscriptionSink, SubscriptionSink};
use serde_json::{Value, json};
use sp_core::H256;
use std::sync::Arc;

/// Numbers in one request for hashes.
const MAX_NUMBERS: usize = 1024;

/// Subscription, name of its messages, end of it, and other names of the first and the last.
const HEAD_STREAMS: [[&str; 5]; 3] = [
    [
        "chain_subscribeNewHeads",
        "chain_newHead",
        "chain_unsubscribeNewHeads",
        "chain_subscribeNewHead",
        "chain_unsubscribeNewHead",
    ],
    ["chain_subscribeAllHeads", "chain_allHead", "chain_unsubscribeAllHeads", "", ""],
    [
        "chain_subscribeFinalizedHeads",
        "chain_finalizedHead",
        "chain_unsubscribeFinalizedHeads",
        "chain_subscribeFinalisedHeads",
        "chain_unsubscribeFinalisedHeads",
    ],
];

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    module.register_method("chain_getHeader", |params, node, _| -> Answer<Option<Header>> {
        Ok(node.chain().block(only_block(&params)?).map(|block| block.header.clone()))
    })?;
    module.register_method("chain_getBlock", |params, node, _| -> Answer<Option<Value>> {
        Ok(node.chain().block(only_block(&params)?).map(block_json))
    })?;
    module.register_method("chain_getBlockHash", |params, node, _| -> Answer<Value> {
        match params.sequence().optional_next::<Value>()? {
            None => Ok(json!(node.chain().head().hash)),
            Some(Value::Array(numbers)) if numbers.len() <= MAX_NUMBERS => {
                numbers.iter().map(|number| hash_of(node, number)).collect::<Answer<Vec<_>>>().map(|all| json!(all))
            }
            Some(number) => hash_of(node, &number).map(|hash| json!(hash)),
        }
    })?;
    module.register_alias("chain_getHead", "chain_getBlockHash")?;
    module.register_method("chain_getFinalizedHead", |_, node, _| -> Answer<H256> { Ok(node.chain().head().hash) })?;
    module.register_alias("chain_getFinalisedHead", "chain_getFinalizedHead")?;
    for [subscribe, message, unsubscribe, other_subscribe, other_unsubscribe] in HEAD_STREAMS {
        module.register_subscription(subscribe, message, unsubscribe, |_, pending, node, _| heads(pending, node))?;
        if !other_subscribe.is_empty() {
            module.register_alias(other_subscribe, subscribe)?;
            module.register_alias(other_unsubscribe, unsubscribe)?;
        }
    }
    Ok(())
}

fn block_json(block: &StoredBlock) -> Value {
    let extrinsics: Vec<Hex> = block.extrinsics.iter().cloned().map(Hex).collect();
    json!({ "block": { "header": block.header, "extrinsics": extrinsics }, "justifications": null })
}

fn hash_of(node: &Node, number: &Value) -> Answer<Option<H256>> {
    let parsed = match number {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()),
        _ => None,
    };
    let number = parsed.ok_or_else(|| {
        ErrorObjectOwned::owned(INVALID_PARAMS, format!("{number} is not a block number"), None::<()>)
    })?;
    Ok(u32::try_from(number).ok().and_then(|number| node.chain().hash_of(number)))
}

/// The newest header, then every further one in turn.
async fn heads(pending: PendingSubscriptionSink, node: Arc<Node>) {
    let Ok(sink) = pending.accept().await else { return };
    let mut heads = node.heads();
    let mut next = *heads.borrow();
    loop {
        let newest = *heads.borrow_and_update();
        while next <= newest {
            let header = {
                let chain = node.chain();
                chain.hash_of(next).and_then(|hash| chain.block(Some(hash)).map(|block| block.header.clone()))
            };
            next += 1;
            // A listener so slow that blocks leave the window misses them.
            if let Some(header) = header
                && !send(&sink, &header).await
            {
                return;
            }
        }
        tokio::select! {
            () = sink.closed() => return,
            changed = heads.changed() => if changed.is_err() { return },
        }
    }
}

/// Send a message; false if nobody listens any more.
pub(super) async fn send(sink: &SubscriptionSink, message: &impl serde::Serialize) -> bool {
    match to_json_raw_value(message) {
        Ok(message) => sink.send(message).await.is_ok(),
        Err(error) => {
            tracing::error!(%error, "a message could not be written as JSON");
            false
        }
    }
}
