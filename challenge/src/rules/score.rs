//! The score: a pure function of integers, in millionths.
//!
//! Computed in `f64` with `+ - * /` and `sqrt` only, in the order written here, then rounded to
//! the nearest millionth, halves upwards. Each step is monotone under IEEE rounding, so the score
//! never rises with the level, the sum of squares or the time. The gates are not asked here.

use perturb_types::{Measurement, Millionths};

use super::{MILLION, Preset, Rules};

/// Margin at which the margin bonus is full, millionths of a logit: 10 logits.
const FULL_MARGIN: i64 = 10 * MILLION as i64;

/// Changed channel values at which the change bonus is full.
const FULL_CHANGED: u32 = 8;

fn part(millionths: u32) -> f64 {
    f64::from(millionths) / f64::from(MILLION)
}

fn to_millionths(x: f64) -> Millionths {
    let scaled = (x * f64::from(MILLION) + 0.5).floor();
    Millionths(scaled.clamp(0.0, f64::from(MILLION)) as u32)
}

/// l = clamp((k/255 − min)/(E − min), 0, 1).
fn level_component(rules: &Rules, level: u8) -> f64 {
    let million = i64::from(MILLION);
    let above = i64::from(level) * million - i64::from(rules.min_delta) * 255;
    let span = (i64::from(rules.cap()) - i64::from(rules.min_delta)) * 255;
    if span <= 0 {
        return if above > 0 { 1.0 } else { 0.0 };
    }
    (above.max(0) as f64 / span as f64).min(1.0)
}

/// r = clamp(rmse/E, 0, 1) with rmse = √(S/n)/255.
fn rmse_component(rules: &Rules, m: &Measurement) -> f64 {
    let mean = m.sum_squares as f64 / f64::from(m.channels.max(1));
    let cap = f64::from(rules.cap()) * 255.0 / f64::from(MILLION);
    if cap <= 0.0 {
        return 1.0;
    }
    (mean.sqrt() / cap).min(1.0)
}

fn square(x: f64) -> f64 {
    x * x
}

/// What the perturbation alone is worth, 0 to 1.
fn perturbation(rules: &Rules, m: &Measurement) -> f64 {
    match rules.preset {
        Preset::Subnet => {
            let level = part(rules.level_part) * square(1.0 - level_component(rules, m.level));
            let rest = part(MILLION.saturating_sub(rules.level_part));
            level + rest * square(1.0 - rmse_component(rules, m))
        }
        Preset::Whitepaper => {
            let norm = f64::from(m.level) * f64::from(MILLION);
            let epsilon = f64::from(rules.epsilon.max(1)) * 255.0;
            1.0 - (norm / epsilon).min(1.0)
        }
    }
}

fn bonus(rules: &Rules, m: &Measurement, margin: i64) -> f64 {
    let margin = margin.clamp(0, FULL_MARGIN) as f64 / FULL_MARGIN as f64;
    let changed = f64::from(m.changed.min(FULL_CHANGED)) / f64::from(FULL_CHANGED);
    part(rules.margin_bonus) * margin + part(rules.changed_bonus) * changed
}

/// What an answer that passes every gate is worth with its flip margin (millionths of a logit;
/// counts only where the rules give a bonus for it).
#[must_use]
pub fn score_with_margin(rules: &Rules, m: &Measurement, margin: i64, elapsed_ms: u32) -> Millionths {
    let late = (f64::from(elapsed_ms) / f64::from(rules.timeout_ms.max(1))).min(1.0);
    let speed = part(MILLION.saturating_sub(rules.perturbation_part)) * (1.0 - late);
    let base = part(rules.perturbation_part) * perturbation(rules, m) + speed;
    to_millionths(base + bonus(rules, m, margin))
}

/// [`score_with_margin`] without a margin: the whole score under both presets as they stand.
#[must_use]
pub fn score(rules: &Rules, m: &Measurement, elapsed_ms: u32) -> Millionths {
    score_with_margin(rules, m, 0, elapsed_ms)
}
