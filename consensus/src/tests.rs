//! Four machines over memory stores in virtual time: the same machine that a node drives.
//!
//! The harness is a driver without sockets: it delivers what is broadcast after a seeded delay, keeps
//! each node's log as a disk would (what was not synced is lost with a crash), and refuses what the
//! guard's file would refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;
mod clock;
mod hazards;

use std::collections::{BTreeMap, BinaryHeap};

use perturb_challenge::rules::Rules;
use perturb_ledger::genesis::{Aggregation, ChallengeSpec, Genesis, GenesisDelegation, Parameters, Timeouts};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::tx::{Delegation, Neuron, Readiness, Snapshot};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{ChainReference, Ledger, MemoryStore, Transaction};
use perturb_types::{Beacon, ChallengeId, ConsensusPair, Digest, HotkeyPair, NetworkId, Signed, encode};

use crate::event::{Action, ChainAnswer, Event, TimerId, Verdict};
use crate::guard::GuardMark;
use crate::machine::{Config, Machine};
use crate::wire::{Peer, Response, Topic};

fn reference(number: u64, epoch_index: u64) -> ChainReference {
    ChainReference { number, hash: Digest([number as u8; 32]), epoch_index }
}

fn snapshot(hotkeys: &[HotkeyPair], reference: ChainReference) -> Snapshot {
    let neuron = |(uid, p): (usize, &HotkeyPair)| Neuron {
        uid: uid as u16,
        hotkey: p.hotkey(),
        coldkey: [uid as u8; 32],
        stake_rao: 5000,
        permit: true,
    };
    Snapshot {
        reference,
        tempo: 10,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: hotkeys.iter().enumerate().map(neuron).collect(),
    }
}

#[derive(Clone)]
struct Keys {
    hotkeys: Vec<HotkeyPair>,
    pairs: Vec<ConsensusPair>,
    genesis: Genesis,
}

/// `n` permit holders, the first `founders` of them in genesis.
fn keys(n: u8, founders: usize) -> Keys {
    let hotkeys: Vec<_> = (1..=n).map(|i| HotkeyPair::from_seed(&[i; 32]).unwrap()).collect();
    let pairs: Vec<_> = (1..=n).map(|i| ConsensusPair::from_seed(&[100 + i; 32])).collect();
    let zero = NetworkId([0; 32]);
    let genesis = Genesis {
        chain_genesis: Digest([1; 32]),
        netuid: 2,
        time_ms: 1000,
        snapshot: snapshot(&hotkeys, reference(1, 0)),
        delegations: (0..founders)
            .map(|i| GenesisDelegation::of(&Delegation::sign(&zero, &hotkeys[i], &pairs[i], 0)))
            .collect(),
        owner: hotkeys[0].hotkey(),
        challenges: vec![ChallengeSpec {
            id: ChallengeId(0),
            mechanism: 0,
            rules: Rules::subnet(),
            model: "demo".into(),
            model_digest: Digest([2; 32]),
            source: "demo:1:100".into(),
            source_fingerprint: Digest([3; 32]),
            source_len: 100,
            interval_ms: 1000,
            miners_per_round: 8,
            aggregation: Aggregation::Quantile,
            min_confidence: 50_000,
        }],
        parameters: Parameters {
            min_stake_rao: 1000,
            power: PowerRule::Equal,
            block_interval_ms: 500,
            max_block_transactions: 100,
            max_block_bytes: 1 << 20,
            max_rounds_per_epoch: 100,
            open_round_blocks: 20,
            burn_uid: 0,
            timeouts: Timeouts {
                propose_ms: 1000,
                propose_delta_ms: 200,
                prevote_ms: 500,
                prevote_delta_ms: 200,
                precommit_ms: 500,
                precommit_delta_ms: 200,
            },
            spot_checks: Default::default(),
            reputation: Default::default(),
            min_work: 10,
            proposal_age_ms: 10_000,
            order_delay_blocks: 1,
            draws: Default::default(),
        },
        beacon: Beacon::DEVELOPMENT,
    };
    Keys { hotkeys, pairs, genesis }
}

