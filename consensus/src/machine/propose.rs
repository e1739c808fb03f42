//! Building a block, and judging the blocks of others.
//!
//! A proposed block is **valid** when its body is here, it executes to exactly the roots its
//! header names, its time is not ahead of this node's clock by more than
//! [`super::MAX_DRIFT_MS`], and its chain reference lies on the finalized chain as the own chain
//! node sees it (the parent's reference repeated needs no question); an epoch's closing snapshot
//! must equal the one of the own node. What cannot be known *yet* (a body on its way, a chain node
//! that lags or is away, a clock that differs) is no verdict: the engine's propose timeout then
//! votes nil, and a later answer still counts. What is wrong is invalid at once.

use std::collections::BTreeMap;

use perturb_ledger::{BlockError, ChainReference, ProposalInput, Snapshot, StateStore};
use perturb_types::Digest;
use perturb_types::encode;

use super::{MAX_DRIFT_MS, Machine};
use crate::Millis;
use crate::candidates::{Candidate, Seen};
use crate::chain_view::View;
use crate::event::Action;
use crate::planted::Planted;
use crate::record::{Record, Wait};
use crate::wire::Request;

/// The engine waits for a value of this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The round.
    pub round: u32,
    /// Since when.
    pub since: Millis,
}

enum Judgement {
    Valid,
    Invalid(String),
    Open,
}

impl<S: StateStore> Machine<S> {
    /// Builds the wanted block once the chain reference is settled. True if something moved.
    pub(super) fn try_build(&mut self) -> bool {
        let Some(wanted) = self.wanted else { return false };
        if !self.engine.is_proposing() || self.engine.round() != Some(wanted.round) {
            self.wanted = None;
            return false;
        }
        let Some((reference, snapshot)) = self.choose_reference(wanted) else { return false };
        self.wanted = None;
        let parent_ms = self.ledger.head().time_ms;
        let input = ProposalInput {
            time_ms: self.now.max(parent_ms.saturating_add(1)),
            proposer: self.config.pair.public(),
            reference,
            snapshot,
            transactions: self.mempool.offer(),
        };
        let (block, executed) = match self.ledger.propose(input) {
            Ok(built) => built,
            Err(e) => {
                // Our own turn passes; the others go on without this block.
                tracing::error!(error = %e, "cannot build a block");
                return false;
            }
        };
        let digest = block.header.digest(&self.network);
        self.append(&Record::Body(encode::encode(&block)));
        let me = self.config.pair.public();
        let candidate = Candidate {
            height: block.header.height,
            proposals: vec![Seen { round: wanted.round, proposer: me, fresh: true, arrived: 0, logged: true }],
            block: Some(block),
            executed: Some(executed),
            verdict: Some(true),
            logged: true,
            ..Candidate::default()
        };
        self.candidates.insert(digest, candidate);
        let outputs = self.engine.propose(wanted.round, digest);
        self.perform(outputs);
        true
    }

    /// The reference to build on, with the snapshot where an epoch closes; `None`: wait.
    fn choose_reference(&mut self, wanted: Wanted) -> Option<(ChainReference, Option<Snapshot>)> {
        let parent = self.ledger.head().reference.clone();
        // A tip that the others cannot confirm costs a round, never the height: every other round
        // repeats the parent's reference, which needs no chain.
        if wanted.round % 2 == 1 {
            return Some((parent, None));
        }
        let Some(tip) = self.chain.tip(self.now).filter(|t| t.number > parent.number).cloned() else {
            return Some((parent, None));
        };
        if tip.epoch_index <= parent.epoch_index {
            return Some((tip, None));
        }
        // An epoch closes: the snapshot belongs into the block.
        match self.chain.look(self.now, &tip, true) {
            View::OnChain(Some(snapshot)) => return Some((tip, Some(*snapshot))),
            View::OnChain(None) | View::NotOnChain => return Some((parent, None)),
            View::Open { ask } => {
                if ask {
                    self.push(Action::ChainQuery { reference: tip, snapshot: true });
                }
            }
        }
        // Half of the time the others wait for the proposal.
        let patience = self.wait_ms(Wait::Propose, wanted.round) / 2;
        (self.now >= wanted.since.saturating_add(patience)).then_some((parent, None))
    }

