//! Where submissions are kept, so that a restart knows what was signed.

use std::path::PathBuf;

use crate::folder::Folder;
use crate::submission::{Submission, SubmissionKey};

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
    /// The content is not what was written.
    #[error("{path} is damaged ({reason}): move it away and start again")]
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
pub struct FileStore(Folder);

fn name(key: SubmissionKey) -> String {
    format!("weights-{}-{}-{}.json", key.netuid, key.mecid, key.epoch)
}

impl FileStore {
    /// A store in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Folder::open(folder).map(Self)
    }
}

impl SubmissionStore for FileStore {
    fn load(&self, key: SubmissionKey) -> Result<Option<Submission>, StoreError> {
        self.0.read(&name(key))
    }

    fn load_all(&self) -> Result<Vec<Submission>, StoreError> {
        self.0.read_all("weights-", MAX_SUBMISSIONS)
    }

    fn remove(&self, key: SubmissionKey) -> Result<(), StoreError> {
        self.0.remove(&name(key))
    }

    fn save(&self, submission: &Submission) -> Result<(), StoreError> {
        self.0.write(&name(submission.key()), submission)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::fs;

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
