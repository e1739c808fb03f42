//! Tests of the rules: hand-computed scores and gates, monotony, re-derivation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::gates::{Gate, first_failure, max_level, max_sum_squares, min_level, psnr_mdb};
use super::*;
use perturb_types::round::{Meaning, TransformSecret};
use perturb_types::{ChallengeId, Digest, Entry, Hotkey, Measurement, Reason, RoundId, RoundResult};
use proptest::prelude::*;

/// Channel values of a 224×224 image.
const N: u32 = 150_528;

fn changed(level: u8, changed: u32) -> Measurement {
    let sum_squares = u64::from(level) * u64::from(level) * u64::from(changed);
    Measurement { level, sum_squares, changed, channels: N, ssim: Millionths(995_000) }
}

#[test]
fn both_presets_hold_together_and_have_names() {
    for rules in [Rules::subnet(), Rules::whitepaper(), Rules::subnet().with_bonuses().with_history_len(10)] {
        rules.validate().unwrap();
        let bytes = borsh::to_vec(&rules).unwrap();
        assert_eq!(borsh::from_slice::<Rules>(&bytes).unwrap(), rules);
        let json = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<Rules>(&json).unwrap(), rules);
        assert_eq!(Rules::by_name(rules.preset.name()).unwrap().preset, rules.preset);
    }
    assert!(Rules::by_name("other").is_none());
}

#[test]
fn contradictory_rules_are_refused() {
    let bad = [
        Rules { min_delta: 30_000, ..Rules::subnet() },
        Rules { epsilon: 20_000, ..Rules::subnet() },
        Rules { deadline_ms: 20_010, ..Rules::subnet() },
        Rules { time_bucket_ms: 0, ..Rules::subnet() },
        Rules { timeout_ms: 0, ..Rules::subnet() },
        Rules { history_len: 0, ..Rules::subnet() },
        Rules { burn: MILLION + 1, ..Rules::subnet() },
        Rules { emission: Emission::Top { shares: vec![] }, ..Rules::subnet() },
        Rules { emission: Emission::Top { shares: vec![MILLION, 1] }, ..Rules::subnet() },
        Rules { weights: WeightScheme::Softmax { temperature: 0 }, ..Rules::subnet() },
    ];
    assert!(bad.iter().all(|r| r.validate().is_err()));
    let transform = |field, cells| {
        let transform = TransformRules { field, cells, ..Rules::subnet().transform };
        Rules { transform, ..Rules::subnet() }.validate()
    };
    assert!(transform(0, 0).is_ok() && transform(MAX_FIELD, MAX_CELLS).is_ok());
    for (field, cells) in [(MAX_FIELD + 1, 4), (24, MAX_CELLS + 1), (24, 0), (0, 4)] {
        assert!(transform(field, cells).is_err(), "{field} levels, {cells} cells");
    }
}

#[test]
fn level_gates_by_hand() {
    // 0.003·255 = 0.765 and 0.03·255 = 7.65; 0.002·255 = 0.51 and 0.06·255 = 15.3.
    assert_eq!((min_level(&Rules::subnet()), max_level(&Rules::subnet())), (1, 7));
    assert_eq!((min_level(&Rules::whitepaper()), max_level(&Rules::whitepaper())), (1, 15));
    // A bound that a level meets exactly: 0.2·255 = 51.
    let exact = Rules { min_delta: 200_000, epsilon: 200_001, max_delta: 200_001, ..Rules::whitepaper() };
    assert_eq!((min_level(&exact), max_level(&exact)), (51, 51));
    assert_eq!(first_failure(&Rules::subnet(), &changed(0, 0)), Some(Reason::BelowMinDelta));
    assert_eq!(first_failure(&Rules::subnet(), &changed(8, 1)), Some(Reason::AboveMaxDelta));
    assert_eq!(first_failure(&Rules::subnet(), &changed(7, 1)), None);
    let dim = Measurement { ssim: Millionths(979_999), ..changed(7, 1) };
    assert_eq!(first_failure(&Rules::subnet(), &dim), Some(Reason::BelowMinSsim));
    assert_eq!(first_failure(&Rules::whitepaper(), &dim), None);
}

