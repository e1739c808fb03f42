//! Reading a secret key from text: a BIP39 phrase, 32 bytes of hex, or a secret URI.
//!
//! A secret URI (SURI) is Substrate's `SECRET[//hard|/soft]...[///PASSWORD]`: a phrase or hex, then
//! junctions that derive another key, then a password that goes into the phrase's seed.

use blake2::Digest as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::keys::HotkeyPair;

/// The phrase that every Substrate tool derives its development accounts from (`//Alice`): public.
const DEVELOPMENT_PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

/// Longest text: 24 words of at most 8 letters, with room for junctions and a password.
pub const MAX_TEXT_BYTES: usize = 1024;

/// Most junctions: each costs a derivation, and nobody writes more than a few.
const MAX_JUNCTIONS: usize = 16;

/// Text that is not a secret key. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Neither form.
    #[error("the secret key is neither a BIP39 phrase of 12 to 24 words nor 32 bytes in hex")]
    Shape,
    /// A phrase whose words or checksum are wrong.
    #[error("the secret key looks like a BIP39 phrase, but a word or its checksum is wrong")]
    Phrase,
    /// Longer than any secret.
    #[error("the text is longer than {MAX_TEXT_BYTES} bytes: it is no secret key")]
    Long,
    /// A secret URI whose path is empty in a place, or has too many junctions.
    #[error("the derivation path is wrong: write //hard or /soft parts, at most {MAX_JUNCTIONS}, none empty")]
    Path,
    /// A URI without a phrase stands for the public development phrase.
    #[error("a path without a phrase is a development key that everybody knows; --development allows it")]
    Development,
    /// A password goes into a phrase's seed; a seed in hex has taken its own already.
    #[error("a seed in hex takes no password: leave ///… away")]
    Password,
    /// The 32 bytes are no key.
    #[error(transparent)]
    Bytes(#[from] crate::keys::BadSeed),
}

/// The seed of a BIP39 phrase.
///
/// It is made the way Substrate does it: PBKDF2-HMAC-SHA512 over the *entropy* (not the words) with
/// salt `"mnemonic"` and the password, 2048 rounds, the first 32 bytes of the output.
///
/// # Errors
/// The phrase is wrong. The error never repeats it.
pub fn seed_from_phrase(phrase: &str, password: &str) -> Result<Zeroizing<[u8; 32]>, SecretError> {
    let phrase =
        bip39::Mnemonic::parse_in_normalized(bip39::Language::English, phrase).map_err(|_| SecretError::Phrase)?;
    let (entropy, len) = phrase.to_entropy_array();
    let entropy = Zeroizing::new(entropy);
    let salt = Zeroizing::new(["mnemonic", password].concat());
    let mut out = Zeroizing::new([0u8; 64]);
    pbkdf2::pbkdf2_hmac::<sha2::Sha512>(&entropy[..len], salt.as_bytes(), 2048, &mut out[..]);
    let mut seed = Zeroizing::new([0u8; 32]);
    seed.copy_from_slice(&out[..32]);
    Ok(seed)
}

/// The English phrase of 16 bytes of entropy: 12 words.
pub fn phrase_of(entropy: &[u8; 16]) -> Option<Zeroizing<String>> {
    let phrase = bip39::Mnemonic::from_entropy_in(bip39::Language::English, entropy).ok()?;
    // Room for twelve words of eight letters, so that growing leaves no copy behind.
    let mut text = Zeroizing::new(String::with_capacity(12 * 9));
    for word in phrase.words() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    Some(text)
}

/// The 32 bytes that hex digits stand for, `0x` or not.
fn seed_from_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0u8; 32]);
    let digits = text.strip_prefix("0x").unwrap_or(text);
    (digits.len() == 64 && hex::decode_to_slice(digits, &mut seed[..]).is_ok()).then_some(seed)
}

/// The 32-byte mini-secret that `text` stands for: a phrase or hex, nothing derived.
///
/// # Errors
/// Neither form, or a phrase that is wrong. The error never repeats the text.
pub fn seed_from_text(text: &str) -> Result<Zeroizing<[u8; 32]>, SecretError> {
    seed_with_password(bounded(text)?, "")
}

fn bounded(text: &str) -> Result<&str, SecretError> {
    if text.len() > MAX_TEXT_BYTES { Err(SecretError::Long) } else { Ok(text.trim()) }
}

fn seed_with_password(text: &str, password: &str) -> Result<Zeroizing<[u8; 32]>, SecretError> {
    if let Some(seed) = seed_from_hex(text) {
        return if password.is_empty() { Ok(seed) } else { Err(SecretError::Password) };
    }
    if text.split_whitespace().count() < 12 {
        return Err(SecretError::Shape);
    }
    seed_from_phrase(text, password)
}

