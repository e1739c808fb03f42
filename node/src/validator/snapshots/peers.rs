//! Those who are asked for snapshots.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use perturb_ledger::snapshot::Request;
use perturb_p2p::{NetworkHandle, PeerId, Protocol, RequestError, Role};
use perturb_types::encode;

use crate::validator::faults::{Fault, Faults};

/// The peers, as the fetcher sees them.
pub trait Peers: Send + Sync + 'static {
    /// Connected validators.
    fn all(&self) -> Vec<PeerId>;

    /// Asks one.
    fn ask(
        &self,
        peer: PeerId,
        request: Request,
        timeout: Duration,
    ) -> impl Future<Output = Result<Vec<u8>, RequestError>> + Send;

    /// It did wrong.
    fn punish(&self, peer: PeerId, fault: Fault, why: &str) -> impl Future<Output = ()> + Send;

    /// It answered.
    fn answered(&self, peer: &PeerId);
}

/// The network's peers, and where their faults are counted.
pub struct Connected {
    /// The network.
    pub network: NetworkHandle,
    /// The counters.
    pub faults: Arc<Faults>,
}

impl Peers for Connected {
    fn all(&self) -> Vec<PeerId> {
        self.network.peers().iter().filter(|p| p.role == Role::Validator).map(|p| p.peer_id).collect()
    }

    async fn ask(&self, peer: PeerId, request: Request, timeout: Duration) -> Result<Vec<u8>, RequestError> {
        self.network.request(peer, Protocol::Snapshot, encode::encode(&request), timeout).await
    }

    async fn punish(&self, peer: PeerId, fault: Fault, why: &str) {
        self.faults.punish(&self.network, peer, fault, why).await;
    }

    fn answered(&self, peer: &PeerId) {
        self.faults.answered(peer);
    }
}
