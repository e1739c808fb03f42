//! Gossip that comes in: size, form, height window, membership, signature and quota, in this
//! order, before anything reaches the engine.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::{Block, StateStore, VoteKind};
use perturb_types::encode;
use perturb_types::{ConsensusKey, Digest, Envelope};

use super::Machine;
use crate::candidates::Seen;
use crate::engine::QUEUED_PER_VALIDATOR;
use crate::event::{Action, Misdeed, Verdict};
use crate::wire::{Beacon, Gossip, Peer, SignedProposal, SignedVote, Topic};

/// Rounds ahead of the current one from which votes and proposals are taken (the engine's bound).
const ROUND_LOOKAHEAD: u32 = 10;

/// Different messages of one validator taken at the height in progress: three per round, for more
/// rounds than a height ever needs, and contradictions that prove a fault.
const QUOTA_CURRENT: u16 = 256;

/// Different messages of one validator taken for the next height.
const QUOTA_NEXT: u16 = QUEUED_PER_VALIDATOR as u16;

/// Certificates of the engine taken from one peer per height: each costs up to n signature checks.
const QUOTA_CERTIFICATES: u16 = 64;

/// What was let through, so that nobody can flood.
#[derive(Default)]
pub(crate) struct Quota {
    seen: BTreeMap<u64, BTreeSet<Digest>>,
    members: BTreeMap<(u64, ConsensusKey), u16>,
    peers: BTreeMap<Peer, u16>,
}

impl Quota {
    /// Forgets the heights below.
    pub fn start(&mut self, height: u64) {
        self.seen.retain(|h, _| *h >= height);
        self.members.retain(|(h, _), _| *h >= height);
        self.peers.clear();
    }

    /// Messages remembered.
    pub fn len(&self) -> usize {
        self.seen.values().map(BTreeSet::len).sum()
    }

    fn repeated(&self, height: u64, message: &Digest) -> bool {
        self.seen.get(&height).is_some_and(|seen| seen.contains(message))
    }

    /// Counts a verified message; false where the author's quota is used up.
    fn admit(&mut self, height: u64, key: ConsensusKey, message: Digest, quota: u16) -> bool {
        let used = self.members.entry((height, key)).or_default();
        if *used >= quota {
            return false;
        }
        *used += 1;
        self.seen.entry(height).or_default().insert(message);
        true
    }

    /// Whose messages of a height were taken.
    pub fn heard_at(&self, height: u64) -> impl Iterator<Item = ConsensusKey> {
        let from = self.members.range((height, ConsensusKey([0; 32]))..);
        from.map(|(of, _)| of).take_while(move |(at, _)| *at == height).map(|(_, key)| *key)
    }

    fn admit_peer(&mut self, peer: Peer) -> bool {
        let used = self.peers.entry(peer).or_default();
        *used = used.saturating_add(1);
        *used <= QUOTA_CERTIFICATES
    }
}

fn ignore(why: impl Into<String>) -> Verdict {
    Verdict::Ignore(why.into())
}

fn reject(why: impl Into<String>) -> Verdict {
    Verdict::Reject(why.into())
}

impl<S: StateStore> Machine<S> {
    pub(super) fn on_gossip(&mut self, id: u64, topic: Topic, from: Peer, bytes: Vec<u8>) {
        let limit = topic.max_bytes();
        let verdict = if bytes.len() > limit {
            reject(format!("{} bytes, at most {limit} are allowed", bytes.len()))
        } else {
            match topic {
                Topic::Consensus => self.on_consensus(from, &bytes),
                Topic::Blocks => self.on_block(bytes),
                Topic::Rounds => self.on_transaction(&bytes),
                Topic::Status => self.on_beacon(from, &bytes),
            }
        };
        if let Verdict::Reject(reason) = &verdict {
            self.push(Action::Penalise { peer: from, misdeed: Misdeed::Gossip, reason: reason.clone() });
        }
        self.push(Action::Verdict { id, verdict });
    }

    fn on_consensus(&mut self, from: Peer, bytes: &[u8]) -> Verdict {
        let message = match Gossip::decode(bytes) {
            Ok(message) => message,
            Err(e) => return reject(e.to_string()),
        };
        let (height, working) = (message.height(), self.working_height());
        if height < working {
            return ignore("a past height");
        }
        match &message {
            Gossip::Vote(vote) => self.on_vote(vote.clone(), Digest::of(bytes), working),
            Gossip::Proposal(proposal) => self.on_proposal(proposal.clone(), Digest::of(bytes), working),
            Gossip::Polka(_) | Gossip::Round(_) => {
                if height != working || !self.is_running() {
                    return ignore("not the height in progress");
                }
                if !self.quota.admit_peer(from) {
                    return ignore("too many certificates of this peer");
                }
                self.feed_gossip(message);
                // The votes themselves are gossiped; a certificate goes from its maker to its peers.
                ignore("a certificate is used, not forwarded")
            }
        }
    }