#[test]
fn the_psnr_bound_of_38_db_by_hand() {
    // ⌊n · 65025 · 10^−3.8⌋, computed with 60 decimal digits.
    assert_eq!(max_sum_squares(N, 38_000), 1_551_306);
    assert_eq!(max_sum_squares(12_288, 38_000), 126_637);
    // Whole powers are exact: 40 dB is a mean of 6.5025.
    assert_eq!(max_sum_squares(40_000, 40_000), 260_100);
    assert_eq!(max_sum_squares(4, 20_000), 2_601);
    assert_eq!(max_sum_squares(1, 0), u64::MAX);
    // Dense k = 3 passes, dense k = 4 is the first to fail, everywhere.
    let dense = |k| Measurement { ssim: Millionths::ONE, ..changed(k, N) };
    assert_eq!(first_failure(&Rules::subnet(), &dense(3)), None);
    assert_eq!(first_failure(&Rules::subnet(), &dense(4)), Some(Reason::BelowMinPsnrDb));
    assert_eq!(psnr_mdb(&dense(4)) / 100, 360, "36.1 dB is 20·log10(255/4)");
    assert_eq!(psnr_mdb(&dense(1)), 48_131);
    assert_eq!(psnr_mdb(&dense(0)), gates::MAX_PSNR_MDB);
    let at = |s| Measurement { sum_squares: s, ..dense(7) };
    assert!(Gate::Psnr.passes(&Rules::subnet(), &at(1_551_306)));
    assert!(!Gate::Psnr.passes(&Rules::subnet(), &at(1_551_307)));
}

#[test]
fn subnet_scores_by_hand() {
    let rules = Rules::subnet();
    // Published perturbation values: dense k = 1 0.8797, a tenth 0.9287, a hundredth 0.9452, k = 2 at best 0.771.
    let pert = |m| (f64::from(score(&rules, &m, 0).0) / 1e6 - 0.3) / 0.7;
    for (m, published) in [
        (changed(1, N), 0.8797),
        (changed(1, N / 10), 0.9287),
        (changed(1, N / 100), 0.9452),
        (changed(1, 1), 0.953),
        (changed(2, 1), 0.771),
        (changed(3, 1), 0.619),
    ] {
        assert!((pert(m) - published).abs() < 6e-4, "{m:?}: {} {published}", pert(m));
    }
    // Dense k = 1 in full: l = (1/255 − 0.003)/0.027, r = (1/255)/0.03.
    let (l, r) = ((1.0 / 255.0 - 0.003) / 0.027, 1.0 / 255.0 / 0.03);
    let expected = 0.7 * (0.7 * (1.0 - l) * (1.0 - l) + 0.3 * (1.0 - r) * (1.0 - r)) + 0.3 * (1.0 - 5.0 / 20.0);
    assert_eq!(score(&rules, &changed(1, N), 5_000).0, (expected * 1e6f64).round() as u32);
    // Past T only the perturbation counts.
    assert_eq!(score(&rules, &changed(1, N), 20_000), score(&rules, &changed(1, N), u32::MAX));
}

#[test]
fn whitepaper_scores_by_hand() {
    let rules = Rules::whitepaper();
    // k = 1: 0.7·(1 − 1/15.3) + 0.3·(1 − 6/60) = 0.654248 + 0.27.
    assert_eq!(score(&rules, &changed(1, N), 6_000).0, 924_248);
    assert_eq!(score(&rules, &changed(1, 1), 6_000), score(&rules, &changed(1, N), 6_000), "RMSE does not count");
    // k = 15: 0.7·(0.3/15.3) = 0.013725.
    assert_eq!(score(&rules, &changed(15, N), 60_000).0, 13_725);
    // One level is worth 0.7/15.3 = 0.0457516, as much as 9.15 s of 60.
    let (one, two) = (score(&rules, &changed(1, 1), 0).0, score(&rules, &changed(2, 1), 0).0);
    assert_eq!((one, two), (954_248, 908_497));
    assert_eq!(score(&rules, &changed(1, 1), 9_150).0, two + 1);
}

#[test]
fn bonuses_are_options() {
    let (plain, more) = (Rules::subnet(), Rules::subnet().with_bonuses());
    let m = changed(1, 4);
    let base = score(&plain, &m, 0).0;
    assert_eq!(score_with_margin(&plain, &m, 5_000_000, 0).0, base);
    // Half of 0.03 and half of 0.01.
    assert!(score_with_margin(&more, &m, 5_000_000, 0).0.abs_diff(base + 20_000) <= 1);
    assert!(score_with_margin(&more, &m, i64::MAX, 0) <= Millionths::ONE);
}

#[test]
fn the_epsilon_sent_never_binds() {
    let rules = Rules::subnet();
    assert_eq!((rules.epsilon_sent(0), rules.epsilon_sent(1399), rules.epsilon_sent(1400)), (60_000, 199_900, 60_000));
    assert_eq!(Rules::whitepaper().epsilon_sent(77), 60_000);
}

#[test]
fn times_are_rounded_up_to_the_bucket() {
    let rules = Rules::subnet();
    assert_eq!((rules.bucket(0), rules.bucket(1), rules.bucket(50), rules.bucket(51)), (0, 50, 50, 100));
}

