//! What arrives from outside, as fuzz targets: one function per decoder and per state machine that a
//! stranger can reach.
//!
//! A target takes any bytes and panics where a property fails, which is how a fuzzer and a test learn
//! of it: bytes that are read are written back as they came, what verifies is what was signed, bounds
//! hold, a machine neither stops nor contradicts itself. `tests/targets.rs` runs every target over its
//! [`seeds`], the findings kept in `corpus/<target>/`, mutations of both, and random bytes; `make fuzz`
//! runs the same functions under libFuzzer.
//!
//! - [`targets`]: the functions; [`TARGETS`]: their names, and how much a test gives each.
//! - [`seeds`]: valid inputs, made from the [`world`] and from `fixtures/`; [`mutate`]: what is done to them.
//! - [`bytes`]: choices read from an input, for the targets that play a script.

// A property that fails has to panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod bytes;
pub mod mutate;
mod origin;
pub mod people;
pub mod seeds;
pub mod targets;
pub mod world;

use targets::{
    chain, consensus, images, json, judge, ledger, light, machine, mempool, miner, network, png, pulse, snapshot,
};

/// One entry of the table.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name; that of its folder in `corpus/`.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
    /// Inputs that a test makes for it, beside its seeds.
    pub cases: usize,
}

const fn target(name: &'static str, run: fn(&[u8]), cases: usize) -> Target {
    Target { name, run, cases }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    // Messages and what is signed.
    target("envelope", chain::envelope, 600),
    target("transaction", chain::transaction, 600),
    target("block", chain::block, 400),
    target("header", chain::header, 800),
    target("certificate", chain::certificate, 400),
    target("set", chain::set, 2000),
    target("pulse", pulse::pulse, 300),
    // Proofs.
    target("state_proof", light::state_proof, 1500),
    target("receipt_proof", light::receipt_proof, 2000),
    target("leaf_proof", light::leaf_proof, 3000),
    target("inclusion", light::inclusion, 300),
    target("handover", light::handover, 300),
    target("bundle", light::bundle, 200),
    target("snapshot", snapshot::snapshot, 1500),
    target("anchor", light::anchor, 2000),
    // What validators say to each other.
    target("gossip", consensus::gossip, 600),
    target("sync", consensus::sync, 3000),
    target("beacon", consensus::beacon, 600),
    target("log_record", consensus::log_record, 1500),
    // Miners.
    target("miner_request", miner::request, 2000),
    target("miner_response", miner::response, 2000),
    target("png", png::answer, 300),
    target("verdict", judge::verdict, 2000),
    // Image sets.
    target("picture", images::picture, 600),
    target("shard", images::shard, 400),
    // The network below.
    target("handshake", network::handshake, 2000),
    target("frame", network::frame, 2000),
    // JSON.
    target("genesis", json::genesis, 100),
    target("rpc", json::rpc, 1000),
    target("rpc_answer", json::rpc_answer, 1000),
    // State machines.
    target("machine", machine::machine, 60),
    target("ledger", ledger::ledger, 60),
    target("mempool", mempool::mempool, 30),
];

/// The target of a name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
