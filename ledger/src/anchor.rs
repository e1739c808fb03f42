//! What of the history a validator puts on the Bittensor chain, so that nobody can agree on another one later.
//!
//! An anchor names the block that closed an epoch: its header's digest, which leads to every block before it, its state
//! root, and the digest of its certificate as the *next* header names it. All of that is agreed, so the anchors of all
//! validators for one epoch are the same bytes.
//!
//! ```text
//! anchor = label ‖ state root 32 ‖ certificate 32            121 bytes
//! label  = "perturb/1" ‖ epoch u64 LE ‖ height u64 LE ‖ header 32        57 bytes
//! ```
//!
//! A remark carries the whole anchor. A commitment has three fields: the label as raw bytes, and the two digests.

use perturb_types::{Digest, Hotkey, NetworkId};
use serde::{Deserialize, Serialize};

use crate::Header;

const TAG: &[u8; 9] = b"perturb/1";

/// Bytes of a label.
pub const LABEL_BYTES: usize = TAG.len() + 8 + 8 + 32;

/// Bytes of an anchor.
pub const ANCHOR_BYTES: usize = LABEL_BYTES + 32 + 32;

/// What is anchored of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The epoch that was closed.
    pub epoch: u64,
    /// Height of the block that closed it.
    pub height: u64,
    /// Digest of that block's header.
    pub header: Digest,
    /// The root of the state after it.
    pub state_root: Digest,
    /// SHA-256 of its certificate's canonical bytes.
    pub certificate: Digest,
}

/// Bytes that are no anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// Of another length.
    #[error("{0} bytes, an anchor has {ANCHOR_BYTES} of which {LABEL_BYTES} are its label")]
    Length(usize),
    /// Something else's bytes.
    #[error("the bytes do not begin with `perturb/1`")]
    Foreign,
}

impl Anchor {
    /// The anchor of the block that closed an epoch; `next` is the header after it. `None` where they do not follow
    /// each other, or no epoch was closed.
    pub fn of(network: &NetworkId, closing: &Header, next: &Header) -> Option<Self> {
        let header = closing.digest(network);
        let follows = next.parent == header && closing.height.checked_add(1) == Some(next.height);
        Some(Self {
            epoch: closing.epoch.checked_sub(1).filter(|_| follows)?,
            height: closing.height,
            header,
            state_root: closing.state_root,
            certificate: next.parent_certificate,
        })
    }

    /// What a commitment has as raw bytes.
    pub fn label(&self) -> [u8; LABEL_BYTES] {
        let mut out = [0; LABEL_BYTES];
        out.copy_from_slice(&self.to_bytes()[..LABEL_BYTES]);
        out
    }

    /// The whole anchor.
    pub fn to_bytes(&self) -> [u8; ANCHOR_BYTES] {
        let mut out = [0; ANCHOR_BYTES];
        let (epoch, height) = (self.epoch.to_le_bytes(), self.height.to_le_bytes());
        let parts: [&[u8]; 6] = [TAG, &epoch, &height, &self.header.0, &self.state_root.0, &self.certificate.0];
        let bytes = parts.into_iter().flatten();
        out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        out
    }

    /// Reads a whole anchor.
    ///
    /// # Errors
    /// Another length, or not an anchor of ours.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnchorError> {
        let length = AnchorError::Length(bytes.len());
        let Some(rest) = bytes.strip_prefix(TAG) else {
            return Err(if bytes.len() == ANCHOR_BYTES { AnchorError::Foreign } else { length });
        };
        let (epoch, rest) = rest.split_first_chunk().ok_or(length)?;
        let (height, rest) = rest.split_first_chunk().ok_or(length)?;
        let (header, rest) = rest.split_first_chunk().ok_or(length)?;
        let (state_root, rest) = rest.split_first_chunk().ok_or(length)?;
        let certificate = rest.try_into().map_err(|_| length)?;
        Ok(Self {
            epoch: u64::from_le_bytes(*epoch),
            height: u64::from_le_bytes(*height),
            header: Digest(*header),
            state_root: Digest(*state_root),
            certificate: Digest(certificate),
        })
    }

    /// Reads the three fields of a commitment.
    ///
    /// # Errors
    /// As for [`Anchor::from_bytes`].
    pub fn from_fields(label: &[u8], state_root: &Digest, certificate: &Digest) -> Result<Self, AnchorError> {
        if label.len() != LABEL_BYTES {
            return Err(AnchorError::Length(label.len()));
        }
        Self::from_bytes(&[label, &state_root.0, &certificate.0].concat())
    }
}

/// How an anchor is put on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorKind {
    /// As the hotkey's commitment on the subnet, in place of its earlier one.
    Commitment,
    /// As a remark with an event.
    Remark,
}

impl std::fmt::Display for AnchorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Commitment => "commitment",
            Self::Remark => "remark",
        })
    }
}

/// Where a validator says that an anchor of its is. A claim, to be looked up on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorPlace {
    /// The epoch that is anchored.
    pub epoch: u64,
    /// How.
    pub kind: AnchorKind,
    /// Whose it is.
    pub hotkey: Hotkey,
    /// Height of the chain's block.
    pub block_number: u64,
    /// Its hash.
    pub block_hash: Digest,
    /// The extrinsic's place in it.
    pub index: u32,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn anchor() -> Anchor {
        let digest = |b| Digest([b; 32]);
        Anchor { epoch: 3, height: 258, header: digest(7), state_root: digest(8), certificate: digest(9) }
    }

    #[test]
    fn its_bytes_are_the_documented_ones_and_read_back() {
        let anchor = anchor();
        let bytes = anchor.to_bytes();
        let start = [&b"perturb/1"[..], &[3, 0, 0, 0, 0, 0, 0, 0], &[2, 1, 0, 0, 0, 0, 0, 0], &[7; 32]].concat();
        assert_eq!(bytes, *[start.as_slice(), &[8; 32], &[9; 32]].concat());
        assert_eq!(anchor.label(), *start);
        assert_eq!(Anchor::from_bytes(&bytes), Ok(anchor));
        assert_eq!(Anchor::from_fields(&start, &Digest([8; 32]), &Digest([9; 32])), Ok(anchor));
    }

    #[test]
    fn other_bytes_are_no_anchor() {
        let bytes = anchor().to_bytes();
        for n in (0..ANCHOR_BYTES).chain([ANCHOR_BYTES + 1]) {
            let given: Vec<u8> = bytes.iter().copied().chain([0]).take(n).collect();
            assert_eq!(Anchor::from_bytes(&given), Err(AnchorError::Length(n)));
        }
        let mut foreign = bytes;
        foreign[8] = b'2';
        assert_eq!(Anchor::from_bytes(&foreign), Err(AnchorError::Foreign));
        let short = Anchor::from_fields(&bytes[..LABEL_BYTES - 1], &Digest([8; 32]), &Digest([9; 32]));
        assert_eq!(short, Err(AnchorError::Length(LABEL_BYTES - 1)));
    }
}
