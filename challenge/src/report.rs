//! Every measurement and every gate's verdict on one answer, for people and for programs.
//!
//! The pipeline stops at the first failure; a report goes on where it can, so that a miner sees all
//! that is wrong at once. Reason and score are those that a validator records.

use std::fmt;

use perturb_types::round::Meaning;
use perturb_types::{Digest, Hotkey, Measurement, Millionths, Reason};
use serde::Serialize;

use crate::classifier::Classifier;
use crate::measure::measure;
use crate::pixels::{DecodeError, Pixels};
use crate::rules::gates::{self, Gate};
use crate::rules::{Preset, Rules};
use crate::semantics::Semantics;
use crate::verify::{Verdict, verify};

/// A gate's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GateReport {
    /// The gate: the reason it gives when it fails.
    pub gate: Reason,
    /// Whether it holds; `None` where it could not be asked or the rules have no such gate.
    pub passed: Option<bool>,
    /// What was found.
    pub found: String,
    /// What the rules want.
    pub wanted: String,
}

/// All there is to say about an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The preset.
    pub rules: Preset,
    /// The first failure, or success.
    pub reason: Reason,
    /// The score in millionths.
    pub score: Millionths,
    /// The measurements; `None` where the answer does not decode to the clean image's shape.
    pub measurement: Option<Measurement>,
    /// PSNR in thousandths of a decibel.
    pub psnr_mdb: Option<u32>,
    /// Response time as it counts: rounded up to the bucket, milliseconds.
    pub time_ms: u32,
    /// The clean image's label by the model; `None` where the flip is taken as given.
    pub clean_label: Option<u16>,
    /// The answer's label by the model.
    pub predicted: Option<u16>,
    /// Lead of the new label, millionths of a logit.
    pub margin: Option<i64>,
    /// All gates, in order.
    pub gates: Vec<GateReport>,
}

/// The model's side of a report.
pub struct Model<'a> {
    /// The model.
    pub classifier: &'a dyn Classifier,
    /// The judge of meaning.
    pub semantics: &'a dyn Semantics,
}

fn decimal(millionths: u64) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

fn decibel(mdb: u32) -> String {
    format!("{}.{:03} dB", mdb / 1000, mdb % 1000)
}

fn gate_report(rules: &Rules, gate: Gate, m: Option<&Measurement>) -> GateReport {
    let (active, wanted) = match gate {
        Gate::MinDelta => (true, format!("k ≥ {} (L∞ ≥ {})", gates::min_level(rules), decimal(rules.min_delta.into()))),
        Gate::MaxDelta => (true, format!("k ≤ {} (L∞ ≤ {})", gates::max_level(rules), decimal(rules.cap().into()))),
        Gate::Ssim => (rules.min_ssim > 0, format!("≥ {}", decimal(rules.min_ssim.into()))),
        Gate::Psnr => (rules.min_psnr_mdb > 0, format!("≥ {}", decibel(rules.min_psnr_mdb))),
    };
    let found = m.map_or_else(
        || "not measured".to_owned(),
        |m| match gate {
            Gate::MinDelta | Gate::MaxDelta => {
                format!("k = {} (L∞ {})", m.level, decimal(u64::from(m.level) * 1_000_000 / 255))
            }
            Gate::Ssim => decimal(m.ssim.0.into()),
            Gate::Psnr => decibel(gates::psnr_mdb(m)),
        },
    );
    let passed = m.filter(|_| active).map(|m| gate.passes(rules, m));
    let wanted = if active { wanted } else { "no gate in these rules".to_owned() };
    GateReport { gate: gate.reason(), passed, found, wanted }
}

fn row(gate: Reason, passed: Option<bool>, found: impl Into<String>, wanted: impl Into<String>) -> GateReport {
    GateReport { gate, passed, found: found.into(), wanted: wanted.into() }
}

/// The label that stands for the clean image where no model is asked.
const GIVEN: u16 = 0;

/// The verdict with the flip taken as given: another label, at the least margin, of another meaning.
fn given(rules: &Rules, decoded: &Result<Pixels, Reason>, m: Option<Measurement>) -> Verdict {
    let Some(measurement) = m else {
        let reason = decoded.as_ref().err().copied().unwrap_or(Reason::ShapeMismatch);
        return Verdict::unmeasured(reason, GIVEN);
    };
    if let Some(reason) = gates::first_failure(rules, &measurement) {
        return Verdict { measurement, ..Verdict::unmeasured(reason, GIVEN) };
    }
    let semantic = if rules.semantic.asked() { Meaning::Different } else { Meaning::NotAsked };
    let margin_millionths = i64::from(rules.min_margin);
    Verdict { reason: Reason::Success, measurement, predicted: GIVEN + 1, margin_millionths, semantic }
}