    /// Judges what can be judged. True if a verdict was given.
    pub(super) fn work_on_candidates(&mut self) -> bool {
        let height = self.engine.height();
        for digest in self.candidates.open(height) {
            let judgement = self.judge(&digest);
            let valid = match judgement {
                Judgement::Open => continue,
                Judgement::Valid => true,
                Judgement::Invalid(reason) => {
                    tracing::warn!(height, digest = %digest.short(), %reason, "a proposed block is invalid");
                    false
                }
            };
            let Some(candidate) = self.candidates.get_mut(&digest) else { continue };
            candidate.verdict = Some(valid);
            let Some(Seen { round, proposer, .. }) = candidate.proposals.first().copied() else { continue };
            let body = candidate.block.as_ref().filter(|_| valid && !candidate.logged).map(encode::encode);
            candidate.logged |= body.is_some();
            if let Some(body) = body {
                self.append(&Record::Body(body));
            }
            let outputs = self.engine.verdict(round, proposer, digest, valid);
            self.perform(outputs);
            return true;
        }
        false
    }

    fn judge(&mut self, digest: &Digest) -> Judgement {
        let Some(candidate) = self.candidates.get_mut(digest) else { return Judgement::Open };
        let Some(block) = &candidate.block else {
            self.pull_body(digest);
            return Judgement::Open;
        };
        if candidate.executed.is_none() {
            match self.ledger.check(block) {
                Ok(executed) => candidate.executed = Some(executed),
                // The own store fails: nothing is known of the block.
                Err(e @ BlockError::Store(_)) => {
                    self.halt(format!("the own store fails: {e}"));
                    return Judgement::Open;
                }
                Err(_) if self.config.planted == Planted::UncheckedRoots => return Judgement::Valid,
                Err(e) => return Judgement::Invalid(e.to_string()),
            }
        }
        if block.header.time_ms > self.now.saturating_add(MAX_DRIFT_MS) {
            return Judgement::Open;
        }
        let reference = block.header.reference.clone();
        let snapshot = block.chain_claims().1.cloned();
        if reference == self.ledger.head().reference {
            return Judgement::Valid;
        }
        match self.chain.look(self.now, &reference, snapshot.is_some()) {
            View::NotOnChain => {
                Judgement::Invalid(format!("its chain reference {} is not finalized", reference.number))
            }
            View::OnChain(own) => match (snapshot, own) {
                (None, _) => Judgement::Valid,
                (Some(given), Some(own)) if given == *own => Judgement::Valid,
                (Some(_), Some(_)) => Judgement::Invalid("its snapshot is not the chain's".into()),
                (Some(_), None) => Judgement::Open,
            },
            View::Open { ask } => {
                if ask {
                    self.push(Action::ChainQuery { reference, snapshot: snapshot.is_some() });
                }
                Judgement::Open
            }
        }
    }

    fn pull_body(&mut self, digest: &Digest) {
        let id = self.next_ask + 1;
        let others = self.sync.peers();
        let sync = &self.sync;
        let me = self.config.peer;
        let peer_of = |key: &_| sync.peer_of(key).filter(|p| *p != me);
        let Some(to) = self.candidates.pull(self.now, digest, id, peer_of, &others) else { return };
        self.next_ask = id;
        let bytes = encode::encode(&Request::Body { digest: *digest });
        self.push(Action::Ask { id, to, bytes });
    }

    /// Bodies and proposals of the log become candidates again.
    pub(super) fn restore_candidates(&mut self, log: &[Record]) {
        let height = self.engine.height();
        let mut arrivals = BTreeMap::new();
        for record in log {
            match record {
                Record::Body(bytes) => {
                    let Ok(block) = encode::decode::<perturb_ledger::Block>("block", bytes, bytes.len()) else {
                        return self.halt("the consensus log holds a body that is no block".into());
                    };
                    let digest = block.header.digest(&self.network);
                    self.candidates.restore(height, digest, block);
                }
                Record::Arrived { round, digest, fresh, at_ms } => {
                    arrivals.insert((*round, *digest, *fresh), *at_ms);
                }
                Record::Proposal(p) if p.height == height => {
                    let fresh = p.pol_round.is_none();
                    // Only this node's own comes without an arrival.
                    let arrived = arrivals.get(&(p.round, p.digest, fresh)).copied().unwrap_or(0);
                    let seen = Seen { round: p.round, proposer: p.proposer, fresh, arrived, logged: true };
                    self.candidates.proposed(height, p.digest, seen);
                }
                Record::Value { digest, valid, .. } => {
                    if let Some(candidate) = self.candidates.get_mut(digest) {
                        candidate.verdict = Some(*valid);
                    }
                }
                _ => {}
            }
        }
    }
}
