//! The state file: one log of records, each with checksums.
//!
//! The first record is a *base*, a block with its whole state; every further record is one block with the keys it
//! changed. A record is `length u32, crc32 of the payload, crc32 of those 8 bytes, payload`, numbers little-endian,
//! payload in SCALE.
//!
//! A block is written and synced before it is shown to anybody, so neither SIGKILL nor a power cut loses a block that
//! somebody was told of. What may stand after the last synced record is a record cut short, or the zeros of a file
//! that grew before its data arrived: nobody saw that block, and it is cut off. Anything else that does not fit is
//! corruption and stops the start. The base is never cut short: after [`COMPACT_AFTER`] blocks, and at the very
//! beginning, the log is written under another name, synced and renamed. So a log without a whole base is corrupt too,
//! an empty one included. Whole records missing at the end cannot be told from blocks that were never made.

use crate::error::StoreError;
use crate::runtime::Header;
use crate::state::Changes;
use scale::{Decode, DecodeAll, Encode};
use sp_core::H256;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
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
    /// A failed append could not be undone: the file may go on after `length`.
    torn: bool,
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
        let mut log = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(log) => log,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Nothing is appended before `rewrite`, which puts the log in place.
                let new_path = folder.join(NEW_LOG_NAME);
                let log = File::create(&new_path).map_err(io(&new_path))?;
                let folder = folder.to_owned();
                return Ok((Self { folder, log, length: 0, records: 0, torn: false, _lock: lock }, None));
            }
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).map_err(io(&path))?;
        let (loaded, length) = read_log(&path, &bytes)?;
        if length < bytes.len() {
            let lost = bytes.len() - length;
            tracing::warn!(path = %path.display(), bytes = lost, "the last record was cut off while being written; dropped");
            log.set_len(length as u64).map_err(io(&path))?;
        }
        log.seek(SeekFrom::Start(length as u64)).map_err(io(&path))?;
        let records = loaded.blocks.len();
        let folder = folder.to_owned();
        Ok((Self { folder, log, length: length as u64, records, torn: false, _lock: lock }, Some(loaded)))
    }

    /// Append one encoded record and bring it to the disk. On failure the record does not count.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        let record = frame(payload);
        let path = self.path();
        if self.torn {
            self.undo().map_err(io(&path))?;
        }
        if let Err(source) = self.log.write_all(&record).and_then(|()| self.log.sync_data()) {
            self.torn = true;
            // What cannot be undone now is undone before the next record.
            if let Err(error) = self.undo() {
                tracing::warn!(path = %path.display(), %error, "a record that failed could not be cut off yet");
            }
            return Err(StoreError::Io { path, source });
        }
        self.length += record.len() as u64;
        self.records += 1;
        Ok(())
    }

    /// Cut off what stands after the last whole record.
    fn undo(&mut self) -> std::io::Result<()> {
        self.log.set_len(self.length)?;
        self.log.seek(SeekFrom::Start(self.length))?;
        self.torn = false;
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
        (self.log, self.length, self.records, self.torn) = (log, bytes.len() as u64, records, false);
        // From the renaming on, the new file is the log, whether or not the folder could be synced.
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io(&self.folder))
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
fn read_log(path: &Path, bytes: &[u8]) -> Result<(Loaded, usize), StoreError> {
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
    let what = "no whole first record".to_owned();
    let loaded = loaded.ok_or_else(|| StoreError::Corrupt { path: path.to_owned(), offset: 0, what })?;
    Ok((loaded, offset))
}

/// Payload of the record at `offset`, or `None` where the log ends or its last record is not whole.
fn next_record<'a>(path: &Path, bytes: &'a [u8], offset: usize) -> Result<Option<&'a [u8]>, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt { path: path.to_owned(), offset: offset as u64, what: what.into() };
    let rest = &bytes[offset..];
    let Some((head, body)) = rest.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    // No record begins with zeros, their checksum being another; nor was a block shown before its record was synced.
    if rest.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
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
    fn zeros_after_the_last_record_are_dropped_and_zeros_before_it_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for count in [1, HEAD_BYTES, 4096] {
            std::fs::write(&path, [whole.clone(), vec![0; count]].concat()).unwrap();
            assert_eq!(Store::open(folder.path()).unwrap().1.unwrap().blocks.len(), 3, "{count} zeros");
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let last = frame(&block(3).encode());
        let start = whole.len() - last.len();
        std::fs::write(&path, [&whole[..start], &[0; 4096], &last].concat()).unwrap();
        let error = Store::open(folder.path()).err().unwrap();
        assert!(matches!(&error, StoreError::Corrupt { offset, .. } if *offset == start as u64), "{error}");
        let text = error.to_string();
        assert!(text.contains(LOG_NAME) && text.contains(&start.to_string()), "{text}");
    }

    #[test]
    fn a_log_without_a_whole_base_is_corrupt_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let base = frame(&base().encode()).len();
        for length in [0, 1, HEAD_BYTES, base - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = Store::open(folder.path()).err().unwrap();
            assert!(matches!(error, StoreError::Corrupt { offset: 0, .. }), "{length} bytes: {error}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), length as u64);
        }
    }

    #[test]
    fn a_record_that_failed_half_written_is_cut_off_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let (mut store, _) = Store::open(folder.path()).unwrap();
        // As an append leaves it that could neither be finished nor undone.
        store.log.write_all(&frame(&block(4).encode())[..20]).unwrap();
        store.torn = true;
        store.append(&block(4).encode()).unwrap();
        drop(store);
        let before = std::fs::metadata(&path).unwrap().len();
        assert_eq!(Store::open(folder.path()).unwrap().1.unwrap().blocks.len(), 4);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before, "nothing was left over");
    }

    #[test]
    fn a_start_that_died_before_the_first_base_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        assert!(!folder.path().join(LOG_NAME).exists());
        written(folder.path());
        assert!(!folder.path().join(NEW_LOG_NAME).exists());
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
