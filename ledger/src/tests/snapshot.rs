//! Snapshots: what is restored is the state, and nothing else is taken.

use jmt::proof::SparseMerkleRangeProof;
use jmt::storage::NodeBatch;
use proptest::prelude::*;
use sha2::Sha256;

use super::*;
use crate::archive::{Archive, state_root};
use crate::block::Header;
use crate::light::Trust;
use crate::proofs::{Tree, key_hash};
use crate::snapshot::*;
use crate::store::{Row, StateStore};

struct Made {
    manifest: Manifest,
    chunks: Vec<Vec<u8>>,
    rows: Vec<Row>,
}

fn header(height: u64, state_root: Digest) -> Header {
    let zero = Digest([0; 32]);
    Header {
        protocol: crate::block::PROTOCOL,
        network: ZERO,
        height,
        parent: zero,
        parent_certificate: zero,
        time_ms: 1,
        proposer: perturb_types::ConsensusKey([0; 32]),
        transactions_root: zero,
        transactions: 0,
        state_root,
        results_root: zero,
        validators: zero,
        next_validators: zero,
        epoch: 0,
        reference: reference(1, 0),
    }
}

/// A snapshot of these rows; header and certificate are not certified by anyone.
fn made(height: u64, rows: &[Row], limits: ChunkLimits) -> Made {
    let (tree, root) = MemoryStore::restored(height, rows).unwrap();
    let (infos, chunks) = Chunks::new(&tree, height, rows.to_vec(), limits).map(Result::unwrap).unzip();
    let header = header(height, root);
    let certificate = Certificate::new(height, 0, header.digest(&ZERO), vec![]);
    let block = PartInfo::of(0, b"");
    let manifest = Manifest { format: FORMAT, header, certificate, block, handovers: vec![], chunks: infos };
    Made { manifest: Manifest::decode(&encode::encode(&manifest)).unwrap(), chunks, rows: rows.to_vec() }
}

fn numbered(count: u32) -> Vec<Row> {
    (0..count).map(|i| (i.to_be_bytes().to_vec(), format!("value {i}").into_bytes())).collect()
}

const SMALL: ChunkLimits = ChunkLimits { bytes: 200, rows: 5 };

/// Everything the chunks give.
fn restore(manifest: &Manifest, chunks: &[Vec<u8>]) -> Result<(Vec<Row>, NodeBatch), SnapshotError> {
    let (mut restorer, mut rows, mut tree) = (Restorer::new(manifest)?, Vec::new(), NodeBatch::default());
    for chunk in chunks {
        let piece = restorer.add(chunk)?;
        rows.extend(piece.rows);
        tree.merge(piece.tree);
    }
    assert_eq!(restorer.wanted(), None);
    tree.merge(restorer.finish()?);
    rows.sort();
    Ok((rows, tree))
}

/// The same manifest with the given chunks, named as they are: what a liar would serve.
fn renamed(made: &Made, chunks: &[Chunk]) -> (Manifest, Vec<Vec<u8>>) {
    let mut manifest = made.manifest.clone();
    let bytes: Vec<_> = chunks.iter().map(encode::encode).collect();
    let end = |row: Option<&Row>| row.map_or(Digest([0; 32]), |(key, _)| Digest(key_hash(key).0));
    manifest.chunks = chunks
        .iter()
        .zip(&bytes)
        .map(|(chunk, bytes)| ChunkInfo {
            first: end(chunk.rows.first()),
            last: end(chunk.rows.last()),
            rows: chunk.rows.len() as u32,
            bytes: bytes.len() as u32,
            digest: Digest::of(bytes),
        })
        .collect();
    (manifest, bytes)
}

fn read(made: &Made) -> Vec<Chunk> {
    made.chunks.iter().map(|bytes| borsh::from_slice(bytes).unwrap()).collect()
}

