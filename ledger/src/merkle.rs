//! The binary Merkle tree over a block's transactions and over their receipts.
//!
//! `leaf = SHA-256(0x00 ‖ digest)`, `inner = SHA-256(0x01 ‖ left ‖ right)`; a node without a sibling
//! moves up as it is. The root binds the count: `root = SHA-256(0x02 ‖ count u64 LE ‖ top)`, with
//! `top` zero for an empty tree. So an inner node cannot pose as a leaf, and a proof for another
//! count, with surplus hashes or with missing ones is refused. The tree itself is rs_merkle's.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::Digest;
use rs_merkle::{Hasher, MerkleProof, MerkleTree};
use sha2::{Digest as _, Sha256};

/// SHA-256 with inner nodes tagged 0x01.
#[derive(Clone)]
struct Tagged;

impl Hasher for Tagged {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        match right {
            Some(right) => Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into(),
            None => *left,
        }
    }
}

fn leaf(digest: &Digest) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(digest.0).finalize().into()
}

fn bind(count: u64, top: [u8; 32]) -> Digest {
    Digest(Sha256::new().chain_update([2]).chain_update(count.to_le_bytes()).chain_update(top).finalize().into())
}

fn tree(leaves: &[Digest]) -> MerkleTree<Tagged> {
    MerkleTree::from_leaves(&leaves.iter().map(leaf).collect::<Vec<_>>())
}

/// The counted root over digests, in order.
pub fn root(leaves: &[Digest]) -> Digest {
    bind(leaves.len() as u64, tree(leaves).root().unwrap_or([0; 32]))
}

/// That a digest is the leaf at an index of a tree of so many leaves.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LeafProof {
    /// The index, from 0.
    pub index: u64,
    /// Leaves of the tree.
    pub count: u64,
    /// Siblings, bottom up.
    pub siblings: Vec<Digest>,
}

/// How many siblings the path of `index` meets in a tree of `count` leaves.
fn path_len(mut index: u64, mut count: u64) -> usize {
    let mut n = 0;
    while count > 1 {
        // The last node of a level of odd length has no sibling there.
        n += usize::from(index ^ 1 < count);
        index /= 2;
        count = count.div_ceil(2);
    }
    n
}

/// The proof of one leaf; `None` beyond the end.
pub fn prove(leaves: &[Digest], index: usize) -> Option<LeafProof> {
    if index >= leaves.len() {
        return None;
    }
    let proof = tree(leaves).proof(&[index]);
    let siblings = proof.proof_hashes().iter().map(|h| Digest(*h)).collect();
    Some(LeafProof { index: index as u64, count: leaves.len() as u64, siblings })
}

impl LeafProof {
    /// Whether `digest` is the leaf that this proof says it is, under `root`.
    #[must_use]
    pub fn verify(&self, root: &Digest, digest: &Digest) -> bool {
        if self.index >= self.count || self.siblings.len() != path_len(self.index, self.count) {
            return false;
        }
        let (Ok(index), Ok(count)) = (usize::try_from(self.index), usize::try_from(self.count)) else { return false };
        let proof = MerkleProof::<Tagged>::new(self.siblings.iter().map(|d| d.0).collect());
        proof.root(&[index], &[leaf(digest)], count).is_ok_and(|top| bind(self.count, top) == *root)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn leaves(n: u8) -> Vec<Digest> {
        (0..n).map(|i| Digest([i; 32])).collect()
    }

    /// The rule of the module's documentation, written down again.
    fn naive(leaves: &[Digest]) -> Digest {
        let mut level: Vec<[u8; 32]> = leaves.iter().map(leaf).collect();
        while level.len() > 1 {
            level = level.chunks(2).map(|c| Tagged::concat_and_hash(&c[0], c.get(1))).collect();
        }
        bind(leaves.len() as u64, level.first().copied().unwrap_or([0; 32]))
    }

    #[test]
    fn the_root_follows_the_written_rule() {
        for n in 0..40 {
            assert_eq!(root(&leaves(n)), naive(&leaves(n)), "{n} leaves");
        }
    }

    #[test]
    fn an_inner_node_cannot_pose_as_a_leaf() {
        let l = leaves(2);
        let inner = Digest(Tagged::concat_and_hash(&leaf(&l[0]), Some(&leaf(&l[1]))));
        assert_ne!(root(&[inner]), root(&l));
        assert!(prove(&l, 2).is_none());
    }

    proptest! {
        #[test]
        fn a_leaf_is_proved_and_nothing_else(n in 1u8..50, at in 0u8..50, bit in 0usize..256, extra in any::<[u8; 32]>()) {
            let l = leaves(n);
            let i = usize::from(at % n);
            let root = root(&l);
            let proof = prove(&l, i).unwrap();
            prop_assert!(proof.verify(&root, &l[i]));
            prop_assert!(!proof.verify(&root, &Digest([200; 32])));
            let mut surplus = proof.clone();
            surplus.siblings.push(Digest(extra));
            prop_assert!(!surplus.verify(&root, &l[i]));
            let longer = LeafProof { count: proof.count + 1, ..proof.clone() };
            prop_assert!(!longer.verify(&root, &l[i]));
            if n > 1 {
                let moved = LeafProof { index: (proof.index + 1) % u64::from(n), ..proof.clone() };
                prop_assert!(!moved.verify(&root, &l[i]));
                let mut flipped = proof.clone();
                let last = flipped.siblings.len() - 1;
                flipped.siblings[last].0[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(!flipped.verify(&root, &l[i]));
                let mut short = proof;
                short.siblings.pop();
                prop_assert!(!short.verify(&root, &l[i]));
            }
        }
    }
}
