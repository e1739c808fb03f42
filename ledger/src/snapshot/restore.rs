//! From chunks to a state, one chunk after the other.

use std::sync::{Arc, Mutex, PoisonError};

use jmt::restore::{JellyfishMerkleRestore, StateSnapshotReceiver};
use jmt::storage::{Node, NodeBatch, NodeKey, TreeWriter};
use jmt::{KeyHash, RootHash};
use perturb_types::{Digest, encode};
use sha2::Sha256;

use super::{Chunk, ChunkError, ChunkInfo, MAX_PART_BYTES, Manifest, SnapshotError};
use crate::proofs::key_hash;
use crate::store::Row;

/// What a chunk gives, proved: write it as a whole.
#[derive(Debug)]
pub struct Piece {
    /// Rows of the state.
    pub rows: Vec<Row>,
    /// Nodes and values of the Merkle tree that are known from here on; those of the last row and
    /// above it come with a later piece.
    pub tree: NodeBatch,
}

/// A row as jmt takes it.
type Leaf = (KeyHash, Vec<u8>);

/// Takes what jmt writes, until it is handed out with its chunk.
#[derive(Default)]
struct Collector(Mutex<NodeBatch>);

impl Collector {
    fn take(&self) -> NodeBatch {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TreeWriter for Collector {
    fn write_node_batch(&self, batch: &NodeBatch) -> anyhow::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).merge(batch.clone());
        Ok(())
    }
}

/// Checks chunks against a header's state root, from the left. It belongs to one thread (jmt's
/// restoration is not `Send`): run it where blocking is allowed.
pub struct Restorer {
    height: u64,
    root: Digest,
    chunks: Vec<ChunkInfo>,
    next: u32,
    /// None after a refusal that blames the manifest.
    tree: Option<JellyfishMerkleRestore<Sha256>>,
    collector: Arc<Collector>,
}

impl Restorer {
    /// Begins with a manifest **whose header the caller has checked** ([`crate::light::Trust::check`]).
    ///
    /// # Errors
    /// None that data causes.
    pub fn new(manifest: &Manifest) -> Result<Self, SnapshotError> {
        let header = &manifest.header;
        let collector = Arc::new(Collector::default());
        let tree =
            JellyfishMerkleRestore::new_overwrite(Arc::clone(&collector), header.height, RootHash(header.state_root.0))
                .map_err(|e| SnapshotError::Manifest(e.to_string()))?;
        Ok(Self {
            height: header.height,
            root: header.state_root,
            chunks: manifest.chunks.clone(),
            next: 0,
            tree: Some(tree),
            collector,
        })
    }

    /// The index of the chunk that comes next; `None` when all are there.
    pub fn wanted(&self) -> Option<u32> {
        ((self.next as usize) < self.chunks.len()).then_some(self.next)
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`SnapshotError::Chunk`] with its index. Where that does not blame the manifest, nothing has
    /// changed: the right bytes are still welcome.
    pub fn add(&mut self, bytes: &[u8]) -> Result<Piece, SnapshotError> {
        let index = self.next;
        let info = *self.chunks.get(index as usize).ok_or(SnapshotError::Spent)?;
        let refused = |error| SnapshotError::Chunk { index, error };
        let named = named(&info, bytes).map_err(refused);
        if self.tree.is_none() {
            return Err(SnapshotError::Spent);
        }
        named?;
        // From here on a refusal is the manifest's fault, and the tree is not used again.
        let mut tree = self.tree.take().ok_or(SnapshotError::Spent)?;
        let (chunk, leaves) = self.read(&info, bytes).map_err(refused)?;
        tree.add_chunk(leaves, chunk.proof).map_err(|e| refused(ChunkError::Proof(e.to_string())))?;
        self.tree = Some(tree);
        self.next += 1;
        Ok(Piece { rows: chunk.rows, tree: self.collector.take() })
    }

    fn read(&self, info: &ChunkInfo, bytes: &[u8]) -> Result<(Chunk, Vec<Leaf>), ChunkError> {
        let chunk: Chunk = encode::decode("chunk", bytes, MAX_PART_BYTES)?;
        if chunk.index != self.next || chunk.height != self.height {
            return Err(ChunkError::Place { index: chunk.index, height: chunk.height });
        }
        if chunk.rows.len() != info.rows as usize {
            return Err(ChunkError::Rows("it has another number of rows than the manifest says"));
        }
        let leaves: Vec<_> = chunk.rows.iter().map(|(key, value)| (key_hash(key), value.clone())).collect();
        let ends = [leaves.first(), leaves.last()].map(|leaf| leaf.map(|(hash, _)| Digest(hash.0)));
        if ends != [Some(info.first), Some(info.last)] {
            return Err(ChunkError::Rows("its first or last row is not the one that the manifest names"));
        }
        if leaves.windows(2).any(|w| w[0].0 >= w[1].0) {
            return Err(ChunkError::Rows("its rows are out of order, or one is there twice"));
        }
        Ok((chunk, leaves))
    }

    /// The last nodes of the tree, the root among them: the rows are exactly the state.
    ///
    /// # Errors
    /// Chunks are missing, or the state has more rows than the manifest's chunks.
    pub fn finish(self) -> Result<NodeBatch, SnapshotError> {
        let (Some(tree), None) = (self.tree, ((self.next as usize) < self.chunks.len()).then_some(())) else {
            return Err(SnapshotError::Spent);
        };
        tree.finish().map_err(|e| SnapshotError::Manifest(e.to_string()))?;
        let rest = self.collector.take();
        let found = match rest.get_node(&NodeKey::new(self.height, std::iter::empty().collect())) {
            Some(Node::Internal(node)) => Digest(node.hash::<Sha256>()),
            Some(Node::Leaf(leaf)) => Digest(leaf.hash::<Sha256>()),
            Some(Node::Null) | None => Digest([0; 32]),
        };
        if found != self.root {
            let last = self.next.saturating_sub(1);
            return Err(SnapshotError::End { last, found, expected: self.root });
        }
        Ok(rest)
    }
}

fn named(info: &ChunkInfo, bytes: &[u8]) -> Result<(), ChunkError> {
    let expected = info.bytes as usize;
    if bytes.len() != expected || expected > MAX_PART_BYTES {
        return Err(ChunkError::Size { found: bytes.len(), expected });
    }
    let found = Digest::of(bytes);
    if found != info.digest {
        return Err(ChunkError::Digest { found, expected: info.digest });
    }
    Ok(())
}
