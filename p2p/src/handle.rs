//! The application's side of the network.

use std::sync::Arc;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use perturb_types::Hotkey;
use tokio::sync::{mpsc, oneshot, watch};

use crate::bans::Subject;
use crate::codec::{Answer, Ask};
use crate::events::{GossipId, PeerInfo, ReplyChannel, Verdict};
use crate::metrics::{Counters, Metrics};
use crate::protocols::{Decline, Protocol, Topic};

/// Why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nobody is subscribed yet; the message is gone, publish again later.
    #[error("no peer is subscribed to {0}")]
    NoPeers(Topic),
    /// Over the topic's limit.
    #[error("{size} bytes for topic {topic}, at most {limit} are allowed")]
    TooLarge {
        /// The topic.
        topic: Topic,
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// This node's role may not write there.
    #[error("this node's role may not publish on {0}")]
    NotAllowed(Topic),
    /// Faster than the others would take it.
    #[error("more messages per second than the peers accept of one author")]
    RateLimited,
    /// The queues to all peers are full.
    #[error("the queues to all peers are full")]
    Busy,
    /// The network's task has ended.
    #[error("the network has stopped")]
    Stopped,
    /// The engine's own complaint.
    #[error("not published: {0}")]
    Other(String),
}

/// Why a request brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No session with this peer.
    #[error("no session with peer {0}")]
    NotConnected(PeerId),
    /// Over the protocol's limit.
    #[error("{size} bytes for {protocol}, at most {limit} are allowed")]
    TooLarge {
        /// The protocol.
        protocol: Protocol,
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// This node's role may not ask this of the peer's role.
    #[error("this node may not ask that on {0}")]
    NotAllowed(Protocol),
    /// Faster than the peer would answer.
    #[error("more requests per second than a peer accepts")]
    RateLimited,
    /// Too many requests wait already.
    #[error("too many requests are waiting")]
    Busy,
    /// The peer declined.
    #[error("the peer declined: {0}")]
    Declined(Decline),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke, or the peer broke the protocol.
    #[error("failed: {0}")]
    Failed(String),
    /// The network's task has ended.
    #[error("the network has stopped")]
    Stopped,
}

/// The network's task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network has stopped")]
pub struct Stopped;

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The session of this hotkey.
    Hotkey(Hotkey),
    /// This peer.
    Peer(PeerId),
}

impl From<Target> for Subject {
    fn from(target: Target) -> Self {
        match target {
            Target::Hotkey(hotkey) => Self::Hotkey(hotkey),
            Target::Peer(peer) => Self::Peer(peer),
        }
    }
}

impl From<Hotkey> for Target {
    fn from(hotkey: Hotkey) -> Self {
        Self::Hotkey(hotkey)
    }
}

impl From<PeerId> for Target {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

pub(crate) enum Command {
    Publish { topic: Topic, data: Vec<u8>, done: oneshot::Sender<Result<(), PublishError>> },
    Report { id: GossipId, verdict: Verdict },
    Request { peer: PeerId, protocol: Protocol, ask: Ask, reply: oneshot::Sender<Result<Vec<u8>, RequestError>> },
    Ban { target: Target, duration: Duration, reason: String },
    Disconnect { target: Target },
    KnownPeers { reply: oneshot::Sender<Vec<Multiaddr>> },
    Shutdown { done: oneshot::Sender<()> },
}

/// Speaks to the network's task. Cheap to clone; the task ends with the last handle.
#[derive(Clone, Debug)]
pub struct NetworkHandle {
    pub(crate) peer_id: PeerId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) peers: watch::Receiver<Arc<Vec<PeerInfo>>>,
    pub(crate) addrs: watch::Receiver<Arc<Vec<Multiaddr>>>,
    pub(crate) counters: Arc<Counters>,
}

