//! Snapshots between folders: what is imported is the database that was exported, or nothing.

use std::path::PathBuf;

use perturb_ledger::archive::Archive;
use perturb_ledger::snapshot::{ChunkLimits, Manifest, Part, SnapshotError};
use perturb_ledger::{Commit, Genesis, Ledger, LightError, Trust, serve};
use perturb_types::encode;
use serde_json::json;

use super::history::{EPOCH, History};
use super::*;
use crate::{Exported, Import, Retention, SigningGuard, SnapshotFolder};

/// So small that a few dozen rows make several chunks.
const SMALL: ChunkLimits = ChunkLimits { bytes: 600, rows: 4 };

/// The newest height: 9 changes the set and ends an epoch, 12 only ends one.
const TIP: u64 = 13;

struct World {
    history: History,
    commits: Vec<Commit>,
    db: Database,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (history, dir) = (History::new(), tempfile::tempdir().unwrap());
        let (commits, _) = history.commits(TIP + 2);
        let db = Database::open(&dir.path().join("node"), &history.id(), Options::default()).unwrap();
        commits[..=TIP as usize].iter().for_each(|commit| db.commit(commit).unwrap());
        Self { history, commits, db, dir }
    }

    fn genesis(&self) -> &Genesis {
        &self.history.genesis
    }

    fn trust(&self) -> Trust {
        Trust::genesis(self.genesis()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn export(&self, db: &Database, height: u64, name: &str) -> Exported {
        db.export_in_chunks(height, &self.path(name), SMALL).unwrap()
    }

    fn import(&self, snapshot: &str, to: &str) -> Result<Database, StorageError> {
        let (snapshot, to) = (self.path(snapshot), self.path(to));
        Database::import_snapshot(&snapshot, &to, self.genesis(), self.trust(), Options::default())
    }

    /// Opens what an import left.
    fn open(&self, name: &str) -> Result<Database, StorageError> {
        Database::open(&self.path(name), &self.history.id(), Options::default())
    }

    /// A copy of a snapshot folder, spoilt.
    fn spoilt(&self, snapshot: &str, spoil: &dyn Fn(&Path)) -> String {
        let to = self.path("spoilt");
        drop(std::fs::remove_dir_all(&to));
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(self.path(snapshot)).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        spoil(&to);
        "spoilt".into()
    }

    /// A data folder with a guard that has signed, and without a database.
    fn guarded(&self, name: &str) {
        let db = self.open(name).unwrap();
        SigningGuard::open(&db, ConsensusKey([7; 32])).unwrap();
        drop(db);
        std::fs::remove_dir_all(self.path(name).join("database")).unwrap();
    }

    /// Names and bytes of a data folder that holds only files.
    fn listing(&self, name: &str) -> Vec<(std::ffi::OsString, Vec<u8>)> {
        let files = std::fs::read_dir(self.path(name)).unwrap().map(Result::unwrap);
        let mut out: Vec<_> = files.map(|f| (f.file_name(), std::fs::read(f.path()).unwrap())).collect();
        out.sort();
        out
    }
}

fn manifest(dir: &Path) -> Manifest {
    SnapshotFolder::open(dir).unwrap().manifest().clone()
}

fn pruned(db: &Database, method: &str, params: serde_json::Value) -> bool {
    matches!(serve::answer(db, method, &params), Err(serve::RpcError::Pruned { .. }))
}

#[test]
fn an_imported_snapshot_goes_on_as_the_database_it_was_taken_from() {
    let world = World::new();
    for height in [2 * EPOCH, 3 * EPOCH, 4 * EPOCH, TIP] {
        let [first, second, third, to] = ["first", "second", "third", "to"].map(|name| format!("{name}-{height}"));
        let exported = world.export(&world.db, height, &first);
        assert!(exported.chunks > 3 && exported.rows > 10, "{exported:?}");
        let db = world.import(&first, &to).unwrap();
        let seen = db.check(world.genesis(), |_| {}).unwrap();
        assert_eq!((seen.rows, seen.blocks), (exported.rows, 2), "genesis and the newest");
        assert_eq!(db.height().unwrap(), Some(height));
        let at = height as usize;
        assert_eq!(db.block(height).unwrap().unwrap(), world.commits[at].block);
        assert_eq!(db.receipts(height).unwrap().unwrap(), world.commits[at].receipts);
        assert_eq!(db.round_places(&world.history.round(height - 1)).unwrap().opened.unwrap().height, height);
        let mut handovers = world.db.handovers_from(0, 9).unwrap();
        handovers.retain(|h| h.header.height <= height);
        assert_eq!(db.handovers_from(0, 9).unwrap(), handovers);
        // What is below is pruned, and not absent.
        assert!(matches!(db.held_block(height - 1), Err(StorageError::Pruned { oldest, .. }) if oldest == height));
        for method in ["perturb_block", "perturb_header", "perturb_state"] {
            let params = if method == "perturb_state" { json!([height - 1, null]) } else { json!([height - 1]) };
            assert!(pruned(&db, method, params), "{method}");
        }
        assert!(pruned(&db, "perturb_proof", json!([height - 1, [hex::encode(b"meta")]])));
        let answer = serve::answer(&db, "perturb_block", &json!([TIP + 9])).unwrap();
        assert!(answer.is_null(), "what never was is not pruned");
        assert!(db.proof_at(height, b"meta").unwrap().unwrap().verify(&world.commits[at].block.header.state_root));
        // The same snapshot once more, byte for byte.
        assert_eq!(world.export(&db, height, &second), exported);
        // The next blocks are those of the original.
        let mut ledger = Ledger::new(world.genesis().clone(), db.clone()).unwrap();
        for next in &world.commits[at + 1..] {
            let made = world.history.next(&mut ledger);
            assert_eq!(made.block, next.block);
            db.commit(&made).unwrap();
        }
        db.check(world.genesis(), |_| {}).unwrap();
        drop((ledger, db));
        let db = world.open(&to).unwrap();
        db.check(world.genesis(), |_| {}).unwrap();
        if height.is_multiple_of(EPOCH) {
            assert_eq!(world.export(&db, height, &third).manifest, exported.manifest);
        } else {
            let error = db.export_snapshot(height, &world.path(&third)).unwrap_err();
            assert!(matches!(error, StorageError::NotKept { .. }), "{error}");
        }
        // It forgets as others do.
        db.prune(Retention { blocks_epochs: 0, state_epochs: 0, ..Retention::default() }).unwrap();
        assert_eq!(db.oldest().unwrap().block, 15);
        db.check(world.genesis(), |_| {}).unwrap();
        assert_eq!(db.handovers_from(0, 9).unwrap(), world.db.handovers_from(0, 9).unwrap());
    }
}

#[test]
fn no_file_of_a_snapshot_can_be_another() {
    let world = World::new();
    world.export(&world.db, TIP, "snapshot");
    world.guarded("to");
    let before = world.listing("to");
    let mut names: Vec<_> =
        std::fs::read_dir(world.path("snapshot")).unwrap().map(|f| f.unwrap().file_name()).collect();
    names.sort();
    names.retain(|name| name != "SHA256SUMS");
    assert!(names.len() > 6, "{names:?}");
    let refused = |what: &str, spoil: &dyn Fn(&Path)| {
        let error = world.import(&world.spoilt("snapshot", spoil), "to").err().unwrap_or_else(|| panic!("{what}"));
        assert!(matches!(error, StorageError::Snapshot(_) | StorageError::Io { .. }), "{what}: {error}");
        assert_eq!(world.listing("to"), before, "{what}");
    };
    for (index, name) in names.iter().enumerate() {
        let what = name.to_str().unwrap();
        let edit = |change: &dyn Fn(&mut Vec<u8>)| {
            refused(what, &|dir: &Path| {
                let mut bytes = std::fs::read(dir.join(name)).unwrap();
                change(&mut bytes);
                std::fs::write(dir.join(name), bytes).unwrap();
            });
        };
        for part in [0, 1, 3, 4] {
            edit(&|bytes| {
                let at = (bytes.len() - 1) * part / 4;
                bytes[at] ^= 1 << part;
            });
        }
        edit(&|bytes| bytes.truncate(bytes.len() - 1));
        edit(&|bytes| bytes.truncate(bytes.len() / 2));
        edit(&|bytes| bytes.clear());
        edit(&|bytes| bytes.push(0));
        refused(what, &|dir| std::fs::remove_file(dir.join(name)).unwrap());
        let other = &names[(index + 1) % names.len()];
        refused(what, &|dir| {
            std::fs::copy(dir.join(other), dir.join(name)).unwrap();
        });
    }
    // The manifest, all over: nothing in it is free.
    let length = std::fs::read(world.path("snapshot/manifest")).unwrap().len();
    for at in (0..length).step_by(length / 40) {
        refused(&format!("byte {at} of the manifest"), &|dir| {
            let mut bytes = std::fs::read(dir.join("manifest")).unwrap();
            bytes[at] ^= 0x10;
            std::fs::write(dir.join("manifest"), bytes).unwrap();
        });
    }
    world.import("snapshot", "to").unwrap().check(world.genesis(), |_| {}).unwrap();
}

#[test]
fn a_lying_manifest_is_refused_and_leaves_nothing() {
    let world = World::new();
    world.export(&world.db, 3 * EPOCH, "snapshot");
    world.export(&world.db, 2 * EPOCH, "earlier");
    let earlier = manifest(&world.path("earlier"));
    let refused = |what: &str, lie: &dyn Fn(&mut Manifest, &Path)| {
        let spoilt = world.spoilt("snapshot", &|dir| {
            let mut told = manifest(dir);
            lie(&mut told, dir);
            std::fs::write(dir.join("manifest"), encode::encode(&told)).unwrap();
        });
        match world.import(&spoilt, "to") {
            Err(StorageError::Snapshot(error)) => {
                // What may be another reader's truth is refused without blame.
                let untrusted = matches!(&error, SnapshotError::Light(e) if e.is_untrusted());
                assert!(error.blames_manifest() != untrusted, "{what}: {error}");
                assert!(!world.path("to/database").exists() && !world.path("to/database.importing").exists(), "{what}");
                error
            }
            other => panic!("{what}: {:?}", other.err()),
        }
    };
    let of = |dir: &Path, part: Part| std::fs::read(dir.join(part.to_string())).unwrap();
    refused("another root", &|m, _| m.header.state_root.0[0] ^= 1);
    refused("another height", &|m, _| m.header.height += 1);
    refused("no signatures", &|m, _| m.certificate.signatures.clear());
    refused("a certificate of another block", &|m, _| m.certificate = earlier.certificate.clone());
    refused("the header of another height", &|m, _| m.header = earlier.header.clone());
    refused("a transaction more than the header has", &|m, _| m.block.count += 1);
    let error = refused("no handovers", &|m, _| m.handovers.clear());
    assert!(matches!(error, SnapshotError::Light(LightError::Set { .. })), "{error}");
    let error = refused("the last rows left out", &|m, _| m.chunks.truncate(m.chunks.len() - 1));
    assert!(matches!(error, SnapshotError::End { .. }), "{error}");
    refused("two chunks in the other order", &|m, _| m.chunks.swap(1, 2));
    refused("rows of another height", &|m, _| {
        m.header = earlier.header.clone();
        m.certificate = earlier.certificate.clone();
    });
    // A part that the liar names as it serves it.
    let rename = |m: &mut Manifest, dir: &Path, part: Part, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = of(dir, part);
        change(&mut bytes);
        let (length, digest) = (bytes.len() as u32, Digest::of(&bytes));
        match part {
            Part::Handovers(n) => (m.handovers[n as usize].bytes, m.handovers[n as usize].digest) = (length, digest),
            Part::Block => (m.block.bytes, m.block.digest) = (length, digest),
            Part::Chunk(n) => (m.chunks[n as usize].bytes, m.chunks[n as usize].digest) = (length, digest),
        }
        std::fs::write(dir.join(part.to_string()), bytes).unwrap();
    };
    for part in [Part::Handovers(0), Part::Block, Part::Chunk(0), Part::Chunk(2)] {
        for at in [0, 40, 90, 200] {
            refused(&format!("{part} with another byte {at}"), &|m, dir| rename(m, dir, part, &|b| b[at] ^= 1));
        }
        refused(&format!("{part} cut"), &|m, dir| rename(m, dir, part, &|b| b.truncate(b.len() - 1)));
    }
    world.import("snapshot", "to").unwrap();
}

