//! Which file is the right one.

use super::HubError;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The pins that this program comes with, by model: `scripts/parity/pin.py` writes the file from the
/// hub's own answers, where there is a network.
const EMBEDDED: &str = include_str!("../../weights/pins.json");

/// The only file of a model that has one.
pub const SINGLE_FILE: &str = "model.safetensors";

/// Most digits of a foreign value in a message.
const SHOWN: usize = 80;

/// A model's files, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Commit of the repository, 40 hexadecimal digits; `main` where only the digests are known.
    pub revision: String,
    /// The files: one, or all shards in their order.
    pub files: Vec<PinnedFile>,
}

/// One file and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// Name in the repository.
    pub name: String,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    pub sha256: String,
}

impl Pin {
    /// A pin of one file, as an operator gives it, in digits of either case.
    ///
    /// # Errors
    /// `Malformed` if the revision is no full commit or the digest no SHA-256.
    pub fn single(revision: &str, sha256: &str) -> Result<Self, HubError> {
        let (revision, sha256) = (revision.to_ascii_lowercase(), sha256.to_ascii_lowercase());
        if !is_hex(&revision, 40) {
            return Err(HubError::Malformed { what: "commit of 40 hexadecimal digits", value: shown(&revision) });
        }
        if !is_hex(&sha256, 64) {
            return Err(HubError::Malformed { what: "SHA-256 of 64 hexadecimal digits", value: shown(&sha256) });
        }
        Ok(Self { revision, files: vec![PinnedFile { name: SINGLE_FILE.to_owned(), sha256 }] })
    }

    /// What [`crate::zoo::verify`] gives for these files: the digest of one, the digest of the digests
    /// of several.
    ///
    /// # Errors
    /// `Malformed` if one of them is no SHA-256.
    pub fn digest(&self) -> Result<perturb_types::Digest, HubError> {
        let parse = |file: &PinnedFile| {
            let malformed = |_| HubError::Malformed { what: "SHA-256", value: shown(&file.sha256) };
            file.sha256.parse::<perturb_types::Digest>().map_err(malformed)
        };
        let digests = self.files.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(match digests.as_slice() {
            [only] => *only,
            several => {
                let bytes: Vec<u8> = several.iter().flat_map(|digest| digest.0).collect();
                perturb_types::Digest(Sha256::digest(bytes).into())
            }
        })
    }
}

/// The pin of a model, if this program knows one.
///
/// # Errors
/// `Pins` if the program was built with pins that cannot be read: then nothing counts as merely unpinned.
pub fn known(model: &str) -> Result<Option<Pin>, HubError> {
    static PINS: LazyLock<Result<BTreeMap<String, Pin>, String>> = LazyLock::new(|| read(EMBEDDED));
    match &*PINS {
        Ok(pins) => Ok(pins.get(model).cloned()),
        Err(why) => Err(HubError::Pins { why: why.clone() }),
    }
}

fn read(text: &str) -> Result<BTreeMap<String, Pin>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Whether a text is exactly so many lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A foreign string, shortened and without control characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_embedded_pins_are_whole_and_name_models_of_the_table() {
        for (model, pin) in read(EMBEDDED).unwrap() {
            let spec = crate::zoo::find(&model).unwrap();
            assert_eq!(spec.name, model);
            assert!(spec.repository().is_some(), "{model}");
            assert!(pin.revision == "main" || is_hex(&pin.revision, 40), "{model}");
            assert!(!pin.files.is_empty() && pin.files.iter().all(|file| is_hex(&file.sha256, 64)), "{model}");
        }
    }

    #[test]
    fn broken_pins_are_an_error_and_not_the_absence_of_pins() {
        assert!(known("swin_tiny_patch4_window7_224.ms_in1k").unwrap().is_some());
        assert!(known("test_vit.r160_in1k").unwrap().is_none());
        assert!(read("{").is_err());
        assert!(read(r#"{"m": {"revision": "main"}}"#).is_err());
    }

    #[test]
    fn digits_of_either_case_are_the_same_pin() {
        let (commit, digest) = ("ab".repeat(20), "0f".repeat(32));
        let upper = Pin::single(&commit.to_ascii_uppercase(), &digest.to_ascii_uppercase()).unwrap();
        assert_eq!(upper, Pin::single(&commit, &digest).unwrap());
    }

    #[test]
    fn a_pin_that_is_not_exact_is_an_error() {
        let (commit, digest) = ("a".repeat(40), "0".repeat(64));
        assert_eq!(Pin::single(&commit, &digest).unwrap().files[0].name, SINGLE_FILE);
        for (revision, sha256) in
            [("main", digest.as_str()), (&commit[1..], &digest), (&commit, "F00"), (&commit, "../../etc/passwd")]
        {
            assert!(matches!(Pin::single(revision, sha256), Err(HubError::Malformed { .. })));
        }
    }
}
