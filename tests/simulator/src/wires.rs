//! Who hears whom, and when.

use std::collections::BTreeSet;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::plan::Wires;

/// The wires between the actors as they are now.
pub struct Network {
    wires: Wires,
    /// One-way latencies in milliseconds, where a table is given: `[from][to]`.
    table: Option<Vec<Vec<u64>>>,
    /// Pairs (from, to) that are cut, one entry per fault that cuts them.
    cuts: Vec<(usize, BTreeSet<(usize, usize)>)>,
    storms: Vec<(usize, u32)>,
    slow: Vec<(usize, usize, u64)>,
}

impl Network {
    /// Whole wires.
    pub fn new(wires: Wires, table: Option<Vec<Vec<u64>>>) -> Self {
        Self { wires, table, cuts: Vec::new(), storms: Vec::new(), slow: Vec::new() }
    }

    /// Whether accepted messages are forwarded.
    pub fn relays(&self) -> bool {
        self.wires.relay
    }

    /// A fault cuts pairs.
    pub fn cut(&mut self, fault: usize, pairs: BTreeSet<(usize, usize)>) {
        self.cuts.push((fault, pairs));
    }

    /// A fault raises the losses.
    pub fn storm(&mut self, fault: usize, loss: u32) {
        self.storms.push((fault, loss));
    }

    /// A fault slows an actor.
    pub fn slow(&mut self, fault: usize, actor: usize, extra_ms: u64) {
        self.slow.push((fault, actor, extra_ms));
    }

    /// A fault is over.
    pub fn mend(&mut self, fault: usize) {
        self.cuts.retain(|(f, _)| *f != fault);
        self.storms.retain(|(f, _)| *f != fault);
        self.slow.retain(|(f, ..)| *f != fault);
    }

    /// Everything works from now on.
    pub fn heal(&mut self) {
        (self.wires.loss, self.wires.twice) = (0, 0);
        self.cuts.clear();
        self.storms.clear();
        self.slow.clear();
    }

    /// After how many milliseconds a message arrives: not at all, once, or more often.
    pub fn deliveries(&self, rng: &mut ChaCha8Rng, from: usize, to: usize) -> Vec<u64> {
        if self.cuts.iter().any(|(_, pairs)| pairs.contains(&(from, to))) {
            return Vec::new();
        }
        let loss = self.storms.iter().map(|(_, l)| *l).chain([self.wires.loss]).max().unwrap_or(0);
        if loss > 0 && rng.random_range(0..1000) < loss {
            return Vec::new();
        }
        let extra: u64 = self.slow.iter().filter(|(_, a, _)| *a == from || *a == to).map(|(_, _, ms)| *ms).sum();
        let base = self.table.as_ref().map_or(self.wires.base_ms, |t| t[from][to]);
        let copies = if self.wires.twice > 0 && rng.random_range(0..1000) < self.wires.twice { 2 } else { 1 };
        (0..copies).map(|_| base + extra + rng.random_range(0..=self.wires.jitter_ms)).collect()
    }
}
