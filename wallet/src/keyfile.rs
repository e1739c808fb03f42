//! What a key file holds, in the clear: one JSON object.
//!
//! ```json
//! {"accountId": "0x…", "publicKey": "0x…", "privateKey": "0x…", "secretPhrase": "…",
//!  "secretSeed": "0x…", "ss58Address": "5…", "cryptoType": 1}
//! ```
//!
//! The secret is the phrase, else the seed, else the private key (64 bytes, expanded). Whatever names
//! the public side (`ss58Address`, `publicKey`, `accountId`) has to follow from it. A file without any
//! of the three is a public one.

use std::fmt::Write as _;

use perturb_types::secret::{self, SecretError};
use perturb_types::{Hotkey, HotkeyPair};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The number of sr25519 among the chain's key types; 0 is ed25519.
const SR25519: i64 = 1;

/// Bytes of a key file: JSON takes some 600, its longest encrypted form four times that.
pub const MAX_KEYFILE_BYTES: usize = 16 * 1024;

/// Bytes of the JSON written here, at the most: everything has a length of its own but the phrase.
const JSON_ROOM: usize = 1024 + secret::MAX_TEXT_BYTES;

/// Why a key file's content is no key. Says nothing of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyfileError {
    /// Not the JSON that it should be.
    #[error("it is no key file: no JSON object with a key's fields (line {0}, column {1})")]
    Json(usize, usize),
    /// A number that is no known type, or text.
    #[error("its cryptoType is {0}: only sr25519 (1) signs for a hotkey, ed25519 (0) and others do not")]
    CryptoType(i64),
    /// A field of another shape.
    #[error("its field {0} is not what it should be")]
    Field(&'static str),
    /// The public side of another key.
    #[error("its field {0} belongs to another key than its secret: the file was changed or is damaged")]
    Mismatch(&'static str),
    /// The secret is none.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Nothing that could sign.
    #[error("it holds a public key alone, no secret")]
    PublicOnly,
    /// Nothing at all.
    #[error("it holds no key")]
    Empty,
    /// A wrong password, or bytes that were changed: the two cannot be told apart.
    #[error("the password is wrong, or the file is damaged")]
    Password,
    /// An encrypted file that is cut or malformed.
    #[error("it is encrypted, but cut off or damaged")]
    Damaged,
    /// It was to be decrypted.
    #[error("it is not encrypted")]
    NotEncrypted,
    /// A variant that nobody's wallets have.
    #[error("it is encrypted in a way that is not known: {0}")]
    Unknown(&'static str),
    /// Half a gibibyte is needed.
    #[error("opening an encrypted key takes 512 MiB of memory, and there is less")]
    Memory,
}

/// The key of a file.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The public side.
    pub public: Hotkey,
    /// The secret, where the file holds one.
    pub pair: Option<HotkeyPair>,
}

impl Keys {
    /// The secret.
    ///
    /// # Errors
    /// The file is a public one.
    pub fn secret(self) -> Result<HotkeyPair, KeyfileError> {
        self.pair.ok_or(KeyfileError::PublicOnly)
    }
}

/// Borrowed from the file's bytes, which are wiped: no field is ever copied. None needs an escape, so
/// that one with escapes is refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    #[serde(borrow)]
    account_id: Option<&'a str>,
    #[serde(borrow)]
    public_key: Option<&'a str>,
    #[serde(borrow)]
    private_key: Option<&'a str>,
    #[serde(borrow)]
    secret_phrase: Option<&'a str>,
    #[serde(borrow)]
    secret_seed: Option<&'a str>,
    #[serde(borrow)]
    ss58_address: Option<&'a str>,
    crypto_type: Option<i64>,
}

fn hex_bytes<const N: usize>(text: &str, field: &'static str) -> Result<Zeroizing<[u8; N]>, KeyfileError> {
    let mut out = Zeroizing::new([0u8; N]);
    let digits = text.strip_prefix("0x").unwrap_or(text);
    hex::decode_to_slice(digits, &mut out[..]).map_err(|_| KeyfileError::Field(field))?;
    Ok(out)
}

fn pair_of(json: &Json<'_>) -> Result<Option<HotkeyPair>, KeyfileError> {
    let of_seed = |seed: &[u8; 32]| HotkeyPair::from_seed(seed).map_err(|e| KeyfileError::Secret(e.into()));
    if let Some(phrase) = json.secret_phrase {
        return of_seed(&*secret::seed_from_phrase(phrase, "")?).map(Some);
    }
    if let Some(seed) = json.secret_seed {
        return of_seed(&*hex_bytes::<32>(seed, "secretSeed")?).map(Some);
    }
    let Some(key) = json.private_key else { return Ok(None) };
    let key = hex_bytes::<64>(key, "privateKey")?;
    HotkeyPair::from_expanded(&key).map(Some).map_err(|e| KeyfileError::Secret(e.into()))
}

