//! Weights from the hub, by pinned digest.
//!
//! The rules: a file is used only if its SHA-256 is the pinned one, whoever sent it and wherever it lay.
//! Looking for files reads none of them: [`Weights`] are names and the digest that whoever loads them
//! holds against the very bytes it uses. What a server sends that does not match is deleted and named;
//! what is damaged in the cache is fetched again.
//!
//! The cache is the hub's own ([`cache`] has the layout), so that files which another program has fetched
//! are found and ours are found by it.
//!
//! [`pins`] holds the digests that this program knows. A model without one is not fetched unless the
//! operator names revision and digest.

pub mod cache;
mod disk;
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
        "{model} is not pinned in this program: `perturb model pull {model} --revision COMMIT --sha256 DIGEST` \
         fetches its model.safetensors from {repository}, with a digest from a source that you trust; a file is \
         used by its path: `{model}=FILE` instead of the name"
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
         `scripts/parity/torchvision_weights.py {model} FILE` checks it and writes a safetensors file, which is \
         used by its path: `{model}=FILE` instead of the name"
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
    /// The weights that were agreed on are not here.
    #[error("the weights of {model} with SHA-256 {digest} are not at {}; {remedy}", path.display())]
    NotHere {
        /// The model.
        model: String,
        /// The digest they must have, hexadecimal.
        digest: String,
        /// Where they were looked for.
        path: PathBuf,
        /// How they get there.
        remedy: String,
    },
    /// The pins that this program was built with cannot be read.
    #[error("the pins in this program cannot be read ({why}): build it from an unchanged checkout")]
    Pins {
        /// What is wrong.
        why: String,
    },
    /// Nothing says where the cache is.
    #[error("there is no home directory to keep weights in: set HOME, or XDG_CACHE_HOME to an absolute path")]
    NoHome,
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
    #[error("another process is fetching this file: it holds {}", path.display())]
    Busy {
        /// The lock that it holds.
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

/// Where weights lie, and the digest that they must have together. Nothing has been read: a file may
/// change before it is, so that only the bytes that are used can be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// One file, or all shards in their order.
    pub files: Vec<PathBuf>,
    /// SHA-256 of the file; of several, that of their digests in order.
    pub digest: [u8; 32],
}

/// A model's weights in the cache, by its pin: the given one, or the known one.
///
/// # Errors
/// `NotPinned`, `NotOnHub` or `NotPulled`.
pub fn pulled(spec: &ModelSpec, pin: Option<&Pin>, cache: &Cache) -> Result<Weights, HubError> {
    let (repository, pin) = pinned(spec, pin)?;
    let folders = cache.repository(&repository)?;
    let missing = || HubError::NotPulled { model: spec.name.to_owned(), cache: cache.hub().to_owned() };
    let found = |file: &PinnedFile| {
        let blob = folders.blob(file)?;
        if blob.is_file() { Ok(blob) } else { Err(missing()) }
    };
    Ok(Weights { files: pin.files.iter().map(found).collect::<Result<_, _>>()?, digest: pin.digest()?.0 })
}

/// The weights with this digest, which a network agreed on: of a hub model the blob of that name in its
/// repository, or the files of its pin if that is the pin's digest; of another model, `NAME.safetensors`
/// in the folder of weights from elsewhere.
///
/// # Errors
/// `NotHere` if there are none, with where they should be and how they get there.
pub fn agreed(spec: &ModelSpec, digest: &[u8; 32], cache: &Cache) -> Result<Weights, HubError> {
    let (model, sha256) = (spec.name, perturb_types::Digest(*digest).to_string());
    let known = pins::known(model)?.filter(|pin| pin.digest().is_ok_and(|pinned| pinned.0 == *digest));
    let (path, remedy) = if let Some(repository) = spec.repository() {
        let exactly = match known {
            Some(_) => String::new(),
            None => format!(" --revision COMMIT --sha256 {sha256}"),
        };
        let remedy = format!("`perturb model pull {model}{exactly}` gets them from {repository}");
        (cache.repository(&repository)?.blobs.join(&sha256), remedy)
    } else {
        let path = cache.elsewhere(model);
        let remedy = format!("`scripts/parity/torchvision_weights.py {model} {}` makes them", path.display());
        (path, remedy)
    };
    if path.is_file() {
        return Ok(Weights { files: vec![path], digest: *digest });
    }
    match known.map(|pin| pulled(spec, Some(&pin), cache)) {
        Some(Ok(weights)) => Ok(weights),
        _ => Err(HubError::NotHere { model: model.to_owned(), digest: sha256, path, remedy }),
    }
}

/// Gets a model's weights into the cache, unless they are there. `progress` hears how many bytes of a
/// file have arrived, and of how many if the server said so.
///
/// # Errors
/// As [`HubError`] says.
pub fn pull(
    spec: &ModelSpec,
    pin: Option<&Pin>,
    cache: &Cache,
    endpoint: &str,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<Weights, HubError> {
    let (repository, pin) = pinned(spec, pin)?;
    let client = fetch::Client::new(endpoint)?;
    let folders = cache.repository(&repository)?;
    let (revision, limit) = (pin.revision.as_str(), crate::zoo::size_limit(spec));
    let mut one = |file: &PinnedFile| {
        if folders.holds(file, limit)? {
            // Another snapshot may have brought it, or a fetch that ended before the link.
            if pins::is_hex(revision, 40) && !folders.linked(revision, file) {
                folders.link(revision, revision, file, &folders.lock(file)?)?;
            }
            return folders.blob(file);
        }
        let wanted = fetch::Wanted { folders: &folders, repository: &repository, revision, file, limit };
        client.file(&wanted, &mut progress)
    };
    Ok(Weights { files: pin.files.iter().map(&mut one).collect::<Result<_, _>>()?, digest: pin.digest()?.0 })
}

/// Loads a model whose weights are in the cache.
///
/// # Errors
/// As [`pulled`] and [`ZooClassifier::load`].
pub fn load(spec: &ModelSpec, pin: Option<&Pin>, cache: &Cache, device: Device) -> Result<ZooClassifier, ModelError> {
    let weights = pulled(spec, pin, cache)?;
    ZooClassifier::load(spec, &weights.files, Some(weights.digest), device)
}

/// The repository, and the pin given or known.
fn pinned(spec: &ModelSpec, pin: Option<&Pin>) -> Result<(String, Pin), HubError> {
    let repository = spec.repository().ok_or_else(|| match spec.origin {
        crate::zoo::Origin::Torchvision { file } => HubError::NotOnHub { model: spec.name.to_owned(), file },
        crate::zoo::Origin::Hub => HubError::Malformed { what: "repository", value: spec.name.to_owned() },
    })?;
    let pin = match pin {
        Some(pin) => Some(pin.clone()),
        None => pins::known(spec.name)?,
    };
    match pin {
        Some(pin) => Ok((repository, pin)),
        None => Err(HubError::NotPinned { model: spec.name.to_owned(), repository }),
    }
}
