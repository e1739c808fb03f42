//! The driver: executes what the consensus machine orders, in its order, and feeds it what happens.
//!
//! The machine is pure. Here are its clock, its disk and its wires:
//!
//! - *Disk first.* Log records, the signing guard and commits are executed to their end before the
//!   next action; a failure stops the node, and the machine is never stepped again.
//! - *Wires never block.* Gossip, verdicts and answers go into a bounded outbox; when it is full
//!   the message is dropped, as a lossy network would (the engine repeats what matters). So the
//!   driver never waits for the network while the network waits for the driver.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use perturb_consensus::guard::Step;
use perturb_consensus::wire::{MAX_RANGE_BYTES, Peer, Response, Topic};
use perturb_consensus::{Action, ChainAnswer, Event, GuardMark, Machine, Millis, Status, TimerId, Verdict};
use perturb_ledger::{ChainReference, Transaction};
use perturb_p2p::{self as p2p, GossipId, NetworkHandle, PeerId, Protocol, ReplyChannel};
use perturb_storage::guard::Mark;
use perturb_storage::{Database, SigningGuard};
use perturb_types::{ConsensusKey, RoundResult};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, sleep_until};
use tokio_util::sync::CancellationToken;

use super::equivocate::Equivocator;
use super::faults::{Fault, Faults};
use crate::metagraph::Metagraph;

/// Events that wait for the machine: a block's votes of a full set and some rounds besides.
const EVENT_QUEUE: usize = 4096;

/// Messages that wait for the network.
const OUTBOX: usize = 4096;

/// How long a peer may take to answer a body or range request.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Milliseconds between two looks at what waits for a block.
const SHOW_MS: Millis = 500;

/// Waiting results shown: what people can read.
const MAX_SHOWN: usize = 256;

/// Something for the machine.
pub enum Input {
    /// An event without a reply.
    Event(Event),
    /// A gossip message, whose verdict goes back to the network.
    Gossip(p2p::Gossip),
    /// A peer's request.
    Request(p2p::Request),
    /// A transaction of this node's own; the verdict goes back to the caller.
    Submit(Vec<u8>, oneshot::Sender<Verdict>),
}

/// The way to the driver. Cheap to clone.
#[derive(Clone)]
pub struct DriverHandle {
    inputs: mpsc::Sender<Input>,
    status: watch::Receiver<Status>,
    waiting: watch::Receiver<Vec<RoundResult>>,
}

impl DriverHandle {
    /// Hands something to the machine; waits while its queue is full.
    pub async fn send(&self, input: Input) {
        // The driver's end is the node's end: there is nobody left to tell.
        let _ = self.inputs.send(input).await;
    }

    /// Submits a transaction of this node's own and waits for the verdict.
    pub async fn submit(&self, bytes: Vec<u8>) -> Verdict {
        let (tx, rx) = oneshot::channel();
        self.send(Input::Submit(bytes, tx)).await;
        rx.await.unwrap_or_else(|_| Verdict::Ignore("the node is stopping".into()))
    }

    /// Closed rounds that wait for a block, by arrival: the optimistic view's part.
    pub fn waiting(&self) -> watch::Receiver<Vec<RoundResult>> {
        self.waiting.clone()
    }

    /// Where the machine stands, and a way to wait for its change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

enum Out {
    Publish(p2p::Topic, Vec<u8>),
    Report(GossipId, p2p::Verdict),
}

enum Waiting {
    Gossip(GossipId),
    Submit(oneshot::Sender<Verdict>),
}

/// A clock in Unix milliseconds that never steps back while the process runs.
struct Clock {
    base_ms: Millis,
    began: Instant,
}

impl Clock {
    fn new() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base_ms: base.as_millis() as Millis, began: Instant::now() }
    }

    fn now(&self) -> Millis {
        self.base_ms + self.began.elapsed().as_millis() as Millis
    }

    fn instant(&self, at: Millis) -> tokio::time::Instant {
        (self.began + Duration::from_millis(at.saturating_sub(self.base_ms))).into()
    }
}

/// What the driver writes to.
pub struct Disk {
    /// The database.
    pub database: Database,
    /// The signing guards, one for each consensus key.
    pub guards: Vec<SigningGuard>,
}

