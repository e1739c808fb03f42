//! What the network tells the application.

use libp2p::gossipsub::MessageId;
use libp2p::{Multiaddr, PeerId};
use perturb_types::Hotkey;
use tokio::sync::oneshot;

use crate::codec::Answer;
use crate::config::Role;
use crate::handshake::Refusal;
use crate::protocols::{Decline, Protocol, Topic};

/// A peer with an open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its peer id, proved by the transport.
    pub peer_id: PeerId,
    /// The hotkey it proved; always there for validators and miners.
    pub hotkey: Option<Hotkey>,
    /// The role it proved.
    pub role: Role,
    /// Where the connection leads.
    pub addr: Multiaddr,
}

/// Names a gossip message until its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GossipId(pub(crate) MessageId);

/// A gossip message that awaits the application's verdict: answer it with
/// [`crate::NetworkHandle::report`], soon; unanswered it counts as ignored.
#[derive(Clone, Debug)]
pub struct Gossip {
    /// Names it in the report.
    pub id: GossipId,
    /// The topic.
    pub topic: Topic,
    /// The peer that signed it.
    pub author: PeerId,
    /// The hotkey that peer proved.
    pub hotkey: Option<Hotkey>,
    /// The role that peer proved.
    pub role: Role,
    /// The peer that handed it over.
    pub source: PeerId,
    /// The message.
    pub data: Vec<u8>,
}

/// The application's word on a gossip message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Valid: forward it.
    Accept,
    /// Not wanted, nobody's fault (old, early, known): neither forward nor punish.
    Ignore,
    /// Invalid: do not forward, and lower the score of who handed it over.
    Reject,
}

/// A peer's request.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub peer: PeerInfo,
    /// On which protocol.
    pub protocol: Protocol,
    /// The request.
    pub data: Vec<u8>,
    /// Takes the answer.
    pub reply: ReplyChannel,
}

/// Takes the one answer to a request. Dropped unanswered, it declines with
/// [`Decline::Internal`].
#[derive(Debug)]
pub struct ReplyChannel {
    pub(crate) sender: oneshot::Sender<Answer>,
}

impl ReplyChannel {
    /// Answers. Nothing happens if the peer is gone.
    pub fn answer(self, data: Vec<u8>) {
        let _ = self.sender.send(Ok(data));
    }

    /// Declines with a reason.
    pub fn decline(self, why: Decline) {
        let _ = self.sender.send(Err(why));
    }

    /// Whether the peer still waits.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The last connection closed.
    #[error("disconnected")]
    Disconnected,
    /// The same hotkey proved itself on another connection; the newest wins.
    #[error("the same hotkey opened a newer session")]
    Displaced,
    /// Banned.
    #[error("banned: {0}")]
    Banned(String),
    /// The authority no longer allows it.
    #[error("no longer authorised: {0}")]
    NoLongerAuthorised(String),
    /// The application asked for it.
    #[error("closed by this node")]
    Closed,
}

/// What happened.
#[derive(Debug)]
pub enum NetworkEvent {
    /// A gossip message to judge.
    Gossip(Gossip),
    /// A request to answer.
    Request(Request),
    /// A session stands: both sides have proved themselves.
    PeerUp(PeerInfo),
    /// A session ended.
    PeerDown {
        /// Whose.
        peer: PeerInfo,
        /// Why.
        why: DownReason,
    },
    /// A handshake failed: [`Refusal::ByRemote`] when the other side refused this node.
    Refused {
        /// The peer.
        peer_id: PeerId,
        /// Its address.
        addr: Option<Multiaddr>,
        /// Why.
        refusal: Refusal,
    },
    /// This node listens on a new address.
    Listening(Multiaddr),
}
