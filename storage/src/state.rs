//! The ledger's storage trait over RocksDB.

use jmt::storage::{LeafNode, Node, NodeBatch, NodeKey, TreeReader};
use jmt::{KeyHash, OwnedValue, Version};
use perturb_ledger::store::Row;
use perturb_ledger::{Certificate, Commit, Header, StateStore, StoreError};
use perturb_types::encode;
use rocksdb::{Direction, IteratorMode, WriteBatch};

use crate::database::{Database, NODES, STALE, STALE_VALUE, TREE_VALUES, VALUES};
use crate::error::StorageError;

fn node_key(key: &NodeKey) -> Vec<u8> {
    encode::encode(key)
}

/// Versions descend, so that the newest at or below a version comes first.
fn value_key(key: &KeyHash, version: Version) -> Vec<u8> {
    [key.0.as_slice(), &(u64::MAX - version).to_be_bytes()].concat()
}

/// A key and a value as RocksDB gives them.
type BoxedRow = (Box<[u8]>, Box<[u8]>);

impl Database {
    pub(crate) fn put_tree(&self, batch: &mut WriteBatch, commit: &Commit) -> Result<(), StorageError> {
        let stale = self.family(STALE)?;
        self.put_nodes(batch, &commit.tree.node_batch)?;
        for ((version, key), value) in commit.tree.node_batch.values() {
            // The value before is stale from here on. A deletion's own row is needed as long as the
            // value that it hides is there, and goes after it.
            if value.is_none() {
                let since = version.saturating_add(1).to_be_bytes();
                batch.put_cf(stale, [since.as_slice(), &value_key(key, *version)].concat(), STALE_VALUE);
            }
            if let Some(before) = version.checked_sub(1)
                && let Some(row) = self.value_row(*key, before)?
            {
                batch.put_cf(stale, [version.to_be_bytes().as_slice(), &row.0].concat(), STALE_VALUE);
            }
        }
        for index in &commit.tree.stale_node_index_batch {
            let mut key = index.stale_since_version.to_be_bytes().to_vec();
            key.extend(node_key(&index.node_key));
            batch.put_cf(stale, key, []);
        }
        Ok(())
    }

    /// Nodes and values of the tree, as they are.
    pub(crate) fn put_nodes(&self, batch: &mut WriteBatch, tree: &NodeBatch) -> Result<(), StorageError> {
        let (nodes, values) = (self.family(NODES)?, self.family(TREE_VALUES)?);
        for (key, node) in tree.nodes() {
            batch.put_cf(nodes, node_key(key), encode::encode(node));
        }
        for ((version, key), value) in tree.values() {
            batch.put_cf(values, value_key(key, *version), encode::encode(value));
        }
        Ok(())
    }

    /// The newest row of a key of the tree at or below a version.
    fn value_row(&self, key: KeyHash, max: Version) -> Result<Option<BoxedRow>, StorageError> {
        let from = value_key(&key, max);
        let family = self.family(TREE_VALUES)?;
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_upper_bound([key.0.as_slice(), &[u8::MAX; 9]].concat());
        let mode = IteratorMode::From(&from, Direction::Forward);
        let row = self.inner.db.iterator_cf_opt(family, options, mode).next();
        row.transpose().map_err(|e| self.failed(e))
    }
}

impl TreeReader for Database {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        let bytes = self.get(NODES, &node_key(key))?;
        Ok(bytes.map(|b| self.parse("tree node", &b)).transpose()?)
    }

    fn get_value_option(&self, max: Version, key: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        let Some((_, bytes)) = self.value_row(key, max)? else { return Ok(None) };
        Ok(self.parse("tree value", &bytes)?)
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        // Only jmt's resumption of a restoration asks for it; ours begin anew.
        anyhow::bail!("the rightmost leaf is not indexed")
    }
}

impl StateStore for Database {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(VALUES, key).map_err(|e| StoreError(e.to_string()))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let failed = |e: StorageError| StoreError(e.to_string());
        let family = self.family(VALUES).map_err(failed)?;
        let mut out = Vec::new();
        for row in self.inner.db.iterator_cf(family, IteratorMode::From(prefix, Direction::Forward)) {
            let (key, value) = row.map_err(|e| failed(self.failed(e)))?;
            if !key.starts_with(prefix) {
                break;
            }
            out.push((key.into_vec(), value.into_vec()));
        }
        Ok(out)
    }

    fn newest(&self) -> Result<Option<(Header, Option<Certificate>)>, StoreError> {
        let read = || -> Result<Option<(Header, Option<Certificate>)>, StorageError> {
            let Some(height) = self.height()? else { return Ok(None) };
            let header = self
                .header(height)?
                .ok_or_else(|| StorageError::Damaged { what: format!("block {height}"), why: "missing".into() })?;
            Ok(Some((header, self.certificate(height)?)))
        };
        read().map_err(|e| StoreError(e.to_string()))
    }
}
