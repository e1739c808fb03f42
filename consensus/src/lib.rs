//! Agreement as a pure machine: the Tendermint engine, the mempool, body fetching and sync.
//!
//! [`Machine::step`] takes an [`Event`] and a time and returns [`Action`]s: no clock, no sockets, no
//! disk. The driver executes the actions in their order; the same machine runs in a node and in a
//! simulator. The engine is malachite's core state machine; the module `engine` alone imports it.
//!
//! - [`event`]: what goes in and comes out; [`wire`]: messages, byte for byte.
//! - [`machine`]: the phases of a height; [`guard`]: never two signatures for one step.
//! - [`record`]: what the consensus log holds; [`planted`]: rules that tests break on purpose.

mod candidates;
mod chain_view;
mod engine;
pub mod event;
pub mod guard;
pub mod machine;
mod mempool;
pub mod planted;
pub mod record;
mod sync;
pub mod wire;

#[cfg(test)]
mod tests;

/// Unix milliseconds, or a length of time in milliseconds.
pub type Millis = u64;

pub use event::{Action, ChainAnswer, Event, Misdeed, Status, TimerId, Verdict};
pub use guard::GuardMark;
pub use machine::{Config, Load, Machine, STARTUP_GRACE_MS, SetupError};
pub use planted::Planted;
