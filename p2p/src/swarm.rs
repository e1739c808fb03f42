//! The one task that owns the swarm. It waits for the swarm, the application's commands, pending
//! answers and its own tick, and never for the application: what the application does not take in
//! time is declined, ignored or counted, by the rules of [`crate::Limits`].

mod discovery;
mod gossip;
mod requests;
mod sessions;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::multiaddr::Protocol as Part;
use libp2p::request_response::{self, OutboundRequestId, ResponseChannel};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, TransportError, ping};
use perturb_types::Hotkey;
use tokio::sync::{mpsc, oneshot, watch};

use crate::bans::{Bans, Policy, Subject};
use crate::behaviour::{self, Behaviour, BehaviourEvent};
use crate::book::{Book, Pause};
use crate::codec::{Answer, Ask};
use crate::config::{Config, Role, ip_of, split_peer};
use crate::events::{DownReason, NetworkEvent, PeerInfo};
use crate::handle::{Command, NetworkHandle, RequestError, Target};
use crate::handshake::Introducer;
use crate::metrics::{Counters, add, set};
use crate::protocols::{Protocol, Topic};
use crate::rates::Rates;

/// How long a start waits for the listeners to report their addresses.
const LISTEN_WAIT: Duration = Duration::from_secs(5);

/// Session events that wait while the application's queue is full; the oldest go first, and
/// [`NetworkHandle::peers`] always tells the truth.
const OUTBOX: usize = 4096;

/// Between two rounds of forgetting idle rate limits.
const TIDY: Duration = Duration::from_secs(10);

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The role must prove a hotkey and none is configured.
    #[error("the role {0:?} needs a hotkey")]
    HotkeyMissing(Role),
    /// Cannot listen: port in use, no permission, no such address.
    #[error("cannot listen on {addr}: {why}; is another node running there?")]
    Listen {
        /// The address.
        addr: Multiaddr,
        /// The system's complaint.
        why: String,
    },
    /// An address of a known peer without its `/p2p/<peer id>`.
    #[error("the address {0} of a known peer must end in /p2p/<peer id>")]
    KnownPeer(Multiaddr),
    /// A part of the network stack refused its configuration.
    #[error("cannot build the network: {0}")]
    Build(String),
}

/// An open connection.
struct Link {
    addr: Multiaddr,
    inbound: bool,
    since: Instant,
}

/// An open session.
struct Session {
    info: PeerInfo,
    since: Instant,
}

/// A handshake that this node began.
struct Outgoing {
    nonce: [u8; 32],
    since: Instant,
    stage: Stage,
}

enum Stage {
    AwaitHello,
    AwaitWelcome { hotkey: Option<Hotkey>, role: Role },
}

/// A handshake that the other side began: the nonce is good for one proof.
struct Incoming {
    nonce: [u8; 32],
    role: Role,
    since: Instant,
}

type PendingReply = BoxFuture<'static, (Protocol, PeerId, ResponseChannel<Answer>, Answer)>;

/// Who waits for the answer to a request.
type ReplyTo = oneshot::Sender<Result<Vec<u8>, RequestError>>;

/// The task's state.
struct Task {
    config: Config,
    introducer: Introducer,
    swarm: Swarm<Behaviour>,
    events: mpsc::Sender<NetworkEvent>,
    outbox: VecDeque<NetworkEvent>,
    peers: watch::Sender<Arc<Vec<PeerInfo>>>,
    addrs: watch::Sender<Arc<Vec<Multiaddr>>>,
    counters: Arc<Counters>,
    bans: Bans,
    rates: Rates,
    links: HashMap<PeerId, HashMap<ConnectionId, Link>>,
    sessions: HashMap<PeerId, Session>,
    by_hotkey: HashMap<Hotkey, PeerId>,
    outgoing: HashMap<PeerId, Outgoing>,
    incoming: HashMap<PeerId, Incoming>,
    handshakes: HashMap<OutboundRequestId, PeerId>,
    /// Peers to disconnect as soon as the refusal has been sent.
    closing: HashMap<PeerId, Instant>,
    gossip: gossip::GossipState,
    requests: HashMap<(Protocol, OutboundRequestId), ReplyTo>,
    replies: FuturesUnordered<PendingReply>,
    book: Book,
    discovery: discovery::Discovery,
    last_tidy: Instant,
    last_recheck: Instant,
}

/// The network: [`Network::start`] is the only way in.
#[derive(Debug, Clone, Copy)]
pub struct Network;

