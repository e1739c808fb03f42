//! Bad input gives one clear line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::{perturb, text};

#[test]
fn every_subcommand_explains_itself() {
    for command in ["validator", "miner", "bootnode", "localnet", "keys", "model", "status", "score"] {
        let out = perturb(&[command, "--help"]).output().unwrap();
        assert!(out.status.success() && text(&out).contains("Usage:"), "{command}: {}", text(&out));
    }
}

#[test]
fn a_validator_without_genesis_or_key_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let out = perturb(&["validator", "--data-dir", at, "--genesis", "/nonexistent/genesis.json"]).output().unwrap();
    assert!(!out.status.success());
    assert!(text(&out).contains("/nonexistent/genesis.json"), "{}", text(&out));
}

#[test]
fn keys_are_made_private_and_shown_only_in_public() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hotkey");
    let path = file.to_str().unwrap();
    let out = perturb(&["keys", "new", path]).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&file).unwrap();
    let shown = perturb(&["keys", "show", path]).output().unwrap();
    assert!(shown.status.success() && text(&shown).contains("hotkey 5"), "{}", text(&shown));
    assert!(!text(&shown).contains(secret.trim().trim_start_matches("0x")));
    assert!(!text(&out).contains(secret.trim().trim_start_matches("0x")));
    assert!(!perturb(&["keys", "new", path]).output().unwrap().status.success(), "never overwritten");
}

#[test]
fn scoring_a_file_that_is_no_png_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.png");
    fs::write(&bad, b"not a png").unwrap();
    let path = bad.to_str().unwrap();
    let out = perturb(&["score", path, path, "--time-ms", "100"]).output().unwrap();
    assert!(!out.status.success());
    assert!(text(&out).contains("bad.png"), "{}", text(&out));
}
