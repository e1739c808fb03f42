//! Whether two labels mean the same.
//!
//! A flip from one breed of dog to another is a flip of the label, hardly one of the meaning. The
//! rules may therefore ask for more than another number. [`Exact`] compares the numbers.

use perturb_types::round::Meaning;

/// A comparison that could not be made; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the labels could not be compared: {0}")]
pub struct SemanticsError(pub String);

/// A judge of meaning; deterministic, as its verdict is part of the record.
pub trait Semantics: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// [`Meaning::Same`] or [`Meaning::Different`] for the clean image's label and the new one.
    ///
    /// # Errors
    /// A label it does not know, or its own failure.
    fn compare(&self, clean: u16, new: u16) -> Result<Meaning, SemanticsError>;
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