#[test]
fn a_restored_snapshot_is_the_state_and_the_ledger_goes_on_with_its_tree() {
    let net = Net::new();
    let mut ls = pair(&net);
    let txs = (0..4).flat_map(|v| net.whole(v, 0, 0)).collect();
    let input = net.input(&ls[0], txs);
    net.step(&mut ls, input);
    net.close(&mut ls, 9, 1, (0..4).map(|v| net.ready(v, 0)).collect());
    let input = net.input(&ls[0], vec![]);
    let block = net.step(&mut ls, input);
    let store = ls[0].store();
    let rows = store.rows_at(2, None, usize::MAX).unwrap().unwrap().rows;
    let (infos, chunks): (Vec<_>, Vec<_>) = Chunks::new(store, 2, rows.clone(), SMALL).map(Result::unwrap).unzip();
    assert!(infos.len() > 2);
    let (header, certificate) = store.header_at(2).unwrap().unwrap();
    let part = encode::encode(&BlockPart {
        block: store.block(2).unwrap().0.clone(),
        receipts: store.receipts(2).unwrap().to_vec(),
    });
    let manifest = Manifest {
        format: FORMAT,
        header: header.clone(),
        certificate: certificate.unwrap(),
        block: PartInfo::of(header.transactions as usize, &part),
        handovers: vec![],
        chunks: infos,
    };
    Trust::genesis(&net.genesis).unwrap().check(&manifest.header, &manifest.certificate).unwrap();
    manifest.read_block(&net.id(), &part).unwrap();
    let (restored, tree) = restore(&manifest, &chunks).unwrap();
    assert_eq!(restored, rows);
    let mut fresh = MemoryStore::default();
    let changes: Vec<_> = restored.into_iter().map(|(k, v)| (k, Some(v))).collect();
    fresh.apply(&changes, &jmt::storage::TreeUpdateBatch { node_batch: tree, ..Default::default() });
    fresh.set_base(header, Some(manifest.certificate.clone()));
    let ledger = Ledger::new(net.genesis.clone(), fresh).unwrap();
    ledger.check(&block).unwrap();
    assert!(ledger.store().value(state::PARENT_SET).unwrap().is_some());

    let count = manifest.header.transactions as usize;
    let mut other = part.clone();
    *other.last_mut().unwrap() ^= 1;
    let error = manifest.read_block(&net.id(), &other).unwrap_err();
    assert!(!error.blames_manifest(), "{error}");
    let lie = Manifest { block: PartInfo::of(count, &other), ..manifest.clone() };
    assert!(lie.read_block(&net.id(), &other).unwrap_err().blames_manifest());
    let miscounted = Manifest { block: PartInfo::of(count + 1, &part), ..manifest };
    assert!(miscounted.read_block(&net.id(), &part).unwrap_err().blames_manifest());
}

#[test]
fn a_lying_manifest_is_refused_with_the_chunk_that_shows_it() {
    let made = made(7, &numbered(40), SMALL);
    let whole = read(&made);
    let last = whole.len() - 1;
    let refused = |change: &dyn Fn(&mut Vec<Chunk>)| {
        let mut chunks = whole.clone();
        change(&mut chunks);
        let (manifest, bytes) = renamed(&made, &chunks);
        // The numbers of the manifest may already contradict each other.
        let error = match Manifest::decode(&encode::encode(&manifest)) {
            Ok(manifest) => restore(&manifest, &bytes).unwrap_err(),
            Err(error) => error,
        };
        assert!(error.blames_manifest(), "{error}");
        error
    };
    let at = |error: &SnapshotError| match error {
        SnapshotError::Chunk { index, .. } => Some(*index),
        _ => None,
    };
    // A value altered, a row left out, a row too many, of the first, a middle and the last chunk.
    for chunk in [0, 2, last] {
        assert_eq!(at(&refused(&|c| c[chunk].rows[0].1.push(0))), Some(chunk as u32));
        assert_eq!(at(&refused(&|c| drop(c[chunk].rows.remove(0)))), Some(chunk as u32));
        assert_eq!(at(&refused(&|c| drop(c[chunk].rows.pop()))), Some(chunk as u32));
        let mut surplus = b"surplus".to_vec();
        let (low, high) = (key_hash(&whole[chunk].rows[0].0), key_hash(&whole[chunk].rows.last().unwrap().0));
        while !(low < key_hash(&surplus) && key_hash(&surplus) < high) {
            surplus.push(1);
        }
        let put = |c: &mut Vec<Chunk>| {
            c[chunk].rows.push((surplus.clone(), b"x".to_vec()));
            c[chunk].rows.sort_by_key(|(key, _)| key_hash(key));
        };
        assert_eq!(at(&refused(&put)), Some(chunk as u32));
        assert_eq!(at(&refused(&|c| c[chunk].height += 1)), Some(chunk as u32));
        assert_eq!(at(&refused(&|c| c[chunk].index += 1)), Some(chunk as u32));
        assert_eq!(at(&refused(&|c| c[chunk].rows.swap(1, 2))), Some(chunk as u32));
        let twice = |c: &mut Vec<Chunk>| {
            let row = c[chunk].rows[1].clone();
            c[chunk].rows.insert(1, row);
        };
        assert_eq!(at(&refused(&twice)), Some(chunk as u32));
    }
    // A chunk left out, twice, or in another place.
    assert_eq!(at(&refused(&|c| drop(c.remove(1)))), Some(1));
    refused(&|c| c.insert(1, c[0].clone()));
    refused(&|c| c.swap(1, 2));
    // The rows end early: everything that is there is proved, and still it is not the state.
    let early = refused(&|c| drop(c.pop()));
    assert!(matches!(early, SnapshotError::End { .. }), "{early}");
    let empty = SparseMerkleRangeProof::<Sha256>::clone(&whole[last].proof);
    assert!(at(&refused(&|c| c[0].proof = empty.clone())).is_some());
}

