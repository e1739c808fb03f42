//! A node's database, shared between its machine and its simulated disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use jmt::storage::{LeafNode, Node, NodeKey, TreeReader};
use jmt::{KeyHash, OwnedValue, Version};
use perturb_ledger::store::{Row, StoreError};
use perturb_ledger::{Block, Certificate, Commit, Header, MemoryStore, StateStore};

use crate::bent::LedgerBug;

/// The memory store of the ledger under one roof with what is wrong with it.
#[derive(Clone, Default)]
pub struct Store(Rc<RefCell<Inner>>);

#[derive(Clone, Default)]
struct Inner {
    rows: MemoryStore,
    /// Rows as a failing disk reads them.
    damaged: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The broken rule by which everybody reads.
    broken: LedgerBug,
}

impl Store {
    /// A store that holds one commit, and is read by a rule that may be broken.
    pub fn of(genesis: &Commit, broken: LedgerBug) -> Self {
        let store = Self(Rc::new(RefCell::new(Inner { broken, ..Inner::default() })));
        store.commit(genesis);
        store
    }

    /// Another store with the same content.
    pub fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// Applies a commit; rows that are written are whole again.
    pub fn commit(&self, commit: &Commit) {
        let mut inner = self.0.borrow_mut();
        for (key, _) in &commit.values {
            inner.damaged.remove(key);
        }
        inner.rows.commit(commit);
    }

    /// Applies the rows of a commit and nothing else of it: what a store without atomic batches
    /// would leave behind.
    pub fn commit_rows_only(&self, commit: &Commit) {
        let mut inner = self.0.borrow_mut();
        for (key, value) in &commit.values {
            inner.damaged.insert(key.clone(), value.clone().unwrap_or_default());
        }
    }

    /// A committed block with its certificate.
    pub fn block(&self, height: u64) -> Option<(Block, Option<Certificate>)> {
        self.0.borrow().rows.block(height).cloned()
    }

    /// All rows under a prefix as they are read.
    pub fn rows(&self, prefix: &[u8]) -> Vec<Row> {
        self.scan(prefix).unwrap_or_default()
    }

    /// Flips a bit of the row at an index; false where there is none.
    pub fn flip(&self, index: usize, bit: usize) -> bool {
        let rows = self.rows(b"");
        let Some((key, mut value)) = rows.get(index % rows.len().max(1)).cloned() else { return false };
        if value.is_empty() {
            return false;
        }
        let at = bit / 8 % value.len();
        value[at] ^= 1 << (bit % 8);
        self.0.borrow_mut().damaged.insert(key, value);
        true
    }
}

impl TreeReader for Store {
    fn get_node_option(&self, key: &NodeKey) -> Result<Option<Node>, anyhow::Error> {
        self.0.borrow().rows.get_node_option(key)
    }

    fn get_value_option(&self, max: Version, key: KeyHash) -> Result<Option<OwnedValue>, anyhow::Error> {
        self.0.borrow().rows.get_value_option(max, key)
    }

    fn get_rightmost_leaf(&self) -> Result<Option<(NodeKey, LeafNode)>, anyhow::Error> {
        self.0.borrow().rows.get_rightmost_leaf()
    }
}

impl StateStore for Store {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let inner = self.0.borrow();
        let row = match inner.damaged.get(key) {
            Some(bytes) => Some(bytes.clone()),
            None => inner.rows.value(key)?,
        };
        inner.broken.value(&inner.rows, key, row)
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let inner = self.0.borrow();
        let mut rows = inner.rows.scan(prefix)?;
        for (key, value) in &mut rows {
            if let Some(bytes) = inner.damaged.get(key) {
                value.clone_from(bytes);
            }
        }
        inner.broken.scan(&inner.rows, prefix, rows)
    }

    fn newest(&self) -> Result<Option<(Header, Option<Certificate>)>, StoreError> {
        self.0.borrow().rows.newest()
    }
}
