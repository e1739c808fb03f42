//! A round that cannot be begun: its lot names the same images however often it is tried, so one that cannot
//! be had would keep a validator from working until the seed changes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the images of a round are asked for before the round is skipped.
const PATIENCE: Duration = Duration::from_secs(180);

/// The round that cannot be begun, and since when.
#[derive(Debug, Default)]
pub struct Stuck(Mutex<Option<(u64, Instant)>>);

impl Stuck {
    /// The images of a round could not be had again, now; whether that has gone on for too long.
    pub fn again(&self, seq: u64, now: Instant) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = since.filter(|(other, _)| *other == seq).unwrap_or((seq, now));
        *since = Some(of);
        now.duration_since(of.1) >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_tried_for_a_while_and_each_has_its_own() {
        let (stuck, began) = (Stuck::default(), Instant::now());
        assert!(!stuck.again(4, began));
        assert!(!stuck.again(4, began + PATIENCE / 2));
        assert!(stuck.again(4, began + PATIENCE));
        assert!(!stuck.again(5, began + PATIENCE), "the next one is tried as long");
    }
}
