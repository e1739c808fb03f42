//! The pinned bundles of `fixtures/`, verified by the program and, independently of it, by the rules
//! of PROTOCOLS.md alone: bytes, SHA-256 and ed25519.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::PathBuf;

use perturb_audit::bundle::{Bundle, Known};
use perturb_audit::{TrustAnchor, Verdict, round, score, verify};
use perturb_types::keys::verify_ed25519;
use perturb_types::{ChallengeId, ConsensusKey, Digest, NetworkId, RoundId};
use support::{CHALLENGE, World};

const DOCUMENT: &str = include_str!("../../PROTOCOLS.md");

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(format!("{name}.hex"))
}

fn fixture(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("fixtures/{name}.hex: {e}"));
    hex::decode(text.trim()).unwrap()
}

/// The digits that the document gives after a word, in its last section.
fn stated(after: &str) -> [u8; 32] {
    let (_, tail) = DOCUMENT.rsplit_once("Examples, all of").unwrap();
    let (_, rest) = tail.split_once(after).unwrap();
    hex::decode(&rest[..64]).unwrap().try_into().unwrap()
}

fn network() -> NetworkId {
    NetworkId(stated("network `"))
}

/// Makes the files anew where they are missing: signatures differ each time, so they stay as they are.
#[test]
fn the_pinned_bundles_verify_as_long_as_the_format_lasts() {
    if std::env::var_os("UPDATE_FIXTURES").is_some() && !path("score-bundle").exists() {
        let w = World::epochs();
        let trusted = TrustAnchor::Header { network: w.id(), height: 3, digest: w.digest(3) };
        let id = RoundId { validator: w.hotkeys[4].hotkey(), challenge: CHALLENGE, seq: 1 };
        for (name, bundle) in [
            ("score-bundle", score::run(&w.anchor(), &w.nodes(), 1, CHALLENGE, &w.miner(0)).1),
            ("absence-bundle", score::run(&trusted, &w.nodes(), 1, ChallengeId(9), &w.miner(0)).1),
            ("round-bundle", round::run(&trusted, &w.nodes(), &id).1),
        ] {
            std::fs::write(path(name), hex::encode(bundle.unwrap().to_bytes()) + "\n").unwrap();
        }
        panic!("made anew: the document has to name network `{}` and digest `{}`", w.id(), w.digest(3));
    }
    let known = Known { network: Some(network()), point: Some((3, Digest(stated("digest `")))) };
    for (name, shown) in [
        ("score-bundle", "weight 65535 of 65535"),
        ("absence-bundle", "no record of challenge 9"),
        ("round-bundle", "closed in block 6"),
    ] {
        let bytes = fixture(name);
        let report = verify::run(name, &bytes, &known);
        assert_eq!(report.verdict, Verdict::Ok, "{report}");
        assert!(report.to_string().contains(shown), "{report}");
        assert_eq!(Bundle::from_bytes(&bytes).unwrap().to_bytes(), bytes, "one value, one byte string");
    }
}

#[test]
fn the_questions_and_limits_are_those_of_the_code() {
    use perturb_ledger::serve;
    let (_, section) = DOCUMENT.split_once("\n### Questions\n").unwrap();
    let section = section.split("\n### ").next().unwrap();
    let stated: Vec<&str> = section.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(stated, serve::METHODS);
    for (text, value) in [
        (format!("At most {} MiB", serve::MAX_ANSWER_BYTES >> 20), "the largest answer"),
        (format!("the next {} at most", serve::MAX_HANDOVERS), "handovers"),
        (format!("1 to {} keys in hex ({} bytes each", serve::MAX_PROOF_KEYS, serve::MAX_KEY_BYTES), "keys"),
        (format!("about {} MiB |", serve::MAX_PAGE_BYTES >> 20), "rows"),
    ] {
        assert!(section.contains(&text), "{value}: `{text}` is not in the document");
    }
    assert!(DOCUMENT.contains(&format!("At most {} MiB.\n- Start", perturb_audit::bundle::MAX_BYTES >> 20)));
    assert!(DOCUMENT.contains(&format!("records of the last {} closed epochs", perturb_ledger::epoch::KEPT_RECORDS)));
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }
    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }
    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
    fn bytes(&mut self) -> &'a [u8] {
        let n = self.u32() as usize;
        self.take(n)
    }
    /// The bytes that `read` goes over.
    fn span(&mut self, read: impl FnOnce(&mut Self)) -> &'a [u8] {
        let all = self.0;
        read(self);
        &all[..all.len() - self.0.len()]
    }
}

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    Digest::of(&parts.concat()).0
}

fn agreed(tag: &str, network: &[u8; 32], payload: &[u8]) -> [u8; 32] {
    sha(&[&[tag.len() as u8], tag.as_bytes(), network, payload])
}

/// A set: its members' hotkeys, keys and powers, and its hash.
struct Set {
    members: Vec<([u8; 32], [u8; 32], u64)>,
    hash: [u8; 32],
}

