//! Where the chain is and how long to wait for it.

use std::fmt;
use std::time::Duration;

use crate::{Beacon, BlockHash, ChainError};

/// Endpoints one client may be given: a few spares, not a directory.
pub const MAX_ENDPOINTS: usize = 8;
/// Longest endpoint text: a URL with a provider's key in it stays well below.
pub const MAX_ENDPOINT_CHARS: usize = 512;
/// The chain's block time if neither the options nor the metadata say otherwise (Subtensor).
pub const DEFAULT_BLOCK_TIME_MS: u64 = 12_000;
/// No new finalized head for this many block times: the node is taken for stuck.
pub const STALE_BLOCK_TIMES: u64 = 3;
/// Default of [`ChainOptions::min_stale_ms`]: fast local chains pause for longer than three of
/// their blocks when the machine is busy.
pub const DEFAULT_MIN_STALE_MS: u64 = 6_000;
/// Default of [`ChainOptions::probe_every_ms`]: two and a half of Subtensor's blocks.
pub const DEFAULT_PROBE_EVERY_MS: u64 = 30_000;

/// A websocket address of a node. Its text form leaves out path and query, where hosted nodes
/// carry the user's key.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// Checks that `text` is a `ws://` or `wss://` address without a user name.
    ///
    /// # Errors
    /// [`ChainError::BadEndpoint`] with what to write instead.
    pub fn parse(text: &str) -> Result<Self, ChainError> {
        let bad = |reason: &'static str| ChainError::BadEndpoint { endpoint: redact(text), reason };
        if text.chars().count() > MAX_ENDPOINT_CHARS {
            return Err(bad("it is longer than 512 characters"));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad("it has blanks in it"));
        }
        let rest = text
            .strip_prefix("ws://")
            .or_else(|| text.strip_prefix("wss://"))
            .ok_or_else(|| bad("write ws://HOST:PORT or wss://HOST"))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() {
            return Err(bad("the host is missing: write ws://HOST:PORT"));
        }
        if authority.contains('@') {
            return Err(bad("user names and passwords in the address are not supported"));
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn url(&self) -> &str {
        &self.0
    }
}

/// Scheme, host and port; the rest may hold a key.
fn redact(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let host: String = host.chars().filter(|c| !c.is_control()).take(128).collect();
    if scheme.is_empty() { host } else { format!("{}://{host}", scheme.chars().take(8).collect::<String>()) }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// How long the client waits, and which chain it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainOptions {
    /// Bound of one attempt to open a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Bound of one request, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long a submission waits to be finalized before it is looked up instead.
    pub finality_timeout_ms: u64,
    /// The chain's block time; without it the metadata's slot duration is used, then 12 s.
    pub block_time_ms: Option<u64>,
    /// Shortest time without a new finalized head before the node is taken for stuck.
    pub min_stale_ms: u64,
    /// The genesis hash to insist on; without it, that of the first node that answers.
    pub expected_genesis: Option<BlockHash>,
    /// Time between two rounds of asking after the endpoints, where there are several.
    pub probe_every_ms: u64,
    /// The beacon that timelocked weights are encrypted to. A chain that follows another one is refused.
    pub beacon: Beacon,
}

impl Default for ChainOptions {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            request_timeout_ms: 10_000,
            finality_timeout_ms: 120_000,
            block_time_ms: None,
            min_stale_ms: DEFAULT_MIN_STALE_MS,
            expected_genesis: None,
            probe_every_ms: DEFAULT_PROBE_EVERY_MS,
            beacon: Beacon::QUICKNET,
        }
    }
}

impl ChainOptions {
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.max(1))
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms.max(1))
    }

    pub(crate) fn finality_timeout(&self) -> Duration {
        Duration::from_millis(self.finality_timeout_ms.max(1))
    }

    /// How long without a new finalized head before the node is taken for stuck.
    pub(crate) fn stale_after(&self, slot_duration_ms: Option<u64>) -> Duration {
        let block = self.block_time_ms.or(slot_duration_ms).unwrap_or(DEFAULT_BLOCK_TIME_MS);
        // A node that claims an absurd slot duration must not switch the watch off.
        let block = block.min(10 * DEFAULT_BLOCK_TIME_MS);
        Duration::from_millis(block.saturating_mul(STALE_BLOCK_TIMES).max(self.min_stale_ms))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_endpoint_must_be_a_websocket_address() {
        assert!(Endpoint::parse("ws://127.0.0.1:9944").is_ok());
        assert!(Endpoint::parse("wss://entrypoint-finney.opentensor.ai:443").is_ok());
        for bad in ["", "http://127.0.0.1:9944", "127.0.0.1:9944", "ws://", "ws://a b", "ws://me:pw@host", "ws:///path"]
        {
            assert!(matches!(Endpoint::parse(bad), Err(ChainError::BadEndpoint { .. })), "{bad}");
        }
        assert!(Endpoint::parse(&format!("ws://{}", "a".repeat(600))).is_err());
    }

    #[test]
    fn an_endpoint_shows_neither_key_nor_password() {
        let shown = Endpoint::parse("wss://node.example/v1/SECRETKEY?token=SECRETKEY").unwrap();
        assert_eq!(shown.to_string(), "wss://node.example");
        assert!(!format!("{shown:?}").contains("SECRETKEY"));
        let refused = Endpoint::parse("ws://me:SECRETKEY@host").unwrap_err().to_string();
        assert!(!refused.contains("SECRETKEY"), "{refused}");
    }

    #[test]
    fn a_node_is_stale_after_three_block_times_within_bounds() {
        let mut o = ChainOptions::default();
        assert_eq!(o.stale_after(None), Duration::from_secs(36));
        assert_eq!(o.stale_after(Some(6_000)), Duration::from_secs(18));
        o.block_time_ms = Some(250);
        assert_eq!(o.stale_after(Some(12_000)), Duration::from_millis(DEFAULT_MIN_STALE_MS));
        o.block_time_ms = Some(u64::MAX);
        assert_eq!(o.stale_after(None), Duration::from_secs(360));
    }
}
