//! What can go wrong between this process and the chain, with the endpoint and what to do.

use crate::BlockHash;

/// A read or a connection that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No endpoint was configured.
    #[error("no chain endpoint given: set SUBTENSOR_ENDPOINT, for example ws://127.0.0.1:9944")]
    NoEndpoint,
    /// More endpoints than the client keeps.
    #[error("{count} chain endpoints given, at most {max} are used: remove some")]
    TooManyEndpoints {
        /// How many were given.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// An endpoint that is no websocket address.
    #[error("chain endpoint `{endpoint}` cannot be used: {reason}")]
    BadEndpoint {
        /// The text, without path and query.
        endpoint: String,
        /// What to write instead.
        reason: &'static str,
    },
    /// No node answers at present; calls work again when one does.
    #[error(
        "the chain is away at {endpoint}: {reason}; next attempt in {retry_in_ms} ms. Check that the node runs and the address is right"
    )]
    Away {
        /// The endpoint or endpoints tried.
        endpoint: String,
        /// What the last attempt met.
        reason: String,
        /// Milliseconds until the client tries again by itself.
        retry_in_ms: u64,
    },
    /// A request took longer than its bound.
    #[error("the chain node at {endpoint} did not answer `{what}` within {after_ms} ms; it is asked again later")]
    Timeout {
        /// The endpoint.
        endpoint: String,
        /// What was asked.
        what: String,
        /// The bound, in milliseconds.
        after_ms: u64,
    },
    /// The node serves another chain.
    #[error(
        "the node at {endpoint} serves another chain: genesis {found}, expected {expected}. Point SUBTENSOR_ENDPOINT at the right network"
    )]
    WrongGenesis {
        /// The endpoint.
        endpoint: String,
        /// The genesis hash insisted on.
        expected: BlockHash,
        /// The genesis hash found.
        found: BlockHash,
    },
    /// The node follows another chain from the same genesis.
    #[error(
        "the node at {endpoint} has block {found} at height {height}, where the network agreed on {expected}: it follows another chain"
    )]
    Forked {
        /// The endpoint.
        endpoint: String,
        /// The checkpoint's height.
        height: u64,
        /// The block that the network agreed on.
        expected: BlockHash,
        /// The node's block.
        found: BlockHash,
    },
    /// The node answered a request with an error.
    #[error("the chain node at {endpoint} refused `{what}`: {reason}")]
    Rpc {
        /// The endpoint.
        endpoint: String,
        /// What was asked.
        what: String,
        /// The node's words.
        reason: String,
    },
    /// The node has dropped the state of that block.
    #[error(
        "the chain node at {endpoint} no longer has the state asked for by `{what}`: use an archive node, or a newer block"
    )]
    StatePruned {
        /// The endpoint.
        endpoint: String,
        /// What was asked.
        what: String,
    },
    /// The runtime lacks something this program needs.
    #[error(
        "the runtime at {endpoint} has no {item}: it is not a Subtensor runtime, or one this version does not know"
    )]
    NotInMetadata {
        /// The endpoint.
        endpoint: String,
        /// The call, storage entry or API.
        item: String,
    },
    /// An answer that does not have the shape its metadata promises.
    #[error("the answer of {endpoint} to `{what}` cannot be decoded: {reason}")]
    Decode {
        /// The endpoint.
        endpoint: String,
        /// What was asked.
        what: String,
        /// Why.
        reason: String,
    },
    /// An answer whose parts contradict each other.
    #[error("the answer of {endpoint} contradicts itself: {reason}")]
    Inconsistent {
        /// The endpoint.
        endpoint: String,
        /// What does not fit.
        reason: String,
    },
    /// A block the node does not know.
    #[error("the chain node at {endpoint} does not know block {block}: it may still be syncing")]
    NoSuchBlock {
        /// The endpoint.
        endpoint: String,
        /// The block's hash.
        block: BlockHash,
    },
    /// A block that is not on the finalized chain.
    #[error("block {block} is not on the finalized chain of {endpoint} (finalized: {finalized})")]
    NotFinalized {
        /// The endpoint.
        endpoint: String,
        /// The block's hash.
        block: BlockHash,
        /// The finalized height there.
        finalized: u64,
    },
    /// A subnet that does not exist at that block.
    #[error("subnet {netuid} does not exist on the chain at {endpoint}: check NETUID")]
    NoSuchSubnet {
        /// The endpoint.
        endpoint: String,
        /// The number asked for.
        netuid: u16,
    },
    /// A subnet and mechanism outside the chain's numbering.
    #[error(
        "mechanism {mecid} of subnet {netuid} is outside the chain's numbering (netuid below 4096, mecid below 16)"
    )]
    BadMechanism {
        /// The subnet.
        netuid: u16,
        /// The mechanism.
        mecid: u8,
    },
    /// No new finalized block for too long.
    #[error("the chain node at {endpoint} has shown no new finalized block for {after_ms} ms; connecting anew")]
    Stale {
        /// The endpoint.
        endpoint: String,
        /// How long, in milliseconds.
        after_ms: u64,
    },
}

impl ChainError {
    /// Whether the same request may well succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Away { .. }
            | Self::Timeout { .. }
            | Self::Rpc { .. }
            | Self::NoSuchBlock { .. }
            | Self::NotFinalized { .. }
            | Self::Stale { .. }
            // A wrong node behind a load balancer or a restarting one may be put right.
            | Self::WrongGenesis { .. }
            | Self::Forked { .. }
            | Self::Decode { .. }
            | Self::Inconsistent { .. } => true,
            Self::NoEndpoint
            | Self::TooManyEndpoints { .. }
            | Self::BadEndpoint { .. }
            | Self::StatePruned { .. }
            | Self::NotInMetadata { .. }
            | Self::NoSuchSubnet { .. }
            | Self::BadMechanism { .. } => false,
        }
    }

    /// Whether the chain could not be reached, as opposed to having answered.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Timeout { .. } | Self::Stale { .. })
    }
}

/// Longest text of a foreign error that is kept: enough to recognise it, too short to flood a log.
pub(crate) const MAX_REASON_CHARS: usize = 400;

/// A foreign error's text on one line, bounded.
pub(crate) fn one_line(text: impl std::fmt::Display) -> String {
    text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_foreign_error_is_kept_on_one_bounded_line() {
        let text = one_line(format!("first\nsecond\t{}", "x".repeat(10_000)));
        assert!(text.starts_with("first second x"));
        assert_eq!(text.chars().count(), MAX_REASON_CHARS);
    }

    #[test]
    fn an_error_names_the_endpoint_and_what_to_do() {
        let away = ChainError::Away { endpoint: "ws://h:1".into(), reason: "refused".into(), retry_in_ms: 250 };
        let text = away.to_string();
        assert!(text.contains("ws://h:1") && text.contains("Check that the node runs"), "{text}");
        assert!(away.is_retryable() && away.is_away());
        let subnet = ChainError::NoSuchSubnet { endpoint: "ws://h:1".into(), netuid: 7 };
        assert!(!subnet.is_retryable() && !subnet.is_away());
    }
}
