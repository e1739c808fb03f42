//! What goes wrong, and what operators do about it.

use std::collections::BTreeSet;

use perturb_consensus::{Action, Config, Event, Machine};
use perturb_ledger::Ledger;
use perturb_ledger::ledger::genesis_commit;
use rand::Rng;

use super::actor::Fuse;
use super::{Happening, World};
use crate::host::HostBug;
use crate::oracle::Violation;
use crate::plan::{Point, What};
use crate::stats::Stats;
use crate::store::Store;

/// Milliseconds after which a fuse cuts although the node did nothing.
const FUSE_MS: u64 = 2_500;

/// Milliseconds an operator takes to restore a node.
const OPERATOR_MS: u64 = 700;

impl World {
    /// A fault begins.
    pub(super) fn begin(&mut self, fault: usize) -> Result<(), Violation> {
        let planned = self.plan.faults[fault].clone();
        let (now, name) = (self.now, planned.what.name());
        self.trace
            .note(&[now, fault as u64, 5], name.as_bytes(), || format!("{now} fault {fault}: {:?}", planned.what));
        let fired = match planned.what {
            What::Crash { actor, point, fuse } => {
                let boot = self.actors[actor].boots;
                self.actors[actor].fuse = Some(Fuse { point, left: fuse, down_ms: planned.for_ms });
                self.at(now + FUSE_MS, actor, Happening::Cut { boot });
                self.actors[actor].machine.is_some()
            }
            What::Partition { side, one_way } => {
                let mut pairs = BTreeSet::new();
                for a in 0..self.actors.len() {
                    for b in 0..self.actors.len() {
                        if side.contains(&a) && !side.contains(&b) {
                            pairs.insert((b, a));
                            if !one_way {
                                pairs.insert((a, b));
                            }
                        }
                    }
                }
                self.network.cut(fault, pairs);
                true
            }
            What::Storm { loss } => {
                self.network.storm(fault, loss);
                true
            }
            What::Slow { actor, extra_ms } => {
                self.network.slow(fault, actor, extra_ms);
                true
            }
            What::ChainAway { actor } => {
                self.chain.leave(fault, actor);
                true
            }
            What::FullDisk { actor } => {
                self.actors[actor].disk.full = true;
                true
            }
            What::Rollback { actor } => self.roll_back(actor, planned.for_ms)?,
            What::LogBit { actor } => {
                self.crash(actor, "before its log is damaged", planned.for_ms)?;
                let flipped = self.actors[actor].disk.flip(&mut self.rng);
                self.actors[actor].log_damaged |= flipped;
                flipped
            }
            What::StateBit { actor } => {
                let (row, bit) = (self.rng.random_range(0..10_000), self.rng.random_range(0..10_000));
                let flipped = self.actors[actor].disk.store.flip(row, bit);
                self.actors[actor].damaged |= flipped;
                flipped
            }
        };
        if fired {
            Stats::count(&mut self.stats.faults, name);
        }
        Ok(())
    }

    /// A fault ends.
    pub(super) fn end(&mut self, fault: usize) -> Result<(), Violation> {
        self.network.mend(fault);
        self.chain.mend(fault);
        if let What::FullDisk { actor } = self.plan.faults[fault].what {
            self.actors[actor].disk.full = false;
            if self.actors[actor].machine.is_none() {
                return self.start(actor);
            }
        }
        Ok(())
    }

    /// Counts down to a loss of power; true where it happened before or within this action.
    pub(super) fn burn(&mut self, i: usize, action: &Action) -> Result<bool, Violation> {
        let Some(fuse) = self.actors[i].fuse.as_mut() else { return Ok(false) };
        let counts = match fuse.point {
            Point::Any => true,
            Point::Append => matches!(action, Action::AppendLog { .. }),
            Point::Sync => matches!(action, Action::SyncLog),
            Point::Guard => matches!(action, Action::Guard { .. }),
            Point::Commit => matches!(action, Action::Commit(_)),
            Point::Say => matches!(action, Action::Broadcast { .. }),
        };
        if !counts {
            return Ok(false);
        }
        if fuse.left > 0 {
            fuse.left -= 1;
            return Ok(false);
        }
        let down_ms = fuse.down_ms;
        self.actors[i].fuse = None;
        // Half of the time the write itself still reaches the disk and nothing after it does.
        let written = self.rng.random::<bool>();
        let point = match action {
            Action::AppendLog { height, record } => {
                self.actors[i].disk.append(*height, record.clone());
                "while a record is appended"
            }
            Action::SyncLog if written => {
                self.actors[i].disk.sync();
                "after the log's sync"
            }
            Action::SyncLog => "before the log's sync",
            Action::Guard { mark, .. } if written => {
                let actor = &self.actors[i];
                self.oracle.guards((i, actor.damaged), actor.key, actor.disk.guard, mark)?;
                self.actors[i].disk.guard = Some(*mark);
                "after the guard's sync"
            }
            Action::Guard { .. } => "before the guard's sync",
            Action::Commit(commit) if written => {
                self.commit(i, commit)?;
                "after a commit"
            }
            Action::Commit(commit) => {
                if self.plan.host_bug == HostBug::TornCommit {
                    self.actors[i].disk.store.commit_rows_only(commit);
                }
                "before a commit"
            }
            Action::Broadcast { .. } => "before a message leaves",
            _ => "between two actions",
        };
        self.crash(i, point, down_ms)?;
        Ok(true)
    }

