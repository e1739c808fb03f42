//! A wallet's folder.

use std::path::{Component, Path, PathBuf};

use perturb_types::{Hotkey, HotkeyPair};
use zeroize::Zeroizing;

use crate::keyfile::{self, Keys, MAX_KEYFILE_BYTES};
use crate::password::Password;
use crate::vault::{self, Form};
use crate::{WalletError, secret_file};

/// Bytes of a name: what file systems take, with room for `pub.txt`.
const MAX_NAME_BYTES: usize = 200;

/// A wallet: its folder below the folder of all wallets.
#[derive(Clone, Debug)]
pub struct Wallet(PathBuf);

/// A name that stays in its folder.
fn checked(name: &str) -> Result<&str, WalletError> {
    let mut parts = Path::new(name).components();
    let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    if one && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control) {
        return Ok(name);
    }
    Err(WalletError::Name(name.chars().filter(|c| !c.is_control()).take(MAX_NAME_BYTES).collect()))
}

/// Where Bittensor's tools keep their wallets: `.bittensor/wallets` in the user's home.
pub fn usual() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(PathBuf::from(home).join(".bittensor/wallets"))
}

/// Reads a file with a secret; `password` is asked where it is encrypted.
///
/// # Errors
/// The file cannot be read, others can read it, the password does not fit, or it holds no key.
pub fn read_secret(
    path: &Path,
    password: impl FnOnce() -> Result<Password, WalletError>,
) -> Result<HotkeyPair, WalletError> {
    secret_of(path, secret_file::read_private(path, MAX_KEYFILE_BYTES)?, password)
}

/// The secret in bytes that were read from `path`; `password` is asked where they are encrypted.
///
/// # Errors
/// The password does not fit, or they hold no key.
pub fn secret_of(
    path: &Path,
    bytes: Zeroizing<Vec<u8>>,
    password: impl FnOnce() -> Result<Password, WalletError>,
) -> Result<HotkeyPair, WalletError> {
    let content = |e| WalletError::Content(path.into(), e);
    let plain = match Form::of(&bytes) {
        Form::Plain => bytes,
        _ => vault::open(&bytes, &password()?).map_err(content)?,
    };
    keyfile::parse(&plain).and_then(Keys::secret).map_err(content)
}

/// What `path` is to hold: a key's JSON, encrypted where there is a password.
///
/// # Errors
/// Too little memory to encrypt.
pub fn encoded(
    path: &Path,
    pair: &HotkeyPair,
    phrase: Option<&str>,
    password: Option<&Password>,
) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    let json = keyfile::secret_json(pair, phrase);
    let Some(password) = password else { return Ok(Zeroizing::new(json.as_bytes().to_vec())) };
    let sealed = vault::seal(json.as_bytes(), password);
    sealed.map(Zeroizing::new).map_err(|e| WalletError::Content(path.into(), e))
}

/// Reads the public side: of a public file, or of one in the clear.
///
/// # Errors
/// The file cannot be read, or holds no key in the clear.
pub fn read_public(path: &Path) -> Result<Hotkey, WalletError> {
    let bytes = secret_file::read_public(path, MAX_KEYFILE_BYTES)?;
    keyfile::parse(&bytes).map(|keys| keys.public).map_err(|e| WalletError::Content(path.into(), e))
}

impl Wallet {
    /// The wallet of a name below `wallets`. Nothing is looked at yet.
    ///
    /// # Errors
    /// The name is none.
    pub fn new(wallets: &Path, name: &str) -> Result<Self, WalletError> {
        Ok(Self(wallets.join(checked(name)?)))
    }

    /// The file of a hotkey.
    ///
    /// # Errors
    /// The name is none.
    pub fn hotkey_file(&self, hotkey: &str) -> Result<PathBuf, WalletError> {
        Ok(self.0.join("hotkeys").join(checked(hotkey)?))
    }

    /// The file of a hotkey's public side.
    ///
    /// # Errors
    /// The name is none.
    pub fn hotkey_public_file(&self, hotkey: &str) -> Result<PathBuf, WalletError> {
        Ok(self.0.join("hotkeys").join(format!("{}pub.txt", checked(hotkey)?)))
    }

