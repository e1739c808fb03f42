//! kill -9 at every write: a child process plays a node's life on disk, dies at a fail point, and the
//! parent looks at what is left and finishes the life from there.
//!
//! The child is this test binary itself, run again for one test with a folder to live in. At a fail point it calls
//! `abort`. To what is on disk that is the same as SIGKILL: no destructor runs, no buffer of the
//! process is written, and what the kernel has been given stays given. RocksDB keeps no write of its
//! log to itself (`manual_wal_flush` is off, which a test here sees to), so what a call acknowledged
//! survives the process, synced or not. Losing power is another matter: there only what was synced
//! counts, and `tests/simulator` cuts it off. The second test kills with SIGKILL, at moments of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod history;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use history::{EPOCH, History};
use perturb_ledger::archive::Archive as _;
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::{Block, Certificate, Commit, Genesis, Ledger, MemoryStore, Trust};
use perturb_storage::failpoint::{FAIL_POINTS, VARIABLE};
use perturb_storage::guard::Mark;
use perturb_storage::{Database, Import, Options, Retention, SigningGuard, SnapshotFolder, StorageError, round_cost};
use perturb_types::{ChallengeId, ConsensusKey, Digest, Hotkey, RoundId, encode};
use tempfile::NamedTempFile;

/// The folder of the child.
const FOLDER: &str = "PERTURB_KILL_FOLDER";
/// The file with its network's history.
const HISTORY: &str = "PERTURB_KILL_HISTORY";
const KEY: ConsensusKey = ConsensusKey([7; 32]);
/// The newest height of the node, and the one exported: it ends an epoch.
const TIP: u64 = 7;
const EXPORTED: u64 = 6;
/// Where another node is when it imports what was exported.
const BEHIND: u64 = 2;
/// Blocks from here on are kept in the end.
const OLDEST: u64 = 6;
const RECORDS: u8 = 2;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// What parent and child have in common: signatures of hotkeys are random, so it travels in a file.
struct World {
    genesis: Genesis,
    commits: Vec<Commit>,
    file: NamedTempFile,
}

/// What is in that file.
type Shared = (Vec<u8>, Vec<(Block, Certificate)>);

impl World {
    fn new() -> Self {
        let history = History::new();
        let commits = history.commits(TIP).0;
        let blocks = commits[1..].iter().map(|c| (c.block.clone(), c.certificate.clone().unwrap())).collect();
        let shared: Shared = (serde_json::to_vec(&history.genesis).unwrap(), blocks);
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&encode::encode(&shared)).unwrap();
        Self { genesis: history.genesis, commits, file }
    }

    /// The same in a child: the blocks are executed again.
    fn read(path: &Path) -> Self {
        let (genesis, blocks): Shared = borsh::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let genesis: Genesis = serde_json::from_slice(&genesis).unwrap();
        let mut commits = vec![genesis_commit(&genesis).unwrap()];
        let mut store = MemoryStore::default();
        store.commit(&commits[0]);
        let mut ledger = Ledger::new(genesis.clone(), store).unwrap();
        for (block, certificate) in blocks {
            let executed = ledger.check(&block).unwrap();
            let commit = ledger.commit(executed, certificate).unwrap();
            ledger.store_mut().commit(&commit);
            commits.push(commit);
        }
        Self { genesis, commits, file: NamedTempFile::new().unwrap() }
    }

    fn open(&self, dir: &Path) -> Result<Database, StorageError> {
        Database::open(dir, &self.genesis.network_id(), Options::default())
    }

    fn import(&self, snapshot: &Path, dir: &Path) -> Result<Database, StorageError> {
        let genesis = &self.genesis;
        Database::import_snapshot(snapshot, dir, genesis, Trust::genesis(genesis).unwrap(), Options::default())
    }

    fn mark(&self, height: u64, step: u8) -> Mark {
        Mark { height, round: 0, step, digest: Some(self.commits[height as usize].digest) }
    }

    fn check(&self, db: &Database) {
        db.check(&self.genesis, |_| {}).unwrap();
    }
}

fn record(height: u64, number: u8) -> Vec<u8> {
    format!("record {number} of height {height}").into_bytes()
}

fn image(height: u64) -> Vec<u8> {
    format!("image {height}").into_bytes()
}

