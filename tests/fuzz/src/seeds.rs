//! Valid inputs of each target: from the world, and from `fixtures/`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use perturb_audit::bundle::{Bundle, Claim};
use perturb_audit::history::{History, Start};
use perturb_challenge::Rules;
use perturb_consensus::record::{Record, Wait};
use perturb_consensus::wire::{Beacon, Gossip, Peer, Polka, Response, RoundEntry, SignedProposal, SignedVote};
use perturb_ledger::anchor::LABEL_BYTES;
use perturb_ledger::merkle;
use perturb_ledger::proofs::StateProof;
use perturb_ledger::snapshot::{self, BlockPart, ChunkLimits, Chunks, Manifest, PartInfo, handover_parts};
use perturb_ledger::state::{META, SET};
use perturb_ledger::{Handover, Inclusion, Pulse, ReceiptProof, StateStore, Transaction, VoteKind};
use perturb_p2p::{Decline, Protocol, Role, frames, handshake};
use perturb_types::{Digest, RoundResult, Signed, encode};

use crate::targets::light::ANCHORING;
use crate::targets::png;
use crate::world::{CHALLENGE, World, world};

/// The folder of this crate.
pub fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The bytes of an example in `fixtures/`.
fn fixture(name: &str) -> Vec<u8> {
    let path = home().join("../../fixtures").join(format!("{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    hex::decode(text.trim()).unwrap()
}

/// Rows of each shard.
pub const SHARD_ROWS: u64 = 7;

/// One PNG, and the JPEGs by which a decoder is known.
fn pictures() -> Vec<Vec<u8>> {
    let probes = home().join("../../challenge/src/source/probes");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&probes).unwrap().map(|e| e.unwrap().path()).collect();
    // Two are of the kinds that are refused.
    paths.retain(|p| !p.ends_with("cmyk.jpg") && !p.ends_with("420-scans.jpg"));
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).unwrap()).chain([png::clean().encode_png().unwrap()]).collect()
}

/// A shard as the hub's writer makes them, with so many rows in a group.
fn shard(per_group: usize) -> Vec<u8> {
    const FEATURES: &str = r#"{"info": {"features": {"image": {"_type": "Image"},
        "label": {"names": ["bonnet, poke bonnet", "green mamba"], "_type": "ClassLabel"}}}}"#;
    const SCHEMA: &str = "message schema {
        optional group image { optional binary bytes; optional binary path (STRING); } optional int64 label;
    }";
    let about = vec![KeyValue::new("huggingface".to_owned(), FEATURES.to_owned())];
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(about))
        .set_created_by(String::new())
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let rows: Vec<Vec<u8>> = pictures().into_iter().rev().take(SHARD_ROWS as usize).collect();
    for rows in rows.chunks(per_group) {
        let mut group = writer.next_row_group().unwrap();
        let images: Vec<ByteArray> = rows.iter().cloned().map(ByteArray::from).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&vec![2; rows.len()]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        let labels: Vec<i64> = (0..rows.len()).map(|i| i as i64 % 2).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

/// What was found before: the files in `corpus/<target>/`.
pub fn found(target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(files) = std::fs::read_dir(home().join("corpus").join(target)) else { return Vec::new() };
    let mut all: Vec<_> = files
        .filter_map(|f| f.ok().filter(|f| f.path().is_file()))
        .map(|f| (f.file_name().to_string_lossy().into_owned(), std::fs::read(f.path()).unwrap()))
        .collect();
    all.sort();
    all
}

/// Valid inputs of a target; the same in every run.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let w = world();
    match target {
        "envelope" => envelopes(w),
        "transaction" => {
            let pinned = ["transaction", "check-verdict", "pulse"].map(fixture);
            transactions(w).iter().map(encode::encode).chain(pinned).collect()
        }
        "block" => w.blocks.iter().map(|(b, _)| encode::encode(b)).collect(),
        "header" => w.blocks.iter().map(|(b, _)| encode::encode(&b.header)).chain([fixture("header")]).collect(),
        "certificate" => w.blocks.iter().map(|(_, c)| encode::encode(c)).chain([fixture("certificate")]).collect(),
        "set" => {
            let sets = [0, 3, 5].map(|h| encode::encode(w.ledger(h).validators()));
            sets.into_iter().chain([fixture("validator-set")]).collect()
        }
        "pulse" => pulses(),
        "state_proof" => state_proofs(w).iter().map(encode::encode).collect(),
        "receipt_proof" => receipt_proofs(w).chain([fixture("receipt-proof")]).collect(),
        "leaf_proof" => leaf_proofs(w),
        "inclusion" => inclusions(w).iter().map(encode::encode).collect(),
        "handover" => [3, 5].map(|height| encode::encode(&handover(w, height))).to_vec(),
        "bundle" => bundles(w),
        "snapshot" => snapshots(w),
        "anchor" => anchors(),
        "gossip" => gossip().iter().map(encode::encode).chain(["vote", "proposal"].map(fixture)).collect(),
        "sync" => syncs(w),
        "beacon" => beacons().iter().map(|b| encode::encode(b.envelope())).chain([fixture("beacon")]).collect(),
        "log_record" => records(w),
        "miner_request" => ["challenge", "fetch", "offer", "handovers"].map(fixture).to_vec(),
        "miner_response" => ["announce", "declined", "image", "need", "ready"].map(fixture).to_vec(),
        "png" => pngs(),
        "verdict" => verdicts(w),
        "picture" => pictures(),
        "shard" => [1, 3, 7].map(shard).to_vec(),
        "handshake" => handshakes(w),
        "frame" => frames_of(),
        "genesis" => vec![serde_json::to_vec(&w.genesis).unwrap(), serde_json::to_vec_pretty(&w.genesis).unwrap()],
        "rpc" => rpcs(w),
        "rpc_answer" => rpcs(w).iter().filter_map(|request| answer(w, request)).collect(),
        "mempool" => (0..6).map(|kind| vec![kind, 255, kind, 200, 5, 3]).collect(),
        // Scripts: any bytes are one.
        _ => (0..4u8)
            .map(|n| (0..400u32).map(|i| (Digest::of(&[n, (i / 32) as u8]).0[i as usize % 32]) >> 1).collect())
            .collect(),
    }
}

