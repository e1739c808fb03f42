//! Seeded randomness: a ChaCha20 stream per purpose, read by rules of our own, so that no library
//! update changes a draw.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest as _, Sha256};

/// A stream of its own for each (purpose, seed, number).
pub(crate) struct Stream(ChaCha20Rng);

impl Stream {
    pub(crate) fn new(purpose: &str, seed: &[u8; 32], number: u64) -> Self {
        let key = Sha256::new()
            .chain_update(purpose.as_bytes())
            .chain_update([0])
            .chain_update(seed)
            .chain_update(number.to_le_bytes())
            .finalize();
        Self(ChaCha20Rng::from_seed(key.into()))
    }

    /// Uniform in `0..n`; 0 for n = 0. Draws that would favour small values are thrown away.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n < 2 {
            return 0;
        }
        let fair = u64::MAX - u64::MAX % n;
        loop {
            let word = self.0.next_u64();
            if word < fair {
                return word % n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_pinned_and_depends_on_everything() {
        let draw = |purpose, seed, number| Stream::new(purpose, &[seed; 32], number).below(u64::MAX);
        assert_eq!(draw("a", 1, 2), draw("a", 1, 2));
        let all = [draw("a", 1, 2), draw("b", 1, 2), draw("a", 2, 2), draw("a", 1, 3)];
        assert!((1..4).all(|i| !all[..i].contains(&all[i])));
        let mut s = Stream::new("t", &[0; 32], 0);
        assert!((0..1000).all(|_| s.below(7) < 7));
        assert_eq!((s.below(0), s.below(1)), (0, 0));
    }
}
