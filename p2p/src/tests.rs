//! Whole networks on loopback: real sockets, ports given by the system, no waiting for times.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod discovery;
mod gossip;
mod handshakes;
mod requests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::request_response::{self, Message};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm};
use perturb_types::encode;
use perturb_types::{Hotkey, HotkeyPair, NetworkId};
use tokio::sync::mpsc;

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::codec::{Answer, Ask};
use crate::config::split_peer;
use crate::handshake::{Introducer, Request, Response};
use crate::{
    AllowAll, Authority, Config, Denial, Gossip, Network, NetworkEvent, NetworkHandle, NetworkKey, PeerInfo, Protocol,
    PublishError, Refusal, Role, Timing, Topic,
};

const NET: NetworkId = NetworkId([7; 32]);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Far more than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Lets everybody in but these.
struct Deny(Vec<Hotkey>);

impl Authority for Deny {
    fn allows(&self, hotkey: &Hotkey, role: Role) -> Result<(), Denial> {
        if self.0.contains(hotkey) {
            return Err(Denial(format!("{hotkey} is not a registered {role:?}")));
        }
        Ok(())
    }
}

fn hotkey(n: u8) -> HotkeyPair {
    HotkeyPair::from_seed(&[n; 32]).unwrap()
}

/// A quick node with hotkey and network key number `n`.
fn config(n: u8, role: Role) -> Config {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let mut config = Config::new(NetworkKey::from_seed([n; 32]), NET, role, Arc::new(AllowAll));
    config.hotkey = role.needs_hotkey().then(|| hotkey(n));
    if role != Role::Miner {
        config.listen = vec![TCP.parse().unwrap()];
    }
    config.dev_loopback = true;
    config.timing = Timing {
        tick: Duration::from_millis(20),
        discover: Duration::from_millis(300),
        backoff_base: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
        refused_base: Duration::from_millis(500),
        refused_max: Duration::from_secs(2),
        recheck: Duration::from_millis(200),
        ..Timing::default()
    };
    config
}

struct Node {
    net: NetworkHandle,
    events: mpsc::Receiver<NetworkEvent>,
}

impl Node {
    async fn start(config: Config) -> Self {
        let (net, events) = Network::start(config).await.unwrap();
        Self { net, events }
    }

    fn addr(&self) -> Multiaddr {
        self.net.listen_addrs()[0].clone()
    }

    fn id(&self) -> PeerId {
        self.net.peer_id()
    }

    /// The first event that `pick` takes; the others are dropped.
    async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(NetworkEvent) -> Option<T>) -> T {
        patiently(what, async {
            loop {
                if let Some(found) = pick(self.events.recv().await.expect("the network runs")) {
                    return found;
                }
            }
        })
        .await
    }

    /// Waits for a session, whether it is there already or comes.
    async fn up(&self, peer: PeerId) -> PeerInfo {
        let mut peers = self.net.peers.clone();
        let found = |all: &Arc<Vec<PeerInfo>>| all.iter().find(|p| p.peer_id == peer).cloned();
        let all = patiently("a session", peers.wait_for(|all| found(all).is_some())).await.unwrap().clone();
        found(&all).unwrap()
    }

    async fn refused(&mut self) -> Refusal {
        self.until("a refusal", |e| match e {
            NetworkEvent::Refused { refusal, .. } => Some(refusal),
            _ => None,
        })
        .await
    }

    async fn gossip(&mut self) -> Gossip {
        self.until("gossip", |e| match e {
            NetworkEvent::Gossip(gossip) => Some(gossip),
            _ => None,
        })
        .await
    }

    async fn request(&mut self) -> crate::Request {
        self.until("a request", |e| match e {
            NetworkEvent::Request(request) => Some(request),
            _ => None,
        })
        .await
    }

    /// Publishes as soon as somebody is subscribed.
    async fn publish(&self, topic: Topic, data: &[u8]) {
        patiently("a subscriber", async {
            loop {
                match self.net.publish(topic, data.to_vec()).await {
                    Ok(()) => return,
                    Err(PublishError::NoPeers(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(e) => panic!("{e}"),
                }
            }
        })
        .await;
    }

    /// Waits until a metric says so.
    async fn metric(&self, what: &str, holds: impl Fn(crate::Metrics) -> bool) {
        patiently(what, async {
            while !holds(self.net.metrics()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A peer without manners: a bare swarm that says what it likes.
struct Raw {
    swarm: Swarm<Behaviour>,
    side: Introducer,
    peer: PeerId,
}

impl Raw {
    async fn connect(config: &Config, addr: &Multiaddr) -> Self {
        let mut swarm = crate::behaviour::build(config).unwrap();
        let peer = split_peer(addr).1.unwrap();
        swarm.dial(addr.clone()).unwrap();
        patiently("a connection", async {
            while !swarm.is_connected(&peer) {
                swarm.select_next_some().await;
            }
        })
        .await;
        let own = config.key.peer_id();
        let side = Introducer { network: config.network, role: config.role, own, pair: config.hotkey.clone() };
        Self { swarm, side, peer }
    }

    /// Sends bytes on a protocol; the answer, or `None` if the stream broke.
    async fn ask(&mut self, protocol: Protocol, bytes: Vec<u8>) -> Option<Answer> {
        self.swarm.behaviour_mut().protocol_mut(protocol).send_request(&self.peer, Ask::any(protocol, bytes));
        patiently("an answer", async {
            loop {
                let SwarmEvent::Behaviour(event) = self.swarm.select_next_some().await else { continue };
                let event = match event {
                    BehaviourEvent::Handshake(e) | BehaviourEvent::Sync(e) | BehaviourEvent::Snapshot(e) => e,
                    _ => continue,
                };
                match event {
                    request_response::Event::Message { message: Message::Response { response, .. }, .. } => {
                        return Some(response);
                    }
                    request_response::Event::OutboundFailure { .. } => return None,
                    _ => {}
                }
            }
        })
        .await
    }

    async fn shake(&mut self, request: &Request) -> Response {
        let answer = self.ask(Protocol::Handshake, encode::encode(request)).await.expect("an answer").unwrap();
        encode::decode("response", &answer, crate::handshake::MAX_MESSAGE_BYTES).unwrap()
    }

    /// The listener's nonce, after a proper hello.
    async fn hello(&mut self) -> [u8; 32] {
        let request = Request::Hello(self.side.hello([1; 32]));
        match self.shake(&request).await {
            Response::Hello(hello, proof) => {
                self.side.check_proof(&self.peer, hello.role, [1; 32], proof.as_ref()).unwrap();
                hello.nonce
            }
            other => panic!("{other:?}"),
        }
    }

    /// Keeps the swarm running until the condition holds.
    async fn run_until(&mut self, what: &str, holds: impl Fn() -> bool) {
        patiently(what, async {
            while !holds() {
                let _ = tokio::time::timeout(Duration::from_millis(5), self.swarm.select_next_some()).await;
            }
        })
        .await;
    }
}
