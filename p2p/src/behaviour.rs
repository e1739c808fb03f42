//! The composite behaviour and the transports under it.

use std::collections::HashSet;
use std::time::Duration;

use libp2p::gossipsub::{
    self, ConfigBuilder, MaxCountSubscriptionFilter, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Swarm, SwarmBuilder, identify, noise, ping, rendezvous, yamux};
use libp2p_allow_block_list::{self as block_list, BlockedPeers};
use libp2p_connection_limits::{self as connection_limits, ConnectionLimits};
use libp2p_memory_connection_limits as memory_limits;

use crate::codec::BytesCodec;
use crate::config::{Config, Role};
use crate::gate::Gate;
use crate::protocols::{Protocol, Topic};
use crate::swarm::NetError;

/// What identify calls the protocol family.
pub(crate) const IDENTIFY: &str = "/perturb/1";

/// Sessions are closed by their own rules (ping, handshake deadline, bans), never for idleness.
const IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Gossipsub's heartbeats that a message waits for its verdict in the cache; more than
/// [`crate::Timing::verdict`] by default.
const HISTORY: usize = 15;

/// Registrations a bootnode keeps per peer: one per role it may have had.
const REGISTRATIONS_PER_PEER: usize = 4;

/// Registrations a bootnode keeps: the neurons of a subnet, and as many strangers.
const REGISTRATIONS: usize = 8192;

pub(crate) type GossipBehaviour =
    gossipsub::Behaviour<gossipsub::IdentityTransform, MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>>;
pub(crate) type Bytes = request_response::Behaviour<BytesCodec>;

/// Everything a connection speaks. The first three decide whether there is one.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gate: Gate,
    pub(crate) blocked: block_list::Behaviour<BlockedPeers>,
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: memory_limits::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) gossip: Toggle<GossipBehaviour>,
    pub(crate) register: Toggle<rendezvous::server::Behaviour>,
    pub(crate) discover: Toggle<rendezvous::client::Behaviour>,
    pub(crate) handshake: Bytes,
    pub(crate) challenge: Bytes,
    pub(crate) sync: Bytes,
    pub(crate) blob: Bytes,
    pub(crate) snapshot: Bytes,
}

impl Behaviour {
    pub(crate) fn protocol_mut(&mut self, protocol: Protocol) -> &mut Bytes {
        match protocol {
            Protocol::Handshake => &mut self.handshake,
            Protocol::Challenge => &mut self.challenge,
            Protocol::Sync => &mut self.sync,
            Protocol::Blob => &mut self.blob,
            Protocol::Snapshot => &mut self.snapshot,
        }
    }
}

/// Which directions of a protocol a role speaks.
fn support(role: Role, protocol: Protocol) -> Option<ProtocolSupport> {
    match (protocol, role) {
        (Protocol::Handshake, _) => Some(ProtocolSupport::Full),
        (Protocol::Challenge, Role::Validator) => Some(ProtocolSupport::Outbound),
        (Protocol::Challenge, Role::Miner) => Some(ProtocolSupport::Inbound),
        (Protocol::Challenge, _) | (_, Role::Bootnode | Role::Miner) => None,
        (_, Role::Validator) => Some(ProtocolSupport::Full),
        (_, Role::Observer) => Some(ProtocolSupport::Outbound),
    }
}

/// Whether `asker` may ask `protocol` of `asked`.
pub(crate) fn may_ask(asker: Role, asked: Role, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Handshake => false,
        Protocol::Challenge => (asker, asked) == (Role::Validator, Role::Miner),
        Protocol::Sync | Protocol::Blob | Protocol::Snapshot => {
            matches!(asker, Role::Validator | Role::Observer) && asked == Role::Validator
        }
    }
}

fn bytes(role: Role, protocol: Protocol) -> Bytes {
    let config = request_response::Config::default()
        .with_request_timeout(protocol.timeout())
        .with_max_concurrent_streams(protocol.max_streams());
    let protocols = support(role, protocol).map(|s| (protocol.stream(), s));
    Bytes::with_codec(BytesCodec::new(protocol), protocols, config)
}

fn gossip(config: &Config, keypair: &Keypair) -> Result<GossipBehaviour, NetError> {
    let failed = |e: &dyn std::fmt::Display| NetError::Build(format!("gossip: {e}"));
    let topics: Vec<_> = Topic::ALL.map(|t| (t, t.ident(&config.network))).into();
    let largest = Topic::ALL.iter().map(|t| t.max_bytes()).max().unwrap_or(0);
    let mut builder = ConfigBuilder::default();
    builder
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        // Author and sequence number, not the content: the engine repeats identical bytes.
        .message_id_fn(|m| {
            let mut id = m.source.map(|p| p.to_bytes()).unwrap_or_default();
            id.extend_from_slice(&m.sequence_number.unwrap_or_default().to_be_bytes());
            MessageId::from(id)
        })
        .heartbeat_initial_delay(Duration::from_secs(1))
        .history_length(HISTORY)
        .duplicate_cache_time(Duration::from_secs(120))
        .flood_publish(true)
        // The frame around the largest message, keys and signature included.
        .max_transmit_size(largest + 16 * 1024);
    for (topic, ident) in &topics {
        builder.max_transmit_size_for_topic(topic.max_bytes(), ident.hash());
    }
    let gossip_config = builder.build().map_err(|e| failed(&e))?;
    let filter = MaxCountSubscriptionFilter {
        filter: WhitelistSubscriptionFilter(topics.iter().map(|(_, i)| i.hash()).collect::<HashSet<_>>()),
        max_subscribed_topics: topics.len(),
        max_subscriptions_per_request: 2 * topics.len(),
    };
    let mut gossip = GossipBehaviour::new_with_subscription_filter(
        MessageAuthenticity::Signed(keypair.clone()),
        gossip_config,
        filter,
    )
    .map_err(|e| failed(&e))?;
    gossip.with_peer_score(scores(config, &topics), PeerScoreThresholds::default()).map_err(|e| failed(&e))?;
    for (_, ident) in &topics {
        gossip.subscribe(ident).map_err(|e| failed(&e))?;
    }
    Ok(gossip)
}

