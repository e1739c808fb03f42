//! A recorded round under rules: the verdicts that everyone derives again.

use perturb_challenge::recheck::{Found, Outcome, Recheck, TOLERANCE};
use perturb_challenge::rules::{judge, judge_round};
use perturb_challenge::semantics::{Semantics, SemanticsError};
use perturb_challenge::{Classifier, ClassifierError, Pixels, Rules};
use perturb_types::round::Meaning;
use perturb_types::{Digest, Entry, Millionths, Reason, RoundResult, limits};

use super::canonical;

/// Rules and a result, one behind the other.
pub fn verdict(bytes: &[u8]) {
    let limit = limits::MAX_ROUND_RESULT_BYTES + 4096;
    let Some((rules, result)) = canonical::<(Rules, RoundResult)>(bytes, limit) else { return };
    if rules.validate().is_err() {
        return;
    }
    let holds = judge_round(&rules, &result);
    for entry in &result.entries {
        for duplicate in [false, true] {
            let (_, score) = judge(&rules, result.label, entry, duplicate);
            assert!(score <= Millionths::ONE, "a score of {score}");
        }
        if holds.is_ok() {
            assert!(entry.score <= Millionths::ONE);
            possible(&rules, result.label, entry);
        }
        let _ = rules.bucket(entry.time_ms);
    }
    let _ = (rules.cap(), rules.epsilon_sent(result.source_index));
}

/// Nothing to ask, as a model and as a judge of meaning.
struct Nobody;

impl Classifier for Nobody {
    fn name(&self) -> &str {
        "nobody"
    }

    fn digest(&self) -> Digest {
        Digest([0; 32])
    }

    fn classes(&self) -> usize {
        0
    }

    fn logits(&self, _: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        Err(ClassifierError("nobody".into()))
    }
}

impl Semantics for Nobody {
    fn name(&self) -> &str {
        "nobody"
    }

    fn compare(&self, _: u16, _: u16) -> Result<Meaning, SemanticsError> {
        Err(SemanticsError::Away("nobody".into()))
    }

    fn repeatable(&self) -> bool {
        false
    }
}

/// Where the model says what a record says, the record is possible; where it fails, nobody is accused.
fn possible(rules: &Rules, label: u16, entry: &Entry) {
    let classes = usize::from(label.max(entry.predicted)) + 1;
    // Margins that an `f32` holds to the millionth.
    if classes > 1024 || !(0..8_000_000).contains(&entry.margin) || entry.reason == Reason::ModelInferenceFailed {
        return;
    }
    let recheck = Recheck { rules, classifier: &Nobody, semantics: &Nobody, tolerance: TOLERANCE };
    let mut row = vec![-1.0f32; classes];
    row[usize::from(entry.predicted)] = entry.margin as f32 * 1e-6;
    row[usize::from(label)] = 0.0;
    let found = |row| match entry.measurement.channels {
        0 => Found::Unread(entry.reason),
        _ => Found::Measured(entry.measurement, Some(row)),
    };
    assert!(recheck.record(label, entry, &found(Ok(row))) == Outcome::Holds, "{entry:?}");
    let failed = recheck.record(label, entry, &found(Err(ClassifierError("nobody".into()))));
    assert!(!matches!(failed, Outcome::Fails(_)), "{entry:?}");
}
