//! Finding validators: bootnodes, rendezvous, own addresses, dials.
//!
//! A node knows nothing but its bootnodes. Connected to one, it registers a signed record of its
//! addresses in the namespace `/perturb/<network id>/<role>/1` and asks, again and again, who is
//! registered as a validator. What it learns goes into the address book and is dialled from there,
//! so the death of every bootnode costs nothing but newcomers. A bootnode that comes back is dialled
//! and registered with again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::rendezvous::{self, Cookie, Namespace};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, identify};
use perturb_types::NetworkId;

use super::{Task, jitter};
use crate::book::{MAX_ADDRS, Pause};
use crate::config::{Config, Role, ip_of, split_peer, with_ip};

/// Records asked for at once: their response stays far below the engine's limit of 1 MiB.
const PAGE: u64 = 128;

/// Before a failed registration is tried again.
const REGISTER_RETRY: Duration = Duration::from_secs(5);

/// Registrations a bootnode takes from one peer per [`REGISTER_WINDOW`].
const REGISTER_LIMIT: u32 = 30;

/// The window of [`REGISTER_LIMIT`].
const REGISTER_WINDOW: Duration = Duration::from_secs(60);

/// A bootnode that this node was told of.
struct Bootnode {
    addr: Multiaddr,
    /// From the address, or learnt at the first connection.
    peer: Option<PeerId>,
    dialing: Option<ConnectionId>,
    up: bool,
    failures: u32,
    next_dial: Instant,
    next_register: Instant,
    next_discover: Instant,
    cookie: Option<Cookie>,
    page: u64,
}

pub(super) struct Discovery {
    bootnodes: Vec<Bootnode>,
    pause: Pause,
    /// The IP address that a bootnode saw.
    observed: Option<IpAddr>,
    announced: Vec<Multiaddr>,
    /// What connected peers said about their own addresses, before their role was proved.
    told: HashMap<PeerId, Vec<Multiaddr>>,
    /// As a bootnode: registrations of each peer in the current window.
    registrations: HashMap<PeerId, u32>,
    window: Instant,
}

impl Discovery {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let own = config.key.peer_id();
        let bootnodes = config.bootnodes.iter().map(|addr| {
            let (bare, peer) = split_peer(addr);
            Bootnode {
                addr: bare,
                peer,
                dialing: None,
                up: false,
                failures: 0,
                next_dial: now,
                next_register: now,
                next_discover: now,
                cookie: None,
                page: PAGE,
            }
        });
        Self {
            bootnodes: bootnodes.filter(|b| b.peer != Some(own)).collect(),
            pause: Pause { base: config.timing.backoff_base, max: config.timing.backoff_max },
            observed: None,
            announced: Vec::new(),
            told: HashMap::new(),
            registrations: HashMap::new(),
            window: now,
        }
    }

    fn of(&mut self, peer: &PeerId) -> Option<&mut Bootnode> {
        self.bootnodes.iter_mut().find(|b| b.peer.as_ref() == Some(peer))
    }
}

fn namespace(network: &NetworkId, role: Role) -> Option<Namespace> {
    Namespace::new(format!("/perturb/{network}/{}/1", role.label())).ok()
}

impl Task {
    /// Dials, registers, asks: whatever is due.
    pub(super) fn discover_tick(&mut self, now: Instant) {
        self.dial_bootnodes(now);
        self.ask_bootnodes(now);
        if self.config.role.dials_validators() {
            for (peer, addrs) in self.book.due(now, jitter()) {
                let opts = DialOpts::peer_id(peer).addresses(addrs).allocate_new_port().build();
                if let Err(error) = self.swarm.dial(opts) {
                    tracing::trace!(%peer, %error, "not dialled");
                }
            }
        }
        if now.saturating_duration_since(self.discovery.window) >= REGISTER_WINDOW {
            self.discovery.window = now;
            self.discovery.registrations.clear();
        }
    }

    fn dial_bootnodes(&mut self, now: Instant) {
        let pause = self.discovery.pause;
        for boot in &mut self.discovery.bootnodes {
            let connected = boot.peer.is_some_and(|p| self.links.contains_key(&p));
            if connected || boot.next_dial > now {
                continue;
            }
            boot.next_dial = now + pause.after(boot.failures, jitter()).max(Duration::from_secs(1));
            let opts = match boot.peer {
                Some(peer) => DialOpts::peer_id(peer).addresses(vec![boot.addr.clone()]).allocate_new_port().build(),
                None => DialOpts::unknown_peer_id().address(boot.addr.clone()).allocate_new_port().build(),
            };
            boot.dialing = Some(opts.connection_id());
            if let Err(error) = self.swarm.dial(opts) {
                tracing::debug!(addr = %boot.addr, %error, "bootnode not dialled");
            }
        }
    }