/// The machine with its clock, disk and wires.
pub struct Driver {
    machine: Machine<Database>,
    database: Database,
    guards: Vec<SigningGuard>,
    metagraph: Arc<Metagraph>,
    network: NetworkHandle,
    faults: Arc<Faults>,
    clock: Clock,
    timers: BTreeMap<TimerId, Millis>,
    waiting: HashMap<u64, Waiting>,
    requests: HashMap<u64, ReplyChannel>,
    next_id: u64,
    outbox: mpsc::Sender<Out>,
    inputs: mpsc::Receiver<Input>,
    back: mpsc::Sender<Input>,
    status: watch::Sender<Status>,
    shown: watch::Sender<Vec<RoundResult>>,
    shown_version: u64,
    shown_ms: Millis,
    equivocator: Option<Equivocator>,
}

/// Why the node stopped.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The machine says so.
    #[error("consensus stopped this node: {0}")]
    Halted(String),
    /// The own state is not the agreed one.
    #[error("this node's state is not what the others agreed on at height {height}: {reason}")]
    Diverged {
        /// The height.
        height: u64,
        /// What differs.
        reason: String,
    },
    /// The disk.
    #[error("{0}; nothing that was agreed is lost, but the node cannot go on")]
    Storage(#[from] perturb_storage::StorageError),
}

/// What the guard's file remembers, in the machine's terms.
fn from_mark(mark: Mark) -> Option<GuardMark> {
    let step = match mark.step {
        0 => Step::Proposal,
        1 => Step::Prevote,
        2 => Step::Precommit,
        _ => return None,
    };
    Some(GuardMark { height: mark.height, round: mark.round, step, digest: mark.digest })
}

/// What a key signed last, as its guard knows it, in the machine's terms.
pub fn last_mark(guard: &SigningGuard) -> Option<GuardMark> {
    guard.last().and_then(from_mark)
}

/// The machine's name for a peer: its network key, which ends the peer id's bytes.
pub fn peer_name(id: &PeerId) -> Peer {
    let bytes = id.to_bytes();
    let mut key = [0u8; 32];
    if let Some(tail) = bytes.len().checked_sub(32).and_then(|at| bytes.get(at..)) {
        key.copy_from_slice(tail);
    }
    Peer(key)
}

/// The peer id behind the machine's name: the identity multihash of an ed25519 key.
fn peer_id(peer: &Peer) -> Option<PeerId> {
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend_from_slice(&peer.0);
    PeerId::from_bytes(&bytes).ok()
}

fn to_p2p(topic: Topic) -> p2p::Topic {
    match topic {
        Topic::Consensus => p2p::Topic::Consensus,
        Topic::Blocks => p2p::Topic::Blocks,
        Topic::Rounds => p2p::Topic::Rounds,
        Topic::Status => p2p::Topic::Status,
    }
}

fn from_p2p(topic: p2p::Topic) -> Topic {
    match topic {
        p2p::Topic::Consensus => Topic::Consensus,
        p2p::Topic::Blocks => Topic::Blocks,
        p2p::Topic::Rounds => Topic::Rounds,
        p2p::Topic::Status => Topic::Status,
    }
}

/// Sends what the machine says, in order; a message that cannot be sent is dropped.
async fn deliver(network: NetworkHandle, mut outbox: mpsc::Receiver<Out>) {
    while let Some(out) = outbox.recv().await {
        match out {
            Out::Publish(topic, bytes) => {
                if let Err(error) = network.publish(topic, bytes).await {
                    tracing::debug!(?topic, %error, "not published");
                }
            }
            Out::Report(id, verdict) => drop(network.report(id, verdict).await),
        }
    }
}

impl Driver {
    /// A driver for this machine, and the way to it.
    pub fn new(
        machine: Machine<Database>,
        Disk { database, guards }: Disk,
        metagraph: Arc<Metagraph>,
        network: NetworkHandle,
        faults: Arc<Faults>,
    ) -> (Self, DriverHandle) {
        let (back, inputs) = mpsc::channel(EVENT_QUEUE);
        let (outbox, out) = mpsc::channel(OUTBOX);
        tokio::spawn(deliver(network.clone(), out));
        let (status, seen) = watch::channel(machine.status());
        let (shown, waiting) = watch::channel(Vec::new());
        let handle = DriverHandle { inputs: back.clone(), status: seen, waiting };
        let driver = Self {
            machine,
            database,
            guards,
            metagraph,
            network,
            faults,
            clock: Clock::new(),
            timers: BTreeMap::new(),
            waiting: HashMap::new(),
            requests: HashMap::new(),
            next_id: 0,
            outbox,
            inputs,
            back,
            status,
            shown,
            shown_version: 0,
            shown_ms: 0,
            equivocator: None,
        };
        (driver, handle)
    }

