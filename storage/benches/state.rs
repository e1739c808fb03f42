//! Speed of a state update on disk: a state of 65,536 keys in RocksDB, tree and synced commit.
#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::Cell;

use divan::Bencher;
use perturb_ledger::block::{Body, ChainReference, PROTOCOL};
use perturb_ledger::proofs::{Tree, key_hash};
use perturb_ledger::{Block, Certificate, Commit, Header};
use perturb_storage::{Database, Options};
use perturb_types::{ConsensusKey, Digest, NetworkId};

const NET: NetworkId = NetworkId([5; 32]);
const KEYS: u32 = 65_536;

fn main() {
    divan::main();
}

/// Writes a height that sets `count` of the keys, spread evenly.
fn write(db: &Database, height: u64, count: u32) {
    let value = [height.to_le_bytes(); 4].concat();
    let values: Vec<_> =
        (0..count).map(|i| ((i * (KEYS / count)).to_be_bytes().to_vec(), Some(value.clone()))).collect();
    let (root, tree) =
        Tree::new(db).put_value_set(values.iter().map(|(k, v)| (key_hash(k), v.clone())), height).unwrap();
    let zero = Digest([0; 32]);
    let header = Header {
        protocol: PROTOCOL,
        network: NET,
        height,
        parent: zero,
        parent_certificate: zero,
        time_ms: height,
        proposer: ConsensusKey([0; 32]),
        transactions_root: zero,
        transactions: 0,
        state_root: Digest(root.0),
        results_root: zero,
        validators: zero,
        next_validators: zero,
        epoch: 0,
        reference: ChainReference { number: 0, hash: zero, epoch_index: 0 },
    };
    let digest = header.digest(&NET);
    db.commit(&Commit {
        height,
        digest,
        block: Block { header, body: Body { transactions: vec![], parent_certificate: None } },
        certificate: (height > 0).then(|| Certificate::new(height, 0, digest, vec![])),
        receipts: vec![],
        tree,
        values,
    })
    .unwrap();
}

/// One height that changes this many of the 65,536 keys.
#[divan::bench(args = [1, 1000, KEYS], sample_count = 10, sample_size = 1)]
fn update(bencher: Bencher, changed: u32) {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path(), &NET, Options::default()).unwrap();
    write(&db, 0, KEYS);
    let height = Cell::new(0);
    bencher.bench_local(|| {
        height.set(height.get() + 1);
        write(&db, height.get(), changed);
    });
}
