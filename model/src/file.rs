//! Opening files that may be anything.
//!
//! The rule: a path from outside may lead to a pipe that nobody writes to, a device without end or a
//! file as long as the disk allows. Only a regular file of a length that makes sense is opened, and
//! opening never waits.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file of at most `limit` bytes for reading; gives its length too.
pub(crate) fn open_regular(path: &Path, limit: u64) -> Result<(File, u64)> {
    // A pipe's other end may never come; a regular file does not mind the flag.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    if about.len() > limit {
        let why = format!("it has {} bytes, at most {limit} are accepted", about.len());
        return Err(Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok((file, about.len()))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::path::PathBuf;

    /// A pipe without a writer: opening it as usual waits for ever.
    pub(crate) fn pipe(folder: &Path) -> PathBuf {
        let path = folder.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn only_a_regular_file_within_the_limit_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(open_regular(&path, 1 << 40).unwrap().1, 1 << 40);
        assert_eq!(open_regular(&path, (1 << 40) - 1).unwrap_err().kind(), ErrorKind::FileTooLarge);
        for odd in [pipe(folder.path()), folder.path().to_owned(), PathBuf::from("/dev/zero")] {
            assert_eq!(open_regular(&odd, u64::MAX).unwrap_err().kind(), ErrorKind::InvalidInput, "{odd:?}");
        }
        assert_eq!(open_regular(&folder.path().join("none"), 1).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
