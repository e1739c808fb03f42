//! The world: actors, wires, a chain and a clock that jumps from event to event.

mod act;
mod actor;
mod chain;
mod faults;
mod judge;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;

use perturb_consensus::wire::{Peer, Topic};
use perturb_consensus::{Event, TimerId};
use perturb_ledger::ledger::genesis_commit;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::app::{App, Checking, Style};
use crate::cast::Cast;
use crate::disk::Disk;
use crate::oracle::{Oracle, Violation};
use crate::plan::{BEGIN_MS, Plan};
use crate::stats::Stats;
use crate::store::Store;
use crate::trace::Trace;
use crate::wires::Network;
use actor::Actor;
use chain::{CHAIN_BLOCK_MS, Chain};

/// A gossiped message on its way.
pub(crate) struct Message {
    /// Its name, by which a repeated one is known.
    id: u64,
    /// Who published it.
    author: usize,
    topic: Topic,
    bytes: Vec<u8>,
}

/// Something that will happen.
pub(crate) enum Happening {
    /// A gossiped message arrives; `again` passes the receiver's memory of seen ones.
    Gossip { message: Rc<Message>, again: bool },
    /// An event for a run of a machine.
    Event { boot: u64, event: Box<Event> },
    /// A timer, by the actor's own clock.
    Timer { boot: u64, id: TimerId, at: u64 },
    /// The services look.
    App,
    /// A fault begins.
    Begin(usize),
    /// A fault ends.
    End(usize),
    /// A fuse that nothing burnt.
    Cut { boot: u64 },
    /// A node starts again.
    Restart { boot: u64 },
    /// The chain finalizes a block.
    ChainBlock,
    /// Everything works from now on.
    Heal,
}

struct Due {
    at: u64,
    number: u64,
    to: usize,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    /// The heap's top is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// How a run differs from a plain one.
#[derive(Default)]
pub struct Options {
    /// Print every line of the trace.
    pub print: bool,
    /// Keep the last lines of the trace.
    pub text: bool,
    /// One-way latencies in milliseconds, `[from][to]`.
    pub table: Option<Vec<Vec<u64>>>,
    /// Charge the measured cost of each step to virtual time.
    pub charged: bool,
    /// Heights to be decided by everybody: 20 where nothing is said.
    pub heights: Option<u64>,
}

/// What became of a run.
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// The counts.
    pub stats: Stats,
    /// The hash of the whole history.
    pub hash: String,
    /// Its last lines, where they were wanted.
    pub tail: Vec<String>,
    /// For each decision by each node: milliseconds from the height's first proposal.
    pub finality_ms: Vec<u64>,
}

/// The world of one run.
pub struct World {
    plan: Plan,
    cast: Cast,
    now: u64,
    queue: BinaryHeap<Due>,
    number: u64,
    rng: ChaCha8Rng,
    actors: Vec<Actor>,
    network: Network,
    chain: Chain,
    oracle: Oracle,
    trace: Trace,
    stats: Stats,
    options: Options,
    /// Requests under way: (asker, its run, its name for the request).
    requests: BTreeMap<u64, (usize, u64, u64)>,
    /// Connections dropped after an accusation: pair to until when.
    dropped: BTreeMap<(usize, usize), u64>,
    healed: Option<judge::Healed>,
    /// When a height was first proposed.
    proposed_ms: BTreeMap<u64, u64>,
    /// What the step in progress has cost so far: what it says leaves that much later.
    lag_ms: u64,
    finality_ms: Vec<u64>,
}

/// The wires' name of an actor.
fn peer(i: usize) -> Peer {
    let mut name = [0x50; 32];
    name[..8].copy_from_slice(&(i as u64).to_le_bytes());
    Peer(name)
}

/// The actor behind a name.
fn index(peer: &Peer) -> usize {
    let mut number = [0u8; 8];
    number.copy_from_slice(&peer.0[..8]);
    u64::from_le_bytes(number) as usize
}

