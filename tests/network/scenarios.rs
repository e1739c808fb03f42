//! What may happen on the chain: three of the scenarios, in shorter epochs. `make scenarios` plays all of them.

use crate::{perturb, text};

fn play(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("net");
    let out = perturb(&["localnet", "--dir", at.to_str().unwrap(), "--seed", "5", "--tempo", "24", "--scenario", name])
        .output()
        .unwrap();
    assert!(out.status.success(), "{name}: {}", text(&out));
}

#[test]
fn a_deregistered_miner_keeps_nothing_and_its_uids_new_owner_inherits_nothing() {
    play("deregistered-miner");
}

#[test]
fn a_validator_without_its_permit_votes_until_the_epoch_closes_and_the_network_goes_on_without_it() {
    play("permit-lost");
}

#[test]
fn a_subnet_that_switches_commit_reveal_on_gets_its_weights_by_commits() {
    play("commit-reveal-on");
}
