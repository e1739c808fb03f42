//! The snapshots that this node holds for others: folders under `snapshots/`, by height.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use perturb_ledger::query::unchecked_from;
use perturb_ledger::snapshot::{MAX_REQUEST_BYTES, Offer, Request};
use perturb_p2p::Decline;
use perturb_storage::{Database, Pruned, Retention, SnapshotFolder, StorageError};
use perturb_types::{Digest, encode};

/// Snapshots kept: who has begun to fetch one has an epoch's time to finish.
const KEPT: usize = 2;

struct Snapshot {
    height: u64,
    digest: Digest,
    folder: SnapshotFolder,
}

/// The snapshots in one data folder.
pub struct Shelf {
    database: Database,
    dir: PathBuf,
    /// By rising height.
    held: RwLock<Vec<Snapshot>>,
    /// The epoch's end up to which everything is done.
    renewed: AtomicU64,
}

impl Shelf {
    /// Reads what is there: folders of this network's snapshots. What an export that was cut off left is
    /// removed, and so is a snapshot that cannot be used; anything else is left alone.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(database: Database, dir: PathBuf) -> Result<Self, StorageError> {
        let io = |source| StorageError::Io { path: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(io)?;
        let network = database.header(0)?.map(|genesis| genesis.network);
        let mut held = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let own = path.is_dir() && name.trim_end_matches(".partial").parse::<u64>().is_ok();
            match read(&path).filter(|s| Some(s.folder.manifest().header.network) == network) {
                Some(snapshot) => held.push(snapshot),
                None if own => remove(&path),
                None => tracing::warn!(path = %path.display(), "not a snapshot of this network"),
            }
        }
        held.sort_by_key(|s| s.height);
        Ok(Self { database, dir: dir.clone(), held: RwLock::new(held), renewed: AtomicU64::new(0) })
    }

    /// Makes the snapshot of the newest epoch's end where it is missing, removes old ones, and
    /// prunes the database, whether or not that worked.
    ///
    /// # Errors
    /// The disk.
    pub fn renew(&self, policy: Retention) -> Result<(), StorageError> {
        // Genesis is everybody's own.
        let Some(height) = self.database.epoch_heights()?.last().copied().filter(|h| *h > 0) else { return Ok(()) };
        // The next block names the certificate that all nodes have from then on: the same snapshot everywhere.
        if self.database.height()? <= Some(height) || self.renewed.load(Ordering::Relaxed) >= height {
            return Ok(());
        }
        let made = self.make(height);
        let needed_from = unchecked_from(&self.database).map_err(|e| StorageError::Ledger(e.to_string()))?;
        let policy = Retention { needed_from: needed_from.unwrap_or(u64::MAX), ..policy };
        let pruned = self.database.prune(policy)?;
        if pruned != Pruned::default() {
            tracing::info!(?pruned, "the past was pruned by policy");
        }
        made?;
        self.renewed.store(height, Ordering::Relaxed);
        Ok(())
    }

    fn make(&self, height: u64) -> Result<(), StorageError> {
        if self.held.read().unwrap_or_else(PoisonError::into_inner).iter().any(|s| s.height >= height) {
            return Ok(());
        }
        let path = self.dir.join(format!("{height:020}"));
        let made = self.database.export_snapshot(height, &path)?;
        tracing::info!(height, rows = made.rows, chunks = made.chunks, bytes = made.bytes, "a snapshot was made");
        let old: Vec<Snapshot> = {
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            held.extend(read(&path));
            let surplus = held.len().saturating_sub(KEPT);
            held.drain(..surplus).collect()
        };
        old.iter().for_each(|snapshot| remove(&self.dir.join(format!("{:020}", snapshot.height))));
        Ok(())
    }

    fn offer(&self) -> Result<Offer, StorageError> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Offer {
            tip: self.database.height()?.unwrap_or(0),
            oldest_block: self.database.oldest()?.block.max(1),
            snapshot: held.last().map(|s| (s.height, s.digest)),
        })
    }

    /// Answers a peer's request. Blocks.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn answer(&self, request: &[u8]) -> Result<Vec<u8>, Decline> {
        let internal = |error: StorageError| {
            tracing::error!(%error, "a snapshot cannot be read");
            Decline::Internal
        };
        let request = encode::decode("snapshot request", request, MAX_REQUEST_BYTES).map_err(|_| Decline::Malformed)?;
        let held = || self.held.read().unwrap_or_else(PoisonError::into_inner);
        match request {
            Request::Offer => Ok(encode::encode(&self.offer().map_err(internal)?)),
            Request::Manifest(digest) => {
                let held = held();
                let found = held.iter().find(|s| s.digest == digest).ok_or(Decline::NotFound)?;
                Ok(found.folder.manifest_bytes().to_vec())
            }
            Request::Part(digest, part) => {
                let held = held();
                let found = held.iter().find(|s| s.digest == digest).ok_or(Decline::NotFound)?;
                found.folder.manifest().bytes_of(part).ok_or(Decline::NotFound)?;
                found.folder.part(part).map_err(internal)
            }
        }
    }
}

/// Removes a snapshot. One that stays is only in the way.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(%error, path = %path.display(), "an old snapshot stays");
    }
}

/// A snapshot whose folder is named by its height.
fn read(path: &Path) -> Option<Snapshot> {
    let folder = SnapshotFolder::open(path).ok()?;
    let height = folder.manifest().header.height;
    let named = path.file_name()?.to_str()?.parse() == Ok(height);
    named.then(|| Snapshot { height, digest: Digest::of(folder.manifest_bytes()), folder })
}
