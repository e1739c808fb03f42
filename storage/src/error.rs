//! What can go wrong on disk.

use std::path::PathBuf;

use perturb_ledger::snapshot::SnapshotError;
use perturb_types::NetworkId;

/// What to do where the files themselves may be at fault.
const DAMAGED: &str = "if it is damaged, move this folder away, keep `signing-guard` beside it, and start again: the node fetches the history from its peers";

/// What to do where the system's word says that the files are not at fault.
fn remedy(said: &str) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 3] = [
        (
            "Read-only file system",
            "see why in the kernel's log, mount it writable and start again: nothing is lost of what was acknowledged",
        ),
        ("No space left on device", "make room and start again: nothing is lost of what was acknowledged"),
        ("Permission denied", "the folder and all in it must belong to the user that the node runs as"),
    ];
    REMEDIES.iter().find(|(word, _)| said.contains(word)).map(|(_, remedy)| *remedy)
}

/// A failure of the disk or of what is on it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the folder.
    #[error("data folder {0} is in use by another process; stop it first, or choose another --data-dir")]
    Locked(PathBuf),
    /// The folder belongs to another network.
    #[error(
        "data folder {path} belongs to network {found}, not to {expected}; choose another --data-dir or the right --genesis"
    )]
    OtherNetwork {
        /// The folder.
        path: PathBuf,
        /// Its network.
        found: NetworkId,
        /// The one asked for.
        expected: NetworkId,
    },
    /// Written by another format.
    #[error("data folder {path} has format {found}, this program reads {expected}; use the program that wrote it")]
    Format {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// This program's.
        expected: u32,
    },
    /// The import of a snapshot was cut off.
    #[error("the import of a snapshot into {0} was cut off: run it again, or remove that folder")]
    Unfinished(PathBuf),
    /// What is to be made is there already.
    #[error("{0} exists; an import needs a data folder without a database, an export a name that is free")]
    Exists(PathBuf),
    /// Too little space for something that can wait.
    #[error(
        "{path}: {free} bytes are free, {wanted} are wanted for a snapshot; make room, the node goes on without it"
    )]
    Space {
        /// The folder.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes wanted.
        wanted: u64,
    },
    /// A snapshot that would take this node back.
    #[error("the snapshot is of height {height}, and this node is at {have}")]
    NotAhead {
        /// The snapshot's height.
        height: u64,
        /// This node's.
        have: u64,
    },
    /// It was there and was removed by the policy of this node.
    #[error("{what} {height} was pruned: this node keeps them from {oldest} on; ask one that keeps more")]
    Pruned {
        /// Block, or state after block.
        what: &'static str,
        /// The height asked for.
        height: u64,
        /// The lowest that is kept.
        oldest: u64,
    },
    /// The whole state is kept for the newest height and the ends of some epochs only.
    #[error("the whole state after block {height} is not kept; it is for {kept:?} and the newest height")]
    NotKept {
        /// The height asked for.
        height: u64,
        /// The heights for which it is.
        kept: Vec<u64>,
    },
    /// A trusted header that a snapshot does not hold, so that it cannot be compared.
    #[error(
        "the snapshot does not show header {height}; it shows {shown:?}: trust one of these, or take a newer snapshot"
    )]
    NotShown {
        /// The height that is trusted.
        height: u64,
        /// Its own height, and those at which the set changed.
        shown: Vec<u64>,
    },
    /// A snapshot that is not what it says.
    #[error("snapshot: {0}")]
    Snapshot(SnapshotError),
    /// The ledger's word on what was read.
    #[error("{0}")]
    Ledger(String),
    /// RocksDB cannot open or use the files.
    #[error("database in {path}: {what}; {}", remedy(what).unwrap_or(DAMAGED))]
    Database {
        /// The folder.
        path: PathBuf,
        /// RocksDB's word.
        what: String,
    },
    /// A row that does not read back.
    #[error(
        "damaged record {what}: {why}; move the folder `database` in the data folder away, keep `signing-guard`, and start again: the node fetches the history from its peers"
    )]
    Damaged {
        /// Which.
        what: String,
        /// How.
        why: String,
    },
    /// The file system.
    #[error("{path}: {source}{}", remedy(&source.to_string()).map(|what| format!("; {what}")).unwrap_or_default())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The guard file lost what it knew.
    #[error(
        "signing guard {0} is damaged: what this key signed is not known; restore the file, or retire the key and make a new one: signing on could contradict an earlier signature"
    )]
    GuardDamaged(PathBuf),
    /// The guard file belongs to another key.
    #[error(
        "signing guard {path} belongs to consensus key {found}, not to {expected}; a key and its guard move together"
    )]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// The key in it.
        found: perturb_types::ConsensusKey,
        /// The key asked for.
        expected: perturb_types::ConsensusKey,
    },
    /// A signature that contradicts an earlier one.
    #[error(
        "refusing to sign {wanted}: {signed} was signed before; is the same key in use elsewhere, or was the data folder rolled back?"
    )]
    Conflict {
        /// What was signed.
        signed: String,
        /// What should have been.
        wanted: String,
    },
}

// By hand: with a source, every report would say the same twice.
impl From<SnapshotError> for StorageError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}
