#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use perturb_types::Digest;

use super::*;
use crate::pace::Pace;
use crate::pixels::PngLimits;
use crate::rules::{SemanticRule, TransformRules};
use crate::semantics::Exact;
use crate::semantics::wordnet::Wordnet;
use crate::source::SourceImage;

/// Images of one value, the number; label `number % 4`; the fifth cannot be read.
struct Numbers;

impl ImageSource for Numbers {
    fn len(&self) -> u64 {
        100
    }
    fn fingerprint(&self) -> Digest {
        Digest([1; 32])
    }
    fn label_names(&self) -> Vec<String> {
        ["tench", "goldfish", "canoe", "unicorn"].map(str::to_owned).into()
    }
    fn get(&self, index: u64) -> Result<SourceImage, SourceError> {
        match index {
            5 => Err(SourceError::Image { set: "numbers".into(), index, why: "broken".into() }),
            7 => Err(SourceError::Away { set: "numbers".into(), why: "no disk".into() }),
            _ => {
                let pixels = Pixels::new(1, 1, vec![index as u8; 3]).unwrap();
                Ok(SourceImage { pixels, label: Some((index % 4) as u16) })
            }
        }
    }
}

/// Says goldfish (1) to everything below 10, and canoe (472) from there on.
struct Fishy;

impl Classifier for Fishy {
    fn name(&self) -> &str {
        "fishy"
    }
    fn digest(&self) -> Digest {
        Digest([2; 32])
    }
    fn classes(&self) -> usize {
        1000
    }
    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        let row = |p: &&Pixels| {
            let mut row = vec![0.0; 1000];
            row[if p.rgb[0] < 10 { 1 } else { 472 }] = 1.0;
            row
        };
        Ok(images.iter().map(row).collect())
    }
}

struct Away;

impl Semantics for Away {
    fn name(&self) -> &str {
        "away"
    }
    fn compare(&self, _: u16, _: u16) -> Result<Meaning, SemanticsError> {
        Err(SemanticsError::Away("gone".into()))
    }
}

struct NotReady;

impl Semantics for NotReady {
    fn name(&self) -> &str {
        "not ready"
    }
    fn compare(&self, _: u16, _: u16) -> Result<Meaning, SemanticsError> {
        Ok(Meaning::Same)
    }
    fn ready(&self) -> Result<(), SemanticsError> {
        Err(SemanticsError::Away("not yet".into()))
    }
}

fn rules(semantic: SemanticRule) -> Rules {
    let still = TransformRules { flip: false, crop: 0, brightness: 0, field: 0, cells: 0 };
    Rules { semantic, transform: still, ..Rules::whitepaper() }
}

fn images(from: u64) -> Vec<(u64, TransformSecret)> {
    (from..from + 32).map(|index| (index, TransformSecret([0; 32]))).collect()
}

/// The number of the image that is taken, and the classifier's label.
fn run(semantic: SemanticRule, judge: &dyn Semantics, from: u64) -> Result<(u64, u16), ConstructError> {
    let rules = rules(semantic);
    let wanted = Wanted::new(&rules, &Numbers, Some(&Labels::imagenet())).unwrap();
    let made = Construction { rules: &rules, source: &Numbers, classifier: &Fishy, semantics: judge, wanted: &wanted };
    made.run(&Until::default(), &images(from)).map(|made| (from + made.skipped as u64, made.label))
}

#[test]
fn with_exact_meaning_it_draws_until_the_label_is_the_wanted_one() {
    assert_eq!(run(SemanticRule::Exact, &Exact, 0).unwrap(), (1, 1), "image 0 is a tench taken for a goldfish");
    let made = run(SemanticRule::Exact, &Exact, 11).unwrap();
    assert_eq!(made.0, 14, "unicorn, tench and goldfish are passed over");
}

#[test]
fn with_wordnet_a_label_of_the_same_meaning_will_do() {
    let made = run(SemanticRule::Wordnet, &Wordnet, 0).unwrap();
    assert_eq!(made, (0, 1), "tench and goldfish are both cyprinids");
}

#[test]
fn a_broken_image_is_passed_over_and_a_broken_disk_is_not() {
    assert_eq!(run(SemanticRule::None, &Exact, 5).unwrap().0, 6);
    assert!(matches!(run(SemanticRule::None, &Exact, 7), Err(ConstructError::Source(_))));
}

