//! The image store at its limits.

use std::collections::BTreeSet;

use perturb_types::{ChallengeId, Hotkey, RoundId};

use super::*;
use crate::round_cost;

/// Miners of a round, and bytes of an answer at the most: a scaled picture of the network.
const MINERS: u64 = 64;
const ANSWER: usize = 600;
const CLEAN: usize = 400;
/// Room for some twenty rounds of the largest kind.
const ROUNDS: u64 = 20;

fn options(all: u64) -> Options {
    Options { max_image_bytes: all, ..Options::default() }
}

fn whole_round() -> u64 {
    round_cost(CLEAN, MINERS as usize, ANSWER)
}

/// A database whose own shelf has room for so many rounds of the largest kind.
fn store(dir: &Path, rounds: u64) -> Database {
    Database::open(dir, &NET, options((rounds * whole_round() * 4).div_ceil(3))).unwrap()
}

fn round(validator: u8, seq: u64) -> RoundId {
    RoundId { validator: Hotkey([validator; 32]), challenge: ChallengeId(0), seq }
}

fn picture(what: &str, seq: u64, number: u64, len: usize) -> Vec<u8> {
    let mut bytes = format!("{what} {seq} {number} ").into_bytes();
    bytes.resize(len, number as u8);
    bytes
}

/// A round with answers of so many bytes; whether there was room for it.
fn run(db: &Database, seq: u64, answers: u64, len: usize, pinned: &BTreeSet<RoundId>) -> bool {
    let Some(mut room) = db.reserve_images(whole_round(), pinned).unwrap() else { return false };
    room.begin(&round(1, seq), seq / 100, seq);
    assert!(room.keep(&picture("clean", seq, 0, CLEAN)).unwrap());
    (0..answers).for_each(|n| assert!(room.keep(&picture("answer", seq, n, len)).unwrap()));
    true
}

fn has(db: &Database, what: &str, seq: u64, number: u64, len: usize) -> bool {
    db.blob(&Digest::of(&picture(what, seq, number, len))).unwrap().is_some()
}

#[test]
fn more_rounds_than_fit_go_on_and_what_is_owed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let db = store(dir.path(), ROUNDS);
    // The draw of a round comes ten rounds later; two of the first ones are drawn and checked for long.
    let drawn = [3, 7];
    for seq in 0..600u64 {
        let waiting = seq.saturating_sub(10)..seq;
        let pinned: BTreeSet<_> = waiting.chain(drawn).map(|seq| round(1, seq)).collect();
        assert!(run(&db, seq, MINERS, ANSWER, &pinned), "round {seq}");
        assert!(db.image_use().own <= ROUNDS * whole_round());
    }
    for seq in drawn.into_iter().chain(589..600) {
        assert!(has(&db, "clean", seq, 0, CLEAN), "round {seq}");
        assert!((0..MINERS).all(|n| has(&db, "answer", seq, n, ANSWER)));
    }
    assert!(!has(&db, "clean", 4, 0, CLEAN) && !has(&db, "answer", 560, 0, ANSWER));
    let used = db.image_use();
    assert_eq!((used.dropped, used.refused, used.reserved), (600 - ROUNDS, 0, 0));
}

#[test]
fn where_all_is_owed_there_is_no_room_and_nothing_is_lost_and_then_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let db = store(dir.path(), 3);
    let mut pinned: BTreeSet<_> = (0..3).map(|seq| round(1, seq)).collect();
    assert!((0..3).all(|seq| run(&db, seq, MINERS, ANSWER, &pinned)));
    let before = db.image_use();
    assert!(!run(&db, 3, MINERS, ANSWER, &pinned));
    assert!(db.reserve_images(u64::MAX, &BTreeSet::new()).unwrap().is_none(), "nor for more than all");
    assert_eq!(db.image_use(), crate::ImageUse { refused: 2, ..before });
    assert!((0..3).all(|seq| has(&db, "answer", seq, 9, ANSWER)));
    pinned.remove(&round(1, 1));
    assert!(run(&db, 3, MINERS, ANSWER, &pinned));
    assert_eq!([0, 1, 2, 3].map(|seq| has(&db, "answer", seq, 9, ANSWER)), [true, false, true, true]);
}

