//! The endpoints beside the one in use: who answers, who lags, who is on another chain.
//!
//! With several endpoints, every one is asked now and then for its genesis hash, its finalized head, and the block at
//! the *checkpoint*: a block that the network itself agreed to be finalized ([`crate::ChainClient::hold_to`]). One that has
//! another block there follows another chain, whatever it says, and is not used. The endpoint in use is kept as long
//! as it is healthy; otherwise the client moves to the healthy one that answers fastest.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use subxt::config::{Header as _, RpcConfigFor};
use subxt::ext::jsonrpsee::ws_client::WsClientBuilder;
use subxt::rpcs::RpcClient;
use subxt::rpcs::client::JsonrpseeRpcClient;
use subxt::rpcs::methods::legacy::LegacyRpcMethods;
use tokio::time::Instant;

use crate::client::Inner;
use crate::error::one_line;
use crate::link::Config;
use crate::{BlockHash, ChainClient, ChainOptions, Endpoint};

/// Finalized blocks that an endpoint may be behind the foremost one: nodes hear of finality within a few blocks of
/// each other.
pub const MAX_LAG_BLOCKS: u64 = 8;
/// Largest answer to a probe: headers and hashes.
const MAX_ANSWER_BYTES: u32 = 1024 * 1024;

/// A finalized block that the network agreed on: height and hash.
pub type Checkpoint = (u64, BlockHash);

/// How an endpoint fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// Fit for use.
    Healthy {
        /// Its finalized height.
        finalized: u64,
        /// How long it took to answer, in milliseconds.
        took_ms: u64,
    },
    /// Too far behind another endpoint.
    Lagging {
        /// Its finalized height.
        finalized: u64,
        /// Blocks behind the foremost.
        behind: u64,
    },
    /// It does not answer.
    Away {
        /// Why.
        reason: String,
    },
    /// Another network.
    WrongGenesis {
        /// Its genesis hash.
        found: BlockHash,
    },
    /// Another chain from the same genesis.
    Forked {
        /// The checkpoint's height.
        height: u64,
        /// Its block there.
        found: BlockHash,
    },
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not asked yet"),
            Self::Healthy { finalized, took_ms } => write!(f, "final at {finalized}, answers in {took_ms} ms"),
            Self::Lagging { finalized, behind } => write!(f, "final at {finalized}, {behind} blocks behind"),
            Self::Away { reason } => write!(f, "away: {reason}"),
            Self::WrongGenesis { found } => write!(f, "another network (genesis {found})"),
            Self::Forked { height, found } => write!(f, "another chain (block {height} is {found})"),
        }
    }
}

impl Health {
    fn took_ms(&self) -> Option<u64> {
        match self {
            Self::Healthy { took_ms, .. } => Some(*took_ms),
            _ => None,
        }
    }
}

/// An endpoint and how it fares, for showing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointHealth {
    /// Scheme, host and port.
    pub endpoint: String,
    /// Whether the client uses it.
    pub in_use: bool,
    /// How it fares.
    pub health: Health,
}

/// What one endpoint answered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    genesis: BlockHash,
    finalized: u64,
    /// Its block at the checkpoint's height, if that is finalized there.
    at_checkpoint: Option<BlockHash>,
    took_ms: u64,
}

/// What the answers of all endpoints mean.
fn assess(seen: &[Result<Seen, String>], genesis: Option<BlockHash>, checkpoint: Option<Checkpoint>) -> Vec<Health> {
    let one = |seen: &Result<Seen, String>| match seen {
        Err(reason) => Health::Away { reason: reason.clone() },
        Ok(s) => match (genesis, checkpoint, s.at_checkpoint) {
            (Some(expected), ..) if expected != s.genesis => Health::WrongGenesis { found: s.genesis },
            (_, Some((height, expected)), Some(found)) if expected != found => Health::Forked { height, found },
            _ => Health::Healthy { finalized: s.finalized, took_ms: s.took_ms },
        },
    };
    let mut all: Vec<Health> = seen.iter().map(one).collect();
    // Only who is on the right chain counts as being ahead.
    let height = |health: &Health| match health {
        Health::Healthy { finalized, .. } => Some(*finalized),
        _ => None,
    };
    let foremost = all.iter().filter_map(height).max().unwrap_or(0);
    for health in &mut all {
        if let Health::Healthy { finalized, .. } = *health
            && foremost - finalized > MAX_LAG_BLOCKS
        {
            *health = Health::Lagging { finalized, behind: foremost - finalized };
        }
    }
    all
}

/// The endpoint to move to, if the one in use is not to be kept and there is a better one.
pub(crate) fn better(in_use: usize, all: &[Health]) -> Option<usize> {
    if all.get(in_use)?.took_ms().is_some() {
        return None;
    }
    let healthy = all.iter().enumerate().filter_map(|(i, h)| Some((h.took_ms()?, i)));
    healthy.min().map(|(_, i)| i)
}

/// A connection for asking after an endpoint, kept from one time to the next.
struct Probe {
    endpoint: Endpoint,
    rpc: Option<LegacyRpcMethods<RpcConfigFor<Config>>>,
}

