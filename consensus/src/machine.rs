//! The machine: one `step` from an event to actions.
//!
//! A height goes through these phases:
//!
//! ```text
//! Stopped --Start--> Waiting --time, caught up--> Running --decided--> Committing --Committed--> Waiting
//!                       \------- a verified block of a range ------------^
//! ```
//!
//! - *Waiting*: the block interval, or less where more than a third has begun the next height; the
//!   start-up's wait for peers, or catching up. The engine does not run, so a node that has not caught
//!   up never votes.
//! - *Running*: the engine works at the height after the head.
//! - *Committing*: the driver writes the one synced batch of the height.
//!
//! Pure: the clock comes with each step, and the same events give the same actions.

mod catchup;
mod gossip;
mod outputs;
mod propose;
mod submit;
mod timely;

use std::collections::BTreeMap;

use perturb_ledger::{Ledger, StateStore};
use perturb_types::{ConsensusKey, ConsensusPair, Hotkey, NetworkId};

use crate::Millis;
use crate::candidates::Candidates;
use crate::chain_view::ChainView;
use crate::engine::{Engine, Set};
use crate::event::{Action, Event, Status, TimerId};
use crate::guard::{Guard, GuardMark};
use crate::mempool::Mempool;
use crate::planted::Planted;
use crate::record::{Record, Wait};
use crate::sync::Sync;
use crate::wire::{Peer, SignedProposal};
use gossip::Quota;

/// Milliseconds between two ticks: the grain of retries and deadlines.
pub const TICK_MS: Millis = 100;

/// Milliseconds between two beacons.
const BEACON_MS: Millis = 1_000;

/// Milliseconds a starting node waits to hear how far the others are.
pub const STARTUP_GRACE_MS: Millis = 3_000;

/// Milliseconds by which a block's time may be ahead of this node's clock.
pub const MAX_DRIFT_MS: Millis = 2_000;

/// What a machine needs besides its ledger.
#[derive(Clone, Debug)]
pub struct Config {
    /// The consensus key that it begins with: the one that the set of the next height names, if any does.
    pub pair: ConsensusPair,
    /// This node's own name among peers.
    pub peer: Peer,
    /// Milliseconds to wait at the start for peers' beacons: [`STARTUP_GRACE_MS`].
    pub startup_grace_ms: Millis,
    /// The rule a test breaks; [`Planted::Nothing`] in every node.
    pub planted: Planted,
}

/// How much the machine holds; every number has a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Transactions in the mempool.
    pub transactions: usize,
    /// Proposed blocks, with those that came before their proposal.
    pub blocks: usize,
    /// Peers remembered.
    pub peers: usize,
    /// Blocks of a range that wait for verification.
    pub range: usize,
    /// Proposals whose round has not begun here.
    pub early: usize,
    /// Messages remembered, so that a repeated one is known.
    pub messages: usize,
    /// Timers set.
    pub timers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Stopped,
    Waiting { at: Millis, starting: bool },
    Running,
    Committing { height: u64, next_at: Millis },
}

/// A key of this node's that is not in use, and the furthest position that its guard's file knows of.
#[derive(Debug)]
struct Spare {
    pair: ConsensusPair,
    released: Option<GuardMark>,
}

/// The consensus of one node.
pub struct Machine<S: StateStore> {
    ledger: Ledger<S>,
    config: Config,
    /// The keys before and after the one in use.
    spare: Vec<Spare>,
    /// Whose keys they are, where there are several.
    hotkey: Option<Hotkey>,
    network: NetworkId,
    now: Millis,
    phase: Phase,
    /// The set of the height after the head; the engine's own is that of the height it works at.
    set: Set,
    engine: Engine,
    candidates: Candidates,
    early: timely::Early,
    mempool: Mempool,
    sync: Sync,
    chain: ChainView,
    quota: Quota,
    timers: BTreeMap<TimerId, Millis>,
    actions: Vec<Action>,
    halted: bool,
    /// Records appended since the last sync of the log.
    unsynced: bool,
    /// The furthest position given to the guard's file.
    released: Option<GuardMark>,
    /// Heights up to this one are followed without voting: the guard's file knows of signatures
    /// that the log has lost.
    muted_to: u64,
    height_started: Millis,
    wanted: Option<propose::Wanted>,
    own_proposal: Option<SignedProposal>,
    last_beacon: Option<Millis>,
    beacons_sent: u64,
    next_ask: u64,
}

/// A machine that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The ledger's validator set is empty or too powerful for the engine's arithmetic.
    #[error("the validator set of height {height} is empty or its power exceeds the engine's range")]
    BadSet {
        /// The height it is for.
        height: u64,
    },
}

