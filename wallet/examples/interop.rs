//! The other half of `scripts/wallet/wallet.py`: opens the wallets that the official tools made, signs
//! with each of their keys, and makes wallets for them to open. Throw-away keys.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use perturb_types::{HotkeyPair, secret};
use perturb_wallet::{Password, Wallet, folder};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

#[derive(Deserialize)]
struct Theirs {
    password: String,
    coldkey: String,
    hotkeys: BTreeMap<String, String>,
    messages: Vec<String>,
}

#[derive(Serialize)]
struct Ours {
    hotkeys: BTreeMap<String, String>,
    signatures: Vec<(String, String, String)>,
}

fn main() {
    let at = std::env::args().nth(1).expect("the folder with sdk.json");
    let at = Path::new(&at);
    let theirs: Theirs = serde_json::from_slice(&std::fs::read(at.join("sdk.json")).unwrap()).unwrap();
    let password = Password::new(Zeroizing::new(theirs.password.clone())).unwrap();
    let mut ours = Ours { hotkeys: BTreeMap::new(), signatures: Vec::new() };
    let mut sign = |pair: &HotkeyPair| {
        for message in &theirs.messages {
            let signature = pair.sign_raw(&hex::decode(message).unwrap());
            ours.signatures.push((pair.hotkey().to_string(), message.clone(), hex::encode(signature)));
        }
    };

    let sdk = Wallet::new(&at.join("wallets"), "sdk").unwrap();
    for (name, address) in &theirs.hotkeys {
        let pair = sdk.hotkey(name, || Ok(password.clone())).unwrap();
        assert_eq!(pair.hotkey().to_string(), *address, "{name}");
        sign(&pair);
    }
    let cold = folder::read_secret(&sdk.coldkey_file(), || Ok(password.clone())).unwrap();
    assert_eq!(cold.hotkey().to_string(), theirs.coldkey);
    sign(&cold);

    let mine = Wallet::new(&at.join("wallets"), "ours").unwrap();
    let phrase = secret::phrase_of(&[0x17; 16]).unwrap();
    let pair = HotkeyPair::from_seed(&secret::seed_from_phrase(&phrase, "").unwrap()).unwrap();
    let seedless = secret::pair_from_text(&format!("{}//hard/soft", *phrase), false).unwrap();
    let seeded = HotkeyPair::from_seed(&[0x18; 32]).unwrap();
    mine.create_hotkey("plain", &pair, Some(&phrase), None).unwrap();
    mine.create_hotkey("seed", &seeded, None, None).unwrap();
    mine.create_hotkey("seedless", &seedless, None, None).unwrap();
    mine.create_hotkey("sealed", &pair, Some(&phrase), Some(&password)).unwrap();
    for (name, pair) in [("plain", &pair), ("seed", &seeded), ("seedless", &seedless), ("sealed", &pair)] {
        ours.hotkeys.insert(name.to_owned(), pair.hotkey().to_string());
        sign(pair);
    }
    std::fs::write(at.join("ours.json"), serde_json::to_string_pretty(&ours).unwrap() + "\n").unwrap();
}
