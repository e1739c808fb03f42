//! The search for a flip inside the box of one level.
//!
//! A latent point u in the box −k..k, rounded, is the candidate; u follows APGD's step (Croce and Hein
//! 2020, Algorithm 1) on the gradient taken at the candidate. Progress is the lead of the best other
//! class, whichever loss is being climbed: the margin first, then cross-entropy (which pulls on all
//! classes), then the difference to the best and to the second-best other class of the best point so far.
//!
//! At a *tight* level the gates forbid the dense change. There the slopes are averaged over the visited
//! points and the candidate is the order's longest prefix that passes.

use perturb_challenge::pixels::Pixels;

use super::super::float::sign;
use super::edits::{Change, Order};
use crate::loss::{Loss, others};

/// Share of the last step in the next one is 1 − this.
const ALPHA: f32 = 0.75;

/// Fewer steps than this share of an interval that rise: the step is halved.
const RHO: f32 = 0.75;

/// Steps between two looks at the progress.
const INTERVAL: u32 = 5;

/// Steps halved below this share of the level move nothing on the grid any more.
const LEAST_STEP: f32 = 0.2;

/// What a climb says next.
pub(super) enum Next {
    /// Look here, along this loss.
    At(Change, Loss),
    /// There is no flip to be had here.
    GiveUp,
}

/// One climb.
pub(super) struct Climb {
    pub level: u8,
    /// Milliseconds at which it began.
    pub began: f64,
    /// The squares that the gates allow, where that is less than a dense change has.
    tight: Option<u64>,
    steps: u32,
    starts: u32,
    start: u32,
    taken: u32,
    since: u32,
    rises: u32,
    step: f32,
    latent: Vec<f32>,
    previous: Vec<f32>,
    loss: Loss,
    last: f32,
    best: f32,
    best_at_check: f32,
    best_latent: Vec<f32>,
    best_logits: Vec<f32>,
    best_slope: Vec<f32>,
    halved: bool,
    salt: u64,
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
    /// A climb from `from` (clipped to the box) with `tight` squares, if the level is a tight one.
    pub fn new(level: u8, tight: Option<u64>, from: &Change, limits: super::Ours, salt: u64, began: f64) -> Self {
        let most = f32::from(level);
        let latent: Vec<f32> = from.by.iter().map(|d| f32::from(*d).clamp(-most, most)).collect();
        Self {
            level,
            began,
            tight,
            steps: limits.steps,
            starts: limits.starts.max(1),
            start: 0,
            taken: 0,
            since: 0,
            rises: 0,
            step: 2.0 * most,
            previous: latent.clone(),
            best_latent: latent.clone(),
            latent,
            loss: Loss::Margin,
            last: f32::NEG_INFINITY,
            best: f32::NEG_INFINITY,
            best_at_check: f32::NEG_INFINITY,
            best_logits: Vec::new(),
            best_slope: Vec::new(),
            halved: true,
            salt,
        }
    }

    /// The candidate of the latent point, or at a tight level of the averaged `slope`.
    pub fn candidate(&self, clean: &Pixels, slope: &[f32], cost: Option<&[f32]>) -> Change {
        if let Some(squares) = self.tight {
            return Order::new(clean, slope, self.level, cost, self.salt).prefix(clean.rgb.len(), squares);
        }
        Change { by: self.latent.iter().map(|u| u.round() as i16).collect() }
    }

    /// The loss of a start.
    fn loss_of(&self, label: u16) -> Loss {
        let others = others(&self.best_logits, label);
        let towards = |rank: usize| others.get(rank).map_or(Loss::Margin, |&target| Loss::Difference { target });
        match self.start % 4 {
            1 => Loss::CrossEntropy,
            2 => towards(1),
            3 => towards(2),
            _ => Loss::Margin,
        }
    }

    /// Takes in what was seen at the candidate; `lead` is that of the best other class. `slope` is the
    /// search's average, which takes part in it.
    pub fn see(
        &mut self,
        clean: &Pixels,
        label: u16,
        (logits, lead): (Vec<f32>, f32),
        gradient: &[f32],
        (slope, cost): (&mut Vec<f32>, Option<&[f32]>),
    ) -> Next {
        self.taken += 1;
        self.since += 1;
        self.rises += u32::from(lead > self.last);
        self.last = lead;
        if lead > self.best {
            self.best = lead;
            self.best_latent.clone_from(&self.latent);
            self.best_logits = logits;
            self.best_slope = gradient.to_vec();
        }
        let mut gradient = gradient;
        let stored;
        if self.since >= INTERVAL && self.check() {
            stored = self.best_slope.clone();
            gradient = &stored;
        }
        // The steps from here on rise too slowly to get there: leave it, unless another loss may help.
        if (self.taken >= self.steps || self.step < LEAST_STEP * f32::from(self.level)) && !self.restart(label) {
            return Next::GiveUp;
        }
        if self.tight.is_some() {
            blend(slope, gradient, 1.0 / (self.taken + 1).min(5) as f32);
        } else {
            self.go(clean, gradient);
        }
        Next::At(self.candidate(clean, slope, cost), self.loss)
    }

    /// APGD's step.
    fn go(&mut self, clean: &Pixels, gradient: &[f32]) {
        let most = f32::from(self.level);
        let alpha = if self.taken > 1 { ALPHA } else { 1.0 };
        let values = self.latent.iter_mut().zip(&mut self.previous).zip(gradient).zip(&clean.rgb);
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

    /// Begins again from the best point with the next loss; `false` where there is none left.
    fn restart(&mut self, label: u16) -> bool {
        self.start += 1;
        if self.start >= self.starts {
            return false;
        }
        self.loss = self.loss_of(label);
        (self.taken, self.since, self.rises) = (0, 0, 0);
        self.step = f32::from(self.level);
        self.halved = true;
        self.latent.clone_from(&self.best_latent);
        self.previous.clone_from(&self.best_latent);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn limits() -> super::super::Ours {
        super::super::Ours { steps: 10, starts: 2 }
    }

    #[test]
    fn a_step_fills_the_box_along_the_gradient_and_leaves_alone_what_has_none() {
        let clean = Pixels::new(1, 1, vec![100, 255, 100]).unwrap();
        let mut c = Climb::new(2, None, &Change::none(3), limits(), 0, 0.0);
        let mut slope = vec![0.0; 3];
        let Next::At(change, loss) = c.see(&clean, 0, (vec![1.0, 0.0], -1.0), &[-0.5, 3.0, 0.0], (&mut slope, None))
        else {
            panic!("gave up");
        };
        assert_eq!((change.by, loss), (vec![-2, 0, 0], Loss::Margin));
    }

    #[test]
    fn a_climb_without_progress_tries_another_loss_and_then_ends() {
        let clean = Pixels::new(1, 1, vec![100; 3]).unwrap();
        let mut c = Climb::new(1, None, &Change::none(3), limits(), 0, 0.0);
        let mut slope = vec![0.0; 3];
        let mut losses = Vec::new();
        while let Next::At(_, loss) =
            c.see(&clean, 0, (vec![1.0, 0.0, 0.5], -0.5), &[1.0, -1.0, 1.0], (&mut slope, None))
        {
            losses.push(loss);
            assert!(losses.len() < 40);
        }
        assert!(losses.contains(&Loss::Margin) && losses.contains(&Loss::CrossEntropy));
    }

    #[test]
    fn blending_weighs_directions_not_lengths() {
        let mut into = vec![1.0, 1.0];
        blend(&mut into, &[0.0, 4000.0], 0.5);
        assert_eq!(into, [0.25, 0.75]);
    }
}
