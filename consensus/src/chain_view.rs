//! What the own chain node says, remembered.
//!
//! A reference is asked about once; where the node is behind or away it is asked again after a
//! while. Answers that cannot change (on the finalized chain, or not on it) are kept. What the node
//! itself announced as finalized needs no question: it stands although the node is away now.

use std::collections::{BTreeMap, VecDeque};

use perturb_ledger::{ChainReference, Snapshot};

use crate::Millis;
use crate::event::ChainAnswer;

/// References remembered: those of a few heights and their rounds.
const MAX_REFERENCES: usize = 32;

/// Announced tips remembered: blocks may refer to one that is a little older than the newest.
const MAX_TIPS: usize = 32;

/// Milliseconds after which a tip that nothing followed is no longer proposed: the chain makes a
/// block every twelve seconds, so the node is away, and the others may not have heard of it.
const STALE_TIP_MS: Millis = 30_000;

/// Milliseconds after which the chain node is asked again.
const RETRY_MS: Millis = 500;

/// Milliseconds after which an unanswered query is repeated.
const UNANSWERED_MS: Millis = 4_000;

#[derive(Clone, Debug)]
enum Known {
    Asked { at: Millis, snapshot: bool },
    RetryAt(Millis),
    OnChain(Option<Box<Snapshot>>),
    NotOnChain,
}

/// What is known about a reference now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// On the finalized chain, with the snapshot where it was wanted.
    OnChain(Option<Box<Snapshot>>),
    /// Not on it.
    NotOnChain,
    /// Nothing yet; `ask` says whether to ask now.
    Open {
        /// Send a query.
        ask: bool,
    },
}

/// The answers.
#[derive(Default)]
pub(crate) struct ChainView {
    tips: VecDeque<ChainReference>,
    heard_ms: Millis,
    known: BTreeMap<Vec<u8>, (u64, Known)>,
}

fn key(reference: &ChainReference) -> Vec<u8> {
    perturb_types::encode::encode(reference)
}

impl ChainView {
    /// The node finalized a block. An older tip than the one known is ignored.
    pub fn set_tip(&mut self, now: Millis, tip: ChainReference) {
        if self.tips.back().is_none_or(|old| tip.number > old.number) {
            self.tips.push_back(tip);
            self.heard_ms = now;
            if self.tips.len() > MAX_TIPS {
                self.tips.pop_front();
            }
        }
    }

    /// The last finalized block, unless it is too old to be proposed.
    pub fn tip(&self, now: Millis) -> Option<&ChainReference> {
        self.tips.back().filter(|_| now < self.heard_ms.saturating_add(STALE_TIP_MS))
    }

    /// What is known about a reference; counts a query as sent where `ask` comes back true.
    pub fn look(&mut self, now: Millis, reference: &ChainReference, snapshot: bool) -> View {
        if !snapshot && self.tips.contains(reference) {
            return View::OnChain(None);
        }
        let ask = match self.known.get(&key(reference)).map(|(_, k)| k) {
            Some(Known::OnChain(found)) if found.is_some() || !snapshot => return View::OnChain(found.clone()),
            Some(Known::NotOnChain) => return View::NotOnChain,
            Some(Known::Asked { at, snapshot: asked }) => {
                now >= at.saturating_add(UNANSWERED_MS) || (snapshot && !asked)
            }
            Some(Known::RetryAt(at)) => now >= *at,
            Some(Known::OnChain(_)) | None => true,
        };
        if ask {
            self.put(reference, Known::Asked { at: now, snapshot });
        }
        View::Open { ask }
    }

    /// An answer came.
    pub fn answer(&mut self, now: Millis, reference: &ChainReference, answer: ChainAnswer) {
        let known = match answer {
            ChainAnswer::OnChain { snapshot } => Known::OnChain(snapshot.map(Box::new)),
            ChainAnswer::NotOnChain => Known::NotOnChain,
            ChainAnswer::Ahead | ChainAnswer::Unavailable => Known::RetryAt(now.saturating_add(RETRY_MS)),
        };
        // Only what was asked for is taken: the table cannot be filled from outside.
        if self.known.contains_key(&key(reference)) {
            self.put(reference, known);
        }
    }

    fn put(&mut self, reference: &ChainReference, known: Known) {
        self.known.insert(key(reference), (reference.number, known));
        while self.known.len() > MAX_REFERENCES {
            // Old references are settled by blocks; they go first.
            let Some(oldest) = self.known.iter().min_by_key(|(_, (number, _))| *number).map(|(k, _)| k.clone()) else {
                return;
            };
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_types::Digest;

    fn reference(number: u64) -> ChainReference {
        ChainReference { number, hash: Digest([number as u8; 32]), epoch_index: 0 }
    }

    #[test]
    fn a_tip_that_was_seen_needs_no_query_also_when_the_chain_is_away() {
        let mut v = ChainView::default();
        v.set_tip(0, reference(7));
        assert_eq!(v.look(0, &reference(7), false), View::OnChain(None));
        // Another hash at that height is not what was seen.
        let other = ChainReference { hash: Digest([9; 32]), ..reference(7) };
        assert_eq!(v.look(0, &other, false), View::Open { ask: true });
        v.answer(0, &other, ChainAnswer::Unavailable);
        assert_eq!(v.look(1, &other, false), View::Open { ask: false });
        // The whole snapshot has to be asked for.
        assert_eq!(v.look(1, &reference(7), true), View::Open { ask: true });
    }

    #[test]
    fn an_answer_nobody_asked_for_is_not_taken() {
        let mut v = ChainView::default();
        v.answer(0, &reference(3), ChainAnswer::OnChain { snapshot: None });
        assert_eq!(v.look(0, &reference(3), false), View::Open { ask: true });
    }
}
