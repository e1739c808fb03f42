//! The database: opening, locking, committing, blocks.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use perturb_ledger::{Block, Certificate, Commit, Header, Receipt};
use perturb_types::encode;
use perturb_types::{Digest, NetworkId};
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Direction, IteratorMode, WriteBatch, WriteOptions};

use crate::adopt::adopt;
use crate::error::StorageError;
use crate::failpoint::Write;
use crate::shelves::Held;

/// The format of this program's folders. 5: images by round.
pub const FORMAT: u32 = 5;

/// The folder of the database in a data folder.
pub(crate) const FOLDER: &str = "database";
/// Its name while a snapshot is imported.
pub(crate) const IMPORTING: &str = "database.importing";
/// Its name when it is whole and waits for the next start.
pub(crate) const READY: &str = "database.ready";
/// The name of the one that it takes the place of.
pub(crate) const SUPERSEDED: &str = "database.superseded";

pub(crate) const META: &str = "meta";
pub(crate) const BLOCKS: &str = "blocks";
pub(crate) const CERTIFICATES: &str = "certificates";
pub(crate) const RECEIPTS: &str = "receipts";
pub(crate) const DIGESTS: &str = "digests";
pub(crate) const VALUES: &str = "values";
pub(crate) const NODES: &str = "tree-nodes";
pub(crate) const TREE_VALUES: &str = "tree-values";
pub(crate) const STALE: &str = "tree-stale";
pub(crate) const LOG: &str = "log";
pub(crate) const IMAGES: &str = "images";
pub(crate) const IMAGE_ROUNDS: &str = "image-rounds";
pub(crate) const ROWS: &str = "rows";
pub(crate) const HANDOVERS: &str = "handovers";
pub(crate) const ROUNDS: &str = "rounds";
pub(crate) const EPOCH_ROWS: &str = "epoch-rows";
/// Headers that outlive their blocks.
pub(crate) const HEADERS: &str = "headers";

const FAMILIES: [&str; 17] = [
    META,
    BLOCKS,
    CERTIFICATES,
    RECEIPTS,
    DIGESTS,
    VALUES,
    NODES,
    TREE_VALUES,
    STALE,
    LOG,
    IMAGES,
    IMAGE_ROUNDS,
    ROWS,
    HANDOVERS,
    ROUNDS,
    EPOCH_ROWS,
    HEADERS,
];

/// Marks a stale row as a value of the tree; a node has none.
pub(crate) const STALE_VALUE: [u8; 1] = [1];

/// Stale tree nodes and values removed with one commit: bounds the commit's time, and more than a block makes.
pub(crate) const PRUNED_PER_COMMIT: usize = 20_000;

/// What an operator may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Heights for which old states can still be proved.
    pub kept_versions: u64,
    /// Closed epochs whose whole state is kept, for replays.
    pub kept_epochs: u64,
    /// Bytes of images: three quarters for own rounds, one for copies of others'.
    pub max_image_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { kept_versions: 10_000, kept_epochs: 8, max_image_bytes: 4 << 30 }
    }
}

pub(crate) struct Inner {
    pub(crate) db: DB,
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    /// Taken by whoever reads a row of META to write it again: commits and pruning.
    pub(crate) past: Mutex<()>,
    /// What images are held; taken by whoever adds or removes one.
    pub(crate) images: Mutex<Held>,
    /// Held as long as the database: the lock ends with the process, however it ends.
    pub(crate) lock: Arc<File>,
}

/// The bytes of a block and of its certificate.
pub type BlockBytes = (Vec<u8>, Vec<u8>);

/// A node's database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) fn height_key(height: u64) -> [u8; 8] {
    height.to_be_bytes()
}

pub(crate) fn lock(dir: &Path) -> Result<Arc<File>, StorageError> {
    std::fs::create_dir_all(dir).map_err(|source| StorageError::Io { path: dir.into(), source })?;
    let path = dir.join("lock");
    let io = |source| StorageError::Io { path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => Ok(Arc::new(file)),
        Err(fs4::TryLockError::WouldBlock) => Err(StorageError::Locked(dir.into())),
        Err(fs4::TryLockError::Error(e)) => Err(io(e)),
    }
}

impl Database {
    /// Opens (or makes) the database of a data folder for a network.
    ///
    /// # Errors
    /// The folder is in use, of another network or format, or damaged.
    pub fn open(dir: &Path, network: &NetworkId, options: Options) -> Result<Self, StorageError> {
        let lock = lock(dir)?;
        adopt(dir, &lock, network, options)?;
        let (path, unfinished) = (dir.join(FOLDER), dir.join(IMPORTING));
        if !path.exists() && unfinished.exists() {
            return Err(StorageError::Unfinished(unfinished));
        }
        Self::open_at(&path, lock, network, options)
    }

