#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;

/// Made by the official core (`bittensor-core` 0.1.5) for quicknet's round 1000.
const OFFICIAL: &str = include_str!("../fixtures/official-commit-round-1000.hex");
/// Quicknet's signature of round 1000, as published.
const ROUND_1000: &str =
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";

fn payload() -> Payload {
    Payload { hotkey: (0..32).collect(), uids: vec![1, 2, 300], values: vec![100, 200, 65_535], version_key: 42 }
}

fn signature() -> Vec<u8> {
    hex::decode(ROUND_1000).unwrap()
}

#[test]
fn a_commit_of_the_official_core_opens_with_the_published_signature() {
    let commit = hex::decode(OFFICIAL.trim()).unwrap();
    assert_eq!(open(&commit, &signature()).unwrap(), payload());
}

#[test]
fn our_commit_has_the_official_layout_and_opens_with_its_rounds_signature_alone() {
    let commit = seal(&Beacon::QUICKNET, 1000, &payload()).unwrap();
    let official = hex::decode(OFFICIAL.trim()).unwrap();
    assert_eq!(commit.len(), official.len());
    // The lengths before V and W stand at the same places.
    assert_eq!((&commit[96..104], &commit[136..144]), (&official[96..104], &official[136..144]));
    assert_eq!(open(&commit, &signature()).unwrap(), payload());
    let another = seal(&Beacon::QUICKNET, 1001, &payload()).unwrap();
    assert_eq!(open(&another, &signature()), Err(TimelockError::WrongSignature));
    assert_ne!(commit, seal(&Beacon::QUICKNET, 1000, &payload()).unwrap(), "no commit is made twice");
}

#[test]
fn a_full_subnets_commit_fits_what_the_chain_takes() {
    let full = |n: u16| Payload { uids: (0..n).collect(), values: vec![9; usize::from(n)], ..payload() };
    assert_eq!(seal(&Beacon::QUICKNET, 1000, &full(256)).unwrap().len(), 1313);
    assert!(matches!(seal(&Beacon::QUICKNET, 1000, &full(1300)), Err(TimelockError::TooLong(_))));
}

#[test]
fn a_key_that_is_no_point_is_refused() {
    let beacon = Beacon { public_key: [7; 96], ..Beacon::QUICKNET };
    assert_eq!(seal(&beacon, 1000, &payload()), Err(TimelockError::BadKey));
}

#[test]
fn the_round_is_the_one_signed_when_the_pulse_must_be_on_the_chain() {
    let beacon = Beacon::QUICKNET;
    let start = beacon.genesis_ms;
    // 10 blocks and 3 more of 12 s are 156 s: 52 rounds.
    assert_eq!(round_for(&beacon, start, 10, 12_000), 52);
    assert_eq!(round_for(&beacon, start + 2_999, 10, 12_000), 52);
    assert_eq!(round_for(&beacon, start + 3_000, 10, 12_000), 53);
    // Four blocks of 250 ms end within the round that is out: the next one is taken.
    assert_eq!((round_for(&beacon, start, 1, 250), round_for(&beacon, start + 3_000, 1, 250)), (2, 3));
    assert_eq!(round_for(&beacon, 0, 0, 250), 2, "before the beacon's genesis");
    assert_eq!(round_for(&Beacon { period_ms: 0, ..beacon }, start, 10, 12_000), 2);
    assert!(round_for(&Beacon::QUICKNET, u64::MAX, u64::MAX, u64::MAX) > 1);
}

#[test]
fn commits_of_another_layout_are_refused() {
    let commit = hex::decode(OFFICIAL.trim()).unwrap();
    let mut longer = commit[..96].to_vec();
    longer.extend(40u64.to_le_bytes());
    longer.extend([0; 40]);
    longer.extend(&commit[136..]);
    assert_eq!(open(&longer, &signature()), Err(TimelockError::Malformed));
    let trailing = [&commit[..], &[0]].concat();
    assert_eq!(open(&trailing, &signature()), Err(TimelockError::Malformed));
    assert_eq!(open(&commit, &[0; 48]), Err(TimelockError::BadSignature));
    assert_eq!(open(&vec![0; MAX_COMMIT_BYTES + 1], &signature()), Err(TimelockError::TooLong(MAX_COMMIT_BYTES + 1)));
}

#[test]
fn a_beacon_reads_back_from_json() {
    let json = serde_json::to_string(&Beacon::QUICKNET).unwrap();
    assert_eq!(serde_json::from_str::<Beacon>(&json).unwrap(), Beacon::QUICKNET);
    assert!(serde_json::from_str::<Beacon>(&json.replace("83cf", "83")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_commits_are_refused_and_never_panic(at in 0usize..400, byte: u8, cut in 0usize..400) {
        let commit = hex::decode(OFFICIAL.trim()).unwrap();
        let mut damaged = commit.clone();
        let at = at % damaged.len();
        damaged[at] = byte;
        let opened = open(&damaged, &signature());
        prop_assert!(damaged == commit || opened.is_err() || opened == Ok(payload()));
        prop_assert!(open(&commit[..cut % commit.len()], &signature()).is_err());
    }
}
