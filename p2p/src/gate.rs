//! The gate in front of everything: refuses inbound connections of banned IP addresses, and more
//! than a few of one address that have not yet proved themselves, before any key is exchanged.
//!
//! An IPv6 address counts as its /64, which is what one customer holds. Loopback is exempt only
//! where the configuration says so.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::config::ip_of;

/// Why the gate stayed closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    #[error("{0} is banned")]
    Banned(IpAddr),
    #[error("{0} has too many connections that have not proved themselves")]
    TooMany(IpAddr),
}

/// What the IP rules know.
pub(crate) struct Gate {
    limit: usize,
    exempt_loopback: bool,
    banned: HashSet<IpAddr>,
    unproven: HashMap<IpAddr, HashSet<ConnectionId>>,
    origin: HashMap<ConnectionId, IpAddr>,
}

impl Gate {
    pub(crate) fn new(limit: usize, exempt_loopback: bool) -> Self {
        Self { limit, exempt_loopback, banned: HashSet::new(), unproven: HashMap::new(), origin: HashMap::new() }
    }

    /// The address the IP rules count for a connection; `None` where they do not apply.
    pub(crate) fn subject(&self, addr: &Multiaddr) -> Option<IpAddr> {
        let ip = ip_of(addr)?;
        if ip.is_loopback() && self.exempt_loopback {
            return None;
        }
        Some(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => {
                let s = v6.segments();
                IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
            }
        })
    }

    pub(crate) fn ban(&mut self, ip: IpAddr) {
        self.banned.insert(ip);
    }

    pub(crate) fn unban(&mut self, ip: &IpAddr) {
        self.banned.remove(ip);
    }

    /// The connection's peer has proved itself (or the connection is gone).
    pub(crate) fn release(&mut self, id: ConnectionId) {
        let Some(ip) = self.origin.remove(&id) else { return };
        if let Some(ids) = self.unproven.get_mut(&ip) {
            ids.remove(&id);
            if ids.is_empty() {
                self.unproven.remove(&ip);
            }
        }
    }

    fn admit(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), Closed> {
        let Some(ip) = self.subject(remote) else { return Ok(()) };
        if self.banned.contains(&ip) {
            return Err(Closed::Banned(ip));
        }
        let ids = self.unproven.entry(ip).or_default();
        if ids.len() >= self.limit {
            return Err(Closed::TooMany(ip));
        }
        ids.insert(id);
        self.origin.insert(id, ip);
        Ok(())
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.admit(id, remote).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // The ban may have come while keys were exchanged.
        match self.subject(remote).filter(|ip| self.banned.contains(ip)) {
            Some(ip) => Err(ConnectionDenied::new(Closed::Banned(ip))),
            None => Ok(dummy::ConnectionHandler),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. })
            | FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => self.release(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn addr(ip: &str) -> Multiaddr {
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        format!("/{family}/{ip}/tcp/1000").parse().unwrap()
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn an_address_holds_five_unproven_connections_until_one_proves_itself() {
        let mut gate = Gate::new(5, false);
        for n in 0..5 {
            assert_eq!(gate.admit(id(n), &addr("10.0.0.1")), Ok(()));
        }
        let ip = "10.0.0.1".parse().unwrap();
        assert_eq!(gate.admit(id(5), &addr("10.0.0.1")), Err(Closed::TooMany(ip)));
        assert_eq!(gate.admit(id(6), &addr("10.0.0.2")), Ok(()));
        gate.release(id(3));
        assert_eq!(gate.admit(id(7), &addr("10.0.0.1")), Ok(()));
    }

    #[test]
    fn ipv6_counts_by_its_network_and_mapped_ipv4_as_ipv4() {
        let mut gate = Gate::new(1, false);
        assert_eq!(gate.admit(id(0), &addr("2001:db8::1")), Ok(()));
        assert!(gate.admit(id(1), &addr("2001:db8::ffff:2")).is_err());
        assert_eq!(gate.admit(id(2), &addr("2001:db8:0:1::1")), Ok(()));
        assert_eq!(gate.admit(id(3), &addr("10.0.0.1")), Ok(()));
        assert!(gate.admit(id(4), &addr("::ffff:10.0.0.1")).is_err());
    }

    #[test]
    fn a_banned_address_is_refused_and_loopback_is_exempt_only_in_development() {
        let mut gate = Gate::new(1, false);
        let ip = "10.0.0.1".parse().unwrap();
        gate.ban(ip);
        assert_eq!(gate.admit(id(0), &addr("10.0.0.1")), Err(Closed::Banned(ip)));
        gate.unban(&ip);
        assert_eq!(gate.admit(id(0), &addr("10.0.0.1")), Ok(()));
        assert_eq!(gate.admit(id(1), &addr("127.0.0.1")), Ok(()));
        assert!(gate.admit(id(2), &addr("127.0.0.1")).is_err());
        let mut dev = Gate::new(1, true);
        assert!((0..100).all(|n| dev.admit(id(n), &addr("127.0.0.1")).is_ok()));
    }
}
