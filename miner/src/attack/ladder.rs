//! The network's own attack, in its first form: level first, then sparsity.
//!
//! Under the subnet rules one level beats any sparsity (dense ±1 scores above a perfectly sparse
//! ±2), and fewer changed values beat more. So, for k from the lowest level that counts:
//!
//! 1. Rank the byte-feasible edits (a value may move by ±k against the gradient's sign) by the
//!    margin they promise, |gradient| × step.
//! 2. Evaluate a ladder of prefixes of that order in one batch: 0.3, 1, 3, 10, 30, 100 % of what
//!    the level allows (the PSNR gate bounds how many values may move by k).
//! 3. Nothing flips: linearise again at the densest candidate, with the gradients averaged, a few
//!    times; then the next level.
//! 4. A prefix flips: narrow it between the longest that failed and the shortest that worked, by
//!    batches; then linearise at the boundary and try again shorter, until it gains no more.

use perturb_challenge::pixels::Pixels;

use super::{Attack, Context, mix};
use crate::gradient::ModelError;

/// Shares of the allowed edits that one batch tries, in thousandths.
const RUNGS: [usize; 6] = [3, 10, 30, 100, 300, 1000];

/// Prefixes between two bounds that one batch tries while narrowing.
const NARROW: usize = 5;

/// Level first, then sparsity.
#[derive(Clone, Copy, Debug)]
pub struct Ladder {
    /// Linearisations per level before it is given up.
    pub relinearise: u32,
    /// Rounds of shortening after a flip.
    pub shorten: u32,
}

impl Default for Ladder {
    fn default() -> Self {
        Self { relinearise: 10, shorten: 3 }
    }
}

/// One value's feasible edit.
#[derive(Clone, Copy)]
struct Edit {
    index: u32,
    to: u8,
    promise: f32,
}

/// The feasible edits at level `k` against `gradient`, best promise first. Promises are blurred by
/// up to 2 % by the salt, so that edits of nearly the same worth come in another order for each miner.
fn edits(clean: &Pixels, gradient: &[f32], k: u8, salt: u64) -> Vec<Edit> {
    let mut out: Vec<Edit> = clean
        .rgb
        .iter()
        .zip(gradient)
        .enumerate()
        .filter_map(|(i, (&c, &g))| {
            let to = if g > 0.0 { c.saturating_sub(k) } else { c.saturating_add(k) };
            let blur = 1.0 + 0.02 * (mix(salt, i as u64) >> 40) as f32 / (1u32 << 24) as f32;
            let promise = g.abs() * f32::from(to.abs_diff(c)) * blur;
            (promise > 0.0 && promise.is_finite()).then_some(Edit { index: i as u32, to, promise })
        })
        .collect();
    // The index breaks ties: the same image and gradient give the same answer everywhere.
    out.sort_unstable_by(|a, b| b.promise.total_cmp(&a.promise).then(a.index.cmp(&b.index)));
    out
}

fn apply(clean: &Pixels, edits: &[Edit]) -> Pixels {
    let mut image = clean.clone();
    for e in edits {
        image.rgb[e.index as usize] = e.to;
    }
    image
}

/// The shortest prefix in `(low, high]` that flips, given that `high` does and `low` does not
/// (or is 0), by batches of [`NARROW`].
fn narrow(
    context: &mut Context<'_>,
    clean: &Pixels,
    order: &[Edit],
    mut low: usize,
    mut high: usize,
) -> Result<(usize, usize), ModelError> {
    // Closer than a hundredth of the length is worth less than the time it takes.
    while high - low > 1 + high / 100 {
        let mut points: Vec<usize> = (1..=NARROW).map(|i| low + (high - low) * i / (NARROW + 1)).collect();
        points.retain(|p| *p > low && *p < high);
        points.dedup();
        if points.is_empty() {
            break;
        }
        let worths = context.offer(points.iter().map(|&p| apply(clean, &order[..p])).collect())?;
        match worths.iter().position(Option::is_some) {
            Some(first) => {
                high = points[first];
                low = if first == 0 { low } else { points[first - 1] };
            }
            None => low = points.last().copied().unwrap_or(low),
        }
    }
    Ok((low, high))
}

impl Ladder {
    /// Tries one level; whether something was found. `gradient` is the running average that one
    /// level leaves to the next.
    fn level(&self, context: &mut Context<'_>, k: u8, gradient: &mut [f32]) -> Result<bool, ModelError> {
        let clean = context.clean();
        let allowed = context.criterion().most_changes(clean, k);
        for turn in 0..self.relinearise {
            let order = edits(clean, gradient, k, context.salt());
            let most = order.len().min(allowed);
            if most == 0 {
                return Ok(false);
            }
            let mut rungs: Vec<usize> = RUNGS.iter().map(|r| (most * r).div_ceil(1000)).collect();
            rungs.dedup();
            let worths = context.offer(rungs.iter().map(|&n| apply(clean, &order[..n])).collect())?;
            if let Some(hit) = worths.iter().position(Option::is_some) {
                let low = if hit == 0 { 0 } else { rungs[hit - 1] };
                self.shorten(context, k, order, low, rungs[hit], gradient.to_vec())?;
                return Ok(true);
            }
            if turn + 1 == self.relinearise {
                break;
            }
            // The densest candidate's gradient says what the first one could not see.
            let seen = context.gradient(&apply(clean, &order[..most]))?.gradient;
            blend(gradient, &seen, 1.0 / (turn + 2).min(5) as f32);
        }
        Ok(false)
    }

    fn shorten(
        &self,
        context: &mut Context<'_>,
        k: u8,
        mut order: Vec<Edit>,
        low: usize,
        high: usize,
        mut gradient: Vec<f32>,
    ) -> Result<(), ModelError> {
        let clean = context.clean();
        let (mut fail, mut hit) = narrow(context, clean, &order, low, high)?;
        for _ in 0..self.shorten {
            // At the boundary the gradient is the one that matters for the last few edits.
            let seen = context.gradient(&apply(clean, &order[..fail.max(1)]))?.gradient;
            blend(&mut gradient, &seen, 0.5);
            order = edits(clean, &gradient, k, context.salt());
            let worth_trying = hit.min(order.len());
            let tries = [worth_trying / 2, worth_trying * 3 / 4, worth_trying * 9 / 10];
            let tries: Vec<usize> = tries.into_iter().filter(|n| *n > 0).collect();
            let worths = context.offer(tries.iter().map(|&n| apply(clean, &order[..n])).collect())?;
            let Some(first) = worths.iter().position(Option::is_some) else { return Ok(()) };
            let below = if first == 0 { 0 } else { tries[first - 1] };
            (fail, hit) = narrow(context, clean, &order, below, tries[first])?;
        }
        Ok(())
    }
}

/// `into ← (1 − share)·into + share·from`, each scaled to unit L1 so that neither drowns the other.
fn blend(into: &mut [f32], from: &[f32], share: f32) {
    let unit = |v: &[f32]| 1.0 / v.iter().map(|x| x.abs()).sum::<f32>().max(f32::MIN_POSITIVE);
    let (a, b) = ((1.0 - share) * unit(into), share * unit(from));
    for (x, y) in into.iter_mut().zip(from) {
        *x = *x * a + y * b;
    }
}

impl Attack for Ladder {
    fn name(&self) -> &'static str {
        "ladder"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let mut gradient = context.gradient(context.clean())?.gradient;
        let (lowest, highest) = context.criterion().levels();
        for k in lowest..=highest {
            if self.level(context, k, &mut gradient)? {
                return Ok(());
            }
        }
        Ok(())
    }
}
