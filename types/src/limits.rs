//! Bounds on everything that arrives from outside, each with its reason.

/// Bytes of a PNG on the wire: a 1024×1024 RGB image of noise fits, nothing larger is asked for.
pub const MAX_PNG_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of an answer's PNG to an image of these sides: its raw rows with their filter bytes, a hundredth
/// more and 4 KiB, as an encoder needs at most that compresses nothing; never more than any PNG. An
/// honest answer to a smooth image can be noise, so that the clean image's own length bounds nothing.
#[must_use]
pub const fn answer_bytes(width: u32, height: u32) -> usize {
    let raw = (width as u64).saturating_mul(3).saturating_add(1).saturating_mul(height as u64);
    let most = raw.saturating_add(raw / 100).saturating_add(4096);
    if most < MAX_PNG_BYTES as u64 { most as usize } else { MAX_PNG_BYTES }
}

/// Pixels along one side of an image: ImageNet's largest classifier input is far below.
pub const MAX_IMAGE_SIDE: u32 = 4096;

/// Pixels of one image, checked in the PNG header before anything is allocated.
pub const MAX_IMAGE_PIXELS: u64 = 4 * 1024 * 1024;

/// Miners sampled in one round: one signature covers an entry for each.
pub const MAX_ROUND_MINERS: usize = 256;

/// Encoded bytes of a [`crate::round::RoundResult`]: 256 entries of under 256 bytes each.
pub const MAX_ROUND_RESULT_BYTES: usize = 96 * 1024;

/// Encoded bytes of a [`crate::round::RoundCommits`]: 256 digests with a signature each.
pub const MAX_ROUND_COMMITS_BYTES: usize = 32 * 1024;

/// Encoded bytes of a [`crate::round::RoundOpen`]: a few digests and a lot.
pub const MAX_ROUND_OPEN_BYTES: usize = 512;

/// Images drawn for one round: a classifier that is right about half of them finds one but once in four
/// thousand million rounds.
pub const MAX_DRAWS: usize = 32;

/// Encoded bytes of any one transaction: a snapshot of 256 neurons at an epoch's close is the largest.
pub const MAX_TRANSACTION_BYTES: usize = 256 * 1024;

/// Encoded bytes of an epoch's close, which travels in a block alone: a snapshot of [`MAX_NEURONS`]
/// neurons of 75 bytes.
pub const MAX_EPOCH_CLOSE_BYTES: usize = 512 * 1024;

/// Encoded bytes of a block's body.
pub const MAX_BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// Transactions of one block.
pub const MAX_BLOCK_TRANSACTIONS: usize = 4096;

/// Validators of a set: more than any subnet permits (the chain's default is 128).
pub const MAX_VALIDATORS: usize = 256;

/// Neurons of a subnet: uids are below this on the chain.
pub const MAX_NEURONS: usize = 4096;

/// Encoded bytes of one consensus message (vote, proposal): two signatures and a few digests.
pub const MAX_CONSENSUS_MESSAGE_BYTES: usize = 64 * 1024;
