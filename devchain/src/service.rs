//! Starting and stopping the node.

use crate::error::StartError;
use crate::genesis::Genesis;
use crate::node::Node;
use crate::rpc;
use jsonrpsee::Methods;
use jsonrpsee::server::{Server, ServerConfig, StopHandle, serve_with_graceful_shutdown, stop_channel};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tower::Service;

/// Connections at a time: some twenty processes with a few each.
const MAX_CONNECTIONS: usize = 256;

/// Subscriptions of one connection.
const MAX_SUBSCRIPTIONS: u32 = 256;

/// Greatest request: an extrinsic of the greatest size in hex, with room for a batch.
const MAX_REQUEST_BYTES: u32 = 2 * 1024 * 1024;

/// Greatest answer: metadata in hex takes about half a megabyte.
const MAX_RESPONSE_BYTES: u32 = 16 * 1024 * 1024;

/// Bytes on the way between a connection and the server.
const PIPE_BYTES: usize = 64 * 1024;

/// Fastest block time; below it, blocks would do nothing but follow each other.
const MIN_BLOCK_TIME: Duration = Duration::from_millis(10);

/// How to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port on 127.0.0.1; 0 for any free one.
    pub rpc_port: u16,
    /// Time between two blocks; 10 ms at least.
    pub block_time: Duration,
    /// What the chain begins with.
    pub genesis: Genesis,
    /// Folder that keeps the chain; without one it lives in memory only.
    pub data_dir: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { rpc_port: 0, block_time: Duration::from_secs(1), genesis: Genesis::default(), data_dir: None }
    }
}

/// A running chain. Dropping it stops the chain without waiting.
pub struct Handle {
    addr: SocketAddr,
    genesis_hash: sp_core::H256,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    node: Arc<Node>,
}

impl Handle {
    /// Where clients connect: `ws://127.0.0.1:PORT`. The same port speaks HTTP.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    /// The address behind [`Handle::ws_url`].
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Hash of block 0.
    #[must_use]
    pub fn genesis_hash(&self) -> [u8; 32] {
        self.genesis_hash.0
    }

    /// Close the port, finish the block that is being made, bring everything to the disk, and let go of the folder: the
    /// chain can be started on it again when this returns.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.node.close();
    }
}

/// Start the chain; it is ready when this returns.
///
/// # Errors
/// [`StartError`]: the genesis or the stored chain cannot be used, or the port is taken.
pub async fn run(config: Config) -> Result<Handle, StartError> {
    let block_time = config.block_time.max(MIN_BLOCK_TIME);
    let slot_millis = u64::try_from(block_time.as_millis()).unwrap_or(u64::MAX);
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, config.rpc_port));
    let listener = TcpListener::bind(addr).await.map_err(|source| StartError::Listen { addr, source })?;
    let addr = listener.local_addr().map_err(|source| StartError::Listen { addr, source })?;
    let opened =
        tokio::task::spawn_blocking(move || Node::open(&config.genesis, config.data_dir.as_deref(), slot_millis));
    let node = Arc::new(opened.await.map_err(|error| StartError::Rpc(error.to_string()))??);
    let methods = rpc::methods(Arc::clone(&node)).map_err(|error| StartError::Rpc(error.to_string()))?;
    let genesis_hash = node.chain().genesis_hash();
    let stop = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(make_blocks(Arc::clone(&node), block_time, stop.subscribe()));
    tasks.spawn(accept(Arc::clone(&node), listener, methods, stop.subscribe()));
    tasks.spawn(end_cuts(Arc::clone(&node), stop.subscribe()));
    Ok(Handle { addr, genesis_hash, stop, tasks, node })
}

async fn make_blocks(node: Arc<Node>, block_time: Duration, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(block_time);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if node.faults.current().stop_blocks {
            continue;
        }
        let maker = Arc::clone(&node);
        match tokio::task::spawn_blocking(move || maker.make_block()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "no block could be made; trying again"),
            Err(error) => tracing::error!(%error, "the block maker failed; trying again"),
        }
    }
}

async fn end_cuts(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = node.faults.heal() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

async fn accept(node: Arc<Node>, listener: TcpListener, methods: Methods, mut stop: watch::Receiver<bool>) {
    let (stop_handle, server_handle) = stop_channel();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if node.faults.current().drop_connections_ms > 0 => drop(socket),
                Ok((socket, _)) => {
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        tracing::warn!(limit = MAX_CONNECTIONS, "too many connections; one refused");
                        continue;
                    };
                    let serving = serve(Arc::clone(&node), socket, methods.clone(), stop_handle.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(permit);
                    });
                }
                // Out of file descriptors or the like: wait for it to pass.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    // Fails only if the server has stopped already.
    let _ = server_handle.stop();
    connections.shutdown().await;
}

/// Serve one connection through the pipe that can fail.
async fn serve(node: Arc<Node>, socket: TcpStream, methods: Methods, stop: StopHandle) {
    // Small answers go out at once; without this they wait for the other side's acknowledgement.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let config = ServerConfig::builder()
        .max_connections(1)
        .max_subscriptions_per_connection(MAX_SUBSCRIPTIONS)
        .max_request_body_size(MAX_REQUEST_BYTES)
        .max_response_body_size(MAX_RESPONSE_BYTES)
        .build();
    let builder = Server::builder().set_config(config).to_service_builder();
    let stopped = stop.clone().shutdown();
    let service = tower::service_fn(move |request| {
        let mut service = builder.clone().build(methods.clone(), stop.clone());
        service.call(request)
    });
    let (ours, servers) = tokio::io::duplex(PIPE_BYTES);
    let serving = tokio::spawn(serve_with_graceful_shutdown(servers, service, stopped));
    node.faults.pipe(socket, ours).await;
    serving.abort();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use jsonrpsee::core::client::ClientT;
    use jsonrpsee::rpc_params;
    use jsonrpsee::ws_client::WsClientBuilder;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stopped_chain_has_let_go_of_its_folder_whoever_still_asks() {
        let folder = tempfile::tempdir().unwrap();
        let config = || Config {
            data_dir: Some(folder.path().to_owned()),
            block_time: Duration::from_millis(20),
            ..Config::default()
        };
        for _ in 0..8 {
            let handle = run(config()).await.unwrap();
            let mut asking = JoinSet::new();
            for _ in 0..8 {
                let client = WsClientBuilder::new().build(handle.ws_url()).await.unwrap();
                asking.spawn(async move {
                    while client.request::<serde_json::Value, _>("state_getMetadata", rpc_params![]).await.is_ok() {}
                });
            }
            // Somebody holds the chain for reading when it is stopped, as an answer on its way does.
            let held = Arc::clone(&handle.node);
            handle.stop().await;
            let again = run(config()).await;
            assert!(again.is_ok(), "{:?}", again.err());
            again.unwrap().stop().await;
            drop(held);
            asking.shutdown().await;
        }
    }
}
