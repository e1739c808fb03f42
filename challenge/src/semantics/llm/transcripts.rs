//! What a language model said, kept by the digest of what it was asked.
//!
//! A transcript is a file `FOLDER/AB/DIGEST.json` with the names, the model and the answers as they
//! came. The verdict is not in it: it follows from the answers, each time. One that does not fit its
//! name, or whose answers make no verdict, is none. There is at most one for each pair of classes, model
//! and wording; where models and wordings have changed often, the oldest go.

use std::path::PathBuf;

use perturb_types::Digest;
use serde::{Deserialize, Serialize};

use super::prompt;
use crate::shelf::{Room, Shelf};

/// Bytes of a transcript: three short answers and two names.
const MAX_BYTES: u64 = 16 << 10;

/// Transcripts kept: a fifth of all pairs of ImageNet's classes. Most pairs never occur.
const ROOM: Room = Room { files: 100_000, bytes: 1 << 30 };

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
#[derive(Debug, Default)]
pub(super) struct Transcripts(Option<Shelf>);

impl Transcripts {
    /// Those of a folder, or none.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self(folder.map(|folder| Shelf::new(folder, ROOM)))
    }

    /// The verdict of a transcript, if it is there and whole.
    pub(super) fn verdict(&self, digest: &Digest) -> Option<bool> {
        let text = self.0.as_ref()?.get(&name(digest), MAX_BYTES)?;
        let transcript: Transcript = serde_json::from_slice(&text).ok()?;
        let asked = prompt::questions(&transcript.first, &transcript.second);
        let whole = transcript.prompt == *digest
            && prompt::digest(&transcript.model, &asked) == *digest
            && transcript.answers.len() <= prompt::VOTES;
        if whole { prompt::majority(&transcript.answers) } else { None }
    }

    /// Writes a transcript.
    pub(super) fn keep(&self, transcript: &Transcript) -> std::io::Result<()> {
        let Some(shelf) = &self.0 else { return Ok(()) };
        let text = serde_json::to_vec_pretty(transcript).map_err(std::io::Error::other)?;
        shelf.put(&name(&transcript.prompt), &text)
    }
}

fn name(digest: &Digest) -> String {
    format!("{digest}.json")
}
