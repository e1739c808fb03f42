//! The client: keeps one link open, opens another when it breaks, and answers in bounded time.
//!
//! While no node answers, attempts are spaced by a doubling wait with jitter; a call in between
//! fails at once with [`ChainError::Away`] and the wait that is left. Attempts go round the
//! configured endpoints. The genesis hash of the first node that answered (or the one in the
//! options) is demanded of every later one, and so is the block at the checkpoint. With several
//! endpoints the others are asked after too ([`crate::pool`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::link::Link;
use crate::options::MAX_ENDPOINTS;
use crate::pool::{self, Checkpoint, EndpointHealth, Health};
use crate::view::{self, ChainView};
use crate::{BlockHash, ChainError, ChainOptions, Endpoint};

/// First wait after a failed attempt.
const FIRST_BACKOFF_MS: u64 = 250;
/// Longest wait between attempts: a node that is back is used within this time.
const MAX_BACKOFF_MS: u64 = 5_000;

/// A client of one chain. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct ChainClient {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) options: ChainOptions,
    genesis: OnceLock<BlockHash>,
    checkpoint: watch::Sender<Option<Checkpoint>>,
    health: watch::Sender<Vec<EndpointHealth>>,
    /// Whether somebody asks after the endpoints already.
    watched: AtomicBool,
    connection: Mutex<Connection>,
    /// One submission at a time, so that two calls never take the same nonce.
    submitting: Mutex<()>,
}

#[derive(Default)]
struct Connection {
    link: Option<Arc<Link>>,
    /// The endpoint in use, or the one to try first.
    next_endpoint: usize,
    failures: u32,
    retry_at: Option<Instant>,
    last_error: Option<ChainError>,
}

impl std::fmt::Debug for ChainClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainClient").field("endpoints", &self.inner.endpoints).finish_non_exhaustive()
    }
}

/// The wait after `failures` failed attempts in a row: doubling, capped, and with up to half
/// of itself on top (`jitter` in 0..=65535) so that validators do not return in step.
pub(crate) fn backoff(failures: u32, jitter: u16) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let base = (FIRST_BACKOFF_MS << doublings).min(MAX_BACKOFF_MS);
    Duration::from_millis(base + base / 2 * u64::from(jitter) / 65_536)
}