fn entry(miner: u8) -> Entry {
    Entry {
        miner: Hotkey([miner; 32]),
        answer: Some(Digest([miner; 32])),
        measurement: changed(1, 500),
        predicted: 4,
        margin: 2_000,
        meaning: Meaning::NotAsked,
        time_ms: 1_000,
        reason: Reason::Success,
        score: score(&Rules::subnet(), &changed(1, 500), 1_000),
    }
}

fn round(entries: Vec<Entry>) -> RoundResult {
    RoundResult {
        round: RoundId { validator: Hotkey([1; 32]), challenge: ChallengeId(0), seq: 0 },
        open: Digest([0; 32]),
        transform: TransformSecret([0; 32]),
        images: perturb_types::Lot { point: [0; 32], proof: [0; 64] },
        skipped: vec![],
        source_index: 0,
        label: 3,
        entries,
    }
}

#[test]
fn an_honest_round_is_accepted_and_every_lie_is_not() {
    let rules = Rules::subnet();
    judge_round(&rules, &round(vec![entry(1), entry(2)])).unwrap();
    let lies: [fn(&mut Entry); 13] = [
        |e| e.score = Millionths(e.score.0 + 1),
        |e| e.reason = Reason::Timeout,
        |e| (e.reason, e.score) = (Reason::LabelMatchWithOriginal, Millionths(0)),
        |e| e.predicted = 3,
        |e| e.margin = 999,
        |e| e.margin = -1,
        |e| e.time_ms += 1,
        |e| e.time_ms = 20_050,
        |e| e.measurement.level = 2,
        |e| e.measurement.sum_squares -= 1,
        |e| e.measurement.ssim = Millionths(900_000),
        |e| e.answer = None,
        |e| e.meaning = Meaning::Different,
    ];
    for (n, lie) in lies.iter().enumerate() {
        let mut lied = entry(2);
        lie(&mut lied);
        assert!(judge_round(&rules, &round(vec![entry(1), lied])).is_err(), "lie {n}");
    }
    let mut other = entry(2);
    other.measurement.channels = 300_000;
    other.score = score(&rules, &other.measurement, 1_000);
    assert!(matches!(judge_round(&rules, &round(vec![entry(1), other])), Err(RecordError::Shape { .. })));
}

#[test]
fn all_who_gave_the_same_answer_get_nothing() {
    let rules = Rules::subnet();
    let same = |miner| Entry { answer: entry(1).answer, ..entry(miner) };
    let claimed = round(vec![same(1), same(2), entry(3)]);
    assert!(matches!(
        judge_round(&rules, &claimed),
        Err(RecordError::Verdict { derived: Reason::DuplicateResponse, .. })
    ));
    let zero = |miner| Entry { reason: Reason::DuplicateResponse, score: Millionths(0), ..same(miner) };
    judge_round(&rules, &round(vec![zero(1), zero(2), entry(3)])).unwrap();
    assert_eq!(duplicates(&claimed.entries), vec![Digest([1; 32])]);
    let alone = Entry { reason: Reason::DuplicateResponse, score: Millionths(0), ..entry(1) };
    assert!(judge_round(&rules, &round(vec![alone])).is_err());
}

#[test]
fn stated_reasons_stand_with_a_score_of_zero_and_empty_fields() {
    let rules = Rules::subnet();
    let empty =
        Entry { measurement: Measurement::default(), predicted: 3, margin: 0, score: Millionths(0), ..entry(1) };
    for reason in [Reason::DecodeFailed, Reason::ShapeMismatch, Reason::ValueOutOfRange] {
        judge_round(&rules, &round(vec![Entry { reason, ..empty.clone() }])).unwrap();
    }
    for reason in [Reason::ResponseMissing, Reason::Timeout, Reason::BadSignature] {
        judge_round(&rules, &round(vec![Entry { reason, answer: None, ..empty.clone() }])).unwrap();
    }
    let late = Entry { reason: Reason::Timeout, time_ms: 20_050, ..empty.clone() };
    judge_round(&rules, &round(vec![late])).unwrap();
    let failed = Entry { reason: Reason::ModelInferenceFailed, measurement: changed(1, 5), ..empty.clone() };
    judge_round(&rules, &round(vec![failed])).unwrap();
    for reason in [Reason::Success, Reason::Timeout, Reason::BelowMinDelta, Reason::ResponseMissing] {
        assert!(judge_round(&rules, &round(vec![Entry { reason, ..empty.clone() }])).is_err(), "{reason}");
    }
}

