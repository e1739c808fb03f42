//! An auditor with nothing but the genesis file checks a network of processes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{perturb, program, text};

/// How long an anchor may take after the epoch's weights.
const PATIENCE: Duration = Duration::from_secs(90);

/// A local network that is left running, and ended with the test.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

fn kept(at: &Path) -> Kept {
    let mut child = perturb(&["localnet", "--dir", at.to_str().unwrap(), "--epochs", "2", "--seed", "7", "--keep"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let network = Kept(child);
    let mut lines = out.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("leaving the network running")), "the network did not come so far");
    // What it says from here on is read, so that it never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    network
}

#[test]
fn an_auditor_checks_what_a_network_says_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("net");
    let _network = kept(&at);
    let summary: Value = serde_json::from_slice(&std::fs::read(at.join("summary.json")).unwrap()).unwrap();
    let nodes: Vec<String> =
        summary["rpc"].as_object().unwrap().values().map(|v| v.as_str().unwrap().to_owned()).collect();
    let genesis = at.join("genesis.json");
    let auditor = |args: &[&str]| {
        let mut command = Command::new(program("perturb-audit"));
        command.args(["--genesis", genesis.to_str().unwrap()]);
        nodes.iter().for_each(|n| {
            command.args(["--node", n]);
        });
        command.args(args);
        command
    };
    let audit = |args: &[&str]| {
        let out = auditor(args).output().unwrap();
        let said = text(&out);
        assert!(out.status.success(), "perturb-audit {args:?}: {:?}\n{said}", out.status.code());
        said
    };
    let miner = summary["miners"].as_object().unwrap().iter().find(|(_, m)| m["kind"] == "gradient").unwrap().0.clone();
    let validator = summary["rpc"].as_object().unwrap().keys().next().unwrap().clone();
    let epoch = summary["epochs"][1]["epoch"].to_string();

    let said = audit(&["root"]);
    assert!(!said.contains("INVALID"), "{said}");
    audit(&["cert", "5"]);
    let bundle = dir.path().join("score.bundle");
    let said = audit(&["score", "--miner", &miner, "--epoch", &epoch, "--out", bundle.to_str().unwrap()]);
    assert!(said.contains("65535"), "{said}");
    audit(&["round", &validator, "0"]);
    audit(&["replay", "--epoch", &epoch]);
    audit(&["replay", "--epoch", &epoch, "--fast"]);
    let chain = summary["chain"].as_str().unwrap();
    audit(&["weights", "--epoch", &epoch, "--chain", chain]);

    // The last epoch's anchors follow its weights: one validator's as a remark, the others' as commitments.
    audit(&["anchors", "--chain", chain]);
    let began = Instant::now();
    loop {
        let out = auditor(&["anchors", "--epoch", &epoch, "--chain", chain]).output().unwrap();
        let said = text(&out);
        assert!(!said.contains("INVALID"), "{said}");
        if out.status.success() && said.contains("by remark") && said.contains("by commitment") {
            assert!(!said.contains("cannot be compared") && !said.contains("another history"), "{said}");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{said}");
        std::thread::sleep(Duration::from_secs(1));
    }

    // The bundle needs no node; a byte of it changed is found.
    audit(&["verify", bundle.to_str().unwrap()]);
    let mut bytes = std::fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let out = Command::new(program("perturb-audit"))
        .args(["--genesis", genesis.to_str().unwrap(), "verify", bundle.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
}
