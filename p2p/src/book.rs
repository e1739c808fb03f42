//! The address book: which validators are known, where, and when to dial them next.
//!
//! A failed dial is repeated after [`Pause::base`] · 2^failures, at most [`Pause::max`], give or
//! take a quarter, so that a restarted node is not met by everybody at once. What was learnt stays
//! when the bootnode dies. The book is bounded: the entry that was heard of longest ago and has no
//! connection makes room.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

/// Addresses kept per peer: TCP and QUIC in both IP families, and their old values.
pub(crate) const MAX_ADDRS: usize = 8;

/// A pause that doubles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    pub(crate) base: Duration,
    pub(crate) max: Duration,
}

impl Pause {
    /// The pause after `failures` failures in a row; `jitter` in 0..1 spreads it over ±25 %.
    pub(crate) fn after(&self, failures: u32, jitter: f64) -> Duration {
        let factor = 1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX);
        let pause = self.base.saturating_mul(factor).min(self.max);
        pause.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[derive(Clone, Debug)]
struct Entry {
    addrs: Vec<Multiaddr>,
    failures: u32,
    next_dial: Instant,
    heard: Instant,
    connected: bool,
}

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    entries: HashMap<PeerId, Entry>,
    limit: usize,
    pause: Pause,
    refused: Pause,
}

impl Book {
    pub(crate) fn new(limit: usize, pause: Pause, refused: Pause) -> Self {
        Self { entries: HashMap::new(), limit, pause, refused }
    }

    /// Adds what was heard of a peer; newer addresses come first.
    pub(crate) fn learn(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>, now: Instant) {
        let mut addrs: Vec<Multiaddr> = addrs.into_iter().take(MAX_ADDRS).collect();
        if addrs.is_empty() {
            return;
        }
        if !self.entries.contains_key(&peer) && self.entries.len() >= self.limit {
            let stalest = self.entries.iter().filter(|(_, e)| !e.connected).min_by_key(|(_, e)| e.heard);
            match stalest.map(|(p, _)| *p) {
                Some(p) => self.entries.remove(&p),
                None => return,
            };
        }
        let entry = self.entries.entry(peer).or_insert_with(|| Entry {
            addrs: Vec::new(),
            failures: 0,
            next_dial: now,
            heard: now,
            connected: false,
        });
        let fresh = addrs.iter().any(|a| !entry.addrs.contains(a));
        addrs.extend(entry.addrs.iter().filter(|a| !addrs.contains(a)).cloned().collect::<Vec<_>>());
        addrs.truncate(MAX_ADDRS);
        entry.addrs = addrs;
        entry.heard = now;
        if fresh {
            // A new address is worth a new try.
            entry.next_dial = entry.next_dial.min(now + self.pause.base);
        }
    }

