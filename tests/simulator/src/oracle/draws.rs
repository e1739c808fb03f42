//! Which rounds are checked, restated from the rule's words and not from the code that keeps it.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::state::{self, check_prefix, round_after};
use perturb_ledger::verdict::CheckRow;
use perturb_ledger::{Block, Pulse, StateStore, Transaction, query};
use perturb_types::encode::{self, Domain};
use perturb_types::round::{RoundOpen, RoundResult};
use perturb_types::{Digest, Hotkey, RoundId};

use super::{Judged, broken};
use crate::cast::{CHALLENGE, Cast, DRAW_DELAY_MS, DRAW_RETENTION_BLOCKS, DRAW_STRIDE};
use crate::store::Store;

/// A result that is agreed and not drawn yet.
struct Fresh {
    round: RoundId,
    result: Digest,
    height: u64,
}

/// The seed of an epoch that waits for its pulse, since a height.
struct Seed {
    epoch: u64,
    pulse: u64,
    height: u64,
}

/// A mirror of what waits for which pulse.
#[derive(Default)]
pub(super) struct DrawOracle {
    /// Of the newest block: the next header's time says what they wait for.
    closed: Vec<Fresh>,
    waiting: BTreeMap<u64, Vec<Fresh>>,
    seeds: Vec<Seed>,
    /// The epoch whose seed and keys draw rounds.
    active: u64,
    /// The latest round of the beacon that anything waited for, and the latest in a block.
    last: u64,
    newest: u64,
    /// Outliers for most owners of miners: five times as many of their rounds are drawn.
    outliers: BTreeSet<Hotkey>,
    drawn: u64,
    spared: u64,
    expired: u64,
}

impl DrawOracle {
    /// Drawn, spared, expired.
    pub fn counts(&self) -> [u64; 3] {
        [self.drawn, self.spared, self.expired]
    }

    /// A block was agreed; the store is the state after it.
    pub fn block(&mut self, cast: &Cast, block: &Block, store: &Store) -> Judged {
        let height = block.header.height;
        let since = |pulse: &u64, row: &Vec<Fresh>| {
            let seeds = self.seeds.iter().filter(|s| s.pulse == *pulse).map(|s| s.height);
            row.iter().map(|f| f.height).chain(seeds).min().unwrap_or(height)
        };
        let old = |(pulse, row): &(&u64, &Vec<Fresh>)| since(pulse, row) + DRAW_RETENTION_BLOCKS <= height;
        let late: Vec<u64> = self.waiting.iter().filter(old).map(|(round, _)| *round).collect();
        for round in late {
            self.expired += self.waiting.remove(&round).map_or(0, |row| row.len() as u64);
            self.seeds.retain(|s| s.pulse != round);
        }
        let closed = std::mem::take(&mut self.closed);
        if !closed.is_empty() {
            let due = self.due(cast, block.header.time_ms);
            self.last = due;
            self.waiting.entry(due).or_default().extend(closed);
        }
        let mut drawn = BTreeSet::new();
        for transaction in &block.body.transactions {
            match transaction {
                Transaction::RoundResult(e) => {
                    let Ok(result) = encode::decode::<RoundResult>("result", &e.payload, e.payload.len()) else {
                        return broken("draws", "a block holds a result that cannot be read");
                    };
                    let digest = transaction.digest(&cast.network);
                    self.closed.push(Fresh { round: result.round, result: digest, height });
                }
                Transaction::Pulse(pulse) => {
                    drawn.append(&mut self.pulse(cast, pulse)?);
                    // The newest of those that wait for it.
                    if let Some(epoch) = self.seeds.iter().filter(|s| s.pulse == pulse.round).map(|s| s.epoch).max() {
                        self.active = epoch;
                        self.seeds.retain(|s| s.epoch > epoch);
                    }
                }
                Transaction::RoundOpen(e) => {
                    let open = encode::decode::<RoundOpen>("opening", &e.payload, e.payload.len());
                    if open.as_ref().map(|open| open.epoch) != Ok(self.active) {
                        let what = format!("{open:?} is drawn with epoch {}", self.active);
                        return broken("draws", what);
                    }
                }
                Transaction::EpochClose { epoch, .. } => {
                    let pulse = self.due(cast, block.header.time_ms);
                    self.waiting.entry(pulse).or_default();
                    self.seeds.push(Seed { epoch: epoch + 1, pulse, height });
                }
                _ => {}
            }
        }
        self.compare(height, &drawn, store)?;
        let row = |h: &Hotkey| query::outlier(store, CHALLENGE, h).unwrap_or_default();
        let hotkeys = cast.hotkeys.iter().map(|h| h.hotkey());
        self.outliers = hotkeys.filter(|h| row(h).rejected * 2 > row(h).owners).collect();
        Ok(())
    }

