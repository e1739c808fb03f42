//! The final weight vector: the u16 values exactly as the chain stores them.
//!
//! 1. Nobody earned: everything to the burn uid.
//! 2. No weight may exceed `max_weight_limit`/65535 of the sum. What is above is clipped and
//!    shared among the others in proportion, until nobody is above. If all earners are at the limit,
//!    the rest goes to the burn uid and then to the other given uids, lowest first, each up to the
//!    limit.
//! 3. Max-upscaling: v = round(w / max · 65535), halves upwards, so that the largest is 65535.
//! 4. Zeros are dropped. Rounding may have moved the largest a hair above the limit again: the
//!    others gain single units, lowest uid first, until it is not.
//! 5. Fewer than `min_allowed` entries: the lowest given uids without one get 1 each.
//!
//! The chain refuses what still breaks its limits because too few uids exist; it then keeps the
//! previous weights.

use std::collections::BTreeMap;

use perturb_types::Millionths;
use serde::{Deserialize, Serialize};

use crate::rules::Rules;
use crate::shares::{self, WHOLE, normalise};

/// The subnet's limits on a weight vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hyper {
    /// MinAllowedWeights: entries a vector must have.
    pub min_allowed: u16,
    /// MaxWeightsLimit: largest part of one weight, in 65535ths; 65535 for no limit.
    pub max_weight_limit: u16,
}

impl Default for Hyper {
    /// No limits.
    fn default() -> Self {
        Self { min_allowed: 1, max_weight_limit: u16::MAX }
    }
}

/// Weights by uid while they are worked on, in parts of [`WHOLE`].
type Weights = BTreeMap<u16, u64>;

/// The largest part of [`WHOLE`] one weight may have.
fn cap(limit: u16) -> u64 {
    (u128::from(WHOLE) * u128::from(limit) / u128::from(u16::MAX)) as u64
}

/// Clips to `cap` and shares what was above among those below; returns what found no place.
fn clip(weights: &mut Weights, cap: u64) -> u64 {
    // Each pass but the last clips at least one more entry.
    for _ in 0..=weights.len() {
        let mut excess = 0;
        for w in weights.values_mut().filter(|w| **w > cap) {
            excess += *w - cap;
            *w = cap;
        }
        let open: u64 = weights.values().filter(|w| **w < cap).sum();
        if excess == 0 || open == 0 {
            return excess;
        }
        let mut given = 0;
        for w in weights.values_mut().filter(|w| **w < cap) {
            let more = (u128::from(excess) * u128::from(*w) / u128::from(open)) as u64;
            *w += more;
            given += more;
        }
        // Units lost to division: to the first with room.
        let mut left = excess - given;
        for w in weights.values_mut() {
            let more = left.min(cap.saturating_sub(*w));
            *w += more;
            left -= more;
        }
    }
    0
}

/// Places `rest` on the burn uid, then on `uids`, each up to `cap`.
fn place(weights: &mut Weights, mut rest: u64, cap: u64, uids: &[u16], burn_uid: u16) {
    let mut others = uids.to_vec();
    others.sort_unstable();
    for uid in std::iter::once(burn_uid).chain(others) {
        if rest == 0 {
            return;
        }
        let w = weights.entry(uid).or_default();
        let more = rest.min(cap.saturating_sub(*w));
        *w += more;
        rest -= more;
    }
}

fn upscale(weights: &Weights) -> BTreeMap<u16, u16> {
    let max = u128::from(weights.values().copied().max().unwrap_or(0).max(1));
    let full = u128::from(u16::MAX);
    let value = |w: u64| ((2 * u128::from(w) * full + max) / (2 * max)) as u16;
    weights.iter().map(|(uid, w)| (*uid, value(*w))).filter(|(_, v)| *v > 0).collect()
}

/// What the sum lacks for the largest value, 65535, to keep within the limit: 65535/sum ≤ limit/65535.
fn missing_to_limit(vector: &BTreeMap<u16, u16>, limit: u16) -> u64 {
    let sum: u64 = vector.values().map(|v| u64::from(*v)).sum();
    let full = u64::from(u16::MAX);
    (full * full).div_ceil(u64::from(limit.max(1))).saturating_sub(sum)
}