#[test]
fn without_a_judge_there_is_no_challenge() {
    let made = run(SemanticRule::Wordnet, &Away, 0);
    assert!(matches!(made, Err(ConstructError::Semantics(SemanticsError::Away(_)))));
    assert!(matches!(run(SemanticRule::Wordnet, &NotReady, 0), Err(ConstructError::Semantics(_))));
    assert!(run(SemanticRule::None, &NotReady, 0).is_ok(), "nobody asks it");
}

/// What who looks again finds about an image of the set.
fn look(made: &Construction<'_>, index: u64, tolerance: i64) -> Result<Seen, ConstructError> {
    let until = Until::default();
    match made.prepare(index, &TransformSecret([0; 32]), &until)? {
        Ok(image) => made.look_again(&image, tolerance, &until),
        Err(_) => Ok(Seen::Fails),
    }
}

/// A round's validator passes images over that serve; others see that, but for what may be otherwise on
/// their devices.
#[test]
fn who_looks_again_sees_whether_an_image_was_passed_over_rightly() {
    let look = |semantic, index, tolerance| {
        let rules = rules(semantic);
        let wanted = Wanted::new(&rules, &Numbers, Some(&Labels::imagenet())).unwrap();
        let made =
            Construction { rules: &rules, source: &Numbers, classifier: &Fishy, semantics: &Exact, wanted: &wanted };
        look(&made, index, tolerance)
    };
    assert_eq!(look(SemanticRule::Exact, 1, 50_000).unwrap(), Seen::Serves, "a goldfish by a whole logit");
    assert_eq!(look(SemanticRule::Exact, 1, 1_000_000).unwrap(), Seen::Either, "a device may see it otherwise");
    assert_eq!(look(SemanticRule::Exact, 0, 50_000).unwrap(), Seen::Fails, "a tench taken for a goldfish");
    assert_eq!(look(SemanticRule::None, 5, 50_000).unwrap(), Seen::Fails, "it cannot be read");
    assert_eq!(look(SemanticRule::None, 0, 50_000).unwrap(), Seen::Serves, "any label serves");
    assert!(look(SemanticRule::None, 7, 50_000).is_err(), "nobody can tell while the disk is away");
}

/// A language model: every validator's may say something else.
struct Talks;

impl Semantics for Talks {
    fn name(&self) -> &str {
        "talks"
    }
    fn compare(&self, _: u16, _: u16) -> Result<Meaning, SemanticsError> {
        Ok(Meaning::Same)
    }
    fn repeatable(&self) -> bool {
        false
    }
}

#[test]
fn what_a_language_model_said_of_an_image_is_not_asked_again() {
    let rules = rules(SemanticRule::Llm { model: "talks".into() });
    let wanted = Wanted::new(&rules, &Numbers, Some(&Labels::imagenet())).unwrap();
    let made = Construction { rules: &rules, source: &Numbers, classifier: &Fishy, semantics: &Talks, wanted: &wanted };
    let look = |index| look(&made, index, 50_000).unwrap();
    assert_eq!([0, 1].map(look), [Seen::Either, Seen::Either]);
    assert_eq!([3, 5].map(look), [Seen::Fails, Seen::Fails], "no label, and not to be read: nobody was asked");
}

/// Cannot say anything about class 0.
struct Unsure;

impl Semantics for Unsure {
    fn name(&self) -> &str {
        "unsure"
    }
    fn compare(&self, clean: u16, new: u16) -> Result<Meaning, SemanticsError> {
        if clean == 0 { Err(SemanticsError::Answer("no majority".into())) } else { Exact.compare(clean, new) }
    }
}

#[test]
fn labels_without_a_verdict_are_passed_over() {
    assert_eq!(run(SemanticRule::Wordnet, &Unsure, 0).unwrap().0, 1);
}

/// A clock on which a second goes by whenever somebody looks.
#[derive(Default)]
struct Seconds(AtomicU64);

impl Pace for Seconds {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::SeqCst))
    }
    fn sleep(&self, _: Duration) {}
}

