//! From aggregates to shares: ranks, emission schedules, blending and the weight schemes.
//!
//! Miners are ranked by score, ties to the lower uid; only positive scores earn. Shares are parts
//! of [`WHOLE`]; they sum to it exactly, or are all zero where nobody earned. What integer division
//! leaves over goes in single units to the best ranks.

use perturb_types::Millionths;

use crate::rules::{Emission, MILLION, Rules, WeightScheme};

/// All there is to share: 10¹².
pub const WHOLE: u64 = 1_000_000_000_000;

/// The fixed point of exp in the softmax scheme.
const EXP_SCALE: f64 = 1e15;

/// Indices of the positive scorers, best first; ties go to the lower uid.
#[must_use]
pub fn ranking(scores: &[(u16, Millionths)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|&i| scores[i].1 > Millionths::ZERO).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(scores[i].1), scores[i].0, i));
    order
}

/// Parts of [`WHOLE`] in proportion to `points`, in the same order; all zero if the points are.
/// Points are at most 10²⁴ each, so that nothing overflows.
#[must_use]
pub fn normalise(points: &[u128]) -> Vec<u64> {
    let total: u128 = points.iter().sum();
    if total == 0 {
        return vec![0; points.len()];
    }
    let mut parts: Vec<u64> = points.iter().map(|p| (p * u128::from(WHOLE) / total) as u64).collect();
    let mut left = WHOLE - parts.iter().sum::<u64>();
    for (part, _) in parts.iter_mut().zip(points).filter(|(_, p)| **p > 0) {
        if left == 0 {
            break;
        }
        *part += 1;
        left -= 1;
    }
    parts
}

/// `pool` millionths shared by the ranks `first..=last` (from 1) in proportion to 1/rank.
fn harmonic(pool: u32, first: usize, last: usize) -> impl Iterator<Item = u128> {
    let inverse = |rank: usize| u128::from(WHOLE) / rank as u128;
    let total: u128 = (first..=last).map(inverse).sum::<u128>().max(1);
    (first..=last).map(move |rank| u128::from(pool) * u128::from(WHOLE) * inverse(rank) / total)
}

/// The emission schedule's shares of `n` ranked earners, best first.
#[must_use]
pub fn emission(schedule: &Emission, n: usize) -> Vec<u64> {
    let fixed = |s: &u32| u128::from(*s) * u128::from(WHOLE);
    let mut points: Vec<u128> = match schedule {
        Emission::Top { shares } => shares.iter().take(n).map(fixed).collect(),
        Emission::Decaying { head, middle_until, middle, tail } => {
            let until = usize::from(*middle_until).max(head.len());
            let mut points: Vec<u128> = head.iter().take(n).map(fixed).collect();
            points.extend(harmonic(*middle, head.len() + 1, n.min(until)));
            points.extend(harmonic(*tail, until + 1, n));
            points
        }
    };
    points.resize(n, 0);
    normalise(&points)
}

fn blend(gamma: u32, averages: &[u64], emissions: &[u64]) -> Vec<u64> {
    let gamma = gamma.min(MILLION);
    let raw = |(a, e): (&u64, &u64)| u128::from(gamma) * u128::from(*a) + u128::from(MILLION - gamma) * u128::from(*e);
    normalise(&averages.iter().zip(emissions).map(raw).collect::<Vec<_>>())
}

/// exp(score/T) relative to the best score: `libm`'s exp is the same everywhere.
fn softmax(temperature: u32, ranked: &[Millionths]) -> Vec<u64> {
    let best = ranked.first().copied().unwrap_or_default();
    let point = |s: &Millionths| {
        let below = f64::from(best.0 - s.0) / f64::from(temperature.max(1));
        (libm::exp(-below) * EXP_SCALE) as u128
    };
    normalise(&ranked.iter().map(point).collect::<Vec<_>>())
}

/// What each miner gets of [`WHOLE`] by the rules' weight scheme, before burning; in the order of
/// `scores`, which are (uid, aggregate) of the eligible miners.
#[must_use]
pub fn shares(rules: &Rules, scores: &[(u16, Millionths)]) -> Vec<u64> {
    let order = ranking(scores);
    let ranked: Vec<Millionths> = order.iter().map(|&i| scores[i].1).collect();
    let linear = || normalise(&ranked.iter().map(|s| u128::from(s.0)).collect::<Vec<_>>());
    let parts = match rules.weights {
        WeightScheme::Emission => emission(&rules.emission, order.len()),
        WeightScheme::Blend { gamma } => blend(gamma, &linear(), &emission(&rules.emission, order.len())),
        WeightScheme::Softmax { temperature } => softmax(temperature, &ranked),
        WeightScheme::Linear => linear(),
    };
    let mut out = vec![0; scores.len()];
    for (i, part) in order.into_iter().zip(parts) {
        out[i] = part;
    }
    out
}

