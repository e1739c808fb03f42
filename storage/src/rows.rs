//! Small local rows (traversals, own pending transactions): the one place that names bincode.
//! Nothing from the network is ever read with it.

use rocksdb::{Direction, IteratorMode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::database::{Database, ROWS};
use crate::error::StorageError;
use crate::failpoint::Write;

fn config() -> impl bincode::config::Config {
    bincode::config::standard()
}

fn damaged(name: &str, why: impl std::fmt::Display) -> StorageError {
    StorageError::Damaged { what: format!("row `{name}`"), why: why.to_string() }
}

impl Database {
    /// A row.
    ///
    /// # Errors
    /// The disk, or a row of another shape.
    pub fn row<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StorageError> {
        self.get(ROWS, name.as_bytes())?.map(|bytes| decode(name, &bytes)).transpose()
    }

    /// Sets a row, durably.
    ///
    /// # Errors
    /// The disk.
    pub fn put_row<T: Serialize>(&self, name: &str, row: &T) -> Result<(), StorageError> {
        let bytes = bincode::serde::encode_to_vec(row, config()).map_err(|e| damaged(name, e))?;
        self.put_synced(Write::Row, ROWS, name.as_bytes(), &bytes)
    }

    /// Deletes a row.
    ///
    /// # Errors
    /// The disk.
    pub fn delete_row(&self, name: &str) -> Result<(), StorageError> {
        let mut batch = rocksdb::WriteBatch::default();
        batch.delete_cf(self.family(ROWS)?, name.as_bytes());
        self.write(Write::RowDelete, batch, false)
    }

    /// The first rows whose names begin with `prefix`, in order.
    ///
    /// # Errors
    /// The disk, or a row of another shape.
    pub fn rows_from<T: DeserializeOwned>(&self, prefix: &str, most: usize) -> Result<Vec<(String, T)>, StorageError> {
        let family = self.family(ROWS)?;
        let mut out = Vec::new();
        for row in self.inner.db.iterator_cf(family, IteratorMode::From(prefix.as_bytes(), Direction::Forward)) {
            let (key, value) = row.map_err(|e| self.failed(e))?;
            if !key.starts_with(prefix.as_bytes()) || out.len() >= most {
                break;
            }
            let name = String::from_utf8_lossy(&key).into_owned();
            let row = decode(&name, &value)?;
            out.push((name, row));
        }
        Ok(out)
    }
}

fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, StorageError> {
    let (row, read) = bincode::serde::decode_from_slice(bytes, config()).map_err(|e| damaged(name, e))?;
    if read == bytes.len() { Ok(row) } else { Err(damaged(name, "surplus bytes")) }
}
