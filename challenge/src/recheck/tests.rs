//! Records at and beyond every edge of the tolerance.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use perturb_types::round::Meaning;
use perturb_types::{Digest, Hotkey, Millionths};
use proptest::prelude::*;

use super::*;
use crate::semantics::{Exact, SemanticsError};
use crate::verify::{Verdict, verify, verify_batch};

const T: u32 = 50_000;

/// Classes 1 and 2 tie; the last bits follow the number of images in the run, as in a library that takes
/// another path for another batch. A first value of 99 breaks it.
struct Tied;

impl Classifier for Tied {
    fn name(&self) -> &str {
        "tied"
    }

    fn digest(&self) -> Digest {
        Digest([0; 32])
    }

    fn classes(&self) -> usize {
        3
    }

    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        if images.iter().any(|i| i.rgb[0] == 99) {
            return Err(ClassifierError("a value it cannot take".into()));
        }
        let bit = if images.len() == 1 { 1e-6 } else { -1e-6 };
        let row = |i: &&Pixels| match i.rgb.iter().filter(|v| **v > 100).count() {
            0 => vec![5.0, 1.0, 1.0],
            count => vec![1.0, 1.0 + count as f32, 1.0 + count as f32 + bit],
        };
        Ok(images.iter().map(row).collect())
    }
}

/// Class 2 means the same as every other; it knows nothing of class 3, and class 4 is one to ask later.
struct Picky;

impl Semantics for Picky {
    fn name(&self) -> &str {
        "picky"
    }

    fn compare(&self, _: u16, new: u16) -> Result<Meaning, SemanticsError> {
        match new {
            2 => Ok(Meaning::Same),
            3 => Err(SemanticsError::Unknown(new)),
            4 => Err(SemanticsError::Away("gone".into())),
            _ => Ok(Meaning::Different),
        }
    }
}

/// What it said is quoted: asking again may give something else.
struct Model;

impl Semantics for Model {
    fn name(&self) -> &str {
        "model"
    }

    fn compare(&self, _: u16, _: u16) -> Result<Meaning, SemanticsError> {
        Ok(Meaning::Same)
    }

    fn repeatable(&self) -> bool {
        false
    }
}

fn clean() -> Pixels {
    Pixels::new(32, 32, vec![100; 32 * 32 * 3]).unwrap()
}

/// The clean image with `count` values raised by one.
fn raised(count: usize) -> Vec<u8> {
    let mut p = clean();
    p.rgb.iter_mut().skip(1).take(count).for_each(|v| *v += 1);
    p.encode_png().unwrap()
}

fn entries(rules: &Rules, pngs: &[Vec<u8>], semantics: &dyn Semantics) -> Vec<Entry> {
    let refs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
    let verdicts = verify_batch(rules, &clean(), 0, &refs, &Tied, semantics);
    let of = |(v, png): (Verdict, &Vec<u8>)| v.entry(rules, 0, Hotkey([2; 32]), Digest::of(png), 500, false);
    verdicts.into_iter().zip(pngs).map(of).collect()
}

fn again(rules: &Rules, entries: &[Entry], pngs: &[Vec<u8>]) -> Outcome {
    let pngs: Vec<_> = pngs.iter().cloned().map(Some).collect();
    Recheck { rules, classifier: &Tied, semantics: &Exact, tolerance: T }.answers(&clean(), 0, entries, &pngs)
}

#[test]
fn a_tie_of_two_wrong_classes_fails_no_honest_record() {
    let (rules, pngs) = (Rules::subnet(), [raised(6), raised(7)]);
    let recorded = entries(&rules, &pngs, &Exact);
    let alone = verify(&rules, &clean(), 0, &pngs[0], &Tied, &Exact);
    assert_eq!((recorded[0].predicted, alone.predicted), (1, 2), "one machine, two batch sizes, two classes");
    for (entry, png) in recorded.iter().zip(&pngs) {
        assert_eq!(again(&rules, std::slice::from_ref(entry), std::slice::from_ref(png)), Outcome::Holds);
    }
    assert_eq!(again(&rules, &recorded, &pngs), Outcome::Holds);
}

