//! The archive and the check, on the history of a real ledger.

use perturb_ledger::Transaction;
use perturb_ledger::archive::Archive;
use perturb_ledger::ledger::genesis_commit;
use perturb_types::encode;

use super::history::History;
use super::*;
use crate::check::Fault;

/// Six blocks, two closed epochs, in RocksDB and in memory.
fn six_blocks(history: &History, dir: &Path) -> (Database, MemoryStore) {
    let db = Database::open(dir, &history.id(), Options::default()).unwrap();
    let (commits, memory) = history.commits(6);
    commits.iter().for_each(|commit| db.commit(commit).unwrap());
    (db, memory)
}

#[test]
fn the_archive_of_rocksdb_answers_as_the_one_in_memory() {
    let (history, dir) = (History::new(), tempfile::tempdir().unwrap());
    let (db, memory) = six_blocks(&history, dir.path());
    assert_eq!(db.network().unwrap(), memory.network().unwrap());
    assert_eq!(db.tip().unwrap(), 6);
    for height in 0..=7 {
        assert_eq!(db.block_at(height).unwrap(), memory.block_at(height).unwrap());
        assert_eq!(db.receipts_at(height).unwrap(), memory.receipts_at(height).unwrap());
    }
    assert_eq!(db.epoch_heights().unwrap(), [0, 3, 6]);
    for height in [0, 3, 6] {
        let whole = memory.rows_at(height, None, usize::MAX).unwrap().unwrap();
        assert_eq!(db.rows_at(height, None, usize::MAX).unwrap().unwrap(), whole);
        // In small pages it is the same.
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = db.rows_at(height, after.as_deref(), 100).unwrap().unwrap();
            after = page.rows.last().map(|(key, _)| key.clone());
            paged.extend(page.rows);
            if !page.more {
                break;
            }
        }
        assert_eq!(paged, whole.rows);
    }
    assert!(db.rows_at(4, None, usize::MAX).unwrap().is_none(), "not held is not empty");
    for seq in 0..7 {
        let round = history.round(seq);
        assert_eq!(db.round_places(&round).unwrap(), memory.round_places(&round).unwrap(), "round {seq}");
    }
    assert_eq!(db.handovers_from(0, 10).unwrap(), memory.handovers_from(0, 10).unwrap());
    let proof = db.proof_at(5, b"meta").unwrap().unwrap();
    assert!(proof.verify(&db.header(5).unwrap().unwrap().state_root));
    assert!(db.proof_at(7, b"meta").unwrap().is_none());
}

#[test]
fn the_oldest_copies_of_the_state_go() {
    let (history, dir) = (History::new(), tempfile::tempdir().unwrap());
    drop(six_blocks(&history, dir.path()));
    let options = Options { kept_epochs: 2, ..Options::default() };
    let db = Database::open(dir.path(), &history.id(), options).unwrap();
    let mut batch = rocksdb::WriteBatch::default();
    let mut again = genesis_commit(&history.genesis).unwrap();
    again.height = 9;
    // The next closing block.
    again.block.body.transactions =
        vec![Transaction::EpochClose { epoch: 2, snapshot: Box::new(history.genesis.snapshot.clone()) }];
    db.put_past(&mut batch, &again).unwrap();
    db.write(crate::failpoint::Write::Row, batch, true).unwrap();
    assert_eq!(db.epoch_heights().unwrap(), [6, 9]);
    assert!(db.rows_at(3, None, usize::MAX).unwrap().is_none());
    assert!(!db.rows_at(6, None, usize::MAX).unwrap().unwrap().rows.is_empty());
}

#[test]
fn a_check_names_the_first_fault() {
    let history = History::new();
    let checked = |spoil: &dyn Fn(&Database)| {
        let dir = tempfile::tempdir().unwrap();
        let (db, _) = six_blocks(&history, dir.path());
        spoil(&db);
        db.check(&history.genesis, |_| {})
    };
    let seen = checked(&|_| {}).unwrap();
    assert_eq!((seen.blocks, seen.signatures, seen.copies), (7, 9, 3));
    assert!(seen.transactions > 0 && seen.rows > 0);

    let fault = checked(&|db| assert!(db.flip_bit_under(b"key/").unwrap())).unwrap_err();
    assert!(matches!(&fault, Fault::State { height: 6, what } if what.contains("row key/")), "{fault}");
    let remove = |db: &Database, family, height: u64| {
        let mut batch = rocksdb::WriteBatch::default();
        batch.delete_cf(db.family(family).unwrap(), height.to_be_bytes());
        db.write(crate::failpoint::Write::Row, batch, true).unwrap();
    };
    let fault = checked(&|db| remove(db, crate::database::BLOCKS, 4)).unwrap_err();
    assert!(matches!(&fault, Fault::Block { height: 4, .. }), "{fault}");
    let fault = checked(&|db| remove(db, crate::database::CERTIFICATES, 2)).unwrap_err();
    assert!(matches!(&fault, Fault::Block { height: 2, what } if what.contains("certificate")), "{fault}");
    let fault = checked(&|db| {
        db.put_synced(crate::failpoint::Write::Row, crate::database::RECEIPTS, &1u64.to_be_bytes(), &[0; 4]).unwrap()
    });
    assert!(matches!(&fault, Err(Fault::Block { height: 1, what }) if what.contains("receipts")), "{fault:?}");
    let swap = |db: &Database| {
        let block = db.block(2).unwrap().unwrap();
        db.put_synced(
            crate::failpoint::Write::Row,
            crate::database::BLOCKS,
            &3u64.to_be_bytes(),
            &encode::encode(&block),
        )
        .unwrap();
    };
    assert!(matches!(checked(&swap), Err(Fault::Block { height: 3, .. })));
}
