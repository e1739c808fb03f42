//! A validator among peers that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod liars;
mod snapshots;
mod world;