    /// Opens (or makes) the files in `path`, a folder beside the lock.
    pub(crate) fn open_at(
        path: &Path,
        lock: Arc<File>,
        network: &NetworkId,
        options: Options,
    ) -> Result<Self, StorageError> {
        let path = path.to_path_buf();
        let mut o = rocksdb::Options::default();
        o.create_if_missing(true);
        o.create_missing_column_families(true);
        o.set_keep_log_file_num(2);
        // A torn tail was never synced, so never spoken, and is dropped. Damage before the end is
        // an error: point-in-time recovery would silently forget committed heights behind it.
        o.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
        o.set_max_total_wal_size(64 << 20);
        o.set_max_open_files(256);
        let families = FAMILIES.map(|name| {
            let mut o = rocksdb::Options::default();
            o.set_compression_type(rocksdb::DBCompressionType::Lz4);
            o.set_write_buffer_size(16 << 20);
            ColumnFamilyDescriptor::new(name, o)
        });
        let failed = |e: rocksdb::Error| StorageError::Database { path: path.clone(), what: e.to_string() };
        let db = DB::open_cf_descriptors(&o, &path, families).map_err(failed)?;
        let this = Self {
            inner: Arc::new(Inner { db, path, options, past: Mutex::default(), images: Mutex::default(), lock }),
        };
        this.identify(this.data_dir(), network)?;
        this.load_images()?;
        Ok(this)
    }

    /// Checks or writes what the folder is.
    fn identify(&self, dir: &Path, network: &NetworkId) -> Result<(), StorageError> {
        let Some(bytes) = self.get(META, b"identity")? else {
            return self.put_synced(Write::Identity, META, b"identity", &encode::encode(&(FORMAT, network)));
        };
        let (format, found): (u32, NetworkId) = self.parse("identity", &bytes)?;
        if format != FORMAT {
            return Err(StorageError::Format { path: dir.into(), found: format, expected: FORMAT });
        }
        if found != *network {
            return Err(StorageError::OtherNetwork { path: dir.into(), found, expected: *network });
        }
        Ok(())
    }

    /// The folder that holds the database, the lock and the signing guard.
    pub(crate) fn data_dir(&self) -> &Path {
        self.inner.path.parent().unwrap_or(&self.inner.path)
    }

    pub(crate) fn failed(&self, e: impl std::fmt::Display) -> StorageError {
        StorageError::Database { path: self.inner.path.clone(), what: e.to_string() }
    }

    pub(crate) fn family(&self, name: &'static str) -> Result<&ColumnFamily, StorageError> {
        self.inner.db.cf_handle(name).ok_or_else(|| self.failed(format!("column family `{name}` is missing")))
    }