/// Keeps the two images of a height's round.
fn keep_images(db: &Database, height: u64) -> Result<(), StorageError> {
    let round = RoundId { validator: Hotkey([3; 32]), challenge: ChallengeId(0), seq: height };
    let mut room = db.reserve_images(round_cost(100, 1, 100), &BTreeSet::new())?.unwrap();
    room.begin(&round, height / EPOCH, height);
    assert!(room.keep(&image(height))? && room.keep(&answer(height))?);
    Ok(())
}

fn answer(height: u64) -> Vec<u8> {
    format!("answer to image {height}").into_bytes()
}

fn own(height: u64) -> String {
    format!("own/{height}")
}

/// A node's life, from wherever an earlier one ended; `did` is told after each call that returned.
fn live(world: &World, dir: &Path, did: &mut dyn FnMut(&str, u64)) -> Result<(), StorageError> {
    let db = world.open(&dir.join("node"))?;
    let mut guard = SigningGuard::open(&db, KEY)?;
    let from = db.height()?.map_or(0, |h| h + 1);
    for height in from..=TIP {
        db.put_row(&own(height), &height)?;
        did("row", height);
        db.delete_row(&own(height.wrapping_sub(1)))?;
        did("row-gone", height);
        keep_images(&db, height)?;
        did("image", height);
        if height > 0 && height.is_multiple_of(EPOCH) {
            db.prune_images(height / EPOCH, &BTreeSet::new())?;
            did("images-gone", height);
        }
        if height > 0 {
            vote(world, &db, &mut guard, height, did)?;
        }
        db.commit(&world.commits[height as usize])?;
        did("commit", height);
    }
    let (snapshot, second) = (dir.join("snapshot"), dir.join("second"));
    if !snapshot.exists() {
        db.export_snapshot(EXPORTED, &snapshot)?;
        did("export", EXPORTED);
    }
    db.prune(Retention { blocks_epochs: 0, state_epochs: 0, ..Retention::default() })?;
    did("prune", OLDEST);
    if !second.join("database").exists() {
        world.import(&snapshot, &second)?;
        did("import", EXPORTED);
    }
    overtaken(world, dir, did)?;
    let copy = world.open(&second)?;
    // Its tree has nodes of its own: only the blocks are the same.
    let mut ledger = Ledger::new(world.genesis.clone(), copy.clone()).unwrap();
    for height in copy.height()?.unwrap() + 1..=TIP {
        let Commit { block, certificate, .. } = &world.commits[height as usize];
        let executed = ledger.check(block).unwrap();
        copy.commit(&ledger.commit(executed, certificate.clone().unwrap()).unwrap())?;
    }
    did("end", TIP);
    Ok(())
}

/// A node that is behind imports the snapshot beside its database, and starts again on it.
fn overtaken(world: &World, dir: &Path, did: &mut dyn FnMut(&str, u64)) -> Result<(), StorageError> {
    let behind = dir.join("behind");
    let db = world.open(&behind)?;
    for height in db.height()?.map_or(0, |h| h + 1)..=BEHIND {
        db.commit(&world.commits[height as usize])?;
    }
    if db.height()? < Some(EXPORTED) {
        db.put_row("mine", &BEHIND)?;
        keep_images(&db, BEHIND)?;
        did("behind", BEHIND);
        let folder = SnapshotFolder::open(&dir.join("snapshot"))?;
        let trust = Trust::genesis(&world.genesis).unwrap();
        let mut import = Import::beside(&db, &world.genesis, trust, folder.manifest_bytes())?;
        while let Some(part) = import.wanted() {
            import.add(&folder.part(part)?)?;
        }
        import.seal(&db)?;
        did("sealed", EXPORTED);
        drop(db);
        world.open(&behind)?;
    }
    did("overtaken", EXPORTED);
    Ok(())
}

/// Old or new, the database is whole, and what the node knew besides is there.
fn behind(world: &World, dir: &Path, said: &Said) {
    let Some(_) = said.last("behind") else { return };
    let db = world.open(&dir.join("behind")).unwrap();
    let height = db.height().unwrap();
    assert!(height == Some(EXPORTED) || (height == Some(BEHIND) && said.last("sealed").is_none()), "{height:?}");
    world.check(&db);
    assert_eq!(db.row::<u64>("mine").unwrap(), Some(BEHIND));
    assert_eq!(db.blob(&Digest::of(&image(BEHIND))).unwrap(), Some(image(BEHIND)));
}

