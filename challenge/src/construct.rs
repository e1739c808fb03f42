//! What a round challenges with: an image, transformed in secret, and the model's label for it.
//!
//! Rule: draw the next image of the traversal, transform it, ask the classifier. Where the rules ask
//! about meaning and the set has labels, the image counts only if the classifier's label means the same
//! as the wanted one, the set's: an image that the model gets wrong already is no test of it. Otherwise
//! the next image is drawn, at most [`MAX_DRAWS`] in all. The label of the round is the classifier's.
//!
//! Passed over as well: an image that does not decode, and a label that names none of the classifier's
//! classes. Not passed over: a server or disk that fails, a judge of meaning that is away. Then there is
//! no challenge, and the caller tries again later.

use perturb_types::round::{Meaning, TransformSecret};

use crate::classifier::{Classifier, ClassifierError, predict};
use crate::pixels::Pixels;
use crate::rules::Rules;
use crate::semantics::labels::{Labels, classes_of};
use crate::semantics::{Semantics, SemanticsError};
use crate::source::{ImageSource, SourceError};
use crate::transform::Transform;

/// Images drawn for one challenge: a classifier that is right about half of them finds one but once in
/// four thousand million.
pub const MAX_DRAWS: u32 = 32;

/// A challenge that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConstructError {
    /// The traversal could not be moved on (and stored).
    #[error("the traversal: {0}")]
    Traversal(String),
    /// No image to be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The classifier failed.
    #[error(transparent)]
    Classifier(#[from] ClassifierError),
    /// The judge of meaning failed, or is away.
    #[error(transparent)]
    Semantics(#[from] SemanticsError),
    /// None of the images drawn serves.
    #[error("none of {MAX_DRAWS} images serves: {last}")]
    NoMatch {
        /// What was wrong with the last.
        last: String,
    },
}

/// The clean side of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constructed {
    /// The number of the source image.
    pub index: u64,
    /// The secret that its transform follows from.
    pub secret: TransformSecret,
    /// The transformed image.
    pub pixels: Pixels,
    /// The classifier's label for it.
    pub label: u16,
}

/// Which of the classifier's classes the set's labels want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted(Option<Vec<Option<u16>>>);

impl Wanted {
    /// For a set and rules; nothing is wanted where the rules do not ask about meaning, where the set
    /// has no labels, or where the classifier's classes have no names.
    ///
    /// # Errors
    /// The set has labels, and none of them names a class.
    pub fn new(rules: &Rules, source: &dyn ImageSource, labels: Option<&Labels>) -> Result<Self, String> {
        let names = source.label_names();
        let (true, false, Some(labels)) = (rules.semantic.asked(), names.is_empty(), labels) else {
            return Ok(Self(None));
        };
        let classes = classes_of(&names, labels);
        if classes.iter().all(Option::is_none) {
            return Err(format!("none of the image set's {} labels names a class of the model", names.len()));
        }
        Ok(Self(Some(classes)))
    }
}

/// What challenges are made with.
#[derive(Clone, Copy)]
pub struct Construction<'a> {
    /// The rules.
    pub rules: &'a Rules,
    /// The images.
    pub source: &'a dyn ImageSource,
    /// The classifier.
    pub classifier: &'a dyn Classifier,
    /// The judge of meaning.
    pub semantics: &'a dyn Semantics,
    /// What the set's labels want.
    pub wanted: &'a Wanted,
}

/// What became of one image.
enum Drawn {
    Serves(Constructed),
    PassedOver(String),
}

