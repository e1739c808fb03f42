//! A drill for local networks: a validator that contradicts each of its votes.
//!
//! The contradicting vote goes past the signing guard, as a modified program's would. The others must
//! catch it: their evidence becomes a transaction and stays in the state.

use perturb_consensus::wire::{Gossip, SignedVote};
use perturb_types::{ConsensusPair, Digest, NetworkId, encode};

/// Contradicts its own votes.
pub struct Equivocator {
    /// The consensus key.
    pub pair: ConsensusPair,
    /// The network.
    pub network: NetworkId,
}

impl Equivocator {
    /// The message that contradicts this one, where it is an own vote.
    pub fn contradict(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let Ok(Gossip::Vote(v)) = Gossip::decode(bytes) else { return None };
        if v.voter != self.pair.public() {
            return None;
        }
        let other = if v.digest.is_some() { None } else { Some(Digest([1; 32])) };
        let vote = SignedVote::sign(&self.pair, &self.network, v.step, v.height, v.round, other);
        Some(encode::encode(&Gossip::Vote(vote)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_ledger::VoteKind;

    #[test]
    fn own_votes_are_contradicted_and_others_are_not() {
        let (pair, network) = (ConsensusPair::from_seed(&[1; 32]), NetworkId([2; 32]));
        let vote = |by: &ConsensusPair| {
            let vote = SignedVote::sign(by, &network, VoteKind::Prevote, 3, 0, Some(Digest([9; 32])));
            encode::encode(&Gossip::Vote(vote))
        };
        let equivocator = Equivocator { pair: pair.clone(), network };
        let other = equivocator.contradict(&vote(&pair)).unwrap();
        let Gossip::Vote(other) = Gossip::decode(&other).unwrap() else { panic!() };
        assert!(other.verify(&network) && other.digest.is_none() && other.height == 3);
        assert_eq!(equivocator.contradict(&vote(&ConsensusPair::from_seed(&[2; 32]))), None);
    }
}
