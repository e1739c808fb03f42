//! PGD: Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards Deep Learning Models Resistant to
//! Adversarial Attacks", ICLR 2018, section 2.1, in the L∞ ball S of radius ε:
//!
//! ```text
//! x⁰ uniform in x + S,   xᵗ⁺¹ = Π_{x+S}(xᵗ + α · sign(∇ₓ L(xᵗ, y)))        L: cross-entropy
//! ```
//!
//! Defaults: 40 steps of α = ε/30 (the paper's MNIST setting: 40 steps of 0.01 for ε = 0.3), one
//! start. Every iterate that flips is offered, and the last one of each start.

use super::float::{at_each_radius, clip, random_start, sign, stream};
use super::{Attack, Context, MAX_STEPS, Options};
use crate::loss::Loss;
use crate::model::{Levels, ModelError};

/// Projected gradient descent.
#[derive(Clone, Copy, Debug)]
pub struct Pgd {
    /// ε in levels; all levels that count, one after the other, where it is not given.
    pub epsilon: Option<f32>,
    /// Steps of one start.
    pub steps: u32,
    /// α/ε.
    pub step_size: f32,
    /// Starts.
    pub restarts: u32,
}

impl Pgd {
    /// With these options.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            epsilon: options.epsilon,
            steps: options.steps.unwrap_or(40).min(MAX_STEPS),
            step_size: options.step_size.unwrap_or(1.0 / 30.0),
            restarts: options.restarts.unwrap_or(1).clamp(1, MAX_STEPS),
        }
    }

    fn start(&self, context: &mut Context<'_>, epsilon: f32, restart: u32) -> Result<(), ModelError> {
        let alpha = self.step_size * epsilon;
        let open = context.open();
        let mut x: Vec<(usize, Levels)> = open
            .into_iter()
            .map(|i| (i, random_start(context.task(i).clean, epsilon, &mut stream(context, i, restart))))
            .collect();
        for _ in 0..self.steps {
            let asks: Vec<_> = x.iter().map(|(i, x)| (*i, x, Loss::CrossEntropy)).collect();
            let gradients = context.gradient(&asks)?;
            let flips: Vec<(usize, &Levels)> = x
                .iter()
                .zip(&gradients)
                .filter(|((i, _), (logits, _))| context.flipped(*i, logits))
                .map(|((i, x), _)| (*i, x))
                .collect();
            context.offer_rounded(&flips)?;
            for ((i, x), (_, pulled)) in x.iter_mut().zip(&gradients) {
                for ((x, g), c) in x.rgb.iter_mut().zip(&pulled.gradient).zip(&context.task(*i).clean.rgb) {
                    *x = clip(*x + alpha * sign(*g), *c, epsilon);
                }
            }
            x.retain(|(i, _)| context.best(*i).is_none());
            if x.is_empty() {
                return Ok(());
            }
        }
        let last: Vec<(usize, &Levels)> = x.iter().map(|(i, x)| (*i, x)).collect();
        context.offer_rounded(&last)?;
        Ok(())
    }
}

impl Attack for Pgd {
    fn name(&self) -> &'static str {
        "pgd"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        at_each_radius(context, self.epsilon, |context, epsilon, _| {
            for restart in 0..self.restarts {
                self.start(context, epsilon, restart)?;
            }
            Ok(())
        })
    }
}
