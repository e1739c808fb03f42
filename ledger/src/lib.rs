//! The agreed history, as pure functions: what a block is, what it does to the state, and how
//! anyone can check it. No clock, no sockets, no disk: storage is the trait [`StateStore`].
//!
//! - [`tx`]: transactions; [`block`]: header and body; [`certificate`]: who certified it;
//!   [`validators`]: sets and quorums; [`genesis`]: where it begins.
//! - [`execute`]: what each transaction does, `asked` who, [`images`] with what, [`seeds`]: by which lots;
//!   `commits`: what miners are bound to;
//!   [`epoch`]: what an epoch's close does;
//!   [`aggregate`]: from the validators' means to one score; [`outliers`]: who measures otherwise;
//!   [`work`]: who runs no rounds; [`pulse`]: rounds of a drand beacon; [`draw`]: which rounds they
//!   draw to be checked again; [`spot`], [`verdict`]: what members find, and what follows.
//! - [`state`]: the keys and rows of the state; [`store`]: the storage trait;
//!   [`proofs`]: inclusion and absence; [`merkle`]: the tree over a block's transactions
//!   and over their results; [`receipt`]: what a transaction did.
//! - [`parameters`]: the numbers that all share; [`bounds`]: between which they lie.
//! - [`ledger`]: a [`Ledger`] that proposes, checks and commits blocks.
//! - [`light`]: certified headers without the blocks; [`agreed`]: rows of the state for miners; [`inclusion`]: one transaction of a block;
//!   [`archive`]: what a node keeps for those who check it; [`serve`]: how it answers them;
//!   [`snapshot`]: a whole state in chunks that are proved one by one;
//!   [`anchor`]: what of it is put on the Bittensor chain.

pub mod aggregate;
pub mod agreed;
pub mod anchor;
pub mod archive;
mod asked;
pub mod block;
pub mod bounds;
pub mod certificate;
mod commits;
pub mod draw;
pub mod epoch;
pub mod evidence;
pub mod execute;
pub mod genesis;
pub mod images;
pub mod inclusion;
pub mod ledger;
pub mod light;
pub mod merkle;
mod orders;
pub mod outliers;
pub mod parameters;
pub mod proofs;
pub mod pulse;
pub mod query;
pub mod receipt;
pub mod reputation;
pub mod seeds;
pub mod serve;
pub mod snapshot;
pub mod spot;
pub mod state;
pub mod store;
pub mod tx;
pub mod validators;
pub mod verdict;
mod verified;
pub mod work;

#[cfg(test)]
mod tests;

pub use agreed::{AgreedError, AgreedRows};
pub use anchor::{Anchor, AnchorKind, AnchorPlace};
pub use archive::Archive;
pub use block::{Block, Body, ChainReference, Header};
pub use certificate::{Certificate, VoteKind, proposal_sign_bytes, vote_sign_bytes};
pub use evidence::{DoubleProposal, DoubleVote, Equivocation};
pub use genesis::{ChallengeSpec, Genesis, Parameters};
pub use inclusion::{Inclusion, InclusionError};
pub use ledger::{BlockError, Executed, Head, Ledger, LedgerError, Outcome, ProposalInput};
pub use light::{Handover, LightError, Trust};
pub use pulse::Pulse;
pub use receipt::{Effect, Receipt, ReceiptProof};
pub use store::{Commit, MemoryStore, StateStore, StoreError};
pub use tx::{Neuron, Snapshot, Transaction};
pub use validators::{Validator, ValidatorSet};
