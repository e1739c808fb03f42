//! Counters of what came, went and was refused.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        /// The counters at one moment. All but the last four only rise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Metrics {
                Metrics { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Metrics {
            /// Every counter with its name, for an exporter.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Gossip messages received, before any check of ours.
    gossip_in,
    /// Their bytes.
    gossip_in_bytes,
    /// Gossip messages published by this node.
    gossip_out,
    /// Their bytes.
    gossip_out_bytes,
    /// Messages the application accepted.
    gossip_accepted,
    /// Messages the application ignored.
    gossip_ignored,
    /// Messages the application rejected.
    gossip_rejected,
    /// Rejected: the author delivered it without having proved a hotkey.
    gossip_unauthenticated,
    /// Rejected: the author's role may not write on the topic.
    gossip_wrong_role,
    /// Ignored: relayed, from an author this node has never met.
    gossip_unknown_author,
    /// Ignored: the author is over its rate.
    gossip_rate_limited,
    /// Ignored: the author's sequence number was seen before or is too old.
    gossip_replayed,
    /// Ignored: the application was too slow to take or judge it.
    gossip_overflow,
    /// Requests received.
    requests_in,
    /// Their bytes.
    requests_in_bytes,
    /// Requests sent.
    requests_out,
    /// Their bytes.
    requests_out_bytes,
    /// Bytes of responses received.
    responses_in_bytes,
    /// Bytes of responses sent.
    responses_out_bytes,
    /// Requests declined: no session, or a role that may not ask.
    requests_unauthorised,
    /// Requests declined: over the rate.
    requests_rate_limited,
    /// Requests declined: the application was busy.
    requests_busy,
    /// Requests that broke off (size, timeout, closed connection).
    requests_failed,
    /// Sessions established.
    handshakes_ok,
    /// Handshakes that failed here.
    handshakes_refused,
    /// Handshakes that the other side refused.
    handshakes_refused_by_remote,
    /// Connections that proved nothing in time.
    handshakes_timed_out,
    /// Inbound connections refused by the gate, the limits or a ban.
    connections_denied,
    /// Dials that failed.
    dials_failed,
    /// Bans imposed.
    bans_imposed,
    /// Events dropped because the application did not take them.
    events_dropped,
    /// Open connections now.
    connections,
    /// Open sessions now.
    sessions,
    /// Bans in force now.
    bans,
    /// Peers in the address book now.
    known_peers,
}

pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

pub(crate) fn set(counter: &AtomicU64, n: usize) {
    counter.store(n as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_snapshot_names_every_counter() {
        let counters = Counters::default();
        add(&counters.gossip_in, 3);
        set(&counters.bans, 2);
        let metrics = counters.snapshot();
        assert_eq!((metrics.gossip_in, metrics.bans), (3, 2));
        assert!(metrics.iter().any(|m| m == ("gossip_in", 3)));
    }
}
