//! The gates on the pixels, as comparisons of integers.
//!
//! - L∞: norm = k/255 against millionths: `min·255 ≤ k·10⁶ ≤ E·255`.
//! - PSNR: `−10·log10(S / (n·255²)) ≥ d` holds exactly where `S ≤ n·255²·10^(−d/10)`. The power is
//!   taken in integers: whole powers of ten exactly, the fraction to 18 decimal places downwards
//!   as a product of the constants 10^(−1/10^j) by the decimal digits of d in thousandths of a
//!   decibel. 38 dB gives 10⁻³ · 0.1584893192461113…; the largest S that passes is
//!   `⌊n·65025·that⌋`, 1 551 306 for 224×224 pixels.
//! - SSIM: millionths, see [`crate::ssim`].

use perturb_types::{Measurement, Reason};

use super::{MILLION, Rules};

/// The PSNR that an unchanged image counts as, thousandths of a decibel.
pub const MAX_PSNR_MDB: u32 = 99_000;

/// 255²: the largest squared difference of a channel value.
const FULL_SQUARE: u128 = 255 * 255;

/// The fixed point of [`inverse_power`].
const FIXED: u128 = 1_000_000_000_000_000_000;

/// 10^(−1/10^j) for j = 1, 2, 3, 4, in units of 10⁻¹⁸, rounded down.
const ROOTS: [u128; 4] =
    [794_328_234_724_281_502, 977_237_220_955_810_682, 997_700_063_822_553_317, 999_769_767_998_156_586];

/// 10^(−d/10⁴) as (fraction in units of 10⁻¹⁸, whole power of ten below it); d in thousandths of a
/// decibel, at most [`MAX_PSNR_MDB`]. The fraction is rounded down at each step.
fn inverse_power(mdb: u32) -> (u128, u128) {
    let (mut fraction, mut rest) = (FIXED, mdb % 10_000);
    for (root, unit) in ROOTS.into_iter().zip([1_000, 100, 10, 1]) {
        for _ in 0..rest / unit {
            fraction = fraction * root / FIXED;
        }
        rest %= unit;
    }
    (fraction, 10u128.pow(mdb / 10_000))
}

/// The largest sum of squared differences over `channels` values that has at least `min_psnr_mdb`.
/// A gate of 0 lets everything through.
#[must_use]
pub fn max_sum_squares(channels: u32, min_psnr_mdb: u32) -> u64 {
    if min_psnr_mdb == 0 {
        return u64::MAX;
    }
    let (fraction, whole) = inverse_power(min_psnr_mdb.min(MAX_PSNR_MDB));
    let bound = u128::from(channels) * FULL_SQUARE * fraction / (FIXED * whole);
    u64::try_from(bound).unwrap_or(u64::MAX)
}

/// PSNR in thousandths of a decibel, for people: at most [`MAX_PSNR_MDB`], which also stands for
/// a mean square error of at most 10⁻¹².
#[must_use]
pub fn psnr_mdb(m: &Measurement) -> u32 {
    let mse = m.sum_squares as f64 / (f64::from(m.channels.max(1)) * 65_025.0);
    if mse <= 1e-12 {
        return MAX_PSNR_MDB;
    }
    let mdb = (-10_000.0 * libm::log10(mse)).round();
    (mdb.max(0.0) as u32).min(MAX_PSNR_MDB)
}

/// Whether `level`/255 is at least `min` millionths.
fn reaches(level: u8, min: u32) -> bool {
    u64::from(level) * u64::from(MILLION) >= u64::from(min) * 255
}

/// Whether `level`/255 is at most `max` millionths.
fn within(level: u8, max: u32) -> bool {
    u64::from(level) * u64::from(MILLION) <= u64::from(max) * 255
}

/// A gate on the pixels, in the order they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// L∞ at least `min_delta`.
    MinDelta,
    /// L∞ at most E.
    MaxDelta,
    /// SSIM at least `min_ssim`.
    Ssim,
    /// PSNR at least `min_psnr_mdb`.
    Psnr,
}

impl Gate {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::MinDelta, Self::MaxDelta, Self::Ssim, Self::Psnr];

    /// The reason it gives when it fails.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::MinDelta => Reason::BelowMinDelta,
            Self::MaxDelta => Reason::AboveMaxDelta,
            Self::Ssim => Reason::BelowMinSsim,
            Self::Psnr => Reason::BelowMinPsnrDb,
        }
    }

    /// Whether a measurement passes.
    #[must_use]
    pub fn passes(self, rules: &Rules, m: &Measurement) -> bool {
        match self {
            Self::MinDelta => reaches(m.level, rules.min_delta) && m.level > 0,
            Self::MaxDelta => within(m.level, rules.cap()),
            Self::Ssim => m.ssim.0 >= rules.min_ssim,
            Self::Psnr => m.sum_squares <= max_sum_squares(m.channels, rules.min_psnr_mdb),
        }
    }
}

/// The first gate that fails, as a reason; `None` where all pass.
#[must_use]
pub fn first_failure(rules: &Rules, m: &Measurement) -> Option<Reason> {
    Gate::ALL.into_iter().find(|g| !g.passes(rules, m)).map(Gate::reason)
}

/// The largest level k that the rules allow.
#[must_use]
pub fn max_level(rules: &Rules) -> u8 {
    (0..=u8::MAX).rev().find(|&k| within(k, rules.cap())).unwrap_or(0)
}

/// The smallest level k that counts.
#[must_use]
pub fn min_level(rules: &Rules) -> u8 {
    (1..=u8::MAX).find(|&k| reaches(k, rules.min_delta)).unwrap_or(u8::MAX)
}
