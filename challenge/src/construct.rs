//! What a round challenges with: an image, transformed in secret, and the model's label for it.
//!
//! Rule: draw the round's next image, transform it, ask the classifier. Where the rules ask
//! about meaning and the set has labels, the image counts only if the classifier's label means the same
//! as the wanted one, the set's: an image that the model gets wrong already is no test of it. Otherwise
//! the next image is drawn, at most [`limits::MAX_DRAWS`] in all. The label of the round is the classifier's.
//!
//! Passed over as well: an image that does not decode, one whose PNG leaves answers no room
//! ([`NOISE_BITS`]), a label that names none of the classifier's classes, and labels that the judge of
//! meaning has no verdict about. Not passed over: a server or disk that fails, a judge of meaning that is
//! away. Then there is no challenge, and the caller tries again later; as when it takes too long
//! ([`TIME`]).

use std::time::Duration;

use perturb_types::limits::{self, MAX_PNG_BYTES};
use perturb_types::round::{Meaning, TransformSecret};

use crate::classifier::{Classifier, ClassifierError, lead, predict};
use crate::pace::Until;
use crate::pixels::Pixels;
use crate::rules::Rules;
use crate::semantics::labels::{Labels, classes_of};
use crate::semantics::{Semantics, SemanticsError};
use crate::source::{ImageSource, SourceError};
use crate::transform::Transform;

/// The time for one challenge: several of the slowest images, or a cold language model's first answer.
pub const TIME: Duration = Duration::from_secs(60);

/// Bits that an answer's PNG may be longer than the clean image's for each channel value: one level up,
/// down or not at all has 1.6, of which an ordinary encoder makes 2.8 where there was nothing before. An
/// image that leaves less room under the limit for images is no challenge: nobody could send the answer to it.
pub const NOISE_BITS: u64 = 3;

/// A challenge that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConstructError {
    /// No image to be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The classifier failed.
    #[error(transparent)]
    Classifier(#[from] ClassifierError),
    /// The judge of meaning failed, or is away.
    #[error(transparent)]
    Semantics(#[from] SemanticsError),
    /// It took too long, or somebody said stop.
    #[error("no time is left for another image; the last: {last}")]
    Late {
        /// What was wrong with the last.
        last: String,
    },
    /// None of the images drawn serves.
    #[error("none of the images drawn serves: {last}")]
    NoMatch {
        /// What was wrong with the last.
        last: String,
    },
}

impl ConstructError {
    /// Whether none of the images drawn serves, for ever.
    #[must_use]
    pub const fn none_serves(&self) -> bool {
        matches!(self, Self::NoMatch { .. })
    }

    /// Whether other images may be had where these were not: none of them serves, none came, or the time
    /// ran out over them (a slow judge of meaning among the reasons).
    #[must_use]
    pub const fn of_images(&self) -> bool {
        matches!(self, Self::NoMatch { .. } | Self::Source(_) | Self::Late { .. })
    }
}

/// The clean side of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constructed {
    /// How many images were passed over before.
    pub skipped: usize,
    /// The secret that its transform follows from.
    pub secret: TransformSecret,
    /// The transformed image.
    pub pixels: Pixels,
    /// The same as PNG, which miners are sent.
    pub png: Vec<u8>,
    /// The classifier's label for it.
    pub label: u16,
}

/// Which of the classifier's classes the set's labels want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted(Option<Vec<Option<u16>>>);

impl Wanted {
    /// For a set and rules; nothing is wanted where the rules do not ask about meaning, where the set
    /// has no labels, or where the classifier's classes have no names.
    ///
    /// # Errors
    /// The set has labels, and none of them names a class.
    pub fn new(rules: &Rules, source: &dyn ImageSource, labels: Option<&Labels>) -> Result<Self, String> {
        let names = source.label_names();
        let (true, false, Some(labels)) = (rules.semantic.asked(), names.is_empty(), labels) else {
            return Ok(Self(None));
        };
        let classes = classes_of(&names, labels);
        if classes.iter().all(Option::is_none) {
            return Err(format!("none of the image set's {} labels names a class of the model", names.len()));
        }
        Ok(Self(Some(classes)))
    }
}

/// What challenges are made with.
#[derive(Clone, Copy)]
pub struct Construction<'a> {
    /// The rules.
    pub rules: &'a Rules,
    /// The images.
    pub source: &'a dyn ImageSource,
    /// The classifier.
    pub classifier: &'a dyn Classifier,
    /// The judge of meaning.
    pub semantics: &'a dyn Semantics,
    /// What the set's labels want.
    pub wanted: &'a Wanted,
}

/// An image that was drawn, transformed and encoded: it serves if its label does.
#[derive(Clone, Debug)]
pub struct Prepared {
    index: u64,
    pixels: Pixels,
    png: Vec<u8>,
    /// The class that its label has to mean.
    wanted: Option<u16>,
}

impl Prepared {
    /// The transformed image.
    #[must_use]
    pub const fn pixels(&self) -> &Pixels {
        &self.pixels
    }
}

/// What those who look at a round again find about an image that was drawn for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It serves, whatever the device: who passed it over did so wrongly.
    Serves,
    /// It does not serve, whatever the device: who used it did so wrongly.
    Fails,
    /// Another device, or another judge of meaning, may find either.
    Either,
}

