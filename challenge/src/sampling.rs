//! Which miners a round asks: a seeded draw.
//!
//! All candidates are put into an order that follows from the seed and each hotkey alone (SHA-256),
//! so it does not matter in which order they are listed. Going down that order, a miner is taken
//! unless its coldkey is in the round already. A part of the places is for
//! newcomers (miners that have not been in enough rounds to earn); what they do not fill goes to
//! the others and the other way round. This does not stop somebody with many coldkeys.

use std::collections::BTreeSet;

use perturb_types::{Hotkey, limits};
use sha2::{Digest as _, Sha256};

use crate::rules::{MILLION, Rules};

/// A miner that could be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its uid at the snapshot.
    pub uid: u16,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its coldkey.
    pub coldkey: [u8; 32],
    /// Answers of it that were counted.
    pub processed: u64,
}

fn place_in_order(seed: &[u8; 32], hotkey: &Hotkey) -> [u8; 32] {
    Sha256::new().chain_update(b"perturb/sampling/1").chain_update(seed).chain_update(hotkey.0).finalize().into()
}

/// What a round has taken already.
#[derive(Default)]
struct Taken {
    hotkeys: BTreeSet<Hotkey>,
    coldkeys: BTreeSet<[u8; 32]>,
    picked: Vec<usize>,
}

impl Taken {
    fn try_take(&mut self, index: usize, c: &Candidate) {
        if !self.hotkeys.contains(&c.hotkey) && !self.coldkeys.contains(&c.coldkey) {
            self.hotkeys.insert(c.hotkey);
            self.coldkeys.insert(c.coldkey);
            self.picked.push(index);
        }
    }

    fn fill(&mut self, places: usize, order: &[usize], candidates: &[Candidate], wanted: impl Fn(&Candidate) -> bool) {
        for &i in order {
            if self.picked.len() >= places {
                return;
            }
            if wanted(&candidates[i]) {
                self.try_take(i, &candidates[i]);
            }
        }
    }
}

/// Indices into `candidates` of the miners that the round of `seed` asks, rising: at most `places`, and
/// never more than a round may have.
#[must_use]
pub fn sample(rules: &Rules, seed: &[u8; 32], candidates: &[Candidate], places: usize) -> Vec<usize> {
    let places = places.min(limits::MAX_ROUND_MINERS);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_cached_key(|&i| (place_in_order(seed, &candidates[i].hotkey), candidates[i].uid));
    let newcomer = |c: &Candidate| c.processed < u64::from(rules.min_processed);
    let reserved = (places as u64 * u64::from(rules.newcomer_part)).div_ceil(u64::from(MILLION)) as usize;

    let mut taken = Taken::default();
    taken.fill(reserved, &order, candidates, newcomer);
    // Places that no newcomer fills are open to all; established miners come first for the rest.
    taken.fill(places, &order, candidates, |c| !newcomer(c));
    taken.fill(places, &order, candidates, newcomer);

    taken.picked.sort_unstable();
    taken.picked
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn candidate(uid: u16, coldkey: u8, processed: u64) -> Candidate {
        let mut hotkey = [0; 32];
        hotkey[..2].copy_from_slice(&uid.to_le_bytes());
        Candidate { uid, hotkey: Hotkey(hotkey), coldkey: [coldkey; 32], processed }
    }

    #[test]
    fn a_fifth_of_the_places_is_for_newcomers() {
        let all: Vec<_> = (0..40).map(|i| candidate(i, i as u8, if i < 20 { 0 } else { 99 })).collect();
        let picked = sample(&Rules::subnet(), &[1; 32], &all, 10);
        assert_eq!(picked.len(), 10);
        assert_eq!(picked.iter().filter(|&&i| i < 20).count(), 2);
        // Unused places go over, both ways.
        assert_eq!(sample(&Rules::subnet(), &[1; 32], &all[..20], 10).len(), 10);
        assert_eq!(sample(&Rules::subnet(), &[1; 32], &all[20..], 10).len(), 10);
    }

    #[test]
    fn one_uid_per_coldkey() {
        let all = [candidate(0, 1, 99), candidate(1, 1, 99), candidate(2, 2, 99), candidate(3, 2, 0)];
        assert_eq!(sample(&Rules::subnet(), &[3; 32], &all, 10).len(), 2);
    }

    #[test]
    fn another_seed_draws_others() {
        let all: Vec<_> = (0..100).map(|i| candidate(i, i as u8, 99)).collect();
        let draw = |s| sample(&Rules::subnet(), &[s; 32], &all, 10);
        assert_ne!(draw(1), draw(2));
        let mut seen: Vec<usize> = (0..100).flat_map(draw).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 100, "everybody is drawn at some time");
    }

    proptest! {
        #[test]
        fn the_draw_is_deterministic_fair_and_bounded(
            seed: [u8; 32],
            raw in prop::collection::vec((0u8..12, 0u64..100), 0..60),
            places in 0usize..300,
        ) {
            let all: Vec<_> =
                raw.iter().enumerate().map(|(i, (c, p))| candidate(i as u16, *c, *p)).collect();
            let rules = Rules::subnet();
            let picked = sample(&rules, &seed, &all, places);
            prop_assert!(picked.len() <= places.min(256));
            let mut reversed = all.clone();
            reversed.reverse();
            let mut other: Vec<u16> =
                sample(&rules, &seed, &reversed, places).iter().map(|&i| reversed[i].uid).collect();
            other.reverse();
            prop_assert_eq!(picked.iter().map(|&i| all[i].uid).collect::<Vec<_>>(), other);
            for (n, &i) in picked.iter().enumerate() {
                for &j in &picked[..n] {
                    prop_assert!(all[i].coldkey != all[j].coldkey);
                }
            }
            // Nobody who would still have fitted is left out of a round with free places.
            if picked.len() < places.min(256) {
                for (i, c) in all.iter().enumerate().filter(|(i, _)| !picked.contains(i)) {
                    let clash = picked.iter().any(|&j| all[j].coldkey == c.coldkey);
                    prop_assert!(clash, "{} was left out", i);
                }
            }
        }
    }
}
