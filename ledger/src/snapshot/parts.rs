//! The parts of a snapshot.

use borsh::{BorshDeserialize, BorshSerialize};
use jmt::proof::SparseMerkleRangeProof;
use perturb_types::{Digest, NetworkId, encode};
use sha2::Sha256;

use super::{
    CHUNK_ROWS, FORMAT, HANDOVERS_PER_PART, MAX_BLOCK_PART_BYTES, MAX_CHUNKS, MAX_HANDOVER_PARTS, MAX_MANIFEST_BYTES,
    MAX_PART_BYTES, SnapshotError,
};
use crate::block::{Block, Header};
use crate::certificate::Certificate;
use crate::light::Handover;
use crate::receipt::{self, Receipt};
use crate::store::Row;

/// One part as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PartInfo {
    /// What is in it: handovers, or transactions.
    pub count: u32,
    /// Its encoded bytes.
    pub bytes: u32,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// One chunk as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChunkInfo {
    /// SHA-256 of its first row's key.
    pub first: Digest,
    /// SHA-256 of its last row's key.
    pub last: Digest,
    /// Its rows.
    pub rows: u32,
    /// Its encoded bytes.
    pub bytes: u32,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// What a snapshot is of, and its parts. Nothing in it is trusted.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The header after whose block the state stands.
    pub header: Header,
    /// Its certificate.
    pub certificate: Certificate,
    /// The block's part.
    pub block: PartInfo,
    /// Parts of handovers below the height, oldest first.
    pub handovers: Vec<PartInfo>,
    /// Chunks, by rising key hashes.
    pub chunks: Vec<ChunkInfo>,
}

/// The block of the height, and what its transactions did.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockPart {
    /// The block.
    pub block: Block,
    /// Its receipts.
    pub receipts: Vec<Receipt>,
}

/// Rows with the proof that, after those of the chunks before, they are the state's next.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct Chunk {
    /// The height.
    pub height: u64,
    /// Its index, from 0.
    pub index: u32,
    /// The rows, by rising key hash.
    pub rows: Vec<Row>,
    /// The hashes to the right of the last row's path.
    pub proof: SparseMerkleRangeProof<Sha256>,
}

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Part {
    /// The n-th of the handovers.
    Handovers(u32),
    /// The block.
    Block,
    /// The n-th of the rows.
    Chunk(u32),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Handovers(n) => write!(f, "handovers-{n:05}"),
            Self::Block => f.write_str("block"),
            Self::Chunk(n) => write!(f, "chunk-{n:05}"),
        }
    }
}

impl PartInfo {
    /// Names a part by its bytes.
    pub fn of(count: usize, bytes: &[u8]) -> Self {
        Self { count: count as u32, bytes: bytes.len() as u32, digest: Digest::of(bytes) }
    }

    /// Reads the part that this names.
    fn read<T: BorshDeserialize>(&self, part: Part, bytes: &[u8], limit: usize) -> Result<T, SnapshotError> {
        let refused = |named, why| SnapshotError::Part { part: part.to_string(), why, named };
        if bytes.len() != self.bytes as usize || Digest::of(bytes) != self.digest {
            return Err(refused(false, "its bytes are not those that the manifest names".into()));
        }
        encode::decode("part", bytes, limit).map_err(|e| refused(true, e.to_string()))
    }
}

