//! The verification of an answer, in the order of the rules; the first failure names the reason:
//! decode, shape, range, below minimum, above maximum, SSIM, PSNR, model, flip, semantics.
//!
//! What is cheap comes before the model. A PNG that is longer than an answer may be is not looked into,
//! one with other chunks than those of the image or whose header announces another shape is turned
//! away before anything is inflated; samples of more than 8 bits are out of range. What follows from the
//! measured integers is decided by [`crate::rules::judge`], here as in the ledger, so that a verdict
//! and its re-derivation cannot differ.

use perturb_types::round::Meaning;
use perturb_types::{Digest, Entry, Hotkey, Measurement, Millionths, Reason};

use crate::classifier::{Classifier, ClassifierError, Prediction, predict};
use crate::measure::measure;
use crate::pixels::{DecodeError, Pixels};
use crate::rules::{Rules, gates, judge};
use crate::semantics::Semantics;

/// Images per run of the model: bounds its memory whatever the round's size.
pub const MODEL_BATCH: usize = 32;

/// What became of an answer's bytes; time and signature are not looked at here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The first failure, or success.
    pub reason: Reason,
    /// Zeros where the answer could not be measured.
    pub measurement: Measurement,
    /// The model's label; the clean label where it was not asked.
    pub predicted: u16,
    /// Lead of `predicted` over the clean label, millionths of a logit; 0 where not asked.
    pub margin_millionths: i64,
    /// The semantic verdict.
    pub semantic: Meaning,
}

impl Verdict {
    /// A failure before anything was measured.
    #[must_use]
    pub fn unmeasured(reason: Reason, clean_label: u16) -> Self {
        Self {
            reason,
            measurement: Measurement::default(),
            predicted: clean_label,
            margin_millionths: 0,
            semantic: Meaning::NotAsked,
        }
    }

    /// The record of an answer: `elapsed_ms` is rounded up to the rules' bucket; the reason and the
    /// score are those that follow from the record. `duplicate`: another miner of the round gave the
    /// same digest.
    #[must_use]
    pub fn entry(
        &self,
        rules: &Rules,
        clean_label: u16,
        miner: Hotkey,
        answer: Digest,
        elapsed_ms: u32,
        duplicate: bool,
    ) -> Entry {
        let mut entry = Entry {
            miner,
            answer: Some(answer),
            measurement: self.measurement,
            predicted: self.predicted,
            margin: self.margin_millionths,
            meaning: self.semantic,
            time_ms: rules.bucket(elapsed_ms),
            reason: self.reason,
            score: Millionths::ZERO,
        };
        if entry.time_ms > rules.deadline_ms {
            let late = Self::unmeasured(Reason::Timeout, clean_label);
            entry.measurement = late.measurement;
            (entry.predicted, entry.margin, entry.meaning) = (late.predicted, 0, late.semantic);
        }
        (entry.reason, entry.score) = judge(rules, clean_label, &entry, duplicate);
        entry
    }

    /// The record of a miner whose answer never counted: none came, its signature was bad, it was late.
    #[must_use]
    pub fn absent(rules: &Rules, clean_label: u16, miner: Hotkey, reason: Reason, elapsed_ms: u32) -> Entry {
        let mut entry = Entry {
            miner,
            answer: None,
            measurement: Measurement::default(),
            predicted: clean_label,
            margin: 0,
            meaning: Meaning::NotAsked,
            time_ms: rules.bucket(elapsed_ms),
            reason,
            score: Millionths::ZERO,
        };
        (entry.reason, entry.score) = judge(rules, clean_label, &entry, false);
        entry
    }
}

/// The clean side of a round.
#[derive(Clone, Copy)]
pub struct Clean<'a> {
    /// The transformed image that the miners got.
    pub pixels: &'a Pixels,
    /// The model's label for it.
    pub label: u16,
}

/// An answer after the gates on its pixels.
enum Gated {
    /// It failed.
    Failed(Verdict),
    /// The model has to say.
    Passed(Pixels, Measurement),
}

/// An answer of the clean image's shape, or the reason why there is none.
pub(crate) fn decode(clean: &Pixels, png: &[u8]) -> Result<Pixels, Reason> {
    Pixels::decode_answer(png, clean).map_err(|e| match e {
        DecodeError::Depth { bits: 9.. } => Reason::ValueOutOfRange,
        DecodeError::Shape { .. } | DecodeError::TooLarge { .. } => Reason::ShapeMismatch,
        _ => Reason::DecodeFailed,
    })
}

fn gate(rules: &Rules, clean: &Clean<'_>, png: &[u8]) -> Gated {
    let answer = match decode(clean.pixels, png) {
        Ok(answer) => answer,
        Err(reason) => return Gated::Failed(Verdict::unmeasured(reason, clean.label)),
    };
    let Ok(measurement) = measure(clean.pixels, &answer) else {
        return Gated::Failed(Verdict::unmeasured(Reason::ShapeMismatch, clean.label));
    };
    match gates::first_failure(rules, &measurement) {
        Some(reason) => Gated::Failed(Verdict { measurement, ..Verdict::unmeasured(reason, clean.label) }),
        None => Gated::Passed(answer, measurement),
    }
}

