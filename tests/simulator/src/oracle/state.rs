//! What agreed blocks may contain and what an epoch may come to.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::epoch;
use perturb_ledger::{Block, MemoryStore, Transaction};
use perturb_types::round::{RoundOpen, RoundResult};
use perturb_types::{Hotkey, encode};

use super::checks::CheckOracle;
use super::{Judged, Powers, broken};
use crate::cast::{CHALLENGE, Cast};

/// A mirror of what blocks did, kept without the ledger's state.
pub(super) struct StateOracle {
    liars: BTreeSet<usize>,
    /// Next round number per validator.
    next: BTreeMap<Hotkey, u64>,
    /// Miners of the rounds that are open.
    open: BTreeMap<(Hotkey, u64), Vec<Hotkey>>,
    /// Verdicts on drawn rounds.
    pub checks: CheckOracle,
    /// Aggregates judged.
    pub aggregates: u64,
}

impl StateOracle {
    pub fn new(liars: BTreeSet<usize>) -> Self {
        Self { liars, next: BTreeMap::new(), open: BTreeMap::new(), checks: CheckOracle::default(), aggregates: 0 }
    }

    /// A block was agreed by a set; the store is the state after it.
    pub fn block(&mut self, cast: &Cast, block: &Block, store: &MemoryStore, set: &Powers) -> Judged {
        let struck = self.checks.block(cast, block, store, set)?;
        if let Some(round) = struck.iter().find(|round| !self.is_liar(cast, &round.validator)) {
            return broken("checks", format!("round {round} of an honest validator failed its check"));
        }
        for transaction in &block.body.transactions {
            match transaction {
                Transaction::RoundOpen(e) => {
                    let Ok(open) = encode::decode::<RoundOpen>("opening", &e.payload, e.payload.len()) else {
                        return broken("rounds", "a block holds an opening that cannot be read");
                    };
                    let next = self.next.entry(open.round.validator).or_default();
                    if open.round.seq != *next {
                        return broken("rounds", format!("round {} was opened where {next} is next", open.round));
                    }
                    *next += 1;
                    self.open.insert((open.round.validator, open.round.seq), open.miners);
                }
                Transaction::RoundResult(e) => {
                    let Ok(result) = encode::decode::<RoundResult>("result", &e.payload, e.payload.len()) else {
                        return broken("rounds", "a block holds a result that cannot be read");
                    };
                    let key = (result.round.validator, result.round.seq);
                    let asked = self.open.remove(&key);
                    let answered: Vec<Hotkey> = result.entries.iter().map(|e| e.miner).collect();
                    if asked.as_ref() != Some(&answered) {
                        return broken("rounds", format!("round {} closes with other miners than asked", result.round));
                    }
                }
                Transaction::EpochClose { epoch, .. } => self.epoch(cast, store, *epoch)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn is_liar(&self, cast: &Cast, hotkey: &Hotkey) -> bool {
        self.liars.iter().any(|i| cast.hotkeys[*i].hotkey() == *hotkey)
    }

    /// Property of the aggregation: with liars under a third of the contributing weight, the score
    /// lies between the lowest and the highest honest contribution.
    fn epoch(&mut self, cast: &Cast, store: &MemoryStore, number: u64) -> Judged {
        let record = match epoch::record(store, number, CHALLENGE) {
            Ok(Some(record)) => record,
            _ => return broken("scores", format!("epoch {number} has no record")),
        };
        for miner in &record.miners {
            let Some(aggregate) = &miner.aggregate else { continue };
            let is_liar = |h: &Hotkey| self.is_liar(cast, h);
            let total: u128 = miner.contributions.iter().map(|c| u128::from(c.weight)).sum();
            let lying = miner.contributions.iter().filter(|c| is_liar(&c.validator));
            let lying: u128 = lying.map(|c| u128::from(c.weight)).sum();
            let honest = miner.contributions.iter().filter(|c| !is_liar(&c.validator)).map(|c| c.mean.0);
            let (Some(low), Some(high)) = (honest.clone().min(), honest.max()) else { continue };
            self.aggregates += 1;
            if lying * 3 < total && !(low..=high).contains(&aggregate.score.0) {
                let what = format!("epoch {number}, uid {}: {} outside {low}..{high}", miner.uid, aggregate.score.0);
                return broken("scores", what);
            }
        }
        Ok(())
    }
}
