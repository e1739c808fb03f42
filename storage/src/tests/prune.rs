//! Pruning by policy: what goes, what stays, and that the rest is whole.

use perturb_ledger::archive::{Archive, Oldest};
use perturb_ledger::{Commit, Ledger, Trust, serve};
use serde_json::json;

use super::history::{EPOCH, History};
use super::*;
use crate::{Pruned, Retention};

/// The newest height; epochs end at 3, 6, 9 and 12, the set changes at 3 and 9.
const TIP: u64 = 13;

fn thirteen_blocks(history: &History, dir: &Path) -> (Database, Vec<Commit>) {
    let db = Database::open(dir, &history.id(), Options::default()).unwrap();
    let (commits, _) = history.commits(TIP + 20);
    commits[..=TIP as usize].iter().for_each(|commit| db.commit(commit).unwrap());
    (db, commits)
}

fn policy(blocks_epochs: u64, state_epochs: u64) -> Retention {
    Retention { blocks_epochs, state_epochs, ..Retention::default() }
}

/// The heights for which `held` says so.
fn heights(held: impl Fn(u64) -> bool) -> Vec<u64> {
    (0..=TIP).filter(|height| held(*height)).collect()
}

#[test]
fn pruning_keeps_what_its_policy_says_and_what_everybody_needs() {
    let history = History::new();
    // Closed epochs to keep; the oldest block; the headers that outlive theirs.
    let cases: [(u64, u64, &[u64]); 5] = [(0, 12, &[3, 6, 9]), (1, 9, &[3, 6]), (2, 6, &[3]), (3, 3, &[]), (9, 0, &[])];
    for (epochs, oldest, kept) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (db, commits) = thirteen_blocks(&history, dir.path());
        let handovers = db.handovers_from(0, 9).unwrap();
        let gone = oldest.saturating_sub(1);
        let pruned = db.prune(policy(epochs, epochs)).unwrap();
        assert_eq!((pruned.blocks, pruned.copies), (gone, oldest.div_ceil(EPOCH)), "{epochs} epochs");
        assert_eq!(pruned.tree_rows > 0, oldest > 0);
        assert_eq!(db.oldest().unwrap(), Oldest { block: oldest, state: oldest });

        let held: Vec<u64> = [0].into_iter().chain(oldest.max(1)..=TIP).collect();
        assert_eq!(heights(|h| db.block(h).unwrap().is_some()), held);
        assert_eq!(heights(|h| db.receipts(h).unwrap().is_some()), held);
        let mut with_header: Vec<u64> = held.iter().chain(kept).copied().collect();
        with_header.sort_unstable();
        assert_eq!(heights(|h| db.header(h).unwrap().is_some()), with_header);
        assert_eq!(heights(|h| h == 0 || db.certificate(h).unwrap().is_some()), with_header);
        assert_eq!(heights(|h| db.height_of(&commits[h as usize].digest).unwrap() == Some(h)), with_header);
        let rounds = heights(|h| h > 0 && db.round_places(&history.round(h - 1)).unwrap().closed.is_some());
        assert_eq!(rounds, heights(|h| h >= oldest.max(1)));
        let copies = heights(|h| db.rows_at(h, None, usize::MAX).unwrap().is_some());
        assert_eq!(copies, heights(|h| h >= oldest && h.is_multiple_of(EPOCH)));
        for height in heights(|h| h >= oldest) {
            let proof = db.proof_at(height, b"meta").unwrap().unwrap();
            assert!(proof.verify(&commits[height as usize].block.header.state_root), "{height}");
        }
        assert_eq!(heights(|h| db.proof_at(h, b"meta").unwrap().is_none()), heights(|h| h < oldest));

        // Whoever begins at genesis still comes to the newest header.
        assert_eq!(db.handovers_from(0, 9).unwrap(), handovers);
        let mut trust = Trust::genesis(&history.genesis).unwrap();
        handovers.iter().for_each(|handover| trust.advance(handover).unwrap());
        trust.check(&db.header(TIP).unwrap().unwrap(), &db.certificate(TIP).unwrap().unwrap()).unwrap();

        let seen = db.check(&history.genesis, |_| {}).unwrap();
        assert_eq!((seen.blocks, seen.headers), (held.len() as u64, kept.len() as u64));
        assert_eq!(db.prune(policy(epochs, epochs)).unwrap(), Pruned::default(), "a second time removes nothing");
        assert_eq!(db.prune(Retention::default()).unwrap(), Pruned::default());

        // It goes on, and a stricter policy after a restart too.
        let mut ledger = Ledger::new(history.genesis.clone(), db.clone()).unwrap();
        for next in &commits[TIP as usize + 1..] {
            let made = history.next(&mut ledger);
            assert_eq!(made.block, next.block);
            db.commit(&made).unwrap();
        }
        drop((ledger, db));
        let db = Database::open(dir.path(), &history.id(), Options::default()).unwrap();
        db.prune(policy(0, 0)).unwrap();
        assert_eq!(db.oldest().unwrap(), Oldest { block: 33, state: 33 });
        let seen = db.check(&history.genesis, |_| {}).unwrap();
        assert_eq!((seen.blocks, seen.headers, seen.copies), (2, 10, 1));
    }
}

