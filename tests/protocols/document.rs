//! The document against the code.

use std::collections::BTreeSet;

use perturb_ledger::snapshot::{self, Chunk, ChunkInfo, Manifest, Part, PartInfo};
use perturb_p2p::{Decline, Protocol, Role, Topic, handshake};
use perturb_types::encode::{self, Domain};
use perturb_types::{Digest, Reason};

use crate::fixtures;

const DOCUMENT: &str = include_str!("../../PROTOCOLS.md");

/// The part under a heading, up to the next of the same or a higher level.
fn section(heading: &str) -> &'static str {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let start = DOCUMENT.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let body = &DOCUMENT[start + heading.len() + 2..];
    let ends = |line: &str| line.starts_with('#') && line.chars().take_while(|c| *c == '#').count() <= level;
    let mut fenced = false;
    let mut at = 0;
    for line in body.split_inclusive('\n') {
        fenced ^= line.starts_with("```");
        if !fenced && ends(line) {
            break;
        }
        at += line.len();
    }
    &body[..at]
}

/// The cells of the rows of all tables in a text, without their heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let cells =
        |line: &'static str| -> Vec<&'static str> { line.trim_matches('|').split('|').map(str::trim).collect() };
    let text: &'static str = &DOCUMENT[text.as_ptr() as usize - DOCUMENT.as_ptr() as usize..][..text.len()];
    let lines: Vec<&str> = text.lines().collect();
    let is_row = |line: &&str| line.starts_with('|');
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let head = lines.get(i + 1).is_some_and(|next| next.starts_with("|---"));
        if is_row(line) && !head && !line.starts_with("|---") {
            out.push(cells(line));
        }
    }
    out
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `4 MiB + 32 KiB (a digest)` in bytes.
fn bytes(text: &str) -> usize {
    let text = text.split('(').next().unwrap();
    text.split('+')
        .map(|part| match part.split_whitespace().collect::<Vec<_>>()[..] {
            [n, "MiB"] => n.parse::<usize>().unwrap() << 20,
            [n, "KiB"] => n.parse::<usize>().unwrap() << 10,
            [n, "bytes"] => n.parse().unwrap(),
            _ => panic!("`{part}` is no size"),
        })
        .sum()
}

#[test]
fn the_domains_are_all_of_them() {
    let stated: BTreeSet<&str> =
        rows(section("## Conventions")).iter().flat_map(|row| quoted(row[0]).collect::<Vec<_>>()).collect();
    let used: BTreeSet<&str> = Domain::ALL.into_iter().map(Domain::tag).collect();
    assert_eq!(stated, used);
}

#[test]
fn the_protocols_their_limits_and_rates_are_those_of_the_code() {
    let table = rows(section("## Transport"));
    let stated: Vec<_> = table.iter().filter(|row| row[0].starts_with("`/perturb/")).collect();
    assert_eq!(stated.len(), Protocol::ALL.len());
    for protocol in Protocol::ALL {
        let id = format!("`{}`", protocol.id());
        let row = stated.iter().find(|row| row[0] == id).unwrap_or_else(|| panic!("{id} is missing"));
        assert_eq!(bytes(row[2]), protocol.max_request_bytes(), "request of {id}");
        assert_eq!(bytes(row[3]), protocol.max_response_bytes(), "response of {id}");
        let (rate, burst) = protocol.rate();
        assert_eq!(row[4], format!("{rate} ({burst})"), "rate of {id}");
    }
}

#[test]
fn the_network_carries_what_consensus_sends() {
    use perturb_consensus::wire;
    assert!(wire::MAX_REQUEST_BYTES <= Protocol::Sync.max_request_bytes());
    assert!(wire::MAX_RESPONSE_BYTES <= Protocol::Sync.max_response_bytes());
    assert!(snapshot::MAX_REQUEST_BYTES <= Protocol::Snapshot.max_request_bytes());
    for bytes in [snapshot::MAX_MANIFEST_BYTES, snapshot::MAX_PART_BYTES, snapshot::MAX_BLOCK_PART_BYTES] {
        assert!(bytes <= Protocol::Snapshot.max_response_bytes());
    }
}

#[test]
fn the_status_bytes_are_those_of_the_code() {
    let table = rows(section("## Transport"));
    let stated: Vec<_> = table.iter().filter(|row| row[0].parse::<u8>().is_ok()).collect();
    for (status, row) in (0u8..).zip(&stated) {
        assert_eq!(row[0], status.to_string());
        let known = Decline::from_status(status);
        assert_eq!(known.is_none(), row[1] == "success");
        assert_ne!(known, Some(Decline::Unknown), "the document names a status that the code does not know");
    }
    assert_eq!(Decline::from_status(stated.len() as u8), Some(Decline::Unknown), "the code knows one more");
}

#[test]
fn the_handshake_is_that_of_the_code() {
    let text = section("### Handshake");
    assert!(text.contains(&format!("at most {} bytes", handshake::MAX_MESSAGE_BYTES)));
    assert!(text.contains(&format!("version u16 = {}", handshake::VERSION)));
    for (code, role) in [(0u8, "bootnode"), (1, "validator"), (2, "miner"), (3, "observer")] {
        assert!(text.contains(&format!("{code} {role}")));
        let read: Role = borsh::from_slice(&[code]).unwrap();
        assert_eq!(format!("{read:?}").to_lowercase(), role);
    }
    assert!(borsh::from_slice::<Role>(&[4]).is_err());
}

