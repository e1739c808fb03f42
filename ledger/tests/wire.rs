//! The bytes that others have to make or read, pinned; and proofs against hostile hands.
//!
//! The hex files in the folder `fixtures` beside PROTOCOLS.md are what an implementation in another language is checked
//! against. A change here is a change of the protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::catch_unwind;

use perturb_ledger::block::PROTOCOL;
use perturb_ledger::merkle::{self, LeafProof};
use perturb_ledger::proofs::{StateProof, Tree, key_hash};
use perturb_ledger::{
    Block, Body, Certificate, ChainReference, Commit, Header, MemoryStore, Validator, ValidatorSet, VoteKind,
    vote_sign_bytes,
};
use perturb_types::{ConsensusKey, ConsensusPair, Digest, Hotkey, NetworkId, encode};
use proptest::prelude::*;

const NET: NetworkId = NetworkId([0xA1; 32]);

fn header() -> Header {
    Header {
        protocol: PROTOCOL,
        network: NET,
        height: 2,
        parent: Digest([1; 32]),
        parent_certificate: Digest([2; 32]),
        time_ms: 1_700_000_000_123,
        proposer: ConsensusKey([3; 32]),
        transactions_root: Digest([4; 32]),
        transactions: 5,
        state_root: Digest([6; 32]),
        results_root: Digest([7; 32]),
        validators: Digest([8; 32]),
        next_validators: Digest([9; 32]),
        epoch: 10,
        reference: ChainReference { number: 11, hash: Digest([12; 32]), epoch_index: 13 },
    }
}

fn pairs() -> Vec<ConsensusPair> {
    (1..=4).map(|i| ConsensusPair::from_seed(&[i; 32])).collect()
}

fn set() -> ValidatorSet {
    let member = |(i, p): (u8, &ConsensusPair)| Validator { hotkey: Hotkey([i; 32]), key: p.public(), power: 1 };
    ValidatorSet::new((0..).zip(&pairs()).map(member).collect()).unwrap()
}

fn precommit() -> Vec<u8> {
    vote_sign_bytes(&NET, VoteKind::Precommit, 2, 1, Some(header().digest(&NET)))
}

/// The first three of four sign; ed25519 is deterministic, so the bytes can be pinned.
fn certificate() -> Certificate {
    let sign = |p: &ConsensusPair| (p.public(), p.sign(&precommit()));
    Certificate::new(2, 1, header().digest(&NET), pairs().iter().take(3).map(sign).collect())
}

#[test]
fn the_header_and_its_digest_are_pinned() {
    let header = header();
    assert_eq!(hex::encode(encode::encode(&header)), include_str!("../../fixtures/header.hex").trim());
    assert_eq!(hex::encode(header.digest(&NET).0), include_str!("../../fixtures/header-digest.hex").trim());
}

#[test]
fn what_a_vote_signs_is_pinned_for_a_block_and_for_nil() {
    assert_eq!(hex::encode(precommit()), include_str!("../../fixtures/precommit-sign-bytes.hex").trim());
    let nil = vote_sign_bytes(&NET, VoteKind::Prevote, 2, 1, None);
    assert_eq!(hex::encode(nil), include_str!("../../fixtures/prevote-nil-sign-bytes.hex").trim());
}

#[test]
fn the_certificate_and_the_set_it_is_checked_against_are_pinned() {
    let (certificate, set) = (certificate(), set());
    assert_eq!(hex::encode(encode::encode(&certificate)), include_str!("../../fixtures/certificate.hex").trim());
    assert_eq!(hex::encode(encode::encode(&set)), include_str!("../../fixtures/validator-set.hex").trim());
    assert_eq!(hex::encode(set.hash(&NET).0), include_str!("../../fixtures/validator-set-hash.hex").trim());
}

#[test]
fn the_pinned_certificate_is_read_back_and_verifies() {
    let read = |text: &str| hex::decode(text.trim()).unwrap();
    let set: ValidatorSet = borsh::from_slice(&read(include_str!("../../fixtures/validator-set.hex"))).unwrap();
    let certificate: Certificate = borsh::from_slice(&read(include_str!("../../fixtures/certificate.hex"))).unwrap();
    assert_eq!(certificate.verify(&NET, &set), Ok(3));
}

