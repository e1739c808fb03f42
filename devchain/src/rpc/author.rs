//! `author_…`: submitting transactions, with the error codes of Substrate nodes.
//!
//! | code | when |
//! |---|---|
//! | 1002 | the bytes are no extrinsic |
//! | 1010 | the runtime finds it invalid; `data` says why (`Custom error: 6` for Subtensor's own checks) |
//! | 1011 | the runtime cannot say |
//! | 1013 | it waits already |
//! | 1014 | another one of the same account and nonce waits |
//! | 1016 | no room, or refused on request |

use super::chain::send;
use super::{Answer, Hex, Module};
use crate::node::{Node, SubmitError};
use crate::pool::{PoolError, STATUS_BUFFER, Status};
use jsonrpsee::PendingSubscriptionSink;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde_json::{Value, json};
use sp_core::H256;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};
use std::sync::Arc;
use tokio::sync::mpsc;

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("author_submitExtrinsic", |params, node, _| -> Answer<H256> {
        let Hex(bytes) = params.one()?;
        Ok(node.submit(bytes, None)?)
    })?;
    module.register_method("author_pendingExtrinsics", |_, node, _| -> Vec<Hex> {
        node.pool().bytes().into_iter().map(Hex).collect()
    })?;
    module.register_subscription(
        "author_submitAndWatchExtrinsic",
        "author_extrinsicUpdate",
        "author_unwatchExtrinsic",
        |params, pending, node, _| async move { submit_and_watch(params, pending, node).await },
    )?;
    Ok(())
}

async fn submit_and_watch(params: Params<'static>, pending: PendingSubscriptionSink, node: Arc<Node>) {
    let bytes = match params.one::<Hex>() {
        Ok(Hex(bytes)) => bytes,
        Err(error) => return pending.reject(error).await,
    };
    let (sender, mut statuses) = mpsc::channel(STATUS_BUFFER);
    let submitted = tokio::task::spawn_blocking(move || node.submit(bytes, Some(sender))).await;
    match submitted {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return pending.reject(error).await,
        Err(error) => {
            return pending.reject(ErrorObjectOwned::owned(POOL_UNKNOWN, error.to_string(), None::<()>)).await;
        }
    }
    let Ok(sink) = pending.accept().await else { return };
    loop {
        let status = tokio::select! {
            status = statuses.recv() => status,
            () = sink.closed() => return,
        };
        let Some(status) = status else { return };
        if !send(&sink, &status_json(&status)).await || status.is_last() {
            return;
        }
    }
}

fn status_json(status: &Status) -> Value {
    match status {
        Status::Ready => json!("ready"),
        Status::Future => json!("future"),
        Status::InBlock(hash) => json!({ "inBlock": hash }),
        Status::Finalized(hash) => json!({ "finalized": hash }),
        Status::Invalid => json!("invalid"),
        Status::Dropped => json!("dropped"),
    }
}

const BAD_FORMAT: i32 = 1002;
const POOL_INVALID: i32 = 1010;
const POOL_UNKNOWN: i32 = 1011;
const POOL_IMPORTED: i32 = 1013;
const POOL_LOW_PRIORITY: i32 = 1014;
const POOL_DROPPED: i32 = 1016;

impl From<SubmitError> for ErrorObjectOwned {
    fn from(error: SubmitError) -> Self {
        let text = error.to_string();
        let (code, data) = match error {
            SubmitError::Format(_) => (BAD_FORMAT, None),
            SubmitError::Invalid(TransactionValidityError::Invalid(reason)) => (POOL_INVALID, Some(explain(reason))),
            SubmitError::Invalid(TransactionValidityError::Unknown(reason)) => {
                let reason: &'static str = reason.into();
                return Self::owned(POOL_UNKNOWN, "Unknown Transaction Validity", Some(reason));
            }
            SubmitError::Pool(PoolError::AlreadyImported) => (POOL_IMPORTED, None),
            SubmitError::Pool(PoolError::TooLowPriority { .. }) => {
                let why = "The transaction has too low priority to replace another transaction already in the pool.";
                (POOL_LOW_PRIORITY, Some(why.to_owned()))
            }
            SubmitError::Pool(PoolError::Full) | SubmitError::Fault => (POOL_DROPPED, None),
            SubmitError::Chain(error) => return error.into(),
        };
        Self::owned(code, text, data)
    }
}

fn explain(reason: InvalidTransaction) -> String {
    match reason {
        InvalidTransaction::Custom(code) => format!("Custom error: {code}"),
        other => {
            let text: &'static str = other.into();
            text.to_owned()
        }
    }
}
