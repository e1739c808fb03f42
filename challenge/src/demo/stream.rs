//! The stream of random numbers one demo image is drawn from.
//!
//! ```text
//! key = "perturb/demo/v1\0" ‖ seed (u64 LE) ‖ index (u64 LE)        (32 bytes)
//! ```
//!
//! keys a ChaCha8 stream. Every draw takes a stated number of its words and maps them by integer
//! arithmetic, without rejection, so an image depends on nothing but this page and on no version
//! of a sampling library.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// First half of every key: the drawing's name and version.
const DOMAIN: [u8; 16] = *b"perturb/demo/v1\0";

/// 2⁻³², exactly.
const TWO_POW_MINUS_32: f64 = 1.0 / 4_294_967_296.0;

/// A seeded stream with sampling that is fixed for good.
pub(super) struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of image `index` of the set `seed`.
    pub(super) fn new(seed: u64, index: u64) -> Self {
        let mut key = [0_u8; 32];
        let (domain, rest) = key.split_at_mut(16);
        let (seed_part, index_part) = rest.split_at_mut(8);
        domain.copy_from_slice(&DOMAIN);
        seed_part.copy_from_slice(&seed.to_le_bytes());
        index_part.copy_from_slice(&index.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// The next 64-bit word.
    pub(super) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// An integer in `0..n` (0 for `n = 0`) from one 32-bit word, by multiply and shift.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(n)) >> 32) as u32
    }

    /// A fraction in `[0, 1)` from one 32-bit word; exact in `f64`.
    pub(super) fn fraction(&mut self) -> f64 {
        f64::from(self.0.next_u32()) * TWO_POW_MINUS_32
    }

    /// A number in `[low, high)` from one 32-bit word.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.fraction()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn streams_of_different_images_differ() {
        let word = |seed, index| Stream::new(seed, index).word();
        assert_eq!(word(1, 2), word(1, 2));
        assert_ne!(word(1, 2), word(2, 1));
        assert_ne!(word(0, 1), word(0, 2));
    }

    #[test]
    fn draws_stay_inside_their_bounds_and_reach_both_ends() {
        let mut stream = Stream::new(5, 5);
        let mut seen = [0_u32; 10];
        for _ in 0..2000 {
            seen[stream.below(10) as usize] += 1;
            let fraction = stream.fraction();
            assert!((0.0..1.0).contains(&fraction));
            let number = stream.between(-3.0, 4.0);
            assert!((-3.0..4.0).contains(&number));
        }
        assert!(seen.iter().all(|count| *count > 120), "{seen:?}");
        assert_eq!(stream.below(0), 0);
    }
}