impl Probe {
    async fn ask(&mut self, options: &ChainOptions, checkpoint: Option<Checkpoint>) -> Result<Seen, String> {
        let limit = options.connect_timeout().saturating_add(options.request_timeout());
        let began = Instant::now();
        let answer = tokio::time::timeout(limit, self.look(checkpoint)).await;
        let seen = answer.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())));
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if seen.is_err() {
            self.rpc = None;
        }
        seen.map(|seen| Seen { took_ms, ..seen })
    }

    async fn look(&mut self, checkpoint: Option<Checkpoint>) -> Result<Seen, String> {
        let rpc = match &self.rpc {
            Some(rpc) => rpc,
            None => {
                let building = WsClientBuilder::new().max_response_size(MAX_ANSWER_BYTES).build(self.endpoint.url());
                let socket: JsonrpseeRpcClient = building.await.map_err(one_line)?;
                self.rpc.insert(LegacyRpcMethods::new(RpcClient::new(Arc::new(socket))))
            }
        };
        let genesis = rpc.genesis_hash().await.map_err(one_line)?.into();
        let head = rpc.chain_get_finalized_head().await.map_err(one_line)?;
        let header = rpc.chain_get_header(Some(head)).await.map_err(one_line)?;
        let finalized = header.ok_or("it does not know its own finalized head")?.number();
        let at_checkpoint = match checkpoint {
            Some((height, _)) if height <= finalized => {
                rpc.chain_get_block_hash(Some(height.into())).await.map_err(one_line)?.map(BlockHash::from)
            }
            _ => None,
        };
        Ok(Seen { genesis, finalized, at_checkpoint, took_ms: 0 })
    }
}

/// Asks after all endpoints again and again until the client is gone.
pub(crate) async fn keep_watch(client: Weak<Inner>) {
    let Some(inner) = client.upgrade() else { return };
    let every = Duration::from_millis(inner.options.probe_every_ms.max(1));
    let mut probes: Vec<Probe> =
        inner.endpoints.iter().map(|endpoint| Probe { endpoint: endpoint.clone(), rpc: None }).collect();
    drop(inner);
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = client.upgrade() else { return };
        let client = ChainClient { inner };
        let checkpoint = client.known_checkpoint();
        let asking = probes.iter_mut().map(|probe| probe.ask(client.options(), checkpoint));
        let seen = futures::future::join_all(asking).await;
        let all = assess(&seen, client.known_genesis(), checkpoint);
        client.note_health(all).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const GENESIS: BlockHash = BlockHash([1; 32]);
    const CHECKPOINT: Checkpoint = (90, BlockHash([9; 32]));

    fn seen(finalized: u64, took_ms: u64) -> Result<Seen, String> {
        Ok(Seen { genesis: GENESIS, finalized, at_checkpoint: Some(CHECKPOINT.1), took_ms })
    }

    fn judged(seen: &[Result<Seen, String>]) -> Vec<Health> {
        assess(seen, Some(GENESIS), Some(CHECKPOINT))
    }

    #[test]
    fn an_endpoint_in_use_is_kept_while_it_is_healthy() {
        let all = judged(&[seen(100, 80), seen(104, 5)]);
        assert_eq!(all[0], Health::Healthy { finalized: 100, took_ms: 80 });
        assert_eq!(better(0, &all), None);
    }

    #[test]
    fn the_fastest_healthy_one_follows_on_one_that_is_away_or_lags() {
        let all = judged(&[Err("refused".into()), seen(100, 30), seen(99, 20), seen(91, 1)]);
        assert_eq!(all[3], Health::Lagging { finalized: 91, behind: 9 });
        assert_eq!((better(0, &all), better(3, &all), better(1, &all)), (Some(2), Some(2), None));
    }

    #[test]
    fn who_is_on_another_chain_is_neither_used_nor_believed_to_be_ahead() {
        let forked = Ok(Seen { at_checkpoint: Some(BlockHash([8; 32])), ..seen(5_000, 1).unwrap() });
        let stranger = Ok(Seen { genesis: BlockHash([2; 32]), ..seen(9_000, 1).unwrap() });
        let all = judged(&[forked, seen(100, 9), stranger]);
        assert_eq!(all[0], Health::Forked { height: 90, found: BlockHash([8; 32]) });
        assert_eq!(all[1], Health::Healthy { finalized: 100, took_ms: 9 });
        assert!(matches!(all[2], Health::WrongGenesis { .. }));
        assert_eq!((better(0, &all), better(2, &all)), (Some(1), Some(1)));
    }

    #[test]
    fn an_endpoint_that_has_not_reached_the_checkpoint_may_still_come() {
        let behind = Ok(Seen { at_checkpoint: None, ..seen(85, 3).unwrap() });
        assert_eq!(judged(&[behind, seen(92, 3)])[0], Health::Healthy { finalized: 85, took_ms: 3 });
    }

    #[test]
    fn where_none_is_healthy_nothing_is_changed() {
        let all = judged(&[Err("refused".into()), Err("refused".into())]);
        assert_eq!(better(0, &all), None);
    }
}
