//! Blocks.
//!
//! The header binds everything: `digest = H(Header, network, borsh(header))`. It commits to the
//! transactions by a counted Merkle root, to the parent's certificate by its digest, to the state
//! and the results *after* execution, to the set that certifies it and to the one that follows.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode::{self, DecodeError, Domain};
use perturb_types::{ConsensusKey, Digest, NetworkId, limits};
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::merkle;
use crate::tx::Transaction;

/// The protocol of this version.
pub const PROTOCOL: u32 = 1;

/// A finalized block of the Bittensor chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ChainReference {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: Digest,
    /// The subnet's epoch index there.
    pub epoch_index: u64,
}

/// What is agreed and certified.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The network.
    pub network: NetworkId,
    /// The height; genesis is 0.
    pub height: u64,
    /// Digest of the parent's header.
    pub parent: Digest,
    /// Digest of the parent's certificate as this block carries it; zero at height 1.
    pub parent_certificate: Digest,
    /// The proposer's clock, Unix milliseconds; rises with the height.
    pub time_ms: u64,
    /// Who proposed it.
    pub proposer: ConsensusKey,
    /// Root of the transactions.
    pub transactions_root: Digest,
    /// How many.
    pub transactions: u32,
    /// Root of the state after execution.
    pub state_root: Digest,
    /// Root of the transactions' results.
    pub results_root: Digest,
    /// Hash of the set that certifies this block.
    pub validators: Digest,
    /// Hash of the set that certifies the next.
    pub next_validators: Digest,
    /// The epoch in the making *after* this block.
    pub epoch: u64,
    /// The chain as the proposer saw it.
    pub reference: ChainReference,
}

/// What a header stands for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Body {
    /// The transactions, in order.
    pub transactions: Vec<Transaction>,
    /// The parent's certificate; none at height 1.
    pub parent_certificate: Option<Certificate>,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// The body.
    pub body: Body,
}

impl Header {
    /// Its digest: what votes and certificates name.
    pub fn digest(&self, network: &NetworkId) -> Digest {
        encode::digest_of(Domain::Header, network, self)
    }
}

impl Block {
    /// Reads a block.
    ///
    /// # Errors
    /// Too large or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::decode("block", bytes, limits::MAX_BLOCK_BYTES)
    }

    /// Whether the body is the one that the header names, and so the one that its digest stands for.
    /// Without this anyone could send a header with another body, and a verdict on that would be taken
    /// for a verdict on the block.
    #[must_use]
    pub fn is_whole(&self, network: &NetworkId) -> bool {
        let (h, body) = (&self.header, &self.body);
        h.transactions as usize == body.transactions.len()
            && h.transactions_root == body.root(network)
            && h.parent_certificate == body.certificate_digest()
    }

    /// The reference that the own chain node has to confirm, and the snapshot where the epoch closes.
    pub fn chain_claims(&self) -> (&ChainReference, Option<&crate::tx::Snapshot>) {
        let close = self.body.transactions.iter().find_map(|t| match t {
            Transaction::EpochClose { snapshot, .. } => Some(snapshot.as_ref()),
            _ => None,
        });
        (&self.header.reference, close)
    }
}

impl Body {
    /// The counted Merkle root of the transactions' digests.
    pub fn root(&self, network: &NetworkId) -> Digest {
        let leaves: Vec<Digest> = self.transactions.iter().map(|t| t.digest(network)).collect();
        merkle::root(&leaves)
    }

    /// The digest of the parent's certificate; zero where there is none.
    pub fn certificate_digest(&self) -> Digest {
        self.parent_certificate.as_ref().map_or(Digest([0; 32]), |c| Digest::of(&encode::encode(c)))
    }
}