#[test]
fn the_checker_makes_the_judges_batches() {
    /// Refuses any batch that the judge did not run.
    struct Sizes(Vec<usize>);
    impl Classifier for Sizes {
        fn name(&self) -> &str {
            "sizes"
        }
        fn digest(&self) -> Digest {
            Digest([0; 32])
        }
        fn classes(&self) -> usize {
            3
        }
        fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
            match self.0.contains(&images.len()) {
                true => Tied.logits(images),
                false => Err(ClassifierError(format!("a batch of {}", images.len()))),
            }
        }
    }
    let rules = Rules::subnet();
    let mut pngs: Vec<Vec<u8>> = (1..=MODEL_BATCH + 3).map(raised).collect();
    pngs.insert(2, b"nothing".to_vec());
    pngs.insert(9, clean().encode_png().unwrap());
    let refs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
    let model = Sizes(vec![MODEL_BATCH, 3]);
    let verdicts = verify_batch(&rules, &clean(), 0, &refs, &model, &Exact);
    let of = |(v, png): (&Verdict, &Vec<u8>)| v.entry(&rules, 0, Hotkey([2; 32]), Digest::of(png), 500, false);
    let recorded: Vec<Entry> = verdicts.iter().zip(&pngs).map(of).collect();
    assert!(recorded.iter().all(|e| e.reason != Reason::ModelInferenceFailed));
    let given: Vec<_> = pngs.iter().cloned().map(Some).collect();
    let recheck = Recheck { rules: &rules, classifier: &model, semantics: &Exact, tolerance: T };
    assert_eq!(recheck.answers(&clean(), 0, &recorded, &given), Outcome::Holds);
}

#[test]
fn stated_zeros_are_read_again() {
    let rules = Rules::subnet();
    let small = Pixels::new(1, 1, vec![0; 3]).unwrap().encode_png().unwrap();
    let mut deep = raised(3);
    deep[24] = 16;
    let pngs = [b"nothing".to_vec(), small, deep];
    let honest = entries(&rules, &pngs, &Exact);
    let reasons: Vec<Reason> = honest.iter().map(|e| e.reason).collect();
    assert_eq!(reasons, [Reason::DecodeFailed, Reason::ShapeMismatch, Reason::ValueOutOfRange]);
    assert_eq!(again(&rules, &honest, &pngs), Outcome::Holds);
    // A validator that does not like a miner states a zero for a good answer, in each way.
    for reason in reasons {
        let mut forged = honest[0].clone();
        (forged.reason, forged.answer) = (reason, Some(Digest::of(&raised(6))));
        assert!(needs_image(&forged));
        assert_eq!(again(&rules, &[forged], &[raised(6)]), Outcome::Fails(Flaw::Stated), "{reason:?}");
    }
    // And a measurement for what nobody can read.
    let mut forged = entries(&rules, &[raised(6)], &Exact).remove(0);
    forged.answer = Some(Digest::of(b"nothing"));
    assert_eq!(again(&rules, &[forged], &[b"nothing".to_vec()]), Outcome::Fails(Flaw::Measurement));
}

#[test]
fn what_only_the_validator_saw_stays_its_word() {
    let rules = Rules::subnet();
    let entry = entries(&rules, &[raised(6)], &Exact).remove(0);
    for reason in [Reason::Timeout, Reason::ResponseMissing, Reason::BadSignature] {
        let mut stated = Verdict::absent(&rules, 0, entry.miner, reason, 500);
        assert!(!needs_image(&stated), "no answer, {reason:?}");
        stated.answer = entry.answer;
        assert!(!needs_image(&stated), "{reason:?}");
    }
    let mut doubled = entry.clone();
    doubled.reason = Reason::DuplicateResponse;
    assert!(needs_image(&doubled), "it was measured");
    doubled.measurement = Measurement::default();
    assert!(!needs_image(&doubled));
}

