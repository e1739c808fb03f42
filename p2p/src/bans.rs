//! Failures and bans: [`Policy::failures`] failures of one identity within [`Policy::window`] ban
//! it for [`Policy::ban`].
//!
//! Which identity a failure is counted against: the hotkey once it is proved; before that the peer
//! id (which the transport has proved, but which costs nothing to make) and the IP address. A
//! claimed hotkey is never blamed for a bad signature, or anybody could ban anybody. Only the one
//! who dialled can fail an attempt; the one who was dialled is blamed for forgeries alone.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use perturb_types::Hotkey;

/// Who is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A proved hotkey.
    Hotkey(Hotkey),
    /// A peer id.
    Peer(PeerId),
    /// An IP address (IPv6: its /64).
    Ip(IpAddr),
}

/// A ban that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// When it ends.
    pub until: Instant,
    /// Why, for people.
    pub reason: String,
}

/// When failures become a ban.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Failures that ban.
    pub failures: usize,
    /// Older failures no longer count.
    pub window: Duration,
    /// How long a ban lasts.
    pub ban: Duration,
    /// Identities remembered in each of the two tables.
    pub tracked: usize,
}

/// The two tables. Time is given by the caller.
#[derive(Debug)]
pub struct Bans {
    policy: Policy,
    failures: HashMap<Subject, VecDeque<Instant>>,
    bans: HashMap<Subject, Ban>,
    /// Bans that made room for newer ones, until [`Bans::expire`] reports them.
    evicted: Vec<Subject>,
}

fn make_room<K: Copy + Eq + Hash, V>(
    map: &mut HashMap<K, V>,
    limit: usize,
    age: impl Fn(&V) -> Option<Instant>,
) -> Option<K> {
    if map.len() < limit {
        return None;
    }
    let oldest = map.iter().min_by_key(|(_, v)| age(v)).map(|(k, _)| *k)?;
    map.remove(&oldest);
    Some(oldest)
}

impl Bans {
    /// No failures, no bans.
    pub fn new(policy: Policy) -> Self {
        Self { policy, failures: HashMap::new(), bans: HashMap::new(), evicted: Vec::new() }
    }

    /// Counts a failed attempt; the ban, if this one brought it about.
    pub fn fail(&mut self, subject: Subject, reason: &str, now: Instant) -> Option<Ban> {
        if self.remaining(&subject, now).is_some() {
            return None;
        }
        if !self.failures.contains_key(&subject) {
            make_room(&mut self.failures, self.policy.tracked, |v| v.back().copied());
        }
        let times = self.failures.entry(subject).or_default();
        times.retain(|t| now.saturating_duration_since(*t) < self.policy.window);
        times.push_back(now);
        if times.len() < self.policy.failures {
            return None;
        }
        let reason = format!("{} failed attempts, the last: {reason}", times.len());
        Some(self.ban(subject, self.policy.ban, reason, now))
    }

    /// Bans at once. A ban is never shortened by another.
    pub fn ban(&mut self, subject: Subject, duration: Duration, reason: String, now: Instant) -> Ban {
        self.failures.remove(&subject);
        let until = now.checked_add(duration).unwrap_or(now + self.policy.ban);
        if !self.bans.contains_key(&subject) {
            let evicted = make_room(&mut self.bans, self.policy.tracked, |b| Some(b.until));
            self.evicted.extend(evicted);
        }
        let ban = self.bans.entry(subject).or_insert_with(|| Ban { until, reason: reason.clone() });
        if until > ban.until {
            *ban = Ban { until, reason };
        }
        ban.clone()
    }

    /// The ban in force and the time it has left.
    pub fn remaining(&self, subject: &Subject, now: Instant) -> Option<(Duration, &Ban)> {
        let ban = self.bans.get(subject)?;
        let left = ban.until.saturating_duration_since(now);
        (!left.is_zero()).then_some((left, ban))
    }

