//! Taking over a database that was imported beside the one in use.
//!
//! What the old one knows besides the agreed history goes along: this node's own rows (rounds that it
//! opened, transactions that still wait), its images, and that its key has a signing guard. The guard
//! itself is a file beside both. The consensus log stays behind: it is of heights that the new one is
//! past.
//!
//! Every step can be cut off and is done again at the next start:
//! `database` + `database.ready` → rows carried over → `database` becomes `database.superseded` →
//! `database.ready` becomes `database` → `database.superseded` is removed.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use perturb_types::NetworkId;
use rocksdb::{IteratorMode, WriteBatch};

use crate::database::{Database, FOLDER, IMAGE_ROUNDS, IMAGES, META, Options, READY, ROWS, SUPERSEDED};
use crate::error::StorageError;
use crate::export::{io, sync_dir};
use crate::failpoint::Write;
use crate::guard::KNOWN;

/// Bytes after which a batch is written: some images.
const BATCH_BYTES: usize = 8 << 20;

/// Completes what an import beside this folder's database left, if it did.
pub(crate) fn adopt(dir: &Path, lock: &Arc<File>, network: &NetworkId, options: Options) -> Result<(), StorageError> {
    let [place, ready, old] = [FOLDER, READY, SUPERSEDED].map(|name| dir.join(name));
    let remove = |path: &Path| std::fs::remove_dir_all(path).map_err(io(path));
    if ready.exists() {
        if place.exists() {
            let open = |path| Database::open_at(path, lock.clone(), network, options);
            let (from, to) = (open(&place)?, open(&ready)?);
            if to.height()? <= from.height()? {
                // It went on by itself in the meantime.
                drop(to);
                return remove(&ready);
            }
            carry(&from, &to)?;
            drop((from, to));
            if old.exists() {
                remove(&old)?;
            }
            Write::AdoptAside.around(|| std::fs::rename(&place, &old).map_err(io(&old)))?;
        }
        Write::AdoptRename.around(|| std::fs::rename(&ready, &place).map_err(io(&place)))?;
        sync_dir(dir)?;
    }
    if old.exists() && place.exists() {
        remove(&old)?;
    }
    Ok(())
}

fn carry(from: &Database, to: &Database) -> Result<(), StorageError> {
    let (mut batch, mut bytes) = (WriteBatch::default(), 0);
    for family in [ROWS, IMAGES, IMAGE_ROUNDS, META] {
        for row in from.inner.db.iterator_cf(from.family(family)?, IteratorMode::Start) {
            let (key, value) = row.map_err(|e| from.failed(e))?;
            if family == META && !key.starts_with(KNOWN) {
                continue;
            }
            bytes += key.len() + value.len();
            batch.put_cf(to.family(family)?, key, value);
            if bytes > BATCH_BYTES {
                to.write(Write::AdoptRows, std::mem::take(&mut batch), false)?;
                bytes = 0;
            }
        }
    }
    to.write(Write::AdoptRows, batch, true)
}
