//! What a transaction did: the leaves of a block's results tree.
//!
//! A receipt says what a reader would otherwise have to execute the history for: which scores of a
//! round entered the histories, which weights an epoch came to. Leaf `i` is
//! `H(Receipt, network, borsh(receipt of transaction i))`; the root stands in the header, so one
//! receipt with a [`LeafProof`] and a certificate shows one outcome to somebody who has no state.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode::{self, Domain};
use perturb_types::{ChallengeId, Digest, Hotkey, Millionths, NetworkId, RoundId};

use crate::merkle::{self, LeafProof};

/// A weight vector: uid, hotkey there (none for an empty uid) and weight.
pub type WeightVector = Vec<(u16, Option<Hotkey>, u16)>;

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Receipt {
    /// The transaction's digest.
    pub transaction: Digest,
    /// What it did.
    pub effect: Effect,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Effect {
    /// What it says, no more (tag 0).
    Applied,
    /// A round was closed (tag 1).
    Scored {
        /// The round.
        round: RoundId,
        /// The scores that entered the histories, in the order of the round's miners; none where the
        /// rules do not count the round.
        counted: Vec<(Hotkey, Millionths)>,
    },
    /// An epoch was closed (tag 2).
    Closed {
        /// The epoch that ended.
        epoch: u64,
        /// The agreed weights, by rising challenge.
        weights: Vec<(ChallengeId, WeightVector)>,
        /// Hash of the validator set that follows.
        next_validators: Digest,
    },
    /// A round was opened (tag 3).
    Opened {
        /// The round.
        round: RoundId,
        /// The miners that were drawn for it, by rising uid.
        miners: Vec<Hotkey>,
    },
}

impl Receipt {
    /// Its leaf.
    pub fn digest(&self, network: &NetworkId) -> Digest {
        encode::digest_of(Domain::Receipt, network, self)
    }
}

fn leaves(network: &NetworkId, receipts: &[Receipt]) -> Vec<Digest> {
    receipts.iter().map(|r| r.digest(network)).collect()
}

/// The results root of a block's receipts.
pub fn root(network: &NetworkId, receipts: &[Receipt]) -> Digest {
    merkle::root(&leaves(network, receipts))
}

/// A receipt with its place under a header's results root.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReceiptProof {
    /// The receipt.
    pub receipt: Receipt,
    /// Its place.
    pub path: LeafProof,
}

impl ReceiptProof {
    /// Proves the receipt at an index; `None` beyond the end.
    pub fn make(network: &NetworkId, receipts: &[Receipt], index: usize) -> Option<Self> {
        let path = merkle::prove(&leaves(network, receipts), index)?;
        Some(Self { receipt: receipts.get(index)?.clone(), path })
    }

    /// Whether a block with this results root has exactly this receipt at its index.
    #[must_use]
    pub fn verify(&self, network: &NetworkId, results_root: &Digest) -> bool {
        self.path.verify(results_root, &self.receipt.digest(network))
    }
}