/// An anchor, the commitment that holds it, and the extrinsics that made both kinds.
fn anchors() -> Vec<Vec<u8>> {
    let anchor = fixture("anchor");
    let (label, digests) = anchor.split_at(LABEL_BYTES);
    let (root, certificate) = digests.split_at(32);
    let fields = [&[12, 58], label, &[131], root, &[131], certificate].concat();
    let extrinsic = |call: &[&[u8]]| {
        let body = [&[0x84, 0], &ANCHORING.0[..], &[1], &[0; 64], &[0xf5, 3, 4, 0, 0], &call.concat()].concat();
        [&((body.len() as u16) << 2 | 1).to_le_bytes()[..], &body].concat()
    };
    let made = [extrinsic(&[&[0, 7, 0xe5, 1], &anchor]), extrinsic(&[&[18, 0, 2, 0], &fields])];
    let commitment = [&[0; 8][..], &[7, 0, 0, 0], &fields].concat();
    made.into_iter().chain([commitment, anchor]).collect()
}

/// What quicknet published, as far as the seeds have it.
pub fn published() -> Vec<Pulse> {
    let Transaction::Pulse(pulse) = Transaction::decode(&fixture("pulse")).unwrap() else { panic!("not a pulse") };
    vec![pulse]
}

/// Pulses of both beacons, and the beacons' keys.
fn pulses() -> Vec<Vec<u8>> {
    let own = [1, 2, 1000].map(|round| Pulse::of_development(round).unwrap());
    let pulses = published().into_iter().chain(own).map(|p| encode::encode(&p));
    pulses
        .chain([perturb_types::Beacon::QUICKNET, perturb_types::Beacon::DEVELOPMENT].map(|b| encode::encode(&b)))
        .collect()
}

fn transactions(w: &World) -> Vec<Transaction> {
    w.blocks.iter().flat_map(|(b, _)| b.body.transactions.clone()).collect()
}

fn envelopes(w: &World) -> Vec<Vec<u8>> {
    let of = |t: &Transaction| match t {
        Transaction::RoundOpen(e)
        | Transaction::RoundCommits(e)
        | Transaction::RoundReveal(e)
        | Transaction::RoundSkip(e)
        | Transaction::RoundResult(e)
        | Transaction::Readiness(e)
        | Transaction::CheckVerdict(e) => Some(encode::encode(e)),
        _ => None,
    };
    transactions(w)
        .iter()
        .filter_map(of)
        .chain(["round-open", "round-commits", "round-result", "beacon"].map(fixture))
        .collect()
}

