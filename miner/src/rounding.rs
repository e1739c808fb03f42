//! From images between the levels to 8-bit candidates.
//!
//! Attacks from continuous space stop just behind the boundary, so that rounding takes many of their
//! flips away again. Both ways are offered: to the nearest level, which keeps the change as it is on
//! average, and away from the clean image, which keeps every change at least as large as it was.

use perturb_challenge::pixels::Pixels;

use crate::model::Levels;

/// Changes below this many levels are noise of the arithmetic and round to none.
const NOISE: f32 = 1e-3;

/// Which way to round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest level.
    Nearest,
    /// Away from the clean image.
    Away,
}

/// `image` rounded, within 0..=255. Both must have the same shape; values beyond the shorter one
/// are the clean image's.
#[must_use]
pub fn round(clean: &Pixels, image: &Levels, way: Rounding) -> Pixels {
    let mut out = clean.clone();
    for (c, x) in out.rgb.iter_mut().zip(&image.rgb) {
        let change = x - f32::from(*c);
        let whole = match way {
            _ if !change.is_finite() || change.abs() < NOISE => 0.0,
            Rounding::Nearest => change.round(),
            // A change of 2.0004 levels is one of two.
            Rounding::Away => (change.abs() - NOISE).ceil().copysign(change),
        };
        *c = (f32::from(*c) + whole).clamp(0.0, 255.0) as u8;
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn rounded(x: [f32; 6], way: Rounding) -> Vec<u8> {
        let clean = Pixels::new(2, 1, vec![10, 10, 10, 0, 255, 10]).unwrap();
        round(&clean, &Levels { width: 2, height: 1, rgb: x.to_vec() }, way).rgb
    }

    #[test]
    fn nearest_and_away_differ_where_a_change_is_a_fraction() {
        let x = [10.4, 9.6, 11.2, 0.3, 254.6, 10.0];
        assert_eq!(rounded(x, Rounding::Nearest), [10, 10, 11, 0, 255, 10]);
        assert_eq!(rounded(x, Rounding::Away), [11, 9, 12, 1, 254, 10]);
    }

    #[test]
    fn noise_and_what_is_no_number_change_nothing() {
        let x = [10.0004, f32::NAN, 12.0004, -0.0002, 255.0002, f32::INFINITY];
        assert_eq!(rounded(x, Rounding::Away), [10, 10, 12, 0, 255, 10]);
        assert_eq!(rounded([10.0, 10.0, 10.0, -9.0, 300.0, 10.0], Rounding::Nearest), [10, 10, 10, 0, 255, 10]);
    }
}
