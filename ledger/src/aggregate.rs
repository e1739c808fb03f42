//! From the validators' means of a miner to one score.
//!
//! **The third is the set's third.** The total is the sum of power times standing over *every* member
//! of the epoch's set, whether it contributes or not. Contributors must hold more than two thirds of
//! it; otherwise, or where the total is nothing, there is no aggregate.
//!
//! `quantile` (default): with the contributions sorted by value, `lo` is the value at which their
//! weights, summed from the bottom, first reach a third of the total, `hi` the same from the top. Who
//! does not contribute adds to neither end. A contribution further outside than max(3·MAD, 0.05) is
//! rejected; the rest are clamped to [lo, hi] and averaged by weight.
//!
//! *Why it holds.* Let liars hold less than a third of the total. A third summed from one end includes
//! an honest contribution, so `lo` is not below and `hi` not above all honest ones. Below `lo` lies less
//! than a third, so at `lo` or above more than a third contributes, an honest one among it: `lo` is
//! not above all honest ones, and likewise `hi` not below. Contributions strictly below `lo` and strictly
//! above `hi` hold less than two thirds, so `lo ≤ hi`. Counting absentees to both ends instead would
//! let 33 liars of 100 move .60 and .61 to .307 or .80 when 67 contribute; counting contributors
//! alone, to .654.
//!
//! `zscore{b}`: contributions beyond b standard deviations of the weighted mean are rejected, the
//! rest averaged by weight. The same two thirds must contribute, and nothing else holds against liars.
//!
//! Who is rejected is shown ([`crate::outliers`]) and loses no standing: a miner decides what its
//! answers are worth to whom.
//!
//! Confidence is exp(−σ/0.1) with σ the weighted standard deviation of what was kept. Means and
//! quantiles are integers (millionths, rounded half up); σ is an integer square root; only the
//! exponential is a float, by `libm`.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::{Hotkey, Millionths};

use crate::genesis::Aggregation;

/// Contributions this close to the quantiles are never rejected: 0.05.
const FLOOR: u64 = 50_000;

/// One validator's mean of a miner.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Contribution {
    /// The validator.
    pub validator: Hotkey,
    /// Its voting power, times its standing in millionths where the rule weighs.
    pub weight: u64,
    /// Its mean.
    pub mean: Millionths,
}

/// What the contributions come to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Aggregate {
    /// The score.
    pub score: Millionths,
    /// σ of what was kept.
    pub spread: Millionths,
    /// exp(−σ/0.1).
    pub confidence: Millionths,
    /// Validators whose contribution was rejected.
    pub rejected: Vec<Hotkey>,
}

/// The value at which weights, summed in the order given, first reach a third of the total.
fn third<'v>(values: impl Iterator<Item = &'v (u64, u64)>, total: u128) -> Option<u64> {
    let mut sum = 0u128;
    for (value, weight) in values {
        sum += u128::from(*weight);
        if sum * 3 >= total {
            return Some(*value);
        }
    }
    None
}

/// The smallest value whose cumulative weight reaches half.
fn median(sorted: &[(u64, u64)]) -> u64 {
    let total: u128 = sorted.iter().map(|(_, w)| u128::from(*w)).sum();
    let mut sum = 0u128;
    for (value, weight) in sorted {
        sum += u128::from(*weight);
        if sum * 2 >= total {
            return *value;
        }
    }
    sorted.last().map_or(0, |(v, _)| *v)
}

fn mean(values: &[(u64, u64)]) -> u64 {
    let total: u128 = values.iter().map(|(_, w)| u128::from(*w)).sum();
    if total == 0 {
        return 0;
    }
    let sum: u128 = values.iter().map(|(v, w)| u128::from(*v) * u128::from(*w)).sum();
    ((sum + total / 2) / total) as u64
}

