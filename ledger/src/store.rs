//! Storage as the ledger needs it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use jmt::storage::{LeafNode, Node, NodeKey, TreeReader, TreeUpdateBatch};
use jmt::{KeyHash, OwnedValue, Version};
use perturb_types::Digest;

use crate::block::{Block, Header};
use crate::certificate::Certificate;
use crate::receipt::Receipt;

/// A key of the state with its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A key of the state with its new value; `None` deletes.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// A store that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read: {0}")]
pub struct StoreError(pub String);

/// The committed state: ordered keys and values, and the Merkle tree over them.
///
/// `value` and `scan` read the newest committed version. The tree's versions are heights.
pub trait StateStore: TreeReader {
    /// The value of a key.
    ///
    /// # Errors
    /// The store cannot be read.
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// All keys that begin with `prefix`, in order, with their values.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, StoreError>;

    /// The newest committed header with its certificate; `None` while the store is empty.
    ///
    /// # Errors
    /// The store cannot be read.
    fn newest(&self) -> Result<Option<(Header, Option<Certificate>)>, StoreError>;
}

/// Everything that one height changes; a store writes it in one synced batch, or nothing of it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The height.
    pub height: u64,
    /// The header's digest.
    pub digest: Digest,
    /// The block.
    pub block: Block,
    /// Its certificate; none for genesis.
    pub certificate: Option<Certificate>,
    /// What its transactions did, in their order.
    pub receipts: Vec<Receipt>,
    /// The tree's new nodes and values, and the nodes that are stale from here on.
    pub tree: TreeUpdateBatch,
    /// Changed keys, in order.
    pub values: Vec<Change>,
}

/// A store in memory, for tests and simulations.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    nodes: HashMap<NodeKey, Node>,
    hashed: HashMap<KeyHash, BTreeMap<Version, Option<OwnedValue>>>,
    /// Every key that there ever was.
    keys: BTreeSet<Vec<u8>>,
    blocks: BTreeMap<u64, (Block, Option<Certificate>)>,
    receipts: BTreeMap<u64, Vec<Receipt>>,
    /// Where a restored state comes from, until a block follows.
    base: Option<(Header, Option<Certificate>)>,
    /// Whether only the newest height is kept.
    thin: bool,
}

impl MemoryStore {
    /// Applies a commit.
    pub fn commit(&mut self, commit: &Commit) {
        self.apply(&commit.values, &commit.tree);
        if self.thin {
            self.forget(&commit.tree);
        }
        self.blocks.insert(commit.height, (commit.block.clone(), commit.certificate.clone()));
        self.receipts.insert(commit.height, commit.receipts.clone());
    }

    /// From now on keeps the newest height only: for one who goes through a long history once.
    pub fn keep_newest_only(&mut self) {
        self.thin = true;
    }

    /// Drops what a commit has made stale, and all blocks before it.
    fn forget(&mut self, tree: &TreeUpdateBatch) {
        for stale in &tree.stale_node_index_batch {
            self.nodes.remove(&stale.node_key);
        }
        for ((_, key), value) in tree.node_batch.values() {
            match (value, self.hashed.get_mut(key)) {
                (Some(_), Some(versions)) => {
                    *versions = versions.split_off(&versions.keys().next_back().copied().unwrap_or(0))
                }
                _ => drop(self.hashed.remove(key)),
            }
        }
        self.keys.retain(|key| self.values.contains_key(key));
        self.blocks.clear();
        self.receipts.clear();
    }

    /// Applies changes of the state.
    pub(crate) fn apply(&mut self, changes: &[Change], tree: &TreeUpdateBatch) {
        for (key, value) in changes {
            self.keys.insert(key.clone());
            match value {
                Some(value) => self.values.insert(key.clone(), value.clone()),
                None => self.values.remove(key),
            };
        }
        for (key, node) in tree.node_batch.nodes() {
            self.nodes.insert(key.clone(), node.clone());
        }
        for ((version, key), value) in tree.node_batch.values() {
            self.hashed.entry(*key).or_default().insert(*version, value.clone());
        }
    }

    /// An empty tree's root.
    pub(crate) fn plant(&mut self, root: NodeKey) {
        self.nodes.insert(root, Node::Null);
    }

    /// Says which header a restored state belongs to; the next block follows it.
    pub fn set_base(&mut self, header: Header, certificate: Option<Certificate>) {
        self.base = Some((header, certificate));
    }

    /// All committed blocks with their certificates, by height.
    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = &(Block, Option<Certificate>)> {
        self.blocks.values()
    }

    /// What a committed block's transactions did.
    pub fn receipts(&self, height: u64) -> Option<&[Receipt]> {
        self.receipts.get(&height).map(Vec::as_slice)
    }

    /// The value of a key after a height.
    pub(crate) fn value_at(&self, height: u64, key: &[u8]) -> Option<Vec<u8>> {
        let versions = self.hashed.get(&crate::proofs::key_hash(key))?;
        versions.range(..=height).next_back().and_then(|(_, value)| value.clone())
    }

    /// Every key that there ever was, in order, above `after`.
    pub(crate) fn keys_after(&self, after: Option<&[u8]>) -> impl Iterator<Item = &Vec<u8>> {
        let above = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_vec()));
        self.keys.range((above, Bound::Unbounded))
    }

    /// A committed block with its certificate.
    pub fn block(&self, height: u64) -> Option<&(Block, Option<Certificate>)> {
        self.blocks.get(&height)
    }
}

impl TreeReader for MemoryStore {
    fn get_node_option(&self, key: &NodeKey) -> Result<Option<Node>, anyhow::Error> {
        Ok(self.nodes.get(key).cloned())
    }

    fn get_value_option(&self, max: Version, key: KeyHash) -> Result<Option<OwnedValue>, anyhow::Error> {
        Ok(self.hashed.get(&key).and_then(|v| v.range(..=max).next_back()).and_then(|(_, v)| v.clone()))
    }

    fn get_rightmost_leaf(&self) -> Result<Option<(NodeKey, LeafNode)>, anyhow::Error> {
        let leaves = self.nodes.iter().filter_map(|(k, n)| if let Node::Leaf(l) = n { Some((k, l)) } else { None });
        Ok(leaves.max_by_key(|(_, l)| l.key_hash()).map(|(k, l)| (k.clone(), l.clone())))
    }
}

impl StateStore for MemoryStore {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.values.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let from = self.values.range(prefix.to_vec()..);
        Ok(from.take_while(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn newest(&self) -> Result<Option<(Header, Option<Certificate>)>, StoreError> {
        let newest = self.blocks.last_key_value().map(|(_, (b, c))| (b.header.clone(), c.clone()));
        Ok(newest.or_else(|| self.base.clone()))
    }
}
