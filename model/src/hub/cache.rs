//! The hub's cache on disk.

use super::HubError;
use super::pins::{PinnedFile, is_hex, shown};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes hashed at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Most bytes of a ref: a commit and a line's end.
const MAX_REF_BYTES: u64 = 64;

/// A cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// The folders of one repository.
pub(crate) struct Repository {
    pub(crate) blobs: PathBuf,
    refs: PathBuf,
    snapshots: PathBuf,
}

impl Cache {
    /// A cache in this folder.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The hub's usual place: `HF_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub` or
    /// `~/.cache/huggingface/hub`.
    #[must_use]
    pub fn standard() -> Self {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || std::env::home_dir().unwrap_or_default().join(".cache");
        let root = from("HF_HUB_CACHE").or_else(|| from("HF_HOME").map(|home| home.join("hub")));
        let root = root.unwrap_or_else(|| from("XDG_CACHE_HOME").unwrap_or_else(home).join("huggingface/hub"));
        Self { root }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folders of a repository `OWNER/NAME`.
    pub(crate) fn repository(&self, repository: &str) -> Result<Repository, HubError> {
        let plain = |part: &str| {
            !part.starts_with('.') && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        match repository.split_once('/') {
            Some((owner, name)) if plain(owner) && plain(name) && !owner.is_empty() && !name.is_empty() => {
                let folder = self.root.join(format!("models--{owner}--{name}"));
                let of = |name: &str| folder.join(name);
                Ok(Repository { blobs: of("blobs"), refs: of("refs"), snapshots: of("snapshots") })
            }
            _ => Err(HubError::Malformed { what: "repository", value: shown(repository) }),
        }
    }

    /// The path of a pinned file if it is in the cache, with its digest checked.
    ///
    /// # Errors
    /// `Mismatch` if a file lies there that is another one (it is left alone if it is not a blob of this
    /// digest: it may be another program's), `Io` if it cannot be read.
    pub fn find(&self, repository: &str, revision: &str, file: &PinnedFile) -> Result<Option<PathBuf>, HubError> {
        let folders = self.repository(repository)?;
        let Some(commit) = folders.commit(revision) else { return Ok(None) };
        let path = folders.snapshots.join(commit).join(file_name(file)?);
        if !path.exists() {
            return Ok(None);
        }
        let found = digest(&path)?;
        if found == file.sha256 {
            return Ok(Some(path));
        }
        if revision == "main" {
            // The hub has moved on since the digest was pinned: that file is someone else's.
            return Ok(None);
        }
        Err(HubError::Mismatch { origin: path.display().to_string(), found, expected: file.sha256.clone() })
    }
}

impl Repository {
    /// The commit that a revision is, as far as the cache knows.
    fn commit(&self, revision: &str) -> Option<String> {
        if is_hex(revision, 40) {
            return Some(revision.to_owned());
        }
        let mut text = String::new();
        File::open(self.refs.join("main")).ok()?.take(MAX_REF_BYTES).read_to_string(&mut text).ok()?;
        let commit = text.trim();
        (revision == "main" && is_hex(commit, 40)).then(|| commit.to_owned())
    }

    /// Gives a blob its name in a snapshot, and notes which commit `main` was.
    pub(crate) fn link(&self, revision: &str, commit: &str, file: &PinnedFile) -> Result<PathBuf, HubError> {
        if !is_hex(commit, 40) {
            return Err(HubError::Malformed { what: "commit of 40 hexadecimal digits", value: shown(commit) });
        }
        let folder = self.snapshots.join(commit);
        let path = folder.join(file_name(file)?);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| HubError::Io { path, source }
        };
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
        std::os::unix::fs::symlink(format!("../../blobs/{}", file.sha256), &path).map_err(at(&path))?;
        if revision != commit {
            std::fs::create_dir_all(&self.refs).map_err(at(&self.refs))?;
            let name = self.refs.join("main");
            std::fs::write(&name, commit).map_err(at(&name))?;
        }
        Ok(path)
    }
}

/// A pinned file's name, which must be one and no path.
pub(crate) fn file_name(file: &PinnedFile) -> Result<&str, HubError> {
    let name = file.name.as_str();
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && !name.is_empty() && !name.starts_with('.') && is_hex(&file.sha256, 64) {
        Ok(name)
    } else {
        Err(HubError::Malformed { what: "pinned file", value: shown(name) })
    }
}

/// The SHA-256 of a file, hexadecimal.
pub(crate) fn digest(path: &Path) -> Result<String, HubError> {
    let failed = |source| HubError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk).map_err(failed)? {
            0 => return Ok(perturb_types::Digest(hash.finalize().into()).to_string()),
            read => hash.update(&chunk[..read]),
        }
    }
}
