//! Transactions from the network and from this node's own services.

use perturb_ledger::{DoubleProposal, DoubleVote, Equivocation, StateStore, Transaction};
use perturb_types::encode;

use super::Machine;
use crate::event::{Action, Verdict};
use crate::mempool::Refused;
use crate::wire::{SignedProposal, SignedVote, Topic};

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

    /// Contradicting signatures become a transaction: evidence counts only once it is agreed.
    pub(super) fn keep_evidence(
        &mut self,
        votes: Vec<(SignedVote, SignedVote)>,
        proposals: Vec<(SignedProposal, SignedProposal)>,
    ) {
        let votes = votes.into_iter().map(|(a, b)| {
            let (low, high) = if a.digest <= b.digest { (a, b) } else { (b, a) };
            Equivocation::Votes(DoubleVote {
                key: low.voter,
                kind: low.step,
                height: low.height,
                round: low.round,
                digests: [low.digest, high.digest],
                signatures: [low.signature, high.signature],
            })
        });
        let proposals = proposals.into_iter().map(|(a, b)| {
            let (low, high) = if a.digest <= b.digest { (a, b) } else { (b, a) };
            Equivocation::Proposals(DoubleProposal {
                key: low.proposer,
                height: low.height,
                round: low.round,
                digests: [low.digest, high.digest],
                pol_rounds: [low.pol_round, high.pol_round],
                signatures: [low.signature, high.signature],
            })
        });
        for equivocation in votes.chain(proposals) {
            let (height, round, step) = equivocation.place();
            tracing::warn!(key = %equivocation.key(), height, round, step, "signed two contradicting messages");
            let bytes = encode::encode(&Transaction::Evidence(Box::new(equivocation)));
            if self.take_transaction(&bytes, true) == Verdict::Accept {
                self.push(Action::Broadcast { topic: Topic::Rounds, bytes });
            }
        }
    }
}
