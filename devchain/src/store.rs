//! The state file: one log of records, each with checksums.
//!
//! The first record is a *base*, a block with its whole state; every further record is one block with the keys it
//! changed. A record is `length u32, crc32 of the payload, crc32 of those 8 bytes, payload`, numbers little-endian,
//! payload in SCALE. A record that ends beyond the file was being written when the process died, before anybody saw
//! the block: it is cut off. Anything else that does not fit is corruption and stops the start.
//!
//! A block is written before it is shown to anybody, so SIGKILL loses nothing. It is not synced one by one: after a
//! power cut the last blocks may be missing. After [`COMPACT_AFTER`] blocks the log is rewritten from the oldest kept
//! block on, under another name, synced and renamed.

use crate::error::StoreError;
use crate::runtime::Header;
use crate::state::Changes;
use scale::{Decode, DecodeAll, Encode};
use sp_core::H256;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Blocks after which the log is rewritten: so seldom that it costs nothing, so often that a restart replays little.
pub(crate) const COMPACT_AFTER: usize = 2048;

/// No block or state of a development chain comes near this size; a greater length is corruption.
const MAX_RECORD_BYTES: usize = 1 << 30;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 12;
const LOG_NAME: &str = "chain.log";
const NEW_LOG_NAME: &str = "chain.log.new";
const LOCK_NAME: &str = "lock";

/// The block that the log begins with, and its whole state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Base {
    /// Version of the format.
    pub format: u8,
    /// Hash of block 0.
    pub genesis_hash: H256,
    /// Number of the first of `hashes`.
    pub first_hash: u32,
    /// Hashes of consecutive blocks, up to the base's own.
    pub hashes: Vec<H256>,
    /// The block.
    pub header: Header,
    /// Its extrinsics.
    pub extrinsics: Vec<Vec<u8>>,
    /// Its state.
    pub state: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One block and what it changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct BlockRecord {
    /// The block.
    pub header: Header,
    /// Its extrinsics.
    pub extrinsics: Vec<Vec<u8>>,
    /// Keys it changed.
    pub changes: Changes,
}

/// What a log holds.
pub(crate) struct Loaded {
    /// Its first record.
    pub base: Base,
    /// The blocks after it, each with its encoded record.
    pub blocks: Vec<(BlockRecord, Vec<u8>)>,
}

/// An open log. The lock lasts as long as it.
pub(crate) struct Store {
    folder: PathBuf,
    log: File,
    length: u64,
    records: usize,
    _lock: File,
}

impl Store {
    /// Open the folder, making it if need be, and read the log if there is one.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Option<Loaded>), StoreError> {
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let lock_path = folder.join(LOCK_NAME);
        let lock = OpenOptions::new().create(true).append(true).open(&lock_path).map_err(io(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::Locked(folder.to_owned()),
            TryLockError::Error(source) => StoreError::Io { path: lock_path, source },
        })?;
        let path = folder.join(LOG_NAME);
        let mut log =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io(&path))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).map_err(io(&path))?;
        let (loaded, length) = read_log(&path, &bytes)?;
        if length < bytes.len() {
            let lost = bytes.len() - length;
            tracing::warn!(path = %path.display(), bytes = lost, "the last record was cut off while being written; dropped");
            log.set_len(length as u64).map_err(io(&path))?;
        }
        log.seek(SeekFrom::Start(length as u64)).map_err(io(&path))?;
        let records = loaded.as_ref().map_or(0, |loaded| loaded.blocks.len());
        Ok((Self { folder: folder.to_owned(), log, length: length as u64, records, _lock: lock }, loaded))
    }

    /// Append one encoded record. On failure the log is as it was before.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        let record = frame(payload);
        let written = self.log.write_all(&record);
        if let Err(source) = written {
            let path = self.folder.join(LOG_NAME);
            self.log.set_len(self.length).map_err(io(&path))?;
            self.log.seek(SeekFrom::Start(self.length)).map_err(io(&path))?;
            return Err(StoreError::Io { path, source });
        }
        self.length += record.len() as u64;
        self.records += 1;
        Ok(())
    }

    /// Is it time to rewrite the log.
    pub(crate) fn wants_compaction(&self) -> bool {
        self.records >= COMPACT_AFTER
    }

    /// Replace the log by this base and these encoded block records.
    pub(crate) fn rewrite<'a>(
        &mut self,
        base: &Base,
        blocks: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), StoreError> {
        let (path, new_path) = (self.folder.join(LOG_NAME), self.folder.join(NEW_LOG_NAME));
        let mut bytes = frame(&base.encode());
        let mut records = 0;
        for block in blocks {
            bytes.extend_from_slice(&frame(block));
            records += 1;
        }
        let mut log = File::create(&new_path).map_err(io(&new_path))?;
        log.write_all(&bytes).and_then(|()| log.sync_all()).map_err(io(&new_path))?;
        std::fs::rename(&new_path, &path).map_err(io(&path))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io(&self.folder))?;
        (self.log, self.length, self.records) = (log, bytes.len() as u64, records);
        Ok(())
    }

    /// Path of the log, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(LOG_NAME)
    }

    /// Bring everything to the disk.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.log.sync_all().map_err(io(&self.path()))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_BYTES + payload.len());
    // A payload above the limit would be refused at the next start; none of a development chain's comes near it.
    record.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let check = crc32fast::hash(&record);
    record.extend_from_slice(&check.to_le_bytes());
    record.extend_from_slice(payload);
    record
}