/// What a node's disk holds.
#[derive(Clone, Default)]
struct Disk {
    store: MemoryStore,
    synced: Vec<(u64, Vec<u8>)>,
    unsynced: Vec<(u64, Vec<u8>)>,
    guard: Option<GuardMark>,
    /// The guard of the node's other key.
    spare_guard: Option<GuardMark>,
}

struct Node {
    machine: Option<Machine<MemoryStore>>,
    disk: Disk,
    timers: BTreeMap<TimerId, u64>,
}

/// Something that will happen to a node; the heap's top is the earliest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due(std::cmp::Reverse<(u64, u64)>, usize);

struct Net {
    keys: Keys,
    nodes: Vec<Node>,
    now: u64,
    heap: BinaryHeap<Due>,
    events: BTreeMap<u64, Event>,
    next: u64,
    seed: u64,
    tip: ChainReference,
    /// The second consensus keys of nodes that have one.
    spare: BTreeMap<usize, ConsensusPair>,
    /// How far each node's clock is off, milliseconds; none where nothing is said.
    skews: Vec<i64>,
    /// Nodes that hear and say nothing.
    cut: Vec<usize>,
    /// The chain nodes do not answer.
    away: bool,
    /// Topics on which nothing arrives.
    lost: Vec<Topic>,
    /// Messages of a hundred that are lost.
    loss: u64,
    /// The furthest that a timer was ever set ahead.
    longest_timer_ms: u64,
    /// Every decided digest by height: agreement's oracle.
    decided: BTreeMap<u64, Digest>,
}

fn peer(i: usize) -> Peer {
    Peer([i as u8 + 1; 32])
}

impl Net {
    fn new(n: u8, founders: usize, seed: u64) -> Self {
        Self::of(keys(n, founders), seed)
    }

    fn of(keys: Keys, seed: u64) -> Self {
        let mut disk = Disk::default();
        disk.store.commit(&genesis_commit(&keys.genesis).unwrap());
        let nodes =
            keys.pairs.iter().map(|_| Node { machine: None, disk: disk.clone(), timers: BTreeMap::new() }).collect();
        Self {
            keys,
            nodes,
            now: 1_000_000,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            seed,
            tip: reference(1, 0),
            spare: BTreeMap::new(),
            skews: Vec::new(),
            cut: Vec::new(),
            away: false,
            lost: Vec::new(),
            loss: 0,
            longest_timer_ms: 0,
            decided: BTreeMap::new(),
        }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    fn start(&mut self, i: usize) {
        let disk = &self.nodes[i].disk;
        let mut store = disk.store.clone();
        let ledger = Ledger::new(self.keys.genesis.clone(), std::mem::take(&mut store)).unwrap();
        let height = ledger.head().height + 1;
        let records = disk.synced.iter().filter(|(h, _)| *h == height).map(|(_, r)| r.clone()).collect();
        // As a node does: the key that the set names is the one to begin with.
        let mut keys = vec![(self.keys.pairs[i].clone(), disk.guard)];
        keys.extend(self.spare.get(&i).map(|pair| (pair.clone(), disk.spare_guard)));
        keys.sort_by_key(|(pair, _)| ledger.validators().by_key(&pair.public()).is_none());
        let (pair, guard) = keys.remove(0);
        let config = Config { pair, peer: peer(i), startup_grace_ms: 500, planted: Default::default() };
        let machine = Machine::new(config, ledger).unwrap();
        self.nodes[i].machine = Some(machine.with_spare_keys(self.keys.hotkeys[i].hotkey(), keys));
        self.step(i, Event::Start { records, guard });
        let tip = self.tip.clone();
        self.step(i, Event::ChainTip(tip));
    }

    /// Power loss: what was not synced is gone.
    fn crash(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.machine = None;
        node.disk.unsynced.clear();
        node.timers.clear();
    }

    fn later(&mut self, i: usize, delay: u64, event: Event) {
        self.next += 1;
        self.events.insert(self.next, event);
        self.heap.push(Due(std::cmp::Reverse((self.now + delay, self.next)), i));
    }

    fn skew(&self, i: usize) -> i64 {
        self.skews.get(i).copied().unwrap_or(0)
    }

    fn step(&mut self, i: usize, event: Event) {
        let clock = self.now.saturating_add_signed(self.skew(i));
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(machine) = self.nodes[i].machine.as_mut() else { return };
            for action in machine.step(clock, event) {
                if let Some(next) = self.act(i, action) {
                    events.push_back(next);
                }
            }
        }
    }

