//! One running copy of a validator.

use std::collections::{BTreeMap, HashSet};

use perturb_consensus::wire::Peer;
use perturb_consensus::{Machine, TimerId};

use crate::app::{App, Checking, Style};
use crate::byzantine::{Kind, Strategy};
use crate::disk::Disk;
use crate::plan::Point;
use crate::store::Store;

/// A node that will lose power.
#[derive(Clone, Copy, Debug)]
pub struct Fuse {
    /// Which actions count.
    pub point: Point,
    /// Of these, how many still succeed.
    pub left: u32,
    /// How long it will be down.
    pub down_ms: u64,
}

/// One running copy of a validator.
pub struct Actor {
    /// Its index in the cast; twins share it.
    pub key: usize,
    /// Its name on the wires.
    pub name: Peer,
    /// What it does wrong; nothing for the honest.
    pub lies: Vec<(Kind, Box<dyn Strategy>)>,
    /// Whether it was a liar at the beginning.
    pub liar: bool,
    /// Whether another copy with the same key runs.
    pub twin: bool,
    /// Its machine while it runs.
    pub machine: Option<Machine<Store>>,
    /// Its disk.
    pub disk: Disk,
    /// Timers that are set, by its own clock.
    pub timers: BTreeMap<TimerId, u64>,
    /// Its services.
    pub app: App,
    /// Its clock is this far off.
    pub skew_ms: i64,
    /// Messages it has seen, as gossip remembers them.
    pub seen: HashSet<u64>,
    /// It will lose power.
    pub fuse: Option<Fuse>,
    /// A row of its state was damaged since it was last whole.
    pub damaged: bool,
    /// A record of its log was damaged.
    pub log_damaged: bool,
    /// Older copies of its database.
    pub backups: Vec<Store>,
    /// Starts so far: what was meant for an earlier run does not reach a later one.
    pub boots: u64,
    /// Until then it is busy, where costs are charged.
    pub busy_until: u64,
}

impl Actor {
    /// Whether the rules for honest nodes hold it.
    pub fn is_honest(&self) -> bool {
        !self.liar && !self.twin
    }

    /// The time on its clock.
    pub fn clock(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.skew_ms)
    }

    /// The true time of a time on its clock.
    pub fn true_time(&self, at: u64) -> u64 {
        at.saturating_add_signed(-self.skew_ms)
    }

    /// How it runs its rounds.
    pub fn style(&self) -> Style {
        let styles = self.lies.iter().map(|(kind, _)| kind.style());
        styles.fold(Style::Honest, |all, one| if one == Style::Honest { all } else { one })
    }

    /// What it says about drawn rounds.
    pub fn checking(&self) -> Checking {
        let all = self.lies.iter().map(|(kind, _)| kind.checking());
        all.fold(Checking::Honest, |all, one| if one == Checking::Honest { all } else { one })
    }

    /// The last height it committed; 0 while it is down.
    pub fn height(&self) -> u64 {
        self.machine.as_ref().map_or(0, |m| m.ledger().head().height)
    }
}
