//! What goes into the machine and what comes out of it.
//!
//! The driver executes a step's actions **in their order and to their end**: an
//! [`Action::SyncLog`] or [`Action::Guard`] ahead of an [`Action::Broadcast`] is on disk before the
//! broadcast leaves. A log, guard or commit that fails stops the node: the driver never steps the
//! machine again.

use perturb_ledger::{ChainReference, Commit, Snapshot};
use perturb_types::{ConsensusKey, Digest};

use crate::Millis;
use crate::guard::GuardMark;
use crate::record::Wait;
use crate::wire::{Peer, Topic};

/// A timer's name; setting one that runs replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerId {
    /// One of the engine's waits.
    Engine {
        /// The height.
        height: u64,
        /// The round.
        round: u32,
        /// Which.
        wait: Wait,
    },
    /// The next height may start.
    NextHeight,
    /// Retries, beacons, deadlines.
    Tick,
}

/// What the own chain node says of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainAnswer {
    /// It lies on the finalized chain, with this epoch index.
    OnChain {
        /// The snapshot at it, where it was asked for.
        snapshot: Option<Snapshot>,
    },
    /// The node has not come so far yet.
    Ahead,
    /// Another block stands there, or its epoch index is another.
    NotOnChain,
    /// The node cannot be asked.
    Unavailable,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The node starts; exactly once, first.
    Start {
        /// The log's records of the height in progress, in order, as they were appended.
        records: Vec<Vec<u8>>,
        /// What the guard's file remembers.
        guard: Option<GuardMark>,
    },
    /// A gossiped message came; answered by one [`Action::Verdict`].
    Gossip {
        /// The driver's name for the message.
        id: u64,
        /// The topic.
        topic: Topic,
        /// Who published it (not who relayed it).
        from: Peer,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// This node's own services submit a transaction; answered by one [`Action::Verdict`].
    Submit {
        /// The driver's name for it.
        id: u64,
        /// The transaction's bytes.
        bytes: Vec<u8>,
    },
    /// A timer fired.
    Timer(TimerId),
    /// The commit of this height is on disk.
    Committed {
        /// The height.
        height: u64,
    },
    /// The own chain node finalized a block.
    ChainTip(ChainReference),
    /// The answer to an [`Action::ChainQuery`].
    ChainAnswer {
        /// What was asked for.
        reference: ChainReference,
        /// The answer.
        answer: ChainAnswer,
    },
    /// A connection says how far it is, without a signature.
    PeerStatus {
        /// The peer.
        peer: Peer,
        /// The last height it committed.
        height: u64,
    },
    /// A connection is gone.
    PeerGone(Peer),
    /// A peer asks; answered by one [`Action::Answer`] or [`Action::ServeRange`].
    Request {
        /// The driver's name for the request.
        id: u64,
        /// Who asks.
        from: Peer,
        /// A [`crate::wire::Request`].
        bytes: Vec<u8>,
    },
    /// The answer to an [`Action::Ask`].
    Response {
        /// The id of the ask.
        id: u64,
        /// Who answers.
        from: Peer,
        /// A [`crate::wire::Response`]; `None` where none came.
        bytes: Option<Vec<u8>>,
    },
}

/// The verdict on a gossiped or submitted message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Verified and new: forward it.
    Accept,
    /// Nothing wrong, nothing to forward.
    Ignore(String),
    /// Wrong: do not forward, count it against the author.
    Reject(String),
}

