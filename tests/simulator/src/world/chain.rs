//! The simulated chain: finalized blocks, each node's own view of them.

use perturb_consensus::ChainAnswer;
use perturb_ledger::ChainReference;

use crate::cast::{Cast, reference};

/// Milliseconds between two finalized blocks.
pub const CHAIN_BLOCK_MS: u64 = 1_000;

/// The chain and who has heard how much of it.
pub struct Chain {
    blocks: Vec<ChainReference>,
    /// Highest block heard, by actor.
    heard: Vec<u64>,
    /// Chain nodes that do not answer: (fault, actor or all).
    away: Vec<(usize, Option<usize>)>,
}

impl Chain {
    /// A chain of one block.
    pub fn new(actors: usize) -> Self {
        Self { blocks: vec![reference(1, 0)], heard: vec![1; actors], away: Vec::new() }
    }

    /// The newest block.
    pub fn tip(&self) -> ChainReference {
        self.blocks.last().cloned().unwrap_or_else(|| reference(1, 0))
    }

    /// Another block; the epoch index rises with it or not.
    pub fn grow(&mut self, closes: bool) -> ChainReference {
        let tip = self.tip();
        let next = reference(tip.number + 1, tip.epoch_index + u64::from(closes));
        self.blocks.push(next.clone());
        next
    }

    /// A fault takes a chain node away.
    pub fn leave(&mut self, fault: usize, actor: Option<usize>) {
        self.away.push((fault, actor));
    }

    /// A fault is over.
    pub fn mend(&mut self, fault: usize) {
        self.away.retain(|(f, _)| *f != fault);
    }

    /// Whether an actor's chain node does not answer.
    pub fn is_away(&self, actor: usize) -> bool {
        self.away.iter().any(|(_, a)| a.is_none_or(|a| a == actor))
    }

    /// The newest block that an actor's chain node told it of; `None` while it is away.
    pub fn hear(&mut self, actor: usize, tip: &ChainReference) -> bool {
        if self.is_away(actor) || tip.number <= self.heard[actor] {
            return false;
        }
        self.heard[actor] = tip.number;
        true
    }

    /// The newest block an actor has heard of.
    pub fn heard(&self, actor: usize) -> ChainReference {
        self.blocks.get(self.heard[actor] as usize - 1).cloned().unwrap_or_else(|| self.tip())
    }

    /// What an actor's chain node says of a reference.
    pub fn answer(&self, cast: &Cast, actor: usize, asked: &ChainReference, snapshot: bool) -> ChainAnswer {
        if self.is_away(actor) {
            return ChainAnswer::Unavailable;
        }
        if asked.number > self.heard[actor] {
            return ChainAnswer::Ahead;
        }
        match self.blocks.get((asked.number as usize).wrapping_sub(1)) {
            Some(block) if block == asked => {
                ChainAnswer::OnChain { snapshot: snapshot.then(|| cast.snapshot(asked.clone())) }
            }
            _ => ChainAnswer::NotOnChain,
        }
    }
}