/// Gives back what rounding took: at most a unit or two per entry, else the limit cannot be met.
fn settle(vector: &mut BTreeMap<u16, u16>, limit: u16) {
    let mut missing = missing_to_limit(vector, limit);
    if missing > 2 * vector.len() as u64 {
        return;
    }
    for _ in 0..2 {
        for v in vector.values_mut().filter(|v| **v < u16::MAX) {
            if missing == 0 {
                return;
            }
            *v += 1;
            missing -= 1;
        }
    }
}

/// The vector of (uid, weight) that is agreed and submitted, sorted by uid; the largest weight is
/// 65535. `shares` and `uids` go together; shares are parts of [`WHOLE`], uids whose share is 0 may be
/// used to meet the limits. Surplus elements of the longer slice are ignored.
#[must_use]
pub fn final_vector(shares: &[u64], uids: &[u16], hyper: &Hyper, burn_uid: u16) -> Vec<(u16, u16)> {
    let mut given = Weights::new();
    for (uid, share) in uids.iter().zip(shares).filter(|(_, s)| **s > 0) {
        let w = given.entry(*uid).or_default();
        *w = w.saturating_add(*share);
    }
    if given.is_empty() {
        given.insert(burn_uid, WHOLE);
    }
    let points: Vec<u128> = given.values().map(|w| u128::from(*w)).collect();
    let mut weights: Weights = given.keys().copied().zip(normalise(&points)).collect();

    let limit = hyper.max_weight_limit.max(1);
    if limit < u16::MAX {
        let cap = cap(limit).max(1);
        let rest = clip(&mut weights, cap);
        place(&mut weights, rest, cap, uids, burn_uid);
    }
    let mut vector = upscale(&weights);
    settle(&mut vector, limit);

    let mut fill = uids.to_vec();
    fill.sort_unstable();
    for uid in fill.into_iter().chain([burn_uid]) {
        if vector.len() >= usize::from(hyper.min_allowed) {
            break;
        }
        vector.entry(uid).or_insert(1);
    }
    vector.into_iter().collect()
}