/// Judges `answer_png` against `clean` exactly as a validator would, `elapsed_ms` after the
/// challenge. Without a model the flip (and the new meaning) is taken as given.
#[must_use]
pub fn report(rules: &Rules, clean: &Pixels, answer_png: &[u8], model: Option<&Model<'_>>, elapsed_ms: u32) -> Report {
    let decoded = Pixels::decode_answer(answer_png, clean);
    let measured = decoded.as_ref().ok().and_then(|answer| measure(clean, answer).ok());
    let decode_text = decoded.as_ref().map_or_else(ToString::to_string, |p| format!("{}×{} RGB", p.width, p.height));
    let shape_ok = match &decoded {
        Ok(_) => Some(true),
        Err(DecodeError::Shape { .. } | DecodeError::TooLarge { .. }) => Some(false),
        Err(_) => None,
    };

    let clean_label = model.and_then(|m| {
        let rows = m.classifier.logits(&[clean]).ok()?;
        crate::classifier::predict(rows.first()?, 0).ok().map(|p| p.class)
    });
    let (label, verdict) = match (model, clean_label) {
        (Some(m), Some(label)) => (label, verify(rules, clean, label, answer_png, m.classifier, m.semantics)),
        (Some(_), None) => {
            let failed = Verdict::unmeasured(Reason::ModelInferenceFailed, GIVEN);
            (GIVEN, Verdict { measurement: measured.unwrap_or_default(), ..failed })
        }
        (None, _) => {
            let failed = crate::verify::decode(clean, answer_png);
            (GIVEN, given(rules, &failed, measured))
        }
    };
    let entry = verdict.entry(rules, label, Hotkey([0; 32]), Digest::of(answer_png), elapsed_ms, false);

    let mut gates = vec![
        row(
            Reason::Timeout,
            Some(entry.time_ms <= rules.deadline_ms),
            format!("{} ms", entry.time_ms),
            format!("≤ {} ms", rules.deadline_ms),
        ),
        row(Reason::DecodeFailed, Some(shape_ok.is_some()), decode_text, "8-bit RGB PNG of image data alone"),
        row(
            Reason::ShapeMismatch,
            shape_ok,
            shape_ok.map_or("not decoded", |ok| if ok { "same" } else { "other" }),
            format!("{}×{}", clean.width, clean.height),
        ),
    ];
    gates.extend(Gate::ALL.into_iter().map(|g| gate_report(rules, g, measured.as_ref())));
    let asked = model.is_some() && pixels_pass(rules, measured.as_ref()) && clean_label.is_some();
    gates.extend(model_gates(rules, &verdict, label, asked, model.is_none()));
    Report {
        rules: rules.preset,
        reason: entry.reason,
        score: entry.score,
        measurement: measured,
        psnr_mdb: measured.as_ref().map(gates::psnr_mdb),
        time_ms: entry.time_ms,
        clean_label,
        predicted: asked.then_some(verdict.predicted),
        margin: asked.then_some(verdict.margin_millionths),
        gates,
    }
}

fn pixels_pass(rules: &Rules, m: Option<&Measurement>) -> bool {
    m.is_some_and(|m| gates::first_failure(rules, m).is_none())
}

fn model_gates(rules: &Rules, v: &Verdict, label: u16, asked: bool, taken: bool) -> Vec<GateReport> {
    let failed = v.reason == Reason::ModelInferenceFailed;
    let not_asked = if taken { "taken as given" } else { "not asked" };
    let flipped = v.predicted != label && v.margin_millionths >= i64::from(rules.min_margin);
    let known = asked && !failed;
    let flip = if known {
        format!("{} → {}, lead {}", label, v.predicted, decimal(v.margin_millionths.unsigned_abs()))
    } else {
        not_asked.to_owned()
    };
    let meaning = match v.semantic {
        _ if !known => not_asked,
        Meaning::Same => "same meaning",
        Meaning::Different => "different meaning",
        Meaning::NotAsked => "not asked",
    };
    let meaning_wanted = if rules.semantic.asked() { "different meaning" } else { "no gate in these rules" };
    let meaning_ok = (known && rules.semantic.asked() && flipped).then_some(v.semantic == Meaning::Different);
    vec![
        row(
            Reason::ModelInferenceFailed,
            (asked || failed).then_some(!failed),
            if failed {
                "failed"
            } else if asked {
                "ran"
            } else {
                not_asked
            },
            "runs",
        ),
        row(
            Reason::LabelMatchWithOriginal,
            known.then_some(flipped),
            flip,
            format!("another label, lead ≥ {}", decimal(rules.min_margin.into())),
        ),
        row(Reason::SemanticMatch, meaning_ok, meaning, meaning_wanted),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rules    {}", self.rules.name())?;
        if let Some(m) = &self.measurement {
            writeln!(f, "level    {} of 255 (L∞ {})", m.level, decimal(u64::from(m.level) * 1_000_000 / 255))?;
            let percent = f64::from(m.changed) * 100.0 / f64::from(m.channels.max(1));
            writeln!(f, "changed  {} of {} channel values ({percent:.3} %)", m.changed, m.channels)?;
            writeln!(f, "squares  {}", m.sum_squares)?;
            writeln!(f, "ssim     {}", m.ssim)?;
        }
        if let Some(mdb) = self.psnr_mdb {
            writeln!(f, "psnr     {}", decibel(mdb))?;
        }
        writeln!(f, "time     {} ms", self.time_ms)?;
        writeln!(f)?;
        for g in &self.gates {
            let mark = match g.passed {
                Some(true) => "pass",
                Some(false) => "FAIL",
                None => "-",
            };
            writeln!(f, "{mark:<5} {:<26} {:<34} {}", g.gate.to_string(), g.found, g.wanted)?;
        }
        writeln!(f)?;
        writeln!(f, "verdict  {}", self.reason)?;
        write!(f, "score    {}", self.score)
    }
}

#[cfg(test)]
mod tests;