#[test]
fn blocks_and_states_have_policies_of_their_own() {
    let history = History::new();
    let check = |blocks: u64, states: u64, oldest: Oldest| {
        let dir = tempfile::tempdir().unwrap();
        let (db, _) = thirteen_blocks(&history, dir.path());
        db.prune(policy(blocks, states)).unwrap();
        assert_eq!(db.oldest().unwrap(), oldest);
        db.check(&history.genesis, |_| {}).unwrap();
        // Each kept state has a header and a certificate, whatever became of its block.
        for height in db.epoch_heights().unwrap().into_iter().filter(|height| *height > 0) {
            assert!(db.header_at(height).unwrap().unwrap().1.is_some());
        }
    };
    check(0, u64::MAX, Oldest { block: 12, state: 0 });
    check(u64::MAX, 0, Oldest { block: 0, state: 12 });
    check(0, 3, Oldest { block: 12, state: 3 });
    check(3, 0, Oldest { block: 3, state: 12 });
}

#[test]
fn what_was_pruned_is_told_apart_from_what_never_was() {
    let (history, dir) = (History::new(), tempfile::tempdir().unwrap());
    let (db, _) = thirteen_blocks(&history, dir.path());
    db.prune(policy(1, 1)).unwrap();
    assert!(matches!(db.held_block(5), Err(StorageError::Pruned { what: "block", height: 5, oldest: 9 })));
    assert!(db.held_block(99).unwrap().is_none() && db.held_block(0).unwrap().is_some());
    let meta = hex::encode(b"meta");
    let validator = history.round(0).validator;
    let cases = [
        ("perturb_block", json!([5]), json!([99])),
        ("perturb_header", json!([5]), json!([99])),
        ("perturb_state", json!([6, null]), json!([99, null])),
        ("perturb_proof", json!([5, [meta]]), json!([99, [meta]])),
        ("perturb_round", json!([validator, 0, 4]), json!([validator, 0, 99])),
    ];
    for (method, pruned, absent) in cases {
        let error = serve::answer(&db, method, &pruned).unwrap_err();
        assert!(matches!(error, serve::RpcError::Pruned { oldest: 9, .. }), "{method}: {error}");
        assert_eq!(error.code(), serve::PRUNED);
        assert!(serve::answer(&db, method, &absent).unwrap().is_null(), "{method}");
    }
    // Headers that lead through the sets outlive their blocks.
    assert!(!serve::answer(&db, "perturb_header", &json!([3])).unwrap().is_null());
    assert!(db.block_range(3, 9, usize::MAX).unwrap().is_empty(), "peers that need more ask another");
    assert_eq!(db.block_range(9, 9, usize::MAX).unwrap().len(), 5);
}

#[test]
fn an_empty_database_and_one_without_a_closed_epoch_lose_nothing() {
    let (history, dir) = (History::new(), tempfile::tempdir().unwrap());
    let db = Database::open(dir.path(), &history.id(), Options::default()).unwrap();
    assert_eq!(db.prune(policy(0, 0)).unwrap(), Pruned::default());
    for commit in &history.commits(2).0 {
        db.commit(commit).unwrap();
        assert_eq!(db.prune(policy(0, 0)).unwrap(), Pruned::default());
    }
    db.check(&history.genesis, |_| {}).unwrap();
}

#[test]
fn a_prune_that_was_cut_off_is_finished_by_the_next() {
    let (history, dir) = (History::new(), tempfile::tempdir().unwrap());
    let (db, _) = thirteen_blocks(&history, dir.path());
    let whole = {
        let other = tempfile::tempdir().unwrap();
        let (db, _) = thirteen_blocks(&history, other.path());
        db.prune(policy(9, 0)).unwrap()
    };
    // The promise has gone, and nothing of what it rested on.
    let (point, name) = (crate::failpoint::Write::PruneTree, crate::prune::OLDEST_STATE);
    db.put_synced(point, crate::database::META, name.as_bytes(), &12u64.to_be_bytes()).unwrap();
    assert_eq!(db.prune(policy(9, 0)).unwrap(), whole);
    assert_eq!(db.prune(policy(9, 0)).unwrap(), Pruned::default());
    db.check(&history.genesis, |_| {}).unwrap();
}

#[test]
fn pruning_beside_commits_loses_none_of_them() {
    let (history, dir) = (History::new(), tempfile::tempdir().unwrap());
    let (db, commits) = thirteen_blocks(&history, dir.path());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| commits[TIP as usize + 1..].iter().for_each(|commit| db.commit(commit).unwrap()));
        while !writer.is_finished() {
            db.prune(policy(0, 1)).unwrap();
        }
    });
    db.prune(policy(0, 1)).unwrap();
    assert_eq!((db.height().unwrap(), db.oldest().unwrap()), (Some(33), Oldest { block: 33, state: 30 }));
    assert_eq!(db.epoch_heights().unwrap(), [30, 33]);
    let seen = db.check(&history.genesis, |_| {}).unwrap();
    assert_eq!((seen.blocks, seen.headers), (2, 10));
}