impl Manifest {
    /// Reads a manifest and checks that its numbers fit together and are within bounds.
    ///
    /// # Errors
    /// [`SnapshotError::Manifest`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let this: Self = encode::decode("manifest", bytes, MAX_MANIFEST_BYTES)
            .map_err(|e| SnapshotError::Manifest(e.to_string()))?;
        this.validate().map_err(|why| SnapshotError::Manifest(why.into()))?;
        Ok(this)
    }

    fn validate(&self) -> Result<(), &'static str> {
        let fits = |ok: bool, why| if ok { Ok(()) } else { Err(why) };
        fits(self.format == FORMAT, "it has another format")?;
        fits(self.header.height > 0, "genesis needs no snapshot")?;
        fits(self.block.bytes as usize <= MAX_BLOCK_PART_BYTES, "its block is too large")?;
        fits(self.handovers.len() <= MAX_HANDOVER_PARTS, "too many handovers")?;
        for part in &self.handovers {
            let full = (1..=HANDOVERS_PER_PART).contains(&(part.count as usize));
            fits(full && part.bytes as usize <= MAX_PART_BYTES, "handovers of another size")?;
        }
        fits((1..=MAX_CHUNKS).contains(&self.chunks.len()), "no chunks, or too many")?;
        let mut before = None;
        for chunk in &self.chunks {
            fits((1..=CHUNK_ROWS).contains(&(chunk.rows as usize)), "a chunk of no rows, or too many")?;
            fits(chunk.bytes as usize <= MAX_PART_BYTES, "a chunk is too large")?;
            fits(chunk.first <= chunk.last && before < Some(chunk.first), "chunks out of order")?;
            before = Some(chunk.last);
        }
        Ok(())
    }

    /// Every part, in the order in which they are restored.
    pub fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let (handovers, chunks) = (self.handovers.len() as u32, self.chunks.len() as u32);
        (0..handovers).map(Part::Handovers).chain([Part::Block]).chain((0..chunks).map(Part::Chunk))
    }

    /// Encoded bytes of a part; `None` where there is no such part.
    pub fn bytes_of(&self, part: Part) -> Option<usize> {
        let bytes = match part {
            Part::Handovers(n) => self.handovers.get(n as usize)?.bytes,
            Part::Block => self.block.bytes,
            Part::Chunk(n) => self.chunks.get(n as usize)?.bytes,
        };
        Some(bytes as usize)
    }

    /// Whether these bytes are those of a part: they may be kept until its turn comes.
    pub fn names(&self, part: Part, bytes: &[u8]) -> bool {
        let (size, digest) = match part {
            Part::Handovers(n) => self.handovers.get(n as usize).map(|p| (p.bytes, p.digest)),
            Part::Block => Some((self.block.bytes, self.block.digest)),
            Part::Chunk(n) => self.chunks.get(n as usize).map(|c| (c.bytes, c.digest)),
        }
        .unwrap_or_default();
        bytes.len() == size as usize && Digest::of(bytes) == digest
    }

    /// Reads a part of handovers. They are not checked against anything: see [`crate::light`].
    ///
    /// # Errors
    /// The bytes are not those named, or no handovers.
    pub fn read_handovers(&self, index: u32, bytes: &[u8]) -> Result<Vec<Handover>, SnapshotError> {
        let (part, info) = (Part::Handovers(index), self.handovers.get(index as usize).ok_or(SnapshotError::Spent)?);
        let handovers: Vec<Handover> = info.read(part, bytes, MAX_PART_BYTES)?;
        if handovers.len() != info.count as usize {
            let why = format!("{} handovers, the manifest says {}", handovers.len(), info.count);
            return Err(SnapshotError::Part { part: part.to_string(), why, named: true });
        }
        Ok(handovers)
    }

    /// Reads the block and its receipts: they are the ones that the header names.
    ///
    /// # Errors
    /// The bytes are not those named, or not the header's block.
    pub fn read_block(&self, network: &NetworkId, bytes: &[u8]) -> Result<BlockPart, SnapshotError> {
        let read: BlockPart = self.block.read(Part::Block, bytes, MAX_BLOCK_PART_BYTES)?;
        let refused = |why: &str| SnapshotError::Part { part: Part::Block.to_string(), why: why.into(), named: true };
        if read.block.header != self.header || !read.block.is_whole(network) {
            return Err(refused("it is not the block that the header names"));
        }
        // One snapshot has one manifest: no number of it is free.
        if self.block.count != self.header.transactions {
            return Err(refused("it has another number of transactions than the manifest says"));
        }
        if receipt::root(network, &read.receipts) != self.header.results_root {
            return Err(refused("its receipts are not those that the header names"));
        }
        Ok(read)
    }
}
