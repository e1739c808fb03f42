//! Two contradicting signatures of one consensus key: proof of a fault that needs no witness.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::keys::verify_ed25519;
use perturb_types::{ConsensusKey, Digest, NetworkId};

use crate::certificate::{VoteKind, proposal_sign_bytes, vote_sign_bytes};

/// What somebody signed twice.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Equivocation {
    /// Two votes for one step (tag 0).
    Votes(DoubleVote),
    /// Two proposals for one round (tag 1).
    Proposals(DoubleProposal),
}

/// Two votes of one key for one step with different values.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DoubleVote {
    /// Who signed both.
    pub key: ConsensusKey,
    /// Prevote or precommit.
    pub kind: VoteKind,
    /// The height.
    pub height: u64,
    /// The round.
    pub round: u32,
    /// The values, the lesser first (nil is least).
    pub digests: [Option<Digest>; 2],
    /// The signatures, in the same order.
    pub signatures: [[u8; 64]; 2],
}

/// Two proposals of one key for one round with different values.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DoubleProposal {
    /// Who signed both.
    pub key: ConsensusKey,
    /// The height.
    pub height: u64,
    /// The round.
    pub round: u32,
    /// The proposed headers, the lesser first.
    pub digests: [Digest; 2],
    /// The rounds that each says justify it.
    pub pol_rounds: [Option<u32>; 2],
    /// The signatures, in the same order.
    pub signatures: [[u8; 64]; 2],
}

impl Equivocation {
    /// Who signed both.
    pub fn key(&self) -> ConsensusKey {
        match self {
            Self::Votes(e) => e.key,
            Self::Proposals(e) => e.key,
        }
    }

    /// Height, round and step (0 proposal, 1 prevote, 2 precommit): one fault is recorded once,
    /// whichever of the contradicting values show it.
    pub fn place(&self) -> (u64, u32, u8) {
        match self {
            Self::Votes(e) => (e.height, e.round, e.kind as u8),
            Self::Proposals(e) => (e.height, e.round, 0),
        }
    }

    /// Whether it is one: two different values, both signed.
    #[must_use]
    pub fn verify(&self, network: &NetworkId) -> bool {
        let signed = |bytes: &[u8], signature: &[u8; 64]| verify_ed25519(&self.key(), bytes, signature);
        match self {
            Self::Votes(e) => {
                e.digests[0] < e.digests[1]
                    && e.digests.iter().zip(&e.signatures).all(|(digest, signature)| {
                        signed(&vote_sign_bytes(network, e.kind, e.height, e.round, *digest), signature)
                    })
            }
            Self::Proposals(e) => {
                e.digests[0] < e.digests[1]
                    && e.digests.iter().zip(e.pol_rounds).zip(&e.signatures).all(|((digest, pol), signature)| {
                        signed(&proposal_sign_bytes(network, e.height, e.round, *digest, pol), signature)
                    })
            }
        }
    }
}
