//! A disk that turns read-only: one clear error, nothing lost, and it goes on when the disk does.
//!
//! In a mount namespace of its own, this binary runs its test again as a child. As root the disk is an
//! ext4 image on a loop device, which `remount,abort` turns read-only under an open database, as ext4
//! does after an error of the device. Where that cannot be had (no root, no loop devices), it is a
//! tmpfs, which turns read-only only while nothing is open; the test says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod history;

use std::path::{Path, PathBuf};
use std::process::Command;

use history::History;
use perturb_ledger::{Commit, Trust};
use perturb_storage::guard::Mark;
use perturb_storage::{Database, Options, Retention, SigningGuard, StorageError};
use perturb_types::ConsensusKey;

const KEY: ConsensusKey = ConsensusKey([7; 32]);
const FOLDER: &str = "PERTURB_READ_ONLY_FOLDER";

/// Mounts what there is at `$1/disk` and runs the rest.
const SCRIPT: &str = r#"
    dir=$1; shift
    mkdir "$dir/disk"
    if truncate -s 512M "$dir/image" && mkfs.ext4 -q -F "$dir/image" &&
        mount -o loop,errors=remount-ro "$dir/image" "$dir/disk"; then
        PERTURB_DISK=ext4; export PERTURB_DISK
    else
        mount -t tmpfs -o size=512m tmpfs "$dir/disk"
    fi
    PERTURB_READ_ONLY_FOLDER=$dir "$@"
"#;

#[test]
fn a_disk_that_turns_read_only_is_named_and_loses_nothing() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        return child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    command.args(if root { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
    command.args(["sh", "-ec", SCRIPT, "sh"]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    let out = command
        .args(["a_disk_that_turns_read_only_is_named_and_loses_nothing", "--exact", "--nocapture"])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("the child came to its end"), "{said}");
    println!("{said}");
}

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap();
    // e2fsck says 1 where it corrected something: the mark that ext4 left.
    let fine = out.status.success() || (program == "e2fsck" && out.status.code() == Some(1));
    assert!(fine, "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

struct Node {
    history: History,
    commits: Vec<Commit>,
    dir: PathBuf,
}

impl Node {
    fn open(&self) -> Result<Database, StorageError> {
        Database::open(&self.dir, &self.history.id(), Options::default())
    }

    fn mark(&self, height: u64) -> Mark {
        Mark { height, round: 0, step: 1, digest: Some(self.commits[height as usize].digest) }
    }

    fn whole(&self, height: u64) -> Database {
        let db = self.open().unwrap();
        assert_eq!(db.height().unwrap(), Some(height));
        db.check(&self.history.genesis, |_| {}).unwrap();
        assert_eq!(SigningGuard::open(&db, KEY).unwrap().last(), Some(self.mark(height)));
        db
    }
}

/// It names the folder and says what to do.
fn clear<T>(result: Result<T, StorageError>, folder: &Path) {
    let said = result.err().expect("nothing can be written").to_string();
    for words in [folder.to_str().unwrap(), "Read-only file system", "mount it writable", "nothing is lost"] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
    assert!(!said.contains("move this folder away"), "{said}");
}

/// The child, in a mount namespace of its own.
fn child(dir: &Path) {
    let (history, disk) = (History::new(), dir.join("disk"));
    let commits = history.commits(8).0;
    let node = Node { history, commits, dir: disk.join("node") };
    let db = node.open().unwrap();
    let mut guard = SigningGuard::open(&db, KEY).unwrap();
    for commit in &node.commits[..=5] {
        if commit.height > 0 {
            guard.check_and_record(node.mark(commit.height)).unwrap();
        }
        db.commit(commit).unwrap();
    }
    drop((db, guard));
    while_closed(&node, &disk);
    if std::env::var("PERTURB_DISK").is_ok_and(|disk| disk == "ext4") {
        while_open(&node, dir, &disk);
    } else {
        println!("SKIPPED: no loop device for an ext4 image: a disk that turns read-only under an open database");
    }
    println!("the child came to its end");
}

fn while_closed(node: &Node, disk: &Path) {
    let db = node.whole(5);
    let snapshot = disk.parent().unwrap().join("snapshot");
    db.export_snapshot(3, &snapshot).unwrap();
    drop(db);
    run("mount", &["-o", "remount,bind,ro", disk.to_str().unwrap()]);
    clear(node.open(), &node.dir);
    let (genesis, fresh) = (&node.history.genesis, disk.join("fresh"));
    clear(Database::open(&fresh, &node.history.id(), Options::default()), &fresh);
    let trust = Trust::genesis(genesis).unwrap();
    clear(Database::import_snapshot(&snapshot, &fresh, genesis, trust, Options::default()), &fresh);
    run("mount", &["-o", "remount,bind,rw", disk.to_str().unwrap()]);
    drop(node.whole(5));
}

fn while_open(node: &Node, dir: &Path, disk: &Path) {
    let db = node.whole(5);
    let mut guard = SigningGuard::open(&db, KEY).unwrap();
    db.append_log(6, b"before").unwrap();
    db.sync_log().unwrap();
    run("mount", &["-o", "remount,abort", disk.to_str().unwrap()]);
    clear(guard.check_and_record(node.mark(6)), &node.dir);
    clear(db.commit(&node.commits[6]), &node.dir);
    clear(db.append_log(6, b"after").and_then(|()| db.sync_log()), &node.dir);
    clear(db.put_row("own", &1u64), &node.dir);
    clear(db.prune(Retention { blocks_epochs: 0, state_epochs: 0, ..Retention::default() }), &node.dir);
    clear(db.export_snapshot(3, &disk.join("export")), disk);
    // Reading goes on.
    assert_eq!(db.block(5).unwrap().unwrap(), node.commits[5].block);
    assert_eq!(guard.last(), Some(node.mark(5)), "what was not written was not signed");
    drop((db, guard));
    clear(node.open(), &node.dir);

    run("umount", &[disk.to_str().unwrap()]);
    let image = dir.join("image");
    run("e2fsck", &["-p", image.to_str().unwrap()]);
    run("mount", &["-o", "loop", image.to_str().unwrap(), disk.to_str().unwrap()]);
    let db = node.whole(5);
    let records = db.log_records().unwrap();
    assert_eq!(records.first().map(Vec::as_slice), Some(&b"before"[..]), "what was synced is there");
    let mut guard = SigningGuard::open(&db, KEY).unwrap();
    for commit in &node.commits[6..] {
        guard.check_and_record(node.mark(commit.height)).unwrap();
        db.commit(commit).unwrap();
    }
    drop((db, guard));
    drop(node.whole(8));
}
