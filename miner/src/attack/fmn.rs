//! FMN: Pintor, Roli, Brendel and Biggio, "Fast Minimum-Norm Adversarial Attacks through Adaptive Norm
//! Constraints", NeurIPS 2021, Algorithm 1 for p = ∞. With L the difference of logits and both step
//! sizes annealed by h(k) = (1 + cos(πk/K))/2:
//!
//! ```text
//! γₖ = γ_K + (γ₀ − γ_K) h(k),   αₖ = α_K + (α₀ − α_K) h(k)                   lines 3 and 9
//! not yet adversarial:  ε = ‖δ‖∞ + |L| / ‖∇L‖₁      (ε(1 + γ) once it has ever been)   lines 5, 6
//! adversarial:          ε = min(ε(1 − γ), ‖δ*‖∞), and δ* = δ where it is smaller       lines 7, 8
//! δ = Π_ε(δ + α ∇L/‖∇L‖₂), then x + δ into the pixel range                    lines 10 to 12
//! ```
//!
//! Defaults as in the authors' code: K = 100, α₀ = 1 of the pixel range, α_K = α₀/100, γ₀ = 0.05,
//! γ_K = 0.001, start at the clean image. Every new smallest flip is offered rounded.

use perturb_challenge::pixels::Pixels;

use super::float::linf;
use super::{Attack, Context, MAX_STEPS, Options};
use crate::loss::Loss;
use crate::model::{Levels, ModelError, Pulled};

/// γ₀ and γ_K.
const GAMMA: (f64, f64) = (0.05, 0.001);

/// α_K/α₀.
const ALPHA_END: f64 = 0.01;

/// Keeps a quotient by the norm of no gradient finite.
const TINY: f64 = 1e-12;

/// Fast minimum norm.
#[derive(Clone, Copy, Debug)]
pub struct Fmn {
    /// K.
    pub steps: u32,
    /// α₀, in units of the pixel range.
    pub step_size: f32,
}

/// One image under way.
struct Walker {
    x: Levels,
    epsilon: f64,
    /// ‖δ*‖∞: the smallest flip, or the largest change there can be.
    best: f64,
    worst: f64,
    found: bool,
}

impl Walker {
    fn new(clean: &Pixels) -> Self {
        let worst = clean.rgb.iter().map(|c| f64::from((*c).max(255 - *c))).fold(0.0, f64::max);
        Self { x: Levels::from(clean), epsilon: f64::INFINITY, best: worst, worst, found: false }
    }

    /// Lines 4 to 8; whether this is a new smallest flip.
    fn weigh(&mut self, clean: &Pixels, flipped: bool, pulled: &Pulled, gamma: f64) -> bool {
        let norm = f64::from(linf(&self.x, clean));
        let better = flipped && norm < self.best;
        if better {
            self.best = norm;
        }
        self.found |= flipped;
        self.epsilon = if flipped {
            (self.epsilon * (1.0 - gamma)).min(self.best)
        } else if self.found {
            self.epsilon * (1.0 + gamma)
        } else {
            let slope: f64 = pulled.gradient.iter().map(|g| f64::from(g.abs())).sum();
            norm + f64::from(pulled.value.abs()) / slope.max(TINY)
        };
        self.epsilon = self.epsilon.min(self.worst);
        better
    }

    /// Lines 10 to 12; `alpha` in levels.
    fn go(&mut self, clean: &Pixels, pulled: &Pulled, alpha: f64) {
        let norm = pulled.gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
        let factor = (alpha / norm.max(TINY)) as f32;
        let epsilon = self.epsilon as f32;
        for ((x, g), c) in self.x.rgb.iter_mut().zip(&pulled.gradient).zip(&clean.rgb) {
            let c = f32::from(*c);
            *x = (c + (*x - c + factor * g).clamp(-epsilon, epsilon)).clamp(0.0, 255.0);
        }
    }
}

impl Fmn {
    /// With these options.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self { steps: options.steps.unwrap_or(100).clamp(1, MAX_STEPS), step_size: options.step_size.unwrap_or(1.0) }
    }
}

impl Attack for Fmn {
    fn name(&self) -> &'static str {
        "fmn"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let mut walkers: Vec<Walker> = (0..context.len()).map(|i| Walker::new(context.task(i).clean)).collect();
        for k in 0..self.steps {
            let share = f64::from(k) / f64::from(self.steps);
            let cosine = (1.0 + (std::f64::consts::PI * share).cos()) / 2.0;
            let gamma = GAMMA.1 + (GAMMA.0 - GAMMA.1) * cosine;
            let alpha = 255.0 * f64::from(self.step_size) * (ALPHA_END + (1.0 - ALPHA_END) * cosine);
            let asks: Vec<_> = walkers.iter().enumerate().map(|(i, w)| (i, &w.x, Loss::Margin)).collect();
            let seen = context.gradient(&asks)?;
            let mut better = Vec::new();
            for (i, (logits, pulled)) in seen.iter().enumerate() {
                let flipped = context.flipped(i, logits);
                if walkers[i].weigh(context.task(i).clean, flipped, pulled, gamma) {
                    better.push(i);
                }
            }
            context.offer_rounded(&better.iter().map(|&i| (i, &walkers[i].x)).collect::<Vec<_>>())?;
            for (i, (_, pulled)) in seen.iter().enumerate() {
                walkers[i].go(context.task(i).clean, pulled, alpha);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_radius_first_reaches_for_the_boundary_then_closes_in_from_outside() {
        let clean = Pixels::new(1, 1, vec![100; 3]).unwrap();
        let mut w = Walker::new(&clean);
        assert_eq!(w.worst, 155.0);
        // Three levels away: |L| / ‖∇L‖₁ = 12 / 4.
        let pulled = Pulled { value: -12.0, gradient: vec![2.0, -1.0, 1.0] };
        assert!(!w.weigh(&clean, false, &pulled, 0.05));
        assert_eq!(w.epsilon, 3.0);
        w.go(&clean, &pulled, 255.0);
        assert_eq!(w.x.rgb, [103.0, 97.0, 103.0]);
        assert!(w.weigh(&clean, true, &pulled, 0.05));
        assert!((w.epsilon - 2.85).abs() < 1e-9 && w.best == 3.0);
        // Inside again: the radius grows by γ, not by the linearisation.
        assert!(!w.weigh(&clean, false, &pulled, 0.05));
        assert!((w.epsilon - 2.85 * 1.05).abs() < 1e-9);
    }
}
