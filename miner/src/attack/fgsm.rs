//! FGSM, the fast gradient sign method: Goodfellow, Shlens and Szegedy, "Explaining and Harnessing
//! Adversarial Examples", ICLR 2015, section 4:
//!
//! ```text
//! x' = clip(x + ε · sign(∇ₓ J(x, y)))        J: cross-entropy
//! ```
//!
//! The one gradient serves every ε: all levels that count are offered in one batch.

use super::float::{clip, radii, sign};
use super::{Attack, Context, Options};
use crate::loss::Loss;
use crate::model::{Levels, ModelError};

/// One step of the sign of the gradient.
#[derive(Clone, Copy, Debug)]
pub struct Fgsm {
    /// ε in levels; all levels that count where it is not given.
    pub epsilon: Option<f32>,
}

impl Fgsm {
    /// With these options.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self { epsilon: options.epsilon }
    }
}

impl Attack for Fgsm {
    fn name(&self) -> &'static str {
        "fgsm"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let clean: Vec<Levels> = (0..context.len()).map(|i| Levels::from(context.task(i).clean)).collect();
        let asks: Vec<_> = clean.iter().enumerate().map(|(i, x)| (i, x, Loss::CrossEntropy)).collect();
        let gradients = context.gradient(&asks)?;
        let mut stepped = Vec::new();
        for radius in radii(context, self.epsilon) {
            for (i, (_, pulled)) in gradients.iter().enumerate() {
                let mut x = clean[i].clone();
                for ((x, g), c) in x.rgb.iter_mut().zip(&pulled.gradient).zip(&context.task(i).clean.rgb) {
                    *x = clip(*x + radius * sign(*g), *c, radius);
                }
                stepped.push((i, x));
            }
        }
        let stepped: Vec<(usize, &Levels)> = stepped.iter().map(|(i, x)| (*i, x)).collect();
        context.offer_rounded(&stepped)?;
        Ok(())
    }
}
