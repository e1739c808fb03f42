//! Whether a record is possible: what another machine may say about a round that was judged elsewhere.
//!
//! Integers are the same everywhere: an image that was measured gives the recorded measurement again, and
//! one that could not be read cannot be read here. Logits are not: two machines, and one machine with two
//! batch sizes, differ in the last bits, and a miner can look for an answer whose two best classes tie. So
//! the model is not asked for a second verdict but whether the record can come from it. With a tolerance t
//! and logits that differ by at most t/2 each, no honest record fails:
//!
//! - A recorded **flip** holds if the lead of the recorded class over the clean label is within t of the
//!   recorded margin, and no class leads the recorded one by more than 2t.
//! - A recorded **non-flip** holds if no class leads the label by `min_margin + t` or more.
//! - The **clean label** holds if no class leads it by more than t.
//! - A recorded **failure of the model** fails if the model takes the image here, and the judge of meaning
//!   has a verdict on every label that it may have been asked about.
//!
//! Who aims at a lead of `min_margin + 2t` is therefore paid, whoever looks. Meaning is judged of the
//! *recorded* class, where every validator's judge says the same: within a tie of two wrong classes the
//! round's validator is free to choose the one, and with it between success and semantic match. What a
//! language model said is taken from the record, as are time and what was never delivered.

use perturb_types::{Entry, Measurement, Reason};

use crate::classifier::{Classifier, ClassifierError, lead, predict};
use crate::measure::measure;
use crate::pixels::Pixels;
use crate::rules::{Rules, gates};
use crate::semantics::Semantics;
use crate::verify::{MODEL_BATCH, decode, rows};

/// The tolerance where a network agrees on no other, millionths of a logit: devices that round fp32 logits
/// otherwise differ in the fourth decimal at the most, and this is a hundred times that.
pub const TOLERANCE: u32 = 50_000;

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Measuring the answer gives other numbers.
    Measurement,
    /// The model cannot have said that, on any machine.
    Label,
    /// A failure that the record states is none.
    Stated,
}

/// What looking again came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record is possible.
    Holds,
    /// It is not.
    Fails(Flaw),
    /// This machine cannot tell: its model or its judge of meaning gives nothing.
    Unknown,
}

impl Outcome {
    /// Of two parts of one round: what fails decides, then what cannot be told.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fails(flaw), _) | (_, Self::Fails(flaw)) => Self::Fails(flaw),
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Holds, Self::Holds) => Self::Holds,
        }
    }
}

/// What this machine finds in an answer's bytes.
#[derive(Clone, Debug)]
pub enum Found {
    /// No pixels of the clean image's shape, for this reason.
    Unread(Reason),
    /// Pixels that were measured, and what the model says of them, one logit a class, where it was asked.
    Measured(Measurement, Option<Result<Vec<f32>, ClassifierError>>),
}

/// Whether the answer's bytes are needed to judge its record. Not where the record says that they never
/// came or came late, nor for bytes that were never read and that two miners gave.
#[must_use]
pub fn needs_image(entry: &Entry) -> bool {
    let measured = entry.measurement.channels > 0;
    entry.answer.is_some()
        && match entry.reason {
            Reason::Timeout | Reason::ResponseMissing | Reason::BadSignature => false,
            Reason::DuplicateResponse => measured,
            _ => true,
        }
}

/// Looks at rounds again.
#[derive(Clone, Copy)]
pub struct Recheck<'a> {
    /// The challenge's rules.
    pub rules: &'a Rules,
    /// Its classifier.
    pub classifier: &'a dyn Classifier,
    /// Its judge of meaning.
    pub semantics: &'a dyn Semantics,
    /// t: millionths of a logit by which two machines' margins may differ.
    pub tolerance: u32,
}

