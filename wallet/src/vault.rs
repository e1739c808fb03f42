//! The encrypted forms of a key file.
//!
//! All three take their key from a password alone and authenticate what they hold, so that a wrong
//! password is told from a right one. Only [`nacl`] is written; the other two are what earlier tools
//! left behind.

mod ansible;
mod fernet;
mod nacl;

use zeroize::Zeroizing;

use crate::keyfile::KeyfileError;
use crate::password::Password;

/// How a key file's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON, in the clear.
    Plain,
    /// Argon2i and XSalsa20-Poly1305: today's form.
    Nacl,
    /// Ansible Vault 1.1 or 1.2: PBKDF2, AES-256-CTR, HMAC-SHA256.
    AnsibleVault,
    /// Fernet with a key by PBKDF2: the oldest form.
    Fernet,
}

impl Form {
    /// The form that the bytes begin like.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(nacl::PREFIX) {
            Self::Nacl
        } else if bytes.starts_with(ansible::PREFIX) {
            Self::AnsibleVault
        } else if bytes.starts_with(fernet::PREFIX) {
            Self::Fernet
        } else {
            Self::Plain
        }
    }
}

/// What an encrypted file holds. Takes seconds: that is what slows guessing down.
///
/// # Errors
/// The password is wrong, the bytes are damaged or not encrypted, or there is too little memory.
pub fn open(bytes: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
    match Form::of(bytes) {
        Form::Nacl => nacl::open(bytes, password),
        Form::AnsibleVault => ansible::open(bytes, password),
        Form::Fernet => fernet::open(bytes, password),
        Form::Plain => Err(KeyfileError::NotEncrypted),
    }
}

/// Encrypts in today's form.
///
/// # Errors
/// Too little memory.
pub fn seal(bytes: &[u8], password: &Password) -> Result<Vec<u8>, KeyfileError> {
    nacl::seal(bytes, password)
}

/// Takes off the padding of PKCS #7 for blocks of 16 bytes, of what has been authenticated.
fn unpad(bytes: &mut Vec<u8>) -> Result<(), KeyfileError> {
    let n = bytes.last().copied().map_or(0, usize::from);
    let at = bytes.len().checked_sub(n).filter(|_| (1..=16).contains(&n)).ok_or(KeyfileError::Damaged)?;
    if bytes.iter().skip(at).any(|b| usize::from(*b) != n) {
        return Err(KeyfileError::Damaged);
    }
    bytes.truncate(at);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_is_taken_off_only_where_it_is_one() {
        let after = |mut bytes: Vec<u8>| unpad(&mut bytes).map(|()| bytes);
        assert_eq!(after(vec![7, 2, 2]), Ok(vec![7]));
        assert_eq!(after(vec![16; 16]), Ok(vec![]));
        for wrong in [vec![], vec![0], vec![7, 1, 2], vec![3, 3], vec![17; 17]] {
            assert_eq!(after(wrong), Err(KeyfileError::Damaged));
        }
    }

    proptest! {
        // Without a marker of the slow forms: noise behind it is refused before a key is made.
        #[test]
        fn noise_behind_a_marker_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..40)) {
            let password = Password::new(Zeroizing::new("x".to_owned())).unwrap();
            for marker in [&b"$NACL"[..], b"$ANSIBLE_VAULT", b"$ANSIBLE_VAULT;1.1;AES256\n", b"gAAAAA"] {
                let bytes = [marker, &noise[..]].concat();
                prop_assert!(open(&bytes, &password).is_err());
            }
        }
    }
}
