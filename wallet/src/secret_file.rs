//! Files with secrets: read as what they are, written so that only their owner can read them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use perturb_challenge::file::open_regular;
use zeroize::Zeroizing;

use crate::WalletError;

/// The bytes of a regular file of at most `limit` bytes that only its owner can read.
///
/// The file is opened once: what was looked at is what is read.
///
/// # Errors
/// It cannot be read, is no regular file, is longer, or others can read it.
pub fn read_private(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    read(path, limit, true)
}

/// The same for a file without a secret, which anybody may read.
pub(crate) fn read_public(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    read(path, limit, false)
}

fn read(path: &Path, limit: usize, private: bool) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    let fail = |e| WalletError::File(path.into(), e);
    let (file, _) = open_regular(path, limit as u64).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
    if private && mode & 0o077 != 0 {
        return Err(WalletError::Open(path.into(), mode));
    }
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit.saturating_add(1)));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > limit {
        return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, "it grew while it was read")));
    }
    Ok(bytes)
}

/// Writes a new file that only its owner can read; its folder is made for its owner alone too.
///
/// # Errors
/// It exists, or cannot be written; then nothing of it stays.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), WalletError> {
    let fail = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => WalletError::Exists(path.into()),
        _ => WalletError::File(path.into(), e),
    };
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| {
        // It was made here just now: half a key is of no use to anybody.
        let _ = fs::remove_file(path);
        fail(e)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_secret_is_private_bounded_regular_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder/key");
        create(&path, b"secret").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(matches!(create(&path, b"other"), Err(WalletError::Exists(_))));
        assert_eq!(**read_private(&path, 6).unwrap(), *b"secret");
        assert!(matches!(read_private(&path, 5), Err(WalletError::File(..))));
        assert!(matches!(read_private(dir.path(), 5), Err(WalletError::File(..))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_private(&path, 6), Err(WalletError::Open(_, 0o640))));
        assert_eq!(**read_public(&path, 6).unwrap(), *b"secret");
    }
}
