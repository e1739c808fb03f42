//! Transactions whose signatures this ledger has verified.
//!
//! A transaction is judged when it comes in, again at every height it waits, and again in the block
//! that has it; its signatures hold or do not hold once and for all. What is remembered is its
//! digest, which covers every byte of it, signatures included, so nothing else can pass in its name.
//! Only signatures whose key and message stand in the transaction itself are spared so: whose signature
//! an owner's order needs is said by the state, which changes. Miners' commitments are remembered together
//! with what the state says of their round.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use perturb_types::Digest;

/// Digests remembered: two full mempools.
const REMEMBERED: usize = 16_384;

#[derive(Default)]
struct Inner {
    known: HashSet<Digest>,
    order: VecDeque<Digest>,
}

/// The digests, newest last; the oldest are forgotten.
#[derive(Default)]
pub(crate) struct Verified(Mutex<Inner>);

impl Verified {
    /// Whether these very bytes were verified before.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.contains(digest)
    }

    /// All signatures of this transaction hold.
    pub fn remember(&self, digest: Digest) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.known.insert(digest) {
            inner.order.push_back(digest);
            if inner.order.len() > REMEMBERED
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let verified = Verified::default();
        for i in 0..=REMEMBERED as u64 {
            verified.remember(Digest::of(&i.to_le_bytes()));
        }
        assert!(!verified.contains(&Digest::of(&0u64.to_le_bytes())));
        assert!(verified.contains(&Digest::of(&1u64.to_le_bytes())));
    }
}
