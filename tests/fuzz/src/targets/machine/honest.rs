//! The honest part: right answers, valid blocks, one vote for each place.

use perturb_consensus::wire::{Gossip, Request, Response, SignedProposal, SignedVote, Topic};
use perturb_consensus::{ChainAnswer, Event};
use perturb_ledger::VoteKind;
use perturb_types::{Digest, encode};

use super::Play;
use crate::targets::ledger::transaction;
use crate::targets::peers::peer;

impl Play<'_> {
    /// What brings the machine on: right answers, an honest proposal with its votes, time.
    pub(super) fn help(&mut self) {
        if let Some((asked, snapshot)) = self.host.queries.pop() {
            let snapshot = snapshot.then(|| self.world.snapshot(asked.clone()));
            self.host.event(Event::ChainAnswer { reference: asked, answer: ChainAnswer::OnChain { snapshot } });
        } else if let Some((id, to, request)) = self.host.asks.pop() {
            let bytes = Some(encode::encode(&self.right_answer(request)));
            self.host.event(Event::Response { id, from: to, bytes });
        } else if self.history {
            let height = self.host.head() + 1;
            self.host.event(Event::PeerStatus { peer: peer(1), height: height.max(self.world.blocks.len() as u64) });
            self.host.fire();
        } else {
            let height = self.host.head() + 1;
            let known = self.valid.iter().find(|(_, h)| **h == height).map(|(d, _)| *d);
            match known {
                Some(digest) => self.propose_again(digest),
                None => self.honest_block(),
            }
            let digest = self.valid.iter().find(|(_, h)| **h == height).map(|(d, _)| *d);
            // Nil only once the machine has waited long enough itself.
            if digest.is_some() || matches!(self.host.machine().status().step, "prevote" | "precommit") {
                for kind in [VoteKind::Prevote, VoteKind::Precommit] {
                    self.vote_together(kind, digest, 0);
                }
            }
            self.host.fire();
        }
    }

    /// The honest proposer of the round, if it is one, with height and round.
    pub(super) fn honest_turn(&self) -> Option<(usize, u64, u32)> {
        let height = self.host.head() + 1;
        let round = self.host.machine().status().round.unwrap_or(0);
        let key = self.host.machine().proposer(height, round);
        let who = [1, 2].into_iter().find(|i| self.world.keys[*i].public() == key)?;
        Some((who, height, round))
    }

    /// A block of an earlier round is proposed again.
    pub(super) fn propose_again(&mut self, digest: Digest) {
        let Some((i, height, round)) = self.honest_turn() else { return };
        if *self.honest.entry((i, height, round, 0)).or_insert(Some(digest)) == Some(digest) {
            let pair = &self.world.keys[i];
            let proposal = SignedProposal::sign(pair, &self.world.network, height, round, digest, None);
            self.consensus(i, &Gossip::Proposal(proposal));
        }
    }

    /// The proposer of the round, where it is an honest one, proposes.
    pub(super) fn honest_block(&mut self) {
        let Some((i, height, round)) = self.honest_turn() else { return };
        let key = self.world.keys[i].public();
        let ledger = self.host.machine().ledger();
        let count = self.r.below(3);
        let transactions: Vec<_> = (0..count).filter_map(|_| transaction(self.world, ledger, &mut self.r)).collect();
        let closes = (self.r.below(4) == 0).then_some(ledger.head().reference.epoch_index + 1);
        let mut input = self.world.input(ledger, transactions, closes);
        input.proposer = key;
        input.time_ms = input.time_ms.max(self.host.now);
        let Ok((block, executed)) = ledger.propose(input) else { return };
        let digest = *self.honest.entry((i, height, round, 0)).or_insert(Some(executed.digest()));
        if digest != Some(executed.digest()) {
            return;
        }
        self.valid.insert(executed.digest(), height);
        let proposal =
            SignedProposal::sign(&self.world.keys[i], &self.world.network, height, round, executed.digest(), None);
        self.blocks.push(block.clone());
        self.consensus(i, &Gossip::Proposal(proposal));
        self.host.gossip(i, Topic::Blocks, encode::encode(&block));
    }

    /// The honest ones vote for a valid block, or for nil.
    pub(super) fn honest_votes(&mut self) {
        let height = self.host.head() + 1;
        let valid: Vec<Digest> = self.valid.iter().filter(|(_, h)| **h == height).map(|(d, _)| *d).collect();
        let digest = if self.r.below(5) == 0 { None } else { self.r.pick(&valid).copied() };
        let kind = if self.r.coin() { VoteKind::Precommit } else { VoteKind::Prevote };
        let silent = self.r.below(4);
        self.vote_together(kind, digest, silent);
    }

    /// One of them may be silent. They never say two things for one place.
    pub(super) fn vote_together(&mut self, kind: VoteKind, digest: Option<Digest>, silent: usize) {
        let round = self.host.machine().status().round.unwrap_or(0);
        let height = self.host.head() + 1;
        for i in [1, 2].into_iter().filter(|i| silent != *i) {
            let said = *self.honest.entry((i, height, round, kind as u8)).or_insert(digest);
            let vote = SignedVote::sign(&self.world.keys[i], &self.world.network, kind, height, round, said);
            self.votes.push(vote.clone());
            self.consensus(i, &Gossip::Vote(vote));
        }
    }

    pub(super) fn right_answer(&self, request: Request) -> Response {
        match request {
            Request::Body { digest } => {
                let network = self.world.network;
                let found = self.blocks.iter().find(|b| b.header.digest(&network) == digest);
                Response::Body(found.map(encode::encode))
            }
            Request::Blocks { from, count } => {
                let all = self.world.blocks.iter().filter(|(b, _)| b.header.height >= from);
                // The fresh game has another history: the world's certificates would show a fork.
                let all = all.take(if self.history { usize::from(count) } else { 0 });
                Response::range(all.map(|(b, c)| (encode::encode(b), encode::encode(c))))
            }
        }
    }
}
