//! The persisted traversal of an image set.
//!
//! A pass over the set visits every image once, in a seeded shuffle (Fisher–Yates over a ChaCha20
//! stream of seed and pass); no image repeats until all were used, then the next pass shuffles anew.
//! What has to survive a restart is small: seed, length, fingerprint of the set, pass and cursor.
//! A set with another fingerprint or length is refused, as the cursor would mean nothing there.

use perturb_types::Digest;
use serde::{Deserialize, Serialize};

use crate::source::ImageSource;
use crate::stream::Stream;

/// Images of a set: the order of a pass is held in memory, 4 bytes each.
pub const MAX_IMAGES: u64 = 16_000_000;

/// A traversal that does not fit its set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraversalError {
    /// The set is empty.
    #[error("the image set is empty")]
    Empty,
    /// The set is too large.
    #[error("{0} images: at most {MAX_IMAGES} are supported")]
    TooMany(u64),
    /// The set is not the one this traversal was begun on.
    #[error(
        "the traversal was begun on image set {expected} ({expected_len} images), this is {found} ({found_len} images)"
    )]
    OtherSet {
        /// Fingerprint that was stored.
        expected: Digest,
        /// Length that was stored.
        expected_len: u64,
        /// The set's fingerprint.
        found: Digest,
        /// The set's length.
        found_len: u64,
    },
    /// The stored cursor lies beyond the set.
    #[error("the stored cursor {cursor} lies beyond the {len} images of the set")]
    Cursor {
        /// The cursor.
        cursor: u64,
        /// The length.
        len: u64,
    },
}

/// Where a pass over an image set stands. Store it after each [`Traversal::next`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Traversal {
    seed: [u8; 32],
    fingerprint: Digest,
    len: u64,
    epoch: u64,
    cursor: u64,
    /// The order of pass `.0`, made when needed.
    #[serde(skip)]
    order: Option<(u64, Vec<u32>)>,
}

impl PartialEq for Traversal {
    fn eq(&self, o: &Self) -> bool {
        (self.seed, self.fingerprint, self.len, self.epoch, self.cursor)
            == (o.seed, o.fingerprint, o.len, o.epoch, o.cursor)
    }
}

fn shuffled(seed: &[u8; 32], epoch: u64, len: u64) -> Vec<u32> {
    let mut stream = Stream::new("perturb/traversal/1", seed, epoch);
    let mut order: Vec<u32> = (0..len.min(MAX_IMAGES) as u32).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, stream.below(last as u64 + 1) as usize);
    }
    order
}

impl Traversal {
    /// The beginning of the first pass over `source`.
    ///
    /// # Errors
    /// The set is empty or too large.
    pub fn begin(seed: [u8; 32], source: &dyn ImageSource) -> Result<Self, TraversalError> {
        let len = source.len();
        match len {
            0 => Err(TraversalError::Empty),
            1..=MAX_IMAGES => {
                Ok(Self { seed, fingerprint: source.fingerprint(), len, epoch: 0, cursor: 0, order: None })
            }
            _ => Err(TraversalError::TooMany(len)),
        }
    }

    /// Goes on where a stored traversal stopped.
    ///
    /// # Errors
    /// `source` is not the set it was begun on, or the stored values are broken.
    pub fn resume(stored: Self, source: &dyn ImageSource) -> Result<Self, TraversalError> {
        let (found, found_len) = (source.fingerprint(), source.len());
        if (stored.fingerprint, stored.len) != (found, found_len) {
            return Err(TraversalError::OtherSet {
                expected: stored.fingerprint,
                expected_len: stored.len,
                found,
                found_len,
            });
        }
        if stored.len == 0 {
            return Err(TraversalError::Empty);
        }
        if stored.len > MAX_IMAGES {
            return Err(TraversalError::TooMany(stored.len));
        }
        if stored.cursor > stored.len {
            return Err(TraversalError::Cursor { cursor: stored.cursor, len: stored.len });
        }
        Ok(stored)
    }

    /// The index of the next image; moves on.
    #[allow(clippy::should_implement_trait, reason = "endless: never None")]
    pub fn next(&mut self) -> u64 {
        if self.cursor >= self.len {
            self.epoch = self.epoch.wrapping_add(1);
            self.cursor = 0;
        }
        let epoch = self.epoch;
        if self.order.as_ref().is_none_or(|(e, _)| *e != epoch) {
            self.order = Some((epoch, shuffled(&self.seed, epoch, self.len)));
        }
        let at = self.cursor as usize;
        self.cursor += 1;
        self.order.as_ref().and_then(|(_, order)| order.get(at)).copied().map_or(0, u64::from)
    }

    /// The pass, from 0.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Images used in this pass.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::source::{SourceError, SourceImage};
    use proptest::prelude::*;

    struct Numbers(u64, u8);

    impl ImageSource for Numbers {
        fn len(&self) -> u64 {
            self.0
        }
        fn fingerprint(&self) -> Digest {
            Digest([self.1; 32])
        }
        fn get(&self, index: u64) -> Result<SourceImage, SourceError> {
            Err(SourceError::Range { index, len: self.0 })
        }
    }

    #[test]
    fn a_stored_traversal_resumes_on_its_set_only() {
        let set = Numbers(10, 1);
        let mut t = Traversal::begin([5; 32], &set).unwrap();
        for _ in 0..13 {
            t.next();
        }
        assert_eq!((t.epoch(), t.cursor()), (1, 3));
        let text = serde_json::to_string(&t).unwrap();
        let mut back = Traversal::resume(serde_json::from_str(&text).unwrap(), &set).unwrap();
        for _ in 0..30 {
            assert_eq!(back.next(), t.next());
        }
        for other in [Numbers(10, 2), Numbers(11, 1)] {
            let refused = Traversal::resume(back.clone(), &other);
            assert!(matches!(refused, Err(TraversalError::OtherSet { .. })));
        }
        assert!(matches!(
            Traversal::resume(Traversal { cursor: 11, ..back }, &set),
            Err(TraversalError::Cursor { cursor: 11, len: 10 })
        ));
        assert_eq!(Traversal::begin([5; 32], &Numbers(0, 1)), Err(TraversalError::Empty));
        assert!(Traversal::begin([5; 32], &Numbers(MAX_IMAGES + 1, 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_image_repeats_until_all_were_used(seed: [u8; 32], len in 1u64..200) {
            let mut t = Traversal::begin(seed, &Numbers(len, 0)).unwrap();
            let mut passes = Vec::new();
            for _ in 0..3 {
                let pass: Vec<u64> = (0..len).map(|_| t.next()).collect();
                let mut sorted = pass.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..len).collect::<Vec<_>>());
                passes.push(pass);
            }
            prop_assert!(len < 30 || passes[0] != passes[1]);
        }
    }
}
