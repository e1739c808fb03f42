//! One open connection: the websocket, the legacy methods over it and subxt on top.
//!
//! A link is never repaired. When it breaks, the client throws it away and opens a new one
//! (metadata and all), so nothing learnt from one node is believed of another. Every request
//! goes through [`Link::ask`], which bounds it and names it in the error.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use subxt::backend::LegacyBackend;
use subxt::client::{OnlineClient, OnlineClientAtBlock};
use subxt::config::{Header as _, RpcConfigFor, SubstrateConfig};
use subxt::ext::jsonrpsee::ws_client::{PingConfig, WsClientBuilder};
use subxt::rpcs::RpcClient;
use subxt::rpcs::client::JsonrpseeRpcClient;
use subxt::rpcs::methods::legacy::LegacyRpcMethods;
use tokio::sync::watch;

use crate::error::one_line;
use crate::pool::Checkpoint;
use crate::{BlockHash, ChainError, ChainOptions, Endpoint};

/// Requests in flight on one connection: a snapshot by storage asks 16 at a time, beside the
/// head follower and one submission.
const MAX_IN_FLIGHT: usize = 64;
/// Heads a subscription may lag before the node's side is cut: minutes of blocks, even fast ones.
const MAX_BUFFERED_HEADS: usize = 256;
/// Largest answer accepted: metadata is under 1 MB in hex, a full snapshot of 4096 neurons below 2 MB, and the commits of
/// an epoch, ten of 5000 bytes from each of 256 hotkeys, 26 MB.
const MAX_RESPONSE_BYTES: u32 = 32 * 1024 * 1024;
/// A websocket ping this often, so that a connection that died without a word is noticed.
const PING_EVERY: Duration = Duration::from_secs(10);
/// A connection without any traffic for this long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(25);

pub(crate) type Config = SubstrateConfig;
pub(crate) type At = OnlineClientAtBlock<Config>;
pub(crate) type Legacy = LegacyRpcMethods<RpcConfigFor<Config>>;

/// One connection to one node.
pub(crate) struct Link {
    endpoint: Endpoint,
    socket: Arc<JsonrpseeRpcClient>,
    legacy: Legacy,
    online: OnlineClient<Config>,
    genesis: BlockHash,
    request_timeout: Duration,
    /// Set when the client goes to another endpoint.
    retired: watch::Sender<bool>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("endpoint", &self.endpoint).field("genesis", &self.genesis).finish_non_exhaustive()
    }
}

impl Link {
    /// Opens a connection and reads the genesis hash; refuses a genesis other than `expected`, and a node with another
    /// block at the checkpoint.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        options: &ChainOptions,
        expected: Option<BlockHash>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Self, ChainError> {
        let away = |reason: String| ChainError::Away { endpoint: endpoint.to_string(), reason, retry_in_ms: 0 };
        let building = WsClientBuilder::new()
            .connection_timeout(options.connect_timeout())
            // Twice ours, so that ours comes first and names the request.
            .request_timeout(options.request_timeout().saturating_mul(2))
            .max_concurrent_requests(MAX_IN_FLIGHT)
            .max_buffer_capacity_per_subscription(MAX_BUFFERED_HEADS)
            .max_response_size(MAX_RESPONSE_BYTES)
            .enable_ws_ping(PingConfig::new().ping_interval(PING_EVERY).inactive_limit(DEAD_AFTER))
            .build(endpoint.url());
        let socket: JsonrpseeRpcClient = tokio::time::timeout(options.connect_timeout(), building)
            .await
            .map_err(|_| away(format!("no connection within {} ms", options.connect_timeout_ms)))?
            .map_err(|e| away(one_line(e)))?;
        let socket = Arc::new(socket);
        let rpc = RpcClient::new(Arc::clone(&socket));
        let legacy = Legacy::new(rpc.clone());

        let found: BlockHash = tokio::time::timeout(options.request_timeout(), legacy.genesis_hash())
            .await
            .map_err(|_| away(format!("no genesis hash within {} ms", options.request_timeout_ms)))?
            .map_err(|e| away(one_line(e)))?
            .into();
        if let Some(expected) = expected
            && expected != found
        {
            return Err(ChainError::WrongGenesis { endpoint: endpoint.to_string(), expected, found });
        }
        // A fresh configuration for each link: its metadata cache must not outlive the node.
        let config = SubstrateConfig::builder().set_genesis_hash(found.to_h256()).build();
        let backend: LegacyBackend<Config> = LegacyBackend::builder().build(rpc);
        let online =
            OnlineClient::from_backend_with_config(config, Arc::new(backend)).await.map_err(|e| away(one_line(e)))?;
        let link = Self {
            endpoint: endpoint.clone(),
            socket,
            legacy,
            online,
            genesis: found,
            request_timeout: options.request_timeout(),
            retired: watch::Sender::new(false),
        };
        if let Some(checkpoint) = checkpoint {
            link.hold_to(checkpoint).await?;
        }
        Ok(link)
    }

