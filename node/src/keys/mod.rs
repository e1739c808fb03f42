//! Keys: the hotkey's secret (given), the consensus and network keys (made here).
//!
//! Three keys, never one for two jobs. A hotkey comes from a wallet's folder, from a file that only its
//! owner can read, or from `VALIDATOR_SECRET_KEY`; passwords come from a file or the terminal. Nothing
//! secret is taken from the command line or written into a log.

pub mod args;
pub mod command;
pub mod consensus;
pub mod delegation;

use std::io;
use std::path::{Path, PathBuf};

use perturb_types::secret::{self, SecretError};
use perturb_types::{Hotkey, HotkeyPair};
use perturb_wallet::keyfile::{self, MAX_KEYFILE_BYTES};
use perturb_wallet::{Form, Password, Wallet, WalletError, folder};
use rand::RngCore;
use zeroize::Zeroizing;

pub use args::KeysCommand;
pub use command::run;
pub use consensus::{Keyring, Signer, consensus};

use crate::config::Config;

/// The environment variable with the hotkey's secret.
pub const SECRET_ENV: &str = "VALIDATOR_SECRET_KEY";

/// A wallet's hotkey where none is named: what Bittensor's tools take.
pub const USUAL_HOTKEY: &str = "default";

/// A made key file holds one line: anything longer is another file.
const MAX_SECRET_FILE_BYTES: usize = 4096;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No secret anywhere.
    #[error(
        "no hotkey: name one with --wallet, set {SECRET_ENV}, or put the secret (BIP39 phrase or hex) into {0} (`perturb keys new` makes one)"
    )]
    NoHotkey(PathBuf),
    /// Several places, and no rule that could choose.
    #[error("the hotkey is named twice, by {0} and by {1}: leave one of them away")]
    Twice(&'static str, &'static str),
    /// A wallet, key file or password.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// Text that is no secret key.
    #[error("{0}: {1}")]
    Text(String, SecretError),
    /// The home folder is not known.
    #[error("where wallets are is not known, for HOME is not set: name their folder with --wallets")]
    NoHome,
    /// A folder that cannot be read.
    #[error("{0}: {1}")]
    Folder(PathBuf, io::Error),
    /// Consensus keys without end.
    #[error("{0} holds {1} consensus keys: move those that are retired away, each with its signing guard")]
    TooMany(PathBuf, usize),
}

/// Where a hotkey is kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file: text (hex, phrase, secret URI), or a wallet's own file.
    File(PathBuf),
    /// A wallet and the hotkey's name in it.
    Wallet(Wallet, String),
}

impl Place {
    /// A wallet's hotkey.
    ///
    /// # Errors
    /// A name that is none, or no folder of wallets.
    pub fn wallet(wallets: Option<&Path>, wallet: &str, hotkey: Option<&str>) -> Result<Self, KeyError> {
        let wallets = wallets.map(Path::to_owned).or_else(folder::usual).ok_or(KeyError::NoHome)?;
        let (wallet, hotkey) = (Wallet::new(&wallets, wallet)?, hotkey.unwrap_or(USUAL_HOTKEY));
        wallet.hotkey_file(hotkey)?;
        Ok(Self::Wallet(wallet, hotkey.to_owned()))
    }

    /// The file with the secret.
    ///
    /// # Errors
    /// A name that is none.
    pub fn path(&self) -> Result<PathBuf, KeyError> {
        match self {
            Self::File(path) => Ok(path.clone()),
            Self::Wallet(wallet, hotkey) => Ok(wallet.hotkey_file(hotkey)?),
        }
    }

    /// The hotkey with its secret. An encrypted file's password comes from `password_file`, or is asked
    /// for at the terminal.
    ///
    /// # Errors
    /// The file cannot be read, others can read it, the password does not fit, or it holds no key.
    pub fn pair(&self, password_file: Option<&Path>) -> Result<HotkeyPair, KeyError> {
        let path = self.path()?;
        let bytes = perturb_wallet::read_private(&path, MAX_KEYFILE_BYTES)?;
        if matches!(self, Self::File(_)) && is_text(&bytes) {
            return text_pair(&bytes, &format!("key file {}", path.display()), false);
        }
        let password = || password(password_file, &path, false);
        Ok(folder::secret_of(&path, bytes, password)?)
    }

