//! `$NACL`, 24 bytes of nonce, then NaCl's secretbox (tag first).
//!
//! The key is libsodium's argon2i13 at its limits "sensitive" (8 passes over 512 MiB, one lane) with
//! one salt for all files: two files with one password have one key.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use rand::RngCore as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::keyfile::KeyfileError;
use crate::password::Password;

pub(super) const PREFIX: &[u8] = b"$NACL";

/// The salt of all of Bittensor's wallets.
const SALT: [u8; 16] = [0x13, 0x71, 0x83, 0xdf, 0xf1, 0x5a, 0x09, 0xbc, 0x9c, 0x90, 0xb5, 0x51, 0x87, 0x39, 0xe9, 0xb1];
const MEMORY_KIB: u32 = 512 * 1024;
const PASSES: u32 = 8;

const NONCE: usize = 24;
const TAG: usize = 16;

fn key(password: &Password) -> Result<Zeroizing<[u8; 32]>, KeyfileError> {
    let mut key = Zeroizing::new([0u8; 32]);
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(key.len())).map_err(|_| KeyfileError::Damaged)?;
    let mut memory: Vec<Block> = Vec::new();
    let blocks = params.block_count();
    memory.try_reserve_exact(blocks).map_err(|_| KeyfileError::Memory)?;
    memory.resize(blocks, Block::default());
    let derived = Argon2::new(Algorithm::Argon2i, Version::V0x13, params).hash_password_into_with_memory(
        password.bytes(),
        &SALT,
        &mut key[..],
        &mut memory,
    );
    memory.iter_mut().for_each(|block| block.zeroize());
    derived.map(|()| key).map_err(|_| KeyfileError::Password)
}

pub(super) fn open(bytes: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
    let body = bytes.strip_prefix(PREFIX).ok_or(KeyfileError::Damaged)?;
    // Before the key is made: it costs seconds and half a gibibyte.
    if body.len() < NONCE + TAG {
        return Err(KeyfileError::Damaged);
    }
    open_with(body, &*key(password)?)
}

fn open_with(body: &[u8], key: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
    let (nonce, sealed) = body.split_at_checked(NONCE).ok_or(KeyfileError::Damaged)?;
    let plain = XSalsa20Poly1305::new(key.into()).decrypt(Nonce::from_slice(nonce), sealed);
    plain.map(Zeroizing::new).map_err(|_| KeyfileError::Password)
}

pub(super) fn seal(bytes: &[u8], password: &Password) -> Result<Vec<u8>, KeyfileError> {
    seal_with(bytes, &*key(password)?)
}

fn seal_with(bytes: &[u8], key: &[u8; 32]) -> Result<Vec<u8>, KeyfileError> {
    let mut nonce = [0u8; NONCE];
    rand::rng().fill_bytes(&mut nonce);
    let sealed = XSalsa20Poly1305::new(key.into())
        .encrypt(Nonce::from_slice(&nonce), bytes)
        .map_err(|_| KeyfileError::Damaged)?;
    Ok([PREFIX, &nonce, &sealed].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_its_key_alone_and_every_bit_counts() {
        let sealed = seal_with(b"secret", &[7; 32]).unwrap();
        assert_ne!(seal_with(b"secret", &[7; 32]).unwrap(), sealed, "a nonce is never used twice");
        let body = sealed.strip_prefix(PREFIX).unwrap();
        assert_eq!(**open_with(body, &[7; 32]).unwrap(), *b"secret");
        assert_eq!(open_with(body, &[8; 32]).unwrap_err(), KeyfileError::Password);
        for i in 0..body.len() {
            let mut other = body.to_vec();
            other[i] ^= 1;
            assert_eq!(open_with(&other, &[7; 32]).unwrap_err(), KeyfileError::Password);
        }
        assert_eq!(open_with(&body[..9], &[7; 32]).unwrap_err(), KeyfileError::Damaged);
    }
}
