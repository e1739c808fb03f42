//! What a node of the network is configured with, and the limits with their reasons.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId, identity};
use perturb_types::{Hotkey, HotkeyPair, NetworkId};
use serde::Serialize;
use zeroize::Zeroizing;

/// What a node is to the others; claimed and proved in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Role {
    /// A rendezvous point: introduces nodes to each other, takes no part in gossip.
    Bootnode = 0,
    /// Takes part in everything; needs a hotkey.
    Validator = 1,
    /// Dials validators and answers their challenges; needs a hotkey, takes no part in gossip.
    Miner = 2,
    /// Listens to gossip and may ask for blocks; authors nothing but status.
    Observer = 3,
}

impl Role {
    /// Whether the role is worth nothing without a proved hotkey.
    pub const fn needs_hotkey(self) -> bool {
        matches!(self, Self::Validator | Self::Miner)
    }

    /// Whether nodes of this role join the gossip topics.
    pub const fn gossips(self) -> bool {
        matches!(self, Self::Validator | Self::Observer)
    }

    /// Whether nodes of this role seek connections to validators. Validators never dial miners:
    /// only validators are ever looked up.
    pub const fn dials_validators(self) -> bool {
        !matches!(self, Self::Bootnode)
    }

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Bootnode => "bootnode",
            Self::Validator => "validator",
            Self::Miner => "miner",
            Self::Observer => "observer",
        }
    }
}

/// The ed25519 key that makes the peer id. Its seed is random and used for nothing else, so that
/// a peer id follows from nothing public.
#[derive(Clone)]
pub struct NetworkKey(Zeroizing<[u8; 32]>);

impl NetworkKey {
    /// A fresh random key.
    pub fn generate() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    /// The key of a stored seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// The seed, for the key file.
    pub fn seed(&self) -> &Zeroizing<[u8; 32]> {
        &self.0
    }

    /// The peer id that follows from the key.
    pub fn peer_id(&self) -> PeerId {
        self.keypair().public().to_peer_id()
    }

    pub(crate) fn keypair(&self) -> identity::Keypair {
        let mut seed = *self.0;
        // Every 32 bytes are an ed25519 seed, and the source is wiped: the fallback never runs.
        identity::Keypair::ed25519_from_bytes(&mut seed[..]).unwrap_or_else(|_| identity::Keypair::generate_ed25519())
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkKey({})", self.peer_id())
    }
}

/// Why the application does not let a hotkey play a role; the text reaches the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denial(pub String);

/// The application's word on who may be what. Called on the network's own task: must not block.
pub trait Authority: Send + Sync + 'static {
    /// Whether `hotkey` may play `role`: a validator with permit and stake, a registered miner. A
    /// bootnode or observer that proves a hotkey is asked about as well; those roles give no
    /// rights to author rounds or votes.
    /// Asked at every handshake and again every [`Timing::recheck`] for every open session.
    ///
    /// # Errors
    /// It may not, and why.
    fn allows(&self, hotkey: &Hotkey, role: Role) -> Result<(), Denial>;

    /// Whether somebody who proves no hotkey may play `role` (bootnode or observer).
    ///
    /// # Errors
    /// It may not, and why.
    fn allows_anonymous(&self, _role: Role) -> Result<(), Denial> {
        Ok(())
    }
}

/// Lets every proved hotkey play every role: for bootnodes, which only introduce.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authority for AllowAll {
    fn allows(&self, _: &Hotkey, _: Role) -> Result<(), Denial> {
        Ok(())
    }
}

