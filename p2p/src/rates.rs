//! Rate limits: gossip by author, requests by peer and protocol, in both directions.
//!
//! Each limit is a token bucket (`governor`'s GCRA) per key. Gossip is charged to the *author* of a
//! message, whoever relayed it.

use std::hash::Hash;
use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use libp2p::PeerId;

use crate::config::Limits;
use crate::protocols::Protocol;

/// Keys of one limiter before it must forget the idle ones; when it cannot, it refuses new ones.
const MAX_KEYS: usize = 8192;

/// A bucket per key.
pub(crate) struct Keyed<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    limiter: RateLimiter<K, HashMapStateStore<K>, C, NoOpMiddleware<C::Instant>>,
}

impl<K: Hash + Eq + Clone, C: Clock> Keyed<K, C> {
    pub(crate) fn new(per_second: u32, burst: u32, clock: C) -> Self {
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(rate).allow_burst(burst);
        Self { limiter: RateLimiter::new(quota, HashMapStateStore::default(), clock) }
    }

    /// Whether one more is within the limit.
    pub(crate) fn allow(&self, key: &K) -> bool {
        if self.limiter.len() >= MAX_KEYS {
            self.limiter.retain_recent();
            if self.limiter.len() >= MAX_KEYS {
                return false;
            }
        }
        self.limiter.check_key(key).is_ok()
    }

    /// Forgets the keys whose bucket is full again.
    pub(crate) fn tidy(&self) {
        self.limiter.retain_recent();
    }
}

/// Every limiter of a node.
pub(crate) struct Rates {
    authors: Keyed<PeerId>,
    inbound: [Keyed<PeerId>; 5],
    outbound: [Keyed<PeerId>; 5],
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Self {
        let per_protocol = || {
            Protocol::ALL.map(|p| {
                let (rate, burst) = p.rate();
                Keyed::new(rate, burst, DefaultClock::default())
            })
        };
        Self {
            authors: Keyed::new(limits.author_messages_per_s, limits.author_burst, DefaultClock::default()),
            inbound: per_protocol(),
            outbound: per_protocol(),
        }
    }

    pub(crate) fn author(&self, author: &PeerId) -> bool {
        self.authors.allow(author)
    }

    pub(crate) fn inbound(&self, peer: &PeerId, protocol: Protocol) -> bool {
        self.inbound[protocol.index()].allow(peer)
    }

    pub(crate) fn outbound(&self, peer: &PeerId, protocol: Protocol) -> bool {
        self.outbound[protocol.index()].allow(peer)
    }

    pub(crate) fn tidy(&self) {
        self.authors.tidy();
        for limiter in self.inbound.iter().chain(&self.outbound) {
            limiter.tidy();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::time::Duration;

    #[test]
    fn an_author_gets_its_burst_then_its_rate_and_others_are_untouched() {
        let clock = FakeRelativeClock::default();
        let keyed = Keyed::new(100, 200, clock.clone());
        assert_eq!((0..1000).filter(|_| keyed.allow(&1u8)).count(), 200);
        assert!(keyed.allow(&2u8));
        clock.advance(Duration::from_secs(1));
        assert_eq!((0..1000).filter(|_| keyed.allow(&1u8)).count(), 100);
        clock.advance(Duration::from_secs(60));
        keyed.tidy();
        assert_eq!(keyed.limiter.len(), 0, "idle keys are forgotten");
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let keyed = Keyed::new(1, 1, FakeRelativeClock::default());
        assert_eq!((0..2 * MAX_KEYS).filter(|k| keyed.allow(k)).count(), MAX_KEYS);
    }
}