impl Construction<'_> {
    /// Makes a challenge. `next` gives the number of the next image, once the traversal that says so is
    /// stored, and a fresh secret.
    ///
    /// # Errors
    /// There is none now; see [`ConstructError`].
    pub fn run(
        &self,
        mut next: impl FnMut() -> Result<(u64, TransformSecret), String>,
    ) -> Result<Constructed, ConstructError> {
        if self.rules.semantic.asked() {
            self.semantics.ready()?;
        }
        let mut last = String::new();
        for _ in 0..MAX_DRAWS {
            let (index, secret) = next().map_err(ConstructError::Traversal)?;
            match self.draw(index, secret)? {
                Drawn::Serves(constructed) => return Ok(constructed),
                Drawn::PassedOver(why) => last = why,
            }
        }
        Err(ConstructError::NoMatch { last })
    }

    fn draw(&self, index: u64, secret: TransformSecret) -> Result<Drawn, ConstructError> {
        let image = match self.source.get(index) {
            Ok(image) => image,
            Err(e) if e.one_image() => return Ok(Drawn::PassedOver(e.to_string())),
            Err(e) => return Err(e.into()),
        };
        let wanted = match &self.wanted.0 {
            None => None,
            Some(classes) => match image.label.and_then(|l| classes.get(usize::from(l)).copied().flatten()) {
                Some(class) => Some(class),
                None => return Ok(Drawn::PassedOver(format!("image {index} has no label that names a class"))),
            },
        };
        let pixels = Transform::derive(&secret, &self.rules.transform).apply(&image.pixels);
        let rows = self.classifier.logits(&[&pixels])?;
        let row = rows.first().ok_or_else(|| ClassifierError("no logits for an image".into()))?;
        let label = predict(row, 0)?.class;
        if let Some(wanted) = wanted {
            match self.semantics.compare(wanted, label) {
                Ok(Meaning::Same) => {}
                Err(e) if e.away() => return Err(e.into()),
                Err(e) => return Ok(Drawn::PassedOver(format!("image {index}: {e}"))),
                Ok(_) => {
                    let why = format!("image {index} of class {wanted} is taken for class {label}");
                    return Ok(Drawn::PassedOver(why));
                }
            }
        }
        Ok(Drawn::Serves(Constructed { index, secret, pixels, label }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::cell::Cell;

    use perturb_types::Digest;

    use super::*;
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
        let still = TransformRules { flip: false, crop: 0, brightness: 0 };
        Rules { semantic, transform: still, ..Rules::whitepaper() }
    }

    fn run(semantic: SemanticRule, judge: &dyn Semantics, from: u64) -> (Result<Constructed, ConstructError>, u64) {
        let rules = rules(semantic);
        let wanted = Wanted::new(&rules, &Numbers, Some(&Labels::imagenet())).unwrap();
        let made =
            Construction { rules: &rules, source: &Numbers, classifier: &Fishy, semantics: judge, wanted: &wanted };
        let at = Cell::new(from);
        let made = made.run(|| {
            at.set(at.get() + 1);
            Ok((at.get() - 1, TransformSecret([0; 32])))
        });
        (made, at.get() - from)
    }

    #[test]
    fn with_exact_meaning_it_draws_until_the_label_is_the_wanted_one() {
        let (made, draws) = run(SemanticRule::Exact, &Exact, 0);
        let made = made.unwrap();
        assert_eq!((made.index, made.label, draws), (1, 1, 2), "image 0 is a tench taken for a goldfish");
        let (made, _) = run(SemanticRule::Exact, &Exact, 11);
        assert_eq!(made.unwrap().index, 14, "unicorn, tench and goldfish are passed over");
    }

    #[test]
    fn with_wordnet_a_label_of_the_same_meaning_will_do() {
        let (made, draws) = run(SemanticRule::Wordnet, &Wordnet, 0);
        let made = made.unwrap();
        assert_eq!((made.index, made.label, draws), (0, 1, 1), "tench and goldfish are both cyprinids");
    }

    #[test]
    fn a_broken_image_is_passed_over_and_a_broken_disk_is_not() {
        assert_eq!(run(SemanticRule::None, &Exact, 5).0.unwrap().index, 6);
        assert!(matches!(run(SemanticRule::None, &Exact, 7).0, Err(ConstructError::Source(_))));
    }

    #[test]
    fn without_a_judge_there_is_no_challenge() {
        let (made, draws) = run(SemanticRule::Wordnet, &Away, 0);
        assert!(matches!(made, Err(ConstructError::Semantics(SemanticsError::Away(_)))));
        assert_eq!(draws, 1);
        let (made, draws) = run(SemanticRule::Wordnet, &NotReady, 0);
        assert!(matches!(made, Err(ConstructError::Semantics(_))));
        assert_eq!(draws, 0, "not even an image is used up");
        assert!(run(SemanticRule::None, &NotReady, 0).0.is_ok(), "nobody asks it");
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
        let (made, draws) = run(SemanticRule::Wordnet, &Unsure, 0);
        assert_eq!((made.unwrap().index, draws), (1, 2));
    }

    #[test]
    fn the_search_ends() {
        // From 15 on everything is taken for a canoe: with an image that is none, none serves.
        let rules = rules(SemanticRule::Exact);
        let wanted = Wanted::new(&rules, &Numbers, Some(&Labels::imagenet())).unwrap();
        let made =
            Construction { rules: &rules, source: &Numbers, classifier: &Fishy, semantics: &Exact, wanted: &wanted };
        let ended = made.run(|| Ok((16, TransformSecret([0; 32])))).unwrap_err().to_string();
        assert_eq!(ended, "none of 32 images serves: image 16 of class 0 is taken for class 472");
    }

    #[test]
    fn labels_that_name_no_class_are_refused_when_the_challenge_is_set_up() {
        let rules = rules(SemanticRule::Wordnet);
        assert!(Wanted::new(&rules, &Numbers, Some(&Labels::demo())).is_err());
        assert_eq!(Wanted::new(&rules, &Numbers, None).unwrap(), Wanted(None));
        assert_eq!(Wanted::new(&Rules::subnet(), &Numbers, Some(&Labels::demo())).unwrap(), Wanted(None));
    }
}
