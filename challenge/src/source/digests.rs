//! SHA-256 of large files, computed once and remembered.
//!
//! A file counts as unchanged while its size, inode and times (of contents and of inode) are what they
//! were: the times change with every ordinary write. What is remembered lies in the validator's own
//! folder; a memory that cannot be read is none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use perturb_types::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Files remembered: the shards of several sets.
const MAX_FILES: usize = 4096;

/// Bytes of the memory's file.
const MAX_BYTES: u64 = 8 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
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

    /// The SHA-256 of a file's bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(&mut self, path: &Path) -> io::Result<Digest> {
        let path = path.canonicalize()?;
        let about = std::fs::metadata(&path)?;
        let stamp = |digest| Known {
            size: about.size(),
            inode: about.ino(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
            digest,
        };
        if let Some(known) = self.known.get(&path)
            && *known == stamp(known.digest)
        {
            return Ok(known.digest);
        }
        let digest = compute(&path)?;
        if self.known.len() >= MAX_FILES {
            self.known.clear();
        }
        self.known.insert(path, stamp(digest));
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

/// Reads a file to its end without holding it.
fn compute(path: &Path) -> io::Result<Digest> {
    let (mut file, mut piece, mut h) = (File::open(path)?, vec![0; 1 << 20], Sha256::new());
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Digest(h.finalize().into())),
            n => h.update(&piece[..n]),
        }
    }
}

fn read(file: &Path) -> Option<BTreeMap<PathBuf, Known>> {
    if std::fs::metadata(file).ok()?.len() > MAX_BYTES {
        return None;
    }
    let rows: Vec<(PathBuf, Known)> = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(rows.into_iter().take(MAX_FILES).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_digest_is_remembered_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (data, memory) = (folder.path().join("data"), folder.path().join("digests.json"));
        std::fs::write(&data, "one").unwrap();
        let mut digests = Digests::open(Some(memory.clone()));
        assert_eq!(digests.of(&data).unwrap(), Digest::of(b"one"));
        digests.save().unwrap();

        // What is remembered is used: here it is a lie.
        let text = std::fs::read_to_string(&memory).unwrap();
        let lie = Digest::of(b"other");
        let text =
            text.replace(&serde_json::to_string(&Digest::of(b"one")).unwrap(), &serde_json::to_string(&lie).unwrap());
        std::fs::write(&memory, text).unwrap();
        assert_eq!(Digests::open(Some(memory.clone())).of(&data).unwrap(), lie);

        std::fs::write(&data, "longer").unwrap();
        assert_eq!(Digests::open(Some(memory.clone())).of(&data).unwrap(), Digest::of(b"longer"));
        std::fs::write(&memory, "no json").unwrap();
        assert_eq!(Digests::open(Some(memory)).of(&data).unwrap(), Digest::of(b"longer"));
    }
}
