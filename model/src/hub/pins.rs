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
    /// A pin of one file, as an operator gives it.
    ///
    /// # Errors
    /// `Malformed` if the revision is no full commit or the digest no SHA-256.
    pub fn single(revision: &str, sha256: &str) -> Result<Self, HubError> {
        if !is_hex(revision, 40) {
            return Err(HubError::Malformed { what: "commit of 40 hexadecimal digits", value: shown(revision) });
        }
        if !is_hex(sha256, 64) {
            return Err(HubError::Malformed { what: "SHA-256 of 64 hexadecimal digits", value: shown(sha256) });
        }
        let file = PinnedFile { name: SINGLE_FILE.to_owned(), sha256: sha256.to_owned() };
        Ok(Self { revision: revision.to_owned(), files: vec![file] })
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
#[must_use]
pub fn known(model: &str) -> Option<Pin> {
    static PINS: LazyLock<BTreeMap<String, Pin>> = LazyLock::new(|| serde_json::from_str(EMBEDDED).unwrap_or_default());
    PINS.get(model).cloned()
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
        let pins: BTreeMap<String, Pin> = serde_json::from_str(EMBEDDED).unwrap();
        for (model, pin) in pins {
            let spec = crate::zoo::find(&model).unwrap();
            assert_eq!(spec.name, model);
            assert!(spec.repository().is_some(), "{model}");
            assert!(pin.revision == "main" || is_hex(&pin.revision, 40), "{model}");
            assert!(!pin.files.is_empty() && pin.files.iter().all(|file| is_hex(&file.sha256, 64)), "{model}");
        }
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