/// Bounds on what others may cost this node.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Gossip messages per second of one author. A validator's votes, rounds and status stay far
    /// below; the relay of a noisy author is not punished.
    pub author_messages_per_s: u32,
    /// Messages an author may send at once on top: a block's votes arrive together.
    pub author_burst: u32,
    /// Inbound connections of one IP address (IPv6: /64) that have proved no hotkey (yet).
    pub unproven_per_ip: usize,
    /// Failed attempts of one identity within [`Limits::failure_window`] that lead to a ban.
    pub failures_to_ban: usize,
    /// The window in which failures are counted together.
    pub failure_window: Duration,
    /// How long a ban lasts.
    pub ban: Duration,
    /// Identities whose failures or bans are remembered; the oldest is forgotten first.
    pub tracked_identities: usize,
    /// Inbound connections: miners of a full subnet (256) and validators, with room for strangers.
    pub inbound_connections: u32,
    /// Outbound connections: every validator of a full set and the bootnodes.
    pub outbound_connections: u32,
    /// Connections being set up at once, each way: bounds the cost of a flood of dials.
    pub pending_connections: u32,
    /// Connections to one peer: a simultaneous dial makes two, a restart may leave dead ones.
    pub connections_per_peer: u32,
    /// New connections are refused while the process uses more than this share of the memory, percent.
    pub memory_percent: u8,
    /// Peers in the address book: more than the validators of any subnet.
    pub known_peers: usize,
    /// Validators that get every message directly; beyond this many the gossip mesh spreads them
    /// (all-to-all costs the square).
    pub direct_validators: usize,
    /// Gossip messages that wait for the application's verdict.
    pub pending_verdicts: usize,
    /// Gossip messages held per peer whose handshake is still running.
    pub held_per_peer: usize,
    /// Own requests that wait for an answer.
    pub pending_requests: usize,
    /// Peers' requests that wait for the application's answer.
    pub pending_replies: usize,
    /// Events that wait for the application.
    pub event_queue: usize,
    /// Commands that wait for the network's task.
    pub command_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            author_messages_per_s: 100,
            author_burst: 200,
            unproven_per_ip: 5,
            failures_to_ban: 10,
            failure_window: Duration::from_secs(600),
            ban: Duration::from_secs(3600),
            tracked_identities: 4096,
            inbound_connections: 512,
            outbound_connections: 288,
            pending_connections: 64,
            connections_per_peer: 4,
            memory_percent: 90,
            known_peers: 1024,
            direct_validators: 32,
            pending_verdicts: 4096,
            held_per_peer: 32,
            pending_requests: 1024,
            pending_replies: 512,
            event_queue: 4096,
            command_queue: 1024,
        }
    }
}

/// How often and how long.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The task's own heartbeat: deadlines are checked this often.
    pub tick: Duration,
    /// From connection to proved hotkey, at most.
    pub handshake: Duration,
    /// Between two looks at a bootnode's register.
    pub discover: Duration,
    /// How long a registration holds at a bootnode; renewed after a third of it.
    pub registration_ttl: Duration,
    /// The first pause before a failed dial is repeated; doubles each time, with jitter.
    pub backoff_base: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
    /// The first pause after a peer *refused* this node: long enough that an honest node which is
    /// not yet registered never collects the failures of a ban.
    pub refused_base: Duration,
    /// The longest such pause.
    pub refused_max: Duration,
    /// A session that lived this long counts as good: the backoff starts anew.
    pub stable: Duration,
    /// Between two pings of a connection; a ping unanswered for as long closes it.
    pub ping: Duration,
    /// How long the application may think about a gossip message before it counts as ignored.
    pub verdict: Duration,
    /// Between two questions to the [`Authority`] about every open session.
    pub recheck: Duration,
    /// How long the hotkey behind an author's peer id is remembered after the last connection, so
    /// that its messages pass when only a relay connects the two.
    pub author_memory: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(200),
            handshake: Duration::from_secs(10),
            discover: Duration::from_secs(5),
            registration_ttl: Duration::from_secs(600),
            backoff_base: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            refused_base: Duration::from_secs(5),
            refused_max: Duration::from_secs(120),
            stable: Duration::from_secs(30),
            ping: Duration::from_secs(10),
            verdict: Duration::from_secs(10),
            recheck: Duration::from_secs(30),
            author_memory: Duration::from_secs(3600),
        }
    }
}

