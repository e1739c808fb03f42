//! The program itself, over HTTP: exit codes, output, hostile servers, the chain's side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use perturb_audit::chain::{last_update_key, uid_key, weights_key};
use perturb_audit::http::Http;
use perturb_audit::source::Source;
use perturb_audit::{Verdict, chain};
use perturb_ledger::epoch;
use serde_json::{Value, json};
use support::{CHALLENGE, World, server};

/// A world, its genesis file, and a folder for what the program writes.
struct Site {
    world: World,
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let (world, dir) = (World::epochs(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("genesis.json"), serde_json::to_vec(&world.genesis).unwrap()).unwrap();
        Self { world, dir }
    }

    fn node(&self) -> String {
        server::node(self.world.ledger.store().clone())
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs the program with the genesis file.
    fn run(&self, args: &[&str]) -> (i32, String) {
        run(&[&["--genesis", &self.path("genesis.json")], args].concat())
    }
}

fn run(args: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_perturb-audit")).args(args).output().unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    assert!(!text.contains("panicked"), "{text}");
    (status.code().unwrap(), text)
}

#[test]
fn every_command_proves_and_says_so() {
    let site = Site::new();
    let (w, node) = (&site.world, site.node());
    let (miner, validator) = (w.miner(0).to_string(), w.hotkeys[4].hotkey().to_string());
    let commands: [&[&str]; 6] = [
        &["root", "9"],
        &["root"],
        &["cert", "5"],
        &["score", "--miner", &miner, "--epoch", "1"],
        &["round", &validator, "0"],
        &["replay", "--epoch", "2"],
    ];
    for command in commands {
        let (code, text) = site.run(&[command, &["--node", &node]].concat());
        assert_eq!(code, 0, "{command:?}\n{text}");
        assert!(text.contains(": proved\n├─ ✓") && text.contains("└─ "), "{text}");
        let (code, text) = site.run(&[command, &["--node", &node, "--json"]].concat());
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &value["verdict"]), (0, &json!("ok")));
        assert!(value["steps"].as_array().is_some_and(|s| !s.is_empty()) && value["result"].is_object());
    }
}

