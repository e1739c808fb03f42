//! Messages that nobody needs.

use std::collections::VecDeque;

use perturb_consensus::wire::{Gossip, Polka, RoundEntry, SignedVote, Topic};
use perturb_ledger::{DoubleVote, Equivocation, Pulse, Transaction, VoteKind, query};
use perturb_types::{ConsensusKey, Digest, encode};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Said, Scene, Strategy};

/// Messages remembered.
const REMEMBERED: usize = 300;

/// Repeats what was heard, long after.
#[derive(Default)]
pub(super) struct Replay {
    heard: VecDeque<(Topic, Vec<u8>)>,
}

impl Strategy for Replay {
    fn hear(&mut self, _scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Vec<Said> {
        if self.heard.len() == REMEMBERED {
            self.heard.pop_front();
        }
        self.heard.push_back((topic, bytes.to_vec()));
        Vec::new()
    }

    fn tick(&mut self, scene: &mut Scene<'_>) -> Vec<Said> {
        let mut out = Vec::new();
        for _ in 0..6 {
            // A beacon speaks for one connection: replaying it shows who replays.
            let Some((topic, bytes)) = self.heard.get(scene.rng.random_range(0..REMEMBERED)) else { continue };
            if *topic != Topic::Status {
                out.extend(scene.to_all(*topic, bytes));
            }
        }
        out
    }
}

/// Votes for rounds and heights that are far ahead.
pub(super) struct Future;

impl Strategy for Future {
    fn tick(&mut self, scene: &mut Scene<'_>) -> Vec<Said> {
        let mut out = Vec::new();
        for _ in 0..12 {
            let height = scene.height() + [0, 0, 1, 2, 50].choose(scene.rng).copied().unwrap_or(0);
            let round = [1, 5, 9, 11, 1_000, u32::MAX].choose(scene.rng).copied().unwrap_or(1);
            let step = if scene.rng.random() { VoteKind::Prevote } else { VoteKind::Precommit };
            let digest = scene.rng.random_bool(0.5).then(|| Digest(scene.rng.random()));
            let vote = SignedVote::sign(scene.pair(), &scene.cast.network, step, height, round, digest);
            out.extend(scene.gossip(&Gossip::Vote(vote)));
        }
        out
    }
}

/// Bytes that are no message, of every length.
pub(super) struct Garbage;

impl Strategy for Garbage {
    fn tick(&mut self, scene: &mut Scene<'_>) -> Vec<Said> {
        let mut out = Vec::new();
        for topic in [Topic::Consensus, Topic::Blocks, Topic::Rounds, Topic::Status] {
            let bytes: Vec<u8> = (0..scene.rng.random_range(0..300)).map(|_| scene.rng.random()).collect();
            out.extend(scene.to_all(topic, &bytes));
        }
        out
    }
}

/// Quorums made of one signature, of others' signatures for something else, and of strangers.
#[derive(Default)]
pub(super) struct Certificates {
    stolen: VecDeque<SignedVote>,
}

impl Certificates {
    fn signatures(&self, scene: &Scene<'_>, height: u64, digest: Digest) -> Vec<(ConsensusKey, [u8; 64])> {
        let own = SignedVote::sign(scene.pair(), &scene.cast.network, VoteKind::Prevote, height, 0, Some(digest));
        let mut out = vec![(own.voter, own.signature); 3];
        out.extend(self.stolen.iter().map(|v| (v.voter, v.signature)));
        out.push((ConsensusKey([9; 32]), [9; 64]));
        out
    }
}

impl Strategy for Certificates {
    fn hear(&mut self, _scene: &mut Scene<'_>, _topic: Topic, bytes: &[u8]) -> Vec<Said> {
        if let Ok(Gossip::Vote(vote)) = Gossip::decode(bytes) {
            if self.stolen.len() == 6 {
                self.stolen.pop_front();
            }
            self.stolen.push_back(vote);
        }
        Vec::new()
    }

    fn tick(&mut self, scene: &mut Scene<'_>) -> Vec<Said> {
        let (height, digest) = (scene.height(), Digest(scene.rng.random()));
        let round = scene.rng.random_range(0..4);
        let signatures = self.signatures(scene, height, digest);
        let polka = Gossip::Polka(Polka { height, round, digest, signatures });
        let votes = self.stolen.iter().map(|v| (v.step, v.digest, v.voter, v.signature)).collect();
        let entry = Gossip::Round(RoundEntry { height, round, precommits: scene.rng.random(), votes });
        let mut out = scene.gossip(&polka);
        out.extend(scene.gossip(&entry));
        out
    }
}

/// Evidence that proves nothing, others' transactions with a bit turned, and repeats.
#[derive(Default)]
pub(super) struct MempoolFlood {
    heard: VecDeque<Vec<u8>>,
}

impl Strategy for MempoolFlood {
    fn hear(&mut self, _scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Vec<Said> {
        if topic == Topic::Rounds {
            if self.heard.len() == 32 {
                self.heard.pop_front();
            }
            self.heard.push_back(bytes.to_vec());
        }
        Vec::new()
    }

    fn tick(&mut self, scene: &mut Scene<'_>) -> Vec<Said> {
        let victim = scene.cast.pairs.choose(scene.rng).map(|p| p.public()).unwrap_or(ConsensusKey([1; 32]));
        let forged = Equivocation::Votes(DoubleVote {
            key: victim,
            kind: VoteKind::Precommit,
            height: scene.height(),
            round: 0,
            digests: [None, Some(Digest(scene.rng.random()))],
            signatures: [[1; 64], [2; 64]],
        });
        let mut out = scene.to_all(Topic::Rounds, &encode::encode(&Transaction::Evidence(Box::new(forged))));
        for _ in 0..4 {
            let at = scene.rng.random_range(0..32);
            let Some(mut bytes) = self.heard.get(at).cloned() else { continue };
            if !bytes.is_empty() && scene.rng.random() {
                let bit = scene.rng.random_range(0..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            out.extend(scene.to_all(Topic::Rounds, &bytes));
        }
        out
    }
}

/// What is waited for, with a signature that is another round's, has a bit turned, or is the point at
/// infinity, which a careless check takes for everybody's signature of everything.
#[derive(Default)]
pub(super) struct ForgedPulses {
    heard: Option<Pulse>,
}

impl Strategy for ForgedPulses {
    fn hear(&mut self, _scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Vec<Said> {
        if topic == Topic::Rounds
            && let Ok(Transaction::Pulse(pulse)) = Transaction::decode(bytes)
        {
            self.heard = Some(pulse);
        }
        Vec::new()
    }

    fn tick(&mut self, scene: &mut Scene<'_>) -> Vec<Said> {
        let awaited = query::awaited_pulses(scene.machine.ledger().store()).unwrap_or_default();
        let Some(round) = awaited.choose(scene.rng).copied() else { return Vec::new() };
        let mut infinity = [0; 48];
        infinity[0] = 0xc0;
        let mut turned = self.heard.map_or([0x80; 48], |p| p.signature);
        let bit = scene.rng.random_range(0..turned.len() * 8);
        turned[bit / 8] ^= 1 << (bit % 8);
        let others = self.heard.filter(|p| p.round != round).map_or(turned, |p| p.signature);
        let signature = [infinity, turned, others].choose(scene.rng).copied().unwrap_or(turned);
        scene.to_all(Topic::Rounds, &encode::encode(&Transaction::Pulse(Pulse { round, signature })))
    }
}
