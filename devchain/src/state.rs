//! States of recent blocks, and running the runtime on one of them.
//!
//! All kept states share one table of trie nodes with reference counts. A block adds the nodes that are new in its
//! state at once; the nodes it no longer needs are released only when its parent's state leaves the window. So every
//! state in the window can be read whole, and memory grows with what blocks change, not with the size of the state.

use crate::error::ChainError;
use crate::runtime::STATE_VERSION;
use sp_core::H256;
use sp_externalities::{Extensions, set_and_run_with_externalities};
use sp_runtime::traits::BlakeTwo256;
use sp_state_machine::{
    Backend, Ext, IterArgs, LayoutV1, OverlayedChanges, TrieBackend, TrieBackendBuilder, TrieBackendStorage,
};
use sp_trie::{PrefixedMemoryDB, empty_trie_root, prefixed_key};
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Changed keys of one block: the new value, or `None` where the key was removed.
pub(crate) type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A key and a value of a state.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// New trie nodes, and nodes no longer needed (with negative counts), of one block.
pub(crate) type NodeChanges = PrefixedMemoryDB<BlakeTwo256>;

/// Trie nodes that a block no longer needs, with the number of references it drops.
pub(crate) type Released = Vec<(Vec<u8>, u32)>;

/// The encoding of an empty trie's only node.
const NULL_NODE: [u8; 1] = [0];

/// Trie nodes of all kept states.
#[derive(Default)]
pub(crate) struct NodeDb {
    nodes: HashMap<Vec<u8>, (Vec<u8>, u32)>,
}

impl TrieBackendStorage<BlakeTwo256> for NodeDb {
    fn get(&self, key: &H256, prefix: (&[u8], Option<u8>)) -> Result<Option<Vec<u8>>, String> {
        if *key == Self::empty_root() {
            return Ok(Some(NULL_NODE.to_vec()));
        }
        Ok(self.nodes.get(&prefixed_key::<BlakeTwo256>(key, prefix)).map(|(value, _)| value.clone()))
    }
}

impl NodeDb {
    /// Root of the state without any key.
    pub(crate) fn empty_root() -> H256 {
        empty_trie_root::<LayoutV1<BlakeTwo256>>()
    }

    /// Add a block's new nodes; returns those that it no longer needs.
    pub(crate) fn add(&mut self, mut changes: NodeChanges) -> Released {
        let mut released = Released::new();
        for (key, (value, count)) in changes.drain() {
            if count > 0 {
                self.nodes.entry(key).or_insert((value, 0)).1 += count.unsigned_abs();
            } else if count < 0 {
                released.push((key, count.unsigned_abs()));
            }
        }
        released
    }

    /// Drop references; nodes without any are forgotten.
    pub(crate) fn release(&mut self, released: Released) {
        for (key, count) in released {
            let gone = self.nodes.get_mut(&key).is_some_and(|(_, references)| {
                *references = references.saturating_sub(count);
                *references == 0
            });
            if gone {
                self.nodes.remove(&key);
            }
        }
    }

    /// Number of nodes kept.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn backend(&self, root: H256) -> TrieBackend<&Self, BlakeTwo256> {
        TrieBackendBuilder::new(self, root).build()
    }

    /// Root and node changes of the state at `root` after `changes`.
    pub(crate) fn root_after(&self, root: H256, changes: &Changes) -> (H256, NodeChanges) {
        let delta = changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        self.backend(root).storage_root(delta, STATE_VERSION)
    }

    /// Value of a key in the state at `root`.
    pub(crate) fn value(&self, root: H256, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        self.backend(root).storage(key).map_err(ChainError::State)
    }

    /// At most `count` keys that begin with `prefix` and come after `start`, in order.
    pub(crate) fn keys(
        &self,
        root: H256,
        prefix: &[u8],
        start: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<Vec<u8>>, ChainError> {
        let mut args = IterArgs::default();
        args.prefix = Some(prefix);
        args.start_at = start;
        args.start_at_exclusive = true;
        let backend = self.backend(root);
        let keys = backend.keys(args).map_err(ChainError::State)?;
        keys.take(count).collect::<Result<_, _>>().map_err(ChainError::State)
    }

    /// Every key and value of the state at `root`.
    pub(crate) fn pairs(&self, root: H256) -> Result<Vec<Pair>, ChainError> {
        let backend = self.backend(root);
        let pairs = backend.pairs(IterArgs::default()).map_err(ChainError::State)?;
        pairs.collect::<Result<_, _>>().map_err(ChainError::State)
    }

    /// Run `action` on the state at `root` and forget what it changes.
    pub(crate) fn read<R>(&self, root: H256, action: impl FnOnce() -> R) -> Result<R, ChainError> {
        self.run(root, action).map(|(result, _)| result)
    }

    /// Run `action` on the state at `root`; returns its changes as well. A panic of the runtime becomes an error.
    pub(crate) fn run<R>(
        &self,
        root: H256,
        action: impl FnOnce() -> R,
    ) -> Result<(R, OverlayedChanges<BlakeTwo256>), ChainError> {
        let backend = self.backend(root);
        let mut overlay = OverlayedChanges::default();
        let mut extensions = Extensions::default();
        let mut ext = Ext::new(&mut overlay, &backend, Some(&mut extensions));
        let result = catch_unwind(AssertUnwindSafe(|| set_and_run_with_externalities(&mut ext, action)));
        let result = result.map_err(|panic| ChainError::Runtime(panic_text(panic.as_ref())))?;
        Ok((result, overlay))
    }

    /// Run `action` on the state at `root`; returns what it changes, and the node changes that follow.
    pub(crate) fn change<R>(
        &self,
        root: H256,
        action: impl FnOnce() -> R,
    ) -> Result<(R, H256, Changes, NodeChanges), ChainError> {
        let (result, mut overlay) = self.run(root, action)?;
        let drained = overlay
            .drain_storage_changes(&self.backend(root), STATE_VERSION)
            .map_err(|error| ChainError::State(error.to_string()))?;
        Ok((result, drained.transaction_storage_root, drained.main_storage_changes, drained.transaction))
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn set(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))
    }

    #[test]
    fn old_states_stay_readable_until_they_are_released() {
        let mut db = NodeDb::default();
        let long = "a value that is longer than a hash, so that it has a node of its own";
        let (first, nodes) = db.root_after(NodeDb::empty_root(), &vec![set("alpha", long), set("beta", "2")]);
        assert!(db.add(nodes).is_empty());
        let (second, nodes) = db.root_after(first, &vec![set("alpha", "1"), (b"beta".to_vec(), None)]);
        let released = db.add(nodes);
        assert!(!released.is_empty());
        assert_eq!(db.value(first, b"alpha").unwrap().unwrap(), long.as_bytes());
        assert_eq!(db.value(second, b"alpha").unwrap().unwrap(), b"1");
        assert_eq!(db.value(second, b"beta").unwrap(), None);
        assert_eq!(db.keys(first, b"", Some(b"alpha"), 10).unwrap(), vec![b"beta".to_vec()]);
        let before = db.len();
        db.release(released);
        assert!(db.len() < before);
        assert!(db.value(first, b"alpha").is_err());
        assert_eq!(db.pairs(second).unwrap(), vec![(b"alpha".to_vec(), b"1".to_vec())]);
    }

    #[test]
    fn a_panic_of_the_runtime_is_an_error() {
        let error = NodeDb::default().read(NodeDb::empty_root(), || panic!("bad input")).unwrap_err();
        assert_eq!(error.to_string(), "the runtime failed: bad input");
    }
}
