//! The consensus machine among hostile peers.
//!
//! The machine is the first of four validators. The second and third are honest, as far as the script
//! lets them speak: they vote for blocks that are valid, once for each place. The fourth says and signs
//! anything, and strangers say anything unsigned. So whatever the script is, the machine must not stop.

mod honest;

use std::collections::BTreeMap;

use perturb_consensus::wire::{Beacon, Gossip, Peer, Polka, Request, RoundEntry, SignedProposal, SignedVote, Topic};
use perturb_consensus::{ChainAnswer, Event};
use perturb_ledger::{Block, VoteKind};
use perturb_types::{Digest, Signed, encode};

use super::ledger::transaction;
use super::peers::{Host, peer};
use crate::bytes::Reader;
use crate::world::{World, reference, world};

/// Steps of one input.
const STEPS: usize = 160;

/// The validator without scruples.
const LIAR: usize = 3;

/// The play's state beside the machine's.
struct Play<'a> {
    world: &'static World,
    host: Host,
    r: Reader<'a>,
    /// Whether blocks of the world's history are handed out; nobody but the liar votes then.
    history: bool,
    /// Blocks that an honest validator may vote for, with their heights.
    valid: BTreeMap<Digest, u64>,
    blocks: Vec<Block>,
    digests: Vec<Digest>,
    /// What the honest have said: never two things for one place.
    honest: BTreeMap<(usize, u64, u32, u8), Option<Digest>>,
    beacons: u64,
    votes: Vec<SignedVote>,
}

/// A script: where it starts, then steps.
pub fn machine(bytes: &[u8]) {
    play(bytes);
}

/// The same; returns how many heights were committed, so that a test can tell that scripts lead somewhere.
pub fn play(bytes: &[u8]) -> u64 {
    let (world, mut r) = (world(), Reader::new(bytes));
    let history = r.coin();
    let start = r.below(if history { 6 } else { 3 });
    let mut play = Play {
        world,
        host: Host::new(world, 0, start),
        r,
        history,
        valid: BTreeMap::new(),
        blocks: world.blocks.iter().map(|(b, _)| b.clone()).collect(),
        digests: Vec::new(),
        honest: BTreeMap::new(),
        beacons: 0,
        votes: Vec::new(),
    };
    for _ in 0..STEPS {
        if play.r.is_done() {
            break;
        }
        play.step();
    }
    play.host.head() - start as u64
}