    fn act(&mut self, i: usize, action: Action) -> Option<Event> {
        match action {
            Action::AppendLog { height, record } => self.nodes[i].disk.unsynced.push((height, record)),
            Action::SyncLog => {
                let disk = &mut self.nodes[i].disk;
                disk.synced.append(&mut disk.unsynced);
            }
            Action::Guard { key, mark } => {
                let disk = &mut self.nodes[i].disk;
                let is_first = key == self.keys.pairs[i].public();
                let guard = if is_first { &mut disk.guard } else { &mut disk.spare_guard };
                assert!(!guard.is_some_and(|g| g.forbids(&mark)), "node {i} signs {mark} after {guard:?}");
                *guard = Some(mark);
            }
            Action::Broadcast { topic, bytes } => {
                assert!(
                    topic != Topic::Consensus || self.nodes[i].disk.unsynced.is_empty(),
                    "node {i} speaks before its log is synced"
                );
                for j in (0..self.nodes.len()).filter(|j| *j != i) {
                    if self.lost.contains(&topic) || self.random() % 100 < self.loss {
                        continue;
                    }
                    let delay = 5 + self.random() % 60;
                    let from = peer(i);
                    let id = self.next;
                    self.send(i, j, delay, Event::Gossip { id, topic, from, bytes: bytes.clone() });
                }
            }
            Action::Ask { id, to, bytes } => {
                let j = usize::from(to.0[0]) - 1;
                // The asker's number travels in the name of the request.
                self.send(i, j, 20, Event::Request { id: id << 8 | i as u64, from: peer(i), bytes });
            }
            Action::Answer { id, bytes } => self.reply(i, id, bytes),
            Action::ServeRange { id, from, count } => {
                let store = &self.nodes[i].disk.store;
                let blocks = (from..from + u64::from(count)).map_while(|h| {
                    let (block, certificate) = store.block(h)?;
                    Some((encode::encode(block), encode::encode(certificate.as_ref()?)))
                });
                let bytes = encode::encode(&Response::range(blocks.collect::<Vec<_>>()));
                self.reply(i, id, bytes);
            }
            Action::SetTimer { id, at } => {
                let at = at.saturating_add_signed(-self.skew(i));
                self.longest_timer_ms = self.longest_timer_ms.max(at.saturating_sub(self.now));
                self.nodes[i].timers.insert(id, at);
            }
            Action::CancelTimer { id } => {
                self.nodes[i].timers.remove(&id);
            }
            Action::Commit(commit) => {
                let known = *self.decided.entry(commit.height).or_insert(commit.digest);
                assert_eq!(known, commit.digest, "node {i} decides another block at height {}", commit.height);
                let node = &mut self.nodes[i];
                node.disk.store.commit(&commit);
                node.disk.synced.retain(|(h, _)| *h > commit.height);
                node.disk.unsynced.clear();
                node.machine.as_mut().unwrap().ledger_mut().store_mut().commit(&commit);
                return Some(Event::Committed { height: commit.height });
            }
            Action::ChainQuery { reference, snapshot: wanted } => {
                let answer = if self.away {
                    ChainAnswer::Unavailable
                } else if reference.number > self.tip.number {
                    ChainAnswer::Ahead
                } else {
                    let snapshot = wanted.then(|| snapshot(&self.keys.hotkeys, reference.clone()));
                    ChainAnswer::OnChain { snapshot }
                };
                self.later(i, 30, Event::ChainAnswer { reference, answer });
            }
            Action::Verdict { verdict: Verdict::Reject(why), .. } => panic!("an honest message was rejected: {why}"),
            Action::Verdict { .. } => {}
            Action::Penalise { reason, .. } => panic!("an honest peer was blamed: {reason}"),
            Action::Diverged { height, reason } => panic!("node {i} diverged at {height}: {reason}"),
            Action::Halt { reason } => panic!("node {i} halts: {reason}"),
        }
        None
    }

