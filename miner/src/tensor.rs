//! A [`GradientModel`] of a tch classifier.

use perturb_challenge::pixels::Pixels;
use perturb_model::{Differentiable, input_gradient, margins, to_tensor};
use tch::Tensor;

use crate::gradient::{GradientModel, MarginGradient, ModelError};

/// A classifier in tch, differentiated with respect to its 8-bit pixels.
pub struct TensorModel<M>(pub M);

fn failed(e: impl std::fmt::Display) -> ModelError {
    ModelError::Failed(e.to_string())
}

fn floats(t: &Tensor) -> Result<Vec<f32>, ModelError> {
    Vec::<f32>::try_from(
        t.f_to_device(tch::Device::Cpu).and_then(|t| t.f_reshape([-1_i64].as_slice())).map_err(failed)?,
    )
    .map_err(failed)
}

impl<M: Differentiable> GradientModel for TensorModel<M> {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.0.logits(images).map_err(failed)
    }

    fn margin_gradient(&mut self, image: &Pixels, label: u16) -> Result<MarginGradient, ModelError> {
        let device = self.0.device();
        let x = to_tensor(&[image], device).map_err(failed)?;
        let labels = Tensor::from_slice(&[i64::from(label)]).to_device(device);
        let (logits, gradient) =
            input_gradient(&self.0, &x, |z| Ok(margins(z, &labels)?.f_sum(tch::Kind::Float)?)).map_err(failed)?;
        // From planes (3×H×W) to interleaved RGB, as the pixels are.
        let interleaved =
            gradient.f_squeeze_dim(0).and_then(|g| g.f_permute([1_i64, 2, 0].as_slice())).map_err(failed)?;
        Ok(MarginGradient { logits: floats(&logits)?, gradient: floats(&interleaved)? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::attack::{self, Context};
    use crate::criterion::{Criterion, RuleCriterion};
    use crate::gradient::margin;
    use crate::metered::Metered;
    use perturb_challenge::demo;
    use perturb_challenge::rules::Rules;
    use perturb_model::TchClassifier;

    fn model() -> TensorModel<TchClassifier> {
        perturb_model::set_threads(1);
        TensorModel(TchClassifier::embedded(tch::Device::Cpu).unwrap())
    }

    #[test]
    fn the_gradient_is_the_margins_in_the_pixels_own_order() {
        let mut m = model();
        let (image, label) = demo::draw(11, 3);
        let at = m.margin_gradient(&image, label).unwrap();
        // Raising the values with the largest gradient must raise the margin more than lowering them.
        let mut order: Vec<usize> = (0..at.gradient.len()).collect();
        order.sort_by(|a, b| at.gradient[*b].abs().total_cmp(&at.gradient[*a].abs()));
        let moved = |by: i16| {
            let mut i = image.clone();
            for &p in &order[..200] {
                let d = if at.gradient[p] > 0.0 { by } else { -by };
                i.rgb[p] = (i16::from(i.rgb[p]) + d).clamp(0, 255) as u8;
            }
            i
        };
        let z = m.logits(&[&moved(2), &moved(-2)]).unwrap();
        assert!(margin(&z[0], label).unwrap().1 > margin(&z[1], label).unwrap().1);
        assert_eq!(at.gradient.len(), image.rgb.len());
    }

    #[test]
    fn on_the_demo_set_the_ladder_scores_above_the_baseline() {
        let criterion = RuleCriterion::new(Rules::subnet());
        let (mut ours, mut base, mut flipped) = (0u64, 0u64, 0u32);
        for i in 0..12 {
            let mut m = model();
            let (image, _) = demo::draw(77, i);
            let z = m.logits(&[&image]).unwrap().remove(0);
            let label = (0..z.len()).max_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap() as u16;
            let worth = |name: &str| {
                let mut metered = Metered::new(model(), 2000, None);
                let found = attack::run(
                    attack::by_name(name).unwrap().as_ref(),
                    Context::new(&mut metered, &criterion, &image, label),
                )
                .unwrap();
                if let Some(f) = &found {
                    assert!(criterion.gates(&image, &f.image).is_some());
                }
                found.map_or(0, |f| u64::from(f.worth.score))
            };
            let (o, b) = (worth("ladder"), worth("baseline"));
            ours += o;
            base += b;
            flipped += u32::from(o > 0);
        }
        assert!(flipped >= 8, "the ladder flipped {flipped} of 12");
        assert!(ours > base, "ladder {ours}, baseline {base}");
    }
}
