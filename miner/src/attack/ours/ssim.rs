//! What the SSIM gate minds, value by value.

use perturb_challenge::pixels::Pixels;

/// 1/(2σ² + c₂) with σ² the variance of the 11×11 window around each value: to first order what a squared
/// level there takes from the SSIM of its windows.
pub(super) fn ssim_cost(clean: &Pixels) -> Vec<f32> {
    /// c₂ of SSIM in squared levels: 0.03² · 255².
    const C2: f64 = 58.5225;
    const REACH: usize = 5;
    let (width, height) = (clean.width as usize, clean.height as usize);
    let mut cost = vec![0.0_f32; clean.rgb.len()];
    // Sums over the rectangle above and left of a corner, one row and column more than the image.
    let stride = width + 1;
    for channel in 0..3 {
        let mut sums = vec![(0.0_f64, 0.0_f64); stride * (height + 1)];
        for y in 0..height {
            for x in 0..width {
                let v = f64::from(clean.rgb[(y * width + x) * 3 + channel]);
                let (up, left, both) = (sums[y * stride + x + 1], sums[(y + 1) * stride + x], sums[y * stride + x]);
                sums[(y + 1) * stride + x + 1] = (v + up.0 + left.0 - both.0, v * v + up.1 + left.1 - both.1);
            }
        }
        for y in 0..height {
            for x in 0..width {
                let (top, bottom) = (y.saturating_sub(REACH), (y + REACH + 1).min(height));
                let (left, right) = (x.saturating_sub(REACH), (x + REACH + 1).min(width));
                let at = |y: usize, x: usize| sums[y * stride + x];
                let (a, b, c, d) = (at(bottom, right), at(top, right), at(bottom, left), at(top, left));
                // Beyond the border SSIM sees zeros, over a window of always 121 values.
                let (sum, squares) = (a.0 - b.0 - c.0 + d.0, a.1 - b.1 - c.1 + d.1);
                let variance = (squares / 121.0 - (sum / 121.0).powi(2)).max(0.0);
                cost[(y * width + x) * 3 + channel] = (1.0 / (2.0 * variance + C2)) as f32;
            }
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn ssim_minds_a_change_less_where_the_image_is_busy() {
        let rgb = (0..40 * 40)
            .flat_map(|p| {
                let busy = p % 40 >= 20 && (p % 40 + p / 40) % 2 == 0;
                [if busy { 190 } else { 128 }; 3]
            })
            .collect();
        let cost = ssim_cost(&Pixels::new(40, 40, rgb).unwrap());
        let at = |x: usize, y: usize| cost[(y * 40 + x) * 3];
        assert!(at(8, 20) > 10.0 * at(30, 20));
        assert!((at(8, 20) - 1.0 / 58.5225).abs() < 1e-6, "a flat window has no variance");
    }
}