    /// Of a million rounds of this validator, how many are drawn.
    fn rate(&self, cast: &Cast, round: &RoundId) -> u128 {
        let rate = u128::from(cast.genesis.parameters.spot_checks.rate);
        if self.outliers.contains(&round.validator) { (rate * 5).min(1_000_000) } else { rate }
    }

    /// The first round of the stride that is signed long enough after `time_ms`, that is behind all that
    /// blocks have, and not before one that something was put down to.
    fn due(&self, cast: &Cast, time_ms: u64) -> u64 {
        let from = self.last.max(self.newest + 1).max(1);
        let fits = |round: &u64| {
            round.is_multiple_of(u64::from(DRAW_STRIDE))
                && cast.genesis.beacon.time_of(*round) >= time_ms + u64::from(DRAW_DELAY_MS)
        };
        (from..).find(fits).unwrap_or(u64::MAX)
    }

    fn pulse(&mut self, cast: &Cast, pulse: &Pulse) -> Result<BTreeSet<RoundId>, super::Violation> {
        let Some(waiting) = self.waiting.remove(&pulse.round) else {
            return broken("draws", format!("a block has pulse {}, for which nothing waits", pulse.round))
                .map(|()| BTreeSet::new());
        };
        if Pulse::of_development(pulse.round) != Some(*pulse) {
            return broken("draws", format!("a block has a forged pulse {}", pulse.round)).map(|()| BTreeSet::new());
        }
        self.newest = self.newest.max(pulse.round);
        let all = waiting.len() as u64;
        let drawn: BTreeSet<RoundId> = waiting
            .into_iter()
            .filter(|f| {
                let digest = encode::digest_of(Domain::SpotCheck, &cast.network, &(pulse.signature, f.round, f.result));
                let lot = digest.0.iter().take(8).fold(0u128, |lot, byte| lot << 8 | u128::from(*byte));
                lot * 1_000_000 < self.rate(cast, &f.round) << 64
            })
            .map(|f| f.round)
            .collect();
        self.drawn += drawn.len() as u64;
        self.spared += all - drawn.len() as u64;
        Ok(drawn)
    }

    fn compare(&self, height: u64, drawn: &BTreeSet<RoundId>, store: &Store) -> Judged {
        let rows = store.scan(check_prefix()).unwrap_or_default();
        let now = rows.iter().filter_map(|(key, row)| {
            let row: CheckRow = state::parse(key, row).ok()?;
            (row.drawn == height).then(|| round_after(check_prefix(), key)).flatten()
        });
        let now: BTreeSet<RoundId> = now.collect();
        if now != *drawn {
            return broken("draws", format!("height {height} draws {now:?}, by the pulses it should be {drawn:?}"));
        }
        let awaited = query::awaited_pulses(store).unwrap_or_default();
        if awaited != self.waiting.keys().copied().collect::<Vec<_>>() {
            return broken(
                "draws",
                format!("height {height} waits for {awaited:?}, not for {:?}", self.waiting.keys()),
            );
        }
        let counts = query::draws(store).unwrap_or_default();
        if [counts.drawn, counts.spared, counts.expired] != self.counts() {
            return broken("draws", format!("height {height} counts {counts:?}, not {:?}", self.counts()));
        }
        Ok(())
    }
}
