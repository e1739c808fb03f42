//! One climb inside the box of one level, towards one class.
//!
//! A latent point u in the box −k..k, rounded, is the candidate; u follows APGD's step (Croce and Hein
//! 2020, Algorithm 1) on the gradient of z_t − z_y taken at the candidate, from a start that it is given. Progress
//! is that difference; every few steps, where it swings or is stuck, the step is halved and the
//! climb goes back to its best point.
//!
//! At a *tight* level the gates forbid the dense change. There the slopes are averaged over the visited
//! points and the candidate is the order's longest prefix that passes.
//!
//! A climb ends when its steps are used up, or as hopeless: when by the linearisation at its best point more
//! is missing than the steps after that ever made up for ([`HOPE`]).

use perturb_challenge::pixels::Pixels;

use super::super::float::sign;
use super::aims::{gain, missing};
use super::edits::{Change, Order};
use crate::loss::Loss;
use crate::model::Pulled;

/// Share of the last step in the next one is 1 − this.
const ALPHA: f32 = 0.75;

/// Fewer steps than this share of an interval that rise: the step is halved.
const RHO: f32 = 0.75;

/// Steps between two looks at the progress.
const INTERVAL: u32 = 6;

/// After so many gradients, how much may still be missing, as a share of the level. Over 750 images of
/// three models, four of the 648 climbs that flipped missed more at one of these points; of the 4211 that did
/// not, two in five missed more at the first.
const HOPE: [(u32, f32); 9] =
    [(1, 1.9), (2, 1.3), (3, 0.75), (4, 0.55), (5, 0.45), (6, 0.36), (9, 0.18), (13, 0.12), (19, 0.07)];

/// Slopes of the past that a tight level's average holds.
const MEMORY: u32 = 5;

/// Where a climb begins, and towards which class.
pub(super) struct Start {
    pub target: u16,
    /// The point, in levels from the clean image; clipped to the box.
    pub from: Vec<f32>,
    /// The slope that edits are ranked by.
    pub slope: Vec<f32>,
    /// The first step, in half sides of the box.
    pub first: f32,
    pub steps: u32,
}

/// One climb.
pub(super) struct Climb {
    pub level: u8,
    target: u16,
    /// The squares that the gates allow, where that is less than a dense change has.
    pub tight: Option<u64>,
    /// The current candidate.
    pub change: Change,
    /// The slope of the start; at a tight level, averaged with those seen.
    pub slope: Vec<f32>,
    /// The fewest levels missing at any point so far.
    missing: f32,
    steps: u32,
    taken: u32,
    since: u32,
    rises: u32,
    step: f32,
    latent: Vec<f32>,
    previous: Vec<f32>,
    last: f32,
    best: f32,
    best_at_check: f32,
    best_latent: Vec<f32>,
    best_gradient: Vec<f32>,
    halved: bool,
}

/// `into ← (1 − share)·into + share·from`, each scaled to unit L1 so that neither drowns the other.
pub(super) fn blend(into: &mut [f32], from: &[f32], share: f32) {
    let unit = |v: &[f32]| (1.0 / v.iter().map(|x| f64::from(x.abs())).sum::<f64>().max(1e-30)) as f32;
    let (a, b) = ((1.0 - share) * unit(into), share * unit(from));
    for (x, y) in into.iter_mut().zip(from) {
        *x = *x * a + y * b;
    }
}

impl Climb {
    /// A climb at `level`; the first candidate is the start itself, or `dense` at a tight level.
    pub fn new(level: u8, start: Start, tight: Option<(u64, Change)>) -> Self {
        let most = f32::from(level);
        let mut latent = start.from;
        latent.iter_mut().for_each(|u| *u = u.clamp(-most, most));
        let (tight, change) = match tight {
            Some((squares, change)) => (Some(squares), change),
            None => (None, rounded(&latent)),
        };
        Self {
            level,
            target: start.target,
            tight,
            change,
            slope: start.slope,
            missing: f32::INFINITY,
            best_latent: latent.clone(),
            steps: start.steps,
            taken: 0,
            since: 0,
            rises: 0,
            step: start.first * most,
            previous: latent.clone(),
            latent,
            last: f32::NEG_INFINITY,
            best: f32::NEG_INFINITY,
            best_at_check: f32::NEG_INFINITY,
            best_gradient: Vec::new(),
            halved: true,
        }
    }

    /// What is climbed.
    pub fn loss(&self) -> Loss {
        Loss::Difference { target: self.target }
    }

    /// Takes in what was seen at the candidate and moves on; `false` where the climb is over.
    pub fn see(&mut self, clean: &Pixels, seen: Pulled, cost: Option<&[f32]>, salt: u64) -> bool {
        self.taken += 1;
        self.since += 1;
        self.rises += u32::from(seen.value > self.last);
        self.last = seen.value;
        self.missing = self.missing.min(self.missing_at(clean, &seen));
        let share = self.missing / f32::from(self.level);
        if self.taken >= self.steps || HOPE.iter().any(|&(taken, most)| self.taken >= taken && share > most) {
            return false;
        }
        if self.tight.is_some() {
            blend(&mut self.slope, &seen.gradient, 1.0 / (self.taken + 1).min(MEMORY) as f32);
        } else {
            self.go(clean, seen);
        }
        self.change = match self.tight {
            Some(squares) => Order::new(clean, &self.slope, self.level, cost, salt).prefix(clean.rgb.len(), squares),
            None => rounded(&self.latent),
        };
        true
    }