#[test]
fn the_whitepaper_asks_for_another_meaning() {
    let rules = Rules::whitepaper();
    let with = |meaning| {
        let mut e = Entry { meaning, ..entry(1) };
        (e.reason, e.score) = judge(&rules, 3, &e, false);
        judge_round(&rules, &round(vec![e.clone()])).unwrap();
        e.reason
    };
    assert_eq!(with(Meaning::Different), Reason::Success);
    assert_eq!(with(Meaning::Same), Reason::SemanticMatch);
}

#[test]
fn where_meaning_is_asked_every_flip_is_judged_and_nothing_else() {
    let rules = Rules { min_margin: 1_000, ..Rules::whitepaper() };
    let recorded = |e: Entry| {
        let mut e = e;
        (e.reason, e.score) = judge(&rules, 3, &e, false);
        judge_round(&rules, &round(vec![e]))
    };
    let flip = Entry { predicted: 4, margin: 1_000, ..entry(1) };
    assert_eq!(recorded(Entry { meaning: Meaning::Different, ..flip.clone() }), Ok(()));
    assert_eq!(recorded(Entry { meaning: Meaning::Same, ..flip.clone() }), Ok(()));
    let unjudged = recorded(Entry { meaning: Meaning::NotAsked, ..flip.clone() });
    assert!(matches!(unjudged, Err(RecordError::Fields { .. })), "a flip that nobody judged");
    // Too small a lead, or none: nobody is asked.
    for none in [Entry { margin: 999, ..flip.clone() }, Entry { predicted: 3, margin: 0, ..flip }] {
        assert_eq!(recorded(Entry { meaning: Meaning::NotAsked, ..none.clone() }), Ok(()));
        assert!(matches!(recorded(Entry { meaning: Meaning::Same, ..none }), Err(RecordError::Fields { .. })));
    }
}

fn any_rules() -> impl Strategy<Value = Rules> {
    prop_oneof![
        Just(Rules::subnet()),
        Just(Rules::whitepaper()),
        Just(Rules::subnet().with_bonuses()),
        (1u32..200_000, 1u32..=MILLION, 1u32..=MILLION, 1u32..100_000).prop_map(|(span, part, level, t)| Rules {
            epsilon: 3_000 + span,
            epsilon_steps: 0,
            max_delta: 3_000 + span,
            perturbation_part: part,
            level_part: level,
            timeout_ms: t,
            ..Rules::subnet()
        }),
    ]
}

fn any_measurement() -> impl Strategy<Value = Measurement> {
    (any::<u8>(), 0u64..1 << 34, 0u32..=N, 0u32..=MILLION).prop_map(|(level, sum_squares, changed, ssim)| Measurement {
        level,
        sum_squares,
        changed,
        channels: N,
        ssim: Millionths(ssim),
    })
}

proptest! {
    #[test]
    fn the_score_never_rises_with_level_squares_or_time(
        rules in any_rules(), m in any_measurement(), up in (any::<u8>(), 0u64..1 << 34, any::<u32>()), t in 0u32..200_000,
    ) {
        let base = score(&rules, &m, t);
        prop_assert!(base <= Millionths::ONE);
        let worse = [
            Measurement { level: m.level.saturating_add(up.0), ..m },
            Measurement { sum_squares: m.sum_squares + up.1, ..m },
        ];
        for w in worse {
            prop_assert!(score(&rules, &w, t) <= base);
        }
        prop_assert!(score(&rules, &m, t.saturating_add(up.2)) <= base);
    }

    #[test]
    fn an_entry_judged_once_is_judged_the_same_again(
        rules in any_rules(), m in any_measurement(), predicted in 0u16..6, margin in 0i64..5_000_000,
        time in 0u32..70_000, duplicate: bool, answered: bool, reason in 0usize..6,
    ) {
        let reasons = [Reason::Success, Reason::DecodeFailed, Reason::Timeout, Reason::BadSignature,
            Reason::ModelInferenceFailed, Reason::ShapeMismatch];
        let mut e = Entry {
            answer: answered.then_some(Digest([1; 32])),
            measurement: m, predicted, margin, time_ms: rules.bucket(time), reason: reasons[reason], ..entry(1)
        };
        (e.reason, e.score) = judge(&rules, 3, &e, duplicate);
        prop_assert_eq!(judge(&rules, 3, &e, duplicate), (e.reason, e.score));
        prop_assert!(e.reason == Reason::Success || e.score == Millionths::ZERO);
    }

    #[test]
    fn the_psnr_bound_agrees_with_the_logarithm(channels in 3u32..12_000_000, mdb in 1_000u32..90_000) {
        let bound = max_sum_squares(channels, mdb);
        let exact = f64::from(channels) * 65_025.0 * libm::pow(10.0, -f64::from(mdb) / 10_000.0);
        prop_assert!((bound as f64 - exact).abs() <= 1.0 + exact * 1e-13, "{} {}", bound, exact);
    }
}
