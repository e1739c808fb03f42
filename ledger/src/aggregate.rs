//! From the validators' means of a miner to one score.
//!
//! `quantile` (default): with the contributions sorted and weighted by power, `lo` and `hi` are the
//! weighted 1/3 and 2/3 quantiles. A contribution further outside than max(3·MAD, 0.05) is
//! rejected (and counted against its validator); the rest are clamped to [lo, hi] and averaged by
//! weight. With liars under a third of the contributing weight, `lo` and `hi` lie within the honest
//! contributions' range, and so does everything clamped to them.
//!
//! `zscore{b}`: contributions beyond b standard deviations of the weighted mean are rejected, the
//! rest averaged by weight.
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
    /// Its voting power, at least 1.
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

/// The smallest value whose cumulative weight reaches `part`/3 of the total, by value.
fn quantile(sorted: &[(u64, u64)], part: u128) -> u64 {
    let total: u128 = sorted.iter().map(|(_, w)| u128::from(*w)).sum();
    let mut sum = 0u128;
    for (value, weight) in sorted {
        sum += u128::from(*weight);
        if sum * 3 >= total * part {
            return *value;
        }
    }
    sorted.last().map_or(0, |(v, _)| *v)
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

/// Combines contributions; `None` where there are none.
pub fn aggregate(rule: Aggregation, contributions: &[Contribution]) -> Option<Aggregate> {
    if contributions.is_empty() {
        return None;
    }
    let mut sorted: Vec<(u64, u64)> = contributions.iter().map(|c| (u64::from(c.mean.0), c.weight)).collect();
    sorted.sort_unstable();
    let (low, high, bounds) = match rule {
        Aggregation::Quantile => {
            let (lo, hi) = (quantile(&sorted, 1), quantile(&sorted, 2));
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

    #[test]
    fn a_lone_liar_among_four_is_rejected() {
        let a = aggregate(Aggregation::Quantile, &[c(1, 1, 800_000), c(2, 1, 810_000), c(3, 1, 820_000), c(4, 1, 0)])
            .unwrap();
        // Sorted 0, .80, .81, .82: the 1/3 quantile is .80, the 2/3 quantile .81; the median .80.
        assert_eq!(a.rejected, [Hotkey([4; 32])]);
        assert_eq!(a.score, Millionths(806_667));
        let z = aggregate(
            Aggregation::Zscore { bound: 2_000_000 },
            &[c(1, 1, 800_000), c(2, 1, 810_000), c(3, 1, 820_000), c(4, 1, 0)],
        )
        .unwrap();
        assert!(z.rejected.is_empty(), "the classical rule cannot fire for four");
    }

    #[test]
    fn agreement_is_confident_and_one_tenth_of_spread_is_not() {
        let a = aggregate(Aggregation::Quantile, &[c(1, 1, 500_000), c(2, 1, 500_000)]).unwrap();
        assert_eq!((a.score, a.confidence), (Millionths(500_000), Millionths::ONE));
        let b = aggregate(Aggregation::Zscore { bound: 9_000_000 }, &[c(1, 1, 400_000), c(2, 1, 600_000)]).unwrap();
        assert_eq!((b.spread, b.confidence), (Millionths(100_000), Millionths(367_879)));
        assert!(aggregate(Aggregation::Quantile, &[]).is_none());
    }

    proptest! {
        #[test]
        fn with_liars_under_a_third_the_score_lies_within_the_honest_range(
            honest in proptest::collection::vec((1u64..1000, 0u32..=1_000_000), 1..40),
            liars in proptest::collection::vec((1u64..1000, 0u32..=1_000_000), 0..20),
        ) {
            let weight: u64 = honest.iter().map(|h| h.0).sum();
            let mut all: Vec<Contribution> = honest.iter().enumerate().map(|(i, (w, m))| c(i as u8, *w, *m)).collect();
            let mut lying = 0;
            for (i, (w, m)) in liars.iter().enumerate() {
                // Strictly under a third of everything that contributes.
                if (lying + w) * 3 < lying + w + weight {
                    lying += w;
                    all.push(c(100 + i as u8, *w, *m));
                }
            }
            let (min, max) = (honest.iter().map(|h| h.1).min().unwrap(), honest.iter().map(|h| h.1).max().unwrap());
            let score = aggregate(Aggregation::Quantile, &all).unwrap().score.0;
            prop_assert!((min..=max).contains(&score), "{score} outside {min}..={max}");
        }

        #[test]
        fn the_order_of_contributions_does_not_matter(mut all in proptest::collection::vec((0u8..200, 1u64..9, 0u32..=1_000_000), 1..30)) {
            let of = |v: &[(u8, u64, u32)]| aggregate(Aggregation::Quantile, &v.iter().map(|(i, w, m)| c(*i, *w, *m)).collect::<Vec<_>>());
            let one = of(&all);
            all.reverse();
            prop_assert_eq!(one, of(&all));
        }
    }
}