/// Invalid messages cost most: five within a minute and a peer is no longer heard (−80). Delivery
/// quotas are off: topics are quiet for long times, and direct peers stand outside the mesh.
fn scores(config: &Config, topics: &[(Topic, gossipsub::IdentTopic)]) -> PeerScoreParams {
    let topic = TopicScoreParams {
        topic_weight: 0.5,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 300.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_decay: 0.9,
        first_message_deliveries_cap: 100.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -8.0,
        invalid_message_deliveries_decay: 0.97,
        ..TopicScoreParams::default()
    };
    let mut params = PeerScoreParams {
        topics: topics.iter().map(|(_, i)| (i.hash(), topic.clone())).collect(),
        topic_score_cap: 50.0,
        ..PeerScoreParams::default()
    };
    if config.dev_loopback {
        params.ip_colocation_factor_whitelist.insert(std::net::Ipv4Addr::LOCALHOST.into());
        params.ip_colocation_factor_whitelist.insert(std::net::Ipv6Addr::LOCALHOST.into());
    }
    params
}

fn behaviour(config: &Config, keypair: &Keypair) -> Result<Behaviour, NetError> {
    let limits = &config.limits;
    let role = config.role;
    let connections = ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.pending_connections))
        .with_max_pending_outgoing(Some(limits.pending_connections))
        .with_max_established_incoming(Some(limits.inbound_connections))
        .with_max_established_outgoing(Some(limits.outbound_connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer));
    let register = (role == Role::Bootnode).then(|| {
        let ttl = config.timing.registration_ttl.as_secs().max(1);
        let bounds = rendezvous::server::Config::default()
            .with_min_ttl(1)
            .with_max_ttl(ttl.max(rendezvous_ttl_bound()))
            .with_max_registration_per_peer(REGISTRATIONS_PER_PEER)
            .with_max_registration_total(REGISTRATIONS)
            .with_max_stored_cookies(REGISTRATIONS);
        rendezvous::server::Behaviour::new(bounds)
    });
    let discover = (role != Role::Bootnode).then(|| rendezvous::client::Behaviour::new(keypair.clone()));
    let gossip = if role.gossips() { Some(gossip(config, keypair)?) } else { None };
    let identify = identify::Config::new(IDENTIFY.to_owned(), keypair.public())
        .with_agent_version(format!("perturb/{}", env!("CARGO_PKG_VERSION")))
        // Peers hear the announced addresses only.
        .with_hide_listen_addrs(true)
        .with_cache_size(0);
    let ping = ping::Config::new().with_interval(config.timing.ping).with_timeout(config.timing.ping);
    Ok(Behaviour {
        gate: Gate::new(limits.unproven_per_ip, config.dev_loopback),
        blocked: block_list::Behaviour::default(),
        limits: connection_limits::Behaviour::new(connections),
        memory: memory_limits::Behaviour::with_max_percentage(f64::from(limits.memory_percent.min(100)) / 100.0),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
        gossip: gossip.into(),
        register: register.into(),
        discover: discover.into(),
        handshake: bytes(role, Protocol::Handshake),
        challenge: bytes(role, Protocol::Challenge),
        sync: bytes(role, Protocol::Sync),
        blob: bytes(role, Protocol::Blob),
        snapshot: bytes(role, Protocol::Snapshot),
    })
}

/// Seconds a registration may hold at most: junk is gone soon, honest nodes renew.
const fn rendezvous_ttl_bound() -> u64 {
    1800
}

/// The swarm: TCP with noise and yamux, QUIC, DNS names where the machine can resolve them.
pub(crate) fn build(config: &Config) -> Result<Swarm<Behaviour>, NetError> {
    macro_rules! transports {
        () => {
            SwarmBuilder::with_existing_identity(config.key.keypair())
                .with_tokio()
                .with_tcp(libp2p::tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
                .map_err(|e| NetError::Build(e.to_string()))?
                .with_quic()
        };
    }
    macro_rules! finish {
        ($builder:expr) => {{
            let behaviour = behaviour(config, &config.key.keypair())?;
            $builder
                .with_behaviour(|_| behaviour)
                .map_err(|e| NetError::Build(e.to_string()))?
                .with_swarm_config(|c| c.with_idle_connection_timeout(IDLE))
                .build()
        }};
    }
    match transports!().with_dns() {
        Ok(builder) => Ok(finish!(builder)),
        Err(error) => {
            tracing::warn!(%error, "no DNS resolver on this machine: addresses with names cannot be dialled");
            Ok(finish!(transports!()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_validators_challenge_and_only_miners_are_challenged() {
        let roles = [Role::Bootnode, Role::Validator, Role::Miner, Role::Observer];
        let pairs = |p| roles.iter().flat_map(|a| roles.map(|b| (*a, b))).filter(move |(a, b)| may_ask(*a, *b, p));
        assert_eq!(pairs(Protocol::Challenge).collect::<Vec<_>>(), vec![(Role::Validator, Role::Miner)]);
        assert_eq!(
            pairs(Protocol::Sync).collect::<Vec<_>>(),
            vec![(Role::Validator, Role::Validator), (Role::Observer, Role::Validator)]
        );
        assert_eq!(pairs(Protocol::Handshake).count(), 0);
    }
}
