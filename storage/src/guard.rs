//! The signing guard: a small file of its own that remembers the last signature.
//!
//! What a validator signs only moves forward in (height, round, step); the same signature again is
//! fine, another at the same place or behind it is refused, also when the database was rolled back.
//!
//! The file holds the mark twice, in two disk blocks of its own, each with a running number and a
//! checksum. A mark is written and synced to the first block, then to the second, and only then may
//! the signature leave. So:
//!
//! - a torn write damages only the block being written; the other holds either the mark before
//!   (whose successor never left) or already the new one;
//! - a block that rots later costs nothing: both hold the mark of every signature that left;
//! - a file that exists always has a block that reads back, because it is made whole and renamed
//!   into place. Anything else (emptied, cut, both blocks damaged) is refused, never a fresh start.
//!
//! The database remembers which keys have a guard, so that a deleted file is not a fresh start either.
//!
//! Each key has a guard of its own: the first one of a folder in `signing-guard`, a key that takes over
//! from it in `signing-guard-HEX16`, by the beginning of the public key. That one is made together with
//! the key ([`SigningGuard::prepare`]) and never when it is missed: a key that came from elsewhere
//! without its guard is refused as before.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode;
use perturb_types::{ConsensusKey, Digest};

use crate::database::{Database, META};
use crate::error::StorageError;
use crate::failpoint::{Write as Point, failpoint};

/// Rows of META that say that a key has a guard here begin with this.
pub(crate) const KNOWN: &[u8] = b"guard/";

/// One disk block per copy, so that no torn sector can take both.
const SLOT: usize = 4096;

const FILE: &str = "signing-guard";

/// The beginning of a consensus key by which its files are named.
pub fn key_tag(key: &ConsensusKey) -> String {
    key.0.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// The guard's file of a key: its own, where one was prepared for it, else the folder's first one.
fn path_of(dir: &Path, key: &ConsensusKey) -> PathBuf {
    let own = own_path(dir, key);
    if own.exists() { own } else { dir.join(FILE) }
}

fn own_path(dir: &Path, key: &ConsensusKey) -> PathBuf {
    dir.join(format!("{FILE}-{}", key_tag(key)))
}

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
    /// `None` until the first signature.
    mark: Option<Mark>,
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

fn slot_bytes(slot: &Slot) -> Vec<u8> {
    let body = encode::encode(slot);
    let mut out = crc32fast::hash(&body).to_le_bytes().to_vec();
    out.extend((body.len() as u16).to_le_bytes());
    out.extend(body);
    out.resize(SLOT, 0);
    out
}

/// What the guards in a data folder say was signed last, by any of its keys; `None` where there is none.
///
/// # Errors
/// One cannot be read, or both its copies are damaged.
pub(crate) fn last_in(dir: &Path) -> Result<Option<Mark>, StorageError> {
    let io = |path: &Path, source| StorageError::Io { path: path.into(), source };
    let mut last: Option<Mark> = None;
    for entry in std::fs::read_dir(dir).map_err(|e| io(dir, e))? {
        let path = entry.map_err(|e| io(dir, e))?.path();
        // One that was being made when the program died has another ending.
        let is_guard =
            path.extension().is_none() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILE));
        if !is_guard {
            continue;
        }
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(2 * SLOT as u64).read_to_end(&mut bytes));
        read.map_err(|e| io(&path, e))?;
        let newest = bytes.chunks(SLOT).filter_map(read_slot).max_by_key(|s| s.number);
        let Some(slot) = newest else { return Err(StorageError::GuardDamaged(path)) };
        let place = |m: &Mark| (m.height, m.round, m.step);
        last = last.into_iter().chain(slot.mark).max_by_key(place);
    }
    Ok(last)
}

/// Makes the file whole under another name, then gives it its own.
fn create(dir: &Path, path: &Path, key: ConsensusKey) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&slot_bytes(&Slot { number: 0, key, mark: None }).repeat(2))?;
    file.sync_all()?;
    failpoint("guard-create-written");
    std::fs::rename(&temporary, path)?;
    failpoint("guard-create-renamed");
    File::open(dir)?.sync_all()
}

