//! A transaction with its place in a certified block and what it did there.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::NetworkId;

use crate::block::{Block, Header};
use crate::certificate::Certificate;
use crate::light::{LightError, Trust};
use crate::merkle::{self, LeafProof};
use crate::receipt::{Receipt, ReceiptProof};
use crate::tx::Transaction;

/// Everything needed to show to somebody without state that a block has a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Inclusion {
    /// The block's header.
    pub header: Header,
    /// Its certificate.
    pub certificate: Certificate,
    /// The transaction.
    pub transaction: Transaction,
    /// Its place under the header's transactions root.
    pub path: LeafProof,
    /// What it did, under the header's results root.
    pub receipt: ReceiptProof,
}

/// Why an inclusion shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InclusionError {
    /// The header.
    #[error(transparent)]
    Light(#[from] LightError),
    /// The transaction is not where it is said to be.
    #[error("block {height}: the {what} is not under the header's root")]
    Root {
        /// The block's height.
        height: u64,
        /// Transaction or receipt.
        what: &'static str,
    },
    /// Transaction and receipt do not go together.
    #[error("block {height}: the receipt is not that of the transaction")]
    Receipt {
        /// The block's height.
        height: u64,
    },
}

impl Inclusion {
    /// Shows one transaction of a block; `None` beyond its end.
    pub fn make(
        network: &NetworkId,
        block: &Block,
        certificate: &Certificate,
        receipts: &[Receipt],
        index: usize,
    ) -> Option<Self> {
        let leaves: Vec<_> = block.body.transactions.iter().map(|t| t.digest(network)).collect();
        Some(Self {
            header: block.header.clone(),
            certificate: certificate.clone(),
            transaction: block.body.transactions.get(index)?.clone(),
            path: merkle::prove(&leaves, index)?,
            receipt: ReceiptProof::make(network, receipts, index)?,
        })
    }

    /// Checks header, place and receipt under the set that certifies the height.
    ///
    /// # Errors
    /// See [`InclusionError`].
    pub fn verify(&self, trust: &Trust) -> Result<(), InclusionError> {
        let (network, header) = (trust.network(), &self.header);
        let height = header.height;
        trust.check(header, &self.certificate)?;
        let digest = self.transaction.digest(&network);
        if self.path.count != u64::from(header.transactions) || !self.path.verify(&header.transactions_root, &digest) {
            return Err(InclusionError::Root { height, what: "transaction" });
        }
        if !self.receipt.verify(&network, &header.results_root) {
            return Err(InclusionError::Root { height, what: "receipt" });
        }
        let path = &self.receipt.path;
        if self.receipt.receipt.transaction != digest || (path.index, path.count) != (self.path.index, self.path.count)
        {
            return Err(InclusionError::Receipt { height });
        }
        Ok(())
    }
}
