//! Who is how far, and fetching the blocks this node lacks.
//!
//! Peers say how far they are by signed beacons. Any claim above this node's head may trigger a
//! range request, to one peer at a time, with a deadline; what comes back counts only with its
//! certificate. A peer whose answer was wrong or missing is not asked again for a while, so a
//! liar costs one request per backoff. *Whether this node is behind* (and must not vote) is
//! decided by claims of validators with more than a third of the power, or by a block whose
//! certificate verified: no liar below that power can silence a validator.

use std::collections::{BTreeMap, VecDeque};

use perturb_types::ConsensusKey;

use crate::Millis;
use crate::wire::{MAX_RANGE_BLOCKS, Peer};

/// Peers remembered: the connections a node holds, and some that came and went.
const MAX_PEERS: usize = 512;

/// Milliseconds a range request may take: a full range over a thin line.
const RANGE_TIMEOUT_MS: Millis = 8_000;

/// Milliseconds a peer is left alone after a wrong or missing answer.
const BACKOFF_MS: Millis = 3_000;

/// Milliseconds a node waits, one height behind, before it asks: usually the votes are on their way.
const ONE_BEHIND_MS: Millis = 1_500;

/// What is known of a peer.
#[derive(Clone, Debug, Default)]
struct Known {
    height: u64,
    key: Option<ConsensusKey>,
    sent_ms: u64,
    seen_ms: Millis,
    not_before: Millis,
}

/// A range request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The request's id.
    pub id: u64,
    /// Whom.
    pub peer: Peer,
    /// The first height.
    pub from: u64,
    /// How many blocks at most.
    pub count: u16,
    deadline: Millis,
}

/// The peers and the one range request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sync {
    peers: BTreeMap<Peer, Known>,
    asked: Option<Asked>,
    behind_since: Option<Millis>,
    /// Verified-later blocks with certificates, consecutive from the head's next height.
    pub queue: VecDeque<(Peer, Vec<u8>, Vec<u8>)>,
}

impl Sync {
    /// A beacon whose signature was verified; false where it says nothing new.
    pub fn beacon(&mut self, now: Millis, key: ConsensusKey, peer: Peer, height: u64, sent_ms: u64) -> bool {
        if !self.make_room(&peer) {
            return false;
        }
        let known = self.peers.entry(peer).or_default();
        if known.key == Some(key) && sent_ms <= known.sent_ms {
            return false;
        }
        // A key speaks for one connection; a peer restarted elsewhere leaves its old name.
        *known = Known { height, key: Some(key), sent_ms, seen_ms: now, not_before: known.not_before };
        for (_, other) in self.peers.iter_mut().filter(|(name, k)| **name != peer && k.key == Some(key)) {
            other.key = None;
        }
        true
    }

    /// What a connection says of its height without a signature: a hint whom to ask.
    pub fn hint(&mut self, now: Millis, peer: Peer, height: u64) {
        if self.make_room(&peer) {
            let known = self.peers.entry(peer).or_default();
            known.height = height;
            known.seen_ms = now;
        }
    }

