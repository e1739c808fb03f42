//! Lies with votes.

use std::collections::BTreeSet;

use perturb_consensus::wire::{Gossip, SignedVote, Topic};
use perturb_ledger::VoteKind;
use perturb_types::{Digest, encode};
use rand::Rng;

use super::{Said, Scene, Strategy};

fn own_vote(scene: &Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<SignedVote> {
    match Gossip::decode(bytes) {
        Ok(Gossip::Vote(v)) if topic == Topic::Consensus && v.voter == scene.pair().public() => Some(v),
        _ => None,
    }
}

fn vote(scene: &Scene<'_>, step: VoteKind, height: u64, round: u32, digest: Option<Digest>) -> Vec<u8> {
    let vote = SignedVote::sign(scene.pair(), &scene.cast.network, step, height, round, digest);
    encode::encode(&Gossip::Vote(vote))
}

/// One vote to some, a contradicting one to the others, both to a few.
pub(super) struct TwoVotes;

impl Strategy for TwoVotes {
    fn say(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        let v = own_vote(scene, topic, bytes)?;
        let other = match v.digest {
            Some(_) if scene.rng.random_bool(0.7) => None,
            _ => Some(Digest(scene.rng.random())),
        };
        let other = vote(scene, v.step, v.height, v.round, other);
        let (first, second) = scene.halves();
        let mut out = Vec::new();
        for (side, mine, rest) in [(&first, bytes, &other[..]), (&second, &other[..], bytes)] {
            for to in side.iter().copied() {
                out.push(Said { to, topic, bytes: mine.to_vec(), after_ms: 0 });
                if scene.rng.random_bool(0.3) {
                    out.push(Said { to, topic, bytes: rest.to_vec(), after_ms: scene.rng.random_range(0..800) });
                }
            }
        }
        Some(out)
    }
}

/// Always nil.
pub(super) struct Nil;

impl Strategy for Nil {
    fn say(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        let v = own_vote(scene, topic, bytes)?;
        let nil = vote(scene, v.step, v.height, v.round, None);
        Some(scene.to_all(topic, &nil))
    }
}

/// Prevotes and precommits whatever is proposed, in every round, locked or not.
#[derive(Default)]
pub(super) struct VotesForAll {
    done: BTreeSet<(u64, u32)>,
}

impl Strategy for VotesForAll {
    fn say(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        own_vote(scene, topic, bytes).map(|_| Vec::new())
    }

    fn hear(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Vec<Said> {
        let Ok(Gossip::Proposal(p)) = Gossip::decode(bytes) else { return Vec::new() };
        if topic != Topic::Consensus || !self.done.insert((p.height, p.round)) {
            return Vec::new();
        }
        let votes = [VoteKind::Prevote, VoteKind::Precommit];
        votes
            .iter()
            .flat_map(|step| {
                let bytes = vote(scene, *step, p.height, p.round, Some(p.digest));
                scene.to_all(topic, &bytes)
            })
            .collect()
    }
}