    /// The file of the coldkey.
    pub fn coldkey_file(&self) -> PathBuf {
        self.0.join("coldkey")
    }

    /// The file of the coldkey's public side.
    pub fn coldkey_public_file(&self) -> PathBuf {
        self.0.join("coldkeypub.txt")
    }

    /// A hotkey with its secret; `password` is asked where the file is encrypted.
    ///
    /// # Errors
    /// See [`read_secret`].
    pub fn hotkey(
        &self,
        hotkey: &str,
        password: impl FnOnce() -> Result<Password, WalletError>,
    ) -> Result<HotkeyPair, WalletError> {
        read_secret(&self.hotkey_file(hotkey)?, password)
    }

    /// A hotkey's address, without its secret where there is a public file: older wallets have none.
    ///
    /// # Errors
    /// There is no public file and the other one is encrypted or holds no key.
    pub fn hotkey_address(&self, hotkey: &str) -> Result<Hotkey, WalletError> {
        let public = self.hotkey_public_file(hotkey)?;
        if public.exists() { read_public(&public) } else { read_public(&self.hotkey_file(hotkey)?) }
    }

    /// Writes a new hotkey: its file, encrypted where there is a password, and the public one.
    ///
    /// # Errors
    /// A file of that name exists or cannot be written, or there is too little memory to encrypt.
    pub fn create_hotkey(
        &self,
        hotkey: &str,
        pair: &HotkeyPair,
        phrase: Option<&str>,
        password: Option<&Password>,
    ) -> Result<(), WalletError> {
        let (path, public) = (self.hotkey_file(hotkey)?, self.hotkey_public_file(hotkey)?);
        // Both or none: a public file of another key beside a new one misleads everybody.
        if let Some(there) = [&path, &public].into_iter().find(|p| p.exists()) {
            return Err(WalletError::Exists(there.clone()));
        }
        secret_file::create(&path, &encoded(&path, pair, phrase, password)?)?;
        secret_file::create(&public, keyfile::public_json(&pair.hotkey()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn none() -> Result<Password, WalletError> {
        panic!("a password was asked for a file in the clear")
    }

    #[test]
    fn a_new_hotkey_is_found_by_its_name_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let wallet = Wallet::new(dir.path(), "validator").unwrap();
        let pair = HotkeyPair::from_seed(&[4; 32]).unwrap();
        wallet.create_hotkey("hot", &pair, None, None).unwrap();
        assert_eq!(wallet.hotkey("hot", none).unwrap().hotkey(), pair.hotkey());
        assert_eq!(wallet.hotkey_address("hot").unwrap(), pair.hotkey());
        assert!(matches!(wallet.create_hotkey("hot", &pair, None, None), Err(WalletError::Exists(_))));
        std::fs::remove_file(wallet.hotkey_public_file("hot").unwrap()).unwrap();
        assert_eq!(wallet.hotkey_address("hot").unwrap(), pair.hotkey(), "older wallets have no public file");
        std::fs::remove_file(wallet.hotkey_file("hot").unwrap()).unwrap();
        wallet.create_hotkey("hot", &pair, None, None).unwrap();
    }

    #[test]
    fn a_name_cannot_lead_out_of_its_folder() {
        let folder = Path::new("/wallets");
        for name in ["", ".", "..", "a/b", "/etc", "a/", "../x", "a\0b", "a\nb", &"x".repeat(201)] {
            assert!(matches!(Wallet::new(folder, name), Err(WalletError::Name(_))), "{name:?}");
            let wallet = Wallet::new(folder, "w").unwrap();
            assert!(matches!(wallet.hotkey_file(name), Err(WalletError::Name(_))), "{name:?}");
        }
        let file = Wallet::new(folder, "my wallet").unwrap().hotkey_file("первый").unwrap();
        assert_eq!(file, Path::new("/wallets/my wallet/hotkeys/первый"));
    }
}
