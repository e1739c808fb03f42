//! Exact measurements of an answer against its clean image.

use perturb_types::Measurement;
use pulp::{Simd, WithSimd};

use crate::pixels::Pixels;
use crate::ssim;

/// Two images that cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer has {found:?} pixels, the clean image {expected:?}")]
pub struct ShapeMismatch {
    /// Width and height of the clean image.
    pub expected: (u32, u32),
    /// Width and height of the answer.
    pub found: (u32, u32),
}

/// Level, sum of squares, changed values and SSIM of `adversarial` against `clean`.
///
/// # Errors
/// The shapes differ.
pub fn measure(clean: &Pixels, adversarial: &Pixels) -> Result<Measurement, ShapeMismatch> {
    if !clean.same_shape(adversarial) {
        let expected = (clean.width, clean.height);
        return Err(ShapeMismatch { expected, found: (adversarial.width, adversarial.height) });
    }
    let mut m = pulp::Arch::new().dispatch(Differences(&clean.rgb, &adversarial.rgb));
    m.ssim = ssim::ssim(clean, adversarial);
    Ok(m)
}

/// Everything but SSIM, of the clean values and as many others, compiled for what vectors there are.
struct Differences<'a>(&'a [u8], &'a [u8]);

impl WithSimd for Differences<'_> {
    type Output = Measurement;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Measurement {
        /// Values whose squares fit 32 bits together (255²·2¹⁴ < 2³⁰), so that a loop stays in vectors.
        const CHUNK: usize = 1 << 14;
        let Self(clean, adversarial) = self;
        let (mut level, mut sum_squares, mut changed) = (0u8, 0u64, 0u32);
        for (clean, adversarial) in clean.chunks(CHUNK).zip(adversarial.chunks(CHUNK)) {
            let (mut squares, mut moved) = (0u32, 0u32);
            for (&a, &b) in clean.iter().zip(adversarial) {
                let d = a.abs_diff(b);
                level = level.max(d);
                squares = squares.wrapping_add(u32::from(d).wrapping_mul(u32::from(d)));
                moved = moved.wrapping_add(u32::from(d != 0));
            }
            sum_squares += u64::from(squares);
            changed += moved;
        }
        let channels = u32::try_from(clean.len()).unwrap_or(u32::MAX);
        Measurement { level, sum_squares, changed, channels, ..Measurement::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_types::Millionths;

    #[test]
    fn a_hand_computed_difference() {
        let clean = Pixels::new(2, 1, vec![10, 20, 30, 40, 50, 60]).unwrap();
        let other = Pixels::new(2, 1, vec![10, 23, 28, 40, 50, 61]).unwrap();
        let m = measure(&clean, &other).unwrap();
        assert_eq!((m.level, m.sum_squares, m.changed, m.channels), (3, 14, 3, 6));
        let same = measure(&clean, &clean).unwrap();
        assert_eq!((same.level, same.sum_squares, same.changed, same.ssim), (0, 0, 0, Millionths::ONE));
    }

    #[test]
    fn the_largest_difference_does_not_overflow() {
        let black = Pixels::new(640, 64, vec![0; 640 * 64 * 3]).unwrap();
        let white = Pixels::new(640, 64, vec![255; 640 * 64 * 3]).unwrap();
        let m = measure(&black, &white).unwrap();
        assert_eq!((m.level, m.sum_squares), (255, 640 * 64 * 3 * 65_025));
    }

    #[test]
    fn other_shapes_are_refused_also_with_the_same_number_of_values() {
        let a = Pixels::new(2, 1, vec![0; 6]).unwrap();
        let b = Pixels::new(1, 2, vec![0; 6]).unwrap();
        assert!(measure(&a, &b).is_err());
    }
}