impl Recheck<'_> {
    /// Whether the model can have given the clean image this label.
    #[must_use]
    pub fn label(&self, clean: &Pixels, label: u16) -> Outcome {
        match rows(self.classifier, &[clean]).pop() {
            Some(Ok(row)) => match predict(&row, label) {
                Ok(best) if best.margin <= i64::from(self.tolerance) => Outcome::Holds,
                Ok(_) => Outcome::Fails(Flaw::Label),
                // A label that the model does not have.
                Err(_) if usize::from(label) >= row.len() && !row.is_empty() => Outcome::Fails(Flaw::Label),
                Err(_) => Outcome::Unknown,
            },
            Some(Err(_)) | None => Outcome::Unknown,
        }
    }

    /// Whether the records of a round's answers are possible; `pngs` are their bytes, in the same order,
    /// for all that [`needs_image`]. The model runs over the batches that the judge ran it over.
    #[must_use]
    pub fn answers(&self, clean: &Pixels, label: u16, entries: &[Entry], pngs: &[Option<Vec<u8>>]) -> Outcome {
        let mut so_far = Outcome::Holds;
        let mut batch: Vec<(&Entry, Pixels, Measurement)> = Vec::with_capacity(MODEL_BATCH);
        for (entry, png) in entries.iter().zip(pngs).filter(|(entry, _)| needs_image(entry)) {
            let Some(png) = png else {
                so_far = so_far.and(Outcome::Unknown);
                continue;
            };
            let found = match read(clean, png) {
                Ok((image, m)) if m == entry.measurement && gates::first_failure(self.rules, &m).is_none() => {
                    batch.push((entry, image, m));
                    if batch.len() == MODEL_BATCH {
                        so_far = so_far.and(self.run(label, &mut batch));
                    }
                    continue;
                }
                Ok((_, m)) => Found::Measured(m, None),
                Err(reason) => Found::Unread(reason),
            };
            so_far = so_far.and(self.record(label, entry, &found));
            // What fails without the model costs no run of it.
            if let Outcome::Fails(_) = so_far {
                return so_far;
            }
        }
        so_far.and(self.run(label, &mut batch))
    }

    /// Runs the model over a batch and empties it.
    fn run(&self, label: u16, batch: &mut Vec<(&Entry, Pixels, Measurement)>) -> Outcome {
        if batch.is_empty() {
            return Outcome::Holds;
        }
        let images: Vec<&Pixels> = batch.iter().map(|(_, image, _)| image).collect();
        let logits = rows(self.classifier, &images);
        let judged = batch
            .drain(..)
            .zip(logits)
            .map(|((entry, _, measurement), row)| self.record(label, entry, &Found::Measured(measurement, Some(row))));
        judged.fold(Outcome::Holds, Outcome::and)
    }

    /// Whether a record can come from what was found.
    #[must_use]
    pub fn record(&self, label: u16, entry: &Entry, found: &Found) -> Outcome {
        if !needs_image(entry) {
            return Outcome::Holds;
        }
        let (measurement, row) = match found {
            Found::Unread(reason) if entry.measurement.channels == 0 && *reason == entry.reason => {
                return Outcome::Holds;
            }
            Found::Measured(measurement, row) if *measurement == entry.measurement => (measurement, row),
            _ if entry.measurement.channels == 0 => return Outcome::Fails(Flaw::Stated),
            _ => return Outcome::Fails(Flaw::Measurement),
        };
        // The other answers of the round decide the one, the measurement the other.
        if entry.reason == Reason::DuplicateResponse || gates::first_failure(self.rules, measurement).is_some() {
            return Outcome::Holds;
        }
        let failed = entry.reason == Reason::ModelInferenceFailed;
        let row = match row {
            Some(Ok(row)) if predict(row, label).is_ok() => row,
            // Its own fault, as the record says: the model takes the clean image.
            Some(_) if failed => return Outcome::Holds,
            _ => return Outcome::Unknown,
        };
        match entry.reason {
            Reason::Success | Reason::SemanticMatch => self.flip(label, entry, row),
            _ if failed => self.failure(label, row),
            _ => self.no_flip(label, row),
        }
    }

    fn flip(&self, label: u16, entry: &Entry, row: &[f32]) -> Outcome {
        let t = i64::from(self.tolerance);
        let (Some(&named), Some(&clean)) = (row.get(usize::from(entry.predicted)), row.get(usize::from(label))) else {
            return Outcome::Fails(Flaw::Label);
        };
        let led_by = row.iter().map(|other| lead(*other, named)).max().unwrap_or(0);
        if lead(named, clean).abs_diff(entry.margin) > t.unsigned_abs() || led_by > 2 * t {
            return Outcome::Fails(Flaw::Label);
        }
        if !self.rules.semantic.asked() || !self.semantics.repeatable() {
            return Outcome::Holds;
        }
        match self.semantics.compare(label, entry.predicted) {
            Ok(meaning) if meaning == entry.meaning => Outcome::Holds,
            Err(error) if error.away() => Outcome::Unknown,
            _ => Outcome::Fails(Flaw::Label),
        }
    }

    fn no_flip(&self, label: u16, row: &[f32]) -> Outcome {
        match self.best(label, row) < i64::from(self.rules.min_margin) + i64::from(self.tolerance) {
            true => Outcome::Holds,
            false => Outcome::Fails(Flaw::Label),
        }
    }

    /// The record says that the model, or the judge of meaning, gave nothing.
    fn failure(&self, label: u16, row: &[f32]) -> Outcome {
        let Some(&clean) = row.get(usize::from(label)) else { return Outcome::Unknown };
        let others =
            || (0u16..).zip(row).filter(|(class, _)| *class != label).map(|(class, z)| (class, lead(*z, clean)));
        let t = i64::from(self.tolerance);
        let best = others().map(|(_, lead)| lead).max().unwrap_or(i64::MIN);
        // Meaning is asked of flips alone.
        if !self.rules.semantic.asked() || best < i64::from(self.rules.min_margin) - t {
            return Outcome::Fails(Flaw::Stated);
        }
        if !self.semantics.repeatable() {
            return Outcome::Holds;
        }
        // Any class that may have been the best one there.
        for (class, _) in others().filter(|(_, lead)| *lead >= best - 2 * t) {
            match self.semantics.compare(label, class) {
                Ok(_) => {}
                Err(error) if error.away() => return Outcome::Unknown,
                Err(_) => return Outcome::Holds,
            }
        }
        Outcome::Fails(Flaw::Stated)
    }

    /// The largest lead of any class over the label, millionths; 0 where none leads.
    fn best(&self, label: u16, row: &[f32]) -> i64 {
        predict(row, label).map_or(i64::MAX, |best| best.margin)
    }
}

/// The pixels of an answer with their measurement, or why there are none.
fn read(clean: &Pixels, png: &[u8]) -> Result<(Pixels, Measurement), Reason> {
    let image = decode(clean, png)?;
    let measured = measure(clean, &image).map_err(|_| Reason::ShapeMismatch)?;
    Ok((image, measured))
}

#[cfg(test)]
mod tests;