#[test]
fn a_round_takes_no_more_than_its_room_and_gives_back_what_it_did_not_need() {
    let dir = tempfile::tempdir().unwrap();
    let db = store(dir.path(), 2);
    let none = BTreeSet::new();
    let mut room = db.reserve_images(round_cost(CLEAN, 2, ANSWER), &none).unwrap().unwrap();
    assert!(!room.keep(b"of no round").unwrap());
    room.begin(&round(1, 0), 0, 0);
    assert!(room.keep(&picture("clean", 0, 0, CLEAN)).unwrap());
    assert!(!room.keep(&picture("answer", 0, 0, 4 << 20)).unwrap(), "padded to the old limit");
    assert!((0..2).all(|n| room.keep(&picture("answer", 0, n, ANSWER)).unwrap()), "exactly the bound");
    assert!(room.keep(&picture("answer", 0, 1, ANSWER)).unwrap(), "the same bytes count once");
    assert!(!room.keep(&picture("answer", 0, 2, ANSWER)).unwrap());
    assert!(!room.resize(u64::MAX, &none).unwrap());
    assert!(room.resize(round_cost(CLEAN, 0, 0), &none).unwrap());
    assert!(db.image_use().reserved > 0);
    drop(room);
    assert_eq!(db.image_use().reserved, 0);
    // What a room is for stays while it does, whatever else is wanted.
    let mut room = db.reserve_images(whole_round(), &none).unwrap().unwrap();
    room.begin(&round(1, 1), 0, 1);
    assert!(room.keep(&picture("clean", 1, 0, CLEAN)).unwrap());
    assert!(db.reserve_images(2 * whole_round(), &none).unwrap().is_none());
    assert!(has(&db, "clean", 1, 0, CLEAN));
}

#[test]
fn who_names_many_images_pushes_out_its_own_copies_and_no_own_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let db = store(dir.path(), 6);
    let all: BTreeSet<_> = (0..9).flat_map(|v| (0..200).map(move |seq| round(v, seq))).collect();
    assert!(run(&db, 0, MINERS, ANSWER, &all));
    let copy = |v: u8, seq: u64, n: u64| {
        db.keep_copy(&round(v, seq), 0, seq, &picture(&format!("copy {v}"), seq, n, ANSWER), &all).unwrap()
    };
    assert!((0..8).all(|n| copy(2, 0, n)), "an honest validator's drawn round");
    for seq in 1..200 {
        assert!((0..MINERS).all(|n| copy(3, seq, n)), "round {seq} of one that has many drawn");
        assert!(db.image_use().copies <= 2 * whole_round());
    }
    assert!((0..8).all(|n| has(&db, "copy 2", 0, n, ANSWER)));
    assert!(has(&db, "copy 3", 199, 5, ANSWER) && !has(&db, "copy 3", 100, 5, ANSWER));
    assert!((0..MINERS).all(|n| has(&db, "answer", 0, n, ANSWER)));
    assert!(copy(4, 0, 0), "and there is room for the next");
    // One round that is more than the whole shelf: some of it is not kept, and all else is.
    let kept = (0..3 * MINERS).filter(|n| copy(5, 1, *n)).count() as u64;
    assert!(kept > MINERS / 2 && kept < 3 * MINERS, "{kept}");
    assert!((0..8).all(|n| has(&db, "copy 2", 0, n, ANSWER)));
}

#[test]
fn what_is_held_is_read_again_and_goes_with_its_epoch_unless_it_is_owed() {
    let dir = tempfile::tempdir().unwrap();
    let db = store(dir.path(), 9);
    let none = BTreeSet::new();
    assert!([5, 50, 105, 205].into_iter().all(|seq| run(&db, seq, 3, ANSWER, &none)));
    assert!(db.keep_copy(&round(2, 5), 0, 5, &picture("clean", 5, 0, CLEAN), &none).unwrap());
    let before = db.image_use();
    drop(db);
    let db = store(dir.path(), 9);
    assert_eq!(db.image_use(), before, "without a room, and nothing is counted twice");
    assert_eq!(db.prune_images(2, &[round(1, 50)].into()).unwrap(), 3);
    assert_eq!([5, 50, 105, 205].map(|seq| has(&db, "clean", seq, 0, CLEAN)), [false, true, false, true]);
    assert_eq!(db.image_use().dropped, 0, "that was time and not want of room");
    drop(db);
    // An operator gives less room: what is not owed goes, and what is owed stays although it is too much.
    let db = Database::open(dir.path(), &NET, options(1000)).unwrap();
    assert_eq!(db.prune_images(0, &[round(1, 50)].into()).unwrap(), 0);
    assert!(has(&db, "clean", 205, 0, CLEAN), "nothing goes for what cannot be reached");
    assert!(db.reserve_images(1, &[round(1, 50)].into()).unwrap().is_none());
    db.prune_images(0, &none).unwrap();
    assert_eq!(db.image_use().own, 0);
}

#[test]
fn a_damaged_copy_is_told_unless_there_is_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let db = store(dir.path(), 9);
    assert!(run(&db, 0, 1, ANSWER, &BTreeSet::new()));
    let png = picture("clean", 0, 0, CLEAN);
    let digest = Digest::of(&png);
    let own = crate::shelves::Place::new(crate::shelves::Shelf::Own, &round(1, 0), 0, 0).key();
    let family = db.inner.db.cf_handle(crate::database::IMAGES).unwrap();
    db.inner.db.put_cf(family, crate::images::image_key(&digest, &own), b"other bytes").unwrap();
    assert!(matches!(db.blob(&digest), Err(StorageError::Damaged { .. })));
    assert!(db.keep_copy(&round(2, 0), 0, 0, &png, &BTreeSet::new()).unwrap());
    assert_eq!(db.blob(&digest).unwrap(), Some(png));
}
