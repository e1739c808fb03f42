//! Snapshots: a manifest and its parts, as a folder or a peer gives them.

use perturb_ledger::archive::state_root;
use perturb_ledger::snapshot::{Chunk, Manifest, Part, Restorer, SnapshotError};
use perturb_ledger::{StateStore, Trust};
use perturb_types::{Digest, encode};

use crate::world::world;

/// The manifest's bytes, and those of its parts in the order of [`Manifest::parts`].
pub type Input = (Vec<u8>, Vec<Vec<u8>>);

/// The whole way of an import; and the same parts once more as a liar would name them.
pub fn snapshot(bytes: &[u8]) {
    let Ok((manifest, parts)) = encode::decode::<Input>("snapshot", bytes, 1 << 22) else { return };
    restore(&manifest, &parts);
    let Ok(told) = borsh::from_slice::<Manifest>(&manifest) else { return };
    restore(&encode::encode(&named(told, &parts)), &parts);
}

/// Whether all of an input is taken: by the network's certificates, to the last row.
pub fn taken(bytes: &[u8]) -> bool {
    let (manifest, parts): Input = encode::decode("snapshot", bytes, 1 << 22).unwrap();
    restore(&manifest, &parts)
}

/// The manifest with lengths, digests and ends of the parts at hand.
fn named(mut manifest: Manifest, parts: &[Vec<u8>]) -> Manifest {
    let all: Vec<_> = manifest.parts().zip(parts).collect();
    for (part, bytes) in all {
        let (length, digest) = (bytes.len() as u32, Digest::of(bytes));
        match part {
            Part::Handovers(n) => {
                let info = &mut manifest.handovers[n as usize];
                (info.bytes, info.digest) = (length, digest);
            }
            Part::Block => (manifest.block.bytes, manifest.block.digest) = (length, digest),
            Part::Chunk(n) => {
                let info = &mut manifest.chunks[n as usize];
                (info.bytes, info.digest) = (length, digest);
                let Ok(chunk) = borsh::from_slice::<Chunk>(bytes) else { continue };
                let (Some(first), Some(last)) = (chunk.rows.first(), chunk.rows.last()) else { continue };
                (info.first, info.last) = (Digest::of(&first.0), Digest::of(&last.0));
                info.rows = chunk.rows.len() as u32;
            }
        }
    }
    manifest
}

/// Either refused, or the rows make the root that the manifest names; and where genesis leads to the
/// header, everything is what the network agreed: then true.
fn restore(bytes: &[u8], parts: &[Vec<u8>]) -> bool {
    let Ok(manifest) = Manifest::decode(bytes) else { return false };
    assert!(encode::encode(&manifest) == bytes, "one manifest has two byte strings");
    let all: Vec<_> = manifest.parts().zip(parts).collect();
    let certified = certified(&manifest, &all);
    let mut restorer = Restorer::new(&manifest).unwrap();
    let mut rows = Vec::new();
    for (part, bytes) in &all {
        let Part::Chunk(n) = part else { continue };
        assert!(restorer.wanted() == Some(*n));
        match restorer.add(bytes) {
            Ok(piece) => rows.extend(piece.rows),
            Err(error) if error.blames_manifest() => {
                assert!(restorer.add(bytes).is_err(), "it goes on after it was refused");
                return false;
            }
            Err(_) => {
                assert!(restorer.wanted() == Some(*n), "other bytes cost nothing");
                return false;
            }
        }
    }
    let whole = restorer.wanted().is_none();
    match restorer.finish() {
        Ok(_) => {
            rows.sort();
            assert!(whole && state_root(&rows).unwrap() == manifest.header.state_root);
            if certified {
                assert!(rows == world().stores[manifest.header.height as usize].scan(b"").unwrap());
            }
            certified
        }
        Err(error) => {
            assert!(!whole || matches!(error, SnapshotError::End { .. }), "{error}");
            false
        }
    }
}

/// Whether the handovers lead from genesis to the header: then it is the network's, and its block too.
fn certified(manifest: &Manifest, parts: &[(Part, &Vec<u8>)]) -> bool {
    let world = world();
    let mut trust = Trust::genesis(&world.genesis).unwrap();
    for (part, bytes) in parts {
        let Part::Handovers(n) = part else { continue };
        let Ok(handovers) = manifest.read_handovers(*n, bytes) else { return false };
        if handovers.iter().any(|handover| trust.advance(handover).is_err()) {
            return false;
        }
    }
    if trust.check(&manifest.header, &manifest.certificate).is_err() {
        return false;
    }
    let height = manifest.header.height;
    let block = &world.blocks[height as usize - 1].0;
    assert!(manifest.header == block.header, "a certified header that nobody agreed on");
    for (part, bytes) in parts.iter().filter(|(part, _)| *part == Part::Block) {
        let Ok(read) = manifest.read_block(&world.network, bytes) else { return false };
        assert!(read.block == *block, "{part}");
        assert!(Some(&read.receipts[..]) == world.stores[height as usize].receipts(height));
    }
    true
}