impl Construction<'_> {
    /// Makes a challenge of the first image that serves, of those drawn (their numbers and secrets; the
    /// first [`limits::MAX_DRAWS`] of them), within a time, usually [`TIME`].
    ///
    /// # Errors
    /// There is none now; see [`ConstructError`].
    pub fn run(&self, until: &Until, images: &[(u64, TransformSecret)]) -> Result<Constructed, ConstructError> {
        if self.rules.semantic.asked() {
            self.semantics.ready()?;
        }
        let mut last = String::new();
        for (skipped, (index, secret)) in images.iter().take(limits::MAX_DRAWS).enumerate() {
            if until.over() {
                return Err(ConstructError::Late { last });
            }
            let image = match self.prepare(*index, secret, until)? {
                Ok(image) => image,
                Err(why) => {
                    last = why;
                    continue;
                }
            };
            let label = predict(&self.row(&image)?, 0)?.class;
            match self.means(&image, label, until)? {
                Ok(()) => {
                    let Prepared { pixels, png, .. } = image;
                    return Ok(Constructed { skipped, secret: *secret, pixels, png, label });
                }
                Err(why) => last = why,
            }
        }
        Err(ConstructError::NoMatch { last })
    }

    /// Looks at an image again that somebody passed over or used. Its label may be another within `tolerance`
    /// (millionths of a logit) on another device; what a judge says that is not the same everywhere
    /// ([`Semantics::repeatable`]) is not asked again.
    ///
    /// # Errors
    /// What cannot be told now.
    pub fn look_again(&self, image: &Prepared, tolerance: i64, until: &Until) -> Result<Seen, ConstructError> {
        if image.wanted.is_none() {
            return Ok(Seen::Serves);
        }
        if !self.semantics.repeatable() {
            return Ok(Seen::Either);
        }
        self.semantics.ready()?;
        let row = self.row(image)?;
        let label = predict(&row, 0)?.class;
        let of = |class: u16| row.get(usize::from(class)).copied().unwrap_or(f32::NEG_INFINITY);
        let others = (0u16..).zip(&row).filter(|(class, _)| *class != label);
        let next = others.fold(f32::NEG_INFINITY, |most, (_, z)| most.max(*z));
        if lead(of(label), next) <= tolerance {
            return Ok(Seen::Either);
        }
        Ok(if self.means(image, label, until)?.is_ok() { Seen::Serves } else { Seen::Fails })
    }

    /// Draws one image: transformed and encoded, or why it is passed over, on whatever machine.
    ///
    /// # Errors
    /// The source has nothing now.
    pub fn prepare(
        &self,
        index: u64,
        secret: &TransformSecret,
        until: &Until,
    ) -> Result<Result<Prepared, String>, ConstructError> {
        let image = match self.source.get_until(index, until) {
            Ok(image) => image,
            Err(e) if e.one_image() => return Ok(Err(e.to_string())),
            Err(e) => return Err(e.into()),
        };
        let wanted = match &self.wanted.0 {
            None => None,
            Some(classes) => match image.label.and_then(|l| classes.get(usize::from(l)).copied().flatten()) {
                Some(class) => Some(class),
                None => return Ok(Err(format!("image {index} has no label that names a class"))),
            },
        };
        let pixels = Transform::derive(secret, &self.rules.transform).apply(&image.pixels);
        let png = match pixels.encode_png() {
            Ok(png) if leaves_room(png.len(), pixels.channels()) => png,
            Ok(png) => {
                let (bytes, values) = (png.len(), pixels.channels());
                let why =
                    format!("image {index} has {bytes} bytes as PNG and {values} values: answers could not be sent");
                return Ok(Err(why));
            }
            Err(e) => return Ok(Err(format!("image {index}: {e}"))),
        };
        Ok(Ok(Prepared { index, pixels, png, wanted }))
    }

    fn row(&self, image: &Prepared) -> Result<Vec<f32>, ConstructError> {
        let rows = self.classifier.logits(&[&image.pixels])?;
        Ok(rows.into_iter().next().ok_or_else(|| ClassifierError("no logits for an image".into()))?)
    }

    /// Whether a label means the wanted class, where one is wanted; if not, why the image is passed over.
    fn means(&self, image: &Prepared, label: u16, until: &Until) -> Result<Result<(), String>, ConstructError> {
        let Some(wanted) = image.wanted else { return Ok(Ok(())) };
        match self.semantics.compare_until(wanted, label, until) {
            Ok(Meaning::Same) => Ok(Ok(())),
            Ok(_) => Ok(Err(format!("image {} of class {wanted} is taken for class {label}", image.index))),
            Err(e) if e.away() => Err(e.into()),
            Err(e) => Ok(Err(format!("image {}: {e}", image.index))),
        }
    }
}

/// Whether an answer to an image of so many bytes and channel values can be sent.
const fn leaves_room(png: usize, channels: usize) -> bool {
    png as u64 + channels as u64 * NOISE_BITS / 8 <= MAX_PNG_BYTES as u64
}

#[cfg(test)]
mod tests;
