//! When more search costs more than it gains.
//!
//! Everything is asked of the criterion, which knows the rules that were sent: what a candidate is worth
//! now and what a better one would be worth later. Under the subnet's rules, with s the changed share at
//! level 1 and r its RMSE component, that is to stop where 0.21·Δ[(1 − r√s)²] < 0.3·Δt/T; under the
//! whitepaper's, where RMSE does not count, only levels are worth any time.

use perturb_types::{Measurement, Millionths};

use crate::criterion::Criterion;

/// Part of what a level is worth that one climb there may cost, by the climbs that failed before it: about the
/// share of such climbs that flip. What those before it have cost is gone either way.
const STAKE: [f64; 4] = [0.5, 0.1, 0.03, 0.01];

/// The clock as a search sees it, milliseconds for this image.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Since the start, as the answers are timed: shared among all images.
    pub now: f64,
    /// What a round of the model costs: shared among the images that took part.
    pub round: f64,
}

fn ms(x: f64) -> u32 {
    x.clamp(0.0, f64::from(u32::MAX)) as u32
}

/// A measurement of this level and sum of squares, with nothing wrong with it.
pub(super) fn measured(channels: usize, level: u8, squares: u64) -> Measurement {
    let channels = u32::try_from(channels).unwrap_or(u32::MAX);
    Measurement { level, sum_squares: squares, changed: channels, channels, ssim: Millionths::ONE }
}

/// Whether fewer changes are worth anything at all under these rules.
pub(super) fn sparsity_counts(criterion: &dyn Criterion, channels: usize, level: u8) -> bool {
    let value = |squares| criterion.value(&measured(channels, level, squares), 0);
    value(0) > value(channels as u64 * u64::from(level).pow(2))
}

/// Whether a candidate with `squares` cut by the share `cut`, one round later, is worth more than now.
pub(super) fn worth_shrinking(criterion: &dyn Criterion, m: &Measurement, cut: f64, pace: Pace) -> bool {
    let less = Measurement { sum_squares: (m.sum_squares as f64 * (1.0 - cut)) as u64, ..*m };
    criterion.value(&less, ms(pace.now + pace.round)) > criterion.value(m, ms(pace.now))
}

/// Milliseconds that a climb from a level to a lower one may take after so many `tried` in vain;
/// infinite where time costs nothing.
pub(super) fn allowance(
    criterion: &dyn Criterion,
    channels: usize,
    (level, lower): (u8, u8),
    tried: usize,
    pace: Pace,
) -> f64 {
    /// Long enough for the score's millionths to show it.
    const PROBE_MS: f64 = 1000.0;
    let dense = |k: u8| measured(channels, k, channels as u64 * u64::from(k).pow(2));
    let value = |k, at| f64::from(criterion.value(&dense(k), ms(at)));
    let gain = value(lower, pace.now) - value(level, pace.now);
    let cost = (value(level, pace.now) - value(level, pace.now + PROBE_MS)) / PROBE_MS;
    let stake = STAKE[tried.min(STAKE.len() - 1)];
    if cost > 0.0 { stake * gain.max(0.0) / cost } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::criterion::RuleCriterion;
    use perturb_challenge::rules::Rules;

    const CHANNELS: usize = 100_000;

    #[test]
    fn under_the_subnet_sparsity_is_worth_what_facts_say() {
        let c = RuleCriterion::new(Rules::subnet());
        assert!(sparsity_counts(&c, CHANNELS, 1));
        let dense = measured(CHANNELS, 1, CHANNELS as u64);
        let one = measured(CHANNELS, 1, CHANNELS as u64 / 100);
        // From dense to 1 % is worth 3.1 s, from 1 % to 0.1 % only 0.25 s.
        let pace = |round| Pace { now: 0.0, round };
        assert!(worth_shrinking(&c, &dense, 0.99, pace(3000.0)) && !worth_shrinking(&c, &dense, 0.99, pace(3200.0)));
        assert!(worth_shrinking(&c, &one, 0.9, pace(200.0)) && !worth_shrinking(&c, &one, 0.9, pace(300.0)));
    }

    #[test]
    fn under_the_whitepaper_only_levels_are_worth_time() {
        let c = RuleCriterion::new(Rules::whitepaper());
        assert!(!sparsity_counts(&c, CHANNELS, 1));
        assert!(!worth_shrinking(&c, &measured(CHANNELS, 1, 9000), 0.9, Pace { now: 0.0, round: 1.0 }));
        // One level is worth 9.15 s of the 60.
        let allowed = allowance(&c, CHANNELS, (2, 1), 0, Pace::default());
        assert!((allowed / STAKE[0] - 9150.0).abs() < 30.0, "{allowed}");
    }

    #[test]
    fn without_a_price_on_time_nothing_hurries() {
        let c = crate::criterion::WithinBall { levels: 8 };
        assert_eq!(allowance(&c, CHANNELS, (2, 1), 0, Pace::default()), f64::INFINITY);
    }
}