    /// Checks common to votes and proposals. `Ok(true)`: new; `Ok(false)`: seen before.
    fn admit(
        &mut self,
        key: ConsensusKey,
        height: u64,
        round: u32,
        digest: Digest,
        verifies: impl Fn() -> bool,
        working: u64,
    ) -> Result<bool, Verdict> {
        if self.quota.repeated(height, &digest) {
            return Ok(false);
        }
        if self.set.power(&key).is_none() {
            return Err(ignore("not of this validator set"));
        }
        let round_now = if self.is_running() { self.engine.round().unwrap_or(0) } else { 0 };
        if height == working && round > round_now.saturating_add(ROUND_LOOKAHEAD) {
            return Err(ignore("too many rounds ahead"));
        }
        if !verifies() {
            return Err(reject(format!("signature of {key} does not verify")));
        }
        if height > working + 1 {
            // A member that votes at a height has committed the one before.
            if let Some(peer) = self.sync.peer_of(&key) {
                self.sync.hint_at_least(self.now, peer, height - 1);
            }
            return Err(ignore("a height far ahead"));
        }
        let quota = if height == working && self.is_running() { QUOTA_CURRENT } else { QUOTA_NEXT };
        if !self.quota.admit(height, key, digest, quota) {
            return Err(ignore("the author's quota is used up"));
        }
        Ok(true)
    }

    fn on_vote(&mut self, vote: SignedVote, message: Digest, working: u64) -> Verdict {
        let network = self.network;
        let check = || vote.verify(&network);
        match self.admit(vote.voter, vote.height, vote.round, message, check, working) {
            Err(verdict) => return verdict,
            Ok(false) if vote.height != working => return Verdict::Accept,
            Ok(_) => {}
        }
        if let (VoteKind::Prevote, Some(digest)) = (vote.step, vote.digest)
            && vote.height == working
        {
            self.candidates.voted(digest, vote.voter);
        }
        self.feed_gossip(Gossip::Vote(vote));
        Verdict::Accept
    }

    fn on_proposal(&mut self, proposal: SignedProposal, message: Digest, working: u64) -> Verdict {
        let network = self.network;
        let check = || proposal.verify(&network);
        match self.admit(proposal.proposer, proposal.height, proposal.round, message, check, working) {
            Err(verdict) => return verdict,
            Ok(false) if proposal.height != working => return Verdict::Accept,
            Ok(_) => {}
        }
        if self.proposer(proposal.height, proposal.round) != proposal.proposer {
            // At the next height the set may be another: nobody is to blame. But only what comes from
            // the presumed proposer is followed, or anyone could fill the places of a round.
            let why = "not the proposer of this round";
            return if proposal.height == working { reject(why) } else { ignore(why) };
        }
        let seen = Seen {
            round: proposal.round,
            proposer: proposal.proposer,
            fresh: proposal.pol_round.is_none(),
            arrived: self.now,
            logged: false,
        };
        self.candidates.proposed(proposal.height, proposal.digest, seen);
        // The engine sees it when its round has begun.
        self.early.put(proposal);
        Verdict::Accept
    }

    fn on_block(&mut self, bytes: Vec<u8>) -> Verdict {
        let block: Block = match encode::decode("block", &bytes, Topic::Blocks.max_bytes()) {
            Ok(block) => block,
            Err(e) => return reject(e.to_string()),
        };
        let (height, working) = (block.header.height, self.working_height());
        if height < working || height > working + 1 {
            return ignore("not a height in progress");
        }
        if !block.is_whole(&self.network) {
            return reject("a body that its header does not name");
        }
        let digest = block.header.digest(&self.network);
        if self.candidates.body(digest, block) { Verdict::Accept } else { ignore("no proposal for it yet") }
    }

    fn on_beacon(&mut self, from: Peer, bytes: &[u8]) -> Verdict {
        let opened = encode::decode::<Envelope>("status", bytes, Topic::Status.max_bytes())
            .map_err(|e| e.to_string())
            .and_then(|envelope| envelope.open::<Beacon>(&self.network).map_err(|e| e.to_string()));
        let beacon = match opened {
            Ok(beacon) => beacon,
            Err(e) => return reject(e),
        };
        if beacon.peer != from {
            return reject("a beacon that speaks for another connection");
        }
        if self.sync.beacon(self.now, beacon.signer(), from, beacon.height, beacon.sent_ms) {
            Verdict::Accept
        } else {
            ignore("an old beacon")
        }
    }
}