impl Network {
    /// Listens, then spawns the task that owns the swarm on the current tokio runtime. The receiver
    /// is bounded by [`crate::Limits::event_queue`]; the task ends when it or the last handle is dropped.
    /// A receiver that ends by itself means that the task has died: stop the process.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn start(config: Config) -> Result<(NetworkHandle, mpsc::Receiver<NetworkEvent>), NetError> {
        if config.role.needs_hotkey() && config.hotkey.is_none() {
            return Err(NetError::HotkeyMissing(config.role));
        }
        let peer_id = config.key.peer_id();
        let now = Instant::now();
        let (limits, timing) = (&config.limits, &config.timing);
        let mut book = Book::new(
            limits.known_peers,
            Pause { base: timing.backoff_base, max: timing.backoff_max },
            Pause { base: timing.refused_base, max: timing.refused_max },
        );
        for addr in &config.known_peers {
            match split_peer(addr) {
                (bare, Some(peer)) if peer != peer_id => book.learn(peer, [bare], now),
                (_, Some(_)) => {}
                (_, None) => return Err(NetError::KnownPeer(addr.clone())),
            }
        }
        let mut swarm = behaviour::build(&config)?;
        for addr in &config.listen {
            probe(addr).map_err(|e| NetError::Listen { addr: addr.clone(), why: e.to_string() })?;
            swarm.listen_on(addr.clone()).map_err(|e| NetError::Listen { addr: addr.clone(), why: listen_error(e) })?;
        }
        let (event_tx, event_rx) = mpsc::channel(limits.event_queue.max(1));
        let (command_tx, command_rx) = mpsc::channel(limits.command_queue.max(1));
        let (peers, peers_rx) = watch::channel(Arc::default());
        let (addrs, addrs_rx) = watch::channel(Arc::default());
        let counters = Arc::new(Counters::default());
        let policy = Policy {
            failures: limits.failures_to_ban.max(1),
            window: limits.failure_window,
            ban: limits.ban,
            tracked: limits.tracked_identities.max(1),
        };
        let mut task = Task {
            introducer: Introducer {
                network: config.network,
                role: config.role,
                own: peer_id,
                pair: config.hotkey.clone(),
            },
            events: event_tx,
            outbox: VecDeque::new(),
            peers,
            addrs,
            counters: counters.clone(),
            bans: Bans::new(policy),
            rates: Rates::new(limits),
            links: HashMap::new(),
            sessions: HashMap::new(),
            by_hotkey: HashMap::new(),
            outgoing: HashMap::new(),
            incoming: HashMap::new(),
            handshakes: HashMap::new(),
            closing: HashMap::new(),
            gossip: gossip::GossipState::default(),
            requests: HashMap::new(),
            replies: FuturesUnordered::new(),
            book,
            discovery: discovery::Discovery::new(&config, now),
            last_tidy: now,
            last_recheck: now,
            swarm,
            config,
        };
        task.await_listeners().await;
        tokio::spawn(task.run(command_rx));
        Ok((NetworkHandle { peer_id, commands: command_tx, peers: peers_rx, addrs: addrs_rx, counters }, event_rx))
    }
}

/// Whether a TCP port is free. The transport shares ports (`SO_REUSEPORT`), so that two nodes on one
/// port would both start and each lose half of its connections.
fn probe(addr: &Multiaddr) -> std::io::Result<()> {
    let mut parts = addr.iter().skip(1);
    if let (Some(ip), Some(Part::Tcp(port))) = (ip_of(addr), parts.next())
        && port != 0
    {
        std::net::TcpListener::bind((ip, port))?;
    }
    Ok(())
}

fn listen_error(error: TransportError<std::io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(_) => "not a TCP or QUIC address".to_owned(),
        TransportError::Other(e) => e.to_string(),
    }
}

/// A number in 0..1 that spreads retries.
fn jitter() -> f64 {
    rand::random()
}