fn state_proofs(w: &World) -> Vec<StateProof> {
    let keys: Vec<Vec<u8>> = w.stores[6].scan(b"").unwrap().into_iter().map(|(key, _)| key).collect();
    let some = keys.iter().step_by(3).map(Vec::as_slice).chain([META, SET, b"nothing", b""]);
    some.map(|key| StateProof::make(&w.stores[6], 6, key).unwrap()).collect()
}

fn receipt_proofs(w: &World) -> impl Iterator<Item = Vec<u8>> {
    [1, 2, 3, 5].into_iter().flat_map(move |height| {
        let receipts = w.stores[6].receipts(height).unwrap();
        let made = move |i| ReceiptProof::make(&w.network, receipts, i);
        [0, receipts.len() / 2, receipts.len() - 1].into_iter().filter_map(made).map(|p| encode::encode(&p))
    })
}

fn leaf_proofs(w: &World) -> Vec<Vec<u8>> {
    let of = |block: &perturb_ledger::Block| {
        let leaves: Vec<Digest> = block.body.transactions.iter().map(|t| t.digest(&w.network)).collect();
        (0..leaves.len())
            .filter_map(|i| Some(encode::encode(&(merkle::prove(&leaves, i)?, leaves[i]))))
            .collect::<Vec<_>>()
    };
    w.blocks[..3].iter().flat_map(|(block, _)| of(block)).collect()
}

fn inclusion(w: &World, height: usize, index: usize) -> Inclusion {
    let (block, certificate) = &w.blocks[height - 1];
    let receipts = w.stores[6].receipts(height as u64).unwrap();
    Inclusion::make(&w.network, block, certificate, receipts, index).unwrap()
}

fn inclusions(w: &World) -> Vec<Inclusion> {
    [(1, 0), (1, 4), (2, 9), (3, 5), (4, 1), (5, 4)].map(|(height, index)| inclusion(w, height, index)).to_vec()
}

/// The handover at a height where the set changes.
pub fn handover(w: &World, height: usize) -> Handover {
    let (block, certificate) = w.blocks[height - 1].clone();
    Handover { header: block.header, certificate, next: w.ledger(height).validators().clone() }
}

fn bundles(w: &World) -> Vec<Vec<u8>> {
    let header = |height: usize| (Box::new(w.blocks[height - 1].0.header.clone()), w.blocks[height - 1].1.clone());
    let genesis = Start::Genesis(Box::new(w.genesis.clone()));
    let third = Start::Header { header: header(3).0, next: w.ledger(3).validators().clone() };
    let whole = History::new(&w.network, genesis, vec![handover(w, 3), handover(w, 5)]).unwrap();
    let later = History::new(&w.network, third, vec![handover(w, 5)]).unwrap();
    let score = |height: usize, epoch: u64, miner: usize| {
        let key = perturb_ledger::state::epoch_key(epoch, CHALLENGE);
        let record = Box::new(StateProof::make(&w.stores[height], height as u64, &key).unwrap());
        let (header, certificate) = header(height);
        Claim::Score { header, certificate, epoch, challenge: CHALLENGE, miner: w.miners[miner].hotkey(), record }
    };
    let root = |height| Claim::Root { header: header(height).0, certificate: header(height).1 };
    let round = |height: usize, first: usize| {
        let [opened, bound, closed] = [0, 1, 2].map(|i| inclusion(w, height, first + i));
        let Transaction::RoundResult(e) = &closed.transaction else { panic!("not a result") };
        let round = encode::decode::<RoundResult>("result", &e.payload, 1 << 20).unwrap().round;
        let (bound, closed) = (Some(Box::new(bound)), Some(Box::new(closed)));
        Claim::Round { round, opened: Box::new(opened), bound, closed }
    };
    let all = [
        Bundle::new(&whole, root(6)),
        Bundle::new(&later, root(5)),
        Bundle::new(&whole, score(6, 0, 0)),
        Bundle::new(&later, score(6, 1, 2)),
        Bundle::new(&whole, round(1, 1)),
        Bundle::new(&later, round(4, 3)),
    ];
    let fixtures = ["score-bundle", "absence-bundle", "round-bundle"].map(fixture);
    all.iter().map(Bundle::to_bytes).chain(fixtures).collect()
}

