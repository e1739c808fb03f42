//! The signing guard: a small file of its own that remembers the last signature.
//!
//! What a validator signs only moves forward in (height, round, step); the same signature again is
//! fine, another at the same place or behind it is refused, also when the database was rolled back.
//!
//! The file has two slots of 128 bytes that are written in turn, each with a running number and a
//! checksum, and synced before the signature may leave. A torn write damages only the slot being
//! written, whose signature therefore never left; the other slot still has the one before. Both
//! slots damaged means that the file was tampered with: the guard refuses to open.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode;
use perturb_types::{ConsensusKey, Digest};

use crate::error::StorageError;

const SLOT: usize = 128;

/// The last thing signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Mark {
    /// The height.
    pub height: u64,
    /// The round.
    pub round: u32,
    /// 0 proposal, 1 prevote, 2 precommit.
    pub step: u8,
    /// What was signed for; `None` is nil.
    pub digest: Option<Digest>,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = ["proposal", "prevote", "precommit"].get(usize::from(self.step)).copied().unwrap_or("step");
        let what = self.digest.map_or_else(|| "nil".to_owned(), |d| d.short());
        write!(f, "{step} at height {} round {} for {what}", self.height, self.round)
    }
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Slot {
    number: u64,
    key: ConsensusKey,
    mark: Mark,
}

/// The guard's file, open.
pub struct SigningGuard {
    path: PathBuf,
    file: File,
    key: ConsensusKey,
    number: u64,
    last: Option<Mark>,
}

fn read_slot(bytes: &[u8]) -> Option<Slot> {
    let (crc, rest) = bytes.split_at_checked(4)?;
    let (length, rest) = rest.split_at_checked(2)?;
    let length = usize::from(u16::from_le_bytes(length.try_into().ok()?));
    let body = rest.get(..length)?;
    (crc32fast::hash(body) == u32::from_le_bytes(crc.try_into().ok()?)).then_some(())?;
    borsh::from_slice(body).ok()
}

impl SigningGuard {
    /// Opens (or makes) the guard of a consensus key in a data folder.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or belongs to another key.
    pub fn open(dir: &Path, key: ConsensusKey) -> Result<Self, StorageError> {
        let path = dir.join("signing-guard");
        let io = |source| StorageError::Io { path: path.clone(), source };
        let fresh = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        if fresh {
            file.sync_all().map_err(io)?;
            File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(2 * SLOT as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        let newest = bytes.chunks(SLOT).take(2).filter_map(read_slot).max_by_key(|s| s.number);
        let Some(slot) = newest else {
            // A first write that was torn leaves at most one slot, and nothing was signed yet.
            if bytes.len() <= SLOT {
                return Ok(Self { path, file, key, number: 0, last: None });
            }
            return Err(StorageError::Damaged {
                what: format!("signing guard {}", path.display()),
                why: "neither slot reads back".into(),
            });
        };
        if slot.key != key {
            return Err(StorageError::OtherKey { path, found: slot.key, expected: key });
        }
        Ok(Self { path, file, key, number: slot.number, last: Some(slot.mark) })
    }

    /// The last thing signed.
    pub fn last(&self) -> Option<Mark> {
        self.last
    }

    /// Allows a signature and remembers it, durably, or refuses it.
    ///
    /// # Errors
    /// It contradicts an earlier one, or the file cannot be written.
    pub fn check_and_record(&mut self, mark: Mark) -> Result<(), StorageError> {
        if let Some(last) = self.last {
            if last == mark {
                return Ok(());
            }
            let place = |m: &Mark| (m.height, m.round, m.step);
            if place(&mark) <= place(&last) {
                return Err(StorageError::Conflict { signed: last.to_string(), wanted: mark.to_string() });
            }
        }
        let number = self.number + 1;
        let body = encode::encode(&Slot { number, key: self.key, mark });
        let mut slot = crc32fast::hash(&body).to_le_bytes().to_vec();
        slot.extend((body.len() as u16).to_le_bytes());
        slot.extend(body);
        slot.resize(SLOT, 0);
        let at = SeekFrom::Start((number % 2) * SLOT as u64);
        let written = self.file.seek(at).and_then(|_| self.file.write_all(&slot)).and_then(|()| self.file.sync_data());
        written.map_err(|source| StorageError::Io { path: self.path.clone(), source })?;
        (self.number, self.last) = (number, Some(mark));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const KEY: ConsensusKey = ConsensusKey([7; 32]);

    fn mark(height: u64, round: u32, step: u8, digest: u8) -> Mark {
        Mark { height, round, step, digest: Some(Digest([digest; 32])) }
    }

    #[test]
    fn a_second_signature_for_one_step_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut g = SigningGuard::open(dir.path(), KEY).unwrap();
        g.check_and_record(mark(3, 0, 1, 1)).unwrap();
        g.check_and_record(mark(3, 0, 1, 1)).unwrap();
        drop(g);
        let mut g = SigningGuard::open(dir.path(), KEY).unwrap();
        assert_eq!(g.last(), Some(mark(3, 0, 1, 1)));
        for wrong in [mark(3, 0, 1, 2), mark(3, 0, 0, 1), mark(2, 9, 2, 1), Mark { digest: None, ..mark(3, 0, 1, 1) }] {
            assert!(matches!(g.check_and_record(wrong), Err(StorageError::Conflict { .. })), "{wrong}");
        }
        g.check_and_record(mark(3, 0, 2, 2)).unwrap();
        assert!(matches!(SigningGuard::open(dir.path(), ConsensusKey([8; 32])), Err(StorageError::OtherKey { .. })));
    }

    #[test]
    fn two_damaged_slots_are_damage_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut g = SigningGuard::open(dir.path(), KEY).unwrap();
        g.check_and_record(mark(1, 0, 1, 1)).unwrap();
        g.check_and_record(mark(1, 0, 2, 1)).unwrap();
        drop(g);
        let path = dir.path().join("signing-guard");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[10] ^= 1;
        bytes[SLOT + 10] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(SigningGuard::open(dir.path(), KEY), Err(StorageError::Damaged { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_torn_write_loses_only_the_mark_that_never_left(torn in 0usize..SLOT, count in 1u64..6) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("signing-guard");
            let mut g = SigningGuard::open(dir.path(), KEY).unwrap();
            for h in 1..=count {
                g.check_and_record(mark(h, 0, 1, 1)).unwrap();
            }
            let before = std::fs::read(&path).unwrap();
            g.check_and_record(mark(count + 1, 0, 1, 1)).unwrap();
            let after = std::fs::read(&path).unwrap();
            // Only the first `torn` bytes of the new slot reached the disk.
            let at = ((count + 1) % 2) as usize * SLOT;
            let mut mixed = before.clone();
            mixed.resize(after.len(), 0);
            mixed[at..at + torn].copy_from_slice(&after[at..at + torn]);
            std::fs::write(&path, mixed).unwrap();
            let last = SigningGuard::open(dir.path(), KEY).unwrap().last();
            prop_assert!(last == Some(mark(count, 0, 1, 1)) || last == Some(mark(count + 1, 0, 1, 1)));
        }
    }
}
