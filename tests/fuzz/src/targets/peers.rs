//! A driver around one machine: a disk, timers, and the rules that its actions have to keep.

use std::collections::BTreeMap;

use perturb_consensus::machine::Config;
use perturb_consensus::record::Record;
use perturb_consensus::wire::{Gossip, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Peer, Request, Response, Topic};
use perturb_consensus::{Action, Event, GuardMark, Load, Machine, TimerId, Verdict};
use perturb_ledger::{ChainReference, MemoryStore, VoteKind};
use perturb_types::{Digest, encode};

use crate::world::{World, reference};

/// Bounds of [`Load`]: what `consensus/` writes down as its constants.
const MOST: Load =
    Load { transactions: 8192, blocks: 52, peers: 512, range: 64, early: 2 * 48, messages: 2 * 5 * 256, timers: 64 };

/// The name of a validator's connection.
pub(crate) fn peer(i: usize) -> Peer {
    Peer([i as u8 + 1; 32])
}

/// A height and round, with a vote's kind; a proposal has none.
type Place = (u64, u32, Option<VoteKind>);

/// One node: the machine, and what a driver keeps for it.
pub(crate) struct Host {
    world: &'static World,
    machine: Machine<MemoryStore>,
    me: usize,
    /// The driver's clock.
    pub(crate) now: u64,
    /// Timers set.
    pub(crate) timers: BTreeMap<TimerId, u64>,
    /// Requests that wait for an answer.
    pub(crate) asks: Vec<(u64, Peer, Request)>,
    /// Questions to the chain node.
    pub(crate) queries: Vec<(ChainReference, bool)>,
    /// Proposals that it made, with their heights.
    pub(crate) proposed: Vec<(Digest, u64)>,
    synced: Vec<(u64, Vec<u8>)>,
    unsynced: Vec<(u64, Vec<u8>)>,
    guard: Option<GuardMark>,
    /// What it signed.
    spoken: BTreeMap<Place, Option<Digest>>,
    serial: u64,
}

impl Host {
    /// A validator that starts over the world's state of a height.
    pub(crate) fn new(world: &'static World, me: usize, height: usize) -> Self {
        let mut host = Self {
            world,
            machine: machine(world, me, world.stores[height].clone()),
            me,
            now: 1_000_000,
            timers: BTreeMap::new(),
            asks: Vec::new(),
            queries: Vec::new(),
            proposed: Vec::new(),
            synced: Vec::new(),
            unsynced: Vec::new(),
            guard: None,
            spoken: BTreeMap::new(),
            serial: 0,
        };
        host.start();
        host
    }

    fn start(&mut self) {
        let height = self.head() + 1;
        let records = self.synced.iter().filter(|(h, _)| *h == height).map(|(_, r)| r.clone()).collect();
        let guard = self.guard;
        self.event(Event::Start { records, guard });
        self.event(Event::ChainTip(reference(self.machine.ledger().head().reference.epoch_index)));
    }

    /// Power loss: what was not synced is gone.
    pub(crate) fn restart(&mut self) {
        self.unsynced.clear();
        self.timers.clear();
        self.asks.clear();
        self.queries.clear();
        self.machine = machine(self.world, self.me, self.machine.ledger().store().clone());
        self.start();
    }

    /// The machine.
    pub(crate) fn machine(&self) -> &Machine<MemoryStore> {
        &self.machine
    }

    /// Its last committed height.
    pub(crate) fn head(&self) -> u64 {
        self.machine.ledger().head().height
    }

    /// What it holds.
    pub(crate) fn load(&self) -> Load {
        self.machine.load()
    }

    /// A gossiped message of a peer.
    pub(crate) fn gossip(&mut self, from: usize, topic: Topic, bytes: Vec<u8>) -> Vec<Action> {
        self.serial += 1;
        let id = self.serial;
        let actions = self.event(Event::Gossip { id, topic, from: peer(from), bytes });
        let mine = |a: &&Action| matches!(a, Action::Verdict { id: found, .. } if *found == id);
        assert!(actions.iter().filter(mine).count() == 1, "a message needs one verdict");
        actions
    }

    /// A request of a peer.
    pub(crate) fn request(&mut self, from: usize, bytes: Vec<u8>) {
        self.serial += 1;
        let id = self.serial;
        let actions = self.event(Event::Request { id, from: peer(from), bytes });
        let answers = actions.iter().filter(|a| match a {
            Action::Answer { id: found, bytes } => *found == id && bytes.len() <= MAX_RESPONSE_BYTES,
            Action::ServeRange { id: found, from, count } => {
                *found == id
                    && *from > 0
                    && u64::from(*count) <= self.head()
                    && *from + u64::from(*count) <= self.head() + 1
            }
            _ => false,
        });
        assert!(answers.count() == 1, "a request needs one answer");
    }

