//! A folder of small JSON files, each replaced whole: what this crate must know again after a crash.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;

/// Longest file: a vector of 4096 entries and its extrinsic stay below.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { action, path: path.display().to_string(), source }
}

impl Folder {
    /// Makes it if it is missing.
    pub(crate) fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(io("make", &folder))?;
        Ok(Self(folder))
    }

    /// Reads a file; `None` where there is none.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let path = self.0.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("open", &path)(e)),
        };
        let corrupt = |reason: String| StoreError::Corrupt { path: path.display().to_string(), reason };
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(io("read", &path))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(corrupt(format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        serde_json::from_slice(&text).map(Some).map_err(|e| corrupt(e.to_string()))
    }

    /// Reads the JSON files that begin like this, the last `limit` by name.
    pub(crate) fn read_all<T: DeserializeOwned>(&self, start: &str, limit: usize) -> Result<Vec<T>, StoreError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(io("list", &self.0))? {
            let name = entry.map_err(io("list", &self.0))?.file_name();
            let name = name.to_str().unwrap_or_default();
            if name.starts_with(start) && name.ends_with(".json") {
                names.push(name.to_owned());
            }
        }
        names.sort();
        names.drain(..names.len().saturating_sub(limit));
        names.iter().filter_map(|name| self.read(name).transpose()).collect()
    }

    /// Puts a file in place of the one of its name. It is on disk when this returns.
    pub(crate) fn write(&self, name: &str, content: &impl Serialize) -> Result<(), StoreError> {
        let path = self.0.join(name);
        let fresh = path.with_extension("new");
        let text = serde_json::to_vec(content).map_err(|e| StoreError::Other(e.to_string()))?;
        let mut file = File::create(&fresh).map_err(io("write", &fresh))?;
        file.write_all(&text).map_err(io("write", &fresh))?;
        file.sync_all().map_err(io("sync", &fresh))?;
        fs::rename(&fresh, &path).map_err(io("replace", &path))?;
        // The rename itself must survive a crash of the machine.
        let folder = File::open(&self.0).map_err(io("open", &self.0))?;
        folder.sync_all().map_err(io("sync", &self.0))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &path)(e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn of_too_many_files_the_last_by_name_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for n in 0..5 {
            folder.write(&format!("a-{n}.json"), &n).unwrap();
        }
        folder.write("b-9.json", &9).unwrap();
        fs::write(dir.path().join("a-8.new"), b"8").unwrap();
        assert_eq!(folder.read_all::<u32>("a-", 3).unwrap(), [2, 3, 4]);
        assert_eq!(folder.read_all::<u32>("a-", 9).unwrap(), [0, 1, 2, 3, 4]);
    }
}
