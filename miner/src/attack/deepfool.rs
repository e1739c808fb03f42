//! DeepFool: Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool
//! deep neural networks", CVPR 2016, Algorithm 2 with p = ∞, q = 1 (section 3.3). While the label
//! stands, with f'ₖ = zₖ − z_y and w'ₖ its gradient:
//!
//! ```text
//! l̂  = argminₖ |f'ₖ| / ‖w'ₖ‖₁                                                line 9
//! rᵢ = (|f'_l̂| / ‖w'_l̂‖₁) · sign(w'_l̂)                                       eq. 12
//! x  = x₀ + (1 + η) Σ rᵢ                                          overshoot η = 0.02
//! ```
//!
//! As in the authors' code the classes are the ten best of the clean image, the overshoot counts in
//! every step, at most 50 steps are made, and 10⁻⁴ of the pixel range is added to each distance so
//! that a step never stops short of the plane. The end point is offered rounded, once.

use super::float::sign;
use super::{Ask, Attack, Context, MAX_STEPS, Options};
use crate::loss::{Loss, others};
use crate::model::{Levels, ModelError, Pulled};

/// Other classes that are looked at: with the label ten.
const CLASSES: usize = 9;

/// η.
const OVERSHOOT: f32 = 0.02;

/// Added to each distance, levels.
const BEYOND: f32 = 255.0 * 1e-4;

/// DeepFool for L∞.
#[derive(Clone, Copy, Debug)]
pub struct DeepFool {
    /// Steps at the most.
    pub steps: u32,
}

impl DeepFool {
    /// With these options.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self { steps: options.steps.unwrap_or(50).min(MAX_STEPS) }
    }
}

/// ‖gradient‖₁.
fn l1(gradient: &[f32]) -> f32 {
    gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>().max(1e-12) as f32
}

/// The step to the nearest of the linearised boundaries: its length and the gradient to follow.
fn nearest(pulled: &[Pulled]) -> Option<(f32, &[f32])> {
    let distance = |p: &Pulled| p.value.abs() / l1(&p.gradient);
    let best = pulled.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    Some((distance(best) + BEYOND, &best.gradient))
}

impl Attack for DeepFool {
    fn name(&self) -> &'static str {
        "deepfool"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let clean: Vec<Levels> = (0..context.len()).map(|i| Levels::from(context.task(i).clean)).collect();
        let logits = context.float_logits(&clean.iter().collect::<Vec<_>>())?;
        let losses: Vec<Vec<Loss>> = logits
            .iter()
            .enumerate()
            .map(|(i, z)| {
                let best = others(z, context.task(i).label);
                best.into_iter().take(CLASSES).map(|target| Loss::Difference { target }).collect()
            })
            .collect();
        // Σ rᵢ and the point it leads to.
        let mut total: Vec<Vec<f32>> = clean.iter().map(|x| vec![0.0; x.rgb.len()]).collect();
        let mut current = clean.clone();
        let mut open: Vec<usize> = (0..context.len()).collect();
        for _ in 0..self.steps {
            let asks: Vec<Ask<'_>> =
                open.iter().map(|&i| Ask { task: i, at: &current[i], losses: &losses[i] }).collect();
            let replies = context.gradients(&asks)?;
            let mut done = Vec::new();
            for (&i, reply) in open.iter().zip(&replies) {
                let step = nearest(&reply.pulled);
                let (Some((length, gradient)), false) = (step, context.flipped(i, &reply.logits)) else {
                    done.push(i);
                    continue;
                };
                let values = current[i].rgb.iter_mut().zip(&mut total[i]).zip(gradient).zip(&clean[i].rgb);
                for (((x, r), g), c) in values {
                    *r += length * sign(*g);
                    *x = (c + (1.0 + OVERSHOOT) * *r).clamp(0.0, 255.0);
                }
            }
            context.offer_rounded(&done.iter().map(|&i| (i, &current[i])).collect::<Vec<_>>())?;
            open.retain(|i| !done.contains(i));
            if open.is_empty() {
                return Ok(());
            }
        }
        context.offer_rounded(&open.iter().map(|&i| (i, &current[i])).collect::<Vec<_>>())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_nearest_boundary_in_l_infinity_is_the_one_that_is_followed() {
        // 6/3 = 2 levels away against 5/5 = 1.
        let far = Pulled { value: -6.0, gradient: vec![1.0, -1.0, 1.0] };
        let near = Pulled { value: -5.0, gradient: vec![5.0, 0.0, 0.0] };
        let pulled = [far, near];
        let (length, gradient) = nearest(&pulled).unwrap();
        assert!((length - 1.0 - BEYOND).abs() < 1e-6);
        assert_eq!(gradient, [5.0, 0.0, 0.0]);
        assert!(nearest(&[]).is_none());
    }
}
