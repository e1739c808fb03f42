//! How much of a flip's squares a round of shrinking tries to take away.

/// Shares of the squares, before scaling, longest first.
const CUTS: [f64; 4] = [0.6, 0.4, 0.2, 0.1];

/// Scale of the cuts: at first and at most, and the least that is tried.
const SCALE: (f64, f64) = (1.5, 0.08);

/// The longest cut.
const MOST: f64 = 0.9;

/// The cuts, longer while they work and shorter when they do not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuts {
    scale: f64,
    /// The cut that the next round may hope for, before scaling.
    likely: f64,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { scale: SCALE.0, likely: CUTS[1] }
    }
}

impl Cuts {
    /// The share that the next round may hope to take away.
    pub fn hoped(&self) -> f64 {
        (self.likely * self.scale).min(MOST)
    }

    /// Squares to try to get down to, falling.
    pub fn targets(&self, squares: u64) -> Vec<u64> {
        if squares <= 1 {
            return Vec::new();
        }
        let left = |cut: f64| squares - ((squares as f64 * (cut * self.scale).min(MOST)) as u64).clamp(1, squares - 1);
        let mut targets: Vec<u64> = CUTS.iter().rev().map(|cut| left(*cut)).collect();
        targets.dedup();
        targets
    }

    /// A round got from `before` to `after` squares; whether another one makes sense.
    pub fn learn(&mut self, before: u64, after: u64) -> bool {
        if after < before {
            let cut = 1.0 - after as f64 / before.max(1) as f64;
            // The longest cut worked: try longer ones; a short one: stay near it.
            self.scale = (self.scale * if cut > CUTS[1] * self.scale { 1.5 } else { 0.8 }).min(SCALE.0);
            self.likely = (0.7 * cut / self.scale).clamp(CUTS[3], CUTS[0]);
            return after > 1;
        }
        self.scale /= 3.0;
        self.likely = CUTS[2];
        // Nothing shorter than one square, and nothing that would not be seen in the score.
        self.scale >= SCALE.1 && before as f64 * CUTS[0] * self.scale >= 1.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn targets_fall_and_always_leave_and_take_something() {
        let targets = Cuts::default().targets(100);
        assert_eq!(targets, [85, 70, 40, 11]);
        assert_eq!(Cuts::default().targets(3), [2, 1]);
        assert!(Cuts::default().targets(1).is_empty() && Cuts::default().targets(0).is_empty());
    }

    #[test]
    fn cuts_shorten_until_they_work_and_end_when_nothing_does() {
        let mut cuts = Cuts::default();
        assert!(cuts.learn(1000, 1000));
        assert_eq!(cuts.targets(1000), [950, 900, 800, 700]);
        assert!(cuts.learn(1000, 950));
        assert!(cuts.learn(950, 950));
        assert!(!cuts.learn(950, 950) || !cuts.learn(950, 950));
        assert!(!Cuts::default().learn(5, 1), "one square is the least");
    }
}