    fn ask_bootnodes(&mut self, now: Instant) {
        let (network, timing) = (self.config.network, &self.config.timing);
        let Some(client) = self.swarm.behaviour_mut().discover.as_mut() else { return };
        for boot in self.discovery.bootnodes.iter_mut().filter(|b| b.up) {
            let Some(peer) = boot.peer else { continue };
            if now >= boot.next_register && !self.discovery.announced.is_empty() {
                boot.next_register = now + REGISTER_RETRY;
                let ttl = timing.registration_ttl.as_secs().max(1);
                if let Some(ns) = namespace(&network, self.config.role)
                    && let Err(error) = client.register(ns, peer, Some(ttl))
                {
                    tracing::warn!(%peer, %error, "not registered at the bootnode");
                }
            }
            if now >= boot.next_discover {
                boot.next_discover = now + timing.discover.mul_f64(0.75 + 0.5 * jitter());
                client.discover(namespace(&network, Role::Validator), boot.cookie.clone(), Some(boot.page), peer);
            }
        }
    }

    pub(super) fn on_bootnode_connected(&mut self, peer: &PeerId, id: ConnectionId) {
        if let Some(boot) = self.discovery.bootnodes.iter_mut().find(|b| b.dialing == Some(id)) {
            boot.dialing = None;
            boot.peer = Some(*peer);
        }
    }

    pub(super) fn on_bootnode_session(&mut self, peer: &PeerId, now: Instant) {
        if let Some(boot) = self.discovery.of(peer) {
            boot.up = true;
            boot.failures = 0;
            boot.cookie = None;
            boot.next_register = now;
            boot.next_discover = now;
            self.ask_bootnodes(now);
        }
    }

    pub(super) fn on_bootnode_closed(&mut self, peer: &PeerId, good: bool, now: Instant) {
        let pause = self.discovery.pause;
        if let Some(boot) = self.discovery.of(peer) {
            boot.up = false;
            boot.failures = if good { 0 } else { boot.failures.saturating_add(1) };
            boot.next_dial = boot.next_dial.max(now + pause.after(boot.failures, jitter()));
        }
    }

    pub(super) fn on_bootnode_refused(&mut self, peer: &PeerId, now: Instant) {
        let refused = Pause { base: self.config.timing.refused_base, max: self.config.timing.refused_max };
        if let Some(boot) = self.discovery.of(peer) {
            boot.next_dial = now + refused.after(boot.failures, jitter());
        }
    }

    pub(super) fn on_dial_failed(&mut self, peer: Option<PeerId>, id: ConnectionId, error: &DialError, now: Instant) {
        let pause = self.discovery.pause;
        if let Some(peer) = peer {
            self.book.failed(&peer, now, jitter());
        }
        if let Some(boot) = self.discovery.bootnodes.iter_mut().find(|b| b.dialing == Some(id)) {
            boot.dialing = None;
            if boot.failures == 0 {
                tracing::warn!(addr = %boot.addr, %error, "bootnode out of reach, trying again with growing pauses");
            }
            boot.failures = boot.failures.saturating_add(1);
            boot.next_dial = now + pause.after(boot.failures, jitter());
        }
    }

