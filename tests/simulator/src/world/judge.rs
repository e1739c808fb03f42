//! When a run is over, and what must hold then.

use perturb_consensus::wire::Gossip;
use perturb_ledger::{Commit, StateStore};

use super::World;
use crate::oracle::Violation;
use crate::plan::BEGIN_MS;
use crate::stats::Stats;

/// Heights that every run covers.
const HEIGHTS: u64 = 20;

/// Heights that everybody must decide after healing.
const AFTER_HEALING: u64 = 3;

/// Milliseconds within which everybody decides again after healing: some rounds of the longest
/// waits, and a restore from genesis.
const RECOVERY_MS: u64 = 90_000;

/// Milliseconds within which a pulse gets into a block: some looks, and the heights of some liars.
const PULSE_MS: u64 = 20_000;

/// Rounds that a height may take after healing beyond the highest round at that time: each liar may
/// cost one, and the first rounds are needed to come together again.
pub const MOST_ROUNDS: u32 = 12;

/// Heights that one may have signed who was cut off from the others: a round takes more of them.
const FEW_HEIGHTS: u64 = 3;

/// What was so when everything worked again.
pub struct Healed {
    at: u64,
    target: u64,
    round: u32,
    recovered: bool,
}

/// A consensus message in words.
pub fn describe(message: &Gossip) -> String {
    match message {
        Gossip::Vote(v) => {
            let digest = v.digest.map_or_else(|| "nil".to_owned(), |d| d.short());
            format!("{:?} {digest} at {}/{}", v.step, v.height, v.round)
        }
        Gossip::Proposal(p) => {
            format!("proposal {} at {}/{} pol {:?}", p.digest.short(), p.height, p.round, p.pol_round)
        }
        Gossip::Polka(p) => format!("polka {} at {}/{}", p.digest.short(), p.height, p.round),
        Gossip::Round(r) => format!("round entry at {}/{}", r.height, r.round),
    }
}

