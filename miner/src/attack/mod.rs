//! The attacks and what they share.
//!
//! An attack is given a batch of images and works on all of them at once. It starts from the clean
//! images and offers 8-bit candidates to its [`Context`]; the context asks the criterion, keeps each
//! image's best, and hands it back whatever ends the search: the attack's own end, the budget or the
//! deadline.
//!
//! | name | attack | needs |
//! |---|---|---|
//! | `ours` | [`ours`]: level first, then sparsity, then stop | gradients, the rules, the clock |
//! | `baseline` | [`baseline`]: sign steps of one level | gradients |
//! | `fgsm` | [`fgsm`] | one gradient |
//! | `pgd` | [`pgd`] | gradients |
//! | `apgd-ce`, `apgd-dlr`, `apgd-t` | [`apgd`] | gradients |
//! | `deepfool` | [`deepfool`] | gradients of ten classes |
//! | `fmn` | [`fmn`] | gradients |
//! | `fab`, `fab-t` | [`fab`] | gradients |
//! | `square` | [`square`] | logits only |
//! | `autoattack` | [`autoattack`]: the standard ensemble, for evaluation | gradients |
//!
//! Attacks inside a ball of fixed size (`fgsm` to `apgd-t`, `square`, `autoattack`) take the size from
//! [`Options::epsilon`], or try the levels that count one after the other, lowest first; an image that
//! flipped is left out of the rest.

pub mod apgd;
pub mod autoattack;
pub mod baseline;
mod context;
pub mod deepfool;
pub mod fab;
pub mod fgsm;
mod float;
pub mod fmn;
pub mod ours;
pub mod pgd;
pub mod square;

pub(crate) use context::mix;
pub use context::{Ask, Candidate, Context, Reply, Task, Trial};

use crate::loss::Loss;
use crate::model::ModelError;

/// Runs of random starts, restarts and steps: an operator's number, not a stranger's; this only
/// keeps a slip of the finger from running for a week.
pub const MAX_STEPS: u32 = 100_000;

/// What can be set on an attack; what is not set is the authors' own default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// Radius of the ball, 8-bit levels; `square`, which lives on the grid, takes it down to a whole level.
    pub epsilon: Option<f32>,
    /// Steps, iterations or queries.
    pub steps: Option<u32>,
    /// Step size: for `pgd` a share of the radius, for `fmn` its α in units of the pixel range.
    pub step_size: Option<f32>,
    /// Starts; none at all would find nothing, so 0 is 1.
    pub restarts: Option<u32>,
}

/// A search for adversarial images.
pub trait Attack: Send + Sync {
    /// Its name, as the command line and the reports have it.
    fn name(&self) -> &'static str;

    /// Searches until it is done, or the model stops it. Everything found is in the context.
    ///
    /// # Errors
    /// What ended the search early; the best candidates stand all the same.
    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError>;
}

/// Runs an attack and returns each image's best candidate, also where budget or deadline ended it.
///
/// # Errors
/// The model failed (not: ran out) before anything was found.
pub fn run(attack: &dyn Attack, mut context: Context<'_>) -> Result<Vec<Option<Candidate>>, ModelError> {
    match attack.search(&mut context) {
        Err(e @ ModelError::Failed(_)) if (0..context.len()).all(|i| context.best(i).is_none()) => Err(e),
        _ => Ok(context.into_best()),
    }
}

/// The attacks by name.
#[must_use]
pub fn by_name(name: &str, options: &Options) -> Option<Box<dyn Attack>> {
    Some(match name {
        "ours" => Box::new(ours::Ours::default()),
        "baseline" => Box::new(baseline::Baseline::new(options)),
        "fgsm" => Box::new(fgsm::Fgsm::new(options)),
        "pgd" => Box::new(pgd::Pgd::new(options)),
        "apgd-ce" => Box::new(apgd::Apgd::new(apgd::Aim::Untargeted(Loss::CrossEntropy), options)),
        "apgd-dlr" => Box::new(apgd::Apgd::new(apgd::Aim::Untargeted(Loss::Dlr), options)),
        "apgd-t" => Box::new(apgd::Apgd::new(apgd::Aim::Targeted, options)),
        "deepfool" => Box::new(deepfool::DeepFool::new(options)),
        "fmn" => Box::new(fmn::Fmn::new(options)),
        "fab" => Box::new(fab::Fab::new(false, options)),
        "fab-t" => Box::new(fab::Fab::new(true, options)),
        "square" => Box::new(square::Square::new(options)),
        "autoattack" => Box::new(autoattack::AutoAttack::new(options)),
        _ => return None,
    })
}

/// The names that [`by_name`] knows.
pub const NAMES: [&str; 13] = [
    "ours",
    "baseline",
    "fgsm",
    "pgd",
    "apgd-ce",
    "apgd-dlr",
    "apgd-t",
    "deepfool",
    "fmn",
    "fab",
    "fab-t",
    "square",
    "autoattack",
];

#[cfg(test)]
pub(crate) mod tests;
