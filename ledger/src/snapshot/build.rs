//! Cutting a state into chunks.

use jmt::KeyHash;
use jmt::storage::TreeReader;
use perturb_types::{Digest, encode};

use super::{CHUNK_BYTES, CHUNK_ROWS, Chunk, ChunkInfo, HANDOVERS_PER_PART, MAX_PART_BYTES, PartInfo};
use crate::light::Handover;
use crate::proofs::{Tree, key_hash};
use crate::store::{Row, StoreError};

/// Where a chunk ends; one row always fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Bytes of keys and values.
    pub bytes: usize,
    /// Rows, at most [`CHUNK_ROWS`].
    pub rows: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self { bytes: CHUNK_BYTES, rows: CHUNK_ROWS }
    }
}

/// The chunks of a state, one after the other: each with its bytes.
pub struct Chunks<'a, R> {
    tree: &'a R,
    height: u64,
    limits: ChunkLimits,
    rows: std::iter::Peekable<std::vec::IntoIter<(KeyHash, Row)>>,
    index: u32,
}

impl<'a, R: TreeReader> Chunks<'a, R> {
    /// Cuts `rows`, all rows of the state after `height`, in any order; `tree` holds the Merkle tree
    /// of that height. Whether rows and tree belong together the restorer says.
    pub fn new(tree: &'a R, height: u64, rows: Vec<Row>, limits: ChunkLimits) -> Self {
        let mut rows: Vec<_> = rows.into_iter().map(|row| (key_hash(&row.0), row)).collect();
        rows.sort_unstable_by_key(|(hash, _)| *hash);
        let limits = ChunkLimits { rows: limits.rows.clamp(1, CHUNK_ROWS), ..limits };
        Self { tree, height, limits, rows: rows.into_iter().peekable(), index: 0 }
    }

    fn cut(&mut self, (first, row): (KeyHash, Row)) -> Result<(ChunkInfo, Vec<u8>), StoreError> {
        let size = |row: &Row| row.0.len() + row.1.len();
        let (mut bytes, mut last, mut rows) = (size(&row), first, vec![row]);
        let ChunkLimits { bytes: most_bytes, rows: most_rows } = self.limits;
        while let Some((hash, row)) =
            self.rows.next_if(|(_, row)| rows.len() < most_rows && bytes + size(row) <= most_bytes)
        {
            bytes += size(&row);
            last = hash;
            rows.push(row);
        }
        let proof = Tree::new(self.tree)
            .get_range_proof(last, self.height)
            .map_err(|e| StoreError(format!("range proof at height {}: {e}", self.height)))?;
        let (count, index) = (rows.len() as u32, self.index);
        let encoded = encode::encode(&Chunk { height: self.height, index, rows, proof });
        if encoded.len() > MAX_PART_BYTES {
            return Err(StoreError(format!("chunk {index} takes {} bytes, at most {MAX_PART_BYTES}", encoded.len())));
        }
        self.index += 1;
        let info = ChunkInfo {
            first: Digest(first.0),
            last: Digest(last.0),
            rows: count,
            bytes: encoded.len() as u32,
            digest: Digest::of(&encoded),
        };
        Ok((info, encoded))
    }
}

impl<R: TreeReader> Iterator for Chunks<'_, R> {
    type Item = Result<(ChunkInfo, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(self.cut(row))
    }
}

/// One part of handovers: at most [`HANDOVERS_PER_PART`] of them, with how the manifest names it.
pub fn handover_parts(handovers: &[Handover]) -> impl Iterator<Item = (PartInfo, Vec<u8>)> + '_ {
    handovers.chunks(HANDOVERS_PER_PART).map(|some| {
        let bytes = encode::encode(some);
        (PartInfo::of(some.len(), &bytes), bytes)
    })
}
