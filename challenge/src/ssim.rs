//! SSIM, the same in the last millionth on every machine.
//!
//! Window 11×11, uniform, stride 1; the image is padded with 5 zeros on each side, and these count
//! in the means: there is one window per pixel, always over 121 values. Per channel; c1 = 0.01²,
//! c2 = 0.03² on the 0..1 scale; the result is the mean over all windows of all three channels.
//!
//! With the window sums X = Σx, Y = Σy, P = Σxy and Q = Σx² + Σy² of 8-bit values, multiplying
//! numerator and denominator by 121²·255² makes both factors integers but for the constants, and
//! by 10⁴ the constants too:
//!
//! ```text
//! ssim = (10⁴·2XY + C1)·(10⁴·2(121·P − XY) + C2)
//!      / (10⁴·(X² + Y²) + C1)·(10⁴·(121·Q − X² − Y²) + C2)
//! C1 = 1·121²·255² = 952 031 025,   C2 = 9·C1
//! ```
//!
//! Every factor is an integer below 2⁵³, so `f64` holds it exactly, and only the two products, the
//! quotient and the sums over the windows round: per channel in the order row, column, then red plus
//! green plus blue. Millionths are rounded to the nearest, halves upwards, and kept within 0 and 1.

use perturb_types::Millionths;
use pulp::{Simd, WithSimd};

use crate::pixels::{CHANNELS, Pixels};

/// Pixels that the window reaches to each side.
const REACH: usize = 5;

/// Padding of a row to each side, in channel values.
const PADDING: usize = REACH * CHANNELS;

/// Values of a window.
const AREA: f64 = 121.0;

/// 10⁴·c1·121²·255².
const C1: f64 = 952_031_025.0;

/// 10⁴·c2·121²·255².
const C2: f64 = 9.0 * C1;

/// 10⁴: makes c1 and c2 whole.
const SCALE: f64 = 10_000.0;

/// One value per channel value of a row, for each of: Σx, Σy, Σxy, Σx² + Σy². The channels stay
/// interleaved as in the image, so that a loop over a row has no branch and the compiler can use
/// vectors. A sum is at most 121·2·255², far below 2³¹.
#[derive(Clone)]
struct Row([Vec<i32>; 4]);

impl Row {
    fn new(len: usize) -> Self {
        Self(std::array::from_fn(|_| vec![0; len]))
    }

    /// Adds (`sign` 1) or takes away (−1) an image row, behind the left padding.
    #[inline(always)]
    fn update(&mut self, x: &[u8], y: &[u8], sign: i32) {
        let [sx, sy, products, squares] = self.0.each_mut().map(|sums| sums[PADDING..].iter_mut());
        for ((((sx, sy), (products, squares)), x), y) in sx.zip(sy).zip(products.zip(squares)).zip(x).zip(y) {
            let (x, y) = (i32::from(*x), i32::from(*y));
            *sx = sx.wrapping_add(sign.wrapping_mul(x));
            *sy = sy.wrapping_add(sign.wrapping_mul(y));
            *products = products.wrapping_add(sign.wrapping_mul(x.wrapping_mul(y)));
            *squares = squares.wrapping_add(sign.wrapping_mul(x.wrapping_mul(x).wrapping_add(y.wrapping_mul(y))));
        }
    }

    /// Sums over the windows of this row of column sums, into `windows`; `pairs` is room to work in.
    #[inline(always)]
    fn slide(&self, pairs: &mut [i32], windows: &mut Self) {
        for (columns, out) in self.0.iter().zip(&mut windows.0) {
            for ((pair, a), b) in pairs.iter_mut().zip(columns).zip(&columns[CHANNELS..]) {
                *pair = a.wrapping_add(*b);
            }
            let two = |at: usize| pairs[at * CHANNELS..].iter();
            let (pairs, last) = (two(0).zip(two(2)).zip(two(4)).zip(two(6)).zip(two(8)), &columns[2 * PADDING..]);
            for ((out, ((((a, b), c), d), e)), last) in out.iter_mut().zip(pairs).zip(last) {
                *out = a.wrapping_add(*b).wrapping_add(*c).wrapping_add(*d).wrapping_add(*e).wrapping_add(*last);
            }
        }
    }

    /// The quotients of a row of window sums.
    #[inline(always)]
    fn quotients(&self, out: &mut [f64]) {
        let [x, y, products, squares] = self.0.each_ref().map(|sums| sums.iter());
        for ((out, (x, y)), (products, squares)) in out.iter_mut().zip(x.zip(y)).zip(products.zip(squares)) {
            let (x, y) = (f64::from(*x), f64::from(*y));
            let (xy, xx_yy) = (x * y, x * x + y * y);
            let cross = 2.0 * (AREA * f64::from(*products) - xy);
            let spread = AREA * f64::from(*squares) - xx_yy;
            let over = (SCALE * 2.0 * xy + C1) * (SCALE * cross + C2);
            let under = (SCALE * xx_yy + C1) * (SCALE * spread + C2);
            *out = over / under;
        }
    }
}

/// The mean over all windows of two images of the same shape, compiled for what vectors there are. No product is
/// fused with a sum, and sums go in one order: the bits are the same without vectors.
struct Mean<'a>(&'a Pixels, &'a Pixels);

