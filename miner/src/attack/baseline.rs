//! The simple strong attack: sign-gradient steps of one 8-bit level from the clean image, which
//! stops at the first flip (iterative FGSM, Kurakin et al. 2016, on the 8-bit grid).

use perturb_challenge::pixels::Pixels;

use super::{Attack, Context, mix};
use crate::gradient::ModelError;

/// One in so many values is left alone, so that two miners' answers differ.
const LEFT_ALONE: u64 = 1024;

/// Dense sign-gradient steps.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// Steps at the most.
    pub steps: u32,
}

impl Default for Baseline {
    fn default() -> Self {
        Self { steps: 10 }
    }
}

impl Attack for Baseline {
    fn name(&self) -> &'static str {
        "baseline"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let clean = context.clean();
        let (_, highest) = context.criterion().levels();
        let mut current = clean.clone();
        for _ in 0..self.steps {
            let g = context.gradient(&current)?.gradient;
            let rgb = current.rgb.iter().zip(&clean.rgb).zip(&g).enumerate();
            let salt = context.salt();
            let next = rgb
                .map(|(i, ((&x, &c), &g))| {
                    // A few values stay as they are, others for each miner.
                    if mix(salt, i as u64).is_multiple_of(LEFT_ALONE) {
                        return x;
                    }
                    let low = c.saturating_sub(highest);
                    let high = c.saturating_add(highest);
                    match g {
                        g if g > 0.0 => x.saturating_sub(1).max(low),
                        g if g < 0.0 => x.saturating_add(1).min(high),
                        _ => x,
                    }
                })
                .collect();
            let next = Pixels { width: clean.width, height: clean.height, rgb: next };
            if context.offer(vec![next.clone()])?.iter().any(Option::is_some) {
                return Ok(());
            }
            current = next;
        }
        Ok(())
    }
}