    /// Forgets earlier failures: the identity has proved itself.
    pub fn forgive(&mut self, subject: &Subject) {
        self.failures.remove(subject);
    }

    /// Forgets what is over; the identities whose ban has ended, or made room for a newer one.
    pub fn expire(&mut self, now: Instant) -> Vec<Subject> {
        let window = self.policy.window;
        self.failures.retain(|_, times| times.back().is_some_and(|t| now.saturating_duration_since(*t) < window));
        let mut over: Vec<Subject> = self.bans.iter().filter(|(_, b)| b.until <= now).map(|(s, _)| *s).collect();
        for subject in &over {
            self.bans.remove(subject);
        }
        // Banned again since: still in force.
        over.extend(self.evicted.drain(..).filter(|s| !self.bans.contains_key(s)));
        over
    }

    /// Bans in force or not yet expired.
    pub fn len(&self) -> usize {
        self.bans.len()
    }

    /// Whether nobody is banned.
    pub fn is_empty(&self) -> bool {
        self.bans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const POLICY: Policy =
        Policy { failures: 10, window: Duration::from_secs(600), ban: Duration::from_secs(3600), tracked: 3 };
    const A: Subject = Subject::Hotkey(Hotkey([1; 32]));
    const B: Subject = Subject::Ip(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_tenth_failure_within_the_window_bans_for_an_hour() {
        let (mut bans, t) = (Bans::new(POLICY), Instant::now());
        for i in 0..9 {
            assert_eq!(bans.fail(A, "no", t + s(i)), None);
        }
        assert_eq!(bans.remaining(&A, t + s(9)), None);
        let ban = bans.fail(A, "no", t + s(9)).unwrap();
        assert_eq!(ban.until, t + s(9 + 3600));
        assert_eq!(bans.remaining(&A, t + s(3608)).unwrap().0, s(1));
        assert_eq!(bans.remaining(&A, t + s(3609)), None);
        assert_eq!(bans.remaining(&B, t + s(10)), None, "others are untouched");
        assert_eq!(bans.expire(t + s(3608)), vec![]);
        assert_eq!(bans.expire(t + s(3609)), vec![A]);
        assert!(bans.is_empty());
    }

    #[test]
    fn failures_outside_the_window_or_before_a_success_do_not_count() {
        let (mut bans, t) = (Bans::new(POLICY), Instant::now());
        for i in 0..100 {
            assert_eq!(bans.fail(A, "slow", t + s(i * 67)), None, "nine in any ten minutes");
        }
        for _ in 0..9 {
            assert_eq!(bans.fail(B, "no", t), None);
        }
        bans.forgive(&B);
        assert_eq!(bans.fail(B, "no", t), None);
    }

    #[test]
    fn a_ban_is_never_shortened_and_may_be_lengthened() {
        let (mut bans, t) = (Bans::new(POLICY), Instant::now());
        bans.ban(A, s(100), "first".into(), t);
        assert_eq!(bans.ban(A, s(10), "second".into(), t).reason, "first");
        assert_eq!(bans.ban(A, s(1000), "third".into(), t).until, t + s(1000));
        assert!(bans.ban(A, Duration::MAX, "absurd".into(), t).until > t);
    }

    #[test]
    fn the_tables_stay_bounded() {
        let (mut bans, t) = (Bans::new(POLICY), Instant::now());
        for i in 0..100u8 {
            bans.fail(Subject::Hotkey(Hotkey([i; 32])), "no", t + s(u64::from(i)));
            bans.ban(Subject::Hotkey(Hotkey([i; 32])), s(3600), "no".into(), t + s(u64::from(i)));
        }
        assert_eq!(bans.len(), 3);
        assert_eq!(bans.expire(t).len(), 97, "those that made room are reported, to be unblocked");
        assert!(bans.failures.len() <= 3);
        assert!(bans.remaining(&Subject::Hotkey(Hotkey([99; 32])), t + s(100)).is_some(), "the newest stay");
    }
}