impl<S: StateStore> Machine<S> {
    /// A machine over a ledger; it does nothing before [`Event::Start`].
    ///
    /// # Errors
    /// The ledger's validator set is none that the engine can work with.
    pub fn new(config: Config, ledger: Ledger<S>) -> Result<Self, SetupError> {
        let network = ledger.network();
        let height = ledger.head().height + 1;
        let set = engine_set(&ledger).ok_or(SetupError::BadSet { height })?;
        let engine = Engine::new(network, &config, Guard::default(), height, set.clone());
        Ok(Self {
            ledger,
            config,
            spare: Vec::new(),
            hotkey: None,
            network,
            now: 0,
            phase: Phase::Stopped,
            set,
            engine,
            candidates: Candidates::default(),
            early: timely::Early::default(),
            mempool: Mempool::default(),
            sync: Sync::default(),
            chain: ChainView::default(),
            quota: Quota::default(),
            timers: BTreeMap::new(),
            actions: Vec::new(),
            halted: false,
            unsynced: false,
            released: None,
            muted_to: 0,
            height_started: 0,
            wanted: None,
            own_proposal: None,
            last_beacon: None,
            beacons_sent: 0,
            next_ask: 0,
        })
    }

    /// Gives it the other keys of this node's hotkey, each with what its guard's file remembers, before
    /// [`Event::Start`]. Between two heights it takes up the one that the next height's set names for the
    /// hotkey: a set has one of each, and a height is signed by one alone.
    pub fn with_spare_keys(
        mut self,
        hotkey: Hotkey,
        keys: impl IntoIterator<Item = (ConsensusPair, Option<GuardMark>)>,
    ) -> Self {
        self.hotkey = Some(hotkey);
        self.spare.extend(keys.into_iter().map(|(pair, released)| Spare { pair, released }));
        self
    }

    /// The key in use.
    pub fn key(&self) -> ConsensusKey {
        self.config.pair.public()
    }