impl SigningGuard {
    /// Opens (or makes) the guard of a consensus key in the database's data folder.
    ///
    /// # Errors
    /// As [`SigningGuard::open_in`], or the file is gone although this key had one here.
    pub fn open(database: &Database, key: ConsensusKey) -> Result<Self, StorageError> {
        let row = [KNOWN, &key.0].concat();
        let dir = database.data_dir();
        let known = database.get(META, &row)?.is_some();
        let path = path_of(dir, &key);
        if known && !path.try_exists().map_err(|source| StorageError::Io { path: dir.into(), source })? {
            return Err(StorageError::GuardDamaged(path));
        }
        let guard = Self::open_in(dir, key)?;
        if !known {
            database.put_synced(Point::GuardKnown, META, &row, &[])?;
        }
        Ok(guard)
    }

    /// Makes the guard of a key that is being made, in a file of its own.
    ///
    /// # Errors
    /// There is one already, or it cannot be written.
    pub fn prepare(dir: &Path, key: ConsensusKey) -> Result<(), StorageError> {
        let path = own_path(dir, &key);
        if path.exists() {
            return Err(StorageError::Io { path, source: std::io::ErrorKind::AlreadyExists.into() });
        }
        create(dir, &path, key).map_err(|source| StorageError::Io { path, source })
    }

    /// The key that it is for.
    pub fn key(&self) -> ConsensusKey {
        self.key
    }