/// Read all records; returns also the length up to which they are whole.
fn read_log(path: &Path, bytes: &[u8]) -> Result<(Option<Loaded>, usize), StoreError> {
    let mut loaded: Option<Loaded> = None;
    let mut offset = 0;
    while let Some(payload) = next_record(path, bytes, offset)? {
        let corrupt = |what: String| StoreError::Corrupt { path: path.to_owned(), offset: offset as u64, what };
        match &mut loaded {
            None => {
                let base = Base::decode_all(&mut &payload[..]).map_err(|error| corrupt(format!("base: {error}")))?;
                if base.format != FORMAT {
                    return Err(corrupt(format!("format {}, but this program writes {FORMAT}", base.format)));
                }
                loaded = Some(Loaded { base, blocks: Vec::new() });
            }
            Some(loaded) => {
                let block =
                    BlockRecord::decode_all(&mut &payload[..]).map_err(|error| corrupt(format!("block: {error}")))?;
                loaded.blocks.push((block, payload.to_vec()));
            }
        }
        offset += HEAD_BYTES + payload.len();
    }
    Ok((loaded, offset))
}

/// Payload of the record at `offset`, or `None` where the log ends or its last record is not whole.
fn next_record<'a>(path: &Path, bytes: &'a [u8], offset: usize) -> Result<Option<&'a [u8]>, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt { path: path.to_owned(), offset: offset as u64, what: what.into() };
    let rest = &bytes[offset..];
    let Some((head, body)) = rest.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if crc32fast::hash(&head[..8]) != number(8) {
        return Err(corrupt("checksum of the record's head"));
    }
    let length = number(0) as usize;
    if length > MAX_RECORD_BYTES {
        return Err(corrupt("length of the record"));
    }
    let Some(payload) = body.get(..length) else { return Ok(None) };
    if crc32fast::hash(payload) != number(4) {
        return Err(corrupt("checksum of the record"));
    }
    Ok(Some(payload))
}

impl Base {
    /// A base in the current format.
    pub(crate) fn new(
        genesis_hash: H256,
        (first_hash, hashes): (u32, Vec<H256>),
        header: Header,
        extrinsics: Vec<Vec<u8>>,
        state: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Self {
        Self { format: FORMAT, genesis_hash, first_hash, hashes, header, extrinsics, state }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use sp_runtime::traits::Header as _;

    fn header(number: u32) -> Header {
        Header::new(number, H256::zero(), H256::zero(), H256::zero(), Default::default())
    }

    fn base() -> Base {
        Base::new(H256::zero(), (0, vec![H256::zero()]), header(0), vec![], vec![(b"key".to_vec(), b"value".to_vec())])
    }

    fn block(number: u32) -> BlockRecord {
        BlockRecord { header: header(number), extrinsics: vec![vec![1, 2]], changes: vec![(b"key".to_vec(), None)] }
    }

    fn written(folder: &Path) -> PathBuf {
        let (mut store, loaded) = Store::open(folder).unwrap();
        assert!(loaded.is_none());
        store.rewrite(&base(), std::iter::empty()).unwrap();
        for number in 1..=3 {
            store.append(&block(number).encode()).unwrap();
        }
        store.path()
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let (_, loaded) = Store::open(folder.path()).unwrap();
        let loaded = loaded.unwrap();
        assert_eq!(loaded.base, base());
        assert_eq!(loaded.blocks.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>(), [1, 2, 3].map(block));
    }

    #[test]
    fn a_half_written_last_record_is_dropped_and_the_log_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let length = std::fs::metadata(&path).unwrap().len();
        for cut in [1, 5, frame(&block(3).encode()).len() as u64 - 1] {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(length - cut).unwrap();
            let (mut store, loaded) = Store::open(folder.path()).unwrap();
            assert_eq!(loaded.unwrap().blocks.len(), 2, "cut by {cut}");
            store.append(&block(3).encode()).unwrap();
            drop(store);
            assert_eq!(Store::open(folder.path()).unwrap().1.unwrap().blocks.len(), 3);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            let error = Store::open(folder.path()).err().unwrap();
            assert!(matches!(error, StoreError::Corrupt { .. }), "byte {at}: {error}");
        }
    }

    #[test]
    fn a_folder_serves_one_process_only() {
        let folder = tempfile::tempdir().unwrap();
        let open = Store::open(folder.path()).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Locked(_))));
        drop(open);
        assert!(Store::open(folder.path()).is_ok());
    }
}