#[test]
fn the_search_ends_when_time_is_over() {
    let rules = rules(SemanticRule::Exact);
    let wanted = Wanted::new(&rules, &Numbers, Some(&Labels::imagenet())).unwrap();
    let made = Construction { rules: &rules, source: &Numbers, classifier: &Fishy, semantics: &Exact, wanted: &wanted };
    let until = Until::by(Arc::new(Seconds::default()), Duration::from_secs(5));
    let late = made.run(&until, &[(16, TransformSecret([0; 32])); 32]).unwrap_err();
    assert!(matches!(&late, ConstructError::Late { last } if last.contains("472")));
}

/// One noisy image of these sides, then a small one.
struct Noisy(u32, u32);

impl ImageSource for Noisy {
    fn len(&self) -> u64 {
        2
    }
    fn fingerprint(&self) -> Digest {
        Digest([1; 32])
    }
    fn get(&self, index: u64) -> Result<SourceImage, SourceError> {
        let (width, height) = if index == 0 { (self.0, self.1) } else { (8, 8) };
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 57) as u8
        };
        let rgb = (0..width * height * 3).map(|_| noise()).collect();
        Ok(SourceImage { pixels: Pixels::new(width, height, rgb).unwrap(), label: None })
    }
}

fn first_of(source: &Noisy) -> Constructed {
    let rules = rules(SemanticRule::None);
    let made =
        Construction { rules: &rules, source, classifier: &Fishy, semantics: &Exact, wanted: &Wanted::default() };
    made.run(&Until::default(), &images(0)).unwrap()
}

#[test]
fn an_image_that_could_not_be_answered_is_passed_over() {
    // Seven bits a value, 3.6 million of them: 3.2 MB, which fits, but with noise on it does not.
    let made = first_of(&Noisy(1200, 1000));
    assert_eq!((made.skipped, made.pixels.width), (1, 8));
    assert_eq!(Pixels::decode_png(&made.png, &PngLimits::default()).unwrap(), made.pixels);
    assert_eq!(first_of(&Noisy(1000, 900)).skipped, 0, "this one leaves room");
}

#[test]
fn an_answer_one_level_away_everywhere_fits_where_the_clean_image_does() {
    let made = first_of(&Noisy(1000, 900));
    let mut answer = made.pixels.clone();
    let mut state = 7u64;
    for v in &mut answer.rgb {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *v = [v.saturating_sub(1), *v, v.saturating_add(1)][(state >> 62).min(2) as usize];
    }
    let (clean, noisy) = (made.png.len() as u64, answer.encode_png().unwrap().len() as u64);
    assert!(noisy <= clean + made.pixels.channels() as u64 * NOISE_BITS / 8, "{clean} and {noisy}");
    // The other extreme: nothing to see before, noise alone afterwards.
    let flat = Pixels::new(1000, 900, vec![100; 2_700_000]).unwrap();
    let mut answer = flat.clone();
    for v in &mut answer.rgb {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *v = 99 + (state >> 62).min(2) as u8;
    }
    let (clean, noisy) = (flat.encode_png().unwrap().len() as u64, answer.encode_png().unwrap().len() as u64);
    assert!(noisy <= clean + flat.channels() as u64 * NOISE_BITS / 8, "{clean} and {noisy}");
}

#[test]
fn the_search_ends() {
    // From 15 on everything is taken for a canoe: with an image that is none, none serves.
    let rules = rules(SemanticRule::Exact);
    let wanted = Wanted::new(&rules, &Numbers, Some(&Labels::imagenet())).unwrap();
    let made = Construction { rules: &rules, source: &Numbers, classifier: &Fishy, semantics: &Exact, wanted: &wanted };
    let ended = made.run(&Until::default(), &[(16, TransformSecret([0; 32])); 40]).unwrap_err().to_string();
    assert_eq!(ended, "none of the images drawn serves: image 16 of class 0 is taken for class 472");
}

#[test]
fn labels_that_name_no_class_are_refused_when_the_challenge_is_set_up() {
    let rules = rules(SemanticRule::Wordnet);
    assert!(Wanted::new(&rules, &Numbers, Some(&Labels::demo())).is_err());
    assert_eq!(Wanted::new(&rules, &Numbers, None).unwrap(), Wanted(None));
    assert_eq!(Wanted::new(&Rules::subnet(), &Numbers, Some(&Labels::demo())).unwrap(), Wanted(None));
}
