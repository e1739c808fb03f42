//! The consensus log: what the machine must remember before it speaks.
//!
//! Records are keyed by height and a running number and carry a checksum. A torn tail (RocksDB may
//! drop unsynced records silently) shows as missing numbers at the end, which is no fault: what was
//! not synced was never spoken. A gap or a bad checksum *before* the end is damage.

use perturb_types::encode;
use rocksdb::{Direction, IteratorMode, WriteBatch};

use crate::database::{Database, LOG};
use crate::error::StorageError;
use crate::failpoint::Write;

/// Records of one height: hundreds of rounds of a full set.
const MAX_RECORDS: usize = 1 << 20;

pub(crate) fn key(height: u64, number: u64) -> [u8; 16] {
    let mut out = [0u8; 16];
    out[..8].copy_from_slice(&height.to_be_bytes());
    out[8..].copy_from_slice(&number.to_be_bytes());
    out
}

fn numbers(key: &[u8]) -> Option<(u64, u64)> {
    let (height, number) = key.split_at_checked(8)?;
    Some((u64::from_be_bytes(height.try_into().ok()?), u64::from_be_bytes(number.try_into().ok()?)))
}

impl Database {
    /// Appends a record to a height's log, unsynced.
    ///
    /// # Errors
    /// The disk.
    pub fn append_log(&self, height: u64, record: &[u8]) -> Result<(), StorageError> {
        let family = self.family(LOG)?;
        let last = key(height, u64::MAX);
        let newest = self.inner.db.iterator_cf(family, IteratorMode::From(&last, Direction::Reverse)).next();
        let number = match newest.transpose().map_err(|e| self.failed(e))? {
            Some((k, _)) => numbers(&k).filter(|(h, _)| *h == height).map_or(0, |(_, n)| n + 1),
            None => 0,
        };
        let crc = crc32fast::hash(record);
        let mut batch = WriteBatch::default();
        batch.put_cf(family, key(height, number), encode::encode(&(crc, record)));
        self.write(Write::LogAppend, batch, false)
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// The disk.
    pub fn sync_log(&self) -> Result<(), StorageError> {
        Write::LogSync.around(|| self.inner.db.flush_wal(true).map_err(|e| self.failed(e)))
    }

    /// The records of the height in the making, in order.
    ///
    /// # Errors
    /// A gap or a bad checksum before the end.
    pub fn log_records(&self) -> Result<Vec<Vec<u8>>, StorageError> {
        let height = self.height()?.map_or(0, |h| h + 1);
        let family = self.family(LOG)?;
        let from = key(height, 0);
        let mut out: Vec<Vec<u8>> = Vec::new();
        for row in self.inner.db.iterator_cf(family, IteratorMode::From(&from, Direction::Forward)) {
            let (k, value) = row.map_err(|e| self.failed(e))?;
            let Some((h, number)) = numbers(&k) else { continue };
            if h != height {
                break;
            }
            let damaged = |why: &str| StorageError::Damaged {
                what: format!("consensus log of height {height}, record {number}"),
                why: why.into(),
            };
            if number != out.len() as u64 || out.len() >= MAX_RECORDS {
                return Err(damaged("a record before it is missing"));
            }
            let (crc, record): (u32, Vec<u8>) = self.parse("log record", &value)?;
            if crc != crc32fast::hash(&record) {
                return Err(damaged("its checksum does not fit"));
            }
            out.push(record);
        }
        Ok(out)
    }
}
