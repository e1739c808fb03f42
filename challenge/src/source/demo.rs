//! The embedded set, drawn by the program.
//!
//! Fingerprint: seed, length, and the first image with its class, which stands for the way of drawing.

use perturb_types::Digest;
use sha2::{Digest as _, Sha256};

use super::{ImageSource, SourceError, SourceImage};
use crate::demo::{self, DemoSet};

/// The first images of a seed.
#[derive(Clone, Copy, Debug)]
pub struct DemoSource {
    set: DemoSet,
}

impl DemoSource {
    /// The first `len` images of `seed`.
    #[must_use]
    pub const fn new(seed: u64, len: u64) -> Self {
        Self { set: DemoSet::new(seed, len) }
    }
}

impl ImageSource for DemoSource {
    fn len(&self) -> u64 {
        self.set.len
    }

    fn fingerprint(&self) -> Digest {
        let (first, class) = demo::draw(self.set.seed, 0);
        let mut h = Sha256::new().chain_update(b"perturb/demo-set/1").chain_update(self.set.seed.to_le_bytes());
        h.update(self.set.len.to_le_bytes());
        h.update(class.to_le_bytes());
        h.update(&first.rgb);
        Digest(h.finalize().into())
    }

    fn label_names(&self) -> Vec<String> {
        demo::LABELS.map(str::to_owned).into()
    }

    fn get(&self, index: u64) -> Result<SourceImage, SourceError> {
        let range = SourceError::Range { index, len: self.set.len };
        let (pixels, class) = self.set.get(index).ok_or(range)?;
        Ok(SourceImage { pixels, label: Some(class) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_demo_set_is_numbered_and_told_apart() {
        let source = DemoSource::new(1, 5);
        assert_eq!(source.get(4).unwrap().pixels, demo::draw(1, 4).0);
        assert!(matches!(source.get(5), Err(SourceError::Range { index: 5, len: 5 })));
        assert_eq!(source.fingerprint(), DemoSource::new(1, 5).fingerprint());
        assert_ne!(source.fingerprint(), DemoSource::new(1, 6).fingerprint());
        assert_ne!(source.fingerprint(), DemoSource::new(2, 5).fingerprint());
        assert_eq!(source.label_names().len(), demo::CLASSES);
    }
}
