//! Weights from the hub, by pinned digest.
//!
//! The rules: a file is used only if its SHA-256 is the pinned one, whoever sent it and wherever it lay;
//! what does not match is deleted and named. The cache is the hub's own, so that files which another
//! program has fetched are found and ours are found by it:
//!
//! ```text
//! models--timm--NAME/
//!   blobs/SHA256                       the file (large files are named by their SHA-256 there)
//!   blobs/SHA256.incomplete            what has arrived so far; a second try goes on from there
//!   refs/main                          the commit that `main` was
//!   snapshots/COMMIT/model.safetensors a link to the blob
//! ```
//!
//! [`pins`] holds the digests that this program knows. A model without one is not fetched unless the
//! operator names revision and digest.

pub mod cache;
pub mod fetch;
pub mod pins;
#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use pins::{Pin, PinnedFile};

use crate::error::ModelError;
use crate::zoo::{ModelSpec, ZooClassifier};
use std::path::PathBuf;
use tch::Device;

/// Why weights could not be got.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Nobody has said which file is the right one.
    #[error(
        "{model} is not pinned in this program: give --revision (a commit of {repository}) and --sha256 of \
         model.safetensors, from a source that you trust"
    )]
    NotPinned {
        /// The model.
        model: String,
        /// Its repository.
        repository: String,
    },
    /// The weights are not on the hub.
    #[error(
        "{model} is torchvision's, whose weights are a pickle ({file}) that this program does not read: \
         `scripts/parity/torchvision_weights.py {model} FILE` checks it and writes a safetensors file"
    )]
    NotOnHub {
        /// The model.
        model: String,
        /// The file on torchvision's server.
        file: &'static str,
    },
    /// The weights are not in the cache.
    #[error("the weights of {model} are not in {}; `perturb model pull {model}` gets them", cache.display())]
    NotPulled {
        /// The model.
        model: String,
        /// The cache's folder.
        cache: PathBuf,
    },
    /// A revision, digest or name that is none.
    #[error("`{value}` is no {what}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// The value, shortened.
        value: String,
    },
    /// The server could not be reached or broke off; a second try goes on where this one ended.
    #[error("{url}: {why}; try again to go on from there")]
    Unavailable {
        /// What was asked for.
        url: String,
        /// What happened.
        why: String,
    },
    /// The server's answer cannot be used.
    #[error("{url}: {why}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bytes are not the pinned ones.
    #[error("{origin} has SHA-256 {found}, but {expected} is pinned: not used, and deleted")]
    Mismatch {
        /// Where the bytes came from.
        origin: String,
        /// The digest of its bytes.
        found: String,
        /// The pinned digest.
        expected: String,
    },
    /// Another process is fetching the same file.
    #[error("another process is fetching {}", path.display())]
    Busy {
        /// The unfinished file.
        path: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The file names of a model's weights in the cache, with the digests checked.
///
/// # Errors
/// `NotPinned`, `NotOnHub` or `NotPulled`; `Mismatch` if a file there is another one.
pub fn pulled(spec: &ModelSpec, pin: Option<&Pin>, cache: &Cache) -> Result<Vec<PathBuf>, HubError> {
    let (repository, pin) = pinned(spec, pin)?;
    let missing = || HubError::NotPulled { model: spec.name.to_owned(), cache: cache.root().to_owned() };
    let found = |file: &PinnedFile| cache.find(&repository, &pin.revision, file)?.ok_or_else(missing);
    pin.files.iter().map(found).collect()
}

/// The weights with this digest, which a network agreed on: of a hub model the blob of that name in its
/// repository, or what its pin names; of another, `perturb/NAME.safetensors` in the cache's folder. The
/// digest is checked by whoever loads them.
///
/// # Errors
/// `NotPulled` if there are none.
pub fn agreed(spec: &ModelSpec, digest: &[u8; 32], cache: &Cache) -> Result<Vec<PathBuf>, HubError> {
    let name = perturb_types::Digest(*digest).to_string();
    let place = match spec.repository() {
        Some(repository) => cache.repository(&repository)?.blobs.join(name),
        None => cache.root().join("perturb").join(format!("{}.safetensors", spec.name)),
    };
    if place.is_file() {
        return Ok(vec![place]);
    }
    match pulled(spec, None, cache) {
        // Without the agreed file it does not matter which of these it is.
        Err(HubError::NotPinned { .. } | HubError::NotOnHub { .. }) => {
            Err(HubError::NotPulled { model: spec.name.to_owned(), cache: cache.root().to_owned() })
        }
        other => other,
    }
}

/// Gets a model's weights into the cache, unless they are there; gives their paths. `progress` hears how
/// many bytes of a file have arrived, and of how many if the server said so.
///
/// # Errors
/// As [`HubError`] says.
pub fn pull(
    spec: &ModelSpec,
    pin: Option<&Pin>,
    cache: &Cache,
    endpoint: &str,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<Vec<PathBuf>, HubError> {
    let (repository, pin) = pinned(spec, pin)?;
    let client = fetch::Client::new(endpoint)?;
    let one = |file: &PinnedFile| match cache.find(&repository, &pin.revision, file)? {
        Some(path) => Ok(path),
        None => client.file(cache, &repository, &pin.revision, file, size_limit(spec), &mut progress),
    };
    pin.files.iter().map(one).collect()
}

/// Loads a model whose weights are in the cache.
///
/// # Errors
/// As [`pulled`] and [`ZooClassifier::load`].
pub fn load(spec: &ModelSpec, pin: Option<&Pin>, cache: &Cache, device: Device) -> Result<ZooClassifier, ModelError> {
    let files = pulled(spec, pin, cache)?;
    ZooClassifier::load(spec, &files, device)
}

/// The repository, and the pin given or known.
fn pinned(spec: &ModelSpec, pin: Option<&Pin>) -> Result<(String, Pin), HubError> {
    let repository = spec.repository().ok_or_else(|| match spec.origin {
        crate::zoo::Origin::Torchvision { file } => HubError::NotOnHub { model: spec.name.to_owned(), file },
        crate::zoo::Origin::Hub => HubError::Malformed { what: "repository", value: spec.name.to_owned() },
    })?;
    let pin = pin.cloned().or_else(|| pins::known(spec.name));
    match pin {
        Some(pin) => Ok((repository, pin)),
        None => Err(HubError::NotPinned { model: spec.name.to_owned(), repository }),
    }
}

/// Most bytes of one file of a model: its tensors, and a header for them.
fn size_limit(spec: &ModelSpec) -> u64 {
    let values: u64 = crate::zoo::parameters(spec).iter().map(crate::zoo::ParameterSpec::values).sum();
    values.saturating_mul(8) + (16 << 20)
}
