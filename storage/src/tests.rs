//! The database as a whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use perturb_ledger::block::{Body, ChainReference, PROTOCOL};
use perturb_ledger::proofs::{StateProof, Tree, key_hash};
use perturb_ledger::store::Change;
use perturb_ledger::{Block, Certificate, Commit, Header, MemoryStore, StateStore};
use perturb_types::{ConsensusKey, Digest, NetworkId};
use proptest::prelude::*;

use crate::{Database, Options, StorageError};

#[path = "../tests/history/mod.rs"]
mod history;
mod images;
mod past;
mod prune;
mod snapshot;

const NET: NetworkId = NetworkId([5; 32]);

fn open(dir: &Path) -> Database {
    Database::open(dir, &NET, Options::default()).unwrap()
}

type Changes = Vec<Change>;

fn commit(store: &impl StateStore, height: u64, values: Changes) -> Commit {
    let (root, tree) =
        Tree::new(store).put_value_set(values.iter().map(|(k, v)| (key_hash(k), v.clone())), height).unwrap();
    let header = Header {
        protocol: PROTOCOL,
        network: NET,
        height,
        parent: Digest([0; 32]),
        parent_certificate: Digest([0; 32]),
        time_ms: height,
        proposer: ConsensusKey([0; 32]),
        transactions_root: Digest([0; 32]),
        transactions: 0,
        state_root: Digest(root.0),
        results_root: Digest([0; 32]),
        validators: Digest([0; 32]),
        next_validators: Digest([0; 32]),
        epoch: 0,
        reference: ChainReference { number: 0, hash: Digest([0; 32]), epoch_index: 0 },
    };
    let digest = header.digest(&NET);
    Commit {
        height,
        digest,
        block: Block { header, body: Body { transactions: vec![], parent_certificate: None } },
        certificate: (height > 0).then(|| Certificate::new(height, 0, digest, vec![])),
        receipts: vec![],
        tree,
        values,
    }
}

fn put(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.into(), Some(value.into()))
}

#[test]
fn everything_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    assert!(db.newest().unwrap().is_none());
    let zero = commit(&db, 0, vec![put("a", "1"), put("b", "2")]);
    db.commit(&zero).unwrap();
    db.append_log(1, b"vote").unwrap();
    db.sync_log().unwrap();
    let one = commit(&db, 1, vec![("a".into(), None), put("c", "3")]);
    drop(db);
    let db = open(dir.path());
    assert_eq!(db.log_records().unwrap(), [b"vote".to_vec()]);
    db.commit(&one).unwrap();
    assert!(db.log_records().unwrap().is_empty(), "a commit clears the log of its height");
    drop(db);
    let db = open(dir.path());
    assert_eq!(db.height().unwrap(), Some(1));
    assert_eq!(db.newest().unwrap().unwrap().0, one.block.header);
    assert_eq!(db.height_of(&one.digest).unwrap(), Some(1));
    assert_eq!(db.value(b"a").unwrap(), None);
    assert_eq!(db.scan(b"").unwrap(), [(b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
    let old = StateProof::make(&db, 0, b"a").unwrap();
    assert!(old.value.is_some() && old.verify(&zero.block.header.state_root));
    let new = StateProof::make(&db, 1, b"a").unwrap();
    assert!(new.value.is_none() && new.verify(&one.block.header.state_root));
}

#[test]
fn the_certificate_of_a_height_is_the_one_that_the_next_block_carries() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.commit(&commit(&db, 0, vec![put("a", "1")])).unwrap();
    let one = commit(&db, 1, vec![]);
    db.commit(&one).unwrap();
    assert_eq!(db.certificate(1).unwrap(), one.certificate);
    let mut two = commit(&db, 2, vec![]);
    let agreed = Certificate::new(1, 3, one.digest, vec![]);
    two.block.body.parent_certificate = Some(agreed.clone());
    db.commit(&two).unwrap();
    assert_eq!(db.certificate(1).unwrap(), Some(agreed));
}

#[test]
fn a_folder_belongs_to_one_process_and_one_network() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    assert!(matches!(Database::open(dir.path(), &NET, Options::default()), Err(StorageError::Locked(_))));
    drop(db);
    let other = Database::open(dir.path(), &NetworkId([6; 32]), Options::default());
    assert!(matches!(other, Err(StorageError::OtherNetwork { .. })));
    open(dir.path());
}

#[test]
fn a_damaged_database_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let current = dir.path().join("database/CURRENT");
    std::fs::write(&current, b"garbage").unwrap();
    let error = Database::open(dir.path(), &NET, Options::default()).err().unwrap().to_string();
    assert!(error.contains("keep `signing-guard`"), "{error}");
}

#[test]
fn a_log_with_a_gap_or_a_flipped_bit_is_damage_and_a_lost_tail_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for i in 0..3u8 {
        db.append_log(0, &[i]).unwrap();
    }
    assert_eq!(db.log_records().unwrap().len(), 3);
    let family = db.family(crate::database::LOG).unwrap();
    db.inner.db.delete_cf(family, crate::log::key(0, 2)).unwrap();
    assert_eq!(db.log_records().unwrap(), [vec![0], vec![1]]);
    let bytes = db.inner.db.get_cf(family, crate::log::key(0, 1)).unwrap().unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    db.inner.db.put_cf(family, crate::log::key(0, 1), flipped).unwrap();
    assert!(matches!(db.log_records(), Err(StorageError::Damaged { .. })));
    db.inner.db.put_cf(family, crate::log::key(0, 1), bytes).unwrap();
    db.inner.db.delete_cf(family, crate::log::key(0, 0)).unwrap();
    assert!(matches!(db.log_records(), Err(StorageError::Damaged { .. })));
}

