//! What validators say to each other, byte for byte.
//!
//! Everything is borsh. On the topic [`Topic::Consensus`] travel [`Gossip`] messages, on
//! [`Topic::Blocks`] a block, on [`Topic::Rounds`] a transaction, on [`Topic::Status`] a signed
//! [`Beacon`]. Request and response ([`Request`], [`Response`]) fetch bodies and ranges of blocks.
//!
//! - A vote's signature covers the ledger's vote bytes, so a certificate verifies without the engine.
//! - A proposal's covers the ledger's proposal bytes, so two of them are evidence to the ledger.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_ledger::{VoteKind, proposal_sign_bytes, vote_sign_bytes};
use perturb_types::encode::{self, DecodeError, Domain};
use perturb_types::envelope::Payload;
use perturb_types::keys::verify_ed25519;
use perturb_types::{ConsensusKey, ConsensusPair, Digest, NetworkId, limits};

/// Blocks asked for in one range request: some seconds of history, well under the byte bound.
pub const MAX_RANGE_BLOCKS: u16 = 64;

/// Bytes of one range response: a full block with its certificate, or many small ones; with its frame
/// it stays below what the network carries in one answer.
pub const MAX_RANGE_BYTES: usize = limits::MAX_BLOCK_BYTES + (1 << 20);

/// Bytes of a request: a tag and at most a digest.
pub const MAX_REQUEST_BYTES: usize = 64;

/// Bytes of a response: a range, and its frame.
pub const MAX_RESPONSE_BYTES: usize = MAX_RANGE_BYTES + 64 * 1024;

/// Bytes of a certificate: a signature of each validator and its frame.
pub const MAX_CERTIFICATE_BYTES: usize = limits::MAX_VALIDATORS * 128 + 256;

/// What a gossiped message is about; the network maps each to a topic with network id and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Votes, proposals and the engine's certificates.
    Consensus,
    /// Blocks proposed.
    Blocks,
    /// Transactions.
    Rounds,
    /// Beacons.
    Status,
}

impl Topic {
    /// The most bytes a message of the topic may have.
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Consensus => limits::MAX_CONSENSUS_MESSAGE_BYTES,
            Self::Blocks => limits::MAX_BLOCK_BYTES,
            Self::Rounds => limits::MAX_TRANSACTION_BYTES,
            Self::Status => 256,
        }
    }
}

/// A vote as it travels.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedVote {
    /// Prevote or precommit.
    pub step: VoteKind,
    /// The height.
    pub height: u64,
    /// The round.
    pub round: u32,
    /// The header's digest; `None` is nil.
    pub digest: Option<Digest>,
    /// Who votes.
    pub voter: ConsensusKey,
    /// Its ed25519 signature.
    pub signature: [u8; 64],
}

impl SignedVote {
    /// Signs a vote.
    pub fn sign(
        pair: &ConsensusPair,
        network: &NetworkId,
        step: VoteKind,
        height: u64,
        round: u32,
        digest: Option<Digest>,
    ) -> Self {
        let signature = pair.sign(&vote_sign_bytes(network, step, height, round, digest));
        Self { step, height, round, digest, voter: pair.public(), signature }
    }

    /// Whether the signature is the voter's.
    #[must_use]
    pub fn verify(&self, network: &NetworkId) -> bool {
        let bytes = vote_sign_bytes(network, self.step, self.height, self.round, self.digest);
        verify_ed25519(&self.voter, &bytes, &self.signature)
    }
}

/// A proposal as it travels.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedProposal {
    /// The height.
    pub height: u64,
    /// The round.
    pub round: u32,
    /// The proposed header's digest.
    pub digest: Digest,
    /// The round of the quorum of prevotes that justifies proposing an old value again.
    pub pol_round: Option<u32>,
    /// Who proposes.
    pub proposer: ConsensusKey,
    /// Its ed25519 signature.
    pub signature: [u8; 64],
}

impl SignedProposal {
    /// Signs a proposal.
    pub fn sign(
        pair: &ConsensusPair,
        network: &NetworkId,
        height: u64,
        round: u32,
        digest: Digest,
        pol_round: Option<u32>,
    ) -> Self {
        let signature = pair.sign(&proposal_sign_bytes(network, height, round, digest, pol_round));
        Self { height, round, digest, pol_round, proposer: pair.public(), signature }
    }

    /// Whether the signature is the proposer's.
    #[must_use]
    pub fn verify(&self, network: &NetworkId) -> bool {
        let bytes = proposal_sign_bytes(network, self.height, self.round, self.digest, self.pol_round);
        verify_ed25519(&self.proposer, &bytes, &self.signature)
    }
}

/// A quorum of prevotes for one value.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Polka {
    /// The height.
    pub height: u64,
    /// The round.
    pub round: u32,
    /// The value.
    pub digest: Digest,
    /// The prevoters and their signatures.
    pub signatures: Vec<(ConsensusKey, [u8; 64])>,
}

/// What entitles a validator to enter a round.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundEntry {
    /// The height.
    pub height: u64,
    /// The round of the votes.
    pub round: u32,
    /// `true`: a quorum of precommits of the round before; `false`: a third of votes of this round.
    pub precommits: bool,
    /// The votes.
    pub votes: Vec<(VoteKind, Option<Digest>, ConsensusKey, [u8; 64])>,
}

