//! Where submissions are kept, so that a restart knows what was signed.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::submission::{Submission, SubmissionKey};

/// Longest file of one submission: a vector of 4096 entries and its extrinsic stay below.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Submissions kept of one mechanism: of the last epochs, since a commit waits for its reveal while the next is made.
pub const KEPT_EPOCHS: usize = 8;
/// Submissions read at start: those of the mechanisms of a subnet (at most 16).
pub const MAX_SUBMISSIONS: usize = 16 * KEPT_EPOCHS;

/// A store that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The content is not a submission.
    #[error("{path} does not hold a submission ({reason}): move it away; the vector is then looked up on the chain")]
    Corrupt {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Any other store's error.
    #[error("the submission store failed: {0}")]
    Other(String),
}

/// Keeps the latest submissions of each mechanism.
pub trait SubmissionStore: Send + Sync {
    /// The submission filed under `key`.
    ///
    /// # Errors
    /// It cannot be read.
    fn load(&self, key: SubmissionKey) -> Result<Option<Submission>, StoreError>;

    /// All submissions, at most [`MAX_SUBMISSIONS`].
    ///
    /// # Errors
    /// One cannot be read.
    fn load_all(&self) -> Result<Vec<Submission>, StoreError>;

    /// Puts `submission` in place of the one under its key. It is on disk when this returns.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there then.
    fn save(&self, submission: &Submission) -> Result<(), StoreError>;

    /// Forgets the submission filed under `key`, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&self, key: SubmissionKey) -> Result<(), StoreError>;
}

/// One JSON file per mechanism and epoch in a folder of its own, replaced whole.
#[derive(Debug, Clone)]
pub struct FileStore {
    folder: PathBuf,
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { action, path: path.display().to_string(), source }
}

impl FileStore {
    /// A store in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(io("make", &folder))?;
        Ok(Self { folder })
    }

    fn path(&self, key: SubmissionKey) -> PathBuf {
        self.folder.join(format!("weights-{}-{}-{}.json", key.netuid, key.mecid, key.epoch))
    }

    fn read(path: &Path) -> Result<Option<Submission>, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("open", path)(e)),
        };
        let corrupt = |reason: String| StoreError::Corrupt { path: path.display().to_string(), reason };
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(io("read", path))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(corrupt(format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        serde_json::from_slice(&text).map(Some).map_err(|e| corrupt(e.to_string()))
    }
}

impl SubmissionStore for FileStore {
    fn load(&self, key: SubmissionKey) -> Result<Option<Submission>, StoreError> {
        Self::read(&self.path(key))
    }

    fn load_all(&self) -> Result<Vec<Submission>, StoreError> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io("list", &self.folder))? {
            let path = entry.map_err(io("list", &self.folder))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if name.starts_with("weights-") && name.ends_with(".json") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.truncate(MAX_SUBMISSIONS);
        paths.iter().filter_map(|p| Self::read(p).transpose()).collect()
    }

    fn remove(&self, key: SubmissionKey) -> Result<(), StoreError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    fn save(&self, submission: &Submission) -> Result<(), StoreError> {
        let path = self.path(submission.key());
        let fresh = path.with_extension("new");
        let text = serde_json::to_vec(submission).map_err(|e| StoreError::Other(e.to_string()))?;
        let mut file = File::create(&fresh).map_err(io("write", &fresh))?;
        file.write_all(&text).map_err(io("write", &fresh))?;
        file.sync_all().map_err(io("sync", &fresh))?;
        fs::rename(&fresh, &path).map_err(io("replace", &path))?;
        // The rename itself must survive a crash of the machine.
        let folder = File::open(&self.folder).map_err(io("open", &self.folder))?;
        folder.sync_all().map_err(io("sync", &self.folder))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::WeightsCall;
    use crate::submission::AgreedVector;

    fn submission(mecid: u8) -> Submission {
        Submission::new(AgreedVector {
            call: WeightsCall { netuid: 3, mecid, weights: vec![(1, 2)], version_key: 9 },
            epoch: 4,
            reference_block: 5,
            expires_after_epoch: None,
        })
    }

    #[test]
    fn what_is_saved_is_loaded_and_replaced_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path().join("deep/er")).unwrap();
        assert_eq!(store.load(submission(0).key()).unwrap(), None);
        let mut first = submission(0);
        store.save(&first).unwrap();
        store.save(&submission(1)).unwrap();
        first.attempts = 7;
        store.save(&first).unwrap();
        assert_eq!(store.load(first.key()).unwrap(), Some(first.clone()));
        assert_eq!(store.load_all().unwrap(), [first.clone(), submission(1)]);
        store.remove(first.key()).unwrap();
        store.remove(first.key()).unwrap();
        assert_eq!(store.load_all().unwrap(), [submission(1)]);
    }

    #[test]
    fn a_damaged_file_is_reported_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        store.save(&submission(0)).unwrap();
        fs::write(dir.path().join("weights-3-0-4.json"), b"{\"agreed\":").unwrap();
        let error = store.load_all().unwrap_err().to_string();
        assert!(error.contains("weights-3-0-4.json") && error.contains("move it away"), "{error}");
    }

    #[test]
    fn a_half_written_replacement_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        store.save(&submission(0)).unwrap();
        fs::write(dir.path().join("weights-3-0-4.new"), b"{\"agr").unwrap();
        assert_eq!(store.load_all().unwrap(), [submission(0)]);
    }
}