    pub(crate) fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.db.get_cf(self.family(family)?, key).map_err(|e| self.failed(e))
    }

    pub(crate) fn put_synced(
        &self,
        what: Write,
        family: &'static str,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(family)?, key, value);
        self.write(what, batch, true)
    }

    pub(crate) fn write(&self, what: Write, batch: WriteBatch, sync: bool) -> Result<(), StorageError> {
        let mut o = WriteOptions::default();
        o.set_sync(sync);
        what.around(|| self.inner.db.write_opt(batch, &o).map_err(|e| self.failed(e)))
    }

    /// One writer of the past at a time.
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.inner.past.lock()
    }

    pub(crate) fn parse<T: borsh::BorshDeserialize>(&self, what: &str, bytes: &[u8]) -> Result<T, StorageError> {
        borsh::from_slice(bytes).map_err(|e| StorageError::Damaged { what: what.into(), why: e.to_string() })
    }

    /// Writes a height: block, certificate, state, tree, and the cleared log, in one synced batch.
    ///
    /// # Errors
    /// The disk; nothing of it is written then.
    pub fn commit(&self, commit: &Commit) -> Result<(), StorageError> {
        let _alone = self.alone();
        let mut batch = WriteBatch::default();
        let height = height_key(commit.height);
        batch.put_cf(self.family(BLOCKS)?, height, encode::encode(&commit.block));
        if let Some(certificate) = &commit.certificate {
            batch.put_cf(self.family(CERTIFICATES)?, height, encode::encode(certificate));
        }
        // Each node has seen another quorum for its newest block; which one is agreed the next block says.
        if let Some(agreed) = &commit.block.body.parent_certificate {
            batch.put_cf(self.family(CERTIFICATES)?, height_key(agreed.height), encode::encode(agreed));
        }
        batch.put_cf(self.family(RECEIPTS)?, height, encode::encode(&commit.receipts));
        batch.put_cf(self.family(DIGESTS)?, commit.digest.0, height);
        let values = self.family(VALUES)?;
        for (key, value) in &commit.values {
            match value {
                Some(value) => batch.put_cf(values, key, value),
                None => batch.delete_cf(values, key),
            }
        }
        self.put_tree(&mut batch, commit)?;
        self.prune_tree(&mut batch, commit.height)?;
        self.put_past(&mut batch, commit)?;
        // Everything of this height and before is settled.
        let log = self.family(LOG)?;
        batch.delete_range_cf(log, [0u8; 16].as_slice(), crate::log::key(commit.height + 1, 0).as_slice());
        batch.put_cf(self.family(META)?, b"height", height);
        self.write(Write::Commit, batch, true)
    }

    fn prune_tree(&self, batch: &mut WriteBatch, height: u64) -> Result<(), StorageError> {
        let Some(before) = height.checked_sub(self.inner.options.kept_versions) else { return Ok(()) };
        self.drop_stale(batch, before, &[]).map(drop)
    }

    /// Removes what is stale since `before` or earlier, a piece of it, beginning with the row after
    /// `from`; returns how much, and the last row. What is removed leaves marks that a walk from the
    /// start would come past again.
    pub(crate) fn drop_stale(
        &self,
        batch: &mut WriteBatch,
        before: u64,
        from: &[u8],
    ) -> Result<(usize, Box<[u8]>), StorageError> {
        let (mut dropped, mut last) = (0, Box::from(from));
        let stale = self.family(STALE)?;
        let (nodes, values) = (self.family(NODES)?, self.family(TREE_VALUES)?);
        for row in
            self.inner.db.iterator_cf(stale, IteratorMode::From(from, Direction::Forward)).take(PRUNED_PER_COMMIT)
        {
            let (key, kind) = row.map_err(|e| self.failed(e))?;
            let Some((since, stale_key)) = key.split_at_checked(8) else { continue };
            let since: [u8; 8] = since.try_into().unwrap_or_default();
            if u64::from_be_bytes(since) > before {
                break;
            }
            batch.delete_cf(if *kind == STALE_VALUE { values } else { nodes }, stale_key);
            batch.delete_cf(stale, &key);
            dropped += 1;
            last = key;
        }
        Ok((dropped, last))
    }

    /// The newest committed height; `None` while the database is empty.
    ///
    /// # Errors
    /// The disk.
    pub fn height(&self) -> Result<Option<u64>, StorageError> {
        self.number("height")
    }

    /// A number of META.
    pub(crate) fn number(&self, name: &'static str) -> Result<Option<u64>, StorageError> {
        let Some(bytes) = self.get(META, name.as_bytes())? else { return Ok(None) };
        let bytes: [u8; 8] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| StorageError::Damaged { what: name.into(), why: format!("{} bytes", bytes.len()) })?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    /// A committed block. `None` below [`Database::oldest`] means pruned, not absent.
    ///
    /// # Errors
    /// The disk.
    pub fn block(&self, height: u64) -> Result<Option<Block>, StorageError> {
        self.get(BLOCKS, &height_key(height))?.map(|b| self.parse(&format!("block {height}"), &b)).transpose()
    }

    /// A committed block's header. Those that end an epoch or change the set outlive their blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn header(&self, height: u64) -> Result<Option<Header>, StorageError> {
        if let Some(block) = self.block(height)? {
            return Ok(Some(block.header));
        }
        self.get(HEADERS, &height_key(height))?.map(|b| self.parse(&format!("header {height}"), &b)).transpose()
    }

    /// A committed block's certificate; genesis has none.
    ///
    /// # Errors
    /// The disk.
    pub fn certificate(&self, height: u64) -> Result<Option<Certificate>, StorageError> {
        let bytes = self.get(CERTIFICATES, &height_key(height))?;
        bytes.map(|b| self.parse(&format!("certificate {height}"), &b)).transpose()
    }

    /// What a committed block's transactions did, in their order.
    ///
    /// # Errors
    /// The disk.
    pub fn receipts(&self, height: u64) -> Result<Option<Vec<Receipt>>, StorageError> {
        let bytes = self.get(RECEIPTS, &height_key(height))?;
        bytes.map(|b| self.parse(&format!("receipts {height}"), &b)).transpose()
    }

    /// The height of a header's digest.
    ///
    /// # Errors
    /// The disk.
    pub fn height_of(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        let bytes = self.get(DIGESTS, &digest.0)?;
        Ok(bytes.and_then(|b| Some(u64::from_be_bytes(b.as_slice().try_into().ok()?))))
    }

    /// The bytes of committed blocks from a height on with their certificates: at most `count`,
    /// and at most `max_bytes` (one block always fits).
    ///
    /// # Errors
    /// The disk.
    pub fn block_range(&self, from: u64, count: usize, max_bytes: usize) -> Result<Vec<BlockBytes>, StorageError> {
        let (mut out, mut bytes) = (Vec::new(), 0usize);
        for height in (from.max(1)..).take(count) {
            let key = height_key(height);
            let (Some(block), Some(certificate)) = (self.get(BLOCKS, &key)?, self.get(CERTIFICATES, &key)?) else {
                break;
            };
            bytes = bytes.saturating_add(block.len()).saturating_add(certificate.len());
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            out.push((block, certificate));
        }
        Ok(out)
    }
}
