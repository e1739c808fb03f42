//! The engine's outputs become actions.
//!
//! The order is the rule: a record of this node's own signature is appended, the log synced and
//! the guard's file written *before* the message is broadcast, and the log is synced before a
//! round starts and before a decision is committed.

use std::collections::VecDeque;

use perturb_ledger::{BlockError, Certificate, StateStore, bounds};
use perturb_types::encode;
use perturb_types::{ConsensusKey, Digest};

use super::{Machine, Phase};
use crate::engine::Output;
use crate::event::{Action, TimerId};
use crate::guard::Step;
use crate::planted::Planted;
use crate::record::{Record, Wait};
use crate::wire::{Gossip, Topic};

impl<S: StateStore> Machine<S> {
    /// Feeds a verified message; only the height in progress and the next are let through.
    pub(super) fn feed_gossip(&mut self, message: Gossip) {
        let outputs = self.engine.gossip(message);
        self.perform(outputs);
    }

    pub(super) fn perform(&mut self, outputs: Vec<Output>) {
        let mut work = VecDeque::from(outputs);
        while let Some(output) = work.pop_front() {
            if self.halted {
                return;
            }
            match output {
                Output::CancelAll => self.cancel_engine_timers(),
                Output::Cancel { wait, round } => {
                    let id = self.engine_timer(wait, round);
                    self.cancel(id);
                }
                Output::Schedule { wait, round } => {
                    let at = self.now.saturating_add(self.wait_ms(wait, round));
                    let id = self.engine_timer(wait, round);
                    self.set_timer(id, at);
                }
                Output::RoundStarted { round } => {
                    self.sync_log();
                    self.wanted = self.wanted.take().filter(|w| w.round == round);
                }
                Output::Log { record, signed, fresh } => {
                    if fresh {
                        self.append(&record);
                    }
                    if let Some(mark) = signed {
                        self.sync_log();
                        if self.released.is_none_or(|last| mark.position() > last.position()) {
                            self.released = Some(mark);
                            self.push(Action::Guard { key: self.key(), mark });
                        }
                    }
                }
                Output::Publish(message) => {
                    self.sync_log();
                    if let Gossip::Proposal(proposal) = &message {
                        self.own_proposal = Some(proposal.clone());
                        let digest = proposal.digest;
                        self.broadcast(&message);
                        self.broadcast_body(&digest);
                    } else {
                        self.broadcast(&message);
                    }
                }
                Output::Republish(_) if self.config.planted == Planted::SilentRebroadcast => {}
                Output::Republish(message) => self.republish(&message),
                Output::GetValue { round } => {
                    self.wanted = Some(super::propose::Wanted { round, since: self.now });
                }
                Output::Restream { digest } => self.broadcast_body(&digest),
                Output::Decided { height, round, digest, signatures } => {
                    self.decided(height, round, digest, signatures);
                }
                Output::Evidence { votes, proposals } => self.keep_evidence(votes, proposals),
                Output::Fault(reason) => self.halt(reason),
            }
        }
    }

    fn broadcast(&mut self, message: &Gossip) {
        self.push(Action::Broadcast { topic: Topic::Consensus, bytes: encode::encode(message) });
    }

    fn broadcast_body(&mut self, digest: &Digest) {
        let bytes = self.candidates.get(digest).and_then(|c| c.block.as_ref()).map(encode::encode);
        if let Some(bytes) = bytes {
            self.push(Action::Broadcast { topic: Topic::Blocks, bytes });
        }
    }

    /// The same bytes again. The engine repeats votes; the proposal is repeated with them, since
    /// nobody can vote for what he has not seen proposed.
    fn republish(&mut self, message: &Gossip) {
        self.sync_log();
        let proposal = self
            .own_proposal
            .clone()
            .filter(|p| p.height == self.engine.height() && Some(p.round) == self.engine.round())
            .filter(|_| matches!(message, Gossip::Vote(_)));
        if let Some(proposal) = proposal {
            self.broadcast(&Gossip::Proposal(proposal));
        }
        self.broadcast(message);
    }

    pub(super) fn append(&mut self, record: &Record) {
        self.append_at(self.engine.height(), record);
    }

    pub(super) fn append_at(&mut self, height: u64, record: &Record) {
        self.push(Action::AppendLog { height, record: record.encode() });
        self.unsynced = true;
    }

    pub(super) fn sync_log(&mut self) {
        if std::mem::take(&mut self.unsynced) && self.config.planted != Planted::SkippedSync {
            self.push(Action::SyncLog);
        }
    }

    pub(super) fn own_position(&self, record: &Record) -> Option<(u64, u32, Step)> {
        let me = self.config.pair.public();
        match record {
            Record::Vote(v) if v.voter == me => {
                let step = match v.step {
                    perturb_ledger::VoteKind::Prevote => Step::Prevote,
                    perturb_ledger::VoteKind::Precommit => Step::Precommit,
                };
                Some((v.height, v.round, step))
            }
            Record::Proposal(p) if p.proposer == me => Some((p.height, p.round, Step::Proposal)),
            _ => None,
        }
    }

    /// The length of a wait: base plus delta times round, capped.
    pub(super) fn wait_ms(&self, wait: Wait, round: u32) -> u64 {
        let t = &self.ledger.parameters().timeouts;
        let (base, delta) = match wait {
            Wait::Propose => (t.propose_ms, t.propose_delta_ms),
            Wait::Prevote => (t.prevote_ms, t.prevote_delta_ms),
            Wait::Precommit => (t.precommit_ms, t.precommit_delta_ms),
            Wait::Rebroadcast => {
                let all = [t.propose_ms, t.prevote_ms, t.precommit_ms].map(u64::from).iter().sum();
                return bounds::wait_ms(all, t.propose_delta_ms.into(), round);
            }
        };
        bounds::wait_ms(base.into(), delta.into(), round)
    }

    fn decided(&mut self, height: u64, round: u32, digest: Digest, signatures: Vec<(ConsensusKey, [u8; 64])>) {
        self.sync_log();
        let Some(mut candidate) = self.candidates.take(&digest) else {
            // The engine decides only what it was told is valid; from a log without the body the
            // block comes back from the others as part of a range.
            tracing::warn!(height, digest = %digest.short(), "decided a block whose body is gone: fetching it");
            return;
        };
        let executed = match (candidate.executed.take(), &candidate.block) {
            (Some(executed), _) => executed,
            (None, Some(block)) => match self.ledger.check(block) {
                Ok(executed) => executed,
                Err(BlockError::Store(e)) => return self.halt(format!("the own store fails: {e}")),
                Err(e) => return self.diverged(height, e.to_string()),
            },
            (None, None) => return,
        };
        let certificate = Certificate::new(height, round, digest, signatures);
        self.commit(executed, certificate, self.height_started);
    }

    /// Commits a block; the next height starts a block interval after `started`.
    pub(super) fn commit(&mut self, executed: perturb_ledger::Executed, certificate: Certificate, started: u64) {
        self.cancel_engine_timers();
        self.wanted = None;
        self.own_proposal = None;
        let commit = match self.ledger.commit(executed, certificate) {
            Ok(commit) => commit,
            Err(e) => return self.halt(format!("a certified block cannot be committed: {e}")),
        };
        self.renew_set();
        self.quota.start(self.working_height());
        let interval = u64::from(self.ledger.parameters().block_interval_ms);
        let height = self.ledger.head().height;
        self.phase = Phase::Committing { height, next_at: started.saturating_add(interval) };
        self.cancel(TimerId::NextHeight);
        self.push(Action::Commit(Box::new(commit)));
    }
}