    fn send(&mut self, from: usize, to: usize, delay: u64, event: Event) {
        if !self.cut.contains(&from) && !self.cut.contains(&to) {
            self.later(to, delay, event);
        }
    }

    fn reply(&mut self, i: usize, id: u64, bytes: Vec<u8>) {
        let asker = (id & 0xff) as usize;
        self.send(i, asker, 20, Event::Response { id: id >> 8, from: peer(i), bytes: Some(bytes) });
    }

    /// The next thing: a due event or a timer.
    fn advance(&mut self) {
        let timer =
            self.nodes.iter().enumerate().flat_map(|(i, n)| n.timers.iter().map(move |(id, at)| (*at, i, *id))).min();
        let event = self.heap.peek().map(|Due(std::cmp::Reverse((at, _)), _)| *at);
        match (timer, event) {
            (Some((at, i, id)), e) if e.is_none_or(|e| at <= e) => {
                self.now = self.now.max(at);
                self.nodes[i].timers.remove(&id);
                self.step(i, Event::Timer(id));
            }
            _ => {
                let Some(Due(std::cmp::Reverse((at, n)), i)) = self.heap.pop() else { panic!("nothing will happen") };
                self.now = self.now.max(at);
                let event = self.events.remove(&n).unwrap();
                self.step(i, event);
            }
        }
    }

    fn height(&self, i: usize) -> u64 {
        self.nodes[i].machine.as_ref().map_or(0, |m| m.ledger().head().height)
    }

    /// Runs until `done`, for at most `patience` virtual milliseconds.
    fn until(&mut self, what: &str, patience: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now + patience;
        while !done(self) {
            assert!(self.now < end, "{what}: not within {patience} ms; heights {:?}", self.heights());
            self.advance();
        }
    }

    fn heights(&self) -> Vec<u64> {
        (0..self.nodes.len()).map(|i| self.height(i)).collect()
    }

    fn set_tip(&mut self, tip: ChainReference) {
        self.tip = tip.clone();
        for i in 0..self.nodes.len() {
            self.step(i, Event::ChainTip(tip.clone()));
        }
    }

    fn submit(&mut self, i: usize, transaction: &Transaction) {
        self.step(i, Event::Submit { id: 0, bytes: encode::encode(transaction) });
    }
}

fn ready(net: &Net, i: usize, epoch: u64) -> Transaction {
    let ready = Readiness { hotkey: net.keys.hotkeys[i].hotkey(), epoch };
    Transaction::Readiness(Signed::sign(&net.keys.pairs[i], &net.keys.genesis.network_id(), ready).into_envelope())
}

#[test]
fn four_agree_over_many_heights_and_an_epochs_close() {
    for seed in 0..3 {
        let mut net = Net::new(4, 4, seed);
        (0..4).for_each(|i| net.start(i));
        net.until("ten heights", 60_000, |n| n.heights().iter().all(|h| *h >= 10));
        net.set_tip(reference(9, 1));
        net.until("twenty heights", 60_000, |n| n.heights().iter().all(|h| *h >= 20));
        let heads: Vec<_> = net.nodes.iter().map(|n| n.machine.as_ref().unwrap().ledger().head().epoch).collect();
        assert_eq!(heads, [1; 4]);
    }
}

#[test]
fn three_of_four_go_on_and_two_do_not() {
    let mut net = Net::new(4, 4, 7);
    (0..4).for_each(|i| net.start(i));
    net.until("a start", 60_000, |n| n.heights().iter().all(|h| *h >= 3));
    net.crash(3);
    let at = net.height(0);
    net.until("three go on", 60_000, |n| (0..3).all(|i| n.height(i) >= at + 6));
    net.crash(2);
    let (at, end) = (net.height(0).max(net.height(1)), net.now + 20_000);
    while net.now < end {
        net.advance();
    }
    assert!(net.height(0) <= at + 1 && net.height(1) <= at + 1, "two of four must not decide");
}