    /// The peers to dial now. Each is put off by one pause: a dial that reports nothing is not
    /// repeated on every tick.
    pub(crate) fn due(&mut self, now: Instant, jitter: f64) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let pause = self.pause;
        self.entries
            .iter_mut()
            .filter(|(_, e)| !e.connected && e.next_dial <= now)
            .map(|(peer, e)| {
                e.next_dial = now + pause.after(e.failures, jitter).max(Duration::from_secs(1));
                (*peer, e.addrs.clone())
            })
            .collect()
    }

    pub(crate) fn connected(&mut self, peer: &PeerId) {
        if let Some(e) = self.entries.get_mut(peer) {
            e.connected = true;
        }
    }

    /// The last connection is gone; `good` if a session had stood for a while.
    pub(crate) fn closed(&mut self, peer: &PeerId, good: bool, now: Instant, jitter: f64) {
        if let Some(e) = self.entries.get_mut(peer) {
            e.connected = false;
            e.failures = if good { 0 } else { e.failures.saturating_add(1) };
            e.next_dial = e.next_dial.max(now + self.pause.after(e.failures, jitter));
            if good {
                e.next_dial = now + self.pause.after(0, jitter);
            }
        }
    }

    /// A dial failed.
    pub(crate) fn failed(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        if let Some(e) = self.entries.get_mut(peer).filter(|e| !e.connected) {
            e.failures = e.failures.saturating_add(1);
            e.next_dial = now + self.pause.after(e.failures, jitter);
        }
    }

    /// One side refused the other: try again, but much later.
    pub(crate) fn refused(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        if let Some(e) = self.entries.get_mut(peer) {
            e.next_dial = now + self.refused.after(e.failures, jitter);
            e.failures = e.failures.saturating_add(1);
        }
    }

    /// Every known address with its peer id.
    pub(crate) fn export(&self) -> Vec<Multiaddr> {
        let mut all: Vec<Multiaddr> = self
            .entries
            .iter()
            .flat_map(|(peer, e)| e.addrs.iter().filter_map(|a| a.clone().with_p2p(*peer).ok()))
            .collect();
        all.sort();
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn peer(n: u8) -> PeerId {
        crate::config::NetworkKey::from_seed([n; 32]).peer_id()
    }

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn book(limit: usize) -> Book {
        let s = Duration::from_secs;
        Book::new(limit, Pause { base: s(1), max: s(60) }, Pause { base: s(5), max: s(120) })
    }

    #[test]
    fn the_pause_doubles_to_its_maximum_and_jitters_by_a_quarter() {
        let pause = Pause { base: Duration::from_secs(1), max: Duration::from_secs(60) };
        assert_eq!(pause.after(0, 0.5), Duration::from_secs(1));
        assert_eq!(pause.after(3, 0.5), Duration::from_secs(8));
        assert_eq!(pause.after(3, 0.0), Duration::from_secs(6));
        assert_eq!(pause.after(3, 1.0), Duration::from_secs(10));
        assert_eq!(pause.after(u32::MAX, 0.5), Duration::from_secs(60));
    }

    #[test]
    fn a_peer_is_dialled_again_after_its_pause_and_not_while_connected() {
        let (mut book, t) = (book(10), Instant::now());
        book.learn(peer(1), [addr(1)], t);
        assert_eq!(book.due(t, 0.5).len(), 1);
        assert_eq!(book.due(t, 0.5).len(), 0, "put off");
        book.failed(&peer(1), t, 0.5);
        assert_eq!(book.due(t + Duration::from_millis(1999), 0.5).len(), 0);
        assert_eq!(book.due(t + Duration::from_secs(2), 0.5).len(), 1);
        book.connected(&peer(1));
        assert_eq!(book.due(t + Duration::from_secs(999), 0.5).len(), 0);
        book.closed(&peer(1), true, t + Duration::from_secs(999), 0.5);
        assert_eq!(book.due(t + Duration::from_secs(1000), 0.5).len(), 1);
    }

    #[test]
    fn a_refusal_puts_the_next_attempt_off_so_that_ten_never_fall_into_ten_minutes() {
        let (mut book, t) = (book(10), Instant::now());
        book.learn(peer(1), [addr(1)], t);
        let mut attempts = Vec::new();
        for second in 0..3600 {
            let now = t + Duration::from_secs(second);
            if !book.due(now, 0.0).is_empty() {
                attempts.push(second);
                book.connected(&peer(1));
                book.refused(&peer(1), now, 0.0);
                book.closed(&peer(1), false, now, 0.0);
            }
        }
        let worst = attempts.iter().map(|a| attempts.iter().filter(|b| (*a..a + 600).contains(b)).count()).max();
        assert!(worst.unwrap() < 10, "{worst:?} attempts in ten minutes");
    }

    #[test]
    fn the_book_is_bounded_and_never_forgets_a_connected_peer() {
        let (mut book, t) = (book(2), Instant::now());
        book.learn(peer(1), [addr(1)], t);
        book.connected(&peer(1));
        for n in 2..20 {
            book.learn(peer(n), (0..50).map(addr), t + Duration::from_secs(u64::from(n)));
        }
        assert_eq!(book.len(), 2);
        assert_eq!(book.export().len(), 1 + MAX_ADDRS);
        assert!(book.export().contains(&addr(1).with_p2p(peer(1)).unwrap()));
    }
}