#[test]
fn a_stated_failure_of_the_model_holds_only_where_it_fails() {
    let rules = Rules::subnet();
    let mut broken = clean();
    broken.rgb[0] = 99;
    let pngs = [broken.encode_png().unwrap(), raised(6)];
    let honest = entries(&rules, &pngs, &Exact);
    assert_eq!(honest[0].reason, Reason::ModelInferenceFailed);
    assert_eq!(again(&rules, &honest, &pngs), Outcome::Holds);
    let mut forged = honest[1].clone();
    (forged.reason, forged.predicted, forged.margin) = (Reason::ModelInferenceFailed, 0, 0);
    (forged.meaning, forged.score) = (Meaning::NotAsked, Millionths::ZERO);
    assert_eq!(again(&rules, &[forged], &pngs[1..]), Outcome::Fails(Flaw::Stated));
    // Here the model is the one that fails: nobody is accused of that.
    let mut lost = honest[1].clone();
    lost.answer = honest[0].answer;
    lost.measurement = honest[0].measurement;
    assert_eq!(again(&rules, &[lost], &pngs[..1]), Outcome::Unknown);
}

fn found(entry: &Entry, row: &[f32]) -> Found {
    Found::Measured(entry.measurement, Some(Ok(row.to_vec())))
}

/// A record of these logits.
fn record(rules: &Rules, row: &[f32], semantics: &dyn Semantics) -> Entry {
    let best = predict(row, 0).unwrap();
    let flipped = best.class != 0 && best.margin >= i64::from(rules.min_margin);
    let mut entry = entries(rules, &[raised(6)], &Exact).remove(0);
    (entry.predicted, entry.margin) = (best.class, best.margin);
    entry.meaning = match flipped && rules.semantic.asked() {
        true => semantics.compare(0, best.class).unwrap(),
        false => Meaning::NotAsked,
    };
    (entry.reason, entry.score) = crate::rules::judge(rules, 0, &entry, false);
    entry
}

#[test]
fn meaning_is_judged_of_the_recorded_class_and_a_language_model_is_quoted() {
    let rules = Rules::whitepaper();
    let ask = |entry: &Entry, row: &[f32], semantics: &dyn Semantics| {
        Recheck { rules: &rules, classifier: &Tied, semantics, tolerance: T }.record(0, entry, &found(entry, row))
    };
    // Class 1 there, class 2 here, and they do not mean the same.
    let (there, here) = ([1.0, 5.00001, 5.0], [1.0, 5.0, 5.00001]);
    let entry = record(&rules, &there, &Picky);
    assert_eq!((entry.predicted, entry.meaning), (1, Meaning::Different));
    assert_eq!(ask(&entry, &here, &Picky), Outcome::Holds);
    let same = Entry { meaning: Meaning::Same, reason: Reason::SemanticMatch, ..entry.clone() };
    assert_eq!(ask(&same, &here, &Picky), Outcome::Fails(Flaw::Label));
    assert_eq!(ask(&entry, &here, &Model), Outcome::Holds, "what it said is taken from the record");
    let away = Entry { predicted: 4, ..entry.clone() };
    assert_eq!(ask(&away, &[1.0, 0.0, 0.0, 0.0, 5.0], &Picky), Outcome::Unknown);
    // A stated failure: of a label without a name, of one within a tie with it, of none.
    let failed = Entry { reason: Reason::ModelInferenceFailed, predicted: 0, margin: 0, ..entry };
    let failed = Entry { meaning: Meaning::NotAsked, ..failed };
    assert_eq!(ask(&failed, &[1.0, 0.0, 0.0, 5.0], &Picky), Outcome::Holds);
    assert_eq!(ask(&failed, &[1.0, 5.00001, 0.0, 5.0], &Picky), Outcome::Holds);
    assert_eq!(ask(&failed, &[1.0, 5.5, 0.0, 5.0], &Picky), Outcome::Fails(Flaw::Stated));
    assert_eq!(ask(&failed, &[1.0, 5.5, 0.0, 5.0], &Model), Outcome::Holds, "it was asked, who knows");
    assert_eq!(ask(&failed, &[1.0, 0.0], &Model), Outcome::Fails(Flaw::Stated), "it was not even asked");
}

/// One step of the logits below: exact in `f32` for all of them, and so are their differences in `f64`.
const STEP: f64 = 1.0 / (1 << 17) as f64;

