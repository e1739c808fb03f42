//! Opening files that may be anything: images, weights, settings, lists.
//!
//! The rule: a path from outside may lead to a pipe that nobody writes to, a device without end or a
//! file as long as the disk allows. Only a regular file of a length that makes sense is opened, and
//! opening never waits.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file of at most `limit` bytes for reading; gives its length too.
///
/// # Errors
/// It cannot be opened, is no regular file, or is longer.
pub fn open_regular(path: &Path, limit: u64) -> Result<(File, u64)> {
    // A pipe's other end may never come; a regular file does not mind the flag.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    within(about.len(), limit)?;
    Ok((file, about.len()))
}

/// The bytes of a regular file of at most `limit` bytes, also where it grows meanwhile.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, _) = open_regular(path, limit)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    within(bytes.len() as u64, limit)?;
    Ok(bytes)
}

/// The text of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`read`], or it is no UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is no text in UTF-8"))
}

fn within(length: u64, limit: u64) -> Result<()> {
    if length > limit {
        let why = format!("it has {length} bytes, at most {limit} are accepted");
        return Err(Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn only_a_regular_file_within_the_limit_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(open_regular(&path, 1 << 40).unwrap().1, 1 << 40);
        assert_eq!(open_regular(&path, (1 << 40) - 1).unwrap_err().kind(), ErrorKind::FileTooLarge);
        // A pipe without a writer: opening it as usual waits for ever.
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for odd in [pipe, folder.path().to_owned(), PathBuf::from("/dev/zero")] {
            assert_eq!(open_regular(&odd, u64::MAX).unwrap_err().kind(), ErrorKind::InvalidInput, "{odd:?}");
        }
        assert_eq!(open_regular(&folder.path().join("none"), 1).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_is_read_is_whole_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "four").unwrap();
        assert_eq!((read(&path, 4).unwrap(), read_text(&path, 4).unwrap()), (b"four".to_vec(), "four".to_owned()));
        assert_eq!(read(&path, 3).unwrap_err().kind(), ErrorKind::FileTooLarge);
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