impl ChainClient {
    /// A client that has not connected yet: nothing is sent before the first call.
    ///
    /// # Errors
    /// Endpoints that cannot be used.
    pub fn new(endpoints: &[String], options: ChainOptions) -> Result<Self, ChainError> {
        if endpoints.is_empty() {
            return Err(ChainError::NoEndpoint);
        }
        if endpoints.len() > MAX_ENDPOINTS {
            return Err(ChainError::TooManyEndpoints { count: endpoints.len(), max: MAX_ENDPOINTS });
        }
        let endpoints = endpoints.iter().map(|e| Endpoint::parse(e)).collect::<Result<Vec<_>, _>>()?;
        let genesis = OnceLock::new();
        if let Some(expected) = options.expected_genesis {
            let _ = genesis.set(expected);
        }
        let health = endpoints.iter().map(|endpoint| EndpointHealth {
            endpoint: endpoint.to_string(),
            in_use: false,
            health: Health::Unknown,
        });
        let inner = Inner {
            health: watch::Sender::new(health.collect()),
            checkpoint: watch::Sender::new(None),
            watched: AtomicBool::new(false),
            endpoints,
            options,
            genesis,
            connection: Mutex::new(Connection::default()),
            submitting: Mutex::new(()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A client with the default options, connected.
    ///
    /// # Errors
    /// Endpoints that cannot be used, or none that answers now. A program that must start
    /// while the chain is away uses [`ChainClient::new`].
    pub async fn connect(endpoints: &[String]) -> Result<Self, ChainError> {
        Self::connect_with(endpoints, ChainOptions::default()).await
    }

    /// A connected client.
    ///
    /// # Errors
    /// As [`ChainClient::connect`].
    pub async fn connect_with(endpoints: &[String], options: ChainOptions) -> Result<Self, ChainError> {
        let client = Self::new(endpoints, options)?;
        client.link().await?;
        Ok(client)
    }

    pub(crate) fn options(&self) -> &ChainOptions {
        &self.inner.options
    }

    pub(crate) fn submitting(&self) -> &Mutex<()> {
        &self.inner.submitting
    }

    /// The genesis hash if a node has answered yet (or the options name it).
    pub fn known_genesis(&self) -> Option<BlockHash> {
        self.inner.genesis.get().copied()
    }

    /// Demands of every endpoint that it has this block: one that the network agreed to be finalized. Older ones than
    /// the last given are ignored.
    pub fn hold_to(&self, number: u64, hash: BlockHash) {
        self.inner.checkpoint.send_if_modified(|checkpoint| {
            let newer = checkpoint.is_none_or(|(known, _)| number > known);
            if newer {
                *checkpoint = Some((number, hash));
            }
            newer
        });
    }

    pub(crate) fn known_checkpoint(&self) -> Option<Checkpoint> {
        *self.inner.checkpoint.borrow()
    }

    /// How the endpoints fare, in their order; kept up to date while a view is followed and there are several.
    pub fn health(&self) -> watch::Receiver<Vec<EndpointHealth>> {
        self.inner.health.subscribe()
    }

    /// Publishes how the endpoints fare, and moves to a better one where the one in use is not to be kept.
    pub(crate) async fn note_health(&self, all: Vec<Health>) {
        let mut connection = self.inner.connection.lock().await;
        if let Some(next) = pool::better(connection.next_endpoint, &all) {
            if let Some(link) = connection.link.take() {
                tracing::warn!(from = %link.endpoint(), to = %self.inner.endpoints[next], "moving to another endpoint");
                link.retire();
            }
            *connection = Connection { next_endpoint: next, ..Connection::default() };
        }
        let in_use = connection.link.is_some().then_some(connection.next_endpoint);
        let endpoints = self.inner.endpoints.iter().map(ToString::to_string).enumerate();
        let health = endpoints.zip(all).map(|((i, endpoint), health)| EndpointHealth {
            endpoint,
            in_use: in_use == Some(i),
            health,
        });
        self.inner.health.send_replace(health.collect());
    }

    /// The chain's genesis hash.
    ///
    /// # Errors
    /// No node answers and none has before.
    pub async fn genesis_hash(&self) -> Result<BlockHash, ChainError> {
        match self.known_genesis() {
            Some(hash) => Ok(hash),
            None => Ok(self.link().await?.genesis()),
        }
    }

    /// The finalized head: (number, hash).
    ///
    /// # Errors
    /// The chain is away or answers with an error.
    pub async fn finalized(&self) -> Result<(u64, BlockHash), ChainError> {
        self.link().await?.finalized().await
    }

    /// The hash at height `number` of the finalized chain; `None` if it is not finalized yet.
    ///
    /// # Errors
    /// The chain is away or answers with an error.
    pub async fn finalized_on_chain(&self, number: u64) -> Result<Option<BlockHash>, ChainError> {
        let link = self.link().await?;
        let (finalized, head) = link.finalized().await?;
        match number.cmp(&finalized) {
            std::cmp::Ordering::Greater => Ok(None),
            std::cmp::Ordering::Equal => Ok(Some(head)),
            std::cmp::Ordering::Less => link.hash_at(number).await,
        }
    }

    /// Whether `hash` is the block at height `number` of the finalized chain.
    ///
    /// # Errors
    /// The chain is away or answers with an error.
    pub async fn is_finalized(&self, number: u64, hash: BlockHash) -> Result<bool, ChainError> {
        Ok(self.finalized_on_chain(number).await? == Some(hash))
    }

    /// A view of the finalized head of subnet `netuid`, kept up to date by a background task
    /// until every receiver is dropped. Needs a tokio runtime. It starts as
    /// [`ChainView::default`], not connected.
    pub fn subscribe_finalized(&self, netuid: u16) -> watch::Receiver<ChainView> {
        let (tx, rx) = watch::channel(ChainView::default());
        tokio::spawn(view::follow(self.clone(), netuid, tx));
        if self.inner.endpoints.len() > 1 && !self.inner.watched.swap(true, Ordering::Relaxed) {
            tokio::spawn(pool::keep_watch(Arc::downgrade(&self.inner)));
        }
        rx
    }

    /// The open link, or a new one, or the reason why there is none.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, ChainError> {
        // Another call may be connecting: wait for it no longer than a connection may take.
        let wait = self.inner.options.connect_timeout().saturating_add(self.inner.options.request_timeout());
        let Ok(mut connection) = tokio::time::timeout(wait, self.inner.connection.lock()).await else {
            return Err(ChainError::Away {
                endpoint: self.endpoints_text(),
                reason: "still connecting".into(),
                retry_in_ms: 0,
            });
        };
        if let Some(link) = &connection.link {
            if link.is_open() {
                return Ok(Arc::clone(link));
            }
            tracing::warn!(endpoint = %link.endpoint(), "the connection to the chain broke; connecting anew");
            connection.link = None;
        }
        let now = Instant::now();
        if let Some(retry_at) = connection.retry_at
            && now < retry_at
        {
            return Err(self.still_away(&connection, retry_at.duration_since(now)));
        }
        self.reconnect(&mut connection).await
    }

    async fn reconnect(&self, connection: &mut Connection) -> Result<Arc<Link>, ChainError> {
        let n = self.inner.endpoints.len();
        let start = connection.next_endpoint;
        for (i, endpoint) in self.inner.endpoints.iter().cycle().skip(start % n).take(n).enumerate() {
            match Link::open(endpoint, &self.inner.options, self.known_genesis(), self.known_checkpoint()).await {
                Ok(link) => {
                    let genesis = *self.inner.genesis.get_or_init(|| link.genesis());
                    if genesis != link.genesis() {
                        connection.last_error = Some(ChainError::WrongGenesis {
                            endpoint: link.endpoint(),
                            expected: genesis,
                            found: link.genesis(),
                        });
                        continue;
                    }
                    tracing::info!(%endpoint, %genesis, "connected to the chain");
                    let link = Arc::new(link);
                    *connection = Connection {
                        link: Some(Arc::clone(&link)),
                        next_endpoint: (start + i) % n,
                        ..Connection::default()
                    };
                    return Ok(link);
                }
                Err(e) => {
                    tracing::debug!(%endpoint, error = %e, "no connection to the chain");
                    connection.last_error = Some(e);
                }
            }
        }
        connection.failures = connection.failures.saturating_add(1);
        connection.next_endpoint = (start + 1) % n;
        let wait = backoff(connection.failures, rand::random());
        connection.retry_at = Some(Instant::now() + wait);
        Err(self.still_away(connection, wait))
    }

    /// The error of a call while no link can be had. A wrong genesis is said as such: it is
    /// an operator's mistake, not an outage.
    fn still_away(&self, connection: &Connection, wait: Duration) -> ChainError {
        let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        match &connection.last_error {
            Some(wrong @ (ChainError::WrongGenesis { .. } | ChainError::Forked { .. })) => wrong.clone(),
            Some(ChainError::Away { reason, .. }) => {
                ChainError::Away { endpoint: self.endpoints_text(), reason: reason.clone(), retry_in_ms }
            }
            other => ChainError::Away {
                endpoint: self.endpoints_text(),
                reason: other.as_ref().map_or_else(|| "not connected yet".into(), ToString::to_string),
                retry_in_ms,
            },
        }
    }

    /// Throws `link` away if it is still the current one, and goes on to the next endpoint:
    /// this one is open but of no use.
    pub(crate) async fn discard(&self, link: &Arc<Link>) {
        let mut connection = self.inner.connection.lock().await;
        if connection.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            connection.link = None;
            connection.next_endpoint = (connection.next_endpoint + 1) % self.inner.endpoints.len();
        }
    }

    /// How long until the next attempt to connect may be made.
    pub(crate) async fn retry_in(&self) -> Duration {
        let connection = self.inner.connection.lock().await;
        let floor = Duration::from_millis(FIRST_BACKOFF_MS);
        connection.retry_at.map_or(floor, |at| at.saturating_duration_since(Instant::now()).max(floor))
    }

    fn endpoints_text(&self) -> String {
        self.inner.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
