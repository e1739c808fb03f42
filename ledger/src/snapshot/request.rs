//! How snapshots are asked for between nodes.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::Digest;

use super::Part;

/// Bytes of a request.
pub const MAX_REQUEST_BYTES: usize = 64;

/// Bytes of an [`Offer`].
pub const MAX_OFFER_BYTES: usize = 64;

/// What a node asks another. What is not held is declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Request {
    /// What there is; answered by an [`Offer`].
    Offer,
    /// The manifest of this digest; answered by its bytes.
    Manifest(Digest),
    /// A part that this manifest names; answered by its bytes.
    Part(Digest, Part),
}

/// What a node holds. It is a claim: what comes of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Offer {
    /// The newest block.
    pub tip: u64,
    /// The lowest height above genesis whose block can be had.
    pub oldest_block: u64,
    /// The newest snapshot: its height, and the SHA-256 of its manifest.
    pub snapshot: Option<(u64, Digest)>,
}