    /// The address, without the secret where that is possible; then no password is needed.
    ///
    /// # Errors
    /// As [`Place::pair`].
    pub fn address(&self, password_file: Option<&Path>) -> Result<Hotkey, KeyError> {
        if let Self::Wallet(wallet, hotkey) = self
            && let Ok(address) = wallet.hotkey_address(hotkey)
        {
            return Ok(address);
        }
        Ok(self.pair(password_file)?.hotkey())
    }

    /// Writes a new hotkey there. In a file of its own it is hex where that says all and nothing is to be
    /// encrypted, else what a wallet's file would be.
    ///
    /// # Errors
    /// Something is there already, or cannot be written.
    pub fn create(&self, pair: &HotkeyPair, phrase: Option<&str>, password: Option<&Password>) -> Result<(), KeyError> {
        let path = match self {
            Self::Wallet(wallet, hotkey) => return Ok(wallet.create_hotkey(hotkey, pair, phrase, password)?),
            Self::File(path) => path,
        };
        match (password, pair.seed()) {
            (None, Some(seed)) => write_secret(path, seed),
            _ => Ok(perturb_wallet::create(path, &folder::encoded(path, pair, phrase, password)?)?),
        }
    }
}

/// The password of a file, from another file or the terminal.
fn password(file: Option<&Path>, of: &Path, new: bool) -> Result<Password, WalletError> {
    match file {
        Some(file) => Password::from_file(file),
        None => Password::ask(&of.display().to_string(), new),
    }
}

/// Whether a secret is text for people, and not a wallet's file.
fn is_text(bytes: &[u8]) -> bool {
    Form::of(bytes) == Form::Plain && !bytes.trim_ascii_start().starts_with(b"{")
}

/// The hotkey of a text.
fn text_pair(bytes: &[u8], named: &str, development: bool) -> Result<HotkeyPair, KeyError> {
    let wrong = |e| KeyError::Text(named.to_owned(), e);
    let text = std::str::from_utf8(bytes).map_err(|_| wrong(SecretError::Shape))?;
    secret::pair_from_text(text, development).map_err(wrong)
}

/// The seed in a file that was made here.
fn read_seed(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let bytes = perturb_wallet::read_private(path, MAX_SECRET_FILE_BYTES)?;
    let wrong = |e| KeyError::Text(format!("key file {}", path.display()), e);
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(SecretError::Shape))?;
    secret::seed_from_text(text).map_err(wrong)
}

/// Writes a secret to a new file that only its owner can read.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn write_secret(path: &Path, seed: &[u8; 32]) -> Result<(), KeyError> {
    let digits = Zeroizing::new(hex::encode(seed));
    let text = Zeroizing::new(format!("0x{}\n", *digits));
    Ok(perturb_wallet::create(path, text.as_bytes())?)
}

/// A fresh random secret.
pub fn random_seed() -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0u8; 32]);
    rand::rng().fill_bytes(&mut seed[..]);
    seed
}

/// The hotkey of a role: of the wallet or file that is named, else from the environment, else of the
/// data folder.
///
/// # Errors
/// No secret, several, or one that cannot be used.
pub fn hotkey(config: &Config) -> Result<HotkeyPair, KeyError> {
    let environment = std::env::var(SECRET_ENV).ok().map(Zeroizing::new);
    let password_file = config.password_file.as_deref();
    if let Some(wallet) = &config.wallet {
        if environment.is_some() {
            return Err(KeyError::Twice("--wallet", SECRET_ENV));
        }
        if config.hotkey_file.is_some() {
            return Err(KeyError::Twice("--wallet", "--hotkey-file"));
        }
        let place = Place::wallet(config.wallets.as_deref(), wallet, config.wallet_hotkey.as_deref())?;
        return place.pair(password_file);
    }
    if let Some(text) = environment {
        return text_pair(text.as_bytes(), SECRET_ENV, false);
    }
    let file = config.hotkey_file.clone().unwrap_or_else(|| config.data_dir.join("hotkey"));
    if !file.exists() {
        return Err(KeyError::NoHotkey(file));
    }
    Place::File(file).pair(password_file)
}

