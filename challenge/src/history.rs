//! A miner's last scores from one validator, and what follows from them.
//!
//! Every round a miner was sampled in pushes one score; an absent miner pushes a zero. Under rules
//! that say so, a round that nobody solved pushes nothing to anybody. A miner is its hotkey: a uid
//! that got a new hotkey is a new miner and starts with an empty history (keep histories by
//! hotkey, or ask [`Slot`]).

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::{Entry, Hotkey, Millionths, Reason};
use serde::{Deserialize, Serialize};

use crate::rules::{MILLION, Rules};

/// The last N scores and the number of rounds ever counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct RingHistory {
    /// Rounds counted so far.
    pub processed: u64,
    /// The last scores in millionths, oldest first; at most N.
    pub scores: Vec<u32>,
}

impl RingHistory {
    /// Counts one round; `history_len` is N. A score above the whole counts as the whole.
    pub fn push(&mut self, score: Millionths, history_len: u32) {
        let keep = history_len.max(1) as usize;
        if self.scores.len() >= keep {
            self.scores.drain(..=self.scores.len() - keep);
        }
        self.scores.push(score.0.min(MILLION));
        self.processed = self.processed.saturating_add(1);
    }

    /// Whether it holds all N scores.
    #[must_use]
    pub fn is_full(&self, rules: &Rules) -> bool {
        self.scores.len() >= rules.history_len as usize
    }

    /// Whether the miner can earn: enough rounds and a full history.
    #[must_use]
    pub fn eligible(&self, rules: &Rules) -> bool {
        self.processed >= u64::from(rules.min_processed) && self.is_full(rules)
    }

    /// The mean of what it holds, rounded to the nearest millionth, halves upwards; 0 when empty.
    #[must_use]
    pub fn mean(&self) -> Millionths {
        let n = self.scores.len() as u64;
        if n == 0 {
            return Millionths::ZERO;
        }
        let sum: u64 = self.scores.iter().map(|s| u64::from(*s)).sum();
        Millionths(u32::try_from((sum + n / 2) / n).unwrap_or(MILLION))
    }
}

/// A uid's history with the hotkey it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Slot {
    /// The miner.
    pub hotkey: Hotkey,
    /// Its history.
    pub history: RingHistory,
}

impl Slot {
    /// An empty history.
    #[must_use]
    pub fn new(hotkey: Hotkey) -> Self {
        Self { hotkey, history: RingHistory::default() }
    }

    /// Counts one round of whoever holds the uid now: another hotkey starts anew.
    pub fn push(&mut self, hotkey: Hotkey, score: Millionths, history_len: u32) {
        if hotkey != self.hotkey {
            *self = Self::new(hotkey);
        }
        self.history.push(score, history_len);
    }
}

/// Whether a closed round counts: under `skip_unsolved` somebody must have succeeded.
#[must_use]
pub fn counts(rules: &Rules, entries: &[Entry]) -> bool {
    !entries.is_empty() && (!rules.skip_unsolved || entries.iter().any(|e| e.reason == Reason::Success))
}

/// What a closed round pushes: every sampled miner's score, or nothing.
pub fn pushes<'a>(rules: &Rules, entries: &'a [Entry]) -> impl Iterator<Item = (Hotkey, Millionths)> + use<'a> {
    let counted = if counts(rules, entries) { entries } else { &[] };
    counted.iter().map(|e| (e.miner, e.score))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_types::Measurement;
    use perturb_types::round::Meaning;
    use proptest::prelude::*;

    fn entry(miner: u8, reason: Reason, score: u32) -> Entry {
        Entry {
            miner: Hotkey([miner; 32]),
            answer: None,
            measurement: Measurement::default(),
            predicted: 0,
            margin: 0,
            meaning: Meaning::NotAsked,
            time_ms: 0,
            reason,
            score: Millionths(score),
        }
    }

    #[test]
    fn a_history_keeps_the_last_scores_and_counts_all() {
        let mut h = RingHistory::default();
        for s in [1, 2, 3, 4, 5] {
            h.push(Millionths(s), 3);
        }
        assert_eq!((h.processed, h.scores.clone(), h.mean()), (5, vec![3, 4, 5], Millionths(4)));
        h.push(Millionths(u32::MAX), 2);
        assert_eq!(h.scores, vec![5, MILLION]);
    }

    #[test]
    fn eligibility_follows_the_presets() {
        let full = |n: usize, processed| RingHistory { processed, scores: vec![1; n] };
        let subnet = Rules::subnet();
        assert!(full(50, 50).eligible(&subnet));
        assert!(!full(49, 50).eligible(&subnet));
        assert!(!full(49, 49).eligible(&subnet));
        let paper = Rules::whitepaper();
        assert!(!full(100, 100).eligible(&paper));
        assert!(full(100, 101).eligible(&paper));
        let local = Rules::subnet().with_history_len(10);
        assert!(full(10, 10).eligible(&local));
        assert!(!full(9, 10).eligible(&local));
        assert_eq!(Rules::whitepaper().with_history_len(10).min_processed, 11);
    }

    #[test]
    fn an_unsolved_round_is_skipped_by_the_subnet_only() {
        let unsolved = [entry(1, Reason::ResponseMissing, 0), entry(2, Reason::Timeout, 0)];
        assert_eq!(pushes(&Rules::subnet(), &unsolved).count(), 0);
        assert_eq!(pushes(&Rules::whitepaper(), &unsolved).count(), 2);
        let solved = [entry(1, Reason::ResponseMissing, 0), entry(2, Reason::Success, 900_000)];
        let pushed: Vec<_> = pushes(&Rules::subnet(), &solved).collect();
        assert_eq!(pushed, vec![(Hotkey([1; 32]), Millionths(0)), (Hotkey([2; 32]), Millionths(900_000))]);
    }

    #[test]
    fn a_changed_hotkey_starts_anew() {
        let mut slot = Slot::new(Hotkey([1; 32]));
        slot.push(Hotkey([1; 32]), Millionths(7), 10);
        slot.push(Hotkey([1; 32]), Millionths(8), 10);
        slot.push(Hotkey([2; 32]), Millionths(9), 10);
        assert_eq!((slot.hotkey, slot.history.processed, slot.history.scores), (Hotkey([2; 32]), 1, vec![9]));
    }

    proptest! {
        #[test]
        fn the_mean_lies_within_the_scores(scores in prop::collection::vec(0u32..=MILLION, 1..40), n in 1u32..20) {
            let mut h = RingHistory::default();
            scores.iter().for_each(|s| h.push(Millionths(*s), n));
            prop_assert_eq!(h.processed, scores.len() as u64);
            prop_assert!(h.scores.len() <= n as usize);
            prop_assert_eq!(&h.scores[..], &scores[scores.len() - h.scores.len()..]);
            let (low, high) = (*h.scores.iter().min().unwrap(), *h.scores.iter().max().unwrap());
            prop_assert!((low..=high).contains(&h.mean().0));
        }
    }
}
