//! What really happened, counted.

use std::collections::BTreeMap;

/// Counts over one run or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub seeds: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Events.
    pub events: u64,
    /// Heights decided.
    pub heights: u64,
    /// Fewest heights of a run.
    pub least_heights: u64,
    /// Epochs closed.
    pub epochs: u64,
    /// Changes of the validator set.
    pub set_changes: u64,
    /// Transactions in blocks, by kind.
    pub transactions: BTreeMap<&'static str, u64>,
    /// Aggregated scores that were judged.
    pub aggregates: u64,
    /// Spot checks for which a liar was struck.
    pub failed_checks: u64,
    /// Rounds that pulses drew, that they spared, and that no pulse came for.
    pub draws: [u64; 3],
    /// Messages delivered.
    pub messages: u64,
    /// Of these on the consensus topic.
    pub consensus_messages: u64,
    /// Microseconds of work charged, over all nodes.
    pub charged_us: u64,
    /// Faults that really happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// Write points at which a node lost power.
    pub crash_points: BTreeMap<&'static str, u64>,
    /// Messages bent or added by each strategy.
    pub lies: BTreeMap<&'static str, u64>,
    /// Runs in which each strategy played.
    pub liars: BTreeMap<&'static str, u64>,
    /// What nodes and operators did about it.
    pub remedies: BTreeMap<&'static str, u64>,
    /// Rounds that heights took after healing: index is the round, the last one collects the rest.
    pub rounds_after_healing: [u64; 16],
    /// Most rounds that a height took beyond the highest round at the time of healing.
    pub most_rounds: u32,
    /// Longest time from healing until everybody had decided again, virtual milliseconds.
    pub slowest_recovery_ms: u64,
}

impl Stats {
    /// Counts one of something.
    pub fn count(map: &mut BTreeMap<&'static str, u64>, what: &'static str) {
        *map.entry(what).or_default() += 1;
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.least_heights =
            if self.seeds == 0 { other.least_heights } else { self.least_heights.min(other.least_heights) };
        self.seeds += other.seeds;
        self.virtual_ms += other.virtual_ms;
        self.events += other.events;
        self.heights += other.heights;
        self.epochs += other.epochs;
        self.set_changes += other.set_changes;
        self.aggregates += other.aggregates;
        self.failed_checks += other.failed_checks;
        for (mine, theirs) in self.draws.iter_mut().zip(other.draws) {
            *mine += theirs;
        }
        self.messages += other.messages;
        self.consensus_messages += other.consensus_messages;
        self.charged_us += other.charged_us;
        self.most_rounds = self.most_rounds.max(other.most_rounds);
        self.slowest_recovery_ms = self.slowest_recovery_ms.max(other.slowest_recovery_ms);
        for (mine, theirs) in [
            (&mut self.transactions, &other.transactions),
            (&mut self.faults, &other.faults),
            (&mut self.crash_points, &other.crash_points),
            (&mut self.lies, &other.lies),
            (&mut self.liars, &other.liars),
            (&mut self.remedies, &other.remedies),
        ] {
            for (what, count) in theirs {
                *mine.entry(what).or_default() += count;
            }
        }
        for (mine, theirs) in self.rounds_after_healing.iter_mut().zip(other.rounds_after_healing) {
            *mine += theirs;
        }
    }
}