/// Everything a node of the network needs.
#[derive(Clone)]
pub struct Config {
    /// The key of the peer id.
    pub key: NetworkKey,
    /// The network.
    pub network: NetworkId,
    /// This node's role.
    pub role: Role,
    /// Proves the hotkey; validators and miners need it.
    pub hotkey: Option<HotkeyPair>,
    /// Where to listen, TCP (`/ip4/0.0.0.0/tcp/9000`) and QUIC (`/ip4/0.0.0.0/udp/9000/quic-v1`).
    /// Empty for a node that only dials out.
    pub listen: Vec<Multiaddr>,
    /// Addresses to announce. Empty: the IP a bootnode sees, with the ports listened on.
    pub announce: Vec<Multiaddr>,
    /// Bootnode addresses, best with `/p2p/<peer id>`. Bootnodes are trusted to be available, not
    /// to be right: records are signed and hotkeys proved. They could still crash or starve
    /// discovery of a node that names them, so name your own or well-known ones.
    pub bootnodes: Vec<Multiaddr>,
    /// Validators known from an earlier run, each with `/p2p/<peer id>`; see
    /// [`crate::NetworkHandle::known_peers`].
    pub known_peers: Vec<Multiaddr>,
    /// Decides who may be what.
    pub authority: Arc<dyn Authority>,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timing: Timing,
    /// Development only: loopback addresses are announced and exempt from the IP rules, so that
    /// many nodes can live on one machine.
    pub dev_loopback: bool,
}

impl Config {
    /// A node with default limits that listens nowhere and knows nobody.
    pub fn new(key: NetworkKey, network: NetworkId, role: Role, authority: Arc<dyn Authority>) -> Self {
        Self {
            key,
            network,
            role,
            hotkey: None,
            listen: Vec::new(),
            announce: Vec::new(),
            bootnodes: Vec::new(),
            known_peers: Vec::new(),
            authority,
            limits: Limits::default(),
            timing: Timing::default(),
            dev_loopback: false,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("key", &self.key)
            .field("network", &self.network)
            .field("role", &self.role)
            .field("hotkey", &self.hotkey)
            .field("listen", &self.listen)
            .field("bootnodes", &self.bootnodes)
            .field("dev_loopback", &self.dev_loopback)
            .finish_non_exhaustive()
    }
}

/// The IP address an address starts with.
pub fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Part::Ip4(ip) => Some(IpAddr::V4(ip)),
        Part::Ip6(ip) => Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)),
        _ => None,
    }
}

/// Splits the trailing `/p2p/<peer id>` off.
pub(crate) fn split_peer(addr: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut bare = addr.clone();
    match bare.pop() {
        Some(Part::P2p(peer)) => (bare, Some(peer)),
        _ => (addr.clone(), None),
    }
}

/// The address with its IP replaced, if both are of one family.
pub(crate) fn with_ip(addr: &Multiaddr, ip: IpAddr) -> Option<Multiaddr> {
    let mut parts = addr.iter();
    let head = match (parts.next()?, ip) {
        (Part::Ip4(_), IpAddr::V4(ip)) => Part::Ip4(ip),
        (Part::Ip6(_), IpAddr::V6(ip)) => Part::Ip6(ip),
        _ => return None,
    };
    Some(std::iter::once(head).chain(parts).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_network_key_has_no_text_form_and_makes_a_stable_peer_id() {
        let key = NetworkKey::from_seed([0xab; 32]);
        assert!(!format!("{key:?}").contains("abab"));
        assert_eq!(key.peer_id(), NetworkKey::from_seed([0xab; 32]).peer_id());
        assert_ne!(NetworkKey::generate().peer_id(), NetworkKey::generate().peer_id());
    }

    #[test]
    fn addresses_are_taken_apart_and_put_together() {
        let peer = NetworkKey::from_seed([1; 32]).peer_id();
        let addr: Multiaddr = format!("/ip4/10.0.0.1/udp/9000/quic-v1/p2p/{peer}").parse().unwrap();
        let (bare, found) = split_peer(&addr);
        assert_eq!(found, Some(peer));
        assert_eq!(bare.to_string(), "/ip4/10.0.0.1/udp/9000/quic-v1");
        assert_eq!(split_peer(&bare), (bare.clone(), None));
        assert_eq!(ip_of(&addr), Some("10.0.0.1".parse().unwrap()));
        let moved = with_ip(&bare, "8.8.8.8".parse().unwrap()).unwrap();
        assert_eq!(moved.to_string(), "/ip4/8.8.8.8/udp/9000/quic-v1");
        assert_eq!(with_ip(&bare, "::1".parse().unwrap()), None);
    }
}
