//! What a candidate is worth: the network's own verdict, and nothing an attack decides for itself.

use perturb_challenge::classifier;
use perturb_challenge::measure::measure;
use perturb_challenge::pixels::Pixels;
use perturb_challenge::rules::{Rules, gates, score_with_margin};
use perturb_types::Measurement;

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

    /// How many channel values of `clean` may move by `k` at the most.
    fn most_changes(&self, clean: &Pixels, k: u8) -> usize;

    /// The measurement of a candidate whose pixels pass every gate; `None` where one fails.
    fn gates(&self, clean: &Pixels, candidate: &Pixels) -> Option<Measurement>;

    /// What a candidate with passing pixels and these logits is worth; `None` where the label did
    /// not change by the margin.
    fn worth(&self, measurement: &Measurement, logits: &[f32], label: u16) -> Option<Worth>;
}

/// The network's rules as a criterion.
#[derive(Clone, Debug)]
pub struct RuleCriterion {
    rules: Rules,
}

impl RuleCriterion {
    /// The criterion of these rules.
    pub fn new(rules: Rules) -> Self {
        Self { rules }
    }
}

impl Criterion for RuleCriterion {
    fn levels(&self) -> (u8, u8) {
        (gates::min_level(&self.rules), gates::max_level(&self.rules))
    }

    fn most_changes(&self, clean: &Pixels, k: u8) -> usize {
        let channels = clean.channels();
        let squares = gates::max_sum_squares(u32::try_from(channels).unwrap_or(u32::MAX), self.rules.min_psnr_mdb);
        let each = u64::from(k.max(1)) * u64::from(k.max(1));
        usize::try_from(squares / each).unwrap_or(usize::MAX).min(channels)
    }

    fn gates(&self, clean: &Pixels, candidate: &Pixels) -> Option<Measurement> {
        let m = measure(clean, candidate).ok()?;
        gates::first_failure(&self.rules, &m).is_none().then_some(m)
    }

    fn worth(&self, m: &Measurement, logits: &[f32], label: u16) -> Option<Worth> {
        let p = classifier::predict(logits, label).ok()?;
        if p.class == label || p.margin < i64::from(self.rules.min_margin) {
            return None;
        }
        Some(Worth { score: score_with_margin(&self.rules, m, p.margin, 0).0, margin: p.margin })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_subnet_allows_levels_one_to_seven_and_bounds_the_changes_by_psnr() {
        let c = RuleCriterion::new(Rules::subnet());
        assert_eq!(c.levels(), (1, 7));
        let clean = Pixels::new(64, 64, vec![128; 64 * 64 * 3]).unwrap();
        assert_eq!(c.most_changes(&clean, 1), 64 * 64 * 3);
        // Dense k = 4 has 36.1 dB: not all values may move by 4.
        let four = c.most_changes(&clean, 4);
        assert!(four < 64 * 64 * 3 && four > 64 * 64);
    }

    #[test]
    fn only_a_flip_by_the_margin_is_worth_something() {
        let c = RuleCriterion::new(Rules::subnet());
        let m = Measurement { level: 1, sum_squares: 10, changed: 10, channels: 3000, ..Measurement::default() };
        assert_eq!(c.worth(&m, &[1.0, 0.5], 0), None);
        assert_eq!(c.worth(&m, &[1.0, 1.0005], 0), None, "below the published margin");
        assert!(c.worth(&m, &[1.0, 1.5], 0).is_some());
        assert_eq!(c.worth(&m, &[1.0, f32::NAN], 0), None);
    }
}
