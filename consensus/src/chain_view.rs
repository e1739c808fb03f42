//! What the own chain node says, remembered.
//!
//! A reference is asked about once; where the node is behind or away it is asked again after a
//! while. Answers that cannot change (on the finalized chain, or not on it) are kept.

use std::collections::BTreeMap;

use perturb_ledger::{ChainReference, Snapshot};

use crate::Millis;
use crate::event::ChainAnswer;

/// References remembered: those of a few heights and their rounds.
const MAX_REFERENCES: usize = 32;

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
    tip: Option<ChainReference>,
    known: BTreeMap<Vec<u8>, (u64, Known)>,
}

fn key(reference: &ChainReference) -> Vec<u8> {
    perturb_types::encode::encode(reference)
}

impl ChainView {
    /// The node finalized a block. An older tip than the one known is ignored.
    pub fn set_tip(&mut self, tip: ChainReference) {
        if self.tip.as_ref().is_none_or(|old| tip.number > old.number) {
            self.tip = Some(tip);
        }
    }

    /// The last finalized block.
    pub fn tip(&self) -> Option<&ChainReference> {
        self.tip.as_ref()
    }

    /// What is known about a reference; counts a query as sent where `ask` comes back true.
    pub fn look(&mut self, now: Millis, reference: &ChainReference, snapshot: bool) -> View {
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