/// The limit that the ledger's page on snapshots states: the state is right, the past has a hole.
#[test]
fn handovers_left_out_between_two_times_of_one_set_are_not_seen_and_do_no_harm() {
    let world = World::new();
    world.export(&world.db, 4 * EPOCH, "snapshot");
    let spoilt = world.spoilt("snapshot", &|dir| {
        let told = Manifest { handovers: vec![], ..manifest(dir) };
        std::fs::write(dir.join("manifest"), encode::encode(&told)).unwrap();
    });
    let db = world.import(&spoilt, "to").unwrap();
    db.check(world.genesis(), |_| {}).unwrap();
    assert!(db.handovers_from(0, 9).unwrap().is_empty());
    let mut ledger = Ledger::new(world.genesis().clone(), db).unwrap();
    assert_eq!(world.history.next(&mut ledger).block, world.commits[13].block);
}

#[test]
fn an_import_that_was_cut_off_is_named_and_the_next_one_begins_anew() {
    let world = World::new();
    world.export(&world.db, 3 * EPOCH, "snapshot");
    let (folder, to) = (SnapshotFolder::open(&world.path("snapshot")).unwrap(), world.path("to"));
    let begin =
        || Import::begin(&to, world.genesis(), world.trust(), Options::default(), folder.manifest_bytes()).unwrap();
    let parts = folder.manifest().parts().count();
    for cut in 0..=parts {
        let mut import = begin();
        for _ in 0..cut {
            let part = import.wanted().unwrap();
            import.add(&folder.part(part).unwrap()).unwrap();
        }
        assert!(matches!(world.open("to"), Err(StorageError::Locked(_))), "the folder is taken");
        drop(import);
        let error = world.open("to").err().unwrap();
        assert!(matches!(&error, StorageError::Unfinished(_)), "{error}");
        assert!(error.to_string().contains("run it again"), "{error}");
    }
    // Ending too early is refused and leaves nothing.
    assert!(matches!(begin().finish(), Err(StorageError::Snapshot(SnapshotError::Spent))));
    assert!(!to.join("database.importing").exists());
    let mut import = begin();
    assert_eq!(import.target(), (9, world.commits[9].digest));
    // Wrong bytes cost nothing: the right ones are still welcome.
    while let Some(part) = import.wanted() {
        assert!(import.add(b"nonsense").is_err());
        import.add(&folder.part(part).unwrap()).unwrap();
    }
    assert!(matches!(import.add(b"one too many"), Err(StorageError::Snapshot(SnapshotError::Spent))));
    let db = import.finish().unwrap();
    db.check(world.genesis(), |_| {}).unwrap();
    let error = world.import("snapshot", "to").err().unwrap();
    assert!(matches!(error, StorageError::Locked(_)), "{error}");
    drop(db);
    let error = world.import("snapshot", "to").err().unwrap();
    assert!(matches!(error, StorageError::Exists(_)), "{error}");
}

