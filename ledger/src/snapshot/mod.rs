//! A state after a certified height, in chunks that anybody can check.
//!
//! A snapshot is a [`Manifest`] and numbered parts. All are borsh; each part is named by its SHA-256
//! in the manifest. In this order:
//!
//! | part | content | at most |
//! |---|---|---|
//! | `manifest` | [`Manifest`] | [`MAX_MANIFEST_BYTES`] |
//! | `handovers-{n}` | `Vec<Handover>`: every change of the set before the height, oldest first | [`MAX_PART_BYTES`] |
//! | `block` | [`BlockPart`]: the block of the height and its receipts | [`MAX_BLOCK_PART_BYTES`] |
//! | `chunk-{n}` | [`Chunk`]: rows by rising SHA-256 of their keys (the order of the Merkle tree) | [`MAX_PART_BYTES`] |
//!
//! **Nothing of the manifest is believed.** Whether its header is the network's, [`crate::light`]
//! says: the handovers lead from what the reader trusts to the set that certifies the header. The
//! header names the state root, the body and the receipts. Each chunk carries the right half of the
//! Merkle path of its last row ([`jmt::proof::SparseMerkleRangeProof`]); with the rows before it, it
//! makes the state root, or is refused *before* anything of it is handed on. The proofs have only
//! right siblings: that is jmt's interface, and so chunks are checked one after the other from the
//! left. They may be *fetched* in any order; the digests tell at once whether the bytes are those of
//! this manifest.
//!
//! What this cannot see: handovers left out between two times of one and the same set. The header is
//! still certified by the set that genesis leads to, and the state is the agreed one; but who begins
//! from it cannot lead a reader through the span that was left out.
//!
//! So there are two kinds of refusal ([`SnapshotError::blames_manifest`]). Bytes that are not those
//! of the manifest cost nothing: ask another for them. Bytes that are, and do not lead to the state
//! root, prove the manifest wrong: throw all of it away, and whoever gave it.

mod build;
mod parts;
mod request;
mod restore;

pub use build::{ChunkLimits, Chunks, handover_parts};
pub use parts::{BlockPart, Chunk, ChunkInfo, Manifest, Part, PartInfo};
pub use request::{MAX_OFFER_BYTES, MAX_REQUEST_BYTES, Offer, Request};
pub use restore::{Piece, Restorer};

use perturb_types::Digest;
use perturb_types::encode::DecodeError;

use crate::light::LightError;

/// The format of this version's snapshots.
pub const FORMAT: u32 = 1;

/// Bytes of rows after which a chunk ends: one request of the sync protocol (6 MiB) holds it well.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Rows after which a chunk ends: bounds the work before a refusal where rows are tiny.
pub const CHUNK_ROWS: usize = 8192;

/// Bytes of a part: a chunk that one large row (a snapshot of [`perturb_types::limits::MAX_NEURONS`])
/// makes longer than [`CHUNK_BYTES`], or handovers of the largest sets.
pub const MAX_PART_BYTES: usize = 4 << 20;

/// Bytes of the block's part: the body, and receipts that are no longer than it.
pub const MAX_BLOCK_PART_BYTES: usize = 2 * perturb_types::limits::MAX_BLOCK_BYTES;

/// Handovers of one part: sets of [`perturb_types::limits::MAX_VALIDATORS`] stay below [`MAX_PART_BYTES`].
pub const HANDOVERS_PER_PART: usize = 64;

/// Parts of handovers: over a million changes of the set.
pub const MAX_HANDOVER_PARTS: usize = 16_384;

/// Chunks: 16 GiB of rows, a thousand times the state of a busy subnet.
pub const MAX_CHUNKS: usize = 16_384;

/// Bytes of a manifest: its header and certificate, and 104 bytes for each part.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// Why a chunk is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Its encoded length is not the manifest's.
    #[error("{found} bytes, the manifest says {expected}")]
    Size {
        /// What it is.
        found: usize,
        /// What it must be.
        expected: usize,
    },
    /// Its digest is not the manifest's.
    #[error("digest {found}, the manifest says {expected}")]
    Digest {
        /// What it is.
        found: Digest,
        /// What it must be.
        expected: Digest,
    },
    /// It is no chunk.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It says that it is another chunk, or of another height.
    #[error("it says that it is chunk {index} of height {height}")]
    Place {
        /// The index in it.
        index: u32,
        /// The height in it.
        height: u64,
    },
    /// It has other rows than the manifest says.
    #[error("{0}")]
    Rows(&'static str),
    /// Its rows do not lead to the state root.
    #[error("its rows do not lead to the state root: {0}")]
    Proof(String),
}

/// Why a snapshot is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// No manifest, or one that contradicts itself.
    #[error("manifest: {0}")]
    Manifest(String),
    /// A header or handover that does not follow from what is trusted.
    #[error(transparent)]
    Light(#[from] LightError),
    /// A part beside the chunks.
    #[error("part {part}: {why}")]
    Part {
        /// Its name.
        part: String,
        /// What is wrong with it.
        why: String,
        /// Whether it is the one that the manifest names.
        named: bool,
    },
    /// A chunk.
    #[error("chunk {index}: {error}")]
    Chunk {
        /// Its index.
        index: u32,
        /// What is wrong with it.
        error: ChunkError,
    },
    /// The rows end before the state is whole.
    #[error("after chunk {last} the rows make root {found}, the header names {expected}")]
    End {
        /// The last chunk's index.
        last: u32,
        /// The root of all rows.
        found: Digest,
        /// The header's.
        expected: Digest,
    },
    /// Called out of order: a part too many, the end too early, or after a refusal that blames the manifest.
    #[error("this restoration is over or not at that point: begin anew")]
    Spent,
}

impl SnapshotError {
    /// Whether the manifest is wrong, and with it everything that it names; otherwise the bytes at
    /// hand are only not those that the manifest asks for.
    pub fn blames_manifest(&self) -> bool {
        match self {
            Self::Chunk { error, .. } => !matches!(error, ChunkError::Size { .. } | ChunkError::Digest { .. }),
            Self::Part { named, .. } => *named,
            // It may be another reader's truth.
            Self::Light(error) => !error.is_untrusted(),
            Self::Manifest(_) | Self::End { .. } | Self::Spent => true,
        }
    }
}
