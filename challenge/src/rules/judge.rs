//! The verdict of a recorded entry, derived again from its integers.
//!
//! Order, first match names the reason:
//!
//! 1. no answer: what the validator states (missing, timeout, bad signature);
//! 2. time above the deadline: timeout;
//! 3. the shown answer's digest occurs more than once in the round: duplicate. *All* who gave it get
//!    nothing: each was bound to it before anybody saw it, so they made it together;
//! 4. not measured: what the validator states (decoding, shape, range);
//! 5. the gates: below minimum, above maximum, SSIM, PSNR;
//! 6. a stated failure of the model;
//! 7. the flip, by the least margin;
//! 8. the meaning, where the rules ask for it;
//! 9. success, with the score.
//!
//! Stated reasons cannot be derived from integers (the images are needed); they give zero.

use std::collections::BTreeMap;

use perturb_types::round::Meaning;
use perturb_types::{Digest, Entry, Hotkey, Measurement, Millionths, Reason, RoundResult};

use super::{MILLION, Rules, gates, score};

/// An entry that does not follow from its own fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Reason or score differ from what the fields give.
    #[error("{miner}: recorded {recorded} {recorded_score}, but its fields give {derived} {derived_score}")]
    Verdict {
        /// The miner.
        miner: Hotkey,
        /// The record's reason.
        recorded: Reason,
        /// The record's score.
        recorded_score: Millionths,
        /// The derived reason.
        derived: Reason,
        /// The derived score.
        derived_score: Millionths,
    },
    /// Fields that contradict each other.
    #[error("{miner}: {why}")]
    Fields {
        /// The miner.
        miner: Hotkey,
        /// What is wrong.
        why: &'static str,
    },
    /// Two measured entries of one round have different numbers of channel values.
    #[error("{miner}: measured on {found} channel values, the others on {expected}")]
    Shape {
        /// The miner.
        miner: Hotkey,
        /// Its channel values.
        found: u32,
        /// The others'.
        expected: u32,
    },
}

/// The digests that more than one entry answered with.
#[must_use]
pub fn duplicates(entries: &[Entry]) -> Vec<Digest> {
    let mut seen: BTreeMap<Digest, u32> = BTreeMap::new();
    for answer in entries.iter().filter_map(|e| e.answer) {
        *seen.entry(answer).or_default() += 1;
    }
    seen.into_iter().filter(|(_, n)| *n > 1).map(|(d, _)| d).collect()
}

/// Reason and score that follow from the entry's other fields; `label` is the clean image's,
/// `duplicate` whether another entry of the round has the same answer digest.
#[must_use]
pub fn judge(rules: &Rules, label: u16, entry: &Entry, duplicate: bool) -> (Reason, Millionths) {
    match failure(rules, label, entry, duplicate) {
        Some(reason) => (reason, Millionths::ZERO),
        None => {
            let score = score::score_with_margin(rules, &entry.measurement, entry.margin, entry.time_ms);
            (Reason::Success, score)
        }
    }
}

fn failure(rules: &Rules, label: u16, entry: &Entry, duplicate: bool) -> Option<Reason> {
    let stated =
        |allowed: &[Reason], otherwise| Some(if allowed.contains(&entry.reason) { entry.reason } else { otherwise });
    if entry.answer.is_none() {
        return stated(&[Reason::Timeout, Reason::BadSignature], Reason::ResponseMissing);
    }
    if entry.time_ms > rules.deadline_ms {
        return Some(Reason::Timeout);
    }
    if duplicate {
        return Some(Reason::DuplicateResponse);
    }
    if entry.measurement.channels == 0 {
        return stated(&[Reason::ShapeMismatch, Reason::ValueOutOfRange], Reason::DecodeFailed);
    }
    if let Some(reason) = gates::first_failure(rules, &entry.measurement) {
        return Some(reason);
    }
    if entry.reason == Reason::ModelInferenceFailed {
        return Some(Reason::ModelInferenceFailed);
    }
    if entry.predicted == label || entry.margin < i64::from(rules.min_margin) {
        return Some(Reason::LabelMatchWithOriginal);
    }
    if rules.semantic.asked() && entry.meaning != Meaning::Different {
        return Some(Reason::SemanticMatch);
    }
    None
}

/// Whether numbers can be the measurement of one image against another.
fn plausible(m: &Measurement) -> Result<(), &'static str> {
    if m.channels == 0 {
        let zero = *m == Measurement::default();
        return zero.then_some(()).ok_or("measured without channel values");
    }
    if !m.channels.is_multiple_of(3) || m.changed > m.channels || m.ssim.0 > MILLION {
        return Err("a measurement out of range");
    }
    let (level, changed) = (u64::from(m.level), u64::from(m.changed));
    if (level == 0) != (changed == 0) {
        return Err("level and changed values contradict each other");
    }
    let most = changed * level * level;
    let least = (level * level + changed).saturating_sub(1);
    let fits = if changed == 0 { m.sum_squares == 0 } else { (least..=most).contains(&m.sum_squares) };
    fits.then_some(()).ok_or("the sum of squares fits neither level nor changed values")
}

fn well_formed(rules: &Rules, label: u16, e: &Entry) -> Result<(), &'static str> {
    plausible(&e.measurement)?;
    if e.time_ms != rules.bucket(e.time_ms) {
        return Err("its time is no multiple of the bucket");
    }
    let measured = e.measurement.channels > 0;
    let asked = measured
        && gates::first_failure(rules, &e.measurement).is_none()
        && !matches!(e.reason, Reason::ModelInferenceFailed | Reason::Timeout | Reason::DuplicateResponse);
    if e.answer.is_none() && measured {
        return Err("measured without an answer");
    }
    if e.margin < 0 || (e.predicted == label && e.margin != 0) {
        return Err("a margin that its label cannot have");
    }
    if !asked && e.reason != Reason::DuplicateResponse && (e.predicted != label || e.meaning != Meaning::NotAsked) {
        return Err("a prediction where the model was not asked");
    }
    if !rules.semantic.asked() && e.meaning != Meaning::NotAsked {
        return Err("a meaning that the rules do not ask for");
    }
    // Where the rules ask, every flip is judged, and nothing else.
    let flip = e.predicted != label && e.margin >= i64::from(rules.min_margin);
    if rules.semantic.asked() && flip != (e.meaning != Meaning::NotAsked) {
        return Err(if flip { "a flip whose meaning nobody judged" } else { "a meaning without a flip" });
    }
    Ok(())
}

/// Checks that every entry of a closed round follows from its own fields.
///
/// # Errors
/// The first entry that does not.
pub fn judge_round(rules: &Rules, result: &RoundResult) -> Result<(), RecordError> {
    let doubled = duplicates(&result.entries);
    let mut channels = None;
    for entry in &result.entries {
        let miner = entry.miner;
        well_formed(rules, result.label, entry).map_err(|why| RecordError::Fields { miner, why })?;
        let found = entry.measurement.channels;
        if found > 0 {
            let expected = *channels.get_or_insert(found);
            if expected != found {
                return Err(RecordError::Shape { miner, found, expected });
            }
        }
        let duplicate = entry.answer.is_some_and(|a| doubled.contains(&a));
        let (derived, derived_score) = judge(rules, result.label, entry, duplicate);
        if (derived, derived_score) != (entry.reason, entry.score) {
            return Err(RecordError::Verdict {
                miner,
                recorded: entry.reason,
                recorded_score: entry.score,
                derived,
                derived_score,
            });
        }
    }
    Ok(())
}
