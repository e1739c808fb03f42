//! Snapshots in a folder: written by an export, read by an import and by who serves peers.
//!
//! The folder holds the files `manifest`, `handovers-00000` …, `block`, `chunk-00000` …, each the
//! exact bytes of that part ([`perturb_ledger::snapshot`]), and `SHA256SUMS` over all of them, which
//! `sha256sum -c` reads. It is made under the name `{name}.partial`, synced, and renamed: a folder
//! with its own name is whole.
//!
//! The rows of the newest height, or of an epoch's kept end, are read into memory (the state of a
//! subnet is some megabytes) and their tree is built anew: a snapshot is exported only where the rows
//! make the root that was agreed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use perturb_ledger::archive::Archive;
use perturb_ledger::snapshot::{
    self, BlockPart, ChunkLimits, Chunks, HANDOVERS_PER_PART, MAX_MANIFEST_BYTES, Manifest, Part, PartInfo,
    SnapshotError, handover_parts,
};
use perturb_ledger::store::Row;
use perturb_ledger::{Block, Certificate, MemoryStore, Receipt};
use perturb_ledger::{Genesis, LightError, Trust};
use perturb_types::{Digest, encode};
use rocksdb::IteratorMode;

use crate::database::{Database, META, VALUES, height_key};
use crate::error::StorageError;
use crate::failpoint::Write;

const MANIFEST: &str = "manifest";
const SUMS: &str = "SHA256SUMS";

/// What was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// SHA-256 of the manifest.
    pub manifest: Digest,
    /// Rows of the state.
    pub rows: u64,
    /// Chunks.
    pub chunks: u32,
    /// Bytes of all parts.
    pub bytes: u64,
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StorageError + '_ {
    |source| StorageError::Io { path: path.into(), source }
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))
}

/// The folder in which a path lies.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Bytes that an export or an import leaves free: the node's own log and commits come first.
const LEFT_FREE: u64 = 128 << 20;

/// Whether a folder's disk takes so many bytes besides what the node itself needs.
pub(crate) fn room(dir: &Path, bytes: u64) -> Result<(), StorageError> {
    let free = fs4::available_space(dir).map_err(io(dir))?;
    let wanted = bytes.saturating_add(LEFT_FREE);
    if free < wanted { Err(StorageError::Space { path: dir.into(), free, wanted }) } else { Ok(()) }
}

/// What a snapshot is made of.
struct Found {
    block: Block,
    receipts: Vec<Receipt>,
    certificate: Certificate,
    rows: Vec<Row>,
    tree: MemoryStore,
    limits: ChunkLimits,
}

/// Writes the files of one snapshot.
struct Folder {
    dir: PathBuf,
    sums: String,
    bytes: u64,
}

impl Folder {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.dir.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        Write::ExportPart.around(write).map_err(io(&path))?;
        self.bytes += bytes.len() as u64;
        if name != SUMS {
            self.sums.push_str(&format!("{}  {name}\n", Digest::of(bytes)));
        }
        Ok(())
    }
}

impl Database {
    /// Writes a snapshot of the state after a height, the newest or the end of a kept epoch, into a
    /// folder that does not exist yet.
    ///
    /// # Errors
    /// The disk, the folder exists, the rows or the block are not kept, or they are not those that
    /// were agreed.
    pub fn export_snapshot(&self, height: u64, dir: &Path) -> Result<Exported, StorageError> {
        self.export_in_chunks(height, dir, ChunkLimits::default())
    }

