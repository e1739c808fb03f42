//! Verdicts on drawn rounds, restated from the blocks: who may give one, and whom they strike.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::state::round_after;
use perturb_ledger::verdict::{CheckVerdict, Checked};
use perturb_ledger::{Block, StateStore, Transaction, query};
use perturb_types::{Digest, RoundId, encode};

use super::{Powers, Violation};
use crate::cast::Cast;
use crate::store::Store;

struct Open {
    result: Digest,
    /// First height at which its window is over.
    over: u64,
    /// By the member's index.
    verdicts: BTreeMap<usize, Checked>,
}

/// Drawn rounds, and those for which somebody was struck.
#[derive(Default)]
pub(super) struct CheckOracle {
    open: BTreeMap<RoundId, Open>,
    /// Rounds for which their validator was struck.
    pub struck: BTreeSet<RoundId>,
}

impl CheckOracle {
    /// A block was agreed by a set; who is struck with it.
    pub fn block(
        &mut self,
        cast: &Cast,
        block: &Block,
        store: &Store,
        set: &Powers,
    ) -> Result<BTreeSet<RoundId>, Violation> {
        let before = self.struck.clone();
        let height = block.header.height;
        self.settle(cast, height, set);
        for transaction in &block.body.transactions {
            match transaction {
                Transaction::CheckVerdict(e) => {
                    let Ok(v) = encode::decode::<CheckVerdict>("verdict", &e.payload, e.payload.len()) else {
                        return Err(what("a block holds a verdict that cannot be read"));
                    };
                    let by = cast.of_key(&e.signer).filter(|i| cast.hotkeys[*i].hotkey() == v.hotkey);
                    let (Some(by), Some(open)) = (by, self.open.get_mut(&v.round)) else {
                        return Err(what(format!("a verdict of nobody, or on {}, which is not open", v.round)));
                    };
                    let own = v.hotkey == v.round.validator || open.result != v.result || !set.contains_key(&by);
                    if own || open.verdicts.insert(by, v.verdict).is_some() {
                        return Err(what(format!("validator {by} gives a verdict on {} it may not give", v.round)));
                    }
                }
                Transaction::EpochClose { .. } => self.settle(cast, height, set),
                _ => {}
            }
        }
        let window = cast.genesis.parameters.spot_checks.window_blocks;
        for (round, row) in query::checks(store).unwrap_or_default() {
            let new = Open { result: row.fresh.result, over: row.drawn + window, verdicts: BTreeMap::new() };
            self.open.entry(round).or_insert(new);
        }
        let rows = store.scan(b"fault/").unwrap_or_default();
        let agreed: BTreeSet<RoundId> = rows.iter().filter_map(|(key, _)| round_after(b"fault/", key)).collect();
        if let Some(round) = agreed.symmetric_difference(&self.struck).next() {
            let which = if agreed.contains(round) { "is struck for" } else { "is not struck for" };
            return Err(what(format!("height {height}: {} {which} round {round}", round.validator)));
        }
        Ok(self.struck.difference(&before).copied().collect())
    }

    /// Whoever is struck now is, and what is over ends.
    fn settle(&mut self, cast: &Cast, height: u64, set: &Powers) {
        let total: u128 = set.values().sum();
        for (round, open) in &self.open {
            let power = |wanted: fn(Option<&Checked>) -> bool| -> u128 {
                let counts = |i: &usize| cast.hotkeys[*i].hotkey() != round.validator;
                set.iter().filter(|(i, _)| counts(i) && wanted(open.verdicts.get(i))).map(|(_, power)| power).sum()
            };
            let fails = power(|v| matches!(v, Some(Checked::Fails(_))));
            let mut holds = power(|v| v == Some(&Checked::Holds));
            if height < open.over {
                // Those who have not spoken may still say that it holds.
                holds += power(|v| v.is_none());
            }
            if fails * 3 > total && fails > holds * 2 {
                self.struck.insert(*round);
            }
        }
        self.open.retain(|_, open| height < open.over);
    }
}

fn what(text: impl Into<String>) -> Violation {
    Violation { rule: "checks", what: text.into() }
}