#[test]
fn a_trusted_header_must_be_the_one_that_the_snapshot_leads_through() {
    let world = World::new();
    world.export(&world.db, 4 * EPOCH, "snapshot");
    let folder = SnapshotFolder::open(&world.path("snapshot")).unwrap();
    let digest = |height: u64| world.commits[height as usize].digest;
    let import = |trust: Trust| {
        let (from, to) = (world.path("snapshot"), world.path("to"));
        Database::import_snapshot(&from, &to, world.genesis(), trust, Options::default()).map(|db| {
            drop(db);
            std::fs::remove_dir_all(to.join("database")).unwrap();
        })
    };
    // Its own header, or one that changed the set.
    for height in [3, 9, 12] {
        import(folder.trust(world.genesis(), Some((height, digest(height)))).unwrap()).unwrap();
        let error = folder.trust(world.genesis(), Some((height, digest(height - 1)))).unwrap_err();
        assert!(matches!(error, StorageError::Snapshot(SnapshotError::Light(LightError::Anchor { .. }))), "{error}");
    }
    for height in [0, 6, 11, 13] {
        let error = folder.trust(world.genesis(), Some((height, digest(height)))).unwrap_err();
        assert!(matches!(&error, StorageError::NotShown { shown, .. } if *shown == [3, 9, 12]), "{error}");
    }
    import(folder.trust(world.genesis(), None).unwrap()).unwrap();

    let light = |error: StorageError| match error {
        StorageError::Snapshot(SnapshotError::Light(error)) => error,
        other => panic!("{other}"),
    };
    // Another network; a later height than the snapshot's; a header of a history with another set.
    let other = History::of_subnet(3);
    let error = light(import(Trust::genesis(&other.genesis).unwrap()).unwrap_err());
    assert!(matches!(error, LightError::Network { .. }), "{error}");
    let handovers = world.db.handovers_from(0, 9).unwrap();
    let from = |height: u64, header: &Header, next: &perturb_ledger::ValidatorSet| {
        Trust::header(world.history.id(), (height, header.digest(&world.history.id())), header, next.clone()).unwrap()
    };
    let mut later = world.commits[13].block.header.clone();
    later.next_validators = handovers[1].next.hash(&world.history.id());
    let error = light(import(from(13, &later, &handovers[1].next)).unwrap_err());
    assert!(matches!(error, LightError::Before { .. }), "{error}");
    let mut contradicts = world.commits[10].block.header.clone();
    contradicts.next_validators = handovers[0].next.hash(&world.history.id());
    let error = light(import(from(10, &contradicts, &handovers[0].next)).unwrap_err());
    assert!(matches!(error, LightError::Set { .. }), "{error}");
    assert!(!world.path("to/database").exists() && !world.path("to/database.importing").exists());
    // A snapshot of that network has no place here.
    let db = Database::open(&world.path("other"), &other.id(), Options::default()).unwrap();
    other.commits(4).0.iter().for_each(|commit| db.commit(commit).unwrap());
    world.export(&db, 4, "foreign");
    let error = light(world.import("foreign", "to").err().unwrap());
    assert!(matches!(error, LightError::Network { .. }), "{error}");
}

