//! Ansible Vault: `$ANSIBLE_VAULT;1.1;AES256`, then lines of hex.
//!
//! The hex stands for three further texts of hex on a line each: salt, HMAC-SHA256, and ciphertext.
//! PBKDF2-HMAC-SHA256 with 10,000 rounds gives 80 bytes: the key of AES-256-CTR, that of the HMAC (over
//! the ciphertext), and the first counter. The plaintext is padded as PKCS #7.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::unpad;
use crate::keyfile::KeyfileError;
use crate::password::Password;

pub(super) const PREFIX: &[u8] = b"$ANSIBLE_VAULT";

const ROUNDS: u32 = 10_000;

pub(super) fn open(bytes: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| KeyfileError::Damaged)?;
    let mut lines = text.lines();
    let mut header = lines.next().unwrap_or_default().split(';').skip(1).map(str::trim);
    // 1.2 differs by a label behind the cipher's name, which is for people.
    if !matches!((header.next(), header.next()), (Some("1.1" | "1.2"), Some("AES256"))) {
        return Err(KeyfileError::Unknown("Ansible Vault of another version or cipher"));
    }
    let hex: String = lines.map(str::trim).collect();
    let inner = hex::decode(hex).map_err(|_| KeyfileError::Damaged)?;
    let mut parts = inner.split(|b| *b == b'\n').map(hex::decode);
    let mut part = || parts.next().and_then(Result::ok).ok_or(KeyfileError::Damaged);
    let (salt, mac, sealed) = (part()?, part()?, part()?);

    let mut derived = Zeroizing::new([0u8; 80]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.bytes(), &salt, ROUNDS, &mut derived[..]);
    let (cipher_key, rest) = derived.split_at(32);
    let (mac_key, counter) = rest.split_at(32);
    let mut check = Hmac::<Sha256>::new_from_slice(mac_key).map_err(|_| KeyfileError::Damaged)?;
    check.update(&sealed);
    check.verify_slice(&mac).map_err(|_| KeyfileError::Password)?;
    let mut plain = Zeroizing::new(sealed);
    let mut cipher = Ctr128BE::<Aes256>::new_from_slices(cipher_key, counter).map_err(|_| KeyfileError::Damaged)?;
    cipher.apply_keystream(&mut plain);
    unpad(&mut plain)?;
    Ok(plain)
}