    /// Opens (or makes) the guard in a folder.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or belongs to another key.
    fn open_in(dir: &Path, key: ConsensusKey) -> Result<Self, StorageError> {
        let path = path_of(dir, &key);
        let io = |source| StorageError::Io { path: path.clone(), source };
        if !path.try_exists().map_err(io)? {
            create(dir, &path, key).map_err(io)?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(2 * SLOT as u64).read_to_end(&mut bytes).map_err(io)?;
        let newest = bytes.chunks(SLOT).filter_map(read_slot).max_by_key(|s| s.number);
        let Some(slot) = newest else { return Err(StorageError::GuardDamaged(path)) };
        if slot.key != key {
            return Err(StorageError::OtherKey { path, found: slot.key, expected: key });
        }
        let mut this = Self { path, file, key, number: slot.number, last: slot.mark };
        // Makes the copies one again, before anything is signed on the strength of one of them.
        this.write(&slot)?;
        Ok(this)
    }

    fn write(&mut self, slot: &Slot) -> Result<(), StorageError> {
        let bytes = slot_bytes(slot);
        for (point, at) in [(Point::GuardFirst, 0), (Point::GuardSecond, SLOT as u64)] {
            let at = SeekFrom::Start(at);
            let write =
                || self.file.seek(at).and_then(|_| self.file.write_all(&bytes)).and_then(|()| self.file.sync_data());
            point.around(write).map_err(|source| StorageError::Io { path: self.path.clone(), source })?;
        }
        Ok(())
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
        self.write(&Slot { number, key: self.key, mark: Some(mark) })?;
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
        let mut g = SigningGuard::open_in(dir.path(), KEY).unwrap();
        g.check_and_record(mark(3, 0, 1, 1)).unwrap();
        g.check_and_record(mark(3, 0, 1, 1)).unwrap();
        drop(g);
        let mut g = SigningGuard::open_in(dir.path(), KEY).unwrap();
        assert_eq!(g.last(), Some(mark(3, 0, 1, 1)));
        for wrong in [mark(3, 0, 1, 2), mark(3, 0, 0, 1), mark(2, 9, 2, 1), Mark { digest: None, ..mark(3, 0, 1, 1) }] {
            assert!(matches!(g.check_and_record(wrong), Err(StorageError::Conflict { .. })), "{wrong}");
        }
        g.check_and_record(mark(3, 0, 2, 2)).unwrap();
        assert!(matches!(SigningGuard::open_in(dir.path(), ConsensusKey([8; 32])), Err(StorageError::OtherKey { .. })));
    }

    #[test]
    fn a_key_that_takes_over_has_a_guard_of_its_own_and_the_first_ones_stays() {
        let dir = tempfile::tempdir().unwrap();
        let next = ConsensusKey([8; 32]);
        let net = perturb_types::NetworkId([1; 32]);
        let open = || Database::open(dir.path(), &net, crate::Options::default()).unwrap();
        SigningGuard::open(&open(), KEY).unwrap().check_and_record(mark(9, 0, 1, 1)).unwrap();
        assert!(matches!(SigningGuard::open(&open(), next), Err(StorageError::OtherKey { .. })), "none was made");
        SigningGuard::prepare(dir.path(), next).unwrap();
        assert!(matches!(SigningGuard::prepare(dir.path(), next), Err(StorageError::Io { .. })));
        SigningGuard::open(&open(), next).unwrap().check_and_record(mark(3, 0, 1, 1)).unwrap();
        assert_eq!(SigningGuard::open(&open(), next).unwrap().last(), Some(mark(3, 0, 1, 1)));
        assert_eq!(SigningGuard::open(&open(), KEY).unwrap().last(), Some(mark(9, 0, 1, 1)));
        assert_eq!(last_in(dir.path()).unwrap(), Some(mark(9, 0, 1, 1)));
        std::fs::remove_file(own_path(dir.path(), &next)).unwrap();
        assert!(SigningGuard::open(&open(), next).is_err(), "a lost guard is no fresh start");
    }

    #[test]
    fn two_damaged_slots_are_damage_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut g = SigningGuard::open_in(dir.path(), KEY).unwrap();
        g.check_and_record(mark(1, 0, 1, 1)).unwrap();
        g.check_and_record(mark(1, 0, 2, 1)).unwrap();
        drop(g);
        let path = dir.path().join("signing-guard");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[10] ^= 1;
        bytes[SLOT + 10] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(SigningGuard::open_in(dir.path(), KEY), Err(StorageError::GuardDamaged(_))));
    }

    #[test]
    fn a_file_that_lost_its_marks_is_refused_and_a_rotten_copy_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing-guard");
        let mut g = SigningGuard::open_in(dir.path(), KEY).unwrap();
        for h in 1..=9 {
            g.check_and_record(mark(h, 0, 1, 1)).unwrap();
        }
        drop(g);
        let whole = std::fs::read(&path).unwrap();
        for lost in [vec![], vec![0; 128], vec![0; SLOT], vec![0; 2 * SLOT]] {
            std::fs::write(&path, lost).unwrap();
            assert!(matches!(SigningGuard::open_in(dir.path(), KEY), Err(StorageError::GuardDamaged(_))));
        }
        for copy in [0, SLOT] {
            let mut rotten = whole.clone();
            rotten[copy + 20] ^= 1;
            std::fs::write(&path, rotten).unwrap();
            let mut g = SigningGuard::open_in(dir.path(), KEY).unwrap();
            assert!(matches!(g.check_and_record(mark(9, 0, 1, 2)), Err(StorageError::Conflict { .. })));
            drop(g);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "opening heals the copy");
        }
    }

    #[test]
    fn a_deleted_file_is_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let net = perturb_types::NetworkId([1; 32]);
        let open = || Database::open(dir.path(), &net, crate::Options::default()).unwrap();
        SigningGuard::open(&open(), KEY).unwrap().check_and_record(mark(5, 0, 1, 1)).unwrap();
        assert_eq!(SigningGuard::open(&open(), KEY).unwrap().last(), Some(mark(5, 0, 1, 1)));
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(matches!(SigningGuard::open(&open(), KEY), Err(StorageError::GuardDamaged(_))));
        SigningGuard::open(&open(), ConsensusKey([8; 32])).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_torn_write_loses_only_the_mark_that_never_left(torn in 0usize..=2 * SLOT, count in 0u64..6) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("signing-guard");
            let mut g = SigningGuard::open_in(dir.path(), KEY).unwrap();
            for h in 1..=count {
                g.check_and_record(mark(h, 0, 1, 1)).unwrap();
            }
            let before = std::fs::read(&path).unwrap();
            g.check_and_record(mark(count + 1, 0, 1, 1)).unwrap();
            let after = std::fs::read(&path).unwrap();
            // The blocks are written in order: only the first `torn` bytes reached the disk.
            let mixed = [&after[..torn], &before[torn..]].concat();
            std::fs::write(&path, mixed).unwrap();
            let last = SigningGuard::open_in(dir.path(), KEY).unwrap().last();
            let old = (count > 0).then(|| mark(count, 0, 1, 1));
            prop_assert!(last == old || last == Some(mark(count + 1, 0, 1, 1)));
        }
    }
}
