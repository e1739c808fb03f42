//! From an image of any size to a network's input, in the graph.
//!
//! ```text
//! resize     antialiased bicubic, of real numbers, without clamping: what the libraries do to tensors
//! crop       the centre, a square
//! normalise  (x/255 − mean)/std for each channel
//! ```
//!
//! The resize is linear with weights that sum to one, so it does not matter that the libraries
//! normalise to `0..=1` first. Pixels outside the crop (and the reach of its filter) have gradient zero.

use crate::error::ModelError;
use tch::{Device, Kind, Tensor};

/// Largest resized image, pixels: a strip of 4096×1 would otherwise become gigabytes.
const MAX_RESIZED_PIXELS: i64 = 1 << 22;

/// How an image gets its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The shorter side becomes this long, the other follows (rounded down).
    Shortest(i64),
    /// Both sides become this long, whatever they were.
    Squash(i64),
}

/// All that happens to an image before the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessing {
    /// How it is resized.
    pub resize: Resize,
    /// Side of the square that is cut from the centre, at most the resized side.
    pub crop: i64,
    /// Subtracted from each channel of the `0..=1` range.
    pub mean: [f64; 3],
    /// What each channel is divided by.
    pub deviation: [f64; 3],
}

/// Channel means and deviations of ImageNet.
pub const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// The range −1..=1.
pub const HALF: ([f64; 3], [f64; 3]) = ([0.5; 3], [0.5; 3]);

impl Preprocessing {
    /// With the shorter side resized to `resize`.
    #[must_use]
    pub const fn shortest(resize: i64, crop: i64, normal: ([f64; 3], [f64; 3])) -> Self {
        Self { resize: Resize::Shortest(resize), crop, mean: normal.0, deviation: normal.1 }
    }

    /// With both sides resized to `side`, and nothing cut.
    #[must_use]
    pub const fn squash(side: i64, normal: ([f64; 3], [f64; 3])) -> Self {
        Self { resize: Resize::Squash(side), crop: side, mean: normal.0, deviation: normal.1 }
    }

    /// `N×3×H×W` in 8-bit levels to `N×3×crop×crop`, normalised. Differentiable.
    ///
    /// # Errors
    /// `Input` for another shape or an image so long and thin that resizing it would fill the memory.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let size = x.size();
        let &[n, 3, height, width] = size.as_slice() else {
            return Err(ModelError::Input(format!("shape {size:?}, expected [N, 3, H, W]")));
        };
        if n < 1 || height < 1 || width < 1 {
            return Err(ModelError::Input(format!("shape {size:?} has an empty dimension")));
        }
        let (tall, wide) = self.resized(height, width);
        if tall.saturating_mul(wide) > MAX_RESIZED_PIXELS {
            return Err(ModelError::Input(format!(
                "an image of {width}x{height} would be resized to {wide}x{tall}, more than {MAX_RESIZED_PIXELS} pixels"
            )));
        }
        let resized = match (tall, wide) == (height, width) {
            true => x.shallow_clone(),
            false => x.f_internal_upsample_bicubic2d_aa([tall, wide], false, None, None)?,
        };
        let cropped = resized.f_narrow(2, centred(tall, self.crop), self.crop)?.f_narrow(
            3,
            centred(wide, self.crop),
            self.crop,
        )?;
        let (scale, shift) = self.affine(x.kind(), x.device())?;
        Ok(cropped.f_mul(&scale)?.f_sub(&shift)?)
    }

    /// Pixels of the largest picture on the way of an image of this height and width.
    pub(crate) fn pixels(&self, height: i64, width: i64) -> i64 {
        let (tall, wide) = self.resized(height.max(1), width.max(1));
        [(height, width), (tall, wide), (self.crop, self.crop)]
            .into_iter()
            .fold(1, |most, (height, width)| most.max(height.saturating_mul(width)))
    }

    /// Height and width after the resize.
    fn resized(&self, height: i64, width: i64) -> (i64, i64) {
        match self.resize {
            Resize::Squash(side) => (side, side),
            Resize::Shortest(side) if height <= width => (side, side.saturating_mul(width) / height),
            Resize::Shortest(side) => (side.saturating_mul(height) / width, side),
        }
    }

    /// `1/(255·std)` and `mean/std`, each `1×3×1×1`.
    fn affine(&self, kind: Kind, device: Device) -> Result<(Tensor, Tensor), ModelError> {
        // By operations alone: a trace would forget data.
        let one = |value: f64| Tensor::f_full([1_i64, 1, 1, 1], value, (kind, device));
        let per_channel =
            |[r, g, b]: [f64; 3]| -> Result<Tensor, ModelError> { Ok(Tensor::f_cat(&[one(r)?, one(g)?, one(b)?], 1)?) };
        let scale = self.deviation.map(|deviation| 1.0 / (255.0 * deviation));
        let mut shift = self.mean;
        shift.iter_mut().zip(self.deviation).for_each(|(mean, deviation)| *mean /= deviation);
        Ok((per_channel(scale)?, per_channel(shift)?))
    }
}

/// Where a crop of `crop` begins in a side: half of the rest, halves rounded to the even number (what
/// both libraries do).
fn centred(side: i64, crop: i64) -> i64 {
    let rest = (side - crop).max(0);
    let half = rest / 2;
    if rest % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn image(height: i64, width: i64) -> Tensor {
        Tensor::arange(3 * height * width, (Kind::Float, Device::Cpu)).reshape([1, 3, height, width]).remainder(251.0)
    }

    #[test]
    fn an_image_of_the_right_size_is_only_normalised() {
        let x = image(8, 8);
        let y = Preprocessing::squash(8, HALF).apply(&x).unwrap();
        assert!(y.allclose(&((x / 255.0 - 0.5) / 0.5), 1e-6, 1e-6, false));
    }

    #[test]
    fn the_shorter_side_gets_the_size_and_the_centre_stays() {
        let p = Preprocessing::shortest(10, 8, IMAGENET);
        assert_eq!(p.resized(20, 31), (10, 15));
        assert_eq!(p.resized(31, 20), (15, 10));
        for (height, width) in [(20, 31), (31, 20), (3, 4), (10, 10), (1, 1)] {
            assert_eq!(p.apply(&image(height, width)).unwrap().size(), [1, 3, 8, 8]);
        }
    }

    #[test]
    fn halves_are_rounded_to_the_even_pixel() {
        assert_eq!([4, 5, 6, 7, 8, 9, 11].map(|side| centred(side, 4)), [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn strips_and_other_shapes_are_errors() {
        let p = Preprocessing::shortest(480, 480, HALF);
        assert!(matches!(p.apply(&image(1, 4096)), Err(ModelError::Input(_))));
        for shape in [&[3_i64, 8, 8][..], &[1, 1, 8, 8], &[0, 3, 8, 8], &[1, 3, 0, 8], &[]] {
            let x = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            assert!(matches!(p.apply(&x), Err(ModelError::Input(_))), "{shape:?}");
        }
    }

    #[test]
    fn what_the_crop_does_not_reach_has_no_gradient() {
        let x = image(16, 40).set_requires_grad(true);
        let y = Preprocessing::shortest(16, 16, HALF).apply(&x).unwrap().sum(Kind::Float);
        let gradient = Tensor::run_backward(&[&y], &[&x], false, false).remove(0);
        assert_eq!(gradient.narrow(3, 0, 12).abs().max().double_value(&[]), 0.0);
        assert!(gradient.narrow(3, 12, 16).abs().min().double_value(&[]) > 0.0);
    }
}
