//! Bundles: no byte can change unnoticed, and a new checksum does not help a liar.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::thread;

use perturb_audit::bundle::{Bundle, Finding, Known, MAGIC};
use perturb_audit::{TrustAnchor, Verdict, root, round, score, verify};
use perturb_types::{Digest, Hotkey, RoundId};
use proptest::prelude::*;
use support::{CHALLENGE, World};

/// One bundle of every kind, and from either kind of beginning.
fn bundles(w: &World) -> Vec<(&'static str, Vec<u8>)> {
    let trusted = TrustAnchor::Header { network: w.id(), height: 3, digest: w.digest(3) };
    let id = RoundId { validator: w.hotkeys[4].hotkey(), challenge: CHALLENGE, seq: 1 };
    let present = score::run(&w.anchor(), &w.nodes(), 1, CHALLENGE, &w.miner(0)).1;
    let absent = score::run(&trusted, &w.nodes(), 1, perturb_types::ChallengeId(9), &w.miner(0)).1;
    let all = [
        ("root", root::run(&trusted, &w.nodes(), None).1),
        ("score", present),
        ("absence", absent),
        ("round", round::run(&trusted, &w.nodes(), &id).1),
    ];
    all.into_iter().map(|(name, bundle)| (name, bundle.unwrap().to_bytes())).collect()
}

fn known(w: &World) -> Known {
    Known { network: Some(w.id()), point: Some((3, w.digest(3))) }
}

#[test]
fn a_flipped_lost_or_added_byte_is_caught() {
    let w = World::epochs();
    for (name, bytes) in bundles(&w) {
        let known = known(&w);
        assert_eq!(verify::run(name, &bytes, &known).verdict, Verdict::Ok);
        for at in 0..bytes.len() {
            for mask in [1 << (at % 8), 0xff] {
                let mut bad = bytes.clone();
                bad[at] ^= mask;
                let report = verify::run(name, &bad, &known);
                assert_eq!(report.verdict, Verdict::Invalid, "{name}, byte {at}: {report}");
            }
        }
        for length in 0..bytes.len() {
            assert_eq!(verify::run(name, &bytes[..length], &known).verdict, Verdict::Invalid, "{name} cut at {length}");
        }
        for extra in [0u8, 1, 0xff] {
            let surplus = [bytes.as_slice(), &[extra]].concat();
            assert_eq!(verify::run(name, &surplus, &known).verdict, Verdict::Invalid);
        }
    }
}

/// The bytes with a checksum that fits whatever was changed.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = bytes.len() - 32;
    bytes.truncate(content);
    let checksum = Digest::of(&bytes);
    bytes.extend_from_slice(&checksum.0);
    bytes
}

/// Verifies; returns whom a claim about a miner is about.
fn passes(bytes: &[u8], known: &Known) -> Option<Option<Hotkey>> {
    let bundle = Bundle::from_bytes(bytes).ok()?;
    let (history, finding) = bundle.verify().ok()?;
    bundle.rests_on(known, &history).ok()?;
    Some(match finding {
        Finding::Score { miner, .. } => Some(miner),
        Finding::Root(_) | Finding::Round(_) => None,
    })
}

#[test]
fn a_liar_with_a_new_checksum_changes_nothing_but_the_question() {
    let w = World::epochs();
    let (known, asked) = (known(&w), w.miner(0));
    for (name, bytes) in bundles(&w) {
        let check = |at: usize| {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            // Another miner is another question, and the answer to it is true.
            if let Some(subject) = passes(&resealed(bad), &known) {
                assert!(subject.is_some_and(|miner| miner != asked), "{name}: byte {at} is bound by nothing");
            }
        };
        let (body, middle) = (bytes.len() - 32, bytes.len() / 2);
        thread::scope(|s| {
            s.spawn(|| (0..middle).for_each(check));
            s.spawn(|| (middle..body).for_each(check));
        });
    }
}

proptest! {
    #[test]
    fn nothing_in_a_file_makes_the_auditor_panic(
        body in prop::collection::vec(any::<u8>(), 0..400),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let head = [MAGIC.as_slice(), &[1, 0]].concat();
        let noise = resealed([head, body, vec![0; 32]].concat());
        prop_assert!(Bundle::from_bytes(&noise).is_err());
        let pinned = hex::decode(include_str!("../../fixtures/round-bundle.hex").trim()).unwrap();
        let mut bad = pinned.clone();
        for (at, byte) in cuts {
            bad[at.index(pinned.len())] = byte;
        }
        let same = bad == pinned;
        prop_assert_eq!(Bundle::from_bytes(&bad).is_ok(), same);
        bad.truncate(16 + keep.index(bad.len()));
        if let Ok(bundle) = Bundle::from_bytes(&resealed([bad, vec![0; 32]].concat())) {
            let _either = bundle.verify();
        }
    }
}

#[test]
fn surplus_handovers_and_other_beginnings_are_refused() {
    let w = World::epochs();
    let bundle = |height| root::run(&w.anchor(), &w.nodes(), Some(height)).1.unwrap();
    let mut surplus = bundle(5);
    surplus.handovers = bundle(12).handovers;
    assert!(surplus.verify().unwrap_err().to_string().contains("beyond the claim"));
    let mut short = bundle(12);
    short.handovers.pop();
    assert_eq!(short.verify().unwrap_err().verdict(), Verdict::Untrusted);

    let trusted = TrustAnchor::Header { network: w.id(), height: 3, digest: w.digest(3) };
    let bytes = root::run(&trusted, &w.nodes(), Some(5)).1.unwrap().to_bytes();
    for point in [None, Some((3, Digest([1; 32]))), Some((4, w.digest(3)))] {
        let report = verify::run("b", &bytes, &Known { network: Some(w.id()), point });
        assert_eq!(report.verdict, Verdict::Untrusted, "{report}");
        assert!(report.to_string().contains("--trust"));
    }
    let other = World::new();
    assert_eq!(verify::run("b", &bytes, &Known { network: Some(other.id()), point: None }).verdict, Verdict::Untrusted);
}

#[test]
fn the_beginning_of_a_file_is_as_written_down() {
    let w = World::epochs();
    let bytes = root::run(&w.anchor(), &w.nodes(), Some(2)).1.unwrap().to_bytes();
    assert_eq!(&bytes[..14], MAGIC);
    assert_eq!(bytes[14..16], [1, 0], "version");
    assert_eq!(bytes[16..48], w.id().0, "network");
    assert_eq!(bytes[48], 0, "begins with the genesis");
    let checksum = Digest::of(&bytes[..bytes.len() - 32]);
    assert_eq!(bytes[bytes.len() - 32..], checksum.0);
}