    /// As [`Database::export_snapshot`], with chunks of another size.
    ///
    /// # Errors
    /// The same.
    pub fn export_in_chunks(&self, height: u64, dir: &Path, limits: ChunkLimits) -> Result<Exported, StorageError> {
        if dir.exists() {
            return Err(StorageError::Exists(dir.into()));
        }
        let damaged = |why: String| StorageError::Damaged { what: format!("state after block {height}"), why };
        let Some(block) = self.held_block(height)?.filter(|_| height > 0) else {
            return Err(StorageError::NotKept { height, kept: self.epoch_heights()? });
        };
        let header = &block.header;
        let certificate = self.certificate(height)?.ok_or_else(|| damaged("its certificate is missing".into()))?;
        let receipts = self.receipts(height)?.ok_or_else(|| damaged("its receipts are missing".into()))?;
        let rows = self.whole_state(height)?;
        let (tree, root) = MemoryStore::restored(height, &rows).map_err(|e| damaged(e.to_string()))?;
        if root != header.state_root {
            return Err(damaged(format!("its rows make root {root}, the header names {}", header.state_root)));
        }

        let mut name = dir.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        let partial = dir.with_file_name(name);
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(io(&partial))?;
        }
        std::fs::create_dir_all(&partial).map_err(io(&partial))?;
        let all: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        let folder = Folder { dir: partial.clone(), sums: String::new(), bytes: 0 };
        let found = Found { block, receipts, certificate, rows, tree, limits };
        let made = room(&partial, all as u64).and_then(|()| self.fill(folder, found, dir));
        if made.is_err() && partial.exists() {
            // A disk that is full needs the space for more important things.
            std::fs::remove_dir_all(&partial).map_err(io(&partial))?;
        }
        made
    }

    fn fill(&self, mut folder: Folder, found: Found, dir: &Path) -> Result<Exported, StorageError> {
        let Found { block, receipts, certificate, rows, tree, limits } = found;
        let (header, count) = (block.header.clone(), rows.len() as u64);
        let height = header.height;
        let handovers = self.export_handovers(&mut folder, height)?;
        let part = encode::encode(&BlockPart { block, receipts });
        let info = PartInfo::of(header.transactions as usize, &part);
        folder.put(&Part::Block.to_string(), &part)?;
        let mut chunks = Vec::new();
        for chunk in Chunks::new(&tree, height, rows, limits) {
            let (info, bytes) = chunk.map_err(|e| StorageError::Ledger(e.to_string()))?;
            folder.put(&Part::Chunk(chunks.len() as u32).to_string(), &bytes)?;
            chunks.push(info);
        }
        let count_chunks = chunks.len() as u32;
        let manifest = Manifest { format: snapshot::FORMAT, header, certificate, block: info, handovers, chunks };
        let bytes = encode::encode(&manifest);
        // What an import would refuse is not given a name.
        Manifest::decode(&bytes)?;
        folder.put(MANIFEST, &bytes)?;
        let sums = std::mem::take(&mut folder.sums);
        folder.put(SUMS, sums.as_bytes())?;
        sync_dir(&folder.dir)?;
        Write::ExportRename.around(|| std::fs::rename(&folder.dir, dir).map_err(io(dir)))?;
        sync_dir(parent(dir))?;
        Ok(Exported { manifest: Digest::of(&bytes), rows: count, chunks: count_chunks, bytes: folder.bytes })
    }

    fn export_handovers(&self, folder: &mut Folder, below: u64) -> Result<Vec<PartInfo>, StorageError> {
        let (mut out, mut from) = (Vec::new(), 0);
        loop {
            let mut some =
                self.handovers_from(from, HANDOVERS_PER_PART).map_err(|e| StorageError::Ledger(e.to_string()))?;
            some.retain(|h| h.header.height < below);
            let Some(last) = some.last() else { return Ok(out) };
            from = last.header.height.saturating_add(1);
            for (info, bytes) in handover_parts(&some) {
                folder.put(&Part::Handovers(out.len() as u32).to_string(), &bytes)?;
                out.push(info);
            }
        }
    }

    /// All rows after a height, by rising key.
    fn whole_state(&self, height: u64) -> Result<Vec<Row>, StorageError> {
        let page = self.rows_at(height, None, usize::MAX).map_err(|e| StorageError::Ledger(e.to_string()))?;
        if let Some(page) = page {
            return Ok(page.rows);
        }
        // Height and rows of one moment, whatever is committed meanwhile.
        let moment = self.inner.db.snapshot();
        let newest = moment.get_cf(self.family(META)?, b"height").map_err(|e| self.failed(e))?;
        if newest.as_deref() != Some(height_key(height).as_slice()) {
            return Err(StorageError::NotKept { height, kept: self.epoch_heights()? });
        }
        let rows = moment.iterator_cf(self.family(VALUES)?, IteratorMode::Start);
        rows.map(|row| row.map(|(k, v)| (k.into_vec(), v.into_vec())).map_err(|e| self.failed(e))).collect()
    }
}

/// A snapshot in a folder.
pub struct SnapshotFolder {
    dir: PathBuf,
    bytes: Vec<u8>,
    manifest: Manifest,
}

impl SnapshotFolder {
    /// Reads the manifest of a folder; nothing in it is trusted.
    ///
    /// # Errors
    /// The file system, or no manifest.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let bytes = read(&dir.join(MANIFEST), MAX_MANIFEST_BYTES)?;
        let manifest = Manifest::decode(&bytes)?;
        Ok(Self { dir: dir.into(), bytes, manifest })
    }

    /// The manifest's bytes.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where belief begins: genesis, and the header that the operator knows by height and digest
    /// where `point` is given. A snapshot shows its own header and those that changed the set.
    ///
    /// # Errors
    /// It does not show that header, shows another one, or the genesis file makes no network.
    pub fn trust(&self, genesis: &Genesis, point: Option<(u64, Digest)>) -> Result<Trust, StorageError> {
        let trust = Trust::genesis(genesis).map_err(|e| StorageError::Ledger(e.to_string()))?;
        let Some((height, expected)) = point else { return Ok(trust) };
        let (network, own) = (trust.network(), &self.manifest.header);
        if height == own.height {
            // An import takes it only where genesis leads to it: with the digest, all of it is known.
            let found = own.digest(&network);
            let wrong = LightError::Anchor { height, found, expected };
            return if found == expected { Ok(trust) } else { Err(SnapshotError::Light(wrong).into()) };
        }
        let mut shown = Vec::new();
        for n in 0..self.manifest.handovers.len() as u32 {
            for handover in self.manifest.read_handovers(n, &self.part(Part::Handovers(n))?)? {
                if handover.header.height == height {
                    let trust = Trust::header(network, (height, expected), &handover.header, handover.next);
                    return Ok(trust.map_err(SnapshotError::from)?);
                }
                shown.push(handover.header.height);
            }
        }
        shown.push(own.height);
        Err(StorageError::NotShown { height, shown })
    }

    /// The bytes of a part, at most one more than the manifest says; who reads them checks them.
    ///
    /// # Errors
    /// The file system, or no such part.
    pub fn part(&self, part: Part) -> Result<Vec<u8>, StorageError> {
        let limit = self.manifest.bytes_of(part).ok_or(SnapshotError::Spent)?;
        read(&self.dir.join(part.to_string()), limit)
    }
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io(path))?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(io(path))?;
    Ok(bytes)
}