fn set_of(network: &[u8; 32], mut members: Vec<([u8; 32], [u8; 32], u64)>) -> Set {
    members.sort_by_key(|m| m.1);
    let mut bytes = (members.len() as u32).to_le_bytes().to_vec();
    for (hotkey, key, power) in &members {
        bytes.extend([hotkey.as_slice(), key, &power.to_le_bytes()].concat());
    }
    Set { hash: agreed("perturb/validator-set/1", network, &bytes), members }
}

fn read_set(r: &mut Reader<'_>, network: &[u8; 32]) -> Set {
    let n = r.u32();
    set_of(network, (0..n).map(|_| (r.array(), r.array(), r.u64())).collect())
}

struct Header {
    height: u64,
    digest: [u8; 32],
    state_root: [u8; 32],
    validators: [u8; 32],
    next: [u8; 32],
    epoch: u64,
}

fn read_header(r: &mut Reader<'_>, network: &[u8; 32]) -> Header {
    let mut h =
        Header { height: 0, digest: [0; 32], state_root: [0; 32], validators: [0; 32], next: [0; 32], epoch: 0 };
    let bytes = r.span(|r| {
        assert_eq!(r.u32(), 1, "protocol");
        assert_eq!(r.array::<32>(), *network);
        h.height = r.u64();
        r.take(32 + 32 + 8 + 32 + 32 + 4);
        h.state_root = r.array();
        r.take(32);
        (h.validators, h.next, h.epoch) = (r.array(), r.array(), r.u64());
        r.take(8 + 32 + 8);
    });
    h.digest = agreed("perturb/header/1", network, bytes);
    h
}

fn check_certificate(r: &mut Reader<'_>, network: &[u8; 32], header: &Header, set: &Set) {
    assert_eq!(header.validators, set.hash);
    let (height, round, digest): (u64, u32, [u8; 32]) = (r.u64(), r.u32(), r.array());
    assert_eq!((height, digest), (header.height, header.digest));
    let tag = b"perturb/vote/1";
    let vote = [&[2], height.to_le_bytes().as_slice(), &round.to_le_bytes(), &[1], &digest].concat();
    let signed = [&[tag.len() as u8], tag.as_slice(), network, &vote].concat();
    let (mut power, mut last) = (0, None);
    for _ in 0..r.u32() {
        let (key, signature): ([u8; 32], [u8; 64]) = (r.array(), r.array());
        assert!(last < Some(key), "by rising key");
        last = Some(key);
        assert!(verify_ed25519(&ConsensusKey(key), &signed, &signature));
        power += set.members.iter().find(|m| m.1 == key).unwrap().2;
    }
    assert!(power * 3 > set.members.iter().map(|m| m.2).sum::<u64>() * 2);
}

/// Goes over a genesis; returns the founders' set.
fn read_genesis(r: &mut Reader<'_>, network: &[u8; 32]) -> Set {
    let mut founders = Vec::new();
    let bytes = r.span(|r| {
        r.take(32 + 2 + 8);
        r.take(8 + 32 + 8 + 2 + 2 + 2 + 8 + 1 + 1);
        for _ in 0..r.u32() {
            r.take(2 + 32 + 32 + 8 + 1);
        }
        for _ in 0..r.u32() {
            founders.push((r.array(), r.array(), 1));
            r.take(32);
            for _ in 0..3 {
                r.bytes();
            }
        }
        r.take(32);
        for _ in 0..r.u32() {
            r.take(2 + 1);
            r.take(1 + 7 * 4 + 1 + 9 * 4 + 1 + 4);
            match r.u8() {
                0 => drop(r.take(4 * 5 + 4)),
                other => panic!("emission {other}"),
            }
            assert_eq!(r.u8(), 0, "weights by emission");
            r.take(4 + 1 + 2 + 1 + 2);
            r.bytes();
            r.take(32);
            r.bytes();
            r.take(32 + 8 + 4 + 2);
            assert_eq!(r.u8(), 0, "aggregation by quantiles");
            r.take(4);
        }
        r.take(8);
        assert_eq!(r.u8(), 0, "equal power");
        r.take(4 * 4 + 8 + 2 + 6 * 4);
        r.take(4 + 8 + 4);
        r.take(1 + 6 * 4);
        r.take(4 + 4 + 4);
        r.take(4 + 4 + 8);
        r.take(96 + 8 + 8);
    });
    assert_eq!(agreed("perturb/genesis/1", &[0; 32], bytes), *network);
    set_of(network, founders)
}