/// A copy of the files as a crash leaves them, with the write-ahead log spoilt by `spoil`.
fn crashed(dir: &Path, spoil: impl Fn(&mut Vec<u8>)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("database");
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(dir.join("database")).unwrap().map(Result::unwrap) {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if entry.path().extension().is_some_and(|e| e == "log") && !bytes.is_empty() {
            spoil(&mut bytes);
        }
        std::fs::write(to.join(entry.file_name()), bytes).unwrap();
    }
    copy
}

#[test]
fn a_torn_tail_loses_only_its_record_and_damage_before_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for height in 0..20 {
        db.commit(&commit(&db, height, vec![put("h", &height.to_string())])).unwrap();
    }
    for i in 0..5u8 {
        db.append_log(20, &[i; 100]).unwrap();
    }
    db.sync_log().unwrap();
    for (cut, left) in [(0, 5), (30, 4)] {
        let copy = crashed(dir.path(), |wal| wal.truncate(wal.len() - cut));
        let after = open(copy.path());
        assert_eq!(after.height().unwrap(), Some(19));
        assert_eq!(after.log_records().unwrap().len(), left);
    }
    for part in [10, 2] {
        let copy = crashed(dir.path(), |wal| {
            let at = wal.len() / part;
            wal[at] ^= 1;
        });
        let opened = Database::open(copy.path(), &NET, Options::default());
        assert!(matches!(opened, Err(StorageError::Database { .. })), "committed heights are never forgotten silently");
    }
}

#[test]
fn ranges_are_bounded_by_count_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for height in 0..6 {
        db.commit(&commit(&db, height, vec![put("h", &height.to_string())])).unwrap();
    }
    assert_eq!(db.block_range(0, 3, usize::MAX).unwrap().len(), 3, "genesis is not served");
    assert_eq!(db.block_range(4, 10, usize::MAX).unwrap().len(), 2);
    assert!(db.block_range(9, 10, usize::MAX).unwrap().is_empty());
    let all = db.block_range(1, 9, usize::MAX).unwrap();
    let two: usize = all[..2].iter().map(|(block, certificate)| block.len() + certificate.len()).sum();
    assert_eq!(db.block_range(1, 9, two).unwrap(), all[..2]);
    assert_eq!(db.block_range(1, 9, two - 1).unwrap(), all[..1]);
    assert_eq!(db.block_range(2, 9, 0).unwrap(), all[1..2], "one block always fits");
    assert_eq!(Block::decode(&all[1].0).unwrap().header.height, 2);
}

#[test]
fn rows_read_back_by_name_and_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put_row("p/1", &7u64).unwrap();
    db.put_row("p/2", &8u64).unwrap();
    db.put_row("q", &"text".to_owned()).unwrap();
    assert_eq!(db.row::<u64>("p/1").unwrap(), Some(7));
    assert_eq!(db.rows_from::<u64>("p/", 9).unwrap(), [("p/1".into(), 7), ("p/2".into(), 8)]);
    assert!(matches!(db.row::<(String, String)>("p/1"), Err(StorageError::Damaged { .. })));
    db.delete_row("p/1").unwrap();
    assert_eq!(db.row::<u64>("p/1").unwrap(), None);
}

#[test]
fn old_states_are_forgotten_and_the_kept_ones_stay_provable() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path(), &NET, Options { kept_versions: 3, ..Options::default() }).unwrap();
    let mut roots = Vec::new();
    for height in 0..40u64 {
        // `a` changes always, `b` comes and goes, `c` stays.
        let b = (b"b".to_vec(), (height % 2 == 0).then(|| height.to_be_bytes().to_vec()));
        let mut values = vec![put("a", &height.to_string()), b];
        values.extend((height == 0).then(|| put("c", "c")));
        let next = commit(&db, height, values);
        roots.push(next.block.header.state_root);
        db.commit(&next).unwrap();
        let rows = |family| db.inner.db.iterator_cf(db.family(family).unwrap(), rocksdb::IteratorMode::Start).count();
        let all = [crate::database::TREE_VALUES, crate::database::NODES, crate::database::STALE].map(rows);
        assert!(all[0] <= 14 && all[1] <= 40 && all[2] <= 50, "{all:?} rows at height {height}");
        for kept in height.saturating_sub(3)..=height {
            for (key, value) in [("a", Some(kept.to_string().into_bytes())), ("c", Some(b"c".to_vec()))] {
                let proof = StateProof::make(&db, kept, key.as_bytes()).unwrap();
                assert!(proof.value == value && proof.verify(&roots[kept as usize]));
            }
            let proof = StateProof::make(&db, kept, b"b").unwrap();
            assert_eq!(proof.value, (kept % 2 == 0).then(|| kept.to_be_bytes().to_vec()));
            assert!(proof.verify(&roots[kept as usize]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn rocksdb_and_memory_come_to_the_same_roots(
        heights in proptest::collection::vec(proptest::collection::btree_map(0u8..30, proptest::option::of(any::<u16>()), 1..12), 1..8)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::open(dir.path(), &NET, Options { kept_versions: 2, ..Options::default() }).unwrap();
        let mut memory = MemoryStore::default();
        for (height, changes) in heights.into_iter().enumerate() {
            let values: Changes =
                changes.into_iter().map(|(k, v)| (vec![k], v.map(|v| v.to_be_bytes().to_vec()))).collect();
            let (a, b) = (commit(&db, height as u64, values.clone()), commit(&memory, height as u64, values));
            prop_assert_eq!(a.block.header.state_root, b.block.header.state_root);
            db.commit(&a).unwrap();
            memory.commit(&b);
            prop_assert_eq!(db.scan(b"").unwrap(), memory.scan(b"").unwrap());
        }
    }
}
