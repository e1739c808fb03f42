//! That a state has a row, or does not have it.

use borsh::{BorshDeserialize, BorshSerialize};
use jmt::proof::SparseMerkleProof;
use jmt::storage::TreeReader;
use jmt::{JellyfishMerkleTree, KeyHash, RootHash};
use perturb_types::Digest;
use sha2::{Digest as _, Sha256};

use crate::store::StoreError;

/// The tree over the state: SHA-256 throughout.
pub type Tree<'a, R> = JellyfishMerkleTree<'a, R, Sha256>;

/// Where a key stands in the tree.
pub fn key_hash(key: &[u8]) -> KeyHash {
    KeyHash(Sha256::digest(key).into())
}

/// A row of a state with its proof, or the proof that there is none.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct StateProof {
    /// The key.
    pub key: Vec<u8>,
    /// The row; `None` for absence.
    pub value: Option<Vec<u8>>,
    proof: SparseMerkleProof<Sha256>,
}

impl StateProof {
    /// Proves a key at a height.
    ///
    /// # Errors
    /// The store cannot be read, or no longer holds that height.
    pub fn make(store: &impl TreeReader, height: u64, key: &[u8]) -> Result<Self, StoreError> {
        let (value, proof) = Tree::new(store)
            .get_with_proof(key_hash(key), height)
            .map_err(|e| StoreError(format!("proof at height {height}: {e}")))?;
        Ok(Self { key: key.to_vec(), value, proof })
    }

    /// Whether the state with this root has exactly this row (or none).
    #[must_use]
    pub fn verify(&self, state_root: &Digest) -> bool {
        self.proof.verify(RootHash(state_root.0), key_hash(&self.key), self.value.as_ref()).is_ok()
    }
}