/// From the eligible miners' aggregates to the final vector: [`shares::shares`], burning, and
/// [`final_vector`]. `scores` are (uid, aggregate); miners that may only serve to meet the limits
/// come with an aggregate of 0.
#[must_use]
pub fn weights(rules: &Rules, scores: &[(u16, Millionths)], hyper: &Hyper, burn_uid: u16) -> Vec<(u16, u16)> {
    let mut parts = shares::shares(rules, scores);
    let mut uids: Vec<u16> = scores.iter().map(|s| s.0).collect();
    let burned = shares::burn(&mut parts, rules.burn);
    if burned > 0 {
        parts.push(burned);
        uids.push(burn_uid);
    }
    final_vector(&parts, &uids, hyper, burn_uid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const PERCENT: u64 = WHOLE / 100;

    fn limits(min_allowed: u16, max_weight_limit: u16) -> Hyper {
        Hyper { min_allowed, max_weight_limit }
    }

    fn within(vector: &[(u16, u16)], limit: u16) -> bool {
        let sum: u64 = vector.iter().map(|(_, v)| u64::from(*v)).sum();
        let max = vector.iter().map(|(_, v)| u64::from(*v)).max().unwrap_or(0);
        max * 65_535 <= sum * u64::from(limit)
    }

    #[test]
    fn nobody_eligible_burns_everything() {
        assert_eq!(final_vector(&[], &[], &Hyper::default(), 0), vec![(0, 65_535)]);
        assert_eq!(final_vector(&[0, 0], &[4, 5], &Hyper::default(), 9), vec![(9, 65_535)]);
        assert_eq!(weights(&Rules::subnet(), &[(3, Millionths(0))], &Hyper::default(), 7), vec![(7, 65_535)]);
    }

    #[test]
    fn the_top_five_by_hand() {
        let shares = [PERCENT / 2, 70 * PERCENT, 25 * PERCENT, 3 * PERCENT, 15 * PERCENT / 10, 0];
        let got = final_vector(&shares, &[9, 1, 2, 3, 4, 5], &Hyper::default(), 0);
        // 65535·25/70 = 23405.36, ·3/70 = 2808.64, ·1.5/70 = 1404.32, ·0.5/70 = 468.11.
        assert_eq!(got, vec![(1, 65_535), (2, 23_405), (3, 2_809), (4, 1_404), (9, 468)]);
    }

    #[test]
    fn vanishing_shares_are_dropped() {
        let got = final_vector(&[WHOLE - 1000, 1000], &[1, 2], &Hyper::default(), 0);
        assert_eq!(got, vec![(1, 65_535)]);
        // Unless the subnet wants more entries.
        assert_eq!(final_vector(&[WHOLE - 1000, 1000], &[1, 2], &limits(2, 65_535), 0), vec![(1, 65_535), (2, 1)]);
    }

    #[test]
    fn the_excess_over_the_limit_is_shared() {
        // Limit 40 %: 70 → 40; 30 % more for 20 and 10 → 40 and 20.
        let limit = 26_214;
        let got = final_vector(&[70 * PERCENT, 20 * PERCENT, 10 * PERCENT], &[1, 2, 3], &limits(1, limit), 0);
        assert!(within(&got, limit), "{got:?}");
        assert_eq!(got.iter().map(|g| g.0).collect::<Vec<_>>(), vec![1, 2, 3]);
        assert_eq!((got[0].1, got[1].1), (65_535, 65_535));
        assert!(got[2].1.abs_diff(32_769) <= 2, "{got:?}");
    }

    #[test]
    fn what_no_earner_may_take_is_burned_then_spread() {
        // Limit one half, a single earner: the burn uid takes the other half.
        let half = 32_768;
        // 32768 of 65535 is a little over one half, so a little less is left.
        assert_eq!(final_vector(&[WHOLE], &[5], &limits(1, half), 0), vec![(0, 65_534), (5, 65_535)]);
        // Limit a quarter: burn uid and the two lowest idle uids help out.
        let got = final_vector(&[WHOLE, 0, 0, 0], &[5, 8, 7, 9], &limits(1, 16_384), 0);
        assert_eq!(got.iter().map(|g| g.0).collect::<Vec<_>>(), vec![0, 5, 7, 8]);
        assert!(within(&got, 16_384));
    }

    #[test]
    fn the_burn_rate_goes_to_the_burn_uid() {
        let rules = Rules { burn: 500_000, ..Rules::subnet() };
        assert_eq!(weights(&rules, &[(3, Millionths(9))], &Hyper::default(), 0), vec![(0, 65_535), (3, 65_535)]);
    }

    proptest! {
        #[test]
        fn the_vector_is_what_the_chain_accepts(
            shares in prop::collection::vec(0u64..=WHOLE, 1..80),
            min_allowed in 0u16..40, limit in 1u16..=u16::MAX, burn_uid in 0u16..100,
        ) {
            let uids: Vec<u16> = (0..shares.len() as u16).rev().collect();
            let got = final_vector(&shares, &uids, &limits(min_allowed, limit), burn_uid);
            prop_assert_eq!(got.iter().map(|g| g.1).max(), Some(65_535));
            prop_assert!(got.windows(2).all(|w| w[0].0 < w[1].0), "sorted, no uid twice");
            prop_assert!(got.iter().all(|g| g.1 > 0));
            let mut known = uids.clone();
            if !known.contains(&burn_uid) {
                known.push(burn_uid);
            }
            prop_assert!(got.iter().all(|g| known.contains(&g.0)));
            prop_assert!(got.len() >= known.len().min(usize::from(min_allowed)));
            if known.len() as u64 * u64::from(limit) >= 65_535 {
                prop_assert!(within(&got, limit), "{:?}", got);
            }
        }

        #[test]
        fn without_limits_the_order_of_shares_is_kept(shares in prop::collection::vec(1u64..=WHOLE, 1..50)) {
            let uids: Vec<u16> = (0..shares.len() as u16).collect();
            let got: BTreeMap<u16, u16> = final_vector(&shares, &uids, &Hyper::default(), 0).into_iter().collect();
            for (i, a) in shares.iter().enumerate() {
                for (j, b) in shares.iter().enumerate() {
                    if a >= b {
                        let value = |k: usize| got.get(&(k as u16)).copied().unwrap_or(0);
                        prop_assert!(value(i) >= value(j));
                    }
                }
            }
        }
    }
}
