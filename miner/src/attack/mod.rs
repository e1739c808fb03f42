//! The attacks and what they share.
//!
//! An attack starts from the clean image and offers candidates to its [`Context`]. The context
//! asks the criterion, keeps the best, and hands it back whatever ends the search: the attack's own
//! end, the budget or the deadline.

pub mod baseline;
pub mod ladder;

use perturb_challenge::pixels::Pixels;

use crate::criterion::{Criterion, Worth};
use crate::gradient::{GradientModel, MarginGradient, ModelError};

/// A candidate that the criterion accepted.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The image, 8-bit.
    pub image: Pixels,
    /// What it is worth.
    pub worth: Worth,
}

/// What an attack works with.
pub struct Context<'a> {
    model: &'a mut dyn GradientModel,
    criterion: &'a dyn Criterion,
    clean: &'a Pixels,
    label: u16,
    salt: u64,
    best: Option<Candidate>,
}

/// A well-mixed number of a salt and an index (splitmix64's finaliser).
pub(crate) fn mix(salt: u64, index: u64) -> u64 {
    let mut z = salt.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<'a> Context<'a> {
    /// An attack on `clean`, whose label by the model is `label`.
    pub fn new(model: &'a mut dyn GradientModel, criterion: &'a dyn Criterion, clean: &'a Pixels, label: u16) -> Self {
        Self { model, criterion, clean, label, salt: 0, best: None }
    }

    /// A number of the miner's own, so that two miners with the same attack and model do not give
    /// the same bytes: duplicates earn nothing.
    #[must_use]
    pub fn with_salt(mut self, salt: u64) -> Self {
        self.salt = salt;
        self
    }

    /// The miner's own number.
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// The clean image.
    pub fn clean(&self) -> &'a Pixels {
        self.clean
    }

    /// The criterion.
    pub fn criterion(&self) -> &'a dyn Criterion {
        self.criterion
    }

    /// Logits and the margin's gradient at `image`.
    ///
    /// # Errors
    /// Budget, deadline or the model.
    pub fn gradient(&mut self, image: &Pixels) -> Result<MarginGradient, ModelError> {
        self.model.margin_gradient(image, self.label)
    }

    /// Runs the model once over `candidates` and returns what each is worth; the best is kept.
    /// Candidates whose pixels fail the gates cost no pass.
    ///
    /// # Errors
    /// Budget, deadline or the model.
    pub fn offer(&mut self, candidates: Vec<Pixels>) -> Result<Vec<Option<Worth>>, ModelError> {
        let pixels: Vec<_> = candidates.iter().map(|c| self.criterion.gates(self.clean, c)).collect();
        let asked: Vec<usize> = (0..candidates.len()).filter(|&i| pixels[i].is_some()).collect();
        let mut out = vec![None; candidates.len()];
        if asked.is_empty() {
            return Ok(out);
        }
        let images: Vec<&Pixels> = asked.iter().map(|&i| &candidates[i]).collect();
        let logits = self.model.logits(&images)?;
        for (&i, z) in asked.iter().zip(&logits) {
            out[i] = pixels[i].as_ref().and_then(|m| self.criterion.worth(m, z, self.label));
        }
        let winner = (0..candidates.len()).filter_map(|i| out[i].map(|w| (i, w))).max_by(|a, b| a.1.cmp(&b.1));
        if let Some((i, worth)) = winner
            && self.best.as_ref().is_none_or(|b| worth > b.worth)
            && let Some(image) = candidates.into_iter().nth(i)
        {
            self.best = Some(Candidate { image, worth });
        }
        Ok(out)
    }

    /// The best candidate so far.
    pub fn best(&self) -> Option<&Candidate> {
        self.best.as_ref()
    }
}

/// A search for an adversarial image.
pub trait Attack: Send + Sync {
    /// Its name, as the command line and the reports have it.
    fn name(&self) -> &'static str;

    /// Searches until it is done, or the model stops it. Everything found is in the context.
    ///
    /// # Errors
    /// What ended the search early; the best candidate stands all the same.
    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError>;
}

/// Runs an attack and returns its best candidate, also where budget or deadline ended it.
///
/// # Errors
/// The model failed (not: ran out).
pub fn run(attack: &dyn Attack, mut context: Context<'_>) -> Result<Option<Candidate>, ModelError> {
    match attack.search(&mut context) {
        Ok(()) | Err(ModelError::Budget(_) | ModelError::Deadline) => Ok(context.best),
        Err(e @ ModelError::Failed(_)) => context.best.map_or(Err(e), |b| Ok(Some(b))),
    }
}

/// The attacks by name.
pub fn by_name(name: &str) -> Option<Box<dyn Attack>> {
    match name {
        "baseline" => Some(Box::new(baseline::Baseline::default())),
        "ladder" => Some(Box::new(ladder::Ladder::default())),
        _ => None,
    }
}