    /// Contradicts this validator's votes on purpose: a drill for local networks.
    pub fn equivocating(mut self, equivocator: Option<Equivocator>) -> Self {
        self.equivocator = equivocator;
        self
    }

    /// Runs until `stop`, or until the node must not go on.
    ///
    /// # Errors
    /// A halt of the machine, or the disk.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), DriverError> {
        let records = self.database.log_records()?;
        let key = self.machine.key();
        let guard = self.guards.iter().find(|guard| guard.key() == key).and_then(last_mark);
        self.step(Event::Start { records, guard })?;
        loop {
            let due = self.timers.iter().min_by_key(|(_, at)| **at).map(|(id, at)| (*id, *at));
            let wake = due.map_or_else(tokio::time::Instant::now, |(_, at)| self.clock.instant(at));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(wake), if due.is_some() => {
                    if let Some((id, _)) = due {
                        self.timers.remove(&id);
                        self.step(Event::Timer(id))?;
                    }
                }
                input = self.inputs.recv() => match input {
                    None => return Ok(()),
                    Some(input) => self.take(input)?,
                },
            }
        }
    }

    fn name(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn take(&mut self, input: Input) -> Result<(), DriverError> {
        let event = match input {
            Input::Event(event) => event,
            Input::Gossip(g) => {
                let id = self.name();
                self.waiting.insert(id, Waiting::Gossip(g.id));
                Event::Gossip { id, topic: from_p2p(g.topic), from: peer_name(&g.author), bytes: g.data }
            }
            Input::Request(r) => {
                let id = self.name();
                self.requests.insert(id, r.reply);
                // Peers that gave up are forgotten here, so that the map stays as small as the
                // network's own bound on waiting requests.
                self.requests.retain(|_, reply| reply.is_open());
                Event::Request { id, from: peer_name(&r.peer.peer_id), bytes: r.data }
            }
            Input::Submit(bytes, reply) => {
                let id = self.name();
                self.waiting.insert(id, Waiting::Submit(reply));
                Event::Submit { id, bytes }
            }
        };
        self.step(event)
    }

    fn step(&mut self, event: Event) -> Result<(), DriverError> {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let actions = self.machine.step(self.clock.now(), event);
            for action in actions {
                if let Some(next) = self.execute(action)? {
                    events.push_back(next);
                }
            }
        }
        self.status.send_replace(self.machine.status());
        self.show_waiting();
        Ok(())
    }

    /// Shows the results that wait, now and then and only where they changed.
    fn show_waiting(&mut self) {
        let (now, version) = (self.clock.now(), self.machine.waiting_version());
        if version == self.shown_version || now < self.shown_ms + SHOW_MS {
            return;
        }
        let results = self.machine.waiting().filter_map(|t| match t {
            Transaction::RoundResult(e) => {
                perturb_types::encode::decode("round result", &e.payload, e.payload.len()).ok()
            }
            _ => None,
        });
        self.shown.send_replace(results.take(MAX_SHOWN).collect());
        (self.shown_version, self.shown_ms) = (version, now);
    }

    fn execute(&mut self, action: Action) -> Result<Option<Event>, DriverError> {
        match action {
            Action::AppendLog { height, record } => self.database.append_log(height, &record)?,
            Action::SyncLog => self.database.sync_log()?,
            Action::Guard { key, mark } => self.guard_mark(&key, mark)?,
            Action::Broadcast { topic, bytes } => {
                let contradiction = self.equivocator.as_ref().and_then(|e| e.contradict(&bytes));
                self.put(Out::Publish(to_p2p(topic), bytes));
                if let Some(bytes) = contradiction {
                    self.put(Out::Publish(to_p2p(topic), bytes));
                }
            }
            Action::Verdict { id, verdict } => self.verdict(id, verdict),
            Action::Ask { id, to, bytes } => self.ask(id, to, bytes),
            Action::Answer { id, bytes } => {
                if let Some(reply) = self.requests.remove(&id) {
                    reply.answer(bytes);
                }
            }
            Action::ServeRange { id, from, count } => self.serve(id, from, count)?,
            Action::SetTimer { id, at } => {
                self.timers.insert(id, at);
            }
            Action::CancelTimer { id } => {
                self.timers.remove(&id);
            }
            Action::Commit(commit) => {
                let height = commit.height;
                tokio::task::block_in_place(|| self.database.commit(&commit))?;
                tracing::info!(height, "committed");
                return Ok(Some(Event::Committed { height }));
            }
            Action::ChainQuery { reference, snapshot } => self.query(reference, snapshot),
            Action::Penalise { peer, misdeed, reason } => {
                if let Some(id) = peer_id(&peer) {
                    let (network, faults) = (self.network.clone(), self.faults.clone());
                    tokio::spawn(async move { faults.punish(&network, id, misdeed.into(), &reason).await });
                }
            }
            Action::Diverged { height, reason } => return Err(DriverError::Diverged { height, reason }),
            Action::Halt { reason } => return Err(DriverError::Halted(reason)),
        }
        Ok(None)
    }

    fn guard_mark(&mut self, key: &ConsensusKey, mark: GuardMark) -> Result<(), DriverError> {
        let Some(guard) = self.guards.iter_mut().find(|guard| guard.key() == *key) else {
            return Err(DriverError::Halted(format!("consensus key {key} has no signing guard here")));
        };
        let mark = Mark { height: mark.height, round: mark.round, step: mark.step as u8, digest: mark.digest };
        tokio::task::block_in_place(|| guard.check_and_record(mark))?;
        Ok(())
    }

    fn put(&self, out: Out) {
        if self.outbox.try_send(out).is_err() {
            tracing::warn!("the network is too slow: a message was dropped");
        }
    }

    fn verdict(&mut self, id: u64, verdict: Verdict) {
        match self.waiting.remove(&id) {
            None => {}
            Some(Waiting::Submit(reply)) => drop(reply.send(verdict)),
            Some(Waiting::Gossip(gossip)) => {
                let verdict = match verdict {
                    Verdict::Accept => p2p::Verdict::Accept,
                    Verdict::Ignore(why) => {
                        tracing::debug!(%why, "gossip ignored");
                        p2p::Verdict::Ignore
                    }
                    Verdict::Reject(why) => {
                        tracing::warn!(%why, "gossip rejected");
                        p2p::Verdict::Reject
                    }
                };
                self.put(Out::Report(gossip, verdict));
            }
        }
    }

    fn ask(&self, id: u64, to: Peer, bytes: Vec<u8>) {
        let (network, back, faults) = (self.network.clone(), self.back.clone(), self.faults.clone());
        tokio::spawn(async move {
            let bytes = match peer_id(&to) {
                None => None,
                Some(peer) => match network.request(peer, Protocol::Sync, bytes, ASK_TIMEOUT).await {
                    Ok(bytes) => {
                        faults.answered(&peer);
                        Some(bytes)
                    }
                    Err(error) => {
                        tracing::debug!(?to, %error, "no answer");
                        if let Some(fault) = Fault::of(&error) {
                            faults.punish(&network, peer, fault, &error.to_string()).await;
                        }
                        None
                    }
                },
            };
            let _ = back.send(Input::Event(Event::Response { id, from: to, bytes })).await;
        });
    }

    fn serve(&mut self, id: u64, from: u64, count: u16) -> Result<(), DriverError> {
        let Some(reply) = self.requests.remove(&id) else { return Ok(()) };
        let blocks = self.database.block_range(from, usize::from(count), MAX_RANGE_BYTES)?;
        reply.answer(perturb_types::encode::encode(&Response::range(blocks)));
        Ok(())
    }

    fn query(&self, reference: ChainReference, snapshot: bool) {
        let (metagraph, back) = (self.metagraph.clone(), self.back.clone());
        tokio::spawn(async move {
            let answer: ChainAnswer = metagraph.answer(&reference, snapshot).await;
            let _ = back.send(Input::Event(Event::ChainAnswer { reference, answer })).await;
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_peers_name_leads_back_to_its_id() {
        let id = p2p::NetworkKey::from_seed([7; 32]).peer_id();
        assert_eq!(peer_id(&peer_name(&id)), Some(id));
    }

    #[test]
    fn the_clock_turns_times_into_instants() {
        let clock = Clock::new();
        let now = clock.now();
        assert!(clock.instant(now + 5_000) > tokio::time::Instant::now());
        assert!(clock.instant(0) <= tokio::time::Instant::now());
    }
}