/// What kind of wrong a peer did; each is proved by its own message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misdeed {
    /// A gossiped message that no honest node sends or forwards.
    Gossip,
    /// A request that cannot be read.
    Request,
    /// An answer that cannot be read, or is not one to what was asked.
    Answer,
    /// A block of a range whose certificate is not a quorum's.
    Certificate,
    /// A block whose header does not name its body.
    Block,
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Append a record to the log of a height.
    AppendLog {
        /// The height it belongs to.
        height: u64,
        /// A [`crate::record::Record`].
        record: Vec<u8>,
    },
    /// Sync the log.
    SyncLog,
    /// Put this into the guard's file and sync it; stop the node where the file forbids it.
    Guard {
        /// The key that signed.
        key: ConsensusKey,
        /// The position.
        mark: GuardMark,
    },
    /// Gossip a message.
    Broadcast {
        /// Where.
        topic: Topic,
        /// What.
        bytes: Vec<u8>,
    },
    /// The verdict on an [`Event::Gossip`] or [`Event::Submit`].
    Verdict {
        /// The driver's name for it.
        id: u64,
        /// The verdict.
        verdict: Verdict,
    },
    /// Ask a peer; answered by an [`Event::Response`].
    Ask {
        /// The machine's name for the request.
        id: u64,
        /// Whom.
        to: Peer,
        /// A [`crate::wire::Request`].
        bytes: Vec<u8>,
    },
    /// Answer an [`Event::Request`].
    Answer {
        /// The driver's name for the request.
        id: u64,
        /// A [`crate::wire::Response`].
        bytes: Vec<u8>,
    },
    /// Answer an [`Event::Request`] from storage: [`crate::wire::Response::range`] of the committed
    /// blocks from `from` on with their certificates.
    ServeRange {
        /// The driver's name for the request.
        id: u64,
        /// The first height.
        from: u64,
        /// How many at most.
        count: u16,
    },
    /// Start or restart a timer.
    SetTimer {
        /// Which.
        id: TimerId,
        /// When, on the clock that [`crate::Machine::step`] is given.
        at: Millis,
    },
    /// Stop a timer.
    CancelTimer {
        /// Which.
        id: TimerId,
    },
    /// One synced batch: block, certificate, state nodes, height; the log is cleared with it.
    /// Answered by [`Event::Committed`].
    Commit(Box<Commit>),
    /// Ask the own chain node; answered by [`Event::ChainAnswer`].
    ChainQuery {
        /// About what.
        reference: ChainReference,
        /// Whether the whole snapshot is wanted.
        snapshot: bool,
    },
    /// Count something against a peer.
    Penalise {
        /// The peer.
        peer: Peer,
        /// What kind of thing it did.
        misdeed: Misdeed,
        /// Why.
        reason: String,
    },
    /// This node's own state is wrong: a quorum certified a block that does not execute on it.
    /// Nothing follows: the driver sets the state aside and begins again from the others'.
    Diverged {
        /// The height that was agreed otherwise.
        height: u64,
        /// What differs.
        reason: String,
    },
    /// Stop the node. Nothing follows.
    Halt {
        /// Why, and what to do.
        reason: String,
    },
}

/// Where the machine stands, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The last committed height.
    pub height: u64,
    /// The digest of its header.
    pub digest: Digest,
    /// Its time, Unix milliseconds.
    pub time_ms: u64,
    /// The round in progress, if one is.
    pub round: Option<u32>,
    /// The step: starting, waiting, propose, prevote, precommit, commit, catching up, halted.
    pub step: &'static str,
    /// Whether this node votes at the height in progress.
    pub voting: bool,
    /// Peers known.
    pub peers: usize,
    /// Peers whose head is below this node's.
    pub peers_behind: usize,
    /// The height that validators with more than a third of the power say to have reached.
    pub network_height: u64,
    /// The highest height that any peer says to have reached: a claim.
    pub highest_claim: u64,
    /// Transactions in the mempool.
    pub mempool: usize,
}

/// Blocks behind the network from which a node counts as behind: less is the ordinary lag of gossip.
const BEHIND_BLOCKS: u64 = 2;

impl Status {
    /// Whether the node is fetching blocks rather than taking part.
    pub fn is_behind(&self) -> bool {
        self.network_height > self.height.saturating_add(BEHIND_BLOCKS)
    }
}