/// The names that [`by_name`] knows.
pub const NAMES: [&str; 2] = ["ladder", "baseline"];

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::criterion::RuleCriterion;
    use crate::metered::Metered;
    use perturb_challenge::rules::Rules;
    use proptest::prelude::*;

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
            let dot: f32 = weights.iter().zip(&clean.rgb).map(|(w, x)| w * f32::from(*x)).sum();
            Self { weights, bias: dot + margin }
        }
    }

    impl GradientModel for Linear {
        fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
            Ok(images
                .iter()
                .map(|i| {
                    let dot: f32 = self.weights.iter().zip(&i.rgb).map(|(w, x)| w * f32::from(*x)).sum();
                    vec![self.bias - dot, 0.0]
                })
                .collect())
        }

        fn margin_gradient(&mut self, image: &Pixels, label: u16) -> Result<MarginGradient, ModelError> {
            let logits = self.logits(&[image])?.remove(0);
            let sign = if label == 0 { -1.0 } else { 1.0 };
            Ok(MarginGradient { logits, gradient: self.weights.iter().map(|w| sign * w).collect() })
        }
    }

    fn image(value: u8) -> Pixels {
        Pixels::new(32, 32, vec![value; 32 * 32 * 3]).unwrap()
    }

    fn attack(name: &str, model: Linear, clean: &Pixels) -> Option<Candidate> {
        let rules = Rules::subnet();
        let criterion = RuleCriterion::new(rules);
        let mut model = Metered::new(model, 500, None);
        run(by_name(name).unwrap().as_ref(), Context::new(&mut model, &criterion, clean, 0)).unwrap()
    }

    fn levels(clean: &Pixels, found: &Candidate) -> (u8, usize) {
        let d: Vec<u8> = clean.rgb.iter().zip(&found.image.rgb).map(|(a, b)| a.abs_diff(*b)).collect();
        (*d.iter().max().unwrap(), d.iter().filter(|x| **x > 0).count())
    }

    #[test]
    fn the_ladder_finds_the_fewest_changes_of_a_linear_model() {
        // Ten strong weights, the rest weak: five strong ones suffice at level 1.
        let mut w = vec![0.0001; 32 * 32 * 3];
        w.iter_mut().step_by(300).for_each(|x| *x = 1.0);
        let clean = image(128);
        let found = attack("ladder", Linear::with_margin(w, &clean, 4.5), &clean).unwrap();
        assert_eq!(levels(&clean, &found), (1, 5));
    }

    #[test]
    fn the_ladder_raises_the_level_only_when_it_must() {
        let clean = image(128);
        let w = vec![0.01; 32 * 32 * 3];
        // Dense level 1 moves the margin by 30.72.
        let one = attack("ladder", Linear::with_margin(w.clone(), &clean, 25.0), &clean).unwrap();
        assert_eq!(levels(&clean, &one).0, 1);
        let two = attack("ladder", Linear::with_margin(w, &clean, 35.0), &clean).unwrap();
        assert_eq!(levels(&clean, &two).0, 2);
    }

    #[test]
    fn two_miners_with_one_attack_give_different_answers() {
        let clean = image(128);
        let w: Vec<f32> = (0..32 * 32 * 3).map(|i| 0.001 * (1 + i % 20) as f32).collect();
        for name in NAMES {
            let answer = |salt| {
                let criterion = RuleCriterion::new(Rules::subnet());
                let mut model = Linear::with_margin(w.clone(), &clean, 5.0);
                let context = Context::new(&mut model, &criterion, &clean, 0).with_salt(salt);
                run(by_name(name).unwrap().as_ref(), context).unwrap().unwrap().image
            };
            assert_ne!(answer(1).rgb, answer(2).rgb, "{name}");
            assert_eq!(answer(1).rgb, answer(1).rgb, "{name}");
        }
    }

    #[test]
    fn saturated_pixels_are_no_obstacle_and_nothing_is_found_where_nothing_is() {
        // Raising the values is what lowers the margin, but they are at the top already.
        let clean = image(255);
        assert!(attack("ladder", Linear::with_margin(vec![0.01; 32 * 32 * 3], &clean, 1.0), &clean).is_none());
        assert!(attack("baseline", Linear::with_margin(vec![0.01; 32 * 32 * 3], &clean, 1.0), &clean).is_none());
        assert!(attack("ladder", Linear::with_margin(vec![-0.01; 32 * 32 * 3], &clean, 1.0), &clean).is_some());
    }

    #[test]
    fn the_baseline_flips_densely_and_is_worth_less() {
        let clean = image(128);
        let w: Vec<f32> = (0..32 * 32 * 3).map(|i| 0.001 * (1 + i % 20) as f32).collect();
        let base = attack("baseline", Linear::with_margin(w.clone(), &clean, 5.0), &clean).unwrap();
        let ours = attack("ladder", Linear::with_margin(w, &clean, 5.0), &clean).unwrap();
        let (level, changed) = levels(&clean, &base);
        assert!(level == 1 && changed > 32 * 32 * 3 - 20, "{changed}");
        assert!(ours.worth > base.worth);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_is_found_passes_the_rules(seed in any::<u64>(), margin in 0.1f32..40.0) {
            use rand::{Rng, SeedableRng};
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let clean = Pixels::new(16, 16, (0..16 * 16 * 3).map(|_| rng.random()).collect()).unwrap();
            let w: Vec<f32> = (0..16 * 16 * 3).map(|_| rng.random_range(-0.05..0.05)).collect();
            let rules = Rules::subnet();
            let criterion = RuleCriterion::new(rules);
            for name in NAMES {
                let mut model = Linear::with_margin(w.clone(), &clean, margin);
                if let Some(found) = attack(name, Linear::with_margin(w.clone(), &clean, margin), &clean) {
                    let m = criterion.gates(&clean, &found.image).expect("gates hold");
                    let z = model.logits(&[&found.image]).unwrap().remove(0);
                    prop_assert!(criterion.worth(&m, &z, 0).is_some());
                }
            }
        }
    }
}
