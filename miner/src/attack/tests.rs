#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::criterion::{Criterion, RuleCriterion, WithinBall};
use crate::metered::{Metered, Spent};
use crate::model::{Levels, Model, Passes, Pull, Pulled};
use perturb_challenge::pixels::Pixels;
use perturb_challenge::rules::Rules;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::OnceLock;
use std::time::Instant;

/// Two classes: z0 = bias − w·x, z1 = 0. Everything about it can be computed by hand.
pub struct Linear {
    weights: Vec<f32>,
    bias: f32,
}

impl Linear {
    pub fn new(weights: Vec<f32>) -> Self {
        Self { weights, bias: 0.0 }
    }

    /// The clean image leads by `margin`.
    pub fn with_margin(weights: Vec<f32>, clean: &Pixels, margin: f32) -> Self {
        let dot: f64 = weights.iter().zip(&clean.rgb).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        Self { weights, bias: dot as f32 + margin }
    }

    fn row(&self, x: impl Iterator<Item = f32>) -> Vec<f32> {
        let dot: f64 = self.weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(x)).sum();
        vec![(f64::from(self.bias) - dot) as f32, 0.0]
    }
}

impl Model for Linear {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        Ok(images.iter().map(|i| self.row(i.rgb.iter().map(|x| f32::from(*x)))).collect())
    }

    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        Ok(images.iter().map(|i| self.row(i.rgb.iter().copied())).collect())
    }

    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError> {
        let logits = self.float_logits(images)?;
        let pulled = pulls
            .iter()
            .map(|p| {
                let (value, slope) = p.loss.at(&logits[p.image], p.label).ok_or(ModelError::Failed("loss".into()))?;
                Ok(Pulled { value, gradient: self.weights.iter().map(|w| -w * slope[0]).collect() })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Passes { logits, pulled })
    }
}

const CHANNELS: usize = 32 * 32 * 3;