/// Snapshots of three heights: the set changed before, with and after them; in one chunk and in several.
fn snapshots(w: &World) -> Vec<Vec<u8>> {
    let small = ChunkLimits { bytes: 1500, rows: 12 };
    let made = |(height, limits): (usize, ChunkLimits)| {
        let (store, (block, certificate)) = (&w.stores[height], w.blocks[height - 1].clone());
        let rows = store.scan(b"").unwrap();
        let (chunks, chunk_parts): (Vec<_>, Vec<_>) =
            Chunks::new(store, height as u64, rows, limits).map(Result::unwrap).unzip();
        let before: Vec<Handover> = [3, 5].into_iter().filter(|h| *h < height).map(|h| handover(w, h)).collect();
        let (handovers, mut parts): (Vec<_>, Vec<_>) = handover_parts(&before).unzip();
        let (header, receipts) = (block.header.clone(), store.receipts(height as u64).unwrap().to_vec());
        let part = encode::encode(&BlockPart { block, receipts });
        let block = PartInfo::of(header.transactions as usize, &part);
        parts.push(part);
        parts.extend(chunk_parts);
        let manifest = Manifest { format: snapshot::FORMAT, header, certificate, block, handovers, chunks };
        encode::encode(&(encode::encode(&manifest), parts))
    };
    [(2, small), (3, small), (5, ChunkLimits::default()), (6, small), (6, ChunkLimits::default())].map(made).to_vec()
}

/// Consensus messages that the world's keys signed.
pub fn gossip() -> &'static [Gossip] {
    static ALL: OnceLock<Vec<Gossip>> = OnceLock::new();
    ALL.get_or_init(|| {
        let (w, net) = (world(), &world().network);
        let digest = w.blocks[0].0.header.digest(net);
        let votes: Vec<SignedVote> = (0..4)
            .flat_map(|i| {
                let vote = move |kind, value| SignedVote::sign(&w.keys[i], net, kind, 1, 0, value);
                [vote(VoteKind::Prevote, Some(digest)), vote(VoteKind::Precommit, None)]
            })
            .collect();
        let signatures = votes.iter().filter(|v| v.digest.is_some()).map(|v| (v.voter, v.signature)).collect();
        let entries = votes.iter().filter(|v| v.digest.is_none()).map(|v| (v.step, v.digest, v.voter, v.signature));
        let entry = RoundEntry { height: 1, round: 0, precommits: true, votes: entries.collect() };
        let mut all = vec![
            Gossip::Polka(Polka { height: 1, round: 0, digest, signatures }),
            Gossip::Round(entry),
            Gossip::Proposal(SignedProposal::sign(&w.keys[1], net, 1, 0, digest, None)),
            Gossip::Proposal(SignedProposal::sign(&w.keys[2], net, 1, 2, digest, Some(0))),
        ];
        all.extend(votes.into_iter().map(Gossip::Vote));
        // The world's certificates are precommits as well, and its evidence two prevotes.
        for (_, c) in &w.blocks {
            all.extend(c.signatures.iter().map(|(voter, signature)| {
                let (voter, signature) = (*voter, *signature);
                let (height, round, digest) = (c.height, c.round, Some(c.digest));
                Gossip::Vote(SignedVote { step: VoteKind::Precommit, height, round, digest, voter, signature })
            }));
        }
        all
    })
}

/// Beacons that the world's keys signed.
pub fn beacons() -> Vec<Signed<Beacon>> {
    let w = world();
    let beacon = |i: u8| Beacon { height: u64::from(i) * 1000, peer: Peer([i + 1; 32]), sent_ms: 7 };
    (0..4).map(|i| Signed::sign(&w.keys[usize::from(i)], &w.network, beacon(i))).collect()
}

fn syncs(w: &World) -> Vec<Vec<u8>> {
    let range: Vec<_> = w.blocks.iter().map(|(b, c)| (encode::encode(b), encode::encode(c))).collect();
    let answers = [Response::Body(Some(range[0].0.clone())), Response::Body(None), Response::range(range)];
    let digest = w.blocks[0].0.header.digest(&w.network);
    let asked = [snapshot::Request::Offer, snapshot::Request::Part(digest, snapshot::Part::Chunk(3))];
    let offer = encode::encode(&snapshot::Offer { tip: 9, oldest_block: 1, snapshot: Some((6, digest)) });
    let snapshots = asked.iter().map(encode::encode).chain([offer]);
    answers.iter().map(encode::encode).chain(snapshots).chain(["sync-body", "sync-blocks"].map(fixture)).collect()
}