#[test]
fn an_export_is_whole_or_not_there() {
    let world = World::new();
    let out = world.path("out");
    let error = |height: u64| world.db.export_snapshot(height, &out).unwrap_err();
    for height in [0, 5, TIP - 2, TIP + 1, u64::MAX] {
        assert!(matches!(error(height), StorageError::NotKept { .. }), "{}", error(height));
    }
    // What a cut-off export left is no obstacle, and nothing of it stays.
    std::fs::create_dir(world.path("out.partial")).unwrap();
    std::fs::write(world.path("out.partial/chunk-99999"), b"old").unwrap();
    let exported = world.db.export_snapshot(TIP, &out).unwrap();
    assert!(!world.path("out.partial").exists() && !out.join("chunk-99999").exists());
    assert!(matches!(error(TIP), StorageError::Exists(_)));
    let files: Vec<_> = std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.iter().map(|f| f.metadata().unwrap().len()).sum::<u64>(), exported.bytes);
    let sums = std::fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), files.len() - 1);
    for line in sums.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        assert_eq!(Digest::of(&std::fs::read(out.join(name)).unwrap()).to_string(), digest, "{name}");
    }
    assert!(sums.contains(&format!("{}  manifest", exported.manifest)));
    // A wrong state is not exported, nor one whose block is gone.
    world.db.prune(Retention { blocks_epochs: 0, ..Retention::default() }).unwrap();
    let pruned = world.db.export_snapshot(3, &world.path("pruned")).unwrap_err();
    assert!(matches!(pruned, StorageError::Pruned { height: 3, oldest: 12, .. }), "{pruned}");
    assert!(world.db.flip_bit_under(b"key/").unwrap());
    let damaged = world.db.export_snapshot(TIP, &world.path("damaged")).unwrap_err();
    assert!(matches!(damaged, StorageError::Damaged { .. }), "{damaged}");
    for name in ["pruned", "damaged", "damaged.partial"] {
        assert!(!world.path(name).exists(), "{name}");
    }
}

#[test]
fn an_export_beside_commits_is_of_one_moment() {
    let world = World::new();
    let (db, commits) = (world.db.clone(), world.commits.clone());
    let first = world.export(&world.db, 12, "before");
    std::thread::scope(|scope| {
        scope.spawn(move || commits[TIP as usize + 1..].iter().for_each(|commit| db.commit(commit).unwrap()));
        for n in 0..4 {
            assert_eq!(world.export(&world.db, 12, &format!("beside-{n}")).manifest, first.manifest);
            // The newest height may have moved on; what is exported is a state that was agreed.
            let newest = world.db.height().unwrap().unwrap();
            match world.db.export_snapshot(newest, &world.path(&format!("newest-{n}"))) {
                Ok(_) | Err(StorageError::NotKept { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(world.db.height().unwrap(), Some(TIP + 2));
    world.import("before", "to").unwrap().check(world.genesis(), |_| {}).unwrap();
}