impl Task {
    async fn await_listeners(&mut self) {
        let wanted = self.config.listen.len();
        let deadline = tokio::time::Instant::now() + LISTEN_WAIT;
        while self.addrs.borrow().len() < wanted {
            match tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await {
                Ok(event) => self.on_swarm_event(event),
                Err(_) => break,
            }
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(self.config.timing.tick.max(Duration::from_millis(10)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let events = self.events.clone();
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = commands.recv() => match command {
                    Some(Command::Shutdown { done }) => {
                        drop(self);
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some((protocol, peer, channel, answer)) = self.replies.next(), if !self.replies.is_empty() => {
                    self.on_reply(protocol, peer, channel, answer);
                }
                permit = events.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.outbox.pop_front() { permit.send(event) },
                    Err(_) => return,
                },
                () = events.closed() => return,
                _ = tick.tick() => self.on_tick(Instant::now()),
            }
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = Instant::now();
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event, now),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let link =
                    Link { addr: endpoint.get_remote_address().clone(), inbound: endpoint.is_listener(), since: now };
                self.on_connected(peer_id, connection_id, link, now);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(%peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id, now);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, connection_id, error } => {
                tracing::debug!(?peer_id, %error, "dial failed");
                add(&self.counters.dials_failed, 1);
                self.on_dial_failed(peer_id, connection_id, &error, now);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(%send_back_addr, %error, "inbound connection failed");
                if matches!(error, libp2p::swarm::ListenError::Denied { .. }) {
                    add(&self.counters.connections_denied, 1);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                self.addrs.send_modify(|a| {
                    let mut all = a.as_ref().clone();
                    all.push(address.clone());
                    *a = Arc::new(all);
                });
                self.announce(now);
                self.emit(NetworkEvent::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.addrs.send_modify(|a| *a = Arc::new(a.iter().filter(|x| **x != address).cloned().collect()));
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener error"),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "a listener closed");
                self.addrs
                    .send_modify(|a| *a = Arc::new(a.iter().filter(|x| !addresses.contains(x)).cloned().collect()));
            }
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Gate(never) | BehaviourEvent::Blocked(never) => match never {},
            BehaviourEvent::Limits(never) | BehaviourEvent::Memory(never) => match never {},
            BehaviourEvent::Identify(event) => self.on_identify(event, now),
            BehaviourEvent::Ping(ping::Event { connection, result, .. }) => {
                if let Err(ping::Failure::Timeout | ping::Failure::Other { .. }) = result {
                    self.swarm.close_connection(connection);
                }
            }
            BehaviourEvent::Gossip(event) => self.on_gossip(event, now),
            BehaviourEvent::Register(event) => self.on_register(event, now),
            BehaviourEvent::Discover(event) => self.on_discover(event, now),
            BehaviourEvent::Handshake(event) => self.on_handshake_event(event, now),
            BehaviourEvent::Challenge(event) => self.on_request_event(Protocol::Challenge, event),
            BehaviourEvent::Sync(event) => self.on_request_event(Protocol::Sync, event),
            BehaviourEvent::Blob(event) => self.on_request_event(Protocol::Blob, event),
            BehaviourEvent::Snapshot(event) => self.on_request_event(Protocol::Snapshot, event),
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Publish { topic, data, done } => {
                let _ = done.send(self.publish(topic, data));
            }
            Command::Report { id, verdict } => self.on_verdict(&id.0, verdict),
            Command::Request { peer, protocol, ask, reply } => self.ask(peer, protocol, ask, reply),
            Command::Ban { target, duration, reason } => {
                let ban = self.bans.ban(target.into(), duration, reason, now);
                self.enforce(target.into(), &ban.reason);
            }
            Command::Disconnect { target } => {
                if let Some(peer) = self.resolve(target) {
                    self.end_session(&peer, DownReason::Closed);
                    self.disconnect(&peer);
                }
            }
            Command::KnownPeers { reply } => {
                let _ = reply.send(self.book.export());
            }
            Command::Shutdown { done } => {
                let _ = done.send(());
            }
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.expire_handshakes(now);
        self.expire_gossip(now);
        for subject in self.bans.expire(now) {
            match subject {
                Subject::Peer(peer) => {
                    self.swarm.behaviour_mut().blocked.unblock_peer(peer);
                }
                Subject::Ip(ip) => self.swarm.behaviour_mut().gate.unban(&ip),
                Subject::Hotkey(_) => {}
            }
        }
        if now.saturating_duration_since(self.last_tidy) >= TIDY {
            self.last_tidy = now;
            self.rates.tidy();
            self.forget_authors(now);
        }
        if now.saturating_duration_since(self.last_recheck) >= self.config.timing.recheck {
            self.last_recheck = now;
            self.recheck();
        }
        self.discover_tick(now);
        set(&self.counters.connections, self.links.values().map(HashMap::len).sum());
        set(&self.counters.sessions, self.sessions.len());
        set(&self.counters.bans, self.bans.len());
        set(&self.counters.known_peers, self.book.len());
    }

    /// Tells the application, now or when it has room again.
    fn emit(&mut self, event: NetworkEvent) {
        if self.outbox.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => self.outbox.push_back(event),
            }
        } else {
            self.outbox.push_back(event);
        }
        while self.outbox.len() > OUTBOX {
            self.outbox.pop_front();
            add(&self.counters.events_dropped, 1);
        }
    }

    fn resolve(&self, target: Target) -> Option<PeerId> {
        match target {
            Target::Peer(peer) => Some(peer),
            Target::Hotkey(hotkey) => self.by_hotkey.get(&hotkey).copied(),
        }
    }

    fn disconnect(&mut self, peer: &PeerId) {
        let _ = self.swarm.disconnect_peer_id(*peer);
    }

    fn publish_peers(&mut self) {
        let mut all: Vec<PeerInfo> = self.sessions.values().map(|s| s.info.clone()).collect();
        all.sort_by_key(|p| (p.role, p.hotkey, p.peer_id));
        self.peers.send_replace(Arc::new(all));
    }
}

/// What a request-response behaviour reports.
type Exchange = request_response::Event<Ask, Answer>;

/// The topics a role may write on.
fn may_publish(role: Role, topic: Topic) -> bool {
    match role {
        Role::Validator => true,
        Role::Observer => !topic.validators_only(),
        Role::Miner | Role::Bootnode => false,
    }
}