impl NetworkHandle {
    /// This node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The addresses listened on, each with `/p2p/<peer id>`.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.addrs.borrow().iter().filter_map(|a| a.clone().with_p2p(self.peer_id).ok()).collect()
    }

    /// The open sessions.
    pub fn peers(&self) -> Arc<Vec<PeerInfo>> {
        self.peers.borrow().clone()
    }

    /// The open session of a hotkey.
    pub fn peer_of(&self, hotkey: &Hotkey) -> Option<PeerInfo> {
        self.peers.borrow().iter().find(|p| p.hotkey.as_ref() == Some(hotkey)).cloned()
    }

    /// The counters.
    pub fn metrics(&self) -> Metrics {
        self.counters.snapshot()
    }

    /// Signs a message and sends it to every subscribed peer. Identical bytes may be published
    /// again and are delivered again.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, topic: Topic, data: Vec<u8>) -> Result<(), PublishError> {
        let (done, wait) = oneshot::channel();
        self.send(Command::Publish { topic, data, done }).await.map_err(|_| PublishError::Stopped)?;
        wait.await.map_err(|_| PublishError::Stopped)?
    }

    /// Gives the verdict on a gossip message. A second verdict, or one that comes too late, does
    /// nothing.
    ///
    /// # Errors
    /// The network has stopped.
    pub async fn report(&self, id: GossipId, verdict: Verdict) -> Result<(), Stopped> {
        self.send(Command::Report { id, verdict }).await
    }

    /// Asks a peer with an open session and waits for its answer, at most `timeout` and at most
    /// [`Protocol::timeout`].
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(
        &self,
        peer: PeerId,
        protocol: Protocol,
        data: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, RequestError> {
        self.request_at_most(peer, protocol, data, protocol.max_response_bytes(), timeout).await
    }

    /// As [`Self::request`], for an answer of at most `answer_bytes`: a longer one fails before more of it
    /// is read than its length.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request_at_most(
        &self,
        peer: PeerId,
        protocol: Protocol,
        data: Vec<u8>,
        answer_bytes: usize,
        timeout: Duration,
    ) -> Result<Vec<u8>, RequestError> {
        let ask = Ask { data, answer_bytes };
        let timeout = timeout.min(protocol.timeout());
        let (reply, wait) = oneshot::channel();
        let asked = async {
            self.send(Command::Request { peer, protocol, ask, reply }).await.map_err(|_| RequestError::Stopped)?;
            wait.await.map_err(|_| RequestError::Stopped)?
        };
        tokio::time::timeout(timeout, asked).await.map_err(|_| RequestError::Timeout(timeout))?
    }

    /// Answers a request; the same as [`ReplyChannel::answer`] or [`ReplyChannel::decline`].
    pub fn reply(&self, reply: ReplyChannel, answer: Answer) {
        match answer {
            Ok(data) => reply.answer(data),
            Err(why) => reply.decline(why),
        }
    }

    /// Ends the target's session and refuses it for `duration`.
    ///
    /// # Errors
    /// The network has stopped.
    pub async fn ban(
        &self,
        target: impl Into<Target>,
        duration: Duration,
        reason: impl Into<String>,
    ) -> Result<(), Stopped> {
        self.send(Command::Ban { target: target.into(), duration, reason: reason.into() }).await
    }

    /// Ends the target's session. It may come back.
    ///
    /// # Errors
    /// The network has stopped.
    pub async fn disconnect(&self, target: impl Into<Target>) -> Result<(), Stopped> {
        self.send(Command::Disconnect { target: target.into() }).await
    }

    /// The address book: every validator heard of, with `/p2p/<peer id>`. Kept by the application,
    /// it lets a node find the others when it starts while every bootnode is away
    /// ([`crate::Config::known_peers`]).
    ///
    /// # Errors
    /// The network has stopped.
    pub async fn known_peers(&self) -> Result<Vec<Multiaddr>, Stopped> {
        let (reply, wait) = oneshot::channel();
        self.send(Command::KnownPeers { reply }).await?;
        wait.await.map_err(|_| Stopped)
    }

    /// Ends the task; returns when nothing is listened on any more. Peers see their connections close.
    pub async fn shutdown(&self) {
        let (done, wait) = oneshot::channel();
        if self.send(Command::Shutdown { done }).await.is_ok() {
            let _ = wait.await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }
}
