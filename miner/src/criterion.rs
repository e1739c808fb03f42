//! What a candidate is worth: the network's own verdict, and nothing an attack decides for itself.

use perturb_challenge::classifier;
use perturb_challenge::measure::measure;
use perturb_challenge::pixels::Pixels;
use perturb_challenge::recheck::TOLERANCE;
use perturb_challenge::rules::{Rules, gates, score_with_margin};
use perturb_types::Measurement;

/// Lead beyond the rules' own margin that a flip must have, millionths of a logit: twice the tolerance of
/// spot checks. Then no validator can deny the flip, whatever its device, and have others confirm it.
const AIM: i64 = 2 * TOLERANCE as i64;

/// What an accepted candidate is worth: more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worth {
    /// The score without its time part, in millionths.
    pub score: u32,
    /// Lead of the new label over the clean one, millionths of a logit: breaks ties towards flips
    /// that survive another machine's arithmetic.
    pub margin: i64,
}

/// Decides about candidates.
pub trait Criterion: Sync {
    /// The levels k (8-bit) that count: lowest and highest.
    fn levels(&self) -> (u8, u8);

    /// The largest sum of squared differences, in squared levels, that an image of so many channel
    /// values may have.
    fn most_squares(&self, channels: usize) -> u64;

    /// The measurement of a candidate whose pixels pass every gate; `None` where one fails.
    fn gates(&self, clean: &Pixels, candidate: &Pixels) -> Option<Measurement>;

    /// What a candidate with passing pixels and these logits is worth; `None` where the label did
    /// not change by the margin.
    fn worth(&self, measurement: &Measurement, logits: &[f32], label: u16) -> Option<Worth>;

    /// What an accepted candidate with this measurement would score when it is handed in after
    /// `elapsed_ms`, in millionths: what another second of search has to be weighed against.
    fn value(&self, measurement: &Measurement, elapsed_ms: u32) -> u32;
}

/// The network's rules as a criterion.
#[derive(Clone, Debug)]
pub struct RuleCriterion {
    rules: Rules,
}

impl RuleCriterion {
    /// The criterion of these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules }
    }
}

impl Criterion for RuleCriterion {
    fn levels(&self) -> (u8, u8) {
        (gates::min_level(&self.rules), gates::max_level(&self.rules))
    }

    fn most_squares(&self, channels: usize) -> u64 {
        gates::max_sum_squares(u32::try_from(channels).unwrap_or(u32::MAX), self.rules.min_psnr_mdb)
    }

    fn gates(&self, clean: &Pixels, candidate: &Pixels) -> Option<Measurement> {
        let m = measure(clean, candidate).ok()?;
        gates::first_failure(&self.rules, &m).is_none().then_some(m)
    }

    fn worth(&self, m: &Measurement, logits: &[f32], label: u16) -> Option<Worth> {
        let p = classifier::predict(logits, label).ok()?;
        if p.class == label || p.margin < i64::from(self.rules.min_margin) + AIM {
            return None;
        }
        Some(Worth { score: score_with_margin(&self.rules, m, p.margin, 0).0, margin: p.margin })
    }

    fn value(&self, m: &Measurement, elapsed_ms: u32) -> u32 {
        score_with_margin(&self.rules, m, 0, elapsed_ms).0
    }
}

/// For evaluation: any change of the label within an L∞ ball, whatever the network's rules say.
/// Fewer levels are worth more; time is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WithinBall {
    /// The ball's radius, 8-bit levels.
    pub levels: u8,
}

impl Criterion for WithinBall {
    fn levels(&self) -> (u8, u8) {
        (1, self.levels)
    }

    fn most_squares(&self, _: usize) -> u64 {
        u64::MAX
    }

    fn gates(&self, clean: &Pixels, candidate: &Pixels) -> Option<Measurement> {
        let m = measure(clean, candidate).ok()?;
        (m.level <= self.levels).then_some(m)
    }

    fn worth(&self, m: &Measurement, logits: &[f32], label: u16) -> Option<Worth> {
        let p = classifier::predict(logits, label).ok()?;
        (p.class != label).then_some(Worth { score: self.value(m, 0), margin: p.margin })
    }

    fn value(&self, m: &Measurement, _: u32) -> u32 {
        1_000_000 - 1_000 * u32::from(m.level)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_subnet_allows_levels_one_to_seven_and_bounds_the_squares_by_psnr() {
        let c = RuleCriterion::new(Rules::subnet());
        assert_eq!(c.levels(), (1, 7));
        let channels = 64 * 64 * 3;
        // Dense k = 3 passes, dense k = 4 has 36.1 dB and does not.
        let most = c.most_squares(channels);
        assert!(most >= 9 * channels as u64 && most < 16 * channels as u64);
        assert_eq!(RuleCriterion::new(Rules::whitepaper()).most_squares(channels), u64::MAX);
    }

    #[test]
    fn only_a_flip_that_no_check_can_deny_is_worth_something() {
        let c = RuleCriterion::new(Rules::subnet());
        let m = Measurement { level: 1, sum_squares: 10, changed: 10, channels: 3000, ..Measurement::default() };
        assert_eq!(c.worth(&m, &[1.0, 0.5], 0), None);
        assert_eq!(c.worth(&m, &[1.0, 1.0005], 0), None, "below the published margin");
        assert_eq!(c.worth(&m, &[1.0, 1.1], 0), None, "another device may see it near the margin");
        assert!(c.worth(&m, &[1.0, 1.5], 0).is_some());
        assert_eq!(c.worth(&m, &[1.0, f32::NAN], 0), None);
    }

    #[test]
    fn time_costs_what_the_rules_say() {
        let m = Measurement { level: 1, sum_squares: 3000, changed: 3000, channels: 3000, ..Measurement::default() };
        let c = RuleCriterion::new(Rules::subnet());
        // 0.3 · 2 s / 20 s.
        assert!((c.value(&m, 0) - c.value(&m, 2_000)).abs_diff(30_000) <= 1);
        assert_eq!(WithinBall { levels: 4 }.value(&m, 0), WithinBall { levels: 4 }.value(&m, 2_000));
    }
}