    /// Refuses a node with another block at the checkpoint. One that has not come so far may still come.
    pub(crate) async fn hold_to(&self, (height, expected): Checkpoint) -> Result<(), ChainError> {
        if self.finalized().await?.0 < height {
            return Ok(());
        }
        match self.hash_at(height).await? {
            Some(found) if found != expected => {
                Err(ChainError::Forked { endpoint: self.endpoint(), height, expected, found })
            }
            _ => Ok(()),
        }
    }

    /// Ends the use of this link: what is under way may end, nothing new begins.
    pub(crate) fn retire(&self) {
        self.retired.send_replace(true);
    }

    /// Waits until the link is retired.
    pub(crate) async fn retired(&self) {
        // The sender lives as long as this link.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    pub(crate) fn genesis(&self) -> BlockHash {
        self.genesis
    }

    pub(crate) fn legacy(&self) -> &Legacy {
        &self.legacy
    }

    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_connected() && !*self.retired.borrow()
    }

    /// Waits for one request, no longer than the request timeout.
    pub(crate) async fn ask<T, E: Display>(
        &self,
        what: impl Display,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ChainError> {
        match tokio::time::timeout(self.request_timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(self.classify(what, e)),
            Err(_) => Err(ChainError::Timeout {
                endpoint: self.endpoint(),
                what: what.to_string(),
                after_ms: u64::try_from(self.request_timeout.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// What a failed request means, from the connection's state and the node's words.
    pub(crate) fn classify(&self, what: impl Display, error: impl Display) -> ChainError {
        let reason = one_line(error);
        let endpoint = self.endpoint();
        let what = what.to_string();
        if !self.is_open() || reason.contains("restart required") || reason.contains("service disconnected") {
            return ChainError::Away { endpoint, reason: format!("the connection broke ({reason})"), retry_in_ms: 0 };
        }
        if reason.contains("State already discarded") || reason.contains("State already pruned") {
            return ChainError::StatePruned { endpoint, what };
        }
        ChainError::Rpc { endpoint, what, reason }
    }

    pub(crate) fn decode_error(&self, what: impl Display, error: impl Display) -> ChainError {
        ChainError::Decode { endpoint: self.endpoint(), what: what.to_string(), reason: one_line(error) }
    }

    pub(crate) fn inconsistent(&self, reason: impl Display) -> ChainError {
        ChainError::Inconsistent { endpoint: self.endpoint(), reason: one_line(reason) }
    }

    pub(crate) fn not_in_metadata(&self, item: impl Display) -> ChainError {
        ChainError::NotInMetadata { endpoint: self.endpoint(), item: item.to_string() }
    }

    /// The finalized head.
    pub(crate) async fn finalized(&self) -> Result<(u64, BlockHash), ChainError> {
        let hash: BlockHash = self.ask("chain_getFinalizedHead", self.legacy.chain_get_finalized_head()).await?.into();
        let number =
            self.number_of(hash).await?.ok_or(ChainError::NoSuchBlock { endpoint: self.endpoint(), block: hash })?;
        Ok((number, hash))
    }

    /// The best head, which may yet be dropped for another.
    pub(crate) async fn best(&self) -> Result<(u64, BlockHash), ChainError> {
        let what = "chain_getHeader";
        let header = self.ask(what, self.legacy.chain_get_header(None)).await?;
        let number = header.map(|h| h.number()).ok_or_else(|| self.inconsistent("no best block"))?;
        let hash = self.hash_at(number).await?;
        Ok((number, hash.ok_or_else(|| self.inconsistent(format_args!("no hash of the best block {number}")))?))
    }

    /// The height of a block, if the node knows it.
    pub(crate) async fn number_of(&self, hash: BlockHash) -> Result<Option<u64>, ChainError> {
        let header = self.ask("chain_getHeader", self.legacy.chain_get_header(Some(hash.to_h256()))).await?;
        Ok(header.map(|h| h.number()))
    }

    /// The hash at a height of the node's best chain.
    pub(crate) async fn hash_at(&self, number: u64) -> Result<Option<BlockHash>, ChainError> {
        let hash = self.ask("chain_getBlockHash", self.legacy.chain_get_block_hash(Some(number.into()))).await?;
        Ok(hash.map(BlockHash::from))
    }

    /// Height of `hash`, provided that it is on the finalized chain.
    pub(crate) async fn finalized_number_of(&self, hash: BlockHash) -> Result<u64, ChainError> {
        let number =
            self.number_of(hash).await?.ok_or(ChainError::NoSuchBlock { endpoint: self.endpoint(), block: hash })?;
        let (finalized, head) = self.finalized().await?;
        let on_chain =
            if hash == head { true } else { number <= finalized && self.hash_at(number).await? == Some(hash) };
        if on_chain {
            Ok(number)
        } else {
            Err(ChainError::NotFinalized { endpoint: self.endpoint(), block: hash, finalized })
        }
    }

    /// subxt at one block, with the metadata of that block's runtime.
    pub(crate) async fn at(&self, number: u64, hash: BlockHash) -> Result<At, ChainError> {
        self.ask("metadata", self.online.at_block_hash_and_number(hash.to_h256(), number)).await
    }
}
