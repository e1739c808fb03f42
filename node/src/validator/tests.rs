//! A validator among peers that lie, from one consensus key to the next, and beside its chain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chain;
mod liars;
mod padding;
mod rotation;
mod snapshots;
mod stale;
pub(crate) mod world;
