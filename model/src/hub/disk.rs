//! Writing into a folder that other programs write into too.
//!
//! The rules: nothing is written through a link; what gets a name is whole before it gets it; and who
//! holds a blob's lock is alone with it. The lock is the hub's own client's, so that neither spoils what
//! the other is fetching.

use super::HubError;
use sha2::{Digest as _, Sha256};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes hashed at once.
const CHUNK_BYTES: usize = 1 << 20;

/// How often a lock file may vanish between opening and locking it before that counts as busy: once is
/// a holder who tidied up.
const LOCK_TRIES: usize = 3;

/// Not through a link, and without waiting for a pipe's other end.
const PLAIN: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// What went wrong at a path.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> HubError + use<> {
    let path = path.to_owned();
    move |source| HubError::Io { path, source }
}

/// A lock that is held until this is dropped.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says that it is taken.
    pub(crate) fn take(path: &Path) -> std::result::Result<Self, HubError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(PLAIN);
        for _ in 0..LOCK_TRIES {
            let file = options.open(path).map_err(at(path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(source)) => return Err(at(path)(source)),
            }
            // A lock on a file that has lost its name excludes nobody.
            let same = |named: Metadata, held: Metadata| (named.dev(), named.ino()) == (held.dev(), held.ino());
            if std::fs::symlink_metadata(path).is_ok_and(|named| file.metadata().is_ok_and(|held| same(named, held))) {
                return Ok(Self { _file: file });
            }
        }
        Err(HubError::Busy { path: path.to_owned() })
    }
}

/// A file that is still arriving.
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
}

impl Partial {
    /// Opens what has arrived, or begins anew: a link, or a file that has another name as well, is not
    /// of our making.
    pub(crate) fn open(path: PathBuf) -> std::result::Result<Self, HubError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).custom_flags(PLAIN);
        let ours = |about: &Metadata| about.is_file() && about.nlink() == 1;
        let file = match options.open(&path) {
            Ok(file) if file.metadata().is_ok_and(|about| ours(&about)) => file,
            _ => {
                remove(&path).map_err(at(&path))?;
                options.create_new(true).open(&path).map_err(at(&path))?
            }
        };
        Ok(Self { file, path })
    }

    /// How many bytes have arrived.
    pub(crate) fn length(&self) -> std::result::Result<u64, HubError> {
        Ok(self.file.metadata().map_err(at(&self.path))?.len())
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> std::result::Result<(), HubError> {
        self.file.write_all(bytes).map_err(at(&self.path))
    }

    /// Forgets what has arrived.
    pub(crate) fn clear(&mut self) -> std::result::Result<(), HubError> {
        self.file.set_len(0).map_err(at(&self.path))
    }

    /// The SHA-256 of what has arrived, once it is on the disk.
    pub(crate) fn digest(&mut self) -> std::result::Result<String, HubError> {
        let whole = self.file.sync_all().and_then(|()| self.file.seek(SeekFrom::Start(0)));
        whole.and_then(|_| digest(&mut self.file)).map_err(at(&self.path))
    }

    /// Gives it its final name.
    pub(crate) fn name(self, path: &Path) -> std::result::Result<(), HubError> {
        std::fs::rename(&self.path, path).map_err(at(path))
    }

    /// Deletes it.
    pub(crate) fn delete(self) -> std::result::Result<(), HubError> {
        remove(&self.path).map_err(at(&self.path))
    }
}

/// The SHA-256 of a file from here on, hexadecimal.
pub(crate) fn digest(file: &mut File) -> Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(perturb_types::Digest(hash.finalize().into()).to_string()),
            read => hash.update(&chunk[..read]),
        }
    }
}

/// Puts at `path` what `make` makes under the name `temporary` in the same folder: who looks sees the
/// old or the new, and a link at `path` is replaced, not followed.
pub(crate) fn replace(
    path: &Path,
    temporary: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> std::result::Result<(), HubError> {
    let temporary = path.with_file_name(temporary);
    let made = remove(&temporary).and_then(|()| make(&temporary));
    made.and_then(|()| std::fs::rename(&temporary, path)).map_err(at(path))
}

/// Writes a new file.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

/// Removes a name if it is there.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
