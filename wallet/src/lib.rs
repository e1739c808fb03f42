//! Bittensor's wallet folders: hotkeys and coldkeys in the files that the official tools read and write.
//!
//! ```text
//! WALLETS/NAME/coldkey               the coldkey, as a rule encrypted
//! WALLETS/NAME/coldkeypub.txt        its public part
//! WALLETS/NAME/hotkeys/HOTKEY        a hotkey, as a rule plain
//! WALLETS/NAME/hotkeys/HOTKEYpub.txt its public part
//! ```
//!
//! A [`keyfile`] is a JSON object; [`vault`] opens its three encrypted forms and writes the one that is
//! in use today. A file from outside is opened once, as a regular file of a bounded length that nobody
//! else can read, and its address has to follow from its secret. Secrets are wiped when dropped, have
//! no text form, and are in no error.

pub mod folder;
pub mod keyfile;
pub mod password;
mod secret_file;
pub mod vault;

pub use folder::Wallet;
pub use keyfile::{KeyfileError, Keys};
pub use password::Password;
pub use secret_file::{create, read_private};
pub use vault::Form;

use std::io;
use std::path::PathBuf;

/// A wallet, key file or password file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// It cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// Others can read a secret.
    #[error("{0} can be read by others (mode {1:o}): run `chmod 600 {0}`")]
    Open(PathBuf, u32),
    /// A secret is never written over another one.
    #[error("{0} exists: it is not overwritten; choose another name")]
    Exists(PathBuf),
    /// A name that leads somewhere else.
    #[error("`{0}` is no name of a wallet or hotkey: it has to be the name of one file")]
    Name(String),
    /// What is in it.
    #[error("{0}: {1}")]
    Content(PathBuf, KeyfileError),
    /// No password, or one that cannot be one.
    #[error("{0}")]
    Password(String),
}