/// Takes `burn` millionths from everybody and returns what is burned: kept and burned sum to
/// what came in.
#[must_use]
pub fn burn(shares: &mut [u64], burn: u32) -> u64 {
    let keep = u128::from(MILLION - burn.min(MILLION));
    let mut burned = 0;
    for share in shares {
        let kept = (u128::from(*share) * keep / u128::from(MILLION)) as u64;
        burned += *share - kept;
        *share = kept;
    }
    burned
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const PERCENT: u64 = WHOLE / 100;

    fn scored(scores: &[u32]) -> Vec<(u16, Millionths)> {
        scores.iter().enumerate().map(|(i, s)| (i as u16, Millionths(*s))).collect()
    }

    #[test]
    fn the_subnet_shares_by_hand() {
        let all = shares(&Rules::subnet(), &scored(&[10, 60, 50, 40, 30, 20, 0]));
        assert_eq!(all, vec![0, 70 * PERCENT, 25 * PERCENT, 3 * PERCENT, 15 * PERCENT / 10, PERCENT / 2, 0]);
        // Two positive scorers: 70 and 25 of 95.
        let two = shares(&Rules::subnet(), &scored(&[5, 0, 9]));
        assert_eq!(two, vec![WHOLE * 25 / 95, 0, WHOLE * 70 / 95 + 1]);
        assert_eq!(shares(&Rules::subnet(), &scored(&[0, 0])), vec![0, 0]);
        assert!(shares(&Rules::subnet(), &[]).is_empty());
    }

    #[test]
    fn ties_go_to_the_lower_uid_whatever_the_order() {
        let tied = [(9, Millionths(5)), (3, Millionths(5)), (7, Millionths(5))];
        let got = shares(&Rules { emission: Rules::top_70_15_15(), ..Rules::subnet() }, &tied);
        assert_eq!(got, vec![15 * PERCENT, 70 * PERCENT, 15 * PERCENT]);
    }

    #[test]
    fn the_whitepaper_emission_by_hand() {
        let e = emission(&Rules::whitepaper().emission, 12);
        for (got, percent) in e.iter().zip([50, 30, 10]) {
            assert!(got.abs_diff(percent * PERCENT) <= 3, "{got}");
        }
        // Ranks 4–10: 1/4 of Σ 1/4…1/10; ranks 11, 12: 12 to 11.
        let h: f64 = (4..=10).map(|k| 1.0 / f64::from(k)).sum();
        assert!((e[3] as f64 - 5e10 * 0.25 / h).abs() < 3.0, "{}", e[3]);
        assert!((e[10] as f64 - 5e10 * 12.0 / 23.0).abs() < 3.0);
        assert_eq!(e.iter().sum::<u64>(), WHOLE);
    }

    #[test]
    fn the_blend_by_hand() {
        // Averages 0.6 and 0.2: 75 and 25 %. Emission of two: 50 and 30 of 80, 62.5 and 37.5 %.
        let got = shares(&Rules::whitepaper(), &scored(&[600_000, 200_000]));
        assert_eq!(got, vec![7125 * PERCENT / 100, 2875 * PERCENT / 100]);
    }

    #[test]
    fn softmax_and_linear_by_hand() {
        let linear = Rules { weights: WeightScheme::Linear, ..Rules::subnet() };
        assert_eq!(shares(&linear, &scored(&[100, 300])), vec![25 * PERCENT, 75 * PERCENT]);
        let softmax = Rules { weights: WeightScheme::Softmax { temperature: 100_000 }, ..Rules::subnet() };
        let got = shares(&softmax, &scored(&[900_000, 800_000]));
        let expected = 1.0 / (1.0 + libm::exp(-1.0));
        assert!((got[0] as f64 / WHOLE as f64 - expected).abs() < 1e-11);
        // A cold softmax of distant scores does not overflow.
        let cold = Rules { weights: WeightScheme::Softmax { temperature: 1000 }, ..Rules::subnet() };
        assert_eq!(shares(&cold, &scored(&[1_000_000, 1])), vec![WHOLE, 0]);
    }

    #[test]
    fn burning_keeps_the_sum() {
        let mut s = vec![WHOLE / 3, WHOLE - WHOLE / 3];
        let burned = burn(&mut s, 250_000);
        assert_eq!(burned + s.iter().sum::<u64>(), WHOLE);
        assert!(burned.abs_diff(WHOLE / 4) <= 2);
    }

    proptest! {
        #[test]
        fn shares_sum_to_the_whole_and_follow_the_ranks(
            scores in prop::collection::vec(0u32..=MILLION, 0..60),
            scheme in prop_oneof![
                Just(WeightScheme::Emission), Just(WeightScheme::Linear),
                (0u32..=MILLION).prop_map(|gamma| WeightScheme::Blend { gamma }),
                (1000u32..=10 * MILLION).prop_map(|temperature| WeightScheme::Softmax { temperature }),
            ],
            paper: bool,
        ) {
            let base = if paper { Rules::whitepaper() } else { Rules::subnet() };
            let rules = Rules { weights: scheme, ..base };
            let scores = scored(&scores);
            let got = shares(&rules, &scores);
            let order = ranking(&scores);
            prop_assert_eq!(got.iter().sum::<u64>(), if order.is_empty() { 0 } else { WHOLE });
            // Better ranks never get less, but for the unit that rounding leaves over. (Under the
            // whitepaper's schedule they may: a lone rank 11 has the 5 % of the tail to itself.)
            if !paper || !matches!(scheme, WeightScheme::Emission | WeightScheme::Blend { .. }) {
                prop_assert!(order.windows(2).all(|w| got[w[0]] + 1 >= got[w[1]]));
            }
            prop_assert!(scores.iter().zip(&got).all(|(s, g)| s.1.0 > 0 || *g == 0));
        }
    }
}