/// The hotkey of a file; an encrypted one's password is asked for.
///
/// # Errors
/// The file cannot be read, others can read it, or it holds no key.
pub fn hotkey_file(path: &Path) -> Result<HotkeyPair, KeyError> {
    Place::File(path.into()).pair(None)
}

fn read_or_make(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    if !path.exists() {
        write_secret(path, &random_seed())?;
    }
    read_seed(path)
}

/// The network key's seed of a data folder, made on first use. Random, so that a peer id cannot be
/// derived from anything public.
///
/// # Errors
/// The file cannot be read or written.
pub fn network(data_dir: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    read_or_make(&data_dir.join("network-key"))
}

/// How a file's secret is kept, for people.
fn kept(path: &Path) -> Result<&'static str, KeyError> {
    let bytes = perturb_wallet::read_private(path, MAX_KEYFILE_BYTES)?;
    Ok(match Form::of(&bytes) {
        Form::Nacl => "a wallet's file, encrypted",
        Form::AnsibleVault => "a wallet's file, encrypted as an Ansible Vault",
        Form::Fernet => "a wallet's file, encrypted by Fernet",
        Form::Plain if keyfile::parse(&bytes).is_ok() => "a wallet's file in the clear",
        Form::Plain => "text in the clear",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hotkey");
        write_secret(&path, &[7; 32]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(write_secret(&path, &[8; 32]), Err(KeyError::Wallet(WalletError::Exists(_)))));
        assert_eq!(*read_seed(&path).unwrap(), [7; 32]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_seed(&path), Err(KeyError::Wallet(WalletError::Open(_, 0o644)))));
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
        perturb_wallet::create(&path, b"correct horse battery staple").unwrap();
        for e in [hotkey_file(&path).unwrap_err().to_string(), read_seed(&path).unwrap_err().to_string()] {
            assert!(e.contains("hotkey") && !e.contains("horse"), "{e}");
        }
    }

    #[test]
    fn a_hotkey_file_is_text_or_a_wallets_file_and_a_secret_without_a_seed_is_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let phrase = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
        let soft = secret::pair_from_text(&format!("{phrase}/soft"), false).unwrap();
        for (name, text) in [("phrase", phrase.to_owned()), ("uri", format!("{phrase}//hard"))] {
            let file = dir.path().join(name);
            perturb_wallet::create(&file, text.as_bytes()).unwrap();
            let pair = hotkey_file(&file).unwrap();
            assert_eq!(pair.hotkey(), secret::pair_from_text(&text, false).unwrap().hotkey());
        }
        let place = Place::File(dir.path().join("soft"));
        place.create(&soft, None, None).unwrap();
        assert_eq!(place.pair(None).unwrap().hotkey(), soft.hotkey());
        let wallet = Place::wallet(Some(dir.path()), "w", None).unwrap();
        wallet.create(&soft, None, None).unwrap();
        let file = hotkey_file(&wallet.path().unwrap()).unwrap();
        assert_eq!((file.hotkey(), wallet.address(None).unwrap()), (soft.hotkey(), soft.hotkey()));
        let alice = dir.path().join("alice");
        perturb_wallet::create(&alice, b"//Alice").unwrap();
        assert!(matches!(hotkey_file(&alice), Err(KeyError::Text(_, SecretError::Development))));
    }

    #[test]
    fn a_role_takes_its_hotkey_from_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let wallets = dir.path().join("wallets");
        let pair = HotkeyPair::from_seed(&[3; 32]).unwrap();
        Place::wallet(Some(&wallets), "w", Some("hot")).unwrap().create(&pair, None, None).unwrap();
        let mut config = Config {
            data_dir: dir.path().into(),
            wallet: Some("w".into()),
            wallet_hotkey: Some("hot".into()),
            wallets: Some(wallets),
            ..Config::default()
        };
        assert_eq!(hotkey(&config).unwrap().hotkey(), pair.hotkey());
        config.hotkey_file = Some("other".into());
        assert!(matches!(hotkey(&config), Err(KeyError::Twice(..))));
        config.wallet = None;
        assert!(matches!(hotkey(&config), Err(KeyError::NoHotkey(_))));
    }
}
