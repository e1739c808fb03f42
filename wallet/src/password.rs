//! Passwords: from a file that only its owner can read, or typed without being shown.
//!
//! Never from an argument, which every process of the machine can see, and never from the
//! environment, which children and crash reports inherit.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::{WalletError, secret_file};

/// Longest password: beyond it a file is something else.
const MAX_PASSWORD_BYTES: usize = 1024;

/// A password, wiped when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// A line typed at the terminal without being shown.
///
/// # Errors
/// There is no terminal.
pub fn ask_hidden(prompt: &str) -> std::io::Result<Zeroizing<String>> {
    rpassword::prompt_password(prompt).map(Zeroizing::new)
}

impl Password {
    /// A password.
    ///
    /// # Errors
    /// It is empty or too long.
    pub fn new(text: Zeroizing<String>) -> Result<Self, WalletError> {
        match text.len() {
            0 => Err(WalletError::Password("the password is empty".into())),
            n if n > MAX_PASSWORD_BYTES => {
                Err(WalletError::Password(format!("the password is longer than {MAX_PASSWORD_BYTES} bytes")))
            }
            _ => Ok(Self(text)),
        }
    }

    /// The first line of a file that only its owner can read.
    ///
    /// # Errors
    /// The file cannot be read, others can read it, or its first line is no password.
    pub fn from_file(path: &Path) -> Result<Self, WalletError> {
        // One byte more for a line's end, another for Windows' two.
        let bytes = secret_file::read_private(path, MAX_PASSWORD_BYTES + 2)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| WalletError::Password(format!("{}: the password is no text in UTF-8", path.display())))?;
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if lines.next().is_some() {
            let why = format!("{}: a password is one line, here are more", path.display());
            return Err(WalletError::Password(why));
        }
        Self::new(Zeroizing::new(first.to_owned()))
            .map_err(|e| WalletError::Password(format!("{}: {e}", path.display())))
    }

    /// Asks for it at the terminal without showing it; twice where it is a new one.
    ///
    /// # Errors
    /// There is no terminal, nothing was typed, or the two differ.
    pub fn ask(what: &str, new: bool) -> Result<Self, WalletError> {
        let read = |prompt: &str| {
            ask_hidden(prompt).map_err(|e| {
                WalletError::Password(format!(
                    "{what} needs a password and there is no terminal to ask at ({e}): name a file with --password-file"
                ))
            })
        };
        let password = read(&format!("Password for {what}: "))?;
        if new && *read("The same again: ")? != *password {
            return Err(WalletError::Password("the two passwords differ".into()));
        }
        Self::new(password)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_password_is_one_line_of_a_private_file_and_has_no_text_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            secret_file::create(&path, text).unwrap();
            path
        };
        let of = |path: std::path::PathBuf| Password::from_file(&path);
        let password = of(path("a", b"correct horse\r\n")).unwrap();
        assert_eq!(password.bytes(), b"correct horse");
        assert!(!format!("{password:?}").contains("horse"));
        for (name, wrong) in [("b", &b"\n"[..]), ("c", b"horse\ntwo\n"), ("d", &[0xff]), ("e", &[b'a'; 1100])] {
            let e = of(path(name, wrong)).unwrap_err().to_string();
            assert!(!e.contains("horse") && e.contains(dir.path().to_str().unwrap()), "{e}");
        }
    }
}