#[test]
fn a_crashed_node_takes_up_its_log_and_never_signs_twice() {
    for seed in 0..6 {
        let mut net = Net::new(4, 4, 100 + seed);
        (0..4).for_each(|i| net.start(i));
        for round in 0..5u64 {
            // Somewhere in the middle of a height.
            for _ in 0..40 + (seed * 31 + round * 17) % 90 {
                net.advance();
            }
            let victim = (round % 4) as usize;
            net.crash(victim);
            for _ in 0..25 {
                net.advance();
            }
            net.start(victim);
        }
        let at = net.heights().into_iter().max().unwrap();
        net.until("all go on", 120_000, |n| n.heights().iter().all(|h| *h >= at + 3));
    }
}

#[test]
fn a_node_that_was_cut_off_catches_up_by_ranges() {
    let mut net = Net::new(4, 4, 21);
    (0..4).for_each(|i| net.start(i));
    net.until("a start", 60_000, |n| n.heights().iter().all(|h| *h >= 2));
    net.cut = vec![3];
    let at = net.height(0);
    net.until("the others go on", 120_000, |n| n.height(0) >= at + 15);
    net.cut.clear();
    net.until("it has caught up", 60_000, |n| n.height(3) + 1 >= n.height(0));
    assert!(net.height(3) >= at + 15);
}

#[test]
fn a_fifth_validator_joins_empty_registers_and_votes_in_the_next_epoch() {
    let mut net = Net::new(5, 4, 33);
    (0..4).for_each(|i| net.start(i));
    net.until("a start", 60_000, |n| (0..4).all(|i| n.height(i) >= 5));
    net.start(4);
    net.until("it has caught up", 60_000, |n| n.height(4) + 1 >= n.height(0));
    let id = net.keys.genesis.network_id();
    let delegation = Delegation::sign(&id, &net.keys.hotkeys[4], &net.keys.pairs[4], 0);
    net.submit(4, &Transaction::KeyDelegation(Box::new(delegation)));
    for i in 0..4 {
        let tx = ready(&net, i, 0);
        net.submit(i, &tx);
    }
    let at = net.height(0);
    net.until("the key is registered", 60_000, |n| n.height(0) >= at + 4);
    let tx = ready(&net, 4, 0);
    net.submit(4, &tx);
    net.until("the readiness is agreed", 60_000, |n| n.height(0) >= at + 8);
    net.set_tip(reference(9, 1));
    net.until("the set changes", 60_000, |n| {
        n.nodes.iter().all(|n| n.machine.as_ref().unwrap().ledger().validators().len() == 5)
    });
    // With one founder gone, four of five are needed: the fifth must vote.
    net.crash(0);
    let at = net.height(1);
    net.until("the five go on without one", 120_000, |n| (1..5).all(|i| n.height(i) >= at + 4));
}

/// Two of four validators register their next keys; the set of the next epoch names them.
fn rotated(seed: u64) -> Net {
    let mut net = Net::new(4, 4, seed);
    for i in [0, 1] {
        net.spare.insert(i, ConsensusPair::from_seed(&[200 + i as u8; 32]));
    }
    (0..4).for_each(|i| net.start(i));
    net.until("a start", 60_000, |n| n.heights().iter().all(|h| *h >= 3));
    let id = net.keys.genesis.network_id();
    for i in [0, 1] {
        let delegation = Delegation::sign(&id, &net.keys.hotkeys[i], &net.spare[&i], 1);
        net.submit(i, &Transaction::KeyDelegation(Box::new(delegation)));
    }
    for i in [2, 3] {
        let tx = ready(&net, i, 0);
        net.submit(i, &tx);
    }
    let at = net.height(0);
    net.until("the next keys are registered", 60_000, |n| n.height(0) >= at + 4);
    for i in [0, 1] {
        let ready = Readiness { hotkey: net.keys.hotkeys[i].hotkey(), epoch: 0 };
        let tx = Transaction::Readiness(Signed::sign(&net.spare[&i], &id, ready).into_envelope());
        net.submit(i, &tx);
    }
    let at = net.height(0);
    net.until("they are ready", 60_000, |n| n.height(0) >= at + 4);
    assert!([0, 1].iter().all(|i| net.nodes[*i].machine.as_ref().unwrap().key() == net.keys.pairs[*i].public()));
    assert!([0, 1].iter().all(|i| net.nodes[*i].disk.spare_guard.is_none()), "the next key has signed nothing");
    net
}

