//! The simple strong attack under these rules: sign-gradient steps of one 8-bit level from the clean
//! image, which stops at the first flip (iterative FGSM: Kurakin, Goodfellow and Bengio, "Adversarial
//! examples in the physical world", 2016, section 2.2, with α = 1 as there, on the 8-bit grid):
//!
//! ```text
//! x₀ = x,   xₙ₊₁ = clip_ε(xₙ + sign(∇ₓ margin(xₙ, y)))
//! ```

use perturb_challenge::pixels::Pixels;

use super::{Attack, Context, MAX_STEPS, Options};
use crate::loss::Loss;
use crate::model::{Levels, ModelError};

/// Dense sign-gradient steps.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// Steps at the most.
    pub steps: u32,
}

impl Baseline {
    /// With these options; ten steps where nothing is said.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self { steps: options.steps.unwrap_or(10).min(MAX_STEPS) }
    }
}

/// `image` one level up the gradient, within `highest` of the clean image.
fn step(clean: &Pixels, image: &Pixels, gradient: &[f32], highest: u8) -> Pixels {
    let mut next = image.clone();
    for ((x, c), g) in next.rgb.iter_mut().zip(&clean.rgb).zip(gradient) {
        if *g > 0.0 {
            *x = x.saturating_add(1).min(c.saturating_add(highest));
        } else if *g < 0.0 {
            *x = x.saturating_sub(1).max(c.saturating_sub(highest));
        }
    }
    next
}

impl Attack for Baseline {
    fn name(&self) -> &'static str {
        "baseline"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let (_, highest) = context.criterion().levels();
        let mut current: Vec<Pixels> = (0..context.len()).map(|i| context.task(i).clean.clone()).collect();
        for _ in 0..self.steps {
            let open = context.open();
            if open.is_empty() {
                break;
            }
            let at: Vec<Levels> = open.iter().map(|&i| Levels::from(&current[i])).collect();
            let asks: Vec<_> = open.iter().zip(&at).map(|(&i, x)| (i, x, Loss::Margin)).collect();
            let gradients = context.gradient(&asks)?;
            let mut stepped = Vec::with_capacity(open.len());
            for (&i, (_, pulled)) in open.iter().zip(&gradients) {
                let mut next = step(context.task(i).clean, &current[i], &pulled.gradient, highest);
                context.mark(i, &mut next);
                current[i].clone_from(&next);
                stepped.push((i, next));
            }
            context.offer(stepped)?;
        }
        Ok(())
    }
}