/// A message on [`Topic::Consensus`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Gossip {
    /// A vote.
    Vote(SignedVote),
    /// A proposal.
    Proposal(SignedProposal),
    /// A quorum of prevotes.
    Polka(Polka),
    /// A round's entry.
    Round(RoundEntry),
}

impl Gossip {
    /// Reads a message.
    ///
    /// # Errors
    /// Too long or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::decode("consensus message", bytes, Topic::Consensus.max_bytes())
    }

    /// The height it is about.
    pub fn height(&self) -> u64 {
        match self {
            Self::Vote(m) => m.height,
            Self::Proposal(m) => m.height,
            Self::Polka(m) => m.height,
            Self::Round(m) => m.height,
        }
    }
}

/// A name the driver gives to a peer, stable while it is connected: the network key's 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Peer(pub [u8; 32]);

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({:02x}{:02x}{:02x}{:02x})", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// How far a node has come; travels signed by its consensus key (domain `Status`).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Beacon {
    /// The last height it committed.
    pub height: u64,
    /// Where it can be asked: binds the consensus key to a connection.
    pub peer: Peer,
    /// Rises with every beacon of a run: an old one changes nothing.
    pub sent_ms: u64,
}

impl Payload for Beacon {
    const DOMAIN: Domain = Domain::Status;
    const NAME: &'static str = "status beacon";
    const MAX_BYTES: usize = 64;
}

/// What a node asks another.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Request {
    /// The block with this header's digest, proposed at the height in progress.
    Body {
        /// The header's digest.
        digest: Digest,
    },
    /// Committed blocks from a height on, each with its certificate.
    Blocks {
        /// The first height.
        from: u64,
        /// How many at most, up to [`MAX_RANGE_BLOCKS`].
        count: u16,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Response {
    /// The block's bytes, or nothing where it is unknown.
    Body(Option<Vec<u8>>),
    /// (block, certificate) bytes of consecutive heights; fewer than asked for is no fault.
    Blocks(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Response {
    /// A range within the bounds: as many leading blocks as fit, given in order of height.
    pub fn range(blocks: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut bytes = 0usize;
        let fit = blocks.into_iter().take(usize::from(MAX_RANGE_BLOCKS)).take_while(|(block, certificate)| {
            bytes = bytes.saturating_add(block.len()).saturating_add(certificate.len());
            bytes <= MAX_RANGE_BYTES
        });
        Self::Blocks(fit.collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const NET: NetworkId = NetworkId([7; 32]);

    #[test]
    fn a_vote_verifies_for_its_own_content_and_network_only() {
        let pair = ConsensusPair::from_seed(&[1; 32]);
        let vote = SignedVote::sign(&pair, &NET, VoteKind::Prevote, 3, 1, Some(Digest([9; 32])));
        assert!(vote.verify(&NET));
        assert!(!vote.verify(&NetworkId([8; 32])));
        for other in [
            SignedVote { step: VoteKind::Precommit, ..vote.clone() },
            SignedVote { height: 4, ..vote.clone() },
            SignedVote { round: 2, ..vote.clone() },
            SignedVote { digest: None, ..vote.clone() },
            SignedVote { voter: ConsensusPair::from_seed(&[2; 32]).public(), ..vote.clone() },
        ] {
            assert!(!other.verify(&NET), "{other:?}");
        }
        let proposal = SignedProposal::sign(&pair, &NET, 3, 1, Digest([9; 32]), None);
        assert!(proposal.verify(&NET));
        assert!(!SignedProposal { pol_round: Some(0), ..proposal }.verify(&NET));
    }

    #[test]
    fn a_range_stays_within_its_bounds() {
        let big = vec![0u8; limits::MAX_BLOCK_BYTES];
        let Response::Blocks(fit) = Response::range((0..5).map(|_| (big.clone(), vec![]))) else { panic!() };
        assert_eq!(fit.len(), 1);
        let Response::Blocks(fit) = Response::range((0..500).map(|_| (vec![1], vec![2]))) else { panic!() };
        assert_eq!(fit.len(), usize::from(MAX_RANGE_BLOCKS));
        let bytes = encode::encode(&Response::range([(big, vec![0; MAX_CERTIFICATE_BYTES])]));
        assert!(bytes.len() <= MAX_RESPONSE_BYTES);
    }

    #[test]
    fn a_full_set_of_signatures_fits_a_message() {
        let polka = Polka {
            height: 1,
            round: 0,
            digest: Digest([1; 32]),
            signatures: vec![(ConsensusKey([1; 32]), [2; 64]); limits::MAX_VALIDATORS],
        };
        assert!(encode::encode(&Gossip::Polka(polka)).len() <= Topic::Consensus.max_bytes());
        let entry = RoundEntry {
            height: 1,
            round: 0,
            precommits: true,
            votes: vec![
                (VoteKind::Precommit, Some(Digest([1; 32])), ConsensusKey([1; 32]), [2; 64]);
                limits::MAX_VALIDATORS
            ],
        };
        assert!(encode::encode(&Gossip::Round(entry)).len() <= Topic::Consensus.max_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Gossip::decode(&bytes);
            let _ = encode::decode::<Request>("request", &bytes, MAX_REQUEST_BYTES);
            let _ = encode::decode::<Response>("response", &bytes, MAX_RESPONSE_BYTES);
        }
    }
}