    /// Power is lost.
    pub(super) fn crash(&mut self, i: usize, point: &'static str, down_ms: u64) -> Result<(), Violation> {
        if self.actors[i].machine.is_none() {
            return Ok(());
        }
        let now = self.now;
        self.trace.note(&[now, i as u64, 6], point.as_bytes(), || format!("{now} {i} loses power {point}"));
        Stats::count(&mut self.stats.crash_points, point);
        if self.actors[i].disk.lose_power(&mut self.rng) {
            Stats::count(&mut self.stats.faults, "unsynced records lost");
        }
        self.down(i, down_ms);
        Ok(())
    }

    fn down(&mut self, i: usize, down_ms: u64) {
        let actor = &mut self.actors[i];
        actor.machine = None;
        actor.fuse = None;
        actor.timers.clear();
        actor.seen.clear();
        actor.boots += 1;
        let boot = actor.boots;
        self.at(self.now + down_ms, i, Happening::Restart { boot });
    }

    /// A write failed for want of space.
    pub(super) fn stop_for_space(&mut self, i: usize) -> Result<(), Violation> {
        Stats::count(&mut self.stats.remedies, "stopped by a full disk");
        self.actors[i].disk.lose_power(&mut self.rng);
        // The end of the fault starts it again; this is for the case that it has ended meanwhile.
        self.down(i, 5_000);
        Ok(())
    }

    fn roll_back(&mut self, i: usize, down_ms: u64) -> Result<bool, Violation> {
        let Some(backup) = self.actors[i].backups.first().cloned() else { return Ok(false) };
        self.crash(i, "before its database is rolled back", down_ms)?;
        self.actors[i].disk.replace(backup.copy());
        if self.plan.host_bug == HostBug::GuardForgotten {
            self.actors[i].disk.guard = None;
        }
        Ok(true)
    }

    /// A node stops by itself.
    pub(super) fn halted(&mut self, i: usize, reason: &str, remedy: &'static str) -> Result<(), Violation> {
        let now = self.now;
        self.trace.note(&[now, i as u64, 7], &[], || format!("{now} {i} halts: {reason}"));
        if self.actors[i].is_honest() && !self.actors[i].damaged {
            return Err(Violation { rule: "no halt", what: format!("actor {i} halts: {reason}") });
        }
        self.rebuild(i, remedy)
    }

    /// A node cannot start from its disk. A crash alone must never lead to this.
    fn unreadable(
        &mut self,
        i: usize,
        was_damaged: bool,
        error: &impl std::fmt::Debug,
        remedy: &'static str,
    ) -> Result<(), Violation> {
        if self.actors[i].is_honest() && !was_damaged {
            let what = format!("actor {i} cannot start from a disk that nothing has damaged: {error:?}");
            return Err(Violation { rule: "no halt", what });
        }
        self.rebuild(i, remedy)
    }

    /// An operator begins anew from genesis; the guard stays.
    fn rebuild(&mut self, i: usize, why: &'static str) -> Result<(), Violation> {
        Stats::count(&mut self.stats.remedies, why);
        let Ok(genesis) = genesis_commit(&self.cast.genesis) else { return Ok(()) };
        self.actors[i].disk.replace(Store::of(&genesis, self.cast.broken));
        self.actors[i].damaged = false;
        self.actors[i].log_damaged = false;
        self.actors[i].backups.clear();
        self.down(i, OPERATOR_MS);
        Ok(())
    }

    /// A node starts with what its disk holds.
    pub(super) fn start(&mut self, i: usize) -> Result<(), Violation> {
        let now = self.now;
        if self.actors[i].machine.is_some() {
            return Ok(());
        }
        self.trace.note(&[now, i as u64, 8], &[], || format!("{now} {i} starts"));
        let ledger = match Ledger::new(self.cast.genesis.clone(), self.actors[i].disk.store.clone()) {
            Ok(ledger) => ledger,
            Err(e) => return self.unreadable(i, self.actors[i].damaged, &e, "restored: the database cannot be read"),
        };
        let height = ledger.head().height + 1;
        let records = match self.actors[i].disk.records(height) {
            Ok(_) if self.plan.host_bug == HostBug::LogCleared => Vec::new(),
            Ok(records) => records,
            Err(e) => {
                return self.unreadable(i, self.actors[i].log_damaged, &e, "restored: the log is damaged");
            }
        };
        if !records.is_empty() {
            Stats::count(&mut self.stats.remedies, "heights taken up from the log");
        }
        let actor = &mut self.actors[i];
        let planted = if actor.is_honest() { self.plan.planted } else { Default::default() };
        let config =
            Config { pair: self.cast.pairs[actor.key].clone(), peer: actor.name, startup_grace_ms: 500, planted };
        let guard = actor.disk.guard;
        match Machine::new(config, ledger) {
            Ok(machine) => actor.machine = Some(machine),
            Err(_) => return self.rebuild(i, "restored: the validator set cannot be used"),
        }
        self.step(i, Event::Start { records, guard })?;
        let tip = self.chain.heard(i);
        self.feed(i, Event::ChainTip(tip))?;
        Ok(())
    }
}
