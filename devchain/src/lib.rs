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
//! beacon    rounds of randomness                        timelock opening commits with them
//! runtime   pallets, extensions, runtime APIs
//! ```
//!
//! Timelocked commits are opened as the real chain opens them, but with a [`beacon`] whose key everybody knows in place
//! of drand's quicknet, which a chain without a network cannot follow; `"beacon": "quicknet"` in the genesis file takes
//! quicknet's key, and its rounds from a development call. Two chains begun with one genesis file are two endpoints
//! that disagree about every block but the first.
//!
//! What a real chain does and this one does not: emission, consensus between validators (Yuma), stake that moves,
//! registration by burn or work, batches of weights, the rate limits of subnet owners, and consensus about blocks: one
//! process makes them, each is final at once. Permits stay as they were set unless the genesis file says `"permits":
//! "by_stake"`.
//!
//! [`genesis`] has the genesis file field by field, [`rpc`]'s submodules the methods beyond Substrate's.

pub mod beacon;
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
pub mod timelock;

pub use chain::{BLOCKS_KEPT, HASHES_KEPT};
pub use error::StartError;
pub use faults::Fault;
pub use genesis::Genesis;
pub use service::{Config, Handle, run};
