//! A folder of small files by digest, bounded: where there are too many, the oldest go.
//!
//! A file is `FOLDER/AB/NAME`, with a name that begins with AB. What cannot be kept costs nothing but
//! asking again, so whoever keeps something may ignore the error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// What a shelf may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Files.
    pub(crate) files: u64,
    /// Bytes of all files together.
    pub(crate) bytes: u64,
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: PathBuf,
    room: Room,
    /// What it holds, once somebody has looked; files that are written again count twice until then.
    held: Mutex<Option<Room>>,
}

impl Shelf {
    /// A folder, which need not be there yet.
    pub(crate) const fn new(folder: PathBuf, room: Room) -> Self {
        Self { folder, room, held: Mutex::new(None) }
    }

    /// Where a file is. The name is a digest's, in hex.
    fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name.get(..2).unwrap_or("__")).join(name)
    }

    /// A file of at most `most` bytes.
    pub(crate) fn get(&self, name: &str, most: u64) -> Option<Vec<u8>> {
        let path = self.place(name);
        if fs::metadata(&path).ok()?.len() > most {
            return None;
        }
        fs::read(path).ok()
    }

    /// Keeps a file.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // One at a time: the count and the files belong together.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.place(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let beside = path.with_extension("new");
        fs::write(&beside, bytes)?;
        fs::rename(&beside, &path)?;
        let before = match *held {
            Some(held) => held,
            // This one is among them.
            None => total(&list(&self.folder)),
        };
        let added =
            if held.is_some() { Room { files: 1, bytes: bytes.len() as u64 } } else { Room { files: 0, bytes: 0 } };
        let now = Room { files: before.files + added.files, bytes: before.bytes.saturating_add(added.bytes) };
        let full = now.files > self.room.files || now.bytes > self.room.bytes;
        *held = Some(if full { self.clear() } else { now });
        Ok(())
    }

    /// Takes the oldest files away until a tenth of the room is free.
    fn clear(&self) -> Room {
        let mut all = list(&self.folder);
        all.sort();
        let mut left = total(&all);
        let aim = Room { files: self.room.files - self.room.files / 10, bytes: self.room.bytes - self.room.bytes / 10 };
        for (_, path, bytes) in all {
            if left.files <= aim.files && left.bytes <= aim.bytes {
                break;
            }
            // What cannot be taken away is counted on.
            if fs::remove_file(&path).is_ok() {
                left = Room { files: left.files - 1, bytes: left.bytes.saturating_sub(bytes) };
            }
        }
        left
    }
}

type Listed = (SystemTime, PathBuf, u64);

fn total(files: &[Listed]) -> Room {
    Room { files: files.len() as u64, bytes: files.iter().map(|f| f.2).sum() }
}

/// All files: those of the folder's folders. What cannot be read is none.
fn list(folder: &Path) -> Vec<Listed> {
    let items = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let files = items(folder).flat_map(|inner| items(&inner.path()).collect::<Vec<_>>());
    let listed = files.filter_map(|file| {
        let about = file.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), file.path(), about.len()))
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use super::*;

    fn name(n: u64) -> String {
        format!("{n:02}{n:062}")
    }

    fn filled(folder: &Path, room: Room) -> Shelf {
        let shelf = Shelf::new(folder.to_owned(), room);
        for n in 0..10 {
            shelf.put(&name(n), &[n as u8; 10]).unwrap();
            let file = fs::File::options().write(true).open(shelf.place(&name(n))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(n)).unwrap();
        }
        shelf
    }

    #[test]
    fn the_oldest_go_where_there_are_too_many_files_or_bytes() {
        for room in [Room { files: 10, bytes: 1 << 20 }, Room { files: 1 << 20, bytes: 100 }] {
            let folder = tempfile::tempdir().unwrap();
            let shelf = filled(folder.path(), room);
            assert!((0..10).all(|n| shelf.get(&name(n), 10).is_some()), "there is room for ten");
            shelf.put(&name(10), &[10; 10]).unwrap();
            let there: Vec<u64> = (0..11).filter(|n| shelf.get(&name(*n), 10).is_some()).collect();
            assert_eq!(there, (2..11).collect::<Vec<_>>(), "a tenth is free again");
            // Another program's run counts what it finds.
            let again = Shelf::new(folder.path().to_owned(), room);
            again.put(&name(11), &[11; 10]).unwrap();
            again.put(&name(12), &[12; 10]).unwrap();
            assert_eq!(again.get(&name(2), 10), None);
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = filled(folder.path(), Room { files: 100, bytes: 1 << 20 });
        assert_eq!((shelf.get(&name(3), 9), shelf.get(&name(99), 9)), (None, None));
    }
}
