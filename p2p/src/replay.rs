//! Each signed gossip message counts once, however long ago it was seen.
//!
//! An author's sequence numbers rise by one from the nanoseconds of its start. The engine's cache
//! of message ids forgets after two minutes; whoever recorded an author's messages could then send
//! them again and use up that author's rate. A sliding window over the last [`WINDOW`] numbers
//! refuses what is in it or before it. A new session of the author starts a new window, so that a
//! node whose clock was set back is heard again.

/// Sequence numbers remembered per author: 40 s of an author at its full rate.
const WINDOW: u64 = 4096;

const WORDS: usize = (WINDOW / 64) as usize;

/// The window of one author: a ring of bits below the highest number seen.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow {
    highest: Option<u64>,
    bits: Box<[u64; WORDS]>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { highest: None, bits: Box::new([0; WORDS]) }
    }
}

impl ReplayWindow {
    /// Whether the number is new; from now on it is not.
    pub(crate) fn fresh(&mut self, seq: u64) -> bool {
        match self.highest {
            Some(highest) if seq <= highest => {
                if highest - seq >= WINDOW || self.get(seq) {
                    return false;
                }
            }
            Some(highest) => {
                if seq - highest >= WINDOW {
                    self.bits.fill(0);
                } else {
                    (highest + 1..seq).for_each(|n| self.put(n, false));
                }
                self.highest = Some(seq);
            }
            None => self.highest = Some(seq),
        }
        self.put(seq, true);
        true
    }

    fn place(seq: u64) -> (usize, u64) {
        let place = seq % WINDOW;
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn get(&self, seq: u64) -> bool {
        let (word, bit) = Self::place(seq);
        self.bits[word] & bit != 0
    }

    fn put(&mut self, seq: u64, seen: bool) {
        let (word, bit) = Self::place(seq);
        if seen {
            self.bits[word] |= bit;
        } else {
            self.bits[word] &= !bit;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_number_counts_once_in_any_order_and_never_when_too_old() {
        let mut w = ReplayWindow::default();
        assert!(w.fresh(10_000));
        assert!(!w.fresh(10_000));
        assert!(w.fresh(10_002) && w.fresh(10_001) && !w.fresh(10_001));
        assert!(w.fresh(10_002 - WINDOW + 1) && !w.fresh(10_002 - WINDOW));
        assert!(w.fresh(u64::MAX), "a restart jumps far ahead");
        assert!(!w.fresh(10_001) && w.fresh(u64::MAX - 1) && !w.fresh(u64::MAX));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_plain_set(steps in proptest::collection::vec(0u64..20_000, 1..400)) {
            let (mut w, mut seen, mut highest) = (ReplayWindow::default(), HashSet::new(), 0);
            for (i, seq) in steps.into_iter().enumerate() {
                let old = i > 0 && highest >= seq + WINDOW;
                prop_assert_eq!(w.fresh(seq), !old && !seen.contains(&seq));
                if !old {
                    seen.insert(seq);
                }
                highest = highest.max(seq);
            }
        }
    }
}