    /// The earliest timer fires.
    pub(crate) fn fire(&mut self) -> Vec<Action> {
        let Some((at, id)) = self.timers.iter().map(|(id, at)| (*at, *id)).min() else { return Vec::new() };
        self.now = self.now.max(at);
        self.timers.remove(&id);
        self.event(Event::Timer(id))
    }

    /// One event with everything that follows from it.
    pub(crate) fn event(&mut self, event: Event) -> Vec<Action> {
        let (mut all, mut next) = (Vec::new(), Some(event));
        while let Some(event) = next.take() {
            for action in self.machine.step(self.now, event) {
                self.act(&action, &mut next);
                all.push(action);
            }
        }
        self.check();
        all
    }

    /// What always holds.
    pub(crate) fn check(&self) {
        let load = self.machine.load();
        let within = load.transactions <= MOST.transactions
            && load.blocks <= MOST.blocks
            && load.peers <= MOST.peers
            && load.range <= MOST.range
            && load.early <= MOST.early
            && load.messages <= MOST.messages
            && load.timers <= MOST.timers;
        assert!(within, "{load:?} is over {MOST:?}");
        assert!(self.machine.status().step != "halted");
    }

    fn act(&mut self, action: &Action, next: &mut Option<Event>) {
        match action {
            Action::AppendLog { height, record } => {
                assert!(Record::decode(record).unwrap().encode() == *record);
                self.unsynced.push((*height, record.clone()));
            }
            Action::SyncLog => self.synced.append(&mut self.unsynced),
            Action::Guard { mark, .. } => {
                assert!(!self.guard.is_some_and(|g| g.forbids(mark)), "signs {mark} after {:?}", self.guard);
                self.guard = Some(*mark);
            }
            Action::Broadcast { topic, bytes } => {
                assert!(bytes.len() <= topic.max_bytes(), "{topic:?}: {} bytes", bytes.len());
                if *topic == Topic::Consensus {
                    assert!(self.unsynced.is_empty(), "speaks before its log is synced");
                    self.said(&Gossip::decode(bytes).unwrap());
                }
            }
            Action::Ask { id, to, bytes } => {
                let request = encode::decode::<Request>("request", bytes, MAX_REQUEST_BYTES).unwrap();
                self.asks.push((*id, *to, request));
                if self.asks.len() > 64 {
                    self.asks.remove(0);
                }
            }
            Action::Answer { bytes, .. } => {
                encode::decode::<Response>("response", bytes, MAX_RESPONSE_BYTES).unwrap();
            }
            Action::SetTimer { id, at } => {
                self.timers.insert(*id, *at);
            }
            Action::CancelTimer { id } => {
                self.timers.remove(id);
            }
            Action::Commit(commit) => {
                assert!(commit.certificate.is_some());
                self.machine.ledger_mut().store_mut().commit(commit);
                self.synced.retain(|(h, _)| *h > commit.height);
                self.unsynced.clear();
                *next = Some(Event::Committed { height: commit.height });
            }
            Action::ChainQuery { reference, snapshot } => {
                self.queries.push((reference.clone(), *snapshot));
                if self.queries.len() > 64 {
                    self.queries.remove(0);
                }
            }
            Action::Verdict { verdict: Verdict::Ignore(why) | Verdict::Reject(why), .. } => {
                assert!(why.len() < 4096, "a reason of {} bytes", why.len());
            }
            Action::Verdict { .. } | Action::ServeRange { .. } | Action::Penalise { .. } => {}
            Action::Diverged { height, reason } => panic!("diverged at {height}: {reason}"),
            Action::Halt { reason } => panic!("halts: {reason}"),
        }
    }

    /// Never two things for one place, and nothing of its own that does not verify.
    fn said(&mut self, message: &Gossip) {
        let (network, me) = (self.world.network, self.world.keys[self.me].public());
        let (place, digest) = match message {
            Gossip::Vote(v) if v.voter == me => {
                assert!(v.verify(&network));
                ((v.height, v.round, Some(v.step)), v.digest)
            }
            Gossip::Proposal(p) if p.proposer == me => {
                assert!(p.verify(&network));
                self.proposed.push((p.digest, p.height));
                ((p.height, p.round, None), Some(p.digest))
            }
            _ => return,
        };
        let first = *self.spoken.entry(place).or_insert(digest);
        assert!(first == digest, "signs {first:?} and {digest:?} at {place:?}");
    }
}

fn machine(world: &World, me: usize, store: MemoryStore) -> Machine<MemoryStore> {
    let ledger = perturb_ledger::Ledger::new(world.genesis.clone(), store).unwrap();
    let config =
        Config { pair: world.keys[me].clone(), peer: peer(me), startup_grace_ms: 500, planted: Default::default() };
    Machine::new(config, ledger).unwrap()
}
