//! Tests of the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::pixels::PngLimits;
use crate::rules::score;

fn images(k: u8, count: usize) -> (Pixels, Vec<u8>) {
    let clean = Pixels::new(40, 40, vec![100; 4800]).unwrap();
    let mut other = clean.clone();
    other.rgb.iter_mut().take(count).for_each(|v| *v += k);
    (clean, other.encode_png().unwrap())
}

fn failed(r: &Report) -> Vec<Reason> {
    r.gates.iter().filter(|g| g.passed == Some(false)).map(|g| g.gate).collect()
}

#[test]
fn without_a_model_the_flip_is_taken_as_given() {
    let (clean, png) = images(1, 50);
    for rules in [Rules::subnet(), Rules::whitepaper()] {
        let r = report(&rules, &clean, &png, None, 1_001);
        let m = measure(&clean, &Pixels::decode_png(&png, &PngLimits::default()).unwrap()).unwrap();
        assert_eq!((r.reason, r.score, r.time_ms), (Reason::Success, score(&rules, &m, 1_050), 1_050));
        assert!(failed(&r).is_empty());
        let text = r.to_string();
        assert!(text.contains("taken as given") && text.contains(&r.score.to_string()), "{text}");
    }
}

#[test]
fn every_failing_gate_is_shown_and_the_first_names_the_reason() {
    let (clean, png) = images(60, 4800);
    let r = report(&Rules::subnet(), &clean, &png, None, 99_999);
    assert_eq!((r.reason, r.score), (Reason::Timeout, Millionths(0)));
    assert_eq!(failed(&r), vec![Reason::Timeout, Reason::AboveMaxDelta, Reason::BelowMinSsim, Reason::BelowMinPsnrDb]);
    let r = report(&Rules::subnet(), &clean, &png, None, 0);
    assert_eq!(r.reason, Reason::AboveMaxDelta);
    let json = serde_json::to_value(&r).unwrap();
    assert_eq!(json["reason"], "above_max_delta");
    assert_eq!(json["measurement"]["level"], 60);
}

#[test]
fn what_does_not_decode_or_fit_is_reported_not_measured() {
    let (clean, _) = images(1, 1);
    let r = report(&Rules::subnet(), &clean, b"junk", None, 0);
    assert_eq!((r.reason, r.measurement, failed(&r)), (Reason::DecodeFailed, None, vec![Reason::DecodeFailed]));
    let small = Pixels::new(1, 1, vec![0; 3]).unwrap().encode_png().unwrap();
    let r = report(&Rules::subnet(), &clean, &small, None, 0);
    assert_eq!((r.reason, failed(&r)), (Reason::ShapeMismatch, vec![Reason::ShapeMismatch]));
}
