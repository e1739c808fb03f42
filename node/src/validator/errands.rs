//! A drill for local networks: a validator that asks miners about the images that a miner of its own was sent.
//!
//! It opens its round with that image instead of the drawn one, and leaves the first good answer to its miner. The
//! miner is bound by then: answers are shown only once nobody can do anything with them.

use perturb_challenge::classifier::{Classifier, predict};
use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_miner::drill::errands::Errands;
use perturb_types::Digest;

use super::exchange::Exchange;

/// Another validator's image, as it was sent to the own miner, with the label to ask for.
pub(super) fn foreign(errands: &Errands, classifier: &dyn Classifier) -> Option<(Pixels, Vec<u8>, u16)> {
    let png = errands.take()?;
    let pixels = Pixels::decode_png(&png, &PngLimits::default()).ok()?;
    let logits = classifier.logits(&[&pixels]).ok()?.pop()?;
    let label = predict(&logits, 0).ok()?.class;
    tracing::warn!(image = %Digest::of(&png), "a drill: this round asks about another validator's image");
    Some((pixels, png, label))
}

/// Leaves an answer to the own miner.
pub(super) fn hand_over(errands: &Errands, image: &Digest, outcomes: &[Exchange]) {
    let Some(png) = outcomes.iter().find_map(|o| o.png.as_ref()) else { return };
    if let Err(error) = errands.done(image, png) {
        tracing::warn!(%error, "the folder for errands");
    }
}
