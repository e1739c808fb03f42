//! Proposed blocks of the height in progress: their bodies, where they are pulled from, and what
//! became of them.
//!
//! A proposal names a digest. The body comes by gossip, or is pulled from the proposer, from
//! anyone whose prevote for it was seen, then from any peer: one at a time, each with a deadline.
//! A body counts only if its header has the digest asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use perturb_ledger::{Block, Executed, Header};
use perturb_types::{ConsensusKey, Digest};

use crate::Millis;
use crate::wire::Peer;

/// Candidates kept: two per round for as many rounds ahead as the engine looks, and the past ones.
const MAX_CANDIDATES: usize = 48;

/// Proposals per round that are followed: two show that a proposer equivocates.
const MAX_PER_ROUND: usize = 2;

/// Bodies kept that came before their proposal.
const MAX_LOOSE: usize = 4;

/// Digests whose voters are remembered.
const MAX_VOTED: usize = 16;

/// Milliseconds after which another peer is asked for a body.
const PULL_TIMEOUT_MS: Millis = 400;

/// A proposal as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Its round.
    pub round: u32,
    /// Who signed it.
    pub proposer: ConsensusKey,
    /// Whether it names no valid round.
    pub fresh: bool,
    /// When its first copy came, by this node's clock; 0 for this node's own.
    pub arrived: Millis,
    /// Whether that is in the log.
    pub logged: bool,
}

/// A proposed block.
#[derive(Default)]
pub(crate) struct Candidate {
    /// Its height.
    pub height: u64,
    /// The proposals for it, the first of each round and kind.
    pub proposals: Vec<Seen>,
    /// The body, once here.
    pub block: Option<Block>,
    /// Its execution, once done.
    pub executed: Option<Executed>,
    /// The verdict given to the engine.
    pub verdict: Option<bool>,
    /// Whether the body is in the log.
    pub logged: bool,
    pub(crate) asked: Option<(u64, Peer, Millis)>,
    pub(crate) tried: BTreeSet<Peer>,
}

/// The candidates of a height.
#[derive(Default)]
pub(crate) struct Candidates {
    all: BTreeMap<Digest, Candidate>,
    loose: VecDeque<(Digest, Block)>,
    voters: BTreeMap<Digest, BTreeSet<ConsensusKey>>,
}

impl Candidates {
    /// Blocks held, those included that came before their proposal.
    pub fn len(&self) -> usize {
        self.all.len() + self.loose.len()
    }

    /// Starts a height: what belongs to lower ones goes.
    pub fn start(&mut self, height: u64) {
        self.all.retain(|_, c| c.height >= height);
        self.loose.retain(|(_, b)| b.header.height >= height);
        self.voters.clear();
    }

    /// A verified proposal names a digest. False where no more are followed.
    pub fn proposed(&mut self, height: u64, digest: Digest, seen: Seen) -> bool {
        let of_round = |c: &&Candidate| c.height == height && c.proposals.iter().any(|s| s.round == seen.round);
        let same_round = self.all.values().filter(of_round).count();
        if !self.all.contains_key(&digest) && (same_round >= MAX_PER_ROUND || self.all.len() >= MAX_CANDIDATES) {
            return false;
        }
        let candidate = self.all.entry(digest).or_insert_with(|| Candidate { height, ..Candidate::default() });
        let known = candidate.proposals.iter().any(|s| (s.round, s.fresh) == (seen.round, seen.fresh));
        if !known {
            candidate.proposals.push(seen);
        }
        // The newest stay: those of the round in progress are among them.
        if candidate.proposals.len() > MAX_CANDIDATES {
            candidate.proposals.remove(0);
        }
        if candidate.block.is_none()
            && let Some(at) = self.loose.iter().position(|(d, _)| *d == digest)
        {
            candidate.block = self.loose.remove(at).map(|(_, b)| b);
        }
        true
    }

    /// A body came. True where a candidate was waiting for it.
    pub fn body(&mut self, digest: Digest, block: Block) -> bool {
        if let Some(candidate) = self.all.get_mut(&digest) {
            let waited = candidate.block.is_none();
            if waited {
                candidate.block = Some(block);
                candidate.asked = None;
            }
            return waited;
        }
        if !self.loose.iter().any(|(d, _)| *d == digest) {
            if self.loose.len() >= MAX_LOOSE {
                self.loose.pop_front();
            }
            self.loose.push_back((digest, block));
        }
        false
    }

