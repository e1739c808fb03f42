//! Tests of the pipeline's order, over a model that can be computed by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::rules::judge_round;
use crate::semantics::{Exact, SemanticsError, Watched};
use perturb_types::round::TransformSecret;
use perturb_types::{ChallengeId, RoundId, RoundResult};

const SIDE: u32 = 32;

/// Two classes: class 1 leads by the number of values above 100 less `bias`; a first value of 99 breaks it.
struct Counting {
    bias: f32,
    runs: AtomicUsize,
}

impl Counting {
    fn new(bias: f32) -> Self {
        Self { bias, runs: AtomicUsize::new(0) }
    }
}

impl Classifier for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn digest(&self) -> Digest {
        Digest([0; 32])
    }

    fn classes(&self) -> usize {
        2
    }

    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        if images.iter().any(|i| i.rgb[0] == 99) {
            return Err(ClassifierError("a value it cannot take".into()));
        }
        let count = |i: &Pixels| i.rgb.iter().filter(|v| **v > 100).count() as f32;
        Ok(images.iter().map(|i| vec![0.0, count(i) - self.bias]).collect())
    }
}

/// Everything means the same, or nothing can be said.
struct Vague(bool);

impl Semantics for Vague {
    fn name(&self) -> &str {
        "vague"
    }

    fn compare(&self, _: u16, new: u16) -> Result<Meaning, SemanticsError> {
        if self.0 { Ok(Meaning::Same) } else { Err(SemanticsError::Unknown(new)) }
    }
}

fn clean() -> Pixels {
    Pixels::new(SIDE, SIDE, vec![100; (SIDE * SIDE * 3) as usize]).unwrap()
}

/// The clean image with `count` values raised by `k`.
fn raised(k: u8, count: usize) -> Vec<u8> {
    let mut p = clean();
    p.rgb.iter_mut().skip(1).take(count).for_each(|v| *v += k);
    p.encode_png().unwrap()
}

fn reason(rules: &Rules, png: &[u8]) -> Reason {
    verify(rules, &clean(), 0, png, &Counting::new(9.5), &Exact).reason
}

#[test]
fn each_stage_names_its_reason() {
    let rules = Rules::subnet();
    assert_eq!(reason(&rules, b"nothing"), Reason::DecodeFailed);
    let small = Pixels::new(1, 1, vec![0; 3]).unwrap().encode_png().unwrap();
    assert_eq!(reason(&rules, &small), Reason::ShapeMismatch);
    let mut deep = raised(1, 20);
    deep[24] = 16;
    assert_eq!(reason(&rules, &deep), Reason::ValueOutOfRange);
    assert_eq!(reason(&rules, &raised(0, 0)), Reason::BelowMinDelta);
    assert_eq!(reason(&rules, &raised(8, 20)), Reason::AboveMaxDelta);
    let mut speckled = clean();
    speckled.rgb.iter_mut().step_by(4).for_each(|v| *v += 7);
    assert_eq!(reason(&rules, &speckled.encode_png().unwrap()), Reason::BelowMinSsim);
    let lax = Rules { min_ssim: 0, ..Rules::subnet() };
    assert_eq!(reason(&lax, &raised(7, 2000)), Reason::BelowMinPsnrDb);
    assert_eq!(reason(&rules, &raised(1, 9)), Reason::LabelMatchWithOriginal);
    assert_eq!(reason(&rules, &raised(1, 10)), Reason::Success);
    let mut broken = clean();
    broken.rgb[0] = 99;
    assert_eq!(reason(&rules, &broken.encode_png().unwrap()), Reason::ModelInferenceFailed);
}

#[test]
fn a_good_answer_with_anything_besides_is_no_answer_for_judge_and_checker_alike() {
    let good = raised(1, 10);
    let mut text = good.clone();
    // A text chunk before the image data; its check sum is not looked at.
    text.splice(33..33, [&[0, 0, 0, 3][..], b"tEXt", b"k\0v", &[0; 4]].concat());
    let (ihdr, rest) = good.split_at(33);
    let empty = [&[0u8; 4][..], b"IDAT", &[0x35, 0xAF, 0x06, 0x1E]].concat();
    let padding = empty.repeat((perturb_types::limits::answer_bytes(SIDE, SIDE) - good.len()) / 12 + 1);
    let long = [ihdr, &padding, rest].concat();
    for (png, what) in [(&text, "text"), (&long, "too long")] {
        assert_eq!(reason(&Rules::subnet(), png), Reason::DecodeFailed, "{what}");
        let both = verify_batch(&Rules::subnet(), &clean(), 0, &[png, &good], &Counting::new(9.5), &Exact);
        assert_eq!([both[0].reason, both[1].reason], [Reason::DecodeFailed, Reason::Success], "{what}");
        let shown = crate::report::report(&Rules::subnet(), &clean(), png, None, 0);
        assert_eq!((shown.reason, shown.measurement), (Reason::DecodeFailed, None), "{what}");
    }
}

#[test]
fn a_flip_below_the_published_margin_does_not_count() {
    let rules = Rules { min_margin: 500_001, ..Rules::subnet() };
    let verdict = verify(&rules, &clean(), 0, &raised(1, 10), &Counting::new(9.5), &Exact);
    assert_eq!((verdict.reason, verdict.predicted), (Reason::LabelMatchWithOriginal, 1));
    assert_eq!(verdict.margin_millionths, 500_000);
}