impl WithSimd for Mean<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let Self(a, b) = self;
        let len = a.width as usize * CHANNELS;
        let (x, y): (Vec<&[u8]>, Vec<&[u8]>) = (a.rgb.chunks_exact(len).collect(), b.rgb.chunks_exact(len).collect());
        let mut columns = Row::new(len + 2 * PADDING);
        let mut windows = Row::new(len);
        let mut pairs = vec![0; len + 2 * PADDING - CHANNELS];
        let mut quotients = vec![0.0; len];
        let mut totals = [0.0; CHANNELS];
        for r in 0..REACH.min(x.len()) {
            columns.update(x[r], y[r], 1);
        }
        for r in 0..x.len() {
            if let (Some(x), Some(y)) = (x.get(r + REACH), y.get(r + REACH)) {
                columns.update(x, y, 1);
            }
            if let Some(leaving) = r.checked_sub(REACH + 1) {
                columns.update(x[leaving], y[leaving], -1);
            }
            columns.slide(&mut pairs, &mut windows);
            windows.quotients(&mut quotients);
            for pixel in quotients.chunks_exact(CHANNELS) {
                totals.iter_mut().zip(pixel).for_each(|(total, q)| *total += q);
            }
        }
        totals.iter().sum::<f64>() / a.rgb.len() as f64
    }
}

/// SSIM of two images of the same shape; 0 where the shapes differ.
#[must_use]
pub fn ssim(a: &Pixels, b: &Pixels) -> Millionths {
    if !a.same_shape(b) || a.rgb.is_empty() {
        return Millionths::ZERO;
    }
    let mean = pulp::Arch::new().dispatch(Mean(a, b));
    Millionths((mean * 1e6 + 0.5).floor().clamp(0.0, 1e6) as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    /// The textbook formula on the 0..1 scale, window by window.
    fn naive(a: &Pixels, b: &Pixels) -> f64 {
        let at = |p: &Pixels, x: i64, y: i64, c: usize| {
            if x < 0 || y < 0 || x >= i64::from(p.width) || y >= i64::from(p.height) {
                return 0.0;
            }
            f64::from(p.rgb[(y as usize * p.width as usize + x as usize) * 3 + c]) / 255.0
        };
        let (c1, c2) = (0.0001, 0.0009);
        let mut total = 0.0;
        for c in 0..3 {
            for y in 0..i64::from(a.height) {
                for x in 0..i64::from(a.width) {
                    let (mut sx, mut sy, mut sxx, mut syy, mut sxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
                    for dy in -5..=5 {
                        for dx in -5..=5 {
                            let (u, v) = (at(a, x + dx, y + dy, c), at(b, x + dx, y + dy, c));
                            sx += u;
                            sy += v;
                            sxx += u * u;
                            syy += v * v;
                            sxy += u * v;
                        }
                    }
                    let (mx, my) = (sx / 121.0, sy / 121.0);
                    let (vx, vy, cov) = (sxx / 121.0 - mx * mx, syy / 121.0 - my * my, sxy / 121.0 - mx * my);
                    total += (2.0 * mx * my + c1) * (2.0 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2));
                }
            }
        }
        total / a.rgb.len() as f64
    }

    fn flat(width: u32, height: u32, value: u8) -> Pixels {
        Pixels::new(width, height, vec![value; (width * height * 3) as usize]).unwrap()
    }

    #[test]
    fn equal_images_have_one_and_other_shapes_nothing() {
        assert_eq!(ssim(&flat(20, 13, 77), &flat(20, 13, 77)), Millionths::ONE);
        assert_eq!(ssim(&flat(1, 1, 0), &flat(1, 1, 0)), Millionths::ONE);
        assert_eq!(ssim(&flat(3, 1, 0), &flat(1, 3, 0)), Millionths::ZERO);
    }

    #[test]
    fn a_single_pixel_by_hand() {
        // One window over one value v: mean v/121, variance v²/121 − (v/121)². Black against white:
        // x = 0, so ssim = c1/(my² + c1) · c2/(vy + c2) with my = 1/121, vy = 1/121 − 1/121².
        let (my, vy) = (1.0 / 121.0, 1.0 / 121.0 - 1.0 / 14641.0);
        let expected = 0.0001 / (my * my + 0.0001) * (0.0009 / (vy + 0.0009));
        let got = ssim(&flat(1, 1, 0), &flat(1, 1, 255)).as_f64();
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }

    #[test]
    fn dense_level_one_passes_the_gate_even_on_the_worst_flat_patch() {
        // ±1 on a checkerboard over a flat grey. Inside, the means agree and vy = 1/255², so
        // ssim = c2/(1/255² + c2) = 0.98320; the 5 rows at each border see padding beside the patch,
        // a variance that drowns the ±1: about 1. Together 0.9832·(86/96)² + 1 − (86/96)².
        let base = flat(96, 96, 128);
        let mut other = base.clone();
        for (i, v) in other.rgb.iter_mut().enumerate() {
            let (x, y) = ((i / 3) % 96, i / 3 / 96);
            *v = if (x + y) % 2 == 0 { 129 } else { 127 };
        }
        let got = ssim(&base, &other).0;
        assert!((986_400..986_600).contains(&got), "{got}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_the_textbook(width in 1u32..20, height in 1u32..20, seed: u64, spread in 1u8..=255) {
            use rand::{Rng, SeedableRng};
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let n = (width * height * 3) as usize;
            let a: Vec<u8> = (0..n).map(|_| rng.random()).collect();
            let b: Vec<u8> = a.iter().map(|v| v.saturating_add(rng.random_range(0..=spread))).collect();
            let (a, b) = (Pixels::new(width, height, a).unwrap(), Pixels::new(width, height, b).unwrap());
            let expected = naive(&a, &b).max(0.0);
            prop_assert!((ssim(&a, &b).as_f64() - expected).abs() < 1.1e-6);
            prop_assert_eq!(ssim(&a, &b), ssim(&b, &a));
            let (wide, plain) = (pulp::Arch::new().dispatch(Mean(&a, &b)), pulp::Arch::Scalar.dispatch(Mean(&a, &b)));
            prop_assert_eq!(wide.to_bits(), plain.to_bits(), "in vectors and without");
        }
    }
}