/// The hotkey that `text` stands for: a phrase, hex, or a secret URI.
///
/// # Errors
/// None of these, or a path without a phrase and `development` is not set. The error never repeats
/// the text.
pub fn pair_from_text(text: &str, development: bool) -> Result<HotkeyPair, SecretError> {
    let text = bounded(text)?;
    let (text, password) = text.split_once("///").unwrap_or((text, ""));
    let (secret, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
    if secret.is_empty() && !path.is_empty() && !development {
        return Err(SecretError::Development);
    }
    let secret = if secret.is_empty() && development { DEVELOPMENT_PHRASE } else { secret.trim() };
    let mut pair = HotkeyPair::from_seed(&*seed_with_password(secret, password)?)?;
    let mut rest = path;
    for _ in 0..MAX_JUNCTIONS {
        let Some(after) = rest.strip_prefix('/') else { break };
        let (hard, after) = after.strip_prefix('/').map_or((false, after), |after| (true, after));
        let (code, next) = after.find('/').map_or((after, ""), |at| after.split_at(at));
        if code.is_empty() {
            return Err(SecretError::Path);
        }
        pair = pair.derive(chain_code(code), hard);
        rest = next;
    }
    if rest.is_empty() { Ok(pair) } else { Err(SecretError::Path) }
}

/// A junction's chain code: a number as 8 bytes, little endian, anything else as SCALE text (compact
/// length, bytes), filled with zeros to 32 bytes; what is longer is hashed by BLAKE2b-256.
fn chain_code(junction: &str) -> [u8; 32] {
    let mut scale = match junction.parse::<u64>() {
        Ok(number) => number.to_le_bytes().to_vec(),
        // A path is shorter than 2^14 bytes: compact lengths of one byte or two.
        Err(_) => {
            let length = junction.len() as u16;
            let mut prefix =
                if length < 64 { vec![(length << 2) as u8] } else { (length << 2 | 1).to_le_bytes().to_vec() };
            prefix.extend_from_slice(junction.as_bytes());
            prefix
        }
    };
    let mut code = [0u8; 32];
    match code.get_mut(..scale.len()) {
        Some(part) => part.copy_from_slice(&scale),
        None => code = blake2::Blake2b::<blake2::digest::consts::U32>::digest(&scale).into(),
    }
    scale.zeroize();
    code
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_development_phrase_gives_the_well_known_key() {
        // Substrate's public development phrase and its root account.
        let seed = seed_from_text(DEVELOPMENT_PHRASE).unwrap();
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

    #[test]
    fn uris_lead_to_the_keys_that_substrates_tools_derive() {
        let seed = "0xfac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e";
        let long = "//one-junction-that-is-longer-than-32-bytes-in-scale";
        // Addresses by the official Python package.
        let cases = [
            ("//Alice".to_owned(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"),
            (format!("{DEVELOPMENT_PHRASE}//hard/soft///pw"), "5DWnnftpTTCagJ73tGKztufauyx6ejCjKgP3vM4RcRx8En36"),
            (format!("{DEVELOPMENT_PHRASE}///pw"), "5HVquMWVR2cemSfuHeWupmEEgiTDjdNpCrPk4iKeBmL9qnKD"),
            (format!("{seed}//1/2/0x"), "5CarXmpLyUuErRtg4rgNKQCR4FQs4ZcNqc8uWiHXiCtsWfvX"),
            (format!("{seed}//{}", "x".repeat(70)), "5CaG4G55aKPiKUAjYhKQCgYwi7RaaEC6mJicw2CC8H8oLY8y"),
            (format!("{seed}{long}"), "5DqYFoB7owiFUF4X1puFYHPiXcfQasUWLFRiEiTidXiKAC8t"),
        ];
        for (uri, address) in cases {
            assert_eq!(pair_from_text(&uri, true).unwrap().hotkey().to_string(), address, "{uri}");
        }
    }

    #[test]
    fn a_development_key_needs_a_word_and_a_wrong_path_is_refused() {
        let refused = |text: &str| pair_from_text(text, false).unwrap_err();
        assert_eq!(refused("//Alice"), SecretError::Development);
        assert_eq!(refused(""), SecretError::Shape);
        let seed = "ab".repeat(32);
        for path in ["//", "/", "/a/", "//a//", &"/a".repeat(MAX_JUNCTIONS + 1)] {
            assert_eq!(refused(&format!("{seed}{path}")), SecretError::Path, "{path}");
        }
        assert_eq!(refused(&format!("{seed}///pw")), SecretError::Password);
        assert_eq!(refused(&"a ".repeat(MAX_TEXT_BYTES)), SecretError::Long);
        assert!(pair_from_text(&format!("{seed}{}", "/a".repeat(MAX_JUNCTIONS)), false).is_ok());
    }

    #[test]
    fn sixteen_bytes_are_twelve_words_and_back() {
        let phrase = phrase_of(&[7; 16]).unwrap();
        assert_eq!(phrase.split(' ').count(), 12);
        assert!(seed_from_phrase(&phrase, "").is_ok());
    }
}