/// Rows of logits in steps: any, with exact ties, and with leads around the least margin and the tolerance.
fn steps(min_margin: u32) -> impl Strategy<Value = Vec<i32>> {
    let edge = |millionths: i64| (millionths as f64 * 1e-6 / STEP) as i32;
    let edges: Vec<i32> = [0, 1, 2, 3]
        .iter()
        .flat_map(|k| {
            let lead = edge(i64::from(min_margin) + k * i64::from(T));
            [lead - 1, lead, lead + 1, edge(k * i64::from(T))]
        })
        .collect();
    let one = prop_oneof![2 => -500_000..500_000i32, 3 => prop::sample::select(edges)];
    prop::collection::vec(one, 2..12)
}

fn logits(steps: &[i32]) -> Vec<f32> {
    steps.iter().map(|s| (f64::from(*s) * STEP) as f32).collect()
}

/// A change of at most half the tolerance, in steps.
fn drift() -> i32 {
    (f64::from(T) / 2.0 * 1e-6 / STEP) as i32
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// Whatever a miner aims at: no machine within the tolerance fails what another one recorded.
    #[test]
    fn no_honest_record_fails(
        (min_margin, row) in prop::sample::select(vec![0u32, 1_000, 200_000]).prop_flat_map(|m| (Just(m), steps(m))),
        moved in prop::collection::vec(prop_oneof![Just(-1.0), Just(1.0), -1.0..1.0f64], 12),
    ) {
        let rules = Rules { min_margin, ..Rules::subnet() };
        let there = logits(&row);
        let here: Vec<i32> = row.iter().zip(&moved).map(|(s, by)| s + (by * f64::from(drift())) as i32).collect();
        let here = logits(&here);
        let recheck = Recheck { rules: &rules, classifier: &Tied, semantics: &Exact, tolerance: T };
        let entry = record(&rules, &there, &Exact);
        prop_assert_eq!(recheck.record(0, &entry, &found(&entry, &here)), Outcome::Holds);
        // The clean image's label is one that leads there.
        let label = predict(&there, 0).unwrap().class;
        let lead = predict(&here, label).unwrap().margin;
        prop_assert!(lead <= i64::from(T));
    }

    /// What is further off than twice the tolerance fails: another margin, another class, a flip that is
    /// none, and a flip that is denied.
    #[test]
    fn no_forged_record_holds(row in steps(1_000), by in 1i64..1_000_000, class in 1usize..12) {
        let rules = Rules { min_margin: 1_000, ..Rules::subnet() };
        let (row, t) = (logits(&row), i64::from(T));
        let recheck = Recheck { rules: &rules, classifier: &Tied, semantics: &Exact, tolerance: T };
        let honest = record(&rules, &row, &Exact);
        let ask = |entry: &Entry| recheck.record(0, entry, &found(entry, &row));
        let best = predict(&row, 0).unwrap();
        if honest.reason == Reason::Success {
            let more = Entry { margin: honest.margin + 2 * t + by, ..honest.clone() };
            prop_assert_eq!(ask(&more), Outcome::Fails(Flaw::Label));
            let less = Entry { margin: honest.margin - 2 * t - by, ..honest.clone() };
            prop_assert_eq!(ask(&less), Outcome::Fails(Flaw::Label));
        }
        let class = class % row.len();
        let named = lead(row[class], row[0]);
        if class != 0 && best.margin - named > 2 * t + 1 {
            let flip = Entry { predicted: class as u16, margin: named, reason: Reason::Success, ..honest.clone() };
            prop_assert_eq!(ask(&flip), Outcome::Fails(Flaw::Label), "its class is led by more than 2t");
        }
        if best.margin >= i64::from(rules.min_margin) + 2 * t {
            let denied = Entry { predicted: 0, margin: 0, reason: Reason::LabelMatchWithOriginal, ..honest.clone() };
            prop_assert_eq!(ask(&denied), Outcome::Fails(Flaw::Label), "who aims at 2t is paid");
        }
        if best.margin < i64::from(rules.min_margin) - 2 * t || best.class == 0 {
            let claimed = i64::from(rules.min_margin).max(2 * t + 2) + by;
            let flip = Entry { predicted: 1, margin: claimed, reason: Reason::Success, ..honest };
            prop_assert_eq!(ask(&flip), Outcome::Fails(Flaw::Label));
        }
    }
}
