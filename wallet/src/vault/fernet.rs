//! Fernet, with a key that PBKDF2-HMAC-SHA256 makes of the password in ten million rounds.
//!
//! A token is base64url of: version 0x80, eight bytes of time, the IV, AES-128-CBC with PKCS #7, and
//! HMAC-SHA256 over all of that. The first half of the key is the HMAC's, the second the cipher's.
//! The time is not looked at: a wallet does not expire.

use aes::Aes128;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cbc::Decryptor;
use cbc::cipher::{Block, BlockDecryptMut as _, KeyIvInit as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::unpad;
use crate::keyfile::KeyfileError;
use crate::password::Password;

/// The version byte and the zeros that the time of any of our days begins with.
pub(super) const PREFIX: &[u8] = b"gAAAAA";

/// The salt of all wallets of this form.
const SALT: &[u8] = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins";
const ROUNDS: u32 = 10_000_000;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Version, time and IV.
const HEADER: usize = 1 + 8 + 16;
const MAC: usize = 32;

pub(super) fn open(bytes: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
    let token = BASE64.decode(bytes.trim_ascii()).map_err(|_| KeyfileError::Damaged)?;
    let signed = token.len().checked_sub(MAC).ok_or(KeyfileError::Damaged)?;
    let (signed, mac) = token.split_at(signed);
    let (header, sealed) = signed.split_at_checked(HEADER).ok_or(KeyfileError::Damaged)?;
    // Before the key is made: it costs seconds.
    if header.first() != Some(&0x80) || sealed.is_empty() || sealed.len() % 16 != 0 {
        return Err(KeyfileError::Damaged);
    }
    let mut key = Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.bytes(), SALT, ROUNDS, &mut key[..]);
    let (mac_key, cipher_key) = key.split_at(16);
    let mut check = Hmac::<Sha256>::new_from_slice(mac_key).map_err(|_| KeyfileError::Damaged)?;
    check.update(signed);
    check.verify_slice(mac).map_err(|_| KeyfileError::Password)?;

    let (_, iv) = header.split_at(HEADER - 16);
    let mut cipher = Decryptor::<Aes128>::new_from_slices(cipher_key, iv).map_err(|_| KeyfileError::Damaged)?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    for block in plain.chunks_exact_mut(16) {
        cipher.decrypt_block_mut(Block::<Aes128>::from_mut_slice(block));
    }
    unpad(&mut plain)?;
    Ok(plain)
}
