//! The main job, end to end.

use serde_json::Value;

use crate::{perturb, text};

fn run(extra: &[&str]) -> (Value, String) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("net");
    let mut args = vec!["localnet", "--dir", at.to_str().unwrap()];
    args.extend(extra);
    let out = perturb(&args).output().unwrap();
    let said = text(&out);
    assert!(out.status.success(), "{said}");
    let summary = std::fs::read_to_string(at.join("summary.json")).unwrap();
    (serde_json::from_str(&summary).unwrap(), said)
}

/// The hotkey of the miner of a kind (the first one).
fn of_kind(summary: &Value, kind: &str) -> String {
    let miners = summary["miners"].as_object().unwrap();
    miners.iter().find(|(_, m)| m["kind"] == kind).unwrap().0.clone()
}

fn check_epochs(summary: &Value, epochs: usize, validators: usize) {
    let list = summary["epochs"].as_array().unwrap();
    assert!(list.len() >= epochs, "{list:?}");
    for e in list {
        let roots: Vec<&Value> = e["state_roots"].as_object().unwrap().values().collect();
        assert!(roots.len() >= validators, "{e}");
        assert!(roots.iter().all(|r| *r == roots[0]), "{e}");
        assert!(e["results"].as_u64().unwrap() > 0, "{e}");
        let agreed = &e["weights_agreed"];
        assert!(!agreed.as_object().unwrap().is_empty());
        let on_chain = e["weights_on_chain"].as_object().unwrap();
        assert!(on_chain.len() >= validators, "{e}");
        assert!(on_chain.values().all(|w| w == agreed), "{e}");
    }
}

#[test]
fn a_network_of_processes_scores_agrees_and_puts_weights_on_chain() {
    let (summary, said) = run(&["--seed", "1", "--epochs", "2"]);
    check_epochs(&summary, 2, 4);
    let last = &summary["epochs"].as_array().unwrap().last().unwrap()["weights_agreed"];
    let weight = |kind: &str| last.get(of_kind(&summary, kind)).map_or(0, |w| w.as_u64().unwrap());
    // The slow one attacks alike; the speed part decides between them only where the machine has time for both.
    assert!(weight("gradient") > weight("weak"), "{last}");
    assert_eq!(weight("gradient").max(weight("slow")), 65535, "{last}");
    assert_eq!(weight("garbage"), 0, "{last}");
    assert!(said.contains("u16 on chain"), "{said}");
}

#[test]
fn the_network_survives_a_drill() {
    let (summary, _) = run(&["--seed", "2", "--epochs", "4", "--drill"]);
    check_epochs(&summary, 4, 4);
    let steps = summary["drill"].as_array().unwrap();
    let said: String = steps.iter().map(|s| s["what"].as_str().unwrap().to_owned() + "\n").collect();
    for what in [
        "SIGKILL",
        "restored itself",
        "snapshot of height",
        "consensus key",
        "chain was away",
        "bootnode",
        "proofs of it",
        "padded its answers",
        "aimed at ties",
        "asked about others' images",
        "19 of 20 heights",
    ] {
        assert!(said.contains(what), "no {what:?} in:\n{said}");
    }
    // The fifth validator, absent from genesis, put the same weights on chain in the last epoch.
    let last = summary["epochs"].as_array().unwrap().last().unwrap();
    assert_eq!(last["weights_on_chain"].as_object().unwrap().len(), 5, "{last}");
}