fn vote(
    world: &World,
    db: &Database,
    guard: &mut SigningGuard,
    height: u64,
    did: &mut dyn FnMut(&str, u64),
) -> Result<(), StorageError> {
    let there = db.log_records()?.len();
    for n in 0..RECORDS {
        let number = height * u64::from(RECORDS) + u64::from(n);
        if usize::from(n) >= there {
            db.append_log(height, &record(height, n))?;
            did("append", number);
            db.sync_log()?;
            did("sync", number);
        }
        let mark = world.mark(height, n);
        if guard.last().is_none_or(|last| (last.height, last.step) < (mark.height, mark.step)) {
            guard.check_and_record(mark)?;
            did("mark", number);
        }
    }
    Ok(())
}

/// The child: plays the life in the folder that it was given, and says what it did.
fn child(dir: &Path) {
    let file = std::env::var_os(HISTORY).unwrap();
    let mut out = std::io::stdout();
    // The harness has begun a line of its own.
    writeln!(out).unwrap();
    let mut did = |what: &str, number: u64| {
        writeln!(out, "did {what} {number}").unwrap();
        out.flush().unwrap();
    };
    live(&World::read(Path::new(&file)), dir, &mut did).unwrap();
}

/// One test at a time: a child holds the parent's locks for a moment, between its fork and its exec.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(world: &World, dir: &Path, failpoint: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["without_a_fail_point_the_life_ends_well", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, dir)
        .env(HISTORY, world.file.path());
    match failpoint {
        Some(name) => command.env(VARIABLE, name),
        None => command.env_remove(VARIABLE),
    };
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// What a child acknowledged.
#[derive(Default)]
struct Said(Vec<(String, u64)>);

impl Said {
    fn hear(&mut self, line: &str) {
        if let Some((what, number)) = line.strip_prefix("did ").and_then(|did| did.split_once(' ')) {
            self.0.push((what.into(), number.parse().unwrap()));
        }
    }

    fn last(&self, what: &str) -> Option<u64> {
        self.0.iter().rev().find(|did| did.0 == what).map(|did| did.1)
    }
}

/// Whether what is there is the last acknowledged of a row of things, or the one after it.
fn last_or_next(there: Option<u64>, said: Option<u64>, first: u64) -> bool {
    there == said || there == Some(said.map_or(first, |n| n + 1))
}

fn survived(world: &World, dir: &Path, said: &Said) {
    let db = world.open(&dir.join("node")).unwrap();
    let height = db.height().unwrap();
    assert!(last_or_next(height, said.last("commit"), 0), "height {height:?}");
    if height.is_some() {
        world.check(&db);
    }
    // The log is a beginning of what was appended, and holds all that was acknowledged.
    let next = height.map_or(0, |h| h + 1);
    let records = db.log_records().unwrap();
    let expected: Vec<_> = (0..RECORDS).map(|n| record(next, n)).collect();
    assert!(expected.starts_with(&records), "{records:?}");
    let begun = |what: &str| said.last(what).map_or(0, |n| (n + 1).saturating_sub(next * u64::from(RECORDS)) as usize);
    assert!(records.len() >= begun("append") && records.len() <= begun("append") + 1);
    // The guard knows the last mark, and lets nothing pass behind it.
    let mut guard = SigningGuard::open(&db, KEY).unwrap();
    let marked = guard.last().map(|m| m.height * u64::from(RECORDS) + u64::from(m.step));
    assert!(last_or_next(marked, said.last("mark"), RECORDS.into()), "{marked:?}");
    if let Some(last) = guard.last() {
        assert_eq!(last, world.mark(last.height, last.step));
        for wrong in [Mark { digest: None, ..last }, Mark { height: last.height - 1, round: 9, ..last }] {
            assert!(matches!(guard.check_and_record(wrong), Err(StorageError::Conflict { .. })));
        }
        guard.check_and_record(last).unwrap();
    }
    own_rows(&db, said);
    // What is pruned is told, and pruning has an order: it is whole at every moment (checked above).
    let oldest = db.oldest().unwrap();
    assert!([0, OLDEST].contains(&oldest.block) && [0, OLDEST].contains(&oldest.state));
    assert!(said.last("prune").is_none() || oldest.block == OLDEST);
    snapshots(world, dir, said);
    behind(world, dir, said);
}

