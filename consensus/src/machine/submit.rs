//! Transactions from the network and from this node's own services.

use perturb_ledger::tx::DoubleVote;
use perturb_ledger::{StateStore, Transaction, VoteKind};
use perturb_types::encode;

use super::Machine;
use crate::event::{Action, Verdict};
use crate::mempool::Refused;
use crate::wire::{SignedProposal, SignedVote, Topic, VoteStep};

impl<S: StateStore> Machine<S> {
    pub(super) fn on_transaction(&mut self, bytes: &[u8]) -> Verdict {
        self.take_transaction(bytes, false)
    }

    pub(super) fn on_submit(&mut self, id: u64, bytes: &[u8]) {
        let verdict = self.take_transaction(bytes, true);
        if verdict == Verdict::Accept {
            self.push(Action::Broadcast { topic: Topic::Rounds, bytes: bytes.to_vec() });
        }
        self.push(Action::Verdict { id, verdict });
    }

    fn take_transaction(&mut self, bytes: &[u8], own: bool) -> Verdict {
        let transaction = match Transaction::decode(bytes) {
            Ok(transaction) => transaction,
            Err(e) => return Verdict::Reject(e.to_string()),
        };
        match self.mempool.admit(&self.ledger, transaction, own.then_some(self.now)) {
            Ok(()) => Verdict::Accept,
            Err(Refused::Ignore(why)) => Verdict::Ignore(why),
            Err(Refused::Reject(why)) => Verdict::Reject(why),
        }
    }

    /// Contradicting votes become a transaction: evidence counts only once it is agreed.
    pub(super) fn keep_evidence(
        &mut self,
        votes: Vec<(SignedVote, SignedVote)>,
        proposals: Vec<(SignedProposal, SignedProposal)>,
    ) {
        for (a, b) in proposals {
            tracing::warn!(proposer = %a.proposer, height = a.height, one = %a.digest, other = %b.digest, "two proposals for one round");
        }
        for (a, b) in votes {
            let (low, high) = if a.digest <= b.digest { (a, b) } else { (b, a) };
            let kind = match low.step {
                VoteStep::Prevote => VoteKind::Prevote,
                VoteStep::Precommit => VoteKind::Precommit,
            };
            let evidence = Transaction::Evidence(Box::new(DoubleVote {
                key: low.voter,
                kind,
                height: low.height,
                round: low.round,
                digests: [low.digest, high.digest],
                signatures: [low.signature, high.signature],
            }));
            let bytes = encode::encode(&evidence);
            if self.take_transaction(&bytes, true) == Verdict::Accept {
                self.push(Action::Broadcast { topic: Topic::Rounds, bytes });
            }
        }
    }
}
