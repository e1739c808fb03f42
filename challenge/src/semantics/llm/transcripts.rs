//! What a language model said, kept by the digest of what it was asked.
//!
//! A transcript is a file `FOLDER/AB/DIGEST.json` with the names, the model and the answers as they
//! came. The verdict is not in it: it follows from the answers, each time. One that does not fit its
//! name, or whose answers make no verdict, is none. There is at most one for each pair of classes, model
//! and wording.

use std::path::PathBuf;

use perturb_types::Digest;
use serde::{Deserialize, Serialize};

use super::prompt;

/// Bytes of a transcript: three short answers and two names.
const MAX_BYTES: u64 = 16 << 10;

/// One question's votes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transcript {
    /// Digest of all that was asked.
    pub(super) prompt: Digest,
    pub(super) model: String,
    pub(super) first: String,
    pub(super) second: String,
    /// As they came, at most three.
    pub(super) answers: Vec<String>,
}

/// The folder, where there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Transcripts(pub(super) Option<PathBuf>);

impl Transcripts {
    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let name = digest.to_string();
        Some(self.0.as_ref()?.join(&name[..2]).join(format!("{name}.json")))
    }

    /// The verdict of a transcript, if it is there and whole.
    pub(super) fn verdict(&self, digest: &Digest) -> Option<bool> {
        let path = self.path(digest)?;
        if std::fs::metadata(&path).ok()?.len() > MAX_BYTES {
            return None;
        }
        let transcript: Transcript = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        let asked = prompt::questions(&transcript.first, &transcript.second);
        let whole = transcript.prompt == *digest
            && prompt::digest(&transcript.model, &asked) == *digest
            && transcript.answers.len() <= prompt::VOTES;
        if whole { prompt::majority(&transcript.answers) } else { None }
    }

    /// Writes a transcript.
    pub(super) fn keep(&self, transcript: &Transcript) -> std::io::Result<()> {
        let Some(path) = self.path(&transcript.prompt) else { return Ok(()) };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let beside = path.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec_pretty(transcript).map_err(std::io::Error::other)?)?;
        std::fs::rename(&beside, &path)
    }
}