impl World {
    /// Everything works from now on.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.network.heal();
        let round = self.actors.iter().filter_map(|a| a.machine.as_ref()?.status().round).max().unwrap_or(0);
        let wanted = self.options.heights.unwrap_or(HEIGHTS);
        let target = (self.oracle.height() + AFTER_HEALING).max(wanted);
        self.healed = Some(Healed { at: self.now, target, round, recovered: false });
        Ok(())
    }

    /// A height was decided for the first time.
    pub(super) fn decided_first(&mut self, commit: &Commit) {
        for transaction in &commit.block.body.transactions {
            Stats::count(&mut self.stats.transactions, transaction.name());
        }
        let header = &commit.block.header;
        if header.next_validators != header.validators {
            self.stats.set_changes += 1;
            self.keep_assumption();
        }
        self.stats.epochs = header.epoch;
        let round = commit.certificate.as_ref().map_or(0, |c| c.round);
        if let Some(healed) = &self.healed {
            let slot = (round as usize).min(self.stats.rounds_after_healing.len() - 1);
            self.stats.rounds_after_healing[slot] += 1;
            self.stats.most_rounds = self.stats.most_rounds.max(round.saturating_sub(healed.round));
        }
    }

    /// The promise holds with liars under a third. A set in which honest ones are missing can leave
    /// them more: then they stop lying, and the run goes on.
    fn keep_assumption(&mut self) {
        let Some(set) = self.oracle.members() else { return };
        let total: u128 = set.values().sum();
        let is_bad = |key: &usize| self.actors.iter().any(|a| a.key == *key && !a.is_honest());
        let bad: u128 = set.iter().filter(|(k, _)| is_bad(k)).map(|(_, p)| p).sum();
        if bad * 3 >= total {
            Stats::count(&mut self.stats.remedies, "liars stopped: a third of the new set");
            for actor in &mut self.actors {
                actor.lies.clear();
            }
            if let Some(twin) = self.plan.twin {
                let last = self.actors.len() - 1;
                debug_assert_eq!(self.actors[last].key, twin);
                self.actors[last].machine = None;
                self.actors[last].boots += 1;
            }
        }
    }

    /// Whether everybody has done what a run asks for.
    pub(super) fn is_done(&mut self) -> Result<bool, Violation> {
        let (now, index) = (self.now, self.chain.tip().epoch_index);
        // Several epochs of the chain may close as one.
        let closed =
            index as usize == self.plan.closes_ms.len() && self.oracle.referee().head().reference.epoch_index == index;
        let Some(healed) = self.healed.as_mut() else { return Ok(false) };
        let honest = self.actors.iter().filter(|a| a.is_honest());
        let least = honest.map(|a| a.height()).min().unwrap_or(0);
        if !healed.recovered && least >= healed.target {
            healed.recovered = true;
            self.stats.slowest_recovery_ms = now - healed.at;
        }
        if healed.recovered && closed {
            return Ok(true);
        }
        if now > healed.at + RECOVERY_MS {
            let heights: Vec<u64> = self.actors.iter().map(|a| a.height()).collect();
            let what = format!(
                "{RECOVERY_MS} ms after healing at {}: heights {heights:?}, wanted {}, epoch index of the chain {index}, agreed {}",
                healed.at - BEGIN_MS,
                healed.target,
                self.oracle.referee().head().reference.epoch_index,
            );
            return Err(Violation { rule: "liveness", what });
        }
        Ok(false)
    }

    /// After the last event: the rounds after healing, and every whole node's rows.
    pub(super) fn final_check(&self) -> Result<(), Violation> {
        if self.stats.most_rounds > MOST_ROUNDS {
            let what = format!("a height took {} rounds after healing", self.stats.most_rounds);
            return Err(Violation { rule: "liveness", what });
        }
        let referee = self.oracle.referee();
        let closed = |key: usize| {
            let hotkey = self.cast.hotkeys[key].hotkey();
            let row = perturb_ledger::query::sequence(referee.store(), crate::cast::CHALLENGE, &hotkey);
            row.map_or(0, |row| row.next - u64::from(row.open))
        };
        for actor in self.actors.iter().filter(|a| a.is_honest() && a.key < self.plan.founders) {
            // Founders open a round every look; a network that keeps one of them out shows here. Who leaves
            // with the first epoch may have had a few blocks only, of censors and of nodes just started.
            let stays = self.plan.leaver != Some(actor.key) && !self.was_cut_off(actor.key);
            if stays && self.plan.look_ms == crate::app::APP_MS && closed(actor.key) == 0 {
                let what = format!("no round of validator {} got into a block", actor.key);
                return Err(Violation { rule: "inclusion", what });
            }
        }
        self.check_pulses()?;
        for (i, actor) in self.actors.iter().enumerate().filter(|(_, a)| a.is_honest() && !a.damaged) {
            if actor.height() != referee.head().height {
                continue;
            }
            let theirs = referee.store().scan(b"").unwrap_or_default();
            if actor.disk.store.rows(b"") != theirs {
                return Err(Violation {
                    rule: "validity",
                    what: format!("actor {i} holds other rows than the referee"),
                });
            }
        }
        Ok(())
    }

    /// Whether a founder could take no part until its silence cost it its place, and did not come back.
    fn was_cut_off(&self, key: usize) -> bool {
        let member = self.oracle.members().is_some_and(|set| set.contains_key(&key));
        !member && self.oracle.signed(key) < FEW_HEIGHTS
    }

    /// Whatever proposers leave out: a pulse that is out for long, and that something waits for, is in a
    /// block once everything works.
    fn check_pulses(&self) -> Result<(), Violation> {
        let referee = self.oracle.referee();
        let awaited = perturb_ledger::query::awaited_pulses(referee.store()).unwrap_or_default();
        let whole = self.healed.as_ref().map_or(self.now, |healed| healed.at);
        let beacon = &self.cast.genesis.beacon;
        for round in awaited {
            let out = crate::pulses::out_at(self.plan.seed, beacon, round);
            if out.is_some_and(|at| at.max(whole) + PULSE_MS < self.now) {
                let what = format!("pulse {round} is out since {out:?} and in no block at {}", self.now);
                return Err(Violation { rule: "inclusion", what });
            }
        }
        Ok(())
    }
}
