//! A deterministic simulator of a whole network of validators.
//!
//! The same machine, ledger and storage trait that a node runs, in virtual time, from one seed: no
//! tokio, no sockets, no clock. Every seed has a [`Plan`](plan::Plan): who lies and how, what
//! breaks when, and when everything works again. [`Oracle`](oracle::Oracle) restates the rules and
//! judges every action. A run that breaks a rule is shrunk to the faults it needs and replays the
//! same way from its seed.

pub mod app;
pub mod bent;
pub mod bug;
pub mod byzantine;
pub mod campaign;
pub mod cast;
pub mod cli;
pub mod disk;
pub mod host;
pub mod market;
pub mod oracle;
pub mod plan;
pub mod pulses;
pub mod report;
pub mod stats;
pub mod store;
pub mod trace;
pub mod wan;
mod wires;
pub mod world;