/// Reads a key file's content.
///
/// # Errors
/// It is no key file, its key is none that signs for a hotkey, or its fields contradict each other.
pub fn parse(bytes: &[u8]) -> Result<Keys, KeyfileError> {
    // Where it is wrong, never what stands there: serde's own words repeat values.
    let json: Json<'_> = serde_json::from_slice(bytes).map_err(|e| KeyfileError::Json(e.line(), e.column()))?;
    match json.crypto_type {
        None | Some(SR25519) => {}
        Some(number) => return Err(KeyfileError::CryptoType(number)),
    }
    let mut named: Vec<(&'static str, Hotkey)> = Vec::new();
    if let Some(address) = json.ss58_address {
        named.push(("ss58Address", address.parse().map_err(|_| KeyfileError::Field("ss58Address"))?));
    }
    for (field, text) in [("publicKey", json.public_key), ("accountId", json.account_id)] {
        if let Some(text) = text {
            named.push((field, Hotkey(*hex_bytes::<32>(text, field)?)));
        }
    }
    let pair = pair_of(&json)?;
    let public = match (&pair, named.first()) {
        (Some(pair), _) => pair.hotkey(),
        (None, Some((_, first))) => *first,
        (None, None) => return Err(KeyfileError::Empty),
    };
    match named.iter().find(|(_, key)| *key != public) {
        Some((field, _)) => Err(KeyfileError::Mismatch(field)),
        None => Ok(Keys { public, pair }),
    }
}

fn public_fields(out: &mut String, key: &Hotkey) {
    let hex = hex::encode(key.0);
    // Writing to a string cannot fail.
    let _ =
        write!(out, r#"{{"accountId":"0x{hex}","publicKey":"0x{hex}","ss58Address":"{key}","cryptoType":{SR25519}"#);
}

/// The content of a file with a secret. `phrase` is the one that the secret came from, if any.
pub fn secret_json(pair: &HotkeyPair, phrase: Option<&str>) -> Zeroizing<String> {
    // Room for all of it at once: a string that grows leaves copies behind.
    let mut out = Zeroizing::new(String::with_capacity(JSON_ROOM));
    public_fields(&mut out, &pair.hotkey());
    let expanded = Zeroizing::new(hex::encode(&pair.expanded()[..]));
    let _ = write!(out, r#","privateKey":"0x{}""#, *expanded);
    if let Some(phrase) = phrase {
        let _ = write!(out, r#","secretPhrase":"{phrase}""#);
    }
    if let Some(seed) = pair.seed() {
        let seed = Zeroizing::new(hex::encode(&seed[..]));
        let _ = write!(out, r#","secretSeed":"0x{}""#, *seed);
    }
    out.push('}');
    out
}

/// The content of a public file.
pub fn public_json(key: &Hotkey) -> String {
    let mut out = String::new();
    public_fields(&mut out, key);
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

    fn pair() -> HotkeyPair {
        HotkeyPair::from_seed(&secret::seed_from_phrase(PHRASE, "").unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        for (json, seed) in [
            (secret_json(&pair(), Some(PHRASE)), true),
            (secret_json(&pair(), None), true),
            (secret_json(&HotkeyPair::from_expanded(&pair().expanded()).unwrap(), None), false),
        ] {
            let keys = parse(json.as_bytes()).unwrap();
            assert_eq!(keys.public, pair().hotkey());
            assert_eq!(keys.secret().unwrap().seed().is_some(), seed);
        }
        let public = parse(public_json(&pair().hotkey()).as_bytes()).unwrap();
        assert_eq!(public.public, pair().hotkey());
        assert_eq!(public.secret().unwrap_err(), KeyfileError::PublicOnly);
    }

    #[test]
    fn the_phrase_goes_before_the_seed_and_the_seed_before_the_private_key() {
        let other = HotkeyPair::from_seed(&[9; 32]).unwrap();
        let seed = hex::encode([9; 32]);
        let private = hex::encode(&pair().expanded()[..]);
        let of = |json: String| parse(json.as_bytes()).map(|k| k.public);
        let both = format!(r#"{{"secretPhrase":"{PHRASE}","secretSeed":"0x{seed}","privateKey":"{private}"}}"#);
        assert_eq!(of(both), Ok(pair().hotkey()));
        let two = format!(r#"{{"secretSeed":"{seed}","privateKey":"0x{private}","secretPhrase":null}}"#);
        assert_eq!(of(two), Ok(other.hotkey()));
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused_and_named_by_its_field() {
        let json = secret_json(&pair(), Some(PHRASE));
        let other = HotkeyPair::from_seed(&[9; 32]).unwrap().hotkey();
        let with = |from: &str, to: &str| parse(json.replacen(from, to, 1).as_bytes()).unwrap_err();
        let hex = hex::encode(pair().hotkey().0);
        assert_eq!(with(&pair().hotkey().to_string(), &other.to_string()), KeyfileError::Mismatch("ss58Address"));
        assert_eq!(with(&hex, &hex::encode(other.0)), KeyfileError::Mismatch("accountId"));
        assert_eq!(with(&hex, "12"), KeyfileError::Field("accountId"));
        assert_eq!(with(r#""cryptoType":1"#, r#""cryptoType":0"#), KeyfileError::CryptoType(0));
        assert_eq!(with("bottom", "bottle"), KeyfileError::Secret(SecretError::Phrase));
        assert_eq!(parse(b"{}").unwrap_err(), KeyfileError::Empty);
    }

    #[test]
    fn no_error_repeats_what_the_file_holds() {
        for text in [r#"{"secretSeed": 123456789}"#, r#"{"secretPhrase": ["horse"]}"#, r#""horse""#, "horse", "{"] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("horse") && !error.contains("123456789"), "{error}");
        }
        let escaped = r#"{"secretPhrase": "b\u006fttom"}"#;
        assert!(matches!(parse(escaped.as_bytes()).unwrap_err(), KeyfileError::Json(1, _)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..700) {
            let _ = parse(&bytes);
            let json = secret_json(&pair(), Some(PHRASE));
            let cut = cut.min(json.len());
            let mixed = [&json.as_bytes()[..cut], &bytes].concat();
            if let Ok(keys) = parse(&mixed) {
                prop_assert_eq!(keys.public, pair().hotkey());
            }
        }
    }
}
