//! What peers did wrong towards this node, counted by kind.
//!
//! A peer that proves itself wrong is disconnected at once; one that stays silent, after
//! [`MOST_SILENCES`] requests in a row.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use perturb_consensus::Misdeed;
use perturb_p2p::{NetworkHandle, PeerId, RequestError};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Requests in a row that a peer may leave unanswered before it is disconnected.
pub const MOST_SILENCES: u32 = 3;

/// Peers whose silences are counted: the connections of a node.
const MAX_PEERS: usize = 512;

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Fault {
    /// A gossiped message that no honest node sends or forwards.
    Gossip,
    /// A request that cannot be read.
    Request,
    /// An answer that cannot be read, or to something else.
    Answer,
    /// A block whose certificate is not a quorum's.
    Certificate,
    /// A block whose header does not name its body.
    Block,
    /// Bytes of a snapshot that are not those of the digest that it offered.
    Part,
    /// A snapshot that does not lead to the certified state.
    Snapshot,
    /// No answer in time.
    Silence,
    /// An answer without an end, or one that broke off.
    Broken,
}

impl From<Misdeed> for Fault {
    fn from(misdeed: Misdeed) -> Self {
        match misdeed {
            Misdeed::Gossip => Self::Gossip,
            Misdeed::Request => Self::Request,
            Misdeed::Answer => Self::Answer,
            Misdeed::Certificate => Self::Certificate,
            Misdeed::Block => Self::Block,
        }
    }
}

impl Fault {
    /// What a request that brought nothing says of the peer; `None` where it is nobody's fault.
    pub fn of(error: &RequestError) -> Option<Self> {
        match error {
            RequestError::Timeout(_) => Some(Self::Silence),
            RequestError::Failed(_) => Some(Self::Broken),
            _ => None,
        }
    }

    /// Whether it is proved by what the peer sent, rather than by what did not come.
    pub const fn is_proved(self) -> bool {
        !matches!(self, Self::Silence | Self::Broken)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    fault: Fault,
}

/// The counters, and who was silent how often.
#[derive(Debug, Default)]
pub struct Faults {
    counted: Family<Labels, Counter>,
    silences: Mutex<HashMap<PeerId, u32>>,
}

impl Faults {
    /// Counts a fault; true where the peer is to be disconnected.
    pub fn count(&self, peer: &PeerId, fault: Fault) -> bool {
        self.counted.get_or_create(&Labels { fault }).inc();
        if fault.is_proved() {
            return true;
        }
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        if silences.len() >= MAX_PEERS && !silences.contains_key(peer) {
            silences.clear();
        }
        let n = silences.entry(*peer).or_default();
        *n += 1;
        let dropped = *n >= MOST_SILENCES;
        if dropped {
            silences.remove(peer);
        }
        dropped
    }

    /// A peer has answered.
    pub fn answered(&self, peer: &PeerId) {
        self.silences.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// Counts a fault and disconnects the peer where that is due.
    pub async fn punish(&self, network: &NetworkHandle, peer: PeerId, fault: Fault, why: &str) {
        tracing::warn!(%peer, ?fault, %why, "a peer did wrong");
        if self.count(&peer, fault) {
            let _ = network.disconnect(peer).await;
        }
    }

    /// How often a fault was counted.
    pub fn counted(&self, fault: Fault) -> u64 {
        self.counted.get_or_create(&Labels { fault }).get()
    }

    /// Registers the counters.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("peer_faults", "What peers did wrong towards this node", self.counted.clone());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lie_is_enough_and_silence_counts_up_until_an_answer() {
        let (faults, peer) = (Faults::default(), PeerId::random());
        assert!(faults.count(&peer, Fault::Part));
        for _ in 1..MOST_SILENCES {
            assert!(!faults.count(&peer, Fault::Silence));
        }
        faults.answered(&peer);
        for _ in 1..MOST_SILENCES {
            assert!(!faults.count(&peer, Fault::Broken));
        }
        assert!(faults.count(&peer, Fault::Silence));
        assert_eq!(faults.counted(Fault::Silence), u64::from(MOST_SILENCES));
        assert_eq!(Fault::of(&RequestError::Timeout(Duration::ZERO)), Some(Fault::Silence));
        assert_eq!(Fault::of(&RequestError::RateLimited), None);
        let mut registry = Registry::default();
        faults.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("peer_faults_total{fault=\"Part\"} 1"), "{text}");
    }
}
