//! AutoAttack, the standard version: Croce and Hein, "Reliable evaluation of adversarial robustness with
//! an ensemble of diverse parameter-free attacks", ICML 2020, section 6: APGD-CE, APGD-T (nine targets,
//! 100 steps), FAB-T (nine targets, 100 steps) and Square (5000 queries) at one ε, each on the images
//! that are still robust. It measures a model; under the network's rules it only wastes time.

use super::apgd::{Aim, Apgd};
use super::fab::Fab;
use super::square::Square;
use super::{Attack, Context, Options};
use crate::loss::Loss;
use crate::model::ModelError;

/// The standard ensemble.
#[derive(Clone, Copy, Debug)]
pub struct AutoAttack {
    options: Options,
}

impl AutoAttack {
    /// At the given ε, or the highest level that counts; steps and restarts are the standard's.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self { options: Options { epsilon: options.epsilon, ..Options::default() } }
    }
}

impl Attack for AutoAttack {
    fn name(&self) -> &'static str {
        "autoattack"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let highest = f32::from(context.criterion().levels().1);
        let options = Options { epsilon: self.options.epsilon.or(Some(highest)), ..self.options };
        let members: [Box<dyn Attack>; 4] = [
            Box::new(Apgd::new(Aim::Untargeted(Loss::CrossEntropy), &options)),
            Box::new(Apgd::new(Aim::Targeted, &options)),
            Box::new(Fab::new(true, &options)),
            Box::new(Square::new(&options)),
        ];
        for member in members {
            if context.open().is_empty() {
                break;
            }
            member.search(context)?;
        }
        Ok(())
    }
}