#[test]
fn the_reasons_are_all_of_them() {
    let line = section("## Rounds").lines().find(|l| l.starts_with("Reasons: ")).unwrap();
    let stated: Vec<String> =
        line.trim_start_matches("Reasons: ").trim_end_matches('.').split(", ").map(str::to_owned).collect();
    let known = (0u8..).map_while(|code| borsh::from_slice::<Reason>(&[code]).ok().map(|r| format!("{code} {r}")));
    assert_eq!(stated, known.collect::<Vec<_>>());
}

#[test]
fn the_topics_are_all_of_them() {
    let table = rows(section("## Gossip"));
    let stated: BTreeSet<&str> = table.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(stated, Topic::ALL.into_iter().map(Topic::label).collect());
}

#[test]
fn the_rpc_methods_are_all_of_them() {
    let source = include_str!("../../node/src/validator/rpc.rs");
    let methods: BTreeSet<&str> =
        source.split('"').filter(|word| word.starts_with("perturb_") || *word == "rpc_methods").collect();
    let stated: BTreeSet<&str> = quoted(section("## JSON-RPC"))
        .map(|word| word.split('(').next().unwrap())
        .filter(|word| word.starts_with("perturb_") || word.starts_with("rpc_"))
        .collect();
    assert_eq!(stated, methods);
}

/// The bytes of an example: per line hex, or `xx×n` for repeated bytes; `;` begins a remark.
fn example(text: &str) -> Vec<u8> {
    let word = |word: &str| match word.split_once('×') {
        Some((byte, count)) => hex::decode(byte).unwrap().repeat(count.parse().unwrap()),
        None => hex::decode(word).unwrap_or_else(|e| panic!("`{word}`: {e}")),
    };
    text.lines().flat_map(|line| line.split(';').next().unwrap().split_whitespace()).flat_map(word).collect()
}

#[test]
fn the_examples_are_the_fixtures() {
    let mut shown = BTreeSet::new();
    for block in DOCUMENT.split("\n```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let text = rest.split("\n```").next().unwrap();
        assert_eq!(hex::encode(example(text)), hex::encode(super::fixtures::read(name)), "the example of {name}");
        shown.insert(name);
    }
    assert!(shown.len() >= 8, "only {shown:?}");
}

#[test]
fn every_fixture_is_named() {
    for entry in std::fs::read_dir(super::fixtures::path("x").parent().unwrap()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".hex").unwrap_or_else(|| panic!("{file} is no fixture"));
        assert!(
            DOCUMENT.contains(&format!("`{name}`")) || DOCUMENT.contains(&format!("```hex {name}\n")),
            "PROTOCOLS.md does not name fixtures/{file}"
        );
    }
}

#[test]
fn snapshots_have_the_limits_that_are_stated() {
    let text = section("## Snapshots");
    let stated: Vec<usize> = rows(text).iter().map(|row| bytes(row[2])).collect();
    let most = [
        snapshot::MAX_MANIFEST_BYTES,
        snapshot::MAX_PART_BYTES,
        snapshot::MAX_BLOCK_PART_BYTES,
        snapshot::MAX_PART_BYTES,
    ];
    assert_eq!(stated, most);
    assert_eq!([snapshot::MAX_HANDOVER_PARTS, snapshot::MAX_CHUNKS, snapshot::CHUNK_BYTES], [16_384, 16_384, 1 << 20]);
    for words in [
        format!("format u32 = {}", snapshot::FORMAT),
        format!("1 to {} rows", snapshot::CHUNK_ROWS),
        format!("1 to {} in a part", snapshot::HANDOVERS_PER_PART),
        "At most 16 384 parts of handovers and as many chunks".into(),
        "after 1 MiB of keys and rows".into(),
    ] {
        assert!(text.contains(&words), "{words}");
    }
    for (part, name) in
        [(Part::Handovers(0), "handovers-00000"), (Part::Block, "block"), (Part::Chunk(0), "chunk-00000")]
    {
        assert!(part.to_string() == name && text.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn a_manifest_and_a_chunk_have_the_bytes_that_are_stated() {
    let n = |number: u32| number.to_le_bytes().to_vec();
    let part = |count: u32, length: u32, digest: u8| [n(count), n(length), vec![digest; 32]].concat();
    let chunk = [vec![8; 32], vec![9; 32], part(10, 11, 12)].concat();
    let (header, certificate) = (fixtures::read("header"), fixtures::read("certificate"));
    let bytes = [n(1), header, certificate, part(2, 3, 4), n(1), part(5, 6, 7), n(1), chunk].concat();
    let manifest: Manifest = borsh::from_slice(&bytes).unwrap();
    let digest = |byte: u8| Digest([byte; 32]);
    assert_eq!(manifest.format, 1);
    assert_eq!(manifest.block, PartInfo { count: 2, bytes: 3, digest: digest(4) });
    assert_eq!(manifest.handovers, [PartInfo { count: 5, bytes: 6, digest: digest(7) }]);
    let chunk = ChunkInfo { first: digest(8), last: digest(9), rows: 10, bytes: 11, digest: digest(12) };
    assert_eq!(manifest.chunks, [chunk]);

    let row = [n(3), b"key".to_vec(), n(5), b"value".to_vec()].concat();
    let siblings = [n(3), vec![0], vec![1], vec![5; 64], vec![2], vec![6; 64]].concat();
    let bytes = [7u64.to_le_bytes().to_vec(), n(3), n(1), row, siblings].concat();
    let chunk: Chunk = borsh::from_slice(&bytes).unwrap();
    assert_eq!((chunk.height, chunk.index), (7, 3));
    assert_eq!(chunk.rows, [(b"key".to_vec(), b"value".to_vec())]);
    assert_eq!(encode::encode(&chunk), bytes);
}
