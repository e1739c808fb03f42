//! Damage on purpose, for drills and tests: what a failing disk does to a row.

use rocksdb::{Direction, IteratorMode, WriteBatch};

use crate::database::{Database, VALUES};
use crate::error::StorageError;
use crate::failpoint::Write;

impl Database {
    /// Flips one bit of the last row of the state under a prefix, behind the back of the tree; false
    /// where there is no such row. The node that runs on it will compute other roots than the others.
    ///
    /// # Errors
    /// The disk.
    pub fn flip_bit_under(&self, prefix: &[u8]) -> Result<bool, StorageError> {
        let family = self.family(VALUES)?;
        let from = IteratorMode::From(prefix, Direction::Forward);
        let mut found = None;
        for row in self.inner.db.iterator_cf(family, from) {
            let (key, value) = row.map_err(|e| self.failed(e))?;
            if !key.starts_with(prefix) {
                break;
            }
            found = Some((key, value.into_vec()));
        }
        let Some((key, mut value)) = found else { return Ok(false) };
        let Some(byte) = value.first_mut() else { return Ok(false) };
        *byte ^= 1;
        let mut batch = WriteBatch::default();
        batch.put_cf(family, key, value);
        self.write(Write::Row, batch, true)?;
        Ok(true)
    }
}