#[test]
fn bytes_that_the_manifest_does_not_name_cost_nothing() {
    let made = made(3, &numbered(30), SMALL);
    let mut restorer = Restorer::new(&made.manifest).unwrap();
    for (index, chunk) in made.chunks.iter().enumerate() {
        let mut flipped = chunk.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for wrong in [&made.chunks[(index + 1) % made.chunks.len()], &flipped, &vec![], &vec![0; MAX_PART_BYTES + 1]] {
            let error = restorer.add(wrong).unwrap_err();
            assert!(matches!(&error, SnapshotError::Chunk { index: at, .. } if *at as usize == index), "{error}");
            assert!(!error.blames_manifest());
        }
        restorer.add(chunk).unwrap();
    }
    assert_eq!(restorer.add(&made.chunks[0]).unwrap_err(), SnapshotError::Spent);
    restorer.finish().unwrap();
    let mut early = Restorer::new(&made.manifest).unwrap();
    early.add(&made.chunks[0]).unwrap();
    assert_eq!(early.finish().unwrap_err(), SnapshotError::Spent);
}

#[test]
fn no_byte_of_a_chunk_can_be_another() {
    let made = made(3, &numbered(12), SMALL);
    for (index, chunk) in made.chunks.iter().enumerate() {
        for at in 0..chunk.len() {
            for bit in [1, 0x80] {
                let mut chunks = made.chunks.clone();
                chunks[index][at] ^= bit;
                // As the transport would corrupt it, and as a liar would name it.
                assert!(restore(&made.manifest, &chunks).is_err());
                let mut manifest = made.manifest.clone();
                manifest.chunks[index].digest = Digest::of(&chunks[index]);
                let Ok(read) = borsh::from_slice::<Chunk>(&chunks[index]) else {
                    assert!(restore(&manifest, &chunks).is_err());
                    continue;
                };
                let ends = [read.rows.first(), read.rows.last()].map(|r| r.map(|(k, _)| Digest(key_hash(k).0)));
                if let [Some(first), Some(last)] = ends {
                    (manifest.chunks[index].first, manifest.chunks[index].last) = (first, last);
                    manifest.chunks[index].rows = read.rows.len() as u32;
                }
                let error = restore(&manifest, &chunks).unwrap_err();
                assert!(matches!(error, SnapshotError::Chunk { index: i, .. } if i as usize == index), "{error}");
            }
        }
    }
}

#[test]
fn no_byte_of_a_manifest_leads_to_another_state() {
    let made = made(3, &numbered(12), SMALL);
    let bytes = encode::encode(&made.manifest);
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        let Ok(manifest) = Manifest::decode(&other) else { continue };
        if let Ok((rows, _)) = restore(&manifest, &made.chunks) {
            assert_eq!((rows, manifest.header.state_root), (made.rows.clone(), made.manifest.header.state_root));
        }
    }
    for cut in 0..bytes.len() {
        assert!(Manifest::decode(&bytes[..cut]).is_err());
    }
    let mut none = made.manifest.clone();
    none.chunks.clear();
    assert!(Manifest::decode(&encode::encode(&none)).is_err());
    let mut many = made.manifest;
    many.chunks = vec![many.chunks[0]; MAX_CHUNKS + 1];
    assert!(Manifest::decode(&encode::encode(&many)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_state_in_any_chunks_comes_back(
        rows in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 0..6), proptest::collection::vec(any::<u8>(), 0..40), 1..120
        ),
        bytes in 1usize..600,
        most in 1usize..50,
        height in 1u64..1000,
        next in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 0..3), proptest::option::of(any::<u8>()), 1..20
        ),
    ) {
        let rows: Vec<Row> = rows.into_iter().collect();
        let made = made(height, &rows, ChunkLimits { bytes, rows: most });
        let (restored, tree) = restore(&made.manifest, &made.chunks).unwrap();
        prop_assert_eq!(&restored, &rows);
        prop_assert_eq!(state_root(&restored).unwrap(), made.manifest.header.state_root);
        // The restored tree takes the next height like the one it was taken from.
        let (mut fresh, (old, _)) = (MemoryStore::default(), MemoryStore::restored(height, &rows).unwrap());
        fresh.apply(&[], &jmt::storage::TreeUpdateBatch { node_batch: tree, ..Default::default() });
        let change = |store: &MemoryStore| {
            let leaves: Vec<_> = next.iter().map(|(k, v)| (key_hash(k), v.map(|v| vec![v]))).collect();
            Tree::new(store).put_value_set(leaves, height + 1).map(|(root, _)| root)
        };
        prop_assert_eq!(change(&fresh).unwrap(), change(&old).unwrap());
    }
}