    /// A verified prevote for a digest.
    pub fn voted(&mut self, digest: Digest, voter: ConsensusKey) {
        if self.voters.len() < MAX_VOTED || self.voters.contains_key(&digest) {
            self.voters.entry(digest).or_default().insert(voter);
        }
    }

    /// A candidate.
    pub fn get(&self, digest: &Digest) -> Option<&Candidate> {
        self.all.get(digest)
    }

    /// A candidate, to be changed.
    pub fn get_mut(&mut self, digest: &Digest) -> Option<&mut Candidate> {
        self.all.get_mut(digest)
    }

    /// Puts this node's own block in.
    pub fn insert(&mut self, digest: Digest, candidate: Candidate) {
        self.all.insert(digest, candidate);
    }

    /// Puts a block of the log in, beside what is known of its proposals.
    pub fn restore(&mut self, height: u64, digest: Digest, block: Block) {
        let candidate = self.all.entry(digest).or_insert_with(|| Candidate { height, ..Candidate::default() });
        candidate.block = Some(block);
        candidate.logged = true;
    }

    /// When a proposal came, where that is not logged yet; it counts as logged from now on.
    pub fn take_for_log(&mut self, digest: &Digest, round: u32, fresh: bool) -> Option<Millis> {
        let proposals = &mut self.all.get_mut(digest)?.proposals;
        let seen = proposals.iter_mut().find(|s| (s.round, s.fresh, s.logged) == (round, fresh, false))?;
        seen.logged = true;
        Some(seen.arrived)
    }

    /// The candidates of a height whose bodies are here.
    pub fn with_bodies(&self, height: u64) -> impl Iterator<Item = (&Digest, &Candidate, &Header)> {
        let of_height = self.all.iter().filter(move |(_, c)| c.height == height);
        of_height.filter_map(|(digest, c)| Some((digest, c, &c.block.as_ref()?.header)))
    }

    /// Takes the block and its execution out, to be committed.
    pub fn take(&mut self, digest: &Digest) -> Option<Candidate> {
        self.all.remove(digest)
    }

    /// The candidates of a height that still await a verdict.
    pub fn open(&self, height: u64) -> Vec<Digest> {
        self.all
            .iter()
            .filter(|(_, c)| c.height == height && c.verdict.is_none() && !c.proposals.is_empty())
            .map(|(d, _)| *d)
            .collect()
    }

    /// Whom to ask for a missing body now: (digest, peer). `id` is used for one request.
    pub fn pull(
        &mut self,
        now: Millis,
        digest: &Digest,
        id: u64,
        peer_of: impl Fn(&ConsensusKey) -> Option<Peer>,
        others: &[Peer],
    ) -> Option<Peer> {
        let candidate = self.all.get_mut(digest).filter(|c| c.block.is_none())?;
        if candidate.asked.is_some_and(|(_, _, deadline)| now < deadline) {
            return None;
        }
        let proposers = candidate.proposals.iter().filter_map(|s| peer_of(&s.proposer));
        let voters = self.voters.get(digest).into_iter().flatten().filter_map(&peer_of);
        let order: Vec<Peer> = proposers.chain(voters).chain(others.iter().copied()).collect();
        let next = order.iter().find(|p| !candidate.tried.contains(p)).copied().or_else(|| {
            // Everyone was asked once: begin again.
            candidate.tried.clear();
            order.first().copied()
        })?;
        candidate.tried.insert(next);
        candidate.asked = Some((id, next, now.saturating_add(PULL_TIMEOUT_MS)));
        Some(next)
    }

    /// The digest an answer was asked for; the next peer may be asked at once.
    pub fn answered(&mut self, id: u64, from: &Peer) -> Option<Digest> {
        let (digest, candidate) =
            self.all.iter_mut().find(|(_, c)| c.asked.is_some_and(|(asked, peer, _)| asked == id && peer == *from))?;
        candidate.asked = None;
        Some(*digest)
    }
}
