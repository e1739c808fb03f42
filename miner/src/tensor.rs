//! A [`Model`] of a tch classifier.

use std::sync::Arc;

use perturb_challenge::pixels::Pixels;
use perturb_model::Differentiable;
use perturb_model::tensor::to_rows;
use tch::{Kind, Tensor};

use crate::model::{Levels, Model, ModelError, Passes, Pull, Pulled};

/// Images of one pass, and channel values of them together: activations for a backward pass are
/// kept for each. Where even this does not fit, the limit halves.
const MAX_BATCH: usize = 64;
const MAX_BATCH_VALUES: usize = 3 << 21;

/// A classifier in tch, differentiated with respect to its pixels in levels.
pub struct TensorModel {
    model: Arc<dyn Differentiable>,
    /// Images of one pass; halved when the device runs out of memory.
    limit: usize,
}

fn failed(e: impl std::fmt::Display) -> ModelError {
    ModelError::Failed(e.to_string())
}

/// Whether libtorch ran out of memory: its two allocators say so in these words.
fn out_of_memory(e: &ModelError) -> bool {
    matches!(e, ModelError::Failed(text) if text.contains("out of memory") || text.contains("can't allocate memory"))
}

impl TensorModel {
    /// The classifier with the usual batch limit.
    pub fn new(model: Arc<dyn Differentiable>) -> Self {
        Self { model, limit: MAX_BATCH }
    }

    /// How many of `images`, from the first, share a pass: equal sides, within the limits.
    fn run_of(&self, sides: &[(u32, u32)]) -> usize {
        let Some(first) = sides.first() else { return 0 };
        let values = (first.0 as usize * first.1 as usize * 3).max(1);
        let most = self.limit.min((MAX_BATCH_VALUES / values).max(1));
        sides.iter().take(most).take_while(|s| *s == first).count()
    }

