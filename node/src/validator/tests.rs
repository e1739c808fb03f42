//! A validator among peers that lie, and from one consensus key to the next.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod liars;
mod rotation;
mod snapshots;
mod world;