/// A row of the state, or that there is none.
fn read_proof<'a>(r: &mut Reader<'a>, key: &[u8], root: &[u8; 32]) -> Option<&'a [u8]> {
    assert_eq!(r.bytes(), key);
    let at = sha(&[key]);
    let bit = |hash: &[u8; 32], i: usize| hash[i / 8] >> (7 - i % 8) & 1;
    let node = |key: &[u8; 32], row: &[u8; 32]| sha(&[b"JMT::LeafNode", key, row]);
    let inner = |left: &[u8; 32], right: &[u8; 32]| sha(&[b"JMT::IntrnalNode", left, right]);
    let row = (r.u8() == 1).then(|| r.bytes());
    let leaf: Option<([u8; 32], [u8; 32])> = (r.u8() == 1).then(|| (r.array(), r.array()));
    let n = r.u32() as usize;
    match (row, leaf) {
        (Some(row), Some(leaf)) => assert_eq!(leaf, (at, sha(&[row]))),
        (None, Some((other, _))) => assert!(other != at && (0..n).all(|i| bit(&other, i) == bit(&at, i))),
        (None, None) => {}
        (Some(_), None) => panic!("a row without a leaf"),
    }
    let empty = *b"SPARSE_MERKLE_PLACEHOLDER_HASH__";
    let mut hash = leaf.map_or(empty, |(key, row)| node(&key, &row));
    for i in 0..n {
        let sibling = match r.u8() {
            0 => empty,
            1 => inner(&r.array(), &r.array()),
            2 => node(&r.array(), &r.array()),
            other => panic!("sibling {other}"),
        };
        hash = if bit(&at, n - 1 - i) == 1 { inner(&sibling, &hash) } else { inner(&hash, &sibling) };
    }
    assert_eq!(hash, *root);
    row
}

/// From the file's first byte to the row of the record: epoch, challenge, miner, epoch in the making.
fn by_hand(file: &[u8]) -> (u64, u16, [u8; 32], Option<&[u8]>) {
    let (content, checksum) = file.split_at(file.len() - 32);
    assert_eq!(sha(&[content]), checksum);
    let mut r = Reader(content);
    assert_eq!((r.take(14), r.u16()), (b"perturb-bundle".as_slice(), 1));
    let network: [u8; 32] = r.array();
    assert_eq!(network, self::network().0);
    let (mut set, mut above) = match r.u8() {
        0 => (read_genesis(&mut r, &network), 0),
        1 => {
            let header = read_header(&mut r, &network);
            assert_eq!((header.height, header.digest), (3, stated("digest `")));
            let set = read_set(&mut r, &network);
            assert_eq!(set.hash, header.next);
            (set, header.height)
        }
        other => panic!("start {other}"),
    };
    for _ in 0..r.u32() {
        let header = read_header(&mut r, &network);
        assert!(header.height > above);
        check_certificate(&mut r, &network, &header, &set);
        set = read_set(&mut r, &network);
        assert_eq!(set.hash, header.next);
        above = header.height;
    }
    assert_eq!(r.u8(), 1, "a score");
    let header = read_header(&mut r, &network);
    assert!(header.height > above);
    check_certificate(&mut r, &network, &header, &set);
    let (epoch, challenge, miner) = (r.u64(), r.u16(), r.array());
    assert!(epoch < header.epoch && header.epoch - epoch <= 1000);
    let key = [b"epoch/".as_slice(), &epoch.to_be_bytes(), b"/", &challenge.to_be_bytes()].concat();
    let row = read_proof(&mut r, &key, &header.state_root);
    assert!(r.0.is_empty());
    (epoch, challenge, miner, row)
}

#[test]
fn the_pinned_score_is_verified_by_the_written_rules_alone() {
    let file = fixture("score-bundle");
    let (epoch, challenge, miner, row) = by_hand(&file);
    assert_eq!((epoch, challenge), (1, 0));
    let mut r = Reader(row.unwrap());
    assert_eq!((r.u64(), r.u64(), r.u8()), (1, 7, 0), "epoch, closing height, mechanism");
    r.take(8 + 8 + 8);
    let mut share = None;
    for _ in 0..r.u32() {
        let hotkey: [u8; 32] = r.array();
        r.take(2 + 8);
        for _ in 0..r.u32() {
            r.take(32 + 8 + 4);
        }
        if r.u8() == 1 {
            r.take(4 + 4 + 4);
            let outliers = r.u32() as usize;
            r.take(32 * outliers);
        }
        let part = r.u64();
        if r.u8() == 1 {
            r.take(8);
        }
        if hotkey == miner {
            share = Some(part);
        }
    }
    assert!(share.is_some_and(|part| part > 700_000_000_000), "rank 1 of two earners: {share:?}");
    let mut weights = Vec::new();
    for _ in 0..r.u32() {
        let uid = r.u16();
        let hotkey: Option<[u8; 32]> = (r.u8() == 1).then(|| r.array());
        weights.push((uid, hotkey, r.u16()));
    }
    // Five members, of whom one has lost a twentieth.
    assert_eq!(u128::from_le_bytes(r.array()), 4_950_000);
    let outliers = r.u32() as usize;
    r.take((32 + 4 + 4) * outliers);
    assert!(r.0.is_empty());
    assert_eq!(weights.iter().find(|w| w.1 == Some(miner)).map(|w| w.2), Some(65_535));
}

#[test]
fn the_pinned_absence_is_verified_by_the_written_rules_alone() {
    let file = fixture("absence-bundle");
    let (epoch, challenge, _, row) = by_hand(&file);
    assert_eq!((epoch, challenge, row), (1, 9, None));
}