fn own_rows(db: &Database, said: &Said) {
    if let Some(height) = said.last("row") {
        assert_eq!(db.row::<u64>(&own(height)).unwrap(), Some(height));
    }
    if let Some(height) = said.last("row-gone").and_then(|h| h.checked_sub(1)) {
        assert_eq!(db.row::<u64>(&own(height)).unwrap(), None);
    }
    // A round's images go together and an epoch's the oldest first, once its successor has one.
    let Some(last) = said.last("image") else { return };
    let there = |h: u64| {
        let both = [image(h), answer(h)].map(|png| db.blob(&Digest::of(&png)).unwrap().is_some());
        assert_eq!(both[0], both[1], "some images of round {h} are gone");
        both[0]
    };
    for height in (0..=last).filter(|h| h / EPOCH == last / EPOCH) {
        assert!(there(height), "image {height}");
    }
    let before: Vec<bool> = (0..last).filter(|h| h / EPOCH + 1 == last / EPOCH).map(there).collect();
    assert!(before.is_sorted(), "{before:?}");
    if said.last("images-gone").is_some_and(|gone| gone / EPOCH == last / EPOCH) {
        assert!(!before.contains(&true));
    }
}

/// A snapshot has its name only when it is whole, a database only when its import is.
fn snapshots(world: &World, dir: &Path, said: &Said) {
    let (snapshot, second) = (dir.join("snapshot"), dir.join("second"));
    assert!(said.last("export").is_none() || snapshot.exists());
    if snapshot.exists() {
        let again = tempfile::tempdir_in(dir).unwrap();
        world.check(&world.import(&snapshot, again.path()).unwrap());
    }
    if second.join("database").exists() {
        let copy = world.open(&second).unwrap();
        assert!(copy.height().unwrap() >= Some(EXPORTED));
        world.check(&copy);
    } else {
        assert!(said.last("import").is_none());
        if second.join("database.importing").exists() {
            let error = world.open(&second).err().unwrap();
            assert!(matches!(error, StorageError::Unfinished(_)), "{error}");
        }
    }
}

/// Whatever happened before, the life ends as if nothing had.
fn finished(world: &World, dir: &Path) {
    live(world, dir, &mut |_, _| {}).unwrap();
    let [node, second] = ["node", "second"].map(|name| world.open(&dir.join(name)).unwrap());
    for db in [&node, &second] {
        assert_eq!((db.height().unwrap(), db.oldest().unwrap().block), (Some(TIP), OLDEST));
        world.check(db);
        assert_eq!(db.handovers_from(0, 9).unwrap().len(), 1);
    }
    assert!(node.log_records().unwrap().is_empty());
    assert_eq!(node.row::<u64>(&own(TIP)).unwrap(), Some(TIP));
    assert_eq!(SigningGuard::open(&node, KEY).unwrap().last(), Some(world.mark(TIP, RECORDS - 1)));
    let left: BTreeSet<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left, ["behind", "node", "second", "snapshot"].map(Into::into).into());
    let mut last = Said::default();
    ["did behind 2", "did sealed 6"].iter().for_each(|line| last.hear(line));
    behind(world, dir, &last);
}

fn killed_at(world: &World, failpoint: &str) {
    let dir = tempfile::tempdir().unwrap();
    let out = spawn(world, dir.path(), Some(failpoint)).wait_with_output().unwrap();
    assert_eq!(out.status.signal(), Some(SIGABRT), "the child did not come past {failpoint}");
    // Printed where something below fails.
    println!("killed at {failpoint}");
    let mut said = Said::default();
    String::from_utf8(out.stdout).unwrap().lines().for_each(|line| said.hear(line));
    survived(world, dir.path(), &said);
    finished(world, dir.path());
}

/// Points that a life passes often: once more, later.
const LATER: [(&str, u32); 13] = [
    ("identity", 2),
    ("commit", 5),
    ("log-append", 6),
    ("log-sync", 5),
    ("guard-first", 6),
    ("guard-second", 7),
    ("row", 4),
    ("row-delete", 5),
    ("image", 5),
    ("images-prune", 2),
    ("prune-states", 2),
    ("export-part", 4),
    ("import-part", 3),
];

/// Kills at each of these points, one life after the other.
fn killed_at_each(points: impl Iterator<Item = String>) {
    let (world, _alone) = (World::new(), alone());
    points.for_each(|point| killed_at(&world, &point));
}

/// Where the points of single heights end and those of the past begin.
fn past() -> usize {
    FAIL_POINTS.iter().position(|name| name.starts_with("prune")).unwrap()
}

#[test]
fn a_kill_at_any_write_of_a_height_loses_nothing_that_was_acknowledged() {
    killed_at_each(FAIL_POINTS[..past()].iter().map(|name| (*name).to_owned()));
}