    /// Runs `pass` over all of `sides.len()` images, in batches from `range.start` to `range.end`.
    fn batches(
        &mut self,
        sides: &[(u32, u32)],
        mut pass: impl FnMut(&dyn Differentiable, std::ops::Range<usize>) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let mut from = 0;
        while from < sides.len() {
            let count = self.run_of(&sides[from..]);
            match pass(self.model.as_ref(), from..from + count) {
                Ok(()) => from += count,
                Err(e) if out_of_memory(&e) && count > 1 => {
                    self.limit = count / 2;
                    tracing::warn!(batch = count, next = self.limit, "out of memory: smaller batches from here on");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// `images` as `N×3×H×W` on the model's device.
    fn upload(model: &dyn Differentiable, images: &[&Levels]) -> Result<Tensor, ModelError> {
        let Some(first) = images.first() else { return Err(failed("an empty batch")) };
        let each = first.width as usize * first.height as usize * 3;
        let mut flat = Vec::with_capacity(each * images.len());
        for image in images {
            if image.rgb.len() != each || each == 0 {
                return Err(failed(format!("{} values in an image of {each}", image.rgb.len())));
            }
            flat.extend_from_slice(&image.rgb);
        }
        let size = [images.len() as i64, i64::from(first.height), i64::from(first.width), 3];
        Tensor::f_from_slice(&flat)
            .and_then(|t| t.f_reshape(size.as_slice()))
            .and_then(|t| t.f_to_device(model.device()))
            .and_then(|t| t.f_permute([0_i64, 3, 1, 2].as_slice()))
            .and_then(|t| t.f_contiguous())
            .map_err(failed)
    }

    /// One forward pass over `images`, and for each round of `pulls` one backward pass. `pulls` holds
    /// each image's own, `(position in the answer, pull)`.
    fn pass(
        model: &dyn Differentiable,
        images: &[&Levels],
        pulls: &[Vec<(usize, Pull)>],
        out: &mut Passes,
    ) -> Result<(), ModelError> {
        let leaf = Self::upload(model, images)?.f_set_requires_grad(true).map_err(failed)?;
        let z = tch::with_grad(|| model.forward(&leaf)).map_err(failed)?;
        let rows = z.f_detach().map_err(failed).and_then(|z| to_rows(&z).map_err(failed))?;
        let classes = rows.first().map_or(0, Vec::len);
        let finite: Vec<bool> = rows.iter().map(|row| row.iter().all(|z| z.is_finite())).collect();
        let rounds = pulls.iter().map(Vec::len).max().unwrap_or(0);
        let mut found = Vec::new();
        for round in 0..rounds {
            // The slope of each image's loss at its logits; images without one in this round get 0.
            let mut slopes = vec![0_f32; rows.len() * classes];
            let mut values = vec![0_f32; rows.len()];
            for (i, pulls) in pulls.iter().enumerate() {
                let Some((_, pull)) = pulls.get(round) else { continue };
                // An image that is too much for the arithmetic must not take the rest of the batch with it.
                if !finite[i] {
                    values[i] = f32::NAN;
                    continue;
                }
                let (value, slope) = pull
                    .loss
                    .at(&rows[i], pull.label)
                    .ok_or_else(|| failed(format!("no {:?} of label {} at these logits", pull.loss, pull.label)))?;
                values[i] = value;
                slopes[i * classes..(i + 1) * classes].copy_from_slice(&slope);
            }
            let back = || -> Result<Tensor, tch::TchError> {
                let slopes = Tensor::f_from_slice(&slopes)?
                    .f_reshape([rows.len() as i64, classes as i64].as_slice())?
                    .f_to_device(model.device())?;
                let sum = tch::with_grad(|| z.f_mul(&slopes)?.f_sum(Kind::Float))?;
                let more = round + 1 < rounds;
                let gradients = Tensor::f_run_backward(&[&sum], &[&leaf], more, false)?;
                let gradient =
                    gradients.into_iter().next().ok_or_else(|| tch::TchError::Shape("no gradient".into()))?;
                // From planes to interleaved RGB, as the pixels are.
                gradient.f_permute([0_i64, 2, 3, 1].as_slice())?.f_contiguous()?.f_flatten(1, -1)
            };
            let gradients = back().map_err(failed).and_then(|g| to_rows(&g).map_err(failed))?;
            for (i, mut gradient) in gradients.into_iter().enumerate() {
                if let Some((at, _)) = pulls[i].get(round) {
                    if !finite[i] {
                        gradient.fill(0.0);
                    }
                    found.push((*at, Pulled { value: values[i], gradient }));
                }
            }
        }
        // Nothing is handed over before the whole batch is done: it may have to be run again.
        out.logits.extend(rows);
        for (at, pulled) in found {
            out.pulled[at] = pulled;
        }
        Ok(())
    }
}

impl Model for TensorModel {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        let sides: Vec<(u32, u32)> = images.iter().map(|i| (i.width, i.height)).collect();
        let mut rows = Vec::with_capacity(images.len());
        self.batches(&sides, |model, range| {
            rows.extend(model.logits(&images[range]).map_err(failed)?);
            Ok(())
        })?;
        Ok(rows)
    }

    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        let sides: Vec<(u32, u32)> = images.iter().map(|i| (i.width, i.height)).collect();
        let mut rows = Vec::with_capacity(images.len());
        self.batches(&sides, |model, range| {
            let x = Self::upload(model, &images[range])?;
            let z = tch::no_grad(|| model.forward(&x)).map_err(failed)?;
            rows.extend(to_rows(&z).map_err(failed)?);
            Ok(())
        })?;
        Ok(rows)
    }

    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError> {
        let sides: Vec<(u32, u32)> = images.iter().map(|i| (i.width, i.height)).collect();
        let mut of_image: Vec<Vec<(usize, Pull)>> = vec![Vec::new(); images.len()];
        for (at, pull) in pulls.iter().enumerate() {
            let list = of_image.get_mut(pull.image).ok_or_else(|| failed(format!("no image {}", pull.image)))?;
            list.push((at, *pull));
        }
        let empty = Pulled { value: 0.0, gradient: Vec::new() };
        let mut out = Passes { logits: Vec::with_capacity(images.len()), pulled: vec![empty; pulls.len()] };
        self.batches(&sides, |model, range| Self::pass(model, &images[range.clone()], &of_image[range], &mut out))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
