//! SHA-256 of large files, computed once and remembered.
//!
//! A file counts as unchanged while its size, inode and times (of contents and of inode) are what they
//! were: the times change with every ordinary write. What is remembered lies in the validator's own
//! folder; a memory that cannot be read is none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use perturb_types::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::file;

/// Files remembered: the shards of several sets.
const MAX_FILES: usize = 4096;

/// Bytes of the memory's file.
const MAX_BYTES: u64 = 8 << 20;

/// What tells a file from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// An open file's, now.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let about = file.metadata()?;
        Ok(Self {
            size: about.size(),
            inode: about.ino(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    #[serde(flatten)]
    stamp: Stamp,
    digest: Digest,
}

/// The memory.
#[derive(Debug, Default)]
pub struct Digests {
    file: Option<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
}

impl Digests {
    /// A memory kept in `file`; without one every digest is computed anew.
    #[must_use]
    pub fn open(file: Option<PathBuf>) -> Self {
        let known = file.as_deref().and_then(read).unwrap_or_default();
        Self { file, known }
    }

    /// The SHA-256 of an open file's bytes; `stamp` is what the file was when it was opened, `path`
    /// where.
    ///
    /// # Errors
    /// The file cannot be read. One that changes meanwhile has some digest or other: whoever uses the
    /// file compares its stamp afterwards.
    pub(super) fn of(&mut self, path: &Path, file: &File, stamp: &Stamp) -> io::Result<Digest> {
        let path = path.canonicalize()?;
        if let Some(known) = self.known.get(&path)
            && known.stamp == *stamp
        {
            return Ok(known.digest);
        }
        let digest = compute(file)?;
        if self.known.len() >= MAX_FILES {
            self.known.clear();
        }
        // What changed meanwhile has another stamp next time.
        self.known.insert(path, Known { stamp: *stamp, digest });
        Ok(digest)
    }

    /// Writes what is known; called when all digests of a set were asked for.
    ///
    /// # Errors
    /// The memory's file cannot be written.
    pub fn save(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let rows: Vec<(&PathBuf, &Known)> = self.known.iter().collect();
        let text = serde_json::to_vec(&rows).map_err(io::Error::other)?;
        let beside = file.with_extension("new");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, file)
    }
}

/// Reads a file to its end without holding it, and without moving its cursor.
fn compute(file: &File) -> io::Result<Digest> {
    let (mut piece, mut at, mut h) = (vec![0; 1 << 20], 0, Sha256::new());
    loop {
        match file.read_at(&mut piece, at) {
            Ok(0) => return Ok(Digest(h.finalize().into())),
            Ok(n) => {
                h.update(&piece[..n]);
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn read(path: &Path) -> Option<BTreeMap<PathBuf, Known>> {
    let rows: Vec<(PathBuf, Known)> = serde_json::from_slice(&file::read(path, MAX_BYTES).ok()?).ok()?;
    Some(rows.into_iter().take(MAX_FILES).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn of(digests: &mut Digests, path: &Path) -> io::Result<Digest> {
        let file = File::open(path)?;
        digests.of(path, &file, &Stamp::of(&file)?)
    }

    #[test]
    fn a_digest_is_remembered_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (data, memory) = (folder.path().join("data"), folder.path().join("digests.json"));
        std::fs::write(&data, "one").unwrap();
        let mut digests = Digests::open(Some(memory.clone()));
        assert_eq!(of(&mut digests, &data).unwrap(), Digest::of(b"one"));
        digests.save().unwrap();

        // What is remembered is used: here it is a lie.
        let text = std::fs::read_to_string(&memory).unwrap();
        let lie = Digest::of(b"other");
        let text =
            text.replace(&serde_json::to_string(&Digest::of(b"one")).unwrap(), &serde_json::to_string(&lie).unwrap());
        std::fs::write(&memory, text).unwrap();
        assert_eq!(of(&mut Digests::open(Some(memory.clone())), &data).unwrap(), lie);

        std::fs::write(&data, "longer").unwrap();
        assert_eq!(of(&mut Digests::open(Some(memory.clone())), &data).unwrap(), Digest::of(b"longer"));
        std::fs::write(&memory, "no json").unwrap();
        assert_eq!(of(&mut Digests::open(Some(memory)), &data).unwrap(), Digest::of(b"longer"));
    }
}
