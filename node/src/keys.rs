//! Key files: the hotkey's secret (given), the consensus and network keys (made here).
//!
//! Three keys, never one for two jobs. Secrets come from files that only their owner can read, or
//! from `VALIDATOR_SECRET_KEY`; never from the command line, never into a log.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use perturb_types::secret::{self, SecretError};
use perturb_types::{ConsensusPair, HotkeyPair};
use rand::RngCore;
use zeroize::Zeroizing;

/// The environment variable with the hotkey's secret.
pub const SECRET_ENV: &str = "VALIDATOR_SECRET_KEY";

/// A key file holds one line: anything longer is another file.
const MAX_SECRET_FILE_BYTES: u64 = 4096;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No secret anywhere.
    #[error(
        "no hotkey: set {SECRET_ENV} or put the secret (BIP39 phrase or hex) into {0} (`perturb keys new` makes one)"
    )]
    NoHotkey(PathBuf),
    /// A file that cannot be read or written.
    #[error("key file {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// Others can read the file.
    #[error("key file {0} can be read by others (mode {1:o}): run `chmod 600 {0}`")]
    Open(PathBuf, u32),
    /// The text is no secret key.
    #[error("{0}: {1}")]
    Text(String, SecretError),
    /// Bytes that are no sr25519 secret.
    #[error("{0}: {1}")]
    Seed(String, perturb_types::keys::BadSeed),
}

fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let fail = |e| KeyError::File(path.into(), e);
    let file = fs::File::open(path).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open(path.into(), mode));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_SECRET_FILE_BYTES).read_to_string(&mut text).map_err(fail)?;
    secret::seed_from_text(&text).map_err(|e| KeyError::Text(format!("key file {}", path.display()), e))
}

/// Writes a secret to a new file that only its owner can read.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn write_secret(path: &Path, seed: &[u8; 32]) -> Result<(), KeyError> {
    let fail = |e| KeyError::File(path.into(), e);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(fail)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    let text = Zeroizing::new(format!("0x{}\n", hex::encode(seed)));
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)
}

/// A fresh random secret.
pub fn random_seed() -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0u8; 32]);
    rand::rng().fill_bytes(&mut seed[..]);
    seed
}

/// The hotkey: from the environment, else from the file.
///
/// # Errors
/// No secret, or one that cannot be used.
pub fn hotkey(file: &Path) -> Result<HotkeyPair, KeyError> {
    match std::env::var(SECRET_ENV) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            let seed = secret::seed_from_text(&text).map_err(|e| KeyError::Text(SECRET_ENV.into(), e))?;
            HotkeyPair::from_seed(&seed).map_err(|e| KeyError::Seed(SECRET_ENV.into(), e))
        }
        Err(_) if !file.exists() => Err(KeyError::NoHotkey(file.into())),
        Err(_) => hotkey_file(file),
    }
}

/// The hotkey of a file.
///
/// # Errors
/// The file cannot be read, others can read it, or it holds no key.
pub fn hotkey_file(path: &Path) -> Result<HotkeyPair, KeyError> {
    let seed = read_secret(path)?;
    HotkeyPair::from_seed(&seed).map_err(|e| KeyError::Seed(format!("key file {}", path.display()), e))
}

fn read_or_make(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    if !path.exists() {
        write_secret(path, &random_seed())?;
    }
    read_secret(path)
}

/// The consensus key of a data folder, made on first use.
///
/// # Errors
/// The file cannot be read or written.
pub fn consensus(data_dir: &Path) -> Result<ConsensusPair, KeyError> {
    read_or_make(&data_dir.join("consensus-key")).map(|s| ConsensusPair::from_seed(&s))
}

/// The network key's seed of a data folder, made on first use. Random, so that a peer id cannot be
/// derived from anything public.
///
/// # Errors
/// The file cannot be read or written.
pub fn network(data_dir: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    read_or_make(&data_dir.join("network-key"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hotkey");
        write_secret(&path, &[7; 32]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(write_secret(&path, &[8; 32]), Err(KeyError::File(..))));
        assert_eq!(*read_secret(&path).unwrap(), [7; 32]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_secret(&path), Err(KeyError::Open(_, 0o644))));
    }

    #[test]
    fn the_made_keys_stay_the_same_and_differ_from_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let a = consensus(dir.path()).unwrap().public();
        assert_eq!(consensus(dir.path()).unwrap().public(), a);
        assert_ne!(network(dir.path()).unwrap()[..], consensus(dir.path()).unwrap().seed()[..]);
    }

    #[test]
    fn a_wrong_secret_is_named_by_its_place_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hotkey");
        fs::write(&path, "correct horse battery staple").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let e = read_secret(&path).unwrap_err().to_string();
        assert!(e.contains("hotkey") && !e.contains("horse"), "{e}");
    }
}
