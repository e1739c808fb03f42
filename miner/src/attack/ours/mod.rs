//! The network's own attack: level first, then sparsity, then stop when time costs more than it gains.
//!
//! Every candidate lives on the 8-bit grid, so nothing is lost to rounding; a gradient is taken *at* a
//! candidate, so that its forward pass judges it as well. For each image:
//!
//! 1. **Survey**: one gradient at the clean image, then one batch with a ladder of top-|slope| prefixes
//!    at the lowest level and the densest change that the gates allow at higher ones. After two calls of
//!    the model there mostly is an answer, whatever the deadline does.
//! 2. **Climb** ([`climb`]): inside the box of a lower level, sign steps with momentum on the margin,
//!    steps halved where they swing (as APGD does), other losses and targets where it is stuck; down from
//!    the level that flipped, for as long as a level is worth the time ([`pace`]). Where the PSNR or SSIM
//!    gate forbids dense changes, the candidate is the prefix that just passes.
//! 3. **Shrink** ([`search`]): the gradient at the flip ranks all edits again; shorter prefixes of the
//!    blended order and prunings by signed contribution are tried side by side in one batch; the sparsest
//!    flip is the next one to shrink.
//!
//! Values without a slope (outside the model's view, or at the end of their range) are never touched.
//! Orders are blurred, and two values toggled, by the miner's salt: two miners never give the same bytes.
//! The images of a batch go through the model together, whatever step each of them is at.

mod climb;
mod edits;
mod pace;
mod search;

use super::{Attack, Context};
use crate::loss::Loss;
use crate::model::{Levels, ModelError};
use pace::Pace;
use search::{Search, Told, Want};

/// Level first, then sparsity.
#[derive(Clone, Copy, Debug)]
pub struct Ours {
    /// Gradients in the box of one level from one start.
    pub steps: u32,
    /// Starts in the box of one level, each with another loss.
    pub starts: u32,
}

impl Default for Ours {
    fn default() -> Self {
        Self { steps: 24, starts: 4 }
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
        let mut pace = Pace { now: context.elapsed_ms(), round: 0.0 };
        loop {
            let mut slopes: Vec<(usize, Levels, Loss)> = Vec::new();
            let mut offers = Vec::new();
            let mut shares = Vec::new();
            let mut gradient_images = Vec::new();
            for (i, want) in wants.iter_mut().enumerate() {
                match std::mem::replace(want, Want::Done) {
                    Want::Gradient { at, loss } => {
                        slopes.push((i, Levels::from(&at), loss));
                        gradient_images.push(at);
                    }
                    Want::Offer(images) => {
                        shares.push((i, images.len()));
                        offers.extend(images.into_iter().map(|image| (i, image)));
                    }
                    Want::Done => {}
                }
            }
            if slopes.is_empty() && shares.is_empty() {
                return Ok(());
            }
            // Candidates first: what they are worth is kept even if the deadline cuts the rest off.
            let trials = context.offer(offers)?;
            let asks: Vec<_> = slopes.iter().map(|(i, x, loss)| (*i, x, *loss)).collect();
            let seen = if asks.is_empty() { Vec::new() } else { context.gradient(&asks)? };
            let now = context.elapsed_ms();
            pace = Pace { now, round: now - pace.now };
            for (((i, _, _), image), (logits, pulled)) in slopes.iter().zip(&gradient_images).zip(seen) {
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