impl World {
    /// The world of a plan.
    ///
    /// # Errors
    /// The plan makes no network.
    pub fn new(plan: Plan, options: Options) -> Result<Self, String> {
        let cast = Cast::new(&plan);
        let genesis = genesis_commit(&cast.genesis).map_err(|e| e.to_string())?;
        let mut liars: BTreeSet<usize> = plan.liars.iter().map(|l| l.0).collect();
        liars.extend(plan.twin);
        let mut keys: Vec<usize> = (0..=plan.founders).collect();
        keys.extend(plan.twin);
        let actors: Vec<Actor> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| Actor {
                key: *key,
                name: peer(i),
                lies: plan
                    .liars
                    .iter()
                    .filter(|(liar, _)| liar == key)
                    .flat_map(|(_, kinds)| kinds.iter().map(|k| (*k, k.strategy())))
                    .collect(),
                liar: plan.liars.iter().any(|(liar, _)| liar == key),
                twin: plan.twin == Some(*key),
                machine: None,
                disk: Disk::new(Store::of(&genesis, cast.broken)),
                timers: BTreeMap::new(),
                app: App::default(),
                skew_ms: plan.skews.get(*key).copied().unwrap_or(0),
                seen: Default::default(),
                fuse: None,
                damaged: false,
                log_damaged: false,
                backups: Vec::new(),
                boots: 0,
                busy_until: 0,
            })
            .collect();
        let oracle = Oracle::new(&cast, plan.by_stake, liars).ok_or("the genesis makes no network")?;
        let mut stats = Stats { seeds: 1, ..Stats::default() };
        for kind in plan.liars.iter().flat_map(|(_, kinds)| kinds) {
            Stats::count(&mut stats.liars, kind.name());
        }
        if plan.twin.is_some() {
            Stats::count(&mut stats.liars, "twins");
        }
        let network = Network::new(plan.wires.clone(), options.table.clone());
        let chain = Chain::new(actors.len());
        let trace = Trace::new(options.text, options.print);
        Ok(Self {
            rng: ChaCha8Rng::seed_from_u64(plan.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED),
            plan,
            cast,
            now: BEGIN_MS,
            queue: BinaryHeap::new(),
            number: 0,
            actors,
            network,
            chain,
            oracle,
            trace,
            stats,
            options,
            requests: BTreeMap::new(),
            dropped: BTreeMap::new(),
            healed: None,
            proposed_ms: BTreeMap::new(),
            lag_ms: 0,
            finality_ms: Vec::new(),
        })
    }

    /// Runs to the end.
    pub fn run(mut self) -> Outcome {
        let violation = self.live().err();
        self.stats.virtual_ms = self.now - BEGIN_MS;
        self.stats.events = self.trace.events;
        self.stats.heights = self.oracle.height();
        self.stats.least_heights = self.stats.heights;
        self.stats.aggregates = self.oracle.aggregates();
        self.stats.failed_checks = self.oracle.failed_checks();
        self.stats.draws = self.oracle.draws();
        Outcome {
            violation,
            hash: self.trace.hash(),
            tail: self.trace.tail().map(str::to_owned).collect(),
            stats: self.stats,
            finality_ms: self.finality_ms,
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        for i in 0..self.actors.len() {
            self.start(i)?;
            let phase = self.rng.random_range(0..self.plan.look_ms);
            self.at(self.now + phase, i, Happening::App);
        }
        self.at(self.now + CHAIN_BLOCK_MS, 0, Happening::ChainBlock);
        for (i, fault) in self.plan.faults.clone().iter().enumerate() {
            self.at(BEGIN_MS + fault.at_ms, 0, Happening::Begin(i));
            self.at(BEGIN_MS + fault.at_ms + fault.for_ms, 0, Happening::End(i));
        }
        self.at(BEGIN_MS + self.plan.heal_ms, 0, Happening::Heal);
        while !self.is_done()? {
            let Some(due) = self.queue.pop() else { break };
            self.now = self.now.max(due.at);
            self.happen(due)?;
        }
        self.final_check()
    }

    pub(crate) fn at(&mut self, at: u64, to: usize, what: Happening) {
        self.number += 1;
        self.queue.push(Due { at, number: self.number, to, what });
    }

    fn happen(&mut self, due: Due) -> Result<(), Violation> {
        let to = due.to;
        // A node that still works on something takes the next thing when it is done.
        if self.options.charged
            && matches!(due.what, Happening::Gossip { .. } | Happening::Event { .. } | Happening::Timer { .. })
            && self.actors[to].busy_until > self.now
        {
            let at = self.actors[to].busy_until;
            self.queue.push(Due { at, ..due });
            return Ok(());
        }
        match due.what {
            Happening::Gossip { message, again } => self.hear(to, &message, again),
            Happening::Event { boot, event } if boot == self.actors[to].boots => self.step(to, *event).map(drop),
            Happening::Timer { boot, id, at } if boot == self.actors[to].boots => {
                if self.actors[to].timers.get(&id) != Some(&at) {
                    return Ok(());
                }
                self.actors[to].timers.remove(&id);
                self.step(to, Event::Timer(id)).map(drop)
            }
            Happening::App => self.look(to),
            Happening::Begin(fault) => self.begin(fault),
            Happening::End(fault) => self.end(fault),
            Happening::Cut { boot } if boot == self.actors[to].boots => match self.actors[to].fuse.take() {
                Some(fuse) => self.crash(to, "between two steps", fuse.down_ms),
                None => Ok(()),
            },
            Happening::Restart { boot } if boot == self.actors[to].boots => self.start(to),
            Happening::ChainBlock => self.grow_chain(),
            Happening::Heal => self.heal(),
            _ => Ok(()),
        }
    }

    /// The services of an actor look at the state, and a liar takes its chance.
    fn look(&mut self, i: usize) -> Result<(), Violation> {
        self.at(self.now + self.plan.look_ms, i, Happening::App);
        let actor = &mut self.actors[i];
        let Some(machine) = actor.machine.as_ref() else { return Ok(()) };
        let style = actor.style();
        let transactions = actor.app.look(&self.cast, actor.key, style, machine.ledger(), &mut self.rng);
        let lying = actor.lies.iter().map(|(kind, _)| *kind).filter(|kind| kind.style() != Style::Honest);
        for kind in lying {
            *self.stats.lies.entry(kind.name()).or_default() += transactions.len() as u64;
        }
        for bytes in transactions {
            self.step(i, Event::Submit { id: 0, bytes })?;
        }
        let (seed, now) = (self.plan.seed, self.now);
        let actor = &mut self.actors[i];
        if let Some(machine) = actor.machine.as_ref().filter(|_| !actor.liar) {
            for bytes in actor.app.pulses(seed, now, machine.ledger()) {
                self.step(i, Event::Submit { id: 0, bytes })?;
            }
        }
        let invented: Vec<_> = self.actors.iter().flat_map(|a| a.app.invented.clone()).collect();
        let actor = &mut self.actors[i];
        let checking = actor.checking();
        if let Some(machine) = actor.machine.as_ref() {
            let verdicts = actor.app.check(&self.cast, actor.key, checking, machine.ledger(), &invented);
            for (kind, _) in actor.lies.iter().filter(|(kind, _)| kind.checking() != Checking::Honest) {
                *self.stats.lies.entry(kind.name()).or_default() += verdicts.len() as u64;
            }
            for bytes in verdicts {
                self.step(i, Event::Submit { id: 0, bytes })?;
            }
        }
        self.lie(i, |strategy, scene| strategy.tick(scene));
        Ok(())
    }

    fn grow_chain(&mut self) -> Result<(), Violation> {
        self.at(self.now + CHAIN_BLOCK_MS, 0, Happening::ChainBlock);
        let closes = self.epoch_is_due();
        let tip = self.chain.grow(closes);
        for i in 0..self.actors.len() {
            let delay = self.rng.random_range(0..900);
            let boot = self.actors[i].boots;
            self.at(self.now + delay, i, Happening::Event { boot, event: Box::new(Event::ChainTip(tip.clone())) });
        }
        Ok(())
    }

    /// The epoch index rises as planned, and not before the one that joins has said so: every run
    /// has a change of the validator set.
    fn epoch_is_due(&self) -> bool {
        let index = self.chain.tip().epoch_index as usize;
        let Some(due) = self.plan.closes_ms.get(index) else { return false };
        let joiner = self.cast.hotkeys[self.plan.founders].hotkey();
        let ready = || perturb_ledger::query::is_ready(self.oracle.referee().store(), 0, &joiner).unwrap_or(false);
        self.now >= BEGIN_MS + due && (index > 0 || ready())
    }
}