/// The attacks that flip a linear model whenever it can be flipped.
const SURE: [&str; 11] =
    ["ours", "baseline", "fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "deepfool", "fmn", "fab", "fab-t"];

fn image(value: u8) -> Pixels {
    Pixels::new(32, 32, vec![value; CHANNELS]).unwrap()
}

/// A busy image, on which no gate but L∞ and PSNR binds, away from both ends of the range.
fn busy() -> Pixels {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    Pixels::new(32, 32, (0..CHANNELS).map(|_| rng.random_range(60..200)).collect()).unwrap()
}

/// A clock that stands still: what `ours` finds depends on what time costs.
fn frozen() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Weights of many sizes and both signs, none of them 0.
fn uneven() -> Vec<f32> {
    (0..CHANNELS).map(|i| 0.001 * (1 + i % 20) as f32 * if i % 3 == 0 { -1.0 } else { 1.0 }).collect()
}

fn search(
    name: &str,
    model: Linear,
    clean: &Pixels,
    salt: u64,
    criterion: &dyn Criterion,
) -> (Option<Candidate>, Spent) {
    let mut model = Metered::new(model, 30_000, None);
    let options = Options { steps: (name == "square").then_some(300), ..Options::default() };
    let attack = by_name(name, &options).unwrap();
    let context = Context::new(&mut model, criterion, vec![Task { clean, label: 0, salt }]).since(frozen(), frozen);
    let found = run(attack.as_ref(), context).unwrap().pop().unwrap();
    (found, model.spent())
}

fn attack(name: &str, model: Linear, clean: &Pixels) -> Option<Candidate> {
    search(name, model, clean, 0, &RuleCriterion::new(Rules::subnet())).0
}

fn levels(found: &Candidate) -> (u8, u32) {
    (found.measurement.level, found.measurement.changed)
}

#[test]
fn every_name_is_an_attack_of_that_name() {
    for name in NAMES {
        assert_eq!(by_name(name, &Options::default()).unwrap().name(), name);
    }
    assert!(by_name("magic", &Options::default()).is_none());
}

#[test]
fn every_attack_flips_a_linear_model_at_the_lowest_level_that_can() {
    let clean = busy();
    // Σ|w| = 0.0105 · 3072 = 32.2 a level; between the first and the second.
    for name in SURE {
        let one = attack(name, Linear::with_margin(uneven(), &clean, 12.0), &clean).expect(name);
        assert_eq!(one.measurement.level, 1, "{name}");
        let two = attack(name, Linear::with_margin(uneven(), &clean, 40.0), &clean).expect(name);
        assert_eq!(two.measurement.level, 2, "{name}");
    }
}

#[test]
fn zero_starts_are_one() {
    let clean = busy();
    let criterion = RuleCriterion::new(Rules::subnet());
    for name in ["pgd", "apgd-ce", "fab"] {
        let mut model = Linear::with_margin(uneven(), &clean, 12.0);
        let attack = by_name(name, &Options { restarts: Some(0), ..Options::default() }).unwrap();
        let context = Context::new(&mut model, &criterion, vec![Task { clean: &clean, label: 0, salt: 0 }]);
        assert!(run(attack.as_ref(), context).unwrap()[0].is_some(), "{name}");
    }
}

#[test]
fn square_needs_nothing_but_logits() {
    let clean = image(128);
    let (found, spent) =
        search("square", Linear::with_margin(uneven(), &clean, 3.0), &clean, 5, &WithinBall { levels: 4 });
    assert!(found.is_some());
    assert_eq!(spent.backwards, 0);
}

#[test]
fn fgsm_spends_one_gradient_and_deepfool_reaches_a_linear_boundary_in_one_step() {
    let clean = image(128);
    let rules = RuleCriterion::new(Rules::subnet());
    let model = || Linear::with_margin(uneven(), &clean, 12.0);
    assert_eq!(search("fgsm", model(), &clean, 0, &rules).1.backwards, 1);
    // One step, and the look that finds the label changed.
    assert_eq!(search("deepfool", model(), &clean, 0, &rules).1.backwards, 2);
}

#[test]
fn ours_finds_the_fewest_changes_of_a_linear_model() {
    // Ten strong weights, the rest weak: five strong ones suffice at level 1.
    let mut w = vec![0.0001; CHANNELS];
    w.iter_mut().step_by(300).for_each(|x| *x = 1.0);
    let clean = image(128);
    let found = attack("ours", Linear::with_margin(w, &clean, 4.5), &clean).unwrap();
    assert_eq!(levels(&found), (1, 5));
}

#[test]
fn ours_uses_what_the_psnr_gate_leaves_at_high_levels() {
    // Three hundred strong values; even all of them at level 6 miss, dense levels above 3 are refused.
    let mut w = vec![0.0001; CHANNELS];
    w.iter_mut().step_by(10).for_each(|x| *x = 0.1);
    let clean = busy();
    let found = attack("ours", Linear::with_margin(w, &clean, 0.1 * 308.0 * 6.5), &clean).unwrap();
    assert_eq!(found.measurement.level, 7);
}

#[test]
fn under_the_whitepaper_ours_stops_at_the_lowest_level_whatever_its_density() {
    let clean = image(128);
    let rules = RuleCriterion::new(Rules::whitepaper());
    let (found, spent) = search("ours", Linear::with_margin(uneven(), &clean, 12.0), &clean, 0, &rules);
    let found = found.unwrap();
    assert_eq!(levels(&found), (1, CHANNELS as u32));
    assert!(spent.forwards + spent.backwards <= 5, "{spent:?}");
}

#[test]
fn ours_touches_nothing_that_the_model_does_not_see() {
    let mut w = uneven();
    w[..CHANNELS / 2].fill(0.0);
    let clean = busy();
    for salt in [0, 9] {
        let rules = RuleCriterion::new(Rules::subnet());
        let (found, _) = search("ours", Linear::with_margin(w.clone(), &clean, 20.0), &clean, salt, &rules);
        let found = found.unwrap();
        assert_eq!(found.measurement.level, 2);
        assert_eq!(found.image.rgb[..CHANNELS / 2], clean.rgb[..CHANNELS / 2]);
    }
}

#[test]
fn two_miners_with_one_attack_give_different_answers() {
    let clean = image(128);
    let criterion = RuleCriterion::new(Rules::subnet());
    for name in SURE {
        let answer = |salt| {
            let model = Linear::with_margin(uneven(), &clean, 12.0);
            search(name, model, &clean, salt, &criterion).0.expect(name).image.rgb
        };
        assert_ne!(answer(1), answer(2), "{name}");
        assert_eq!(answer(1), answer(1), "{name}");
    }
}

#[test]
fn saturated_pixels_are_no_obstacle_and_nothing_is_found_where_nothing_is() {
    // Raising the values is what lowers the margin, but they are at the top already.
    let clean = image(255);
    let weights = |w: f32| Linear::with_margin(vec![w; CHANNELS], &clean, 1.0);
    for name in SURE {
        assert!(attack(name, weights(0.01), &clean).is_none(), "{name}");
        assert!(attack(name, weights(-0.01), &clean).is_some(), "{name}");
    }
}

#[test]
fn the_images_of_a_batch_are_attacked_together_and_each_as_if_alone() {
    let clean = [image(128), image(60), image(200)];
    let w = uneven();
    let mut model = Linear::with_margin(w.clone(), &clean[0], 12.0);
    let criterion = WithinBall { levels: 40 };
    for name in ["ours", "fgsm", "fmn", "deepfool", "baseline"] {
        let alone: Vec<Option<Pixels>> = clean
            .iter()
            .map(|c| {
                let tasks = vec![Task { clean: c, label: 0, salt: 0 }];
                let attack = by_name(name, &Options::default()).unwrap();
                let found =
                    run(attack.as_ref(), Context::new(&mut model, &criterion, tasks).since(frozen(), frozen)).unwrap();
                found.into_iter().next().flatten().map(|f| f.image)
            })
            .collect();
        let tasks = clean.iter().map(|clean| Task { clean, label: 0, salt: 0 }).collect();
        let attack = by_name(name, &Options::default()).unwrap();
        let together =
            run(attack.as_ref(), Context::new(&mut model, &criterion, tasks).since(frozen(), frozen)).unwrap();
        let together: Vec<Option<Pixels>> = together.into_iter().map(|f| f.map(|f| f.image)).collect();
        assert!(together.iter().any(Option::is_some), "{name}");
        assert_eq!(alone, together, "{name}");
    }
}

#[test]
fn the_standard_ensemble_stops_with_the_member_that_flips_and_goes_through_all_of_them_otherwise() {
    let clean = image(128);
    let criterion = WithinBall { levels: 2 };
    let options = Options { epsilon: Some(2.0), ..Options::default() };
    let ensemble = by_name("autoattack", &options).unwrap();
    let spend = |margin: f32| {
        let mut model = Metered::new(Linear::with_margin(uneven(), &clean, margin), 100_000, None);
        let context = Context::new(&mut model, &criterion, vec![Task { clean: &clean, label: 0, salt: 0 }]);
        let found = run(ensemble.as_ref(), context).unwrap().pop().unwrap();
        (found.is_some(), model.spent())
    };
    let (easy, spent) = spend(12.0);
    assert!(easy && spent.backwards <= 101);
    // Two classes: one target. 101 gradients of each APGD, 100 of FAB, 5001 queries of Square.
    let (hard, spent) = spend(1000.0);
    assert!(!hard);
    assert_eq!(spent.backwards, 101 + 101 + 100);
    assert!(spent.forwards > 5000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_is_found_passes_the_rules_and_the_budget_is_never_exceeded(
        seed in any::<u64>(), margin in 0.1f32..40.0, budget in 0u64..600, whitepaper: bool,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sides = 16 * 16 * 3;
        let clean = Pixels::new(16, 16, (0..sides).map(|_| rng.random()).collect()).unwrap();
        let w: Vec<f32> = (0..sides).map(|_| rng.random_range(-0.05..0.05)).collect();
        let rules = if whitepaper { Rules::whitepaper() } else { Rules::subnet() };
        let criterion = RuleCriterion::new(rules);
        for name in NAMES {
            let mut model = Metered::new(Linear::with_margin(w.clone(), &clean, margin), budget, None);
            let tasks = vec![Task { clean: &clean, label: 0, salt: seed }; 2];
            let attack = by_name(name, &Options::default()).unwrap();
            let found = run(attack.as_ref(), Context::new(&mut model, &criterion, tasks).since(frozen(), frozen)).unwrap();
            let spent = model.spent();
            prop_assert!(spent.forwards + spent.backwards <= budget, "{name} {spent:?}");
            for found in found.into_iter().flatten() {
                let m = criterion.gates(&clean, &found.image).expect("gates hold");
                prop_assert_eq!(m, found.measurement);
                let z = Linear::with_margin(w.clone(), &clean, margin).logits(&[&found.image]).unwrap().remove(0);
                prop_assert_eq!(criterion.worth(&m, &z, 0), Some(found.worth));
            }
        }
    }
}

#[test]
fn of_two_classes_the_level_that_is_missing_is_tried_before_any_climb() {
    let (clean, weights) = (busy(), uneven());
    let level: f32 = weights.iter().map(|w| w.abs()).sum();
    let mut model = Metered::new(Linear::with_margin(weights, &clean, 3.5 * level), 30_000, None);
    let criterion = RuleCriterion::new(Rules::whitepaper());
    let context = Context::new(&mut model, &criterion, vec![Task { clean: &clean, label: 0, salt: 0 }]);
    let found = run(&ours::Ours { steps: 1, starts: 1 }, context.since(frozen(), frozen)).unwrap().pop().unwrap();
    assert_eq!(levels(&found.unwrap()).0, 4);
    // At the clean image, and in the level below.
    assert_eq!(model.spent().backwards, 2);
}