/// Flip and meaning.
fn decide(
    rules: &Rules,
    label: u16,
    measurement: Measurement,
    answer: Result<Prediction, ClassifierError>,
    semantics: &dyn Semantics,
) -> Verdict {
    let failed = Verdict { measurement, ..Verdict::unmeasured(Reason::ModelInferenceFailed, label) };
    let Ok(prediction) = answer else { return failed };
    let flipped = prediction.class != label && prediction.margin >= i64::from(rules.min_margin);
    let semantic = match (flipped, rules.semantic.asked()) {
        (true, true) => match semantics.compare(label, prediction.class) {
            Ok(meaning) => meaning,
            Err(_) => return failed,
        },
        _ => Meaning::NotAsked,
    };
    let reason = match (flipped, semantic) {
        (false, _) => Reason::LabelMatchWithOriginal,
        (true, Meaning::Same) => Reason::SemanticMatch,
        (true, Meaning::NotAsked) if rules.semantic.asked() => Reason::SemanticMatch,
        (true, _) => Reason::Success,
    };
    Verdict { reason, measurement, predicted: prediction.class, margin_millionths: prediction.margin, semantic }
}

/// The model's row of logits for each image; if a batch fails, for each image alone, so that one bad
/// image does not take the others with it.
pub(crate) fn rows(classifier: &dyn Classifier, images: &[&Pixels]) -> Vec<Result<Vec<f32>, ClassifierError>> {
    match classifier.logits(images) {
        Ok(rows) if rows.len() == images.len() => rows.into_iter().map(Ok).collect(),
        Ok(rows) if images.len() == 1 => {
            vec![Err(ClassifierError(format!("{} rows of logits for one image", rows.len())))]
        }
        Err(e) if images.len() == 1 => vec![Err(e)],
        _ => images.iter().flat_map(|image| rows(classifier, &[image])).collect(),
    }
}

fn ask(classifier: &dyn Classifier, images: &[&Pixels], label: u16) -> Vec<Result<Prediction, ClassifierError>> {
    rows(classifier, images).into_iter().map(|row| predict(&row?, label)).collect()
}

/// Verifies one answer.
#[must_use]
pub fn verify(
    rules: &Rules,
    clean: &Pixels,
    clean_label: u16,
    answer_png: &[u8],
    classifier: &dyn Classifier,
    semantics: &dyn Semantics,
) -> Verdict {
    let clean = Clean { pixels: clean, label: clean_label };
    match gate(rules, &clean, answer_png) {
        Gated::Failed(verdict) => verdict,
        Gated::Passed(image, measurement) => {
            let answer = ask(classifier, &[&image], clean_label)
                .pop()
                .unwrap_or_else(|| Err(ClassifierError("no answer".into())));
            decide(rules, clean_label, measurement, answer, semantics)
        }
    }
}

/// Verifies all answers of a round, in order: the gates for each, then the model over all that
/// passed, [`MODEL_BATCH`] at a time. Who checks the round later makes the same batches from the record
/// ([`crate::recheck`]).
///
/// If *every* answer that reached the model failed there, the model is at fault rather than the
/// miners: a validator should look to it before it closes the round.
#[must_use]
pub fn verify_batch(
    rules: &Rules,
    clean: &Pixels,
    clean_label: u16,
    answers: &[&[u8]],
    classifier: &dyn Classifier,
    semantics: &dyn Semantics,
) -> Vec<Verdict> {
    let clean = Clean { pixels: clean, label: clean_label };
    let mut verdicts = Vec::with_capacity(answers.len());
    // Those that wait for the model, with their places.
    let mut batch: Vec<(usize, Pixels, Measurement)> = Vec::with_capacity(MODEL_BATCH);
    for (place, png) in answers.iter().enumerate() {
        match gate(rules, &clean, png) {
            Gated::Failed(verdict) => verdicts.push(verdict),
            Gated::Passed(image, measurement) => {
                let unasked = Verdict::unmeasured(Reason::ModelInferenceFailed, clean_label);
                verdicts.push(Verdict { measurement, ..unasked });
                batch.push((place, image, measurement));
            }
        }
        if batch.len() < MODEL_BATCH && place + 1 < answers.len() {
            continue;
        }
        let images: Vec<&Pixels> = batch.iter().map(|(_, image, _)| image).collect();
        let asked = if images.is_empty() { Vec::new() } else { ask(classifier, &images, clean_label) };
        for ((place, _, measurement), answer) in batch.drain(..).zip(asked) {
            if let Some(verdict) = verdicts.get_mut(place) {
                *verdict = decide(rules, clean_label, measurement, answer, semantics);
            }
        }
    }
    verdicts
}

/// The digests that occur more than once among a round's announced answers: all who gave them get
/// nothing.
#[must_use]
pub fn duplicate_digests(announced: &[Digest]) -> Vec<Digest> {
    let mut sorted = announced.to_vec();
    sorted.sort_unstable();
    let mut doubled: Vec<Digest> = sorted.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
    doubled.dedup();
    doubled
}

#[cfg(test)]
mod tests;