#[test]
fn the_model_is_not_asked_where_a_gate_failed() {
    let model = Counting::new(9.5);
    let png = raised(8, 20);
    let verdict = verify(&Rules::subnet(), &clean(), 0, &png, &model, &Exact);
    assert_eq!((model.runs.load(Ordering::SeqCst), verdict.measurement.level, verdict.predicted), (0, 8, 0));
}

#[test]
fn the_meaning_is_asked_last_and_by_the_whitepaper_only() {
    let ask = |rules: &Rules, s: &dyn Semantics| verify(rules, &clean(), 0, &raised(1, 10), &Counting::new(9.5), s);
    assert_eq!(ask(&Rules::whitepaper(), &Exact).reason, Reason::Success);
    assert_eq!(ask(&Rules::whitepaper(), &Vague(true)).reason, Reason::SemanticMatch);
    assert_eq!(ask(&Rules::whitepaper(), &Vague(false)).reason, Reason::ModelInferenceFailed);
    assert_eq!(ask(&Rules::subnet(), &Vague(true)).reason, Reason::Success);
}

#[test]
fn labels_without_a_verdict_cost_their_own_answer_alone() {
    let pngs = [raised(1, 10), raised(1, 9), raised(8, 3)];
    let refs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
    let vague = Vague(false);
    let judge = Watched::new(&vague);
    let verdicts = verify_batch(&Rules::whitepaper(), &clean(), 0, &refs, &Counting::new(9.5), &judge);
    let reasons: Vec<Reason> = verdicts.iter().map(|v| v.reason).collect();
    assert_eq!(reasons[..2], [Reason::ModelInferenceFailed, Reason::LabelMatchWithOriginal]);
    assert_eq!(judge.into_failure(), None, "the round's result need not wait");
}

#[test]
fn a_batch_gives_the_same_verdicts_in_one_run() {
    let rules = Rules::subnet();
    let pngs = [raised(1, 10), b"nothing".to_vec(), raised(8, 3), raised(1, 9), raised(1, 30)];
    let refs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
    let model = Counting::new(9.5);
    let batch = verify_batch(&rules, &clean(), 0, &refs, &model, &Exact);
    assert_eq!(model.runs.load(Ordering::SeqCst), 1);
    let single: Vec<Verdict> = refs.iter().map(|p| verify(&rules, &clean(), 0, p, &model, &Exact)).collect();
    assert_eq!(batch, single);
}

#[test]
fn one_image_that_breaks_the_model_spares_the_others() {
    let mut broken = clean();
    broken.rgb[0] = 99;
    let pngs = [raised(1, 10), broken.encode_png().unwrap(), raised(1, 12)];
    let refs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
    let verdicts = verify_batch(&Rules::subnet(), &clean(), 0, &refs, &Counting::new(9.5), &Exact);
    let reasons: Vec<Reason> = verdicts.iter().map(|v| v.reason).collect();
    assert_eq!(reasons, vec![Reason::Success, Reason::ModelInferenceFailed, Reason::Success]);
}

#[test]
fn the_entries_of_a_verified_round_follow_from_their_fields() {
    let pngs = [
        raised(1, 10),
        raised(1, 10),
        raised(1, 11),
        b"nothing".to_vec(),
        raised(8, 3),
        raised(1, 9),
        raised(1, 40),
        Pixels::new(1, 1, vec![0; 3]).unwrap().encode_png().unwrap(),
    ];
    let refs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
    for rules in [Rules::subnet(), Rules::whitepaper()] {
        let verdicts = verify_batch(&rules, &clean(), 0, &refs, &Counting::new(9.5), &Exact);
        let digests: Vec<Digest> = pngs.iter().map(|p| Digest::of(p)).collect();
        let doubled = duplicate_digests(&digests);
        assert_eq!(doubled, vec![digests[0]]);
        let mut entries: Vec<Entry> = verdicts
            .iter()
            .zip(&digests)
            .enumerate()
            .map(|(i, (v, digest))| {
                let time = if i == 6 { 999_999 } else { 123 };
                v.entry(&rules, 0, Hotkey([i as u8; 32]), *digest, time, doubled.contains(digest))
            })
            .collect();
        for reason in [Reason::ResponseMissing, Reason::BadSignature, Reason::Timeout] {
            entries.push(Verdict::absent(&rules, 0, Hotkey([99; 32]), reason, 5));
            assert_eq!(entries.last().unwrap().reason, reason);
        }
        let reasons: Vec<Reason> = entries.iter().map(|e| e.reason).collect();
        assert_eq!(reasons[..2], [Reason::DuplicateResponse; 2]);
        assert_eq!((reasons[2], reasons[6]), (Reason::Success, Reason::Timeout));
        assert_eq!(entries[2].time_ms, 150);
        let result = RoundResult {
            round: RoundId { validator: Hotkey([1; 32]), challenge: ChallengeId(0), seq: 0 },
            open: Digest([0; 32]),
            transform: TransformSecret([0; 32]),
            images: perturb_types::Lot { point: [0; 32], proof: [0; 64] },
            skipped: vec![],
            source_index: 0,
            label: 0,
            entries,
        };
        judge_round(&rules, &result).unwrap();
    }
}