fn records(w: &World) -> Vec<Vec<u8>> {
    let digest = w.blocks[0].0.header.digest(&w.network);
    let mut all = vec![
        Record::Timeout { wait: Wait::Precommit, round: 3 },
        Record::Value { round: 1, proposer: w.keys[1].public(), digest, valid: true },
        Record::Body(encode::encode(&w.blocks[0].0)),
        Record::Following,
        Record::Arrived { round: 2, digest, fresh: true, at_ms: 1_700_000_000_123 },
    ];
    all.extend(gossip().iter().filter_map(|m| match m.clone() {
        Gossip::Vote(v) => Some(Record::Vote(v)),
        Gossip::Proposal(p) => Some(Record::Proposal(p)),
        Gossip::Polka(p) => Some(Record::Polka(p)),
        Gossip::Round(_) => None,
    }));
    all.iter().map(Record::encode).collect()
}

fn pngs() -> Vec<Vec<u8>> {
    let clean = png::clean();
    let moved = |step: usize, by: u8| {
        let mut image = clean.clone();
        image.rgb.iter_mut().step_by(step).for_each(|v| *v = v.saturating_add(by));
        image.encode_png().unwrap()
    };
    let small = perturb_challenge::Pixels::new(1, 1, vec![1, 2, 3]).unwrap();
    vec![clean.encode_png().unwrap(), moved(1, 1), moved(7, 2), moved(3, 9), small.encode_png().unwrap()]
}

fn verdicts(w: &World) -> Vec<Vec<u8>> {
    let result = |seq| w.result(0, &w.open(0, seq, 0));
    let rules =
        [Rules::subnet(), Rules::whitepaper(), Rules::subnet().with_bonuses(), Rules::subnet().with_history_len(2)];
    rules.into_iter().zip(0..).map(|(rules, seq)| encode::encode(&(rules, result(seq)))).collect()
}

fn handshakes(w: &World) -> Vec<Vec<u8>> {
    let hello = handshake::Hello { version: 1, network: w.network, role: Role::Validator, nonce: [7; 32] };
    let proof = handshake::Proof { hotkey: w.hotkeys[0].hotkey(), signature: [8; 64] };
    let refused = handshake::Response::Refused { code: 2, text: "wrong network".into() };
    let statement = handshake::Statement {
        version: 1,
        role: Role::Miner,
        hotkey: w.miners[0].hotkey(),
        own_peer: vec![0; 38],
        remote_peer: vec![1; 38],
        nonce: [7; 32],
    };
    let requests = [handshake::Request::Hello(hello.clone()), handshake::Request::Prove(Some(proof.clone()))];
    let responses = [handshake::Response::Hello(hello, Some(proof)), handshake::Response::Welcome, refused];
    let mut all: Vec<_> = requests.iter().map(encode::encode).collect();
    all.extend(responses.iter().map(encode::encode));
    all.extend([encode::encode(&statement), fixture("handshake-statement")]);
    all
}

fn frames_of() -> Vec<Vec<u8>> {
    let mut all = vec![frames::write_response(Protocol::Snapshot, Err(Decline::NotFound)).unwrap()];
    for protocol in Protocol::ALL {
        all.push(frames::write_request(protocol, b"a request".to_vec()).unwrap());
        all.push(frames::write_response(protocol, Ok(vec![5; 300])).unwrap());
    }
    all
}

fn rpcs(w: &World) -> Vec<Vec<u8>> {
    let validator = w.hotkeys[0].hotkey();
    let requests = [
        (0, "[3]".to_owned()),
        (0, "[null]".to_owned()),
        (1, "[2]".to_owned()),
        (2, "[0]".to_owned()),
        (3, format!("[6, [\"{}\", \"{}\", \"00\"]]", hex::encode(META), hex::encode(SET))),
        (4, "[6, null]".to_owned()),
        (4, format!("[2, \"{}\"]", hex::encode(META))),
        (5, format!("[\"{validator}\", 0, 1]")),
        (6, "perturb_status".to_owned()),
    ];
    requests.into_iter().map(|(method, text)| [&[method], text.as_bytes()].concat()).collect()
}

fn answer(w: &World, request: &[u8]) -> Option<Vec<u8>> {
    let (number, text) = request.split_first()?;
    let method = perturb_ledger::serve::METHODS.get(usize::from(*number))?;
    let answer = perturb_ledger::serve::answer(&w.stores[6], method, &serde_json::from_slice(text).ok()?).ok()?;
    serde_json::to_vec(&answer).ok()
}