    fn missing_at(&self, clean: &Pixels, seen: &Pulled) -> f32 {
        if self.tight.is_none() {
            return missing(clean, seen.value, &seen.gradient);
        }
        let reach = gain(&seen.gradient, &self.change);
        if reach > 0.0 { f32::from(self.level) * (-f64::from(seen.value) / reach) as f32 } else { f32::INFINITY }
    }

    /// APGD's step.
    fn go(&mut self, clean: &Pixels, seen: Pulled) {
        let mut gradient = seen.gradient;
        if seen.value > self.best {
            self.best = seen.value;
            self.best_latent.clone_from(&self.latent);
            self.best_gradient.clone_from(&gradient);
        }
        if self.since >= INTERVAL && self.check() {
            gradient.clone_from(&self.best_gradient);
        }
        let most = f32::from(self.level);
        let alpha = if self.taken > 1 { ALPHA } else { 1.0 };
        let values = self.latent.iter_mut().zip(&mut self.previous).zip(&gradient).zip(&clean.rgb);
        for (((u, previous), g), c) in values {
            let (low, high) = (-most.min(f32::from(*c)), most.min(f32::from(255 - *c)));
            let momentum = *u - *previous;
            *previous = *u;
            let z = (*u + self.step * sign(*g)).clamp(low, high);
            *u = (*u + (z - *u) * alpha + momentum * (1.0 - alpha)).clamp(low, high);
        }
    }

    /// Halves the step and goes back to the best point where the climb swings or is stuck.
    fn check(&mut self) -> bool {
        let swings = (self.rises as f32) <= RHO * self.since as f32;
        let stuck = !self.halved && self.best_at_check >= self.best;
        self.halved = swings || stuck;
        self.best_at_check = self.best;
        (self.since, self.rises) = (0, 0);
        if self.halved {
            self.step /= 2.0;
            self.latent.clone_from(&self.best_latent);
        }
        self.halved
    }
}

fn rounded(latent: &[f32]) -> Change {
    Change { by: latent.iter().map(|u| u.round() as i16).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn start(steps: u32) -> Start {
        Start { target: 1, from: vec![0.0; 3], slope: vec![0.0; 3], first: 1.0, steps }
    }

    fn seen(value: f32, gradient: [f32; 3]) -> Pulled {
        Pulled { value, gradient: gradient.to_vec() }
    }

    #[test]
    fn a_step_fills_the_box_along_the_gradient_and_leaves_alone_what_has_none() {
        let clean = Pixels::new(1, 1, vec![100, 255, 100]).unwrap();
        let mut c = Climb::new(2, start(10), None);
        assert!(c.see(&clean, seen(-1.0, [-0.5, 3.0, 0.0]), None, 0));
        assert_eq!(c.change.by, [-2, 0, 0]);
    }

    #[test]
    fn a_climb_swinging_between_two_points_halves_its_step_and_goes_back_to_the_better() {
        let clean = Pixels::new(1, 1, vec![100; 3]).unwrap();
        let mut c = Climb::new(1, start(24), None);
        // At the better of the two, 0.01 levels are missing.
        for n in 0..INTERVAL {
            let up = if n % 2 == 0 { 1.0 } else { -1.0 };
            assert!(c.see(&clean, seen(-0.03 + 0.01 * up, [up; 3]), None, 0));
        }
        assert_eq!((c.step, c.best), (0.5, -0.02));
        assert_eq!(c.best_latent, [0.0; 3], "the first of equal points");
    }

    #[test]
    fn a_climb_ends_with_its_steps_and_sooner_where_too_much_is_missing() {
        let clean = Pixels::new(1, 1, vec![100; 3]).unwrap();
        let steps = |level, value: f32| {
            let mut c = Climb::new(level, start(24), None);
            (1..40).find(|_| !c.see(&clean, seen(value, [1.0, -1.0, 1.0]), None, 0)).unwrap()
        };
        // Levels missing: 2, 1, 0.4, 0.1 and 0.05.
        assert_eq!([-6.0, -3.0, -1.2, -0.3, -0.15].map(|v| steps(1, v)), [1, 3, 6, 19, 24]);
        assert_eq!([-6.0, -3.0, -1.2, -0.3].map(|v| steps(2, v)), [3, 5, 9, 24], "of two levels, half the share");
    }

    #[test]
    fn at_a_tight_level_the_candidate_keeps_to_the_allowed_squares() {
        let clean = Pixels::new(1, 1, vec![100; 3]).unwrap();
        let mut c = Climb::new(3, start(10), Some((4, Change { by: vec![1, 1, 0] })));
        assert!(c.see(&clean, seen(-1.0, [9.0, 1.0, -0.1]), None, 0));
        assert_eq!(c.change.by, [2, 0, 0]);
    }

    #[test]
    fn blending_weighs_directions_not_lengths() {
        let mut into = vec![1.0, 1.0];
        blend(&mut into, &[0.0, 4000.0], 0.5);
        assert_eq!(into, [0.25, 0.75]);
    }
}
