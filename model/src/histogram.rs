//! The smallest level of a dense flip: how hard the demo images are.
//!
//! For k = 1, 2, …: every channel value is moved by exactly k levels (kept in `0..=255`) against the
//! sign of the margin's gradient, and the gradient is taken again at the result and accumulated,
//! a stated number of times. The smallest k at which the predicted label changes, by at least a
//! stated margin of logits, is the image's level. The label is the model's own on the clean image.
//!
//! The embedded weights, on the first 1000 held-out images (`weights/README.md` has the command):
//!
//! | smallest k | images | share |
//! |---|---|---|
//! | 1 | 204 | 20.4 % |
//! | 2 | 371 | 37.1 % |
//! | 3 | 214 | 21.4 % |
//! | more, or none | 211 | 21.1 % |
//!
//! This is an upper bound on the true smallest level: a stronger attack may need less. Levels above
//! 3 have no dense flip that passes a PSNR gate of 38 dB (k = 4 has 36.1 dB); such images need
//! sparse changes.

use crate::classifier::Differentiable;
use crate::error::ModelError;
use crate::tensor::{input_gradient, margins, to_pixels, to_tensor};
use perturb_challenge::pixels::Pixels;
use tch::{Kind, Tensor};

/// The attack that measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelAttack {
    /// Largest level tried.
    pub max_level: u8,
    /// Gradients taken at each level.
    pub steps: u32,
    /// Smallest margin, in logits, by which another class must lead.
    pub min_margin: f64,
}

impl Default for LevelAttack {
    /// Levels 1 to 3, ten gradients each, a lead of 0.05: fifty thousand times the rounding noise
    /// of fp32 logits and well inside what one more step gives.
    fn default() -> Self {
        Self { max_level: 3, steps: 10, min_margin: 0.05 }
    }
}

/// A dense flip at the smallest level found.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseFlip {
    /// Largest change of a channel value, in levels.
    pub level: u8,
    /// Lead of the new label over the old one, in logits.
    pub lead: f32,
    /// The changed image.
    pub pixels: Pixels,
}

/// How many images flip at each level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LevelHistogram {
    /// `counts[k − 1]`: images whose smallest level is k.
    pub counts: Vec<u64>,
    /// Images that no level tried flips.
    pub more: u64,
}

impl LevelHistogram {
    /// Number of images.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.more
    }

    /// The counts of levels 1, 2, … and of "more", as shares of all images.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let total = self.total().max(1) as f64;
        self.counts.iter().chain([&self.more]).map(|count| *count as f64 / total).collect()
    }
}

/// The smallest level of a dense flip of one image, or `None` beyond the attack's largest.
///
/// # Errors
/// What the model reports.
pub fn minimal_level<M: Differentiable + ?Sized>(
    model: &M,
    image: &Pixels,
    attack: &LevelAttack,
) -> Result<Option<DenseFlip>, ModelError> {
    Ok(minimal_levels(model, &[image], attack)?.pop().flatten())
}

/// [`minimal_level`] of equally sized images, as one batch.
///
/// # Errors
/// What the model reports.
pub fn minimal_levels<M: Differentiable + ?Sized>(
    model: &M,
    images: &[&Pixels],
    attack: &LevelAttack,
) -> Result<Vec<Option<DenseFlip>>, ModelError> {
    let clean = to_tensor(images, model.device())?;
    let labels = tch::no_grad(|| model.forward(&clean))?.f_argmax(1, false)?;
    let mut flips = vec![None; images.len()];
    let gradient_at = |x: &Tensor, labels: &Tensor| {
        let (logits, gradient) = input_gradient(model, x, |logits| Ok(margins(logits, labels)?.f_sum(Kind::Float)?))?;
        Ok::<_, ModelError>((margins(&logits, labels)?, normalised(&gradient)?))
    };

    let mut open: Vec<usize> = (0..images.len()).collect();
    let (_, mut direction) = gradient_at(&clean, &labels)?;
    for level in 1..=attack.max_level {
        for _ in 0..attack.steps.max(1) {
            let rows = rows_tensor(&open, clean.device())?;
            let start = clean.f_index_select(0, &rows)?;
            let step = direction.f_sign()?.f_mul_scalar(f64::from(level))?;
            let moved = start.f_sub(&step)?.f_clamp(0.0, 255.0)?;
            let (margin, gradient) = gradient_at(&moved, &labels.f_index_select(0, &rows)?)?;
            let margin: Vec<f32> = Vec::try_from(&margin)?;
            let mut kept = Vec::with_capacity(open.len());
            for (row, (&image, &margin)) in open.iter().zip(&margin).enumerate() {
                if f64::from(margin) <= -attack.min_margin {
                    let pixels = to_pixels(&moved.f_narrow(0, row as i64, 1)?)?.pop();
                    flips[image] = pixels.map(|pixels| DenseFlip { level, lead: -margin, pixels });
                } else {
                    kept.push(row);
                }
            }
            if kept.is_empty() {
                return Ok(flips);
            }
            let rows = rows_tensor(&kept, clean.device())?;
            direction = direction.f_add(&gradient)?.f_index_select(0, &rows)?;
            open = kept.into_iter().map(|row| open[row]).collect();
        }
    }
    Ok(flips)
}

/// Each image's gradient divided by its mean magnitude, so that steps add up evenly.
fn normalised(gradient: &Tensor) -> Result<Tensor, ModelError> {
    let mean = gradient.f_abs()?.f_mean_dim([1_i64, 2, 3].as_slice(), true, Kind::Float)?;
    Ok(gradient.f_div(&mean.f_clamp_min(1e-30)?)?)
}

fn rows_tensor(rows: &[usize], device: tch::Device) -> Result<Tensor, ModelError> {
    let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    Ok(Tensor::f_from_slice(&rows)?.f_to_device(device)?)
}

/// The histogram of many equally sized images, in batches of `batch`.
///
/// # Errors
/// What the model reports.
pub fn histogram<M: Differentiable + ?Sized>(
    model: &M,
    images: &[Pixels],
    attack: &LevelAttack,
    batch: usize,
) -> Result<LevelHistogram, ModelError> {
    let mut counts = vec![0; usize::from(attack.max_level)];
    let mut more = 0;
    for chunk in images.chunks(batch.max(1)) {
        let chunk: Vec<&Pixels> = chunk.iter().collect();
        for flip in minimal_levels(model, &chunk, attack)? {
            match flip.and_then(|flip| counts.get_mut(usize::from(flip.level) - 1)) {
                Some(count) => *count += 1,
                None => more += 1,
            }
        }
    }
    Ok(LevelHistogram { counts, more })
}

#[cfg(test)]
mod tests;
