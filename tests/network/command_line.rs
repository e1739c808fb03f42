//! Bad input gives one clear line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

/// The official package's throw-away wallets, as their owner would have them.
fn wallets(dir: &Path) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wallet/fixtures/wallets/sdk/hotkeys");
    let to = dir.join("wallets/sdk/hotkeys");
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    }
    dir.join("wallets").to_str().unwrap().to_owned()
}

#[test]
fn an_official_wallets_hotkey_is_shown_checked_and_brought_over_without_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    let wallets = wallets(dir.path());
    let keys = |args: &[&str]| perturb(&[&["keys"], args].concat()).output().unwrap();
    let named = |name| ["--wallet", "sdk", "--hotkey", name, "--wallets", &wallets];
    let password = dir.path().join("password");
    fs::write(&password, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let password = password.to_str().unwrap();

    let address = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";
    let shown = keys(&[&["show"], &named("phrase")[..]].concat());
    assert!(shown.status.success() && text(&shown).contains(&format!("hotkey {address}")), "{}", text(&shown));
    let verify = |name, address| keys(&[&["verify", "--address", address], &named(name)[..]].concat());
    assert!(verify("phrase", address).status.success());
    let wrong = verify("seed", address);
    assert!(!wrong.status.success() && text(&wrong).contains(address), "{}", text(&wrong));
    let refused = verify("ed25519", address);
    assert!(text(&refused).contains("only sr25519"), "{}", text(&refused));

    let file = Path::new(&wallets).join("sdk/hotkeys/ansible");
    let to = ["--wallet", "ours", "--hotkey", "hot", "--wallets", &wallets, "--password-file", password];
    let brought = keys(&[&["import", "--from", file.to_str().unwrap()], &to[..]].concat());
    assert!(brought.status.success(), "{}", text(&brought));
    let secret = fs::read_to_string(Path::new(&wallets).join("ours/hotkeys/hot")).unwrap();
    let private = secret.split("privateKey\":\"0x").nth(1).unwrap();
    assert!(!text(&brought).contains(&private[..32]));
    let again = keys(&[&["import", "--from", file.to_str().unwrap()], &to[..]].concat());
    assert!(!again.status.success() && text(&again).contains("not overwritten"), "{}", text(&again));
}

#[test]
fn a_rotation_is_requested_on_one_machine_signed_on_another_and_checked_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (hotkey, node, signed) = (at("hotkey"), at("node"), at("signed.json"));
    fs::create_dir(&node).unwrap();
    let keys = |args: &[&str]| perturb(&[&["keys"], args].concat()).output().unwrap();
    let made = keys(&["new", &hotkey]);
    let address = text(&made).split("hotkey ").last().unwrap().trim().to_owned();
    let founder = keys(&["delegate", &hotkey, "--data-dir", &node, "--founder"]);
    assert!(founder.status.success() && text(&founder).contains("acceptance"), "{}", text(&founder));

    let genesis = at("genesis.json");
    fs::write(&genesis, serde_json::to_vec(&crate::lonely::genesis()).unwrap()).unwrap();
    let rotate = ["rotate", "--data-dir", &node, "--genesis", &genesis, "--address", &address];
    let asked = keys(&rotate);
    assert!(asked.status.success() && text(&asked).contains("new consensus key"), "{}", text(&asked));
    assert!(!keys(&rotate).status.success(), "one rotation at a time");
    let request = format!("{node}/delegation.json");
    assert!(!keys(&["verify", "--delegation", &request]).status.success(), "the hotkey has not signed");
    let out = keys(&["delegate", &hotkey, "--request", &request, "--out", &signed]);
    assert!(out.status.success(), "{}", text(&out));
    let checked = keys(&["verify", "--delegation", &signed, "--genesis", &genesis]);
    assert!(checked.status.success() && text(&checked).contains("signed by both"), "{}", text(&checked));
    let unnamed = keys(&["delegate", &hotkey, "--data-dir", &node, "--genesis", &genesis]);
    assert!(text(&unnamed).contains("--key"), "{}", text(&unnamed));
}

#[test]
fn a_development_key_comes_in_only_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (uri, alice) = (dir.path().join("uri"), dir.path().join("alice"));
    fs::write(&uri, "//Alice").unwrap();
    fs::set_permissions(&uri, fs::Permissions::from_mode(0o600)).unwrap();
    let args = ["keys", "import", alice.to_str().unwrap(), "--from", uri.to_str().unwrap()];
    let refused = perturb(&args).output().unwrap();
    assert!(!refused.status.success() && text(&refused).contains("--development"), "{}", text(&refused));
    let taken = perturb(&[&args[..], &["--development"]].concat()).output().unwrap();
    let address = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    assert!(taken.status.success() && text(&taken).contains(address), "{}", text(&taken));
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
