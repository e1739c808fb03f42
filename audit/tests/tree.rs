//! What the auditor is built of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

#[test]
fn the_auditor_needs_neither_a_runtime_nor_a_database_nor_torch() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "perturb-audit", "-e", "normal,build", "--prefix", "none"])
        // A shell may ask for one feature set of the whole workspace: that would show all of it.
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"perturb-ledger") && names.contains(&"ureq"), "{text}");
    let refused = ["tokio", "libp2p", "rocksdb", "librocksdb-sys", "tch", "torch-sys", "hyper", "jsonrpsee", "subxt"];
    let found: Vec<_> =
        names.iter().filter(|n| refused.iter().any(|r| *n == r || n.starts_with(&format!("{r}-")))).collect();
    assert!(found.is_empty(), "{found:?}");
}