#[test]
fn a_saved_score_verifies_with_the_network_id_alone() {
    let site = Site::new();
    let (node, file) = (site.node(), site.path("score.bundle"));
    let miner = site.world.miner(1).to_string();
    let (code, text) = site.run(&["score", "--miner", &miner, "--epoch", "0", "--out", &file, "--node", &node]);
    assert_eq!(code, 0, "{text}");
    let id = site.world.id().to_string();
    let (code, text) = run(&["verify", &file, "--network", &id]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("uid 6"), "{text}");
    assert_eq!(run(&["verify", &file]).0, 4, "nothing to trust");
    assert_eq!(run(&["verify", &file, "--network", &"00".repeat(32)]).0, 4);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(run(&["verify", &file, "--network", &id]).0, 1);
    assert_eq!(run(&["verify", &site.path("none"), "--network", &id]).0, 2);
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let site = Site::new();
    let node = site.node();
    assert_eq!(site.run(&["root", "3"]).0, 2, "no node");
    assert_eq!(run(&["root", "3", "--node", &node]).0, 2, "nothing to trust");
    assert_eq!(run(&["roots"]).0, 2);
    assert_eq!(site.run(&["root", "3", "--node", "ftp://x"]).0, 2);
    assert_eq!(site.run(&["root", "99", "--node", &node]).0, 3, "not held");
    assert_eq!(site.run(&["root", "3", "--node", "http://127.0.0.1:1"]).0, 3, "nobody there");
    assert_eq!(site.run(&["root", "3", "--node", &server::node(World::epochs().ledger.store().clone())]).0, 4);
    let (code, text) = site.run(&["root", "3", "--node", &node, "--trust", &format!("5:{}", "ab".repeat(32))]);
    assert_eq!(code, 4, "{text}");
    let trust = format!("7:{}", site.world.digest(7));
    let id = site.world.id().to_string();
    let (code, text) = run(&["root", "--node", &node, "--network", &id, "--trust", &trust]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn hostile_servers_are_unavailable_soon_and_break_nothing() {
    let site = Site::new();
    let garbage = server::raw(|mut s| drop(s.write_all(&[0xff; 4096])));
    let page = server::raw(|s| {
        let _ = server::request(&s);
        server::respond(&s, b"<html>log in first</html>");
    });
    let deep = server::raw(|s| {
        let _ = server::request(&s);
        server::respond(&s, "[".repeat(1 << 20).as_bytes());
    });
    let endless = server::raw(|mut s| {
        let _ = server::request(&s);
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        while s.write_all(&chunk).is_ok() {}
    });
    let silent = server::raw(|s| {
        let _ = server::request(&s);
        thread::sleep(Duration::from_secs(60));
    });
    let away = server::raw(|mut s| {
        let _ = server::request(&s);
        let _ = s.write_all(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
    });
    let refuses = server::methods(|_, _| Err((-32000, "\u{1b}[31mno\nno".repeat(1000))));
    let honest = site.node();
    let no_tls = honest.replace("http://", "https://");
    for (name, url) in [
        ("no TLS", no_tls),
        ("garbage", garbage),
        ("page", page),
        ("deep", deep),
        ("endless", endless),
        ("silent", silent),
        ("away", away),
        ("refuses", refuses),
    ] {
        let begun = Instant::now();
        let (code, text) = site.run(&["root", "5", "--timeout", "2", "--node", &url]);
        assert_eq!(code, 3, "{name}: {text}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{name} took {:?}", begun.elapsed());
        assert!(text.len() < 4000 && !text.contains('\u{1b}'), "{name}: {text}");
        let (code, text) = site.run(&["root", "5", "--timeout", "2", "--node", &url, "--node", &honest]);
        assert_eq!(code, 0, "{name}: {text}");
    }
    let lies = server::methods(|method, _| {
        Ok(match method {
            "perturb_handovers" => json!({ "handovers": [], "more": false }),
            _ => json!({ "header": "00ff", "certificate": null }),
        })
    });
    assert_eq!(site.run(&["root", "2", "--node", &lies]).0, 1, "not even a header");
    let verbose = server::methods(|_, _| Ok(json!({ "handovers": "\u{1b}x".repeat(1 << 20), "more": false })));
    let (code, text) = site.run(&["root", "2", "--node", &verbose]);
    assert!(code == 1 && text.len() < 4000 && !text.contains('\u{1b}'), "{}", text.len());
    let promises = server::methods(|_, _| Ok(json!({ "handovers": [], "more": true })));
    assert_ne!(site.run(&["root", "2", "--node", &promises]).0, 0);
}

/// A chain's storage at one block, as a Substrate node answers for it.
fn chain_node(storage: BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let hash = format!("0x{}", "cd".repeat(32));
    server::methods(move |method, params| {
        let known = |at: &Value| *at == json!(hash);
        Ok(match method {
            "chain_getBlockHash" => json!(format!("0x{}", "01".repeat(32))),
            "chain_getFinalizedHead" => json!(hash),
            "chain_getHeader" if known(&params[0]) => json!({ "number": "0x2a", "parentHash": hash }),
            "chain_getHeader" => Value::Null,
            "state_getStorage" if known(&params[1]) => {
                let key = hex::decode(params[0].as_str().unwrap().strip_prefix("0x").unwrap()).unwrap();
                storage.get(&key).map_or(Value::Null, |v| json!(format!("0x{}", hex::encode(v))))
            }
            _ => return Err((-32601, format!("no {method}"))),
        })
    })
}

/// What the chain holds where every validator of the set after an epoch has submitted `vector`.
fn submitted(w: &World, validators: &[usize], vector: &[(u16, u16)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    use scale::Encode as _;
    let mut storage = BTreeMap::new();
    for v in validators {
        let uid = *v as u16 + 100;
        storage.insert(uid_key(w.genesis.netuid, &w.hotkeys[*v].hotkey()), uid.encode());
        storage.insert(weights_key(w.genesis.netuid, uid), vector.to_vec().encode());
    }
    storage.insert(last_update_key(w.genesis.netuid), vec![7u64; 120].encode());
    storage
}

#[test]
fn the_agreed_vector_is_compared_with_what_is_on_chain() {
    let site = Site::new();
    let (w, node) = (&site.world, site.node());
    let record = epoch::record(w.ledger.store(), 1, CHALLENGE).unwrap().unwrap();
    let vector: Vec<(u16, u16)> = record.weights.iter().map(|(uid, _, weight)| (*uid, *weight)).collect();
    // The set that followed epoch 1: the third validator had left it.
    let all = [0, 1, 3, 4];
    let ask = |storage| {
        let chain = chain_node(storage);
        let (code, text) = site.run(&["weights", "--epoch", "1", "--node", &node, "--chain", &chain, "--json"]);
        (code, serde_json::from_str::<Value>(&text).unwrap())
    };
    let (code, report) = ask(submitted(w, &all, &vector));
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((&report["result"]["chain_block"], &report["result"]["agreed"]), (&json!(42), &json!(vector)));
    assert_eq!(report["result"]["validators"][0]["last_update"], 7);

    let mut reversed = vector.clone();
    reversed.reverse();
    assert_eq!(ask(submitted(w, &all, &reversed)).0, 0, "the order on chain does not matter");
    let mut other = vector.clone();
    other[0].1 -= 1;
    let (code, report) = ask(submitted(w, &all, &other));
    assert_eq!(code, 1);
    assert_eq!(report["result"]["validators"][0]["on_chain"]["kind"], "differs");
    let mut partly = submitted(w, &all[..3], &vector);
    let (code, report) = ask(partly.clone());
    assert_eq!(code, 1, "one is not registered");
    assert!(report.to_string().contains("not_registered"));
    partly.extend(submitted(w, &all, &vector));
    partly.insert(weights_key(w.genesis.netuid, 104), vec![0]);
    let (code, report) = ask(partly.clone());
    assert_eq!((code, report.to_string().contains("\"nothing\"")), (1, true), "one has put nothing there");
    partly.insert(weights_key(w.genesis.netuid, 104), vec![0xff; 9]);
    assert_eq!(ask(partly).0, 1, "no vector at all");
}

#[test]
fn another_chain_or_an_unknown_block_is_refused() {
    let site = Site::new();
    let (node, chain) = (site.node(), chain_node(BTreeMap::new()));
    let weights =
        |extra: &[&str]| site.run(&[&["weights", "--epoch", "1", "--node", &node, "--chain", &chain], extra].concat());
    let (code, text) = weights(&["--at", &"ee".repeat(32)]);
    assert_eq!(code, 3, "{text}");
    let client = Http::new(&chain, Duration::from_secs(5)).unwrap();
    let other = chain::Chain::at(&client, Some(&perturb_types::Digest([9; 32])), None);
    assert_eq!(other.err().unwrap().verdict(), Verdict::Untrusted);
    let (code, text) = site.run(&["weights", "--epoch", "7", "--node", &node, "--chain", &chain]);
    assert_eq!(code, 3, "{text}");
    assert!(client.call("nonsense", json!([])).is_err());
}