    /// A verified message shows the peer to have reached at least this height.
    pub fn hint_at_least(&mut self, now: Millis, peer: Peer, height: u64) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.height = known.height.max(height);
            known.seen_ms = now;
        }
    }

    fn make_room(&mut self, peer: &Peer) -> bool {
        if self.peers.len() < MAX_PEERS || self.peers.contains_key(peer) {
            return true;
        }
        // Strangers make room first, then who was silent longest.
        let oldest = self.peers.iter().min_by_key(|(_, k)| (k.key.is_some(), k.seen_ms)).map(|(p, _)| *p);
        oldest.is_some_and(|p| self.peers.remove(&p).is_some())
    }

    /// A connection is gone.
    pub fn gone(&mut self, peer: &Peer) {
        self.peers.remove(peer);
        if self.asked.is_some_and(|a| a.peer == *peer) {
            self.asked = None;
        }
    }

    /// The connection of a consensus key.
    pub fn peer_of(&self, key: &ConsensusKey) -> Option<Peer> {
        self.peers.iter().find(|(_, k)| k.key.as_ref() == Some(key)).map(|(p, _)| *p)
    }

    /// All connections, those with the highest head first.
    pub fn peers(&self) -> Vec<Peer> {
        let mut all: Vec<_> = self.peers.iter().map(|(p, k)| (std::cmp::Reverse(k.height), *p)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, p)| p).collect()
    }

    /// How many peers are known, and how many of them are below `height`.
    pub fn counts(&self, height: u64) -> (usize, usize) {
        (self.peers.len(), self.peers.values().filter(|k| k.height < height).count())
    }

    /// The highest height that validators with more than a third of the power say to have reached.
    pub fn credible(&self, power: impl Fn(&ConsensusKey) -> Option<u64>, total: u64) -> u64 {
        let mut claims: Vec<(u64, u64)> =
            self.peers.values().filter_map(|k| Some((k.height, power(k.key.as_ref()?)?))).collect();
        claims.sort_unstable_by(|a, b| b.cmp(a));
        let mut sum = 0u128;
        for (height, power) in claims {
            sum += u128::from(power);
            if sum * 3 > u128::from(total) {
                return height;
            }
        }
        0
    }

    /// The highest height that anybody says to have reached.
    pub fn highest(&self) -> u64 {
        self.peers.values().map(|k| k.height).max().unwrap_or(0)
    }

    /// The power of the validators heard at all.
    pub fn heard(&self, power: impl Fn(&ConsensusKey) -> Option<u64>) -> u128 {
        self.peers.values().filter_map(|k| power(k.key.as_ref()?)).map(u128::from).sum()
    }

    /// The range to ask for now, if any. `head` is the last height held (queued ones included).
    pub fn plan(&mut self, now: Millis, head: u64, next_id: u64) -> Option<Asked> {
        if let Some(asked) = self.asked.filter(|a| now >= a.deadline) {
            self.failed(now, &asked.peer);
        }
        if self.asked.is_some() || !self.queue.is_empty() {
            return None;
        }
        let best = self.peers.values().filter(|k| k.not_before <= now).map(|k| k.height).max().unwrap_or(0);
        if best <= head {
            self.behind_since = None;
            return None;
        }
        let since = *self.behind_since.get_or_insert(now);
        if best == head + 1 && now < since.saturating_add(ONE_BEHIND_MS) {
            return None;
        }
        // Among those who can help, whom we heard last: a random-looking but reproducible choice.
        let (peer, known) = self
            .peers
            .iter()
            .filter(|(_, k)| k.not_before <= now && k.height > head)
            .max_by_key(|(p, k)| (k.key.is_some(), k.height, k.seen_ms, **p))?;
        let count = u16::try_from(known.height - head).unwrap_or(u16::MAX).min(MAX_RANGE_BLOCKS);
        let asked =
            Asked { id: next_id, peer: *peer, from: head + 1, count, deadline: now.saturating_add(RANGE_TIMEOUT_MS) };
        self.asked = Some(asked);
        Some(asked)
    }

    /// Takes the request that an answer belongs to.
    pub fn take(&mut self, id: u64, from: &Peer) -> Option<Asked> {
        self.asked.take_if(|a| a.id == id && a.peer == *from)
    }

    /// A wrong or missing answer: the peer is left alone for a while and its claim forgotten.
    pub fn failed(&mut self, now: Millis, peer: &Peer) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.not_before = now.saturating_add(BACKOFF_MS);
        }
        if self.asked.is_some_and(|a| a.peer == *peer) {
            self.asked = None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn peer(n: u8) -> Peer {
        Peer([n; 32])
    }
    fn key(n: u8) -> ConsensusKey {
        ConsensusKey([n; 32])
    }

    #[test]
    fn claims_of_a_third_or_less_do_not_count() {
        let mut sync = Sync::default();
        sync.beacon(0, key(1), peer(1), 1_000, 1);
        let power = |k: &ConsensusKey| (k.0[0] <= 3).then_some(1);
        assert_eq!(sync.credible(power, 3), 0);
        sync.beacon(0, key(9), peer(9), 1_000, 1);
        assert_eq!(sync.credible(power, 3), 0, "a stranger's claim has no power");
        sync.beacon(0, key(2), peer(2), 7, 1);
        assert_eq!(sync.credible(power, 3), 7);
    }

    #[test]
    fn an_old_beacon_changes_nothing_and_a_key_speaks_for_one_connection() {
        let mut sync = Sync::default();
        assert!(sync.beacon(0, key(1), peer(1), 5, 10));
        assert!(!sync.beacon(0, key(1), peer(1), 4, 10));
        assert!(sync.beacon(0, key(1), peer(2), 6, 11));
        assert_eq!(sync.peer_of(&key(1)), Some(peer(2)));
    }

    #[test]
    fn one_request_at_a_time_and_a_liar_is_left_alone() {
        let mut sync = Sync::default();
        sync.beacon(0, key(1), peer(1), 50, 1);
        let asked = sync.plan(0, 3, 7).unwrap();
        assert_eq!((asked.peer, asked.from, asked.count), (peer(1), 4, 47));
        assert!(sync.plan(1, 3, 8).is_none());
        assert!(sync.take(7, &peer(2)).is_none(), "an answer counts from whom was asked");
        sync.failed(2, &peer(1));
        assert!(sync.plan(3, 3, 9).is_none());
        assert!(sync.plan(3 + BACKOFF_MS, 3, 10).is_some());
        assert!(sync.plan(3 + BACKOFF_MS + RANGE_TIMEOUT_MS, 3, 11).is_none(), "timed out, backing off");
    }

    #[test]
    fn the_peer_table_is_bounded_and_validators_stay() {
        let mut sync = Sync::default();
        sync.beacon(0, key(1), peer(0), 5, 1);
        for i in 0..2 * MAX_PEERS as u32 {
            let mut name = [7u8; 32];
            name[..4].copy_from_slice(&i.to_le_bytes());
            sync.hint(u64::from(i), Peer(name), 1);
        }
        assert_eq!(sync.peers.len(), MAX_PEERS);
        assert_eq!(sync.peer_of(&key(1)), Some(peer(0)));
    }
}