    /// A bootnode says which IP address it sees; nobody else is believed. Everybody says where it
    /// can be reached; of validators that is remembered, so that both sides of a connection can
    /// open it anew.
    pub(super) fn on_identify(&mut self, event: identify::Event, now: Instant) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        if self.links.contains_key(&peer_id) {
            let local = self.config.dev_loopback;
            let reachable = |a: &Multiaddr| local || !ip_of(a).is_some_and(|ip| ip.is_loopback());
            let addrs = info.listen_addrs.iter().map(|a| split_peer(a).0).filter(reachable).take(MAX_ADDRS).collect();
            self.discovery.told.insert(peer_id, addrs);
            self.remember(&peer_id, now);
        }
        if self.discovery.of(&peer_id).is_none() {
            return;
        }
        if let Some(ip) = ip_of(&info.observed_addr)
            && (!ip.is_loopback() || self.config.dev_loopback)
        {
            self.discovery.observed = Some(ip);
            self.announce(now);
        }
    }

    /// Puts a validator's own word on its addresses into the book, once it is known to be one.
    pub(super) fn remember(&mut self, peer: &PeerId, now: Instant) {
        let validator = self.sessions.get(peer).is_some_and(|s| s.info.role == Role::Validator);
        if validator
            && self.config.role.dials_validators()
            && let Some(addrs) = self.discovery.told.remove(peer)
        {
            self.book.learn(*peer, addrs, now);
            self.book.connected(peer);
        }
    }

    pub(super) fn forget_told(&mut self, peer: &PeerId) {
        self.discovery.told.remove(peer);
    }

    /// Settles which addresses the record holds; registers anew when they changed.
    pub(super) fn announce(&mut self, now: Instant) {
        let listened = self.addrs.borrow().clone();
        let mut wanted: Vec<Multiaddr> = if self.config.announce.is_empty() {
            let seen = listened.iter().filter_map(|a| with_ip(a, self.discovery.observed?));
            let loopback = listened
                .iter()
                .filter(|a| self.config.dev_loopback && ip_of(a).is_some_and(|ip| ip.is_loopback()))
                .cloned();
            seen.chain(loopback).collect()
        } else {
            self.config.announce.iter().map(|a| split_peer(a).0).collect()
        };
        wanted.sort();
        wanted.dedup();
        wanted.truncate(MAX_ADDRS);
        if wanted == self.discovery.announced {
            return;
        }
        for gone in self.discovery.announced.iter().filter(|a| !wanted.contains(a)) {
            self.swarm.remove_external_address(gone);
        }
        for addr in wanted.iter().filter(|a| !self.discovery.announced.contains(a)) {
            self.swarm.add_external_address(addr.clone());
        }
        tracing::info!(addrs = ?wanted, "announcing");
        self.discovery.announced = wanted;
        for boot in &mut self.discovery.bootnodes {
            boot.next_register = now;
        }
    }

    pub(super) fn on_discover(&mut self, event: rendezvous::client::Event, now: Instant) {
        use rendezvous::client::Event;
        match event {
            Event::Registered { rendezvous_node, ttl, .. } => {
                tracing::debug!(bootnode = %rendezvous_node, ttl, "registered");
                if let Some(boot) = self.discovery.of(&rendezvous_node) {
                    boot.next_register = now + Duration::from_secs((ttl / 3).clamp(1, 3600));
                }
            }
            Event::RegisterFailed { rendezvous_node, error, .. } => {
                tracing::debug!(bootnode = %rendezvous_node, ?error, "registration failed");
            }
            Event::Discovered { rendezvous_node, registrations, cookie } => {
                let full = self.discovery.of(&rendezvous_node).map(|boot| {
                    let full = registrations.len() as u64 >= boot.page;
                    boot.cookie = Some(cookie);
                    boot.page = PAGE;
                    if full {
                        boot.next_discover = now;
                    }
                });
                if full.is_none() || !self.config.role.dials_validators() {
                    return;
                }
                for registration in registrations {
                    let peer = registration.record.peer_id();
                    if peer != self.introducer.own {
                        let addrs = registration.record.addresses().iter().map(|a| split_peer(a).0);
                        self.book.learn(peer, addrs.collect::<Vec<_>>(), now);
                        if self.links.contains_key(&peer) {
                            self.book.connected(&peer);
                        }
                    }
                }
            }
            Event::DiscoverFailed { rendezvous_node, error, .. } => {
                tracing::debug!(bootnode = %rendezvous_node, ?error, "discovery failed");
                if let Some(boot) = self.discovery.of(&rendezvous_node) {
                    boot.cookie = None;
                    // One bloated record must not hide all the others.
                    boot.page = (boot.page / 2).max(1);
                }
            }
            Event::Expired { .. } => {}
        }
    }

    /// As a bootnode: takes note of who registers, and bans who overdoes it or bloats the register.
    pub(super) fn on_register(&mut self, event: rendezvous::server::Event, now: Instant) {
        let rendezvous::server::Event::PeerRegistered { peer, registration } = event else { return };
        let count = self.discovery.registrations.entry(peer).or_default();
        *count += 1;
        let flood = *count > REGISTER_LIMIT;
        let bloat = registration.record.addresses().len() > 2 * MAX_ADDRS;
        if flood || bloat {
            let reason = if flood { "floods the register" } else { "registers too many addresses" };
            let subject = crate::bans::Subject::Peer(peer);
            let ban = self.bans.ban(subject, self.config.limits.ban, reason.to_owned(), now);
            self.enforce(subject, &ban.reason);
        } else {
            tracing::debug!(%peer, namespace = %registration.namespace, "registered");
        }
    }
}
