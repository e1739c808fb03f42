//! The network's own attack: level first, then sparsity, then stop when time costs more than it gains.
//!
//! Every candidate lives on the 8-bit grid, so nothing is lost to rounding; a gradient is taken *at* a
//! candidate, so that its forward pass judges it as well. For each image:
//!
//! 1. **Survey**: one gradient at the clean image, then one batch with a ladder of top-|slope| prefixes
//!    and the densest changes at the lowest levels. Mostly there is a flip at the lowest level now. If not, the
//!    slopes of nine classes tell which are nearest ([`aims`]), and a second batch tries the densest changes
//!    towards those at about the levels that they are away.
//! 2. **Climb** ([`climb`]): inside the box of the level below the flip, sign steps with momentum towards one
//!    class after the other, nearest first (steps halved where they swing, as APGD does), each given up as soon
//!    as more is missing than the next steps ever made up for, and all as soon as the level is not worth the time
//!    ([`pace`]). Without a flip, all levels in turn, and from more starts. Where the PSNR or SSIM gate forbids
//!    dense changes, the candidate is the prefix that just passes ([`room`]).
//! 3. **Shrink** ([`shrink`]): the gradient at the flip ranks all edits again; shorter prefixes of the
//!    blended order and prunings by signed contribution are tried side by side in one batch; the sparsest
//!    flip is the next one to shrink.
//!
//! Values without a slope (outside the model's view, or at the end of their range) are never touched.
//! Orders are blurred, and two values toggled, by the miner's salt: two miners never give the same bytes.
//! The images of a batch go through the model together, whatever step each of them is at.

mod aims;
mod climb;
mod edits;
mod pace;
mod room;
mod search;
mod shrink;
mod ssim;

use perturb_challenge::pixels::Pixels;

use super::{Ask, Attack, Context, Reply};
use crate::loss::Loss;
use crate::model::{Levels, ModelError};
use pace::Pace;
use search::{Search, Told, Want};

/// Level first, then sparsity.
#[derive(Clone, Copy, Debug)]
pub struct Ours {
    /// Gradients of one climb.
    pub steps: u32,
    /// Climbs at a level while there is no flip.
    pub starts: usize,
}

impl Default for Ours {
    fn default() -> Self {
        Self { steps: 60, starts: 24 }
    }
}

impl Attack for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let mut searches: Vec<Search<'_>> =
            (0..context.len()).map(|i| Search::new(context.task(i), context.criterion(), *self)).collect();
        let mut wants: Vec<Want> = searches.iter_mut().map(Search::begin).collect();
        let images = context.len().max(1) as f64;
        let mut before = context.elapsed_ms();
        loop {
            let mut slopes: Vec<(usize, Pixels, Levels, Vec<Loss>)> = Vec::new();
            let mut offers = Vec::new();
            let mut shares = Vec::new();
            for (i, want) in wants.iter_mut().enumerate() {
                match std::mem::replace(want, Want::Done) {
                    Want::Gradient { at, losses } => {
                        let levels = Levels::from(&at);
                        slopes.push((i, at, levels, losses));
                    }
                    Want::Offer(images) => {
                        shares.push((i, images.len()));
                        offers.extend(images.into_iter().map(|image| (i, image)));
                    }
                    Want::Done => {}
                }
            }
            let active = slopes.len() + shares.len();
            if active == 0 {
                return Ok(());
            }
            // Candidates first: what they are worth is kept even if the deadline cuts the rest off.
            let trials = context.offer(offers)?;
            let asks: Vec<Ask<'_>> =
                slopes.iter().map(|(task, _, at, losses)| Ask { task: *task, at, losses }).collect();
            let seen = if asks.is_empty() { Vec::new() } else { context.gradients(&asks)? };
            let now = context.elapsed_ms();
            let pace = Pace { now, round: (now - before) * images / active as f64 };
            before = now;
            for ((i, image, _, _), Reply { logits, pulled }) in slopes.iter().zip(seen) {
                let trial = context.judge_known(*i, image, &logits);
                wants[*i] = searches[*i].step(Told::Gradient { logits, pulled, trial }, pace);
            }
            let mut trials = trials.into_iter();
            for (i, count) in shares {
                let told = Told::Offer(trials.by_ref().take(count).collect());
                wants[i] = searches[i].step(told, pace);
            }
        }
    }
}
