//! Wallets and signatures by Bittensor's official tools, and ours that these have accepted
//! (`scripts/wallet/wallet.py` makes them all).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use perturb_types::{Hotkey, secret};
use perturb_wallet::{KeyfileError, Password, Wallet, WalletError, folder};
use serde::Deserialize;
use zeroize::Zeroizing;

#[derive(Deserialize)]
struct Sdk {
    password: String,
    coldkey: Hotkey,
    hotkeys: BTreeMap<String, Hotkey>,
    uris: Vec<(String, Hotkey)>,
    messages: Vec<String>,
    signatures: Vec<(Hotkey, String, String)>,
}

#[derive(Deserialize)]
struct Ours {
    hotkeys: BTreeMap<String, Hotkey>,
    signatures: Vec<(Hotkey, String, String)>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

/// The wallets as their owner would have them: a checkout lets everybody read.
fn wallets() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
            if from.is_dir() {
                copy(&from, &to);
            } else {
                fs::copy(&from, &to).unwrap();
                fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&fixtures().join("wallets"), dir.path());
    dir
}

fn password(text: &str) -> impl FnOnce() -> Result<Password, WalletError> {
    let text = Zeroizing::new(text.to_owned());
    move || Password::new(text)
}

fn never() -> Result<Password, WalletError> {
    panic!("a password was asked for a file in the clear")
}

#[test]
fn official_hotkeys_in_the_clear_open_with_their_addresses() {
    let (dir, sdk) = (wallets(), read::<Sdk>("sdk.json"));
    let wallet = Wallet::new(dir.path(), "sdk").unwrap();
    for name in ["phrase", "seed", "private"] {
        let pair = wallet.hotkey(name, never).unwrap();
        assert_eq!(pair.hotkey(), sdk.hotkeys[name], "{name}");
        assert_eq!(wallet.hotkey_address(name).unwrap(), pair.hotkey());
        assert_eq!(pair.seed().is_none(), name == "private");
    }
    let e = wallet.hotkey("ed25519", never).unwrap_err();
    assert!(matches!(e, WalletError::Content(_, KeyfileError::CryptoType(0))), "{e}");
}

#[test]
fn an_official_ansible_vault_opens_and_a_wrong_password_is_told() {
    let (dir, sdk) = (wallets(), read::<Sdk>("sdk.json"));
    let wallet = Wallet::new(dir.path(), "sdk").unwrap();
    assert_eq!(wallet.hotkey("ansible", password(&sdk.password)).unwrap().hotkey(), sdk.hotkeys["ansible"]);
    let e = wallet.hotkey("ansible", password("another")).unwrap_err();
    assert!(matches!(e, WalletError::Content(_, KeyfileError::Password)), "{e}");
    assert!(wallet.hotkey_address("ansible").is_err(), "its address is nowhere in the clear");
}

#[test]
fn an_official_fernet_file_opens() {
    let (dir, sdk) = (wallets(), read::<Sdk>("sdk.json"));
    let wallet = Wallet::new(dir.path(), "sdk").unwrap();
    assert_eq!(wallet.hotkey("fernet", password(&sdk.password)).unwrap().hotkey(), sdk.hotkeys["fernet"]);
}

#[test]
fn an_official_encrypted_coldkey_opens() {
    let (dir, sdk) = (wallets(), read::<Sdk>("sdk.json"));
    let wallet = Wallet::new(dir.path(), "sdk").unwrap();
    let pair = folder::read_secret(&wallet.coldkey_file(), password(&sdk.password)).unwrap();
    assert_eq!(pair.hotkey(), sdk.coldkey);
    assert_eq!(folder::read_public(&wallet.coldkey_public_file()).unwrap(), sdk.coldkey);
}

#[test]
fn secret_uris_lead_where_the_official_package_says() {
    for (uri, address) in read::<Sdk>("sdk.json").uris {
        assert_eq!(secret::pair_from_text(&uri, true).unwrap().hotkey(), address, "{uri}");
    }
}

#[test]
fn official_signatures_verify_here_and_ours_that_were_accepted_there_still_do() {
    let (sdk, ours) = (read::<Sdk>("sdk.json"), read::<Ours>("ours.json"));
    let signers = sdk.hotkeys.values().chain([&sdk.coldkey]).chain(ours.hotkeys.values());
    let wanted = signers.count() * sdk.messages.len();
    assert_eq!(ours.signatures.len(), wanted);
    for (hotkey, message, signature) in sdk.signatures.iter().chain(&ours.signatures) {
        let mut message = hex::decode(message).unwrap();
        let signature: [u8; 64] = hex::decode(signature).unwrap().try_into().unwrap();
        assert!(hotkey.verify_raw(&message, &signature));
        message.push(b'x');
        assert!(!hotkey.verify_raw(&message, &signature));
    }
}

#[test]
fn wallets_of_ours_that_the_official_package_opened_open_here() {
    let (dir, ours) = (wallets(), read::<Ours>("ours.json"));
    let wallet = Wallet::new(dir.path(), "ours").unwrap();
    for name in ["plain", "seed", "seedless"] {
        assert_eq!(wallet.hotkey(name, never).unwrap().hotkey(), ours.hotkeys[name], "{name}");
    }
    assert_eq!(wallet.hotkey_address("sealed").unwrap(), ours.hotkeys["plain"]);
}
