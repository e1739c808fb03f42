//! Reading a secret key from text: a BIP39 phrase or 32 bytes of hex.

use zeroize::Zeroizing;

/// Text that is not a secret key. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Neither form.
    #[error("the secret key is neither a BIP39 phrase of 12 to 24 words nor 32 bytes in hex")]
    Shape,
    /// A phrase whose words or checksum are wrong.
    #[error("the secret key looks like a BIP39 phrase, but a word or its checksum is wrong")]
    Phrase,
}

/// The 32-byte mini-secret that `text` stands for.
///
/// A phrase becomes a seed the way Substrate does it: PBKDF2-HMAC-SHA512 over the *entropy*
/// (not the words) with salt `"mnemonic"`, 2048 rounds, the first 32 bytes of the output.
///
/// # Errors
/// Neither form, or a phrase that is wrong. The error never repeats the text.
pub fn seed_from_text(text: &str) -> Result<Zeroizing<[u8; 32]>, SecretError> {
    let text = text.trim();
    let mut seed = Zeroizing::new([0u8; 32]);
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.len() == 64 && hex::decode_to_slice(digits, &mut seed[..]).is_ok() {
        return Ok(seed);
    }
    if text.split_whitespace().count() < 12 {
        return Err(SecretError::Shape);
    }
    let phrase =
        bip39::Mnemonic::parse_in_normalized(bip39::Language::English, text).map_err(|_| SecretError::Phrase)?;
    let (entropy, len) = phrase.to_entropy_array();
    let entropy = Zeroizing::new(entropy);
    let mut out = Zeroizing::new([0u8; 64]);
    pbkdf2::pbkdf2_hmac::<sha2::Sha512>(&entropy[..len], b"mnemonic", 2048, &mut out[..]);
    seed.copy_from_slice(&out[..32]);
    Ok(seed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::keys::HotkeyPair;

    #[test]
    fn the_development_phrase_gives_the_well_known_key() {
        // Substrate's public development phrase and its root account.
        let phrase = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
        let seed = seed_from_text(phrase).unwrap();
        assert_eq!(hex::encode(*seed), "fac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e");
        assert_eq!(
            HotkeyPair::from_seed(&seed).unwrap().hotkey().to_string(),
            "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV"
        );
    }

    #[test]
    fn hex_is_taken_as_it_is_and_nonsense_is_not_repeated() {
        assert_eq!(*seed_from_text(&format!(" 0x{} ", "ab".repeat(32))).unwrap(), [0xab; 32]);
        assert_eq!(seed_from_text("hunter2"), Err(SecretError::Shape));
        let wrong = "bottom drive obey lake curtain smoke basket hold race lonely fit fit";
        let e = seed_from_text(wrong).unwrap_err();
        assert_eq!(e, SecretError::Phrase);
        assert!(!e.to_string().contains("bottom"));
    }
}
