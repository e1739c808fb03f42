//! What agreed blocks may contain and what an epoch may come to.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::epoch::{self, MinerRecord};
use perturb_ledger::tx::Readiness;
use perturb_ledger::verdict::CheckVerdict;
use perturb_ledger::{Block, Snapshot, Transaction, query};
use perturb_types::encode::Domain;
use perturb_types::limits::MAX_DRAWS;
use perturb_types::round::{RoundCommits, RoundOpen, RoundResult, RoundReveal};
use perturb_types::{Digest, Hotkey, RoundId, encode};

use super::checks::CheckOracle;
use super::{Judged, Powers, broken};
use crate::cast::{CHALLENGE, Cast, MIN_WORK};
use crate::store::Store;

/// Closed epochs after which a score that nobody measured again is gone.
const KEPT: u64 = 4;

/// A mirror of what blocks did, kept without the ledger's state.
pub(super) struct StateOracle {
    liars: BTreeSet<usize>,
    /// Next round number per validator.
    next: BTreeMap<Hotkey, u64>,
    /// Miners of the rounds that are open.
    open: BTreeMap<(Hotkey, u64), Vec<Hotkey>>,
    /// What they were bound to, each at most once.
    bound: BTreeMap<RoundId, Vec<Option<Digest>>>,
    /// Who can be asked, by rising uid: registered without a permit.
    candidates: Vec<Hotkey>,
    /// The images that each has used in its pass, and how many more of which it is not known.
    passes: BTreeMap<Hotkey, (BTreeSet<u64>, u64)>,
    /// Verdicts on drawn rounds.
    pub checks: CheckOracle,
    /// Aggregates judged.
    pub aggregates: u64,
    /// Standing in millionths as of the last close; who is not here has it whole.
    standing: BTreeMap<Hotkey, u32>,
    /// The last score that was measured of each miner, and in which epoch.
    measured: BTreeMap<Hotkey, (u64, u32)>,
    /// Rounds closed, and verdicts given, in the open epoch.
    worked: [BTreeMap<Hotkey, u64>; 2],
    /// Who said in the open epoch that it is there.
    ready: BTreeSet<Hotkey>,
    /// Rounds of each validator that were drawn in the open epoch.
    drawn: BTreeMap<Hotkey, u64>,
}

impl StateOracle {
    pub fn new(liars: BTreeSet<usize>) -> Self {
        Self {
            liars,
            next: BTreeMap::new(),
            open: BTreeMap::new(),
            bound: BTreeMap::new(),
            candidates: Vec::new(),
            passes: BTreeMap::new(),
            checks: CheckOracle::default(),
            aggregates: 0,
            standing: BTreeMap::new(),
            measured: BTreeMap::new(),
            worked: Default::default(),
            ready: BTreeSet::new(),
            drawn: BTreeMap::new(),
        }
    }

