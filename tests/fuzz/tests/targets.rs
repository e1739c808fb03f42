//! Every target over its seeds, what was found before, mutations of both, and noise. The same inputs
//! in every run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use perturb_fuzz::targets::images::{decoded, drawn};
use perturb_fuzz::targets::light::anchors;
use perturb_fuzz::targets::machine::play;
use perturb_fuzz::targets::snapshot::taken;
use perturb_fuzz::{TARGETS, Target, find, mutate, seeds};
use perturb_types::Digest;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Runs one input; a failure names it, so that it can be kept.
fn run(target: &Target, what: &str, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let shown = &input[..input.len().min(4096)];
        panic!("{}: {what} of {} bytes fails: {}", target.name, input.len(), hex(shown));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn exercise(name: &str) {
    let target = find(name).unwrap();
    let mut all = seeds::seeds(name);
    assert!(!all.is_empty() && all == seeds::seeds(name), "{name}: the seeds are the same each time");
    for (file, input) in seeds::found(name) {
        run(target, &file, &input);
        all.push(input);
    }
    run(target, "nothing", &[]);
    all.iter().for_each(|seed| run(target, "a seed", seed));
    let mut rng = ChaCha8Rng::from_seed(Digest::of(name.as_bytes()).0);
    for case in 0..target.cases {
        let input = if case % 8 == 7 {
            mutate::noise(&mut rng)
        } else {
            let [seed, other] = [0, 1].map(|_| rng.random_range(0..all.len()));
            mutate::mutate(&mut rng, &all[seed], &all[other])
        };
        run(target, &format!("case {case}"), &input);
    }
}

macro_rules! exercises {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            exercise(stringify!($name));
        })+

        #[test]
        fn every_target_is_exercised() {
            let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
        }
    };
}

exercises!(
    envelope,
    transaction,
    block,
    header,
    certificate,
    set,
    pulse,
    state_proof,
    receipt_proof,
    leaf_proof,
    inclusion,
    handover,
    bundle,
    snapshot,
    anchor,
    gossip,
    sync,
    beacon,
    log_record,
    miner_request,
    miner_response,
    png,
    verdict,
    picture,
    shard,
    handshake,
    frame,
    genesis,
    rpc,
    rpc_answer,
    machine,
    ledger,
    mempool,
);

/// A machine that never decides is not much of a target.
#[test]
fn scripts_of_the_machine_lead_to_decisions() {
    let reached = |history: u8, start: u8| {
        let mut script = vec![history, start];
        script.resize(300, 20);
        play(&script)
    };
    assert!(reached(1, 0) == 6, "it fetches the history: {}", reached(1, 0));
    for start in 0..3 {
        assert!(reached(0, start) >= 3, "it decides among honest ones: {}", reached(0, start));
    }
}

#[test]
fn seeds_of_image_sets_are_read_to_the_last_image() {
    assert!(seeds::seeds("picture").iter().all(|seed| decoded(seed).is_some()));
    assert!(seeds::seeds("shard").iter().all(|seed| drawn(seed) == seeds::SHARD_ROWS));
}

#[test]
fn seeds_of_anchors_are_found_in_every_form() {
    assert!(seeds::seeds("anchor").iter().all(|seed| anchors(seed).len() == 1));
}

/// A target whose seeds are refused at the door tests the door alone.
#[test]
fn seeds_of_snapshots_are_taken_to_the_last_row() {
    assert!(seeds::seeds("snapshot").iter().all(|seed| taken(seed)));
}