    /// Takes one event and says what to do. `now` is Unix milliseconds; a clock that goes back is
    /// held at its latest value.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Action> {
        if self.halted {
            return Vec::new();
        }
        self.now = self.now.max(now);
        match event {
            Event::Start { records, guard } => self.on_start(&records, guard),
            Event::Gossip { id, topic, from, bytes } => self.on_gossip(id, topic, from, bytes),
            Event::Submit { id, bytes } => self.on_submit(id, &bytes),
            Event::Timer(id) => self.on_timer(id),
            Event::Committed { height } => self.on_committed(height),
            Event::ChainTip(tip) => self.chain.set_tip(self.now, tip),
            Event::ChainAnswer { reference, answer } => self.chain.answer(self.now, &reference, answer),
            Event::PeerStatus { peer, height } => self.sync.hint(self.now, peer, height),
            Event::PeerGone(peer) => self.sync.gone(&peer),
            Event::Request { id, from, bytes } => self.on_request(id, from, &bytes),
            Event::Response { id, from, bytes } => self.on_response(id, from, bytes),
        }
        self.settle();
        std::mem::take(&mut self.actions)
    }

    /// The ledger, for queries.
    pub fn ledger(&self) -> &Ledger<S> {
        &self.ledger
    }

    /// The ledger, for a driver that writes its commits into the store itself.
    pub fn ledger_mut(&mut self) -> &mut Ledger<S> {
        &mut self.ledger
    }

    /// Where the machine stands.
    pub fn status(&self) -> Status {
        let head = self.ledger.head();
        let set = &self.set;
        let network_height = self.sync.credible(|k| set.power(k), set.total());
        let step = match self.phase {
            _ if self.halted => "halted",
            Phase::Stopped | Phase::Waiting { starting: true, .. } => "starting",
            Phase::Waiting { .. } if network_height > head.height + 1 => "catching up",
            Phase::Waiting { .. } => "waiting",
            Phase::Running => self.engine.step(),
            Phase::Committing { .. } => "commit",
        };
        let (peers, peers_behind) = self.sync.counts(head.height);
        Status {
            height: head.height,
            digest: head.digest,
            time_ms: head.time_ms,
            round: if self.is_running() { self.engine.round() } else { None },
            step,
            voting: self.votes_at(head.height + 1),
            peers,
            peers_behind,
            network_height,
            highest_claim: self.sync.highest(),
            mempool: self.mempool.len(),
        }
    }

    /// Transactions that wait for a block, by arrival: nothing about them is agreed.
    pub fn waiting(&self) -> impl Iterator<Item = &perturb_ledger::Transaction> {
        self.mempool.waiting()
    }

    /// Another number after each change of what waits.
    pub fn waiting_version(&self) -> u64 {
        self.mempool.version()
    }

    /// How much the machine holds.
    pub fn load(&self) -> Load {
        Load {
            transactions: self.mempool.len(),
            blocks: self.candidates.len(),
            peers: self.sync.counts(0).0,
            range: self.sync.queue.len(),
            early: self.early.len(),
            messages: self.quota.len(),
            timers: self.timers.len(),
        }
    }

    fn on_start(&mut self, records: &[Vec<u8>], guard: Option<GuardMark>) {
        if self.phase != Phase::Stopped {
            return;
        }
        let height = self.ledger.head().height + 1;
        let mut log = Vec::with_capacity(records.len());
        for bytes in records {
            match Record::decode(bytes) {
                Ok(record) => log.push(record),
                Err(e) => return self.halt(format!("the consensus log is damaged: {e}")),
            }
        }
        self.released = guard;
        let logged = log.iter().filter_map(|r| self.own_position(r)).max();
        if let Some(mark) = guard.filter(|m| m.height >= height && Some(m.position()) > logged) {
            tracing::warn!(%mark, "the guard knows of a signature that the log has lost: following without voting");
            self.muted_to = if self.config.planted == Planted::UnmutedRestart { 0 } else { mark.height };
        }
        if log.contains(&Record::Following) {
            self.muted_to = self.muted_to.max(height);
        }
        let set = self.set.clone();
        self.engine = Engine::new(self.network, &self.config, Guard::new(guard), height, set.clone());
        self.set_timer(TimerId::Tick, self.now.saturating_add(TICK_MS));
        self.height_started = self.now;
        if log.is_empty() {
            let at = self.now.saturating_add(self.config.startup_grace_ms);
            self.phase = Phase::Waiting { at, starting: true };
            self.set_timer(TimerId::NextHeight, at);
            return;
        }
        // The height was in progress: take it up where it was left.
        self.phase = Phase::Running;
        self.candidates.start(height);
        self.restore_candidates(&log);
        let vote = self.votes_at(height);
        if self.config.planted == Planted::DroppedLocks {
            let me = self.config.pair.public();
            log.retain(|r| !matches!(r, Record::Polka(_)) && !matches!(r, Record::Vote(v) if v.voter != me));
        }
        let outputs = self.engine.replay(height, set, vote, &log);
        self.perform(outputs);
    }

    fn on_timer(&mut self, id: TimerId) {
        // A timer that was cancelled or set anew while it fired is not ours any more.
        if self.timers.get(&id).is_none_or(|at| *at > self.now) {
            return;
        }
        self.timers.remove(&id);
        match id {
            TimerId::Engine { height, round, wait } => {
                if self.is_running() && height == self.engine.height() {
                    let outputs = self.engine.timeout(wait, round);
                    self.perform(outputs);
                }
            }
            TimerId::NextHeight => {}
            TimerId::Tick => {
                self.on_tick();
                self.set_timer(TimerId::Tick, self.now.saturating_add(TICK_MS));
            }
        }
    }

    fn on_tick(&mut self) {
        if self.last_beacon.is_none_or(|at| self.now >= at.saturating_add(BEACON_MS)) {
            self.send_beacon();
        }
        self.plan_range();
        for bytes in self.mempool.due(self.now) {
            self.push(Action::Broadcast { topic: crate::wire::Topic::Rounds, bytes });
        }
    }

    /// Moves on for as long as something can be moved without another event.
    fn settle(&mut self) {
        loop {
            if self.halted {
                return;
            }
            let moved = match self.phase {
                Phase::Stopped | Phase::Committing { .. } => false,
                Phase::Waiting { at, starting } => self.apply_queued() || self.maybe_start(at, starting),
                Phase::Running => {
                    self.apply_queued()
                        || self.let_in()
                        || self.pass_over_old()
                        || self.work_on_candidates()
                        || self.try_build()
                }
            };
            if !moved {
                return;
            }
        }
    }

    fn maybe_start(&mut self, at: Millis, starting: bool) -> bool {
        let head = self.ledger.head().height;
        let set = &self.set;
        if self.sync.credible(|k| set.power(k), set.total()) > head + 1 {
            return false;
        }
        let due = self.now >= at || if starting { self.quorum_heard() } else { self.others_began() };
        if due {
            self.start_height();
        }
        due
    }

    /// Whether the validators heard, this one included, are a quorum.
    fn quorum_heard(&self) -> bool {
        let set = &self.set;
        let me = self.config.pair.public();
        let others = self.sync.heard(|k| set.power(k).filter(|_| *k != me));
        (others + u128::from(set.power(&me).unwrap_or(0))) * 3 > u128::from(set.total()) * 2
    }

    /// Whether more than a third, and so somebody honest, is at the next height. Who began one late would else begin
    /// each one late by as much, and let all wait whenever it proposes.
    fn others_began(&self) -> bool {
        let heard = self.quota.heard_at(self.working_height());
        heard.map(|key| u128::from(self.set.power(&key).unwrap_or(0))).sum::<u128>() * 3 > u128::from(self.set.total())
    }

    fn start_height(&mut self) {
        let height = self.ledger.head().height + 1;
        self.cancel(TimerId::NextHeight);
        self.phase = Phase::Running;
        self.height_started = self.now;
        self.candidates.start(height);
        self.early.start(height);
        self.quota.start(height);
        let vote = self.votes_at(height);
        if !vote {
            self.append_at(height, &Record::Following);
        }
        let outputs = self.engine.start_height(height, self.set.clone(), vote);
        self.perform(outputs);
    }

    fn on_committed(&mut self, height: u64) {
        let Phase::Committing { height: expected, next_at } = self.phase else { return };
        if height != expected {
            return self.halt(format!("the driver committed height {height} where {expected} was due"));
        }
        self.mempool.recheck(&self.ledger);
        self.take_up_key();
        let at = next_at.max(self.now);
        self.phase = Phase::Waiting { at, starting: false };
        self.set_timer(TimerId::NextHeight, at);
        self.send_beacon();
        self.plan_range();
    }

    /// Takes up another key of this node's where the next height's set names it for its hotkey.
    /// The engine begins anew with it: between two heights it holds at most early messages, which are
    /// repeated.
    fn take_up_key(&mut self) {
        let member = self.hotkey.as_ref().and_then(|hotkey| self.ledger.validators().by_hotkey(hotkey));
        let Some(named) = member.map(|member| member.key).filter(|key| *key != self.key()) else { return };
        let Some(at) = self.spare.iter().position(|spare| spare.pair.public() == named) else { return };
        let next = self.spare.swap_remove(at);
        let pair = std::mem::replace(&mut self.config.pair, next.pair);
        let released = std::mem::replace(&mut self.released, next.released);
        self.spare.push(Spare { pair, released });
        let height = self.working_height();
        // It has signed here before: another node uses it, or the database was rolled back.
        if let Some(mark) = self.released.filter(|mark| mark.height >= height) {
            tracing::warn!(%mark, "the next key's guard is ahead: following without voting");
            self.muted_to = self.muted_to.max(mark.height);
        }
        tracing::info!(key = %self.key(), height, "signing with another consensus key from here on");
        self.engine = Engine::new(self.network, &self.config, Guard::new(self.released), height, self.set.clone());
    }

    fn votes_at(&self, height: u64) -> bool {
        height > self.muted_to
    }

    fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// The height that gossip is for: the one after the head.
    fn working_height(&self) -> u64 {
        self.ledger.head().height + 1
    }

    /// The proposer by the set of the height after the head.
    pub fn proposer(&self, height: u64, round: u32) -> ConsensusKey {
        self.set.proposer_key(height, round)
    }

    /// Takes over the set that the newest block made.
    fn renew_set(&mut self) {
        match engine_set(&self.ledger) {
            Some(set) => self.set = set,
            None => self.halt(SetupError::BadSet { height: self.working_height() }.to_string()),
        }
    }

    fn push(&mut self, action: Action) {
        if !self.halted {
            self.actions.push(action);
        }
    }

    fn halt(&mut self, reason: String) {
        tracing::error!(%reason, "consensus halts");
        self.push(Action::Halt { reason });
        self.halted = true;
    }

    fn diverged(&mut self, height: u64, reason: String) {
        tracing::error!(height, %reason, "this node's state is not the agreed one");
        self.push(Action::Diverged { height, reason });
        self.halted = true;
    }

    fn set_timer(&mut self, id: TimerId, at: Millis) {
        self.timers.insert(id, at);
        self.push(Action::SetTimer { id, at });
    }

    fn cancel(&mut self, id: TimerId) {
        if self.timers.remove(&id).is_some() {
            self.push(Action::CancelTimer { id });
        }
    }

    fn cancel_engine_timers(&mut self) {
        let live: Vec<TimerId> =
            self.timers.keys().filter(|id| matches!(id, TimerId::Engine { .. })).copied().collect();
        for id in live {
            self.cancel(id);
        }
    }

    fn engine_timer(&self, wait: Wait, round: u32) -> TimerId {
        TimerId::Engine { height: self.engine.height(), round, wait }
    }
}

/// The engine's form of the set for the height after the head.
fn engine_set<S: StateStore>(ledger: &Ledger<S>) -> Option<Set> {
    Set::new(ledger.validators().iter().map(|v| (v.key, v.power)))
}