    /// A block was agreed, by this set; the store is the state after it.
    pub fn block(&mut self, cast: &Cast, set: &Powers, block: &Block, store: &Store) -> Judged {
        let struck = self.checks.block(cast, block, store, set)?;
        if let Some(round) = struck.iter().find(|round| !self.is_liar(cast, &round.validator)) {
            return broken("checks", format!("round {round} of an honest validator failed its check"));
        }
        let checked = query::checks(store).unwrap_or_default();
        for (round, _) in checked.iter().filter(|(_, row)| row.drawn == block.header.height) {
            *self.drawn.entry(round.validator).or_default() += 1;
        }
        if self.candidates.is_empty() {
            self.candidates = candidates(&cast.genesis.snapshot);
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
                    // There are fewer than a round has places: all are asked.
                    self.open.insert((open.round.validator, open.round.seq), self.candidates.clone());
                }
                Transaction::RoundCommits(e) => {
                    let Ok(given) = encode::decode::<RoundCommits>("commits", &e.payload, e.payload.len()) else {
                        return broken("rounds", "a block holds commitments that cannot be read");
                    };
                    let commits = given.commits.iter().map(|c| c.map(|c| c.commit)).collect();
                    if !self.open.contains_key(&(given.round.validator, given.round.seq))
                        || self.bound.insert(given.round, commits).is_some()
                    {
                        return broken("rounds", format!("round {} is bound twice or not open", given.round));
                    }
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
                    self.answers(cast, &result)?;
                    self.images(cast, &result)?;
                    *self.worked[0].entry(result.round.validator).or_default() += 1;
                }
                Transaction::RoundReveal(e) => {
                    let Ok(reveal) = encode::decode::<RoundReveal>("reveal", &e.payload, e.payload.len()) else {
                        return broken("images", "a block holds a reveal that cannot be read");
                    };
                    let len = cast.genesis.challenges[0].source_len;
                    let pass = self.passes.entry(reveal.round.validator).or_default();
                    for _ in 0..MAX_DRAWS {
                        if pass.0.len() as u64 + pass.1 >= len {
                            *pass = Default::default();
                        }
                        pass.1 += 1;
                    }
                }
                Transaction::CheckVerdict(e) => {
                    let Ok(v) = encode::decode::<CheckVerdict>("verdict", &e.payload, e.payload.len()) else {
                        return broken("checks", "a block holds a verdict that cannot be read");
                    };
                    *self.worked[1].entry(v.hotkey).or_default() += 1;
                }
                Transaction::Readiness(e) => {
                    let Ok(ready) = encode::decode::<Readiness>("readiness", &e.payload, e.payload.len()) else {
                        return broken("work", "a block holds a readiness that cannot be read");
                    };
                    self.ready.insert(ready.hotkey);
                }
                Transaction::EpochClose { epoch, snapshot } => {
                    self.epoch(cast, set, store, *epoch)?;
                    self.work(cast, set, snapshot, store)?;
                    self.take_standing(cast, store);
                    self.candidates = candidates(snapshot);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An answer is what its miner was bound to before it was shown.
    fn answers(&mut self, cast: &Cast, result: &RoundResult) -> Judged {
        let bound = self.bound.remove(&result.round).unwrap_or_default();
        for (i, entry) in result.entries.iter().enumerate() {
            let Some(answer) = entry.answer else { continue };
            let payload = encode::encode(&(result.round, entry.miner, answer));
            let shown = encode::digest(Domain::AnswerCommit, &cast.network, &payload);
            if bound.get(i).copied().flatten() != Some(shown) {
                return broken("rounds", format!("round {} has an answer that nobody was bound to", result.round));
            }
        }
        Ok(())
    }

    /// No image is used twice in a pass. Which ones a round used that was never closed is not known here, but
    /// how many.
    fn images(&mut self, cast: &Cast, result: &RoundResult) -> Judged {
        let len = cast.genesis.challenges[0].source_len;
        let pass = self.passes.entry(result.round.validator).or_default();
        for image in result.skipped.iter().chain([&result.source_index]) {
            if pass.0.len() as u64 + pass.1 >= len {
                *pass = Default::default();
            }
            if *image >= len || !pass.0.insert(*image) {
                return broken("images", format!("round {} uses image {image} again", result.round));
            }
        }
        Ok(())
    }

    fn is_liar(&self, cast: &Cast, hotkey: &Hotkey) -> bool {
        self.liars.iter().any(|i| cast.hotkeys[*i].hotkey() == *hotkey)
    }

    fn take_standing(&mut self, cast: &Cast, store: &Store) {
        let of = |h: Hotkey| Some((h, query::reputation(store, &h).ok()?.standing));
        self.standing = cast.hotkeys.iter().filter_map(|h| of(h.hotkey())).collect();
    }

    /// Power times standing.
    fn weight(&self, hotkey: &Hotkey, power: u128) -> u128 {
        power * u128::from(self.standing.get(hotkey).copied().unwrap_or(1_000_000))
    }

    /// Property of the aggregation: with liars under a third of the *set's* power times standing, absent
    /// members included, a measured score lies between the lowest and the highest honest contribution.
    /// What is not measured is what was, for four epochs.
    fn epoch(&mut self, cast: &Cast, set: &Powers, store: &Store, number: u64) -> Judged {
        let record = match epoch::record(store, number, CHALLENGE) {
            Ok(Some(record)) => record,
            _ => return broken("scores", format!("epoch {number} has no record")),
        };
        let weights: BTreeMap<Hotkey, (bool, u128)> = set
            .iter()
            .map(|(i, power)| (cast.hotkeys[*i].hotkey(), (self.liars.contains(i), *power)))
            .map(|(h, (lies, power))| (h, (lies, self.weight(&h, power))))
            .collect();
        for miner in &record.miners {
            self.miner(&weights, number, miner)?;
        }
        Ok(())
    }

    fn miner(&mut self, weights: &BTreeMap<Hotkey, (bool, u128)>, number: u64, miner: &MinerRecord) -> Judged {
        let what = |what: String| broken("scores", format!("epoch {number}, uid {}: {what}", miner.uid));
        let of = |h: &Hotkey| weights.get(h).copied().unwrap_or_default();
        if let Some(c) = miner.contributions.iter().find(|c| u128::from(c.weight) != of(&c.validator).1) {
            return what(format!("{} contributes with weight {}", c.validator, c.weight));
        }
        let total: u128 = weights.values().map(|(_, w)| w).sum();
        let lying: u128 = weights.values().filter(|(lies, _)| *lies).map(|(_, w)| w).sum();
        let contributed: u128 = miner.contributions.iter().map(|c| u128::from(c.weight)).sum();
        let measured = contributed * 3 > total * 2;
        let score = miner.aggregate.as_ref().map(|a| a.score.0);
        if !measured {
            let old = self.measured.get(&miner.hotkey).filter(|(from, _)| total > 0 && number - from <= KEPT);
            if score != old.map(|(_, score)| *score) || miner.kept != old.map(|(from, _)| *from) {
                return what(format!("{score:?} of {:?} is kept, not {old:?}", miner.kept));
            }
            return Ok(());
        }
        let Some(score) = score.filter(|_| miner.kept.is_none()) else {
            return what("enough contribute, and it has no score of this epoch".into());
        };
        self.measured.insert(miner.hotkey, (number, score));
        let honest = miner.contributions.iter().filter(|c| !of(&c.validator).0 && c.weight > 0).map(|c| c.mean.0);
        let (Some(low), Some(high)) = (honest.clone().min(), honest.max()) else { return Ok(()) };
        self.aggregates += 1;
        if lying * 3 < total && !(low..=high).contains(&score) {
            return what(format!("{score} outside {low}..{high}"));
        }
        Ok(())
    }

    /// Who did less than half of what half of the power did not exceed, of rounds or of verdicts (there
    /// without its own drawn rounds, which are not its to judge), has no place in the next set, unless the
    /// others are no quorum of those that keep their permit. Who did its part, keeps its permit and said that
    /// it is there has one.
    fn work(&mut self, cast: &Cast, set: &Powers, snapshot: &Snapshot, store: &Store) -> Judged {
        let Ok(next) = query::validators(store) else { return broken("work", "there is no next set") };
        let all: u128 = set.values().sum();
        let mut lazy: BTreeMap<usize, String> = BTreeMap::new();
        let drawn = std::mem::take(&mut self.drawn);
        let own = |i: &usize| drawn.get(&cast.hotkeys[*i].hotkey()).copied().unwrap_or(0);
        for (worked, what) in std::mem::take(&mut self.worked).iter().zip(["rounds", "verdicts"]) {
            let of = |i: &usize| worked.get(&cast.hotkeys[*i].hotkey()).copied().unwrap_or(0);
            let up_to = |count: u64| set.iter().filter(|(i, _)| of(i) <= count).map(|(_, power)| power).sum::<u128>();
            let median = set.keys().map(of).filter(|count| up_to(*count) * 2 >= all).min().unwrap_or(0);
            let owed = |i: &usize| median.saturating_sub(if what == "verdicts" { own(i) } else { 0 });
            for i in set.keys().filter(|i| median >= MIN_WORK && of(i) * 2 < owed(i)) {
                lazy.insert(*i, format!("{} {what}, the median is {median}", of(i)));
            }
        }
        let keeps = |i: &usize| snapshot.neuron(&cast.hotkeys[*i].hotkey()).is_some_and(|n| n.permit);
        let kept = || set.iter().filter(|(i, _)| keeps(i));
        let all: u128 = kept().map(|(_, power)| power).sum();
        let busy: u128 = kept().filter(|(i, _)| !lazy.contains_key(i)).map(|(_, power)| power).sum();
        let stays = |i: &usize| next.by_hotkey(&cast.hotkeys[*i].hotkey()).is_some();
        let ready = std::mem::take(&mut self.ready);
        let is_ready = |i: &usize| ready.contains(&cast.hotkeys[*i].hotkey());
        if let Some((i, _)) = kept().find(|(i, _)| is_ready(i) && !lazy.contains_key(i) && !stays(i)) {
            return broken("work", format!("validator {i} did its part and has no place"));
        }
        match lazy.iter().find(|(i, _)| stays(i)) {
            Some((i, did)) if busy * 3 > all * 2 => broken("work", format!("validator {i} did {did}, and it stays")),
            _ => Ok(()),
        }
    }
}

fn candidates(snapshot: &Snapshot) -> Vec<Hotkey> {
    snapshot.neurons.iter().filter(|n| !n.permit).map(|n| n.hotkey).collect()
}
