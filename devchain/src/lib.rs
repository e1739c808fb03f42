//! The embedded development chain: Bittensor's interface without Bittensor.
//!
//! A small FRAME runtime, executed natively, with the pallets, storage items, calls, events, errors, runtime APIs and
//! transaction extensions of a Subtensor node (spec 461) as far as validators and miners use them, behind the JSON-RPC
//! of a Substrate node. Metadata, extrinsic decoding, signatures, nonces, eras, fees, events and the state trie are
//! FRAME's own; nothing is pretended. The same client code talks to this chain and to a real one.
//!
//! ```text
//! rpc       JSON-RPC methods and subscriptions          faults   failing on purpose
//! node      pool and development changes → one block a tick
//! chain     recent blocks and their states              store    the log on disk
//! state     trie nodes of many states, running the runtime on one
//! runtime   pallets, extensions, runtime APIs
//! ```
//!
//! What a real chain does and this one does not: emission, consensus between validators (Yuma), registration by burn
//! or work, revealing of timelocked commits, and consensus about blocks: one process makes them, each is final at once.
//!
//! [`genesis`] has the genesis file field by field, [`rpc`]'s submodules the methods beyond Substrate's.

mod chain;
pub mod error;
mod faults;
pub mod genesis;
mod node;
mod pool;
mod rpc;
pub mod runtime;
mod service;
mod state;
mod store;

pub use chain::{BLOCKS_KEPT, HASHES_KEPT};
pub use error::StartError;
pub use faults::Fault;
pub use genesis::Genesis;
pub use service::{Config, Handle, run};
