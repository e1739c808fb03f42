//! Bittensor through one client: any Subtensor node, or the embedded development chain.
//!
//! The rules this crate keeps:
//!
//! 1. **Names, never indices.** Calls, storage and runtime APIs are looked up by name in the
//!    connected node's own metadata, read again for every runtime version: an upgrade of the
//!    chain needs no rebuild ([`client`], [`snapshot`], [`submit`]).
//! 2. **Finalized only.** What the network agrees on is read at one finalized block
//!    ([`snapshot::MetagraphSnapshot`]); a block that is not on the finalized chain is refused.
//! 3. **The same block gives the same snapshot**, on every node: sorted by uid, integers only,
//!    and the way it is read depends on the metadata alone, never on a passing error.
//! 4. **A chain that is away costs nothing but time.** Every request has a bound; a call while
//!    no node answers returns an error at once and works again when one does ([`link`]).
//! 5. **A vector is submitted once.** The signed extrinsic is saved before it is sent, and the
//!    chain is asked whether it landed before anything is sent again ([`submission`]); so is an
//!    anchor ([`anchor`]).
//!
//! The legacy JSON-RPC methods are used on purpose: every Substrate node has them, they need no
//! pinned blocks, and they survive a reconnect.

pub mod anchor;
pub mod anchorer;
pub mod call;
pub mod client;
pub mod commit;
pub mod error;
pub mod extensions;
mod folder;
#[cfg(test)]
mod golden_tests;
mod hash;
mod link;
pub mod options;
pub mod pool;
pub mod pulses;
mod read;
pub mod schedule;
pub mod snapshot;
pub mod store;
pub mod submission;
pub mod submit;
pub mod submit_error;
pub mod submitter;
pub mod timelock;
pub mod view;

pub use anchor::{AnchorCall, AnchorState, Anchoring};
pub use anchorer::{Anchorer, Anchors};
pub use call::WeightsCall;
pub use client::ChainClient;
pub use commit::Commit;
pub use error::ChainError;
pub use hash::BlockHash;
pub use options::{ChainOptions, Endpoint};
pub use pool::{EndpointHealth, Health};
pub use schedule::{EpochSchedule, Reveal};
pub use snapshot::{Hyper, MetagraphSnapshot, Neuron};
pub use store::{FileStore, StoreError, SubmissionStore};
pub use submission::{AgreedVector, State, Submission, SubmissionKey};
pub use submit::{SignedExtrinsic, Submitted};
pub use submit_error::SubmitError;
pub use submitter::{Submitter, SubmitterError};
pub use timelock::Beacon;
pub use view::ChainView;

/// The pallet that holds everything of a subnet.
pub const PALLET: &str = "SubtensorModule";

/// Mechanism `m` of subnet `n` is stored under index `m · 4096 + n`.
pub const MECHANISM_STRIDE: u16 = 4096;

/// The storage index of a mechanism, if the numbers fit the chain's scheme
/// (`netuid` below 4096, `mecid` below 16).
pub fn storage_index(netuid: u16, mecid: u8) -> Option<u16> {
    if netuid >= MECHANISM_STRIDE {
        return None;
    }
    u16::from(mecid).checked_mul(MECHANISM_STRIDE)?.checked_add(netuid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_storage_index_is_mecid_times_4096_plus_netuid() {
        assert_eq!(storage_index(1, 0), Some(1));
        assert_eq!(storage_index(1, 1), Some(4097));
        assert_eq!(storage_index(4095, 15), Some(65_535));
    }

    #[test]
    fn numbers_outside_the_scheme_have_no_index() {
        assert_eq!(storage_index(4096, 0), None);
        assert_eq!(storage_index(0, 16), None);
    }
}