#[test]
fn any_flipped_bit_of_a_certificate_is_refused() {
    let (bytes, set) = (encode::encode(&certificate()), set());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let accepted = borsh::from_slice::<Certificate>(&flipped).is_ok_and(|c| c.verify(&NET, &set).is_ok());
        assert!(!accepted, "byte {at}");
    }
}

/// A store with rows at height 1 and nothing new at height 2, and the two roots.
fn store(rows: u16) -> (MemoryStore, Digest, Digest) {
    let mut store = MemoryStore::default();
    let values: Vec<_> = (0..rows).map(|i| (row_key(i), Some(i.to_le_bytes().to_vec()))).collect();
    let mut roots = Vec::new();
    for (height, values) in [(1, values), (2, Vec::new())] {
        let hashed = values.iter().map(|(k, v)| (key_hash(k), v.clone()));
        let (root, tree) = Tree::new(&store).put_value_set(hashed, height).unwrap();
        let body = Body { transactions: Vec::new(), parent_certificate: None };
        let block = Block { header: Header { height, ..header() }, body };
        store.commit(&Commit {
            height,
            digest: Digest([0; 32]),
            block,
            certificate: None,
            receipts: vec![],
            tree,
            values,
        });
        roots.push(Digest(root.0));
    }
    (store, roots[0], roots[1])
}

fn row_key(i: u16) -> Vec<u8> {
    [b"row/".as_slice(), &i.to_be_bytes()].concat()
}

#[test]
fn a_block_that_changes_nothing_keeps_the_root_and_can_still_be_proved_against() {
    let (store, before, after) = store(9);
    assert_eq!(before, after);
    for height in [1, 2] {
        assert!(StateProof::make(&store, height, &row_key(3)).unwrap().verify(&after));
        assert!(StateProof::make(&store, height, b"nothing here").unwrap().verify(&after));
    }
}

#[test]
fn any_flipped_bit_of_a_state_proof_is_refused() {
    let (store, root, _) = store(40);
    for key in [row_key(7), b"nothing here".to_vec()] {
        let bytes = encode::encode(&StateProof::make(&store, 1, &key).unwrap());
        assert!(borsh::from_slice::<StateProof>(&bytes).unwrap().verify(&root));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            // Another absent key may share the path: then the statement is another one, and true.
            let accepted = borsh::from_slice::<StateProof>(&flipped)
                .is_ok_and(|p| p.verify(&root) && (p.key == key || p.value.is_some()));
            assert!(!accepted, "byte {at}");
        }
    }
}

#[test]
fn absence_of_a_row_that_is_there_cannot_be_claimed() {
    let (store, root, _) = store(40);
    let mut hidden = StateProof::make(&store, 1, &row_key(7)).unwrap();
    hidden.value = None;
    assert!(!hidden.verify(&root));
    let mut renamed = StateProof::make(&store, 1, b"nothing here").unwrap();
    renamed.key = row_key(7);
    assert!(!renamed.verify(&root));
}

#[test]
fn a_leaf_proof_with_an_absurd_count_is_refused_without_a_panic() {
    let root = merkle::root(&[Digest([1; 32]), Digest([2; 32])]);
    for count in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1, (1 << 53) + 1, u64::from(u32::MAX)] {
        for index in [0, 1, count / 2, count - 1] {
            for siblings in 0..70 {
                let proof = LeafProof { index, count, siblings: vec![Digest([3; 32]); siblings] };
                let verdict = catch_unwind(|| proof.verify(&root, &Digest([1; 32])));
                assert!(matches!(verdict, Ok(false)), "count {count}, index {index}, {siblings} siblings");
            }
        }
    }
}

proptest! {
    #[test]
    fn bytes_from_outside_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Block::decode(&bytes);
        let _ = perturb_ledger::Transaction::decode(&bytes);
        prop_assert!(!borsh::from_slice::<StateProof>(&bytes).is_ok_and(|p| p.verify(&Digest([0; 32]))));
        prop_assert!(!borsh::from_slice::<LeafProof>(&bytes).is_ok_and(|p| p.verify(&Digest([0; 32]), &Digest([0; 32]))));
    }
}