impl Play<'_> {
    fn step(&mut self) {
        match self.r.below(28) {
            0..=2 => drop(self.host.fire()),
            20.. => self.help(),
            3 => {
                let later = self.r.number().min(1 << 40);
                self.host.now = self.host.now.saturating_add(later).min(1 << 50);
            }
            4 => self.lie_vote(),
            5 => self.lie_proposal(),
            6..=8 if !self.history => self.honest_votes(),
            9 if !self.history => self.honest_block(),
            6..=10 => self.block(),
            11 => self.transaction(),
            12 => self.raw(),
            13 => self.beacon(),
            14 => self.status(),
            15 => self.request(),
            16 => self.response(),
            17 => self.chain(),
            18 => self.certificates(),
            19 if self.r.below(8) == 0 => self.host.restart(),
            _ => drop(self.host.fire()),
        }
        let proposed = std::mem::take(&mut self.host.proposed);
        self.valid.extend(proposed);
    }

    fn round(&mut self) -> u32 {
        let now = self.host.machine().status().round.unwrap_or(0);
        self.r.near(u64::from(now)).min(u64::from(u32::MAX)) as u32
    }

    fn height(&mut self) -> u64 {
        self.r.near(self.host.head() + 1)
    }

    fn any_digest(&mut self) -> Digest {
        let known: Vec<Digest> = self.valid.keys().chain(&self.digests).copied().collect();
        match self.r.pick(&known) {
            Some(digest) if self.r.coin() => *digest,
            _ => Digest([self.r.byte(); 32]),
        }
    }

    fn consensus(&mut self, from: usize, message: &Gossip) {
        let mut bytes = encode::encode(message);
        if self.r.byte() > 240 {
            self.r.damage(&mut bytes);
        }
        self.host.gossip(from, Topic::Consensus, bytes);
    }

    fn lie_vote(&mut self) {
        let step = if self.r.coin() { VoteKind::Prevote } else { VoteKind::Precommit };
        let (height, round) = (self.height(), self.round());
        let digest = self.r.coin().then(|| self.any_digest());
        let vote = SignedVote::sign(&self.world.keys[LIAR], &self.world.network, step, height, round, digest);
        self.votes.push(vote.clone());
        self.consensus(LIAR, &Gossip::Vote(vote));
    }

    fn lie_proposal(&mut self) {
        let (height, round, digest) = (self.height(), self.round(), self.any_digest());
        let pol = self.r.coin().then(|| self.r.number() as u32);
        let pair = &self.world.keys[LIAR];
        let proposal = SignedProposal::sign(pair, &self.world.network, height, round, digest, pol);
        self.consensus(LIAR, &Gossip::Proposal(proposal));
    }

    /// A block of somebody, changed or not.
    fn block(&mut self) {
        let Some(block) = self.r.pick(&self.blocks) else { return };
        let mut bytes = encode::encode(block);
        self.r.damage(&mut bytes);
        if let Ok(mut bad) = Block::decode(&bytes) {
            if self.r.coin() {
                bad.header.height = self.r.near(self.host.head() + 1);
                bad.header.parent = self.host.machine().ledger().head().digest;
                bad.header.transactions = bad.body.transactions.len() as u32;
                bad.header.transactions_root = bad.body.root(&self.world.network);
                bad.header.parent_certificate = bad.body.certificate_digest();
            }
            self.digests.push(bad.header.digest(&self.world.network));
            bytes = encode::encode(&bad);
        }
        self.host.gossip(LIAR, Topic::Blocks, bytes);
    }

    fn transaction(&mut self) {
        let Some(transaction) = transaction(self.world, self.host.machine().ledger(), &mut self.r) else { return };
        let mut bytes = encode::encode(&transaction);
        self.r.damage(&mut bytes);
        if self.r.coin() {
            self.host.event(Event::Submit { id: u64::MAX, bytes });
        } else {
            self.host.gossip(LIAR, Topic::Rounds, bytes);
        }
    }

    fn raw(&mut self) {
        let topic = [Topic::Consensus, Topic::Blocks, Topic::Rounds, Topic::Status][self.r.below(4)];
        let bytes = self.r.piece().to_vec();
        self.host.gossip(LIAR, topic, bytes);
    }

    fn beacon(&mut self) {
        let i = self.r.below(5);
        // The honest do not say that they are where nobody is.
        let height = if i == LIAR || i == 4 { self.r.number() } else { self.host.head() + u64::from(self.history) };
        self.beacons += 1;
        let sent_ms = if i == LIAR { self.r.near(self.beacons) } else { self.beacons };
        let name = if self.r.byte() > 240 { Peer([self.r.byte(); 32]) } else { peer(i) };
        let signed = Signed::sign(&self.world.keys[i], &self.world.network, Beacon { height, peer: name, sent_ms });
        self.host.gossip(i, Topic::Status, encode::encode(signed.envelope()));
    }

    fn status(&mut self) {
        let name = Peer([self.r.byte(); 32]);
        if self.r.coin() {
            let height = self.r.number();
            self.host.event(Event::PeerStatus { peer: name, height });
        } else {
            self.host.event(Event::PeerGone(name));
        }
    }

    fn request(&mut self) {
        let bytes = match self.r.below(3) {
            0 => encode::encode(&Request::Body { digest: self.any_digest() }),
            1 => {
                let from = self.r.near(self.host.head());
                encode::encode(&Request::Blocks { from, count: self.r.number() as u16 })
            }
            _ => self.r.piece().to_vec(),
        };
        self.host.request(LIAR, bytes);
    }

    /// An answer to what was asked: right, cut, changed, none, or to nothing that was asked.
    fn response(&mut self) {
        let at = self.r.below(self.host.asks.len());
        if self.host.asks.is_empty() {
            let bytes = Some(self.r.piece().to_vec());
            self.host.event(Event::Response { id: self.r.number(), from: peer(LIAR), bytes });
            return;
        }
        let (id, to, request) = self.host.asks.remove(at);
        let mut bytes = encode::encode(&self.right_answer(request));
        self.r.damage(&mut bytes);
        let bytes = (self.r.below(8) > 0).then_some(bytes);
        self.host.event(Event::Response { id, from: to, bytes });
    }

    fn chain(&mut self) {
        if let Some((asked, snapshot)) = self.host.queries.pop()
            && self.r.coin()
        {
            let answer = match self.r.below(6) {
                0 => ChainAnswer::Ahead,
                1 => ChainAnswer::NotOnChain,
                2 => ChainAnswer::Unavailable,
                _ => ChainAnswer::OnChain { snapshot: snapshot.then(|| self.world.snapshot(asked.clone())) },
            };
            self.host.event(Event::ChainAnswer { reference: asked, answer });
            return;
        }
        let newest = self.host.machine().ledger().head().reference.epoch_index;
        let tip = reference(newest + u64::from(self.r.coin()));
        self.host.event(Event::ChainTip(tip));
    }

    /// The engine's certificates, of votes that were cast and of ones that were not.
    fn certificates(&mut self) {
        let (height, round, digest) = (self.height(), self.round(), self.any_digest());
        let votes: Vec<_> = self.votes.iter().rev().take(self.r.below(8)).cloned().collect();
        let message = if self.r.coin() {
            let mut signatures: Vec<_> = votes.iter().map(|v| (v.voter, v.signature)).collect();
            if self.r.coin() {
                signatures.push((self.world.keys[self.r.below(5)].public(), [self.r.byte(); 64]));
            }
            Gossip::Polka(Polka { height, round, digest, signatures })
        } else {
            let votes = votes.iter().map(|v| (v.step, v.digest, v.voter, v.signature)).collect();
            Gossip::Round(RoundEntry { height, round, precommits: self.r.coin(), votes })
        };
        self.consensus(self.r.clone().below(5), &message);
    }
}
