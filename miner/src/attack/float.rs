//! Arithmetic on images between the levels, shared by the attacks from continuous space.

use perturb_challenge::pixels::Pixels;
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Context;
use super::context::mix;
use crate::model::{Levels, ModelError};

/// −1, 0 or 1; 0 also for what is no number. (`f32::signum` gives ±1 for ±0, which would move pixels
/// that the model never sees.)
pub(super) fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// `x` within `epsilon` of `c` and within 0..=255.
pub(super) fn clip(x: f32, c: u8, epsilon: f32) -> f32 {
    let c = f32::from(c);
    x.clamp(c - epsilon, c + epsilon).clamp(0.0, 255.0)
}

/// The largest change of a channel value.
pub(super) fn linf(x: &Levels, clean: &Pixels) -> f32 {
    x.rgb.iter().zip(&clean.rgb).fold(0.0, |m, (x, c)| m.max((x - f32::from(*c)).abs()))
}

/// A stream of this image's own; `start` tells the random starts of one attack apart.
pub(super) fn stream(context: &Context<'_>, task: usize, start: u32) -> ChaCha8Rng {
    seeded(context.task(task).salt, task, start)
}

/// The stream of a miner's number, an index and a start.
pub(super) fn seeded(salt: u64, index: usize, start: u32) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(mix(salt ^ 0x7065_7274, u64::from(start) << 32 | index as u64))
}

/// A point drawn uniformly from the ball around `clean`.
pub(super) fn random_start(clean: &Pixels, epsilon: f32, rng: &mut ChaCha8Rng) -> Levels {
    let mut x = Levels::from(clean);
    for (x, c) in x.rgb.iter_mut().zip(&clean.rgb) {
        *x = clip(*x + epsilon * rng.random_range(-1.0_f32..=1.0), *c, epsilon);
    }
    x
}

/// The radii that an attack inside a ball tries: the one it was given, or the levels that count.
pub(super) fn radii(context: &Context<'_>, epsilon: Option<f32>) -> Vec<f32> {
    let (lowest, highest) = context.criterion().levels();
    epsilon.map_or_else(|| (lowest..=highest).map(f32::from).collect(), |e| vec![e])
}

/// Runs `attack` at each radius on the images that are still open.
pub(super) fn at_each_radius(
    context: &mut Context<'_>,
    epsilon: Option<f32>,
    mut attack: impl FnMut(&mut Context<'_>, f32, &[usize]) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    for radius in radii(context, epsilon) {
        let open = context.open();
        if open.is_empty() {
            break;
        }
        attack(context, radius, &open)?;
    }
    Ok(())
}