fn names_the_next_keys(net: &Net, i: usize) -> bool {
    let Some(machine) = net.nodes[i].machine.as_ref() else { return true };
    net.spare.values().all(|pair| machine.ledger().validators().by_key(&pair.public()).is_some())
}

#[test]
fn the_next_keys_take_over_with_the_epoch_whose_set_names_them_and_the_old_ones_fall_silent() {
    let mut net = rotated(81);
    net.set_tip(reference(9, 1));
    net.until("the set changes", 60_000, |n| (0..4).all(|i| names_the_next_keys(n, i)));
    let old: Vec<_> = net.nodes.iter().map(|n| n.disk.guard).collect();
    // Three of four are needed: both new keys have to vote.
    net.crash(3);
    let at = net.height(0);
    net.until("they go on without the fourth", 120_000, |n| (0..3).all(|i| n.height(i) >= at + 6));
    for i in [0, 1] {
        assert_eq!(net.nodes[i].machine.as_ref().unwrap().key(), net.spare[&i].public());
        assert_eq!(net.nodes[i].disk.guard, old[i], "the old key signs nothing any more");
        let (old, new) = (old[i].unwrap().height, net.nodes[i].disk.spare_guard.unwrap().height);
        assert!(old < new, "{old} {new}");
    }
}

#[test]
fn a_node_that_dies_before_at_or_after_the_hand_over_signs_with_the_key_that_the_set_names() {
    for (seed, dies_ms) in [(82, 0), (83, 400), (84, 1_500)] {
        let mut net = rotated(seed);
        net.set_tip(reference(9, 1));
        let until = net.now + dies_ms;
        net.until("a moment of the hand-over", 60_000, |n| n.now >= until);
        net.crash(0);
        let at = net.height(1);
        net.until("the others change the set", 120_000, |n| n.height(1) >= at + 6);
        assert!((1..4).all(|i| names_the_next_keys(&net, i)), "seed {seed}");
        net.start(0);
        net.until("it has caught up", 60_000, |n| n.height(0) + 1 >= n.height(1));
        net.crash(2);
        let at = net.height(1);
        net.until("they go on with its new key", 120_000, |n| n.height(0) >= at + 4);
        assert_eq!(net.nodes[0].machine.as_ref().unwrap().key(), net.spare[&0].public());
        assert!(net.nodes[0].disk.spare_guard.is_some());
    }
}

#[test]
fn without_the_chain_blocks_go_on_and_the_reference_is_repeated() {
    let mut net = Net::new(4, 4, 44);
    (0..4).for_each(|i| net.start(i));
    net.until("heights without a new tip", 60_000, |n| n.heights().iter().all(|h| *h >= 5));
    let head = net.nodes[0].machine.as_ref().unwrap().ledger().head().clone();
    assert_eq!(head.reference, reference(1, 0));
}

#[test]
fn forged_strange_and_oversized_messages_are_refused() {
    let mut net = Net::new(4, 4, 55);
    net.start(0);
    let mut verdict = |topic: Topic, bytes: Vec<u8>| {
        let now = net.now;
        let machine = net.nodes[0].machine.as_mut().unwrap();
        let event = Event::Gossip { id: 1, topic, from: peer(1), bytes };
        let actions = machine.step(now, event);
        let found = actions
            .into_iter()
            .find_map(|a| if let Action::Verdict { verdict, .. } = a { Some(verdict) } else { None });
        found.expect("every message gets a verdict")
    };
    for topic in [Topic::Consensus, Topic::Blocks, Topic::Rounds, Topic::Status] {
        assert!(matches!(verdict(topic, vec![0xff; 40]), Verdict::Reject(_)), "{topic:?}");
        assert!(matches!(verdict(topic, vec![0; topic.max_bytes() + 1]), Verdict::Reject(_)), "{topic:?}");
    }
    // A readiness signed for another network.
    let other = Readiness { hotkey: perturb_types::Hotkey([1; 32]), epoch: 0 };
    let envelope = Signed::sign(&ConsensusPair::from_seed(&[101; 32]), &NetworkId([9; 32]), other).into_envelope();
    assert!(matches!(verdict(Topic::Rounds, encode::encode(&Transaction::Readiness(envelope))), Verdict::Reject(_)));
}