fn deviation(values: &[(u64, u64)]) -> u64 {
    let total: u128 = values.iter().map(|(_, w)| u128::from(*w)).sum();
    if total == 0 {
        return 0;
    }
    let m = mean(values);
    let squares: u128 = values.iter().map(|(v, w)| u128::from(v.abs_diff(m)).pow(2) * u128::from(*w)).sum();
    (squares / total).isqrt() as u64
}

fn confidence(spread: u64) -> Millionths {
    let c = libm::exp(-(spread as f64) / 100_000.0);
    Millionths((c * 1e6 + 0.5).floor() as u32)
}

/// Combines contributions to a miner; `total` is the weight of the whole set. `None` where the
/// contributors do not hold more than two thirds of it.
pub fn aggregate(rule: Aggregation, total: u128, contributions: &[Contribution]) -> Option<Aggregate> {
    let contributed: u128 = contributions.iter().map(|c| u128::from(c.weight)).sum();
    if contributed * 3 <= total * 2 {
        return None;
    }
    let mut sorted: Vec<(u64, u64)> = contributions.iter().map(|c| (u64::from(c.mean.0), c.weight)).collect();
    sorted.sort_unstable();
    let (low, high, bounds) = match rule {
        Aggregation::Quantile => {
            let (lo, hi) = (third(sorted.iter(), total)?, third(sorted.iter().rev(), total)?);
            let middle = median(&sorted);
            let mut distances: Vec<(u64, u64)> = sorted.iter().map(|(v, w)| (v.abs_diff(middle), *w)).collect();
            distances.sort_unstable();
            let reach = (3 * median(&distances)).max(FLOOR);
            (lo.saturating_sub(reach), hi.saturating_add(reach), Some((lo, hi)))
        }
        Aggregation::Zscore { bound } => {
            let (m, s) = (mean(&sorted), deviation(&sorted));
            let reach = (u128::from(s) * u128::from(bound) / 1_000_000) as u64;
            (m.saturating_sub(reach), m.saturating_add(reach), None)
        }
    };
    let inside = |v: u64| (low..=high).contains(&v);
    let clamp = |v: u64| bounds.map_or(v, |(lo, hi)| v.clamp(lo, hi));
    let kept: Vec<(u64, u64)> = sorted.iter().filter(|(v, _)| inside(*v)).copied().collect();
    let clamped: Vec<(u64, u64)> = kept.iter().map(|(v, w)| (clamp(*v), *w)).collect();
    let mut rejected: Vec<Hotkey> =
        contributions.iter().filter(|c| !inside(u64::from(c.mean.0))).map(|c| c.validator).collect();
    rejected.sort_unstable();
    let spread = deviation(&kept);
    Some(Aggregate {
        score: Millionths(mean(&clamped) as u32),
        spread: Millionths(spread as u32),
        confidence: confidence(spread),
        rejected,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn c(i: u8, weight: u64, mean: u32) -> Contribution {
        Contribution { validator: Hotkey([i; 32]), weight, mean: Millionths(mean) }
    }

    /// All of whom there are contribute.
    fn whole(rule: Aggregation, contributions: &[Contribution]) -> Option<Aggregate> {
        aggregate(rule, contributions.iter().map(|c| u128::from(c.weight)).sum(), contributions)
    }

    #[test]
    fn a_lone_liar_among_four_is_rejected() {
        let all = [c(1, 1, 800_000), c(2, 1, 810_000), c(3, 1, 820_000), c(4, 1, 0)];
        let a = whole(Aggregation::Quantile, &all).unwrap();
        // Sorted 0, .80, .81, .82: a third of four is reached at .80 from below, at .81 from above.
        assert_eq!(a.rejected, [Hotkey([4; 32])]);
        assert_eq!(a.score, Millionths(806_667));
        let z = whole(Aggregation::Zscore { bound: 2_000_000 }, &all).unwrap();
        assert!(z.rejected.is_empty(), "the classical rule cannot fire for four");
    }

    #[test]
    fn agreement_is_confident_and_one_tenth_of_spread_is_not() {
        let a = whole(Aggregation::Quantile, &[c(1, 1, 500_000), c(2, 1, 500_000)]).unwrap();
        assert_eq!((a.score, a.confidence), (Millionths(500_000), Millionths::ONE));
        let b = whole(Aggregation::Zscore { bound: 9_000_000 }, &[c(1, 1, 400_000), c(2, 1, 600_000)]).unwrap();
        assert_eq!((b.spread, b.confidence), (Millionths(100_000), Millionths(367_879)));
    }

    #[test]
    fn a_third_of_the_set_moves_nothing_where_another_third_is_absent() {
        // 34 honest and 33 liars of 100 contribute.
        for lie in [0, 654_000, 1_000_000] {
            let all = [c(1, 17, 600_000), c(2, 17, 610_000), c(3, 33, lie)];
            let score = aggregate(Aggregation::Quantile, 100, &all).unwrap().score.0;
            assert!((600_000..=610_000).contains(&score), "with liars at {lie}: {score}");
        }
    }

    #[test]
    fn two_thirds_of_the_set_or_less_make_no_score() {
        let all = [c(1, 33, 600_000), c(2, 33, 610_000)];
        for rule in [Aggregation::Quantile, Aggregation::Zscore { bound: 2_000_000 }] {
            assert!(aggregate(rule, 98, &all).is_some(), "66 of 98");
            assert!(aggregate(rule, 99, &all).is_none(), "66 of 99");
            assert!(aggregate(rule, 0, &[]).is_none() && aggregate(rule, 1, &[]).is_none());
            assert!(aggregate(rule, 0, &[c(1, 0, 600_000)]).is_none(), "nobody has any standing");
        }
        // One without standing says something and moves nothing.
        let beside = aggregate(Aggregation::Quantile, 3, &[c(1, 1, 10), c(2, 1, 10), c(3, 1, 10), c(4, 0, 900_000)]);
        assert_eq!(beside.unwrap().score, Millionths(10));
    }

    proptest! {
        #[test]
        fn with_liars_under_a_third_of_the_set_the_score_lies_within_the_honest_contributions(
            honest in proptest::collection::vec((0u64..1000, 0u32..=1_000_000), 1..40),
            liars in proptest::collection::vec((0u64..1000, 0u32..=1_000_000), 0..20),
            part in 0u128..=1000,
        ) {
            let mut all: Vec<Contribution> = honest.iter().enumerate().map(|(i, (w, m))| c(i as u8, *w, *m)).collect();
            let working: u128 = honest.iter().map(|h| u128::from(h.0)).sum();
            // Absent: as much as `part` thousandths of what still leaves honest ones more than a third.
            let absent = working.saturating_sub(1) * part / 1000;
            let mut lying = 0u128;
            for (i, (w, m)) in liars.iter().enumerate() {
                let more = lying + u128::from(*w);
                if more * 3 < more + working + absent {
                    lying = more;
                    all.push(c(100 + i as u8, *w, *m));
                }
            }
            let total = working + absent + lying;
            let aggregate = aggregate(Aggregation::Quantile, total, &all);
            prop_assert_eq!(aggregate.is_some(), (working + lying) * 3 > total * 2);
            let Some(aggregate) = aggregate else { return Ok(()) };
            let counts = honest.iter().filter(|h| h.0 > 0);
            let (min, max) = (counts.clone().map(|h| h.1).min().unwrap(), counts.map(|h| h.1).max().unwrap());
            prop_assert!((min..=max).contains(&aggregate.score.0), "{} outside {min}..={max}", aggregate.score);
        }

        #[test]
        fn the_order_of_contributions_does_not_matter(mut all in proptest::collection::vec((0u8..200, 1u64..9, 0u32..=1_000_000), 1..30)) {
            let of = |v: &[(u8, u64, u32)]| whole(Aggregation::Quantile, &v.iter().map(|(i, w, m)| c(*i, *w, *m)).collect::<Vec<_>>());
            let one = of(&all);
            all.reverse();
            prop_assert_eq!(one, of(&all));
        }
    }
}
