//! JSON-RPC over HTTP and WebSocket.
//!
//! | method | parameters | answer |
//! |---|---|---|
//! | `perturb_status` | | [`Status`] |
//! | `perturb_epoch` | epoch | [`EpochReport`] or null where it is not closed |
//! | `perturb_receipt` | height, index | [`ReceiptEvidence`] or null where there is none |
//! | `perturb_validators` | | [`ValidatorReport`]s |
//! | `perturb_checks` | | [`CheckReport`]s |
//! | `perturb_orders` | | [`Orders`] |
//! | `perturb_optimistic` | | [`Optimistic`] |
//! | `perturb_submit` | hex of an owner's order or a key delegation | what became of it |
//! | [`serve::METHODS`] | | what auditors ask of the past |
//! | `perturb_anchors` | | [`AnchorPlace`]s of this validator's anchors on the chain |
//! | `perturb_peers` | | connected peers |
//! | `rpc_methods` | | the names of all methods |

use std::net::SocketAddr;
use std::sync::Arc;

use jsonrpsee::RpcModule;
use jsonrpsee::server::{Server, ServerConfig, ServerHandle};
use jsonrpsee::types::ErrorObjectOwned;
use perturb_ledger::{AnchorPlace, serve};
use perturb_storage::StorageError;
use serde::Serialize;
use serde_json::Value;

use super::view::NodeView;
use crate::http::ListenError;
use crate::report::{CheckReport, EpochReport, Optimistic, Orders, Status, ValidatorReport};

/// Connections at once: dashboards and scripts of one operator.
const MAX_CONNECTIONS: u32 = 64;

/// Bytes of a request: the keys of a proof request, in hex, or an owner's order.
const MAX_REQUEST_BYTES: u32 = 64 * 1024;

/// Bytes of an answer: the largest that an auditor can ask for.
const MAX_RESPONSE_BYTES: u32 = serve::MAX_ANSWER_BYTES as u32;

/// A connected peer.
#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    /// Its peer id.
    pub peer_id: String,
    /// The hotkey it proved.
    pub hotkey: Option<String>,
    /// Its role.
    pub role: String,
    /// Where the connection leads.
    pub address: String,
}

/// What one transaction did, and everything needed to check it; all in hex of the canonical bytes.
#[derive(Clone, Debug, Serialize)]
pub struct ReceiptEvidence {
    /// The block's header.
    pub header: String,
    /// Its certificate.
    pub certificate: String,
    /// The receipt with its place under the header's results root.
    pub proof: String,
}

fn internal(error: impl std::fmt::Display) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32603, error.to_string(), None::<()>)
}

/// What was pruned says so, as [`serve`] does.
fn unheld(error: StorageError) -> ErrorObjectOwned {
    match error {
        StorageError::Pruned { what, height, oldest } => {
            let e = serve::RpcError::Pruned { what, height, oldest };
            ErrorObjectOwned::owned(e.code(), e.to_string(), e.data())
        }
        other => internal(other),
    }
}

fn module(view: Arc<NodeView>) -> Result<RpcModule<Arc<NodeView>>, jsonrpsee::core::RegisterMethodError> {
    let mut m = RpcModule::new(view);
    m.register_blocking_method("perturb_status", |_, v, _| -> Result<Status, ErrorObjectOwned> {
        v.status().map_err(internal)
    })?;
    m.register_blocking_method("perturb_epoch", |p, v, _| -> Result<Option<EpochReport>, ErrorObjectOwned> {
        let epoch: u64 = p.one()?;
        v.epoch(epoch).map_err(unheld)
    })?;
    m.register_blocking_method("perturb_receipt", |p, v, _| -> Result<Option<ReceiptEvidence>, ErrorObjectOwned> {
        let (height, index): (u64, usize) = p.parse()?;
        v.receipt(height, index).map_err(unheld)
    })?;
    m.register_blocking_method("perturb_validators", |_, v, _| -> Result<Vec<ValidatorReport>, ErrorObjectOwned> {
        v.validators().map_err(internal)
    })?;
    m.register_blocking_method("perturb_checks", |_, v, _| -> Result<Vec<CheckReport>, ErrorObjectOwned> {
        v.checks().map_err(internal)
    })?;
    m.register_blocking_method("perturb_orders", |_, v, _| -> Result<Orders, ErrorObjectOwned> {
        v.orders().map_err(internal)
    })?;
    m.register_blocking_method("perturb_optimistic", |_, v, _| -> Result<Optimistic, ErrorObjectOwned> {
        v.optimistic().map_err(internal)
    })?;
    m.register_async_method("perturb_submit", |p, v, _| async move {
        let text: String = p.one()?;
        v.submit(&text).await.map_err(|why| ErrorObjectOwned::owned(-32602, why, None::<()>))
    })?;
    // What auditors ask of the past; client and server share the definition.
    for method in serve::METHODS {
        m.register_blocking_method(method, move |p, v, _| -> Result<Value, ErrorObjectOwned> {
            let given: Value = p.parse()?;
            let failed = |e: serve::RpcError| ErrorObjectOwned::owned(e.code(), e.to_string(), e.data());
            serve::answer(v.agreed.database(), method, &given).map_err(failed)
        })?;
    }
    m.register_method("perturb_anchors", |_, v, _| -> Vec<AnchorPlace> { v.anchors() })?;
    m.register_method("perturb_peers", |_, v, _| -> Vec<Peer> { v.peers() })?;
    let mut names: Vec<&'static str> = m.method_names().collect();
    names.push("rpc_methods");
    names.sort_unstable();
    m.register_method("rpc_methods", move |_, _, _| serde_json::json!({ "methods": names }))?;
    Ok(m)
}

/// Starts the server; it ends when the handle is dropped or stopped.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(addr: SocketAddr, view: Arc<NodeView>) -> Result<ServerHandle, ListenError> {
    let fail = |source| ListenError { what: "JSON-RPC", addr, flag: "--rpc-listen", source };
    let config = ServerConfig::builder()
        .max_connections(MAX_CONNECTIONS)
        .max_request_body_size(MAX_REQUEST_BYTES)
        .max_response_body_size(MAX_RESPONSE_BYTES)
        .build();
    let server = Server::builder().set_config(config).build(addr).await.map_err(fail)?;
    let module = module(view).map_err(|e| fail(std::io::Error::other(e.to_string())))?;
    Ok(server.start(module))
}
