//! PROTOCOLS.md is what somebody builds a miner or an auditor from: its tables, limits and examples
//! are compared with the code, and every fixture beside it with what the code writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod document;
mod fixtures;
mod miners;