#[test]
fn a_kill_at_any_write_of_pruning_and_snapshots_loses_nothing_that_was_acknowledged() {
    killed_at_each(FAIL_POINTS[past()..].iter().map(|name| (*name).to_owned()));
}

#[test]
fn a_kill_at_a_write_that_has_often_worked_loses_nothing_that_was_acknowledged() {
    killed_at_each(LATER.iter().flat_map(|(name, n)| ["before", "after"].map(|side| format!("{name}-{side}:{n}"))));
}

#[test]
fn a_sigkill_from_outside_at_any_moment_loses_nothing_either() {
    let (world, _alone) = (World::new(), alone());
    for lines in [1, 4, 9, 23, 40, 61, 72] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = spawn(&world, dir.path(), None);
        let mut said = Said::default();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        while said.0.len() < lines {
            said.hear(&out.next().expect("the life is longer than that"));
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
        out.for_each(|line| said.hear(&line));
        survived(&world, dir.path(), &said);
        finished(&world, dir.path());
    }
}

#[test]
fn a_node_that_dies_again_and_again_gets_to_the_end() {
    let (world, _alone) = (World::new(), alone());
    // Every height of the node, the one of the copy, and those of the node that is overtaken; every record;
    // every copy of the state.
    for (point, deaths) in [
        ("commit-after", TIP + 2 + BEHIND + 1),
        ("log-sync-after", TIP * u64::from(RECORDS)),
        ("prune-states-after", 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let died = || spawn(&world, dir.path(), Some(point)).wait_with_output().unwrap().status.signal();
        for death in 1..=deaths {
            assert_eq!(died(), Some(SIGABRT), "death {death} at {point}");
        }
        assert_eq!(died(), None, "{point}");
        finished(&world, dir.path());
    }
}

#[test]
fn without_a_fail_point_the_life_ends_well() {
    // All tests here run this one as their child.
    if let Some(dir) = std::env::var_os(FOLDER) {
        return child(Path::new(&dir));
    }
    let (world, _alone, dir) = (World::new(), alone(), tempfile::tempdir().unwrap());
    let out = spawn(&world, dir.path(), None).wait_with_output().unwrap();
    assert!(out.status.success() && String::from_utf8(out.stdout).unwrap().contains("did end 7"));
    finished(&world, dir.path());
}

/// The crate's own sources, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(src).unwrap().map(|f| f.unwrap().path());
    let files = files.filter(|f| f.extension().is_some_and(|e| e == "rs") && !f.ends_with("tests.rs"));
    let text =
        |path: &Path| std::fs::read_to_string(path).unwrap().split("#[cfg(test)]\nmod tests {").next().unwrap().into();
    files
        .map(|path| {
            let text = text(&path);
            (path, text)
        })
        .collect()
}

#[test]
fn no_write_goes_past_the_fail_points() {
    let guarded = ["write_opt(", "write_all(", "fs::rename(", "flush_wal("];
    // Everything else that writes; and what would keep acknowledged writes in the process.
    let never = [".put_cf_opt(", ".db.put", ".db.delete", ".db.write(", ".db.merge", "fs::write(", "manual_wal_flush"];
    let mut seen = 0;
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for (at, line) in lines.iter().enumerate() {
            assert!(!never.iter().any(|word| line.contains(word)), "{}: {line}", path.display());
            if guarded.iter().any(|word| line.contains(word)) {
                let near = &lines[at.saturating_sub(3)..lines.len().min(at + 4)];
                let points = near.iter().any(|line| line.contains(".around(") || line.contains("failpoint("));
                assert!(points, "{}: a write without a fail point: {line}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 7, "{seen}");
    // And each point has a place in the code.
    let all: String = sources().into_iter().filter(|(path, _)| !path.ends_with("failpoint.rs")).map(|s| s.1).collect();
    let points: BTreeSet<&str> = FAIL_POINTS.into_iter().collect();
    assert_eq!(points.len(), FAIL_POINTS.len());
    for point in points {
        let camel = |name: &str| -> String {
            name.split('-')
                .flat_map(|w| w[..1].to_uppercase().chars().chain(w[1..].chars()).collect::<Vec<_>>())
                .collect()
        };
        let name = point.strip_suffix("-before").or_else(|| point.strip_suffix("-after"));
        let there = name.map_or(all.contains(&format!("failpoint(\"{point}\")")), |n| {
            all.contains(&format!("Write::{}", camel(n))) || all.contains(&format!("Point::{}", camel(n)))
        });
        assert!(there, "{point}");
    }
}
