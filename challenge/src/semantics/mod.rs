//! Whether two labels mean the same.
//!
//! A flip from one breed of dog to another is a flip of the label, hardly one of the meaning. The
//! rules may therefore ask for more than another number ([`SemanticRule`]):
//!
//! - [`Exact`] compares the numbers;
//! - [`wordnet::Wordnet`] asks WordNet, embedded: the same if one is a kind of the other, or both are
//!   direct kinds of one thing. Deterministic, hence the whitepaper preset's default;
//! - [`llm`] asks a language model, three times.
//!
//! A judge that cannot say is never taken for one that said "different". One that is *away* may come
//! back: a challenge is not issued meanwhile, and a result waits. One that is there and says nothing that
//! counts would say nothing again, to these two labels: the answer with that label has failed
//! (`ModelInferenceFailed`, no score), and the round's other answers have not.
//!
//! [`SemanticRule`]: crate::rules::SemanticRule

pub mod labels;
#[cfg(feature = "outside")]
pub mod llm;
pub mod wordnet;

use std::sync::{Mutex, PoisonError};

use perturb_types::round::Meaning;

use crate::pace::Until;

/// A comparison that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SemanticsError {
    /// A class that the judge has no name for.
    #[error("class {0} has no name here")]
    Unknown(u16),
    /// Nobody to ask now; later there may be.
    #[error("the judge of meaning is away: {0}")]
    Away(String),
    /// The judge answers, but says nothing that counts.
    #[error("the judge of meaning gave no answer that counts: {0}")]
    Answer(String),
}

impl SemanticsError {
    /// Whether asking again later may help; otherwise it is the two labels that have no verdict.
    #[must_use]
    pub const fn away(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

/// A judge of meaning.
pub trait Semantics: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// [`Meaning::Same`] or [`Meaning::Different`] for the clean image's label and the new one. A class
    /// means the same as itself.
    ///
    /// # Errors
    /// A label it does not know, or its own failure.
    fn compare(&self, clean: u16, new: u16) -> Result<Meaning, SemanticsError>;

    /// The same, without beginning anything that takes long once the time is over.
    ///
    /// # Errors
    /// As [`Self::compare`]; where no time is left the judge is [`SemanticsError::Away`].
    fn compare_until(&self, clean: u16, new: u16, until: &Until) -> Result<Meaning, SemanticsError> {
        let _ = until;
        self.compare(clean, new)
    }

    /// Whether every validator's judge of this name says the same: then its verdicts can be checked.
    fn repeatable(&self) -> bool {
        true
    }

    /// Whether it can be asked now. A challenge is issued only then.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> Result<(), SemanticsError> {
        Ok(())
    }
}

/// Labels mean the same if they are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exact;

impl Semantics for Exact {
    fn name(&self) -> &str {
        "exact"
    }

    fn compare(&self, clean: u16, new: u16) -> Result<Meaning, SemanticsError> {
        Ok(if clean == new { Meaning::Same } else { Meaning::Different })
    }
}

/// A judge whose absence is remembered: the verification of a round turns every failure of a judge into
/// a verdict about an answer, and whoever runs it must know where it was none. Only
/// [`SemanticsError::Away`] is none: with the others an answer stays the only one that fails, and nobody
/// can hold up a round by an answer whose label cannot be judged.
pub struct Watched<'a> {
    judge: &'a dyn Semantics,
    until: Until,
    failure: Mutex<Option<SemanticsError>>,
}

impl<'a> Watched<'a> {
    /// Watches a judge.
    #[must_use]
    pub fn new(judge: &'a dyn Semantics) -> Self {
        Self { judge, until: Until::default(), failure: Mutex::new(None) }
    }

    /// Asks it no longer than that: then it is away.
    #[must_use]
    pub fn until(self, until: Until) -> Self {
        Self { until, ..self }
    }

    /// The first absence, if there was one: then verdicts made with this judge must not be used.
    #[must_use]
    pub fn into_failure(self) -> Option<SemanticsError> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Semantics for Watched<'_> {
    fn name(&self) -> &str {
        self.judge.name()
    }

    fn compare(&self, clean: u16, new: u16) -> Result<Meaning, SemanticsError> {
        let said = self.judge.compare_until(clean, new, &self.until);
        if let Err(e) = &said
            && e.away()
        {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| e.clone());
        }
        said
    }

    fn repeatable(&self) -> bool {
        self.judge.repeatable()
    }

    fn ready(&self) -> Result<(), SemanticsError> {
        self.judge.ready()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Has no answer about class 3, no name for class 4, and is away for all others.
    struct Lost;

    impl Semantics for Lost {
        fn name(&self) -> &str {
            "lost"
        }

        fn compare(&self, clean: u16, _: u16) -> Result<Meaning, SemanticsError> {
            Err(match clean {
                3 => SemanticsError::Answer("no majority".into()),
                4 => SemanticsError::Unknown(4),
                other => SemanticsError::Away(format!("gone at {other}")),
            })
        }
    }

    #[test]
    fn a_watched_judge_remembers_when_it_was_first_away() {
        let watched = Watched::new(&Lost);
        assert!(watched.compare(5, 1).is_err() && watched.compare(6, 1).is_err());
        assert_eq!(watched.into_failure(), Some(SemanticsError::Away("gone at 5".into())));
        let watched = Watched::new(&Exact);
        assert_eq!(watched.compare(3, 1), Ok(Meaning::Different));
        assert_eq!(watched.compare(3, 3), Ok(Meaning::Same));
        assert_eq!(watched.into_failure(), None);
    }

    #[test]
    fn labels_without_a_verdict_do_not_hold_up_a_round() {
        let watched = Watched::new(&Lost);
        assert!(watched.compare(3, 1).is_err() && watched.compare(4, 1).is_err());
        assert_eq!(watched.into_failure(), None, "they would have none the next time either");
    }
}
