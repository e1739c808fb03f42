//! Where weights lie on this machine.
//!
//! ```text
//! HUB/                                    the hub's own cache
//!   models--timm--NAME/
//!     blobs/SHA256                        the file: large files are named by their SHA-256 there
//!     blobs/SHA256.perturb.incomplete     what has arrived so far; a second try goes on from there
//!     refs/main                           the commit that `main` was
//!     snapshots/COMMIT/model.safetensors  a link to the blob
//!   .locks/models--timm--NAME/SHA256.lock held by whoever fetches that blob
//! WEIGHTS/NAME.safetensors                weights that are not on the hub
//! ```
//!
//! A pinned file is looked for by its digest, which is its name, whatever snapshot links to it.

use super::HubError;
use super::disk::{Lock, at, digest, replace, write_new};
use super::pins::{PinnedFile, is_hex, shown};
use perturb_challenge::file;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folders that weights lie in.
#[derive(Debug, Clone)]
pub struct Cache {
    hub: PathBuf,
    weights: PathBuf,
}

/// The folders of one repository.
pub(crate) struct Repository {
    pub(crate) blobs: PathBuf,
    refs: PathBuf,
    snapshots: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// A hub cache in the folder `hub`, and weights from elsewhere in the folder `weights`.
    #[must_use]
    pub fn new(hub: PathBuf, weights: PathBuf) -> Self {
        Self { hub, weights }
    }

    /// The usual places, with the hub's cache in `hub` if that is given: `HF_HUB_CACHE`, `HF_HOME/hub`
    /// or `huggingface/hub` in the user's cache folder; there too `perturb/weights`, which is not inside
    /// the hub's. The user's cache folder is `XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    /// `NoHome` if a place is said only relative to a home directory, and there is none.
    pub fn standard(hub: Option<PathBuf>) -> Result<Self, HubError> {
        Self::usual(hub, |name| std::env::var_os(name), std::env::home_dir())
    }

    fn usual(
        hub: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let home = || home.clone().filter(|home| home.is_absolute()).ok_or(HubError::NoHome);
        // The hub's client reads `~` in these itself.
        let from = |name: &str| -> Result<Option<PathBuf>, HubError> {
            let Some(path) = variable(name).filter(|value| !value.is_empty()).map(PathBuf::from) else {
                return Ok(None);
            };
            Ok(Some(match path.strip_prefix("~") {
                Ok(rest) => home()?.join(rest),
                Err(_) => path,
            }))
        };
        let user = || from("XDG_CACHE_HOME")?.map_or_else(|| home().map(|home| home.join(".cache")), Ok);
        let hub = match hub {
            Some(folder) => folder,
            None => match (from("HF_HUB_CACHE")?, from("HF_HOME")?) {
                (Some(folder), _) => folder,
                (None, Some(folder)) => folder.join("hub"),
                (None, None) => user()?.join("huggingface/hub"),
            },
        };
        Ok(Self { hub, weights: user()?.join("perturb/weights") })
    }

    /// The folder of the hub's cache.
    #[must_use]
    pub fn hub(&self) -> &Path {
        &self.hub
    }

    /// Where the weights of a model lie that is not on the hub.
    pub(crate) fn elsewhere(&self, model: &str) -> PathBuf {
        self.weights.join(format!("{model}.safetensors"))
    }

    /// The folders of a repository `OWNER/NAME`.
    pub(crate) fn repository(&self, repository: &str) -> Result<Repository, HubError> {
        match repository.split_once('/') {
            Some((owner, name)) if plain(owner) && plain(name) => {
                let name = format!("models--{owner}--{name}");
                let of = |part: &str| self.hub.join(&name).join(part);
                let locks = self.hub.join(".locks").join(&name);
                Ok(Repository { blobs: of("blobs"), refs: of("refs"), snapshots: of("snapshots"), locks })
            }
            _ => Err(HubError::Malformed { what: "repository", value: shown(repository) }),
        }
    }
}

impl Repository {
    /// Where the blob of a pinned file lies, if it is there.
    pub(crate) fn blob(&self, file: &PinnedFile) -> Result<PathBuf, HubError> {
        file_name(file)?;
        Ok(self.blobs.join(&file.sha256))
    }

    /// Whether the blob is there, and what its name says.
    pub(crate) fn holds(&self, file: &PinnedFile, limit: u64) -> Result<bool, HubError> {
        // Whatever else lies there, or cannot be read, a fetched file takes its place.
        let found = file::open_regular(&self.blob(file)?, limit).and_then(|(mut blob, _)| digest(&mut blob));
        Ok(found.is_ok_and(|found| found == file.sha256))
    }

    /// The lock of a blob, which the hub's client takes too.
    pub(crate) fn lock(&self, file: &PinnedFile) -> Result<Lock, HubError> {
        file_name(file)?;
        std::fs::create_dir_all(&self.locks).map_err(at(&self.locks))?;
        Lock::take(&self.locks.join(format!("{}.lock", file.sha256)))
    }

    /// Whether a snapshot links to the blob.
    pub(crate) fn linked(&self, commit: &str, file: &PinnedFile) -> bool {
        std::fs::read_link(self.snapshots.join(commit).join(&file.name)).is_ok_and(|to| to == target(file))
    }

    /// Gives a blob its name in a snapshot, and notes which commit `main` was. For whoever has the lock.
    pub(crate) fn link(&self, revision: &str, commit: &str, file: &PinnedFile, _: &Lock) -> Result<(), HubError> {
        if !is_hex(commit, 40) {
            return Err(HubError::Malformed { what: "commit of 40 hexadecimal digits", value: shown(commit) });
        }
        let path = self.snapshots.join(commit).join(file_name(file)?);
        // A name of this blob's own: the lock is the blob's, the folder is not.
        let temporary = format!(".{}.perturb", file.sha256);
        let snapshot = self.snapshots.join(commit);
        std::fs::create_dir_all(&snapshot).map_err(at(&snapshot))?;
        replace(&path, &temporary, |path| std::os::unix::fs::symlink(target(file), path))?;
        if revision != commit {
            std::fs::create_dir_all(&self.refs).map_err(at(&self.refs))?;
            replace(&self.refs.join("main"), &temporary, |path| write_new(path, commit))?;
        }
        Ok(())
    }
}

/// What a snapshot's link says.
fn target(file: &PinnedFile) -> PathBuf {
    Path::new("../../blobs").join(&file.sha256)
}

/// Whether a name is one, and no path.
fn plain(name: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(usual)
}

/// A pinned file's name, which must be one and no path.
pub(crate) fn file_name(file: &PinnedFile) -> Result<&str, HubError> {
    if plain(&file.name) && is_hex(&file.sha256, 64) {
        Ok(&file.name)
    } else {
        Err(HubError::Malformed { what: "pinned file", value: shown(&file.name) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn usual(set: &[(&str, &str)], home: Option<&str>) -> Result<(String, String), HubError> {
        let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        let cache = Cache::usual(None, variable, home.map(PathBuf::from))?;
        Ok((cache.hub.display().to_string(), cache.weights.display().to_string()))
    }

    #[test]
    fn the_usual_places_are_the_hub_s_and_beside_it() {
        let at = |set: &[(&str, &str)]| usual(set, Some("/h")).unwrap();
        let both = |hub: &str, weights: &str| (hub.to_owned(), weights.to_owned());
        let ours = "/h/.cache/perturb/weights";
        assert_eq!(at(&[]), both("/h/.cache/huggingface/hub", ours));
        assert_eq!(at(&[("XDG_CACHE_HOME", "/x")]), both("/x/huggingface/hub", "/x/perturb/weights"));
        assert_eq!(at(&[("HF_HOME", "/f")]), both("/f/hub", ours));
        assert_eq!(at(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), both("/c", ours));
        assert_eq!(at(&[("HF_HUB_CACHE", "")]), at(&[]));
    }

    #[test]
    fn a_tilde_is_the_home_directory() {
        let at = |name: &str| usual(&[(name, "~/big")], Some("/h")).unwrap().0;
        assert_eq!(at("HF_HUB_CACHE"), "/h/big");
        assert_eq!(at("HF_HOME"), "/h/big/hub");
    }

    #[test]
    fn without_a_home_directory_nothing_lands_in_the_working_directory() {
        for home in [None, Some(""), Some("relative")] {
            assert!(matches!(usual(&[], home), Err(HubError::NoHome)));
            assert!(matches!(usual(&[("HF_HUB_CACHE", "~/x")], home), Err(HubError::NoHome)));
            assert!(usual(&[("XDG_CACHE_HOME", "/x")], home).is_ok());
        }
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        let cache = Cache::new("/hub".into(), "/weights".into());
        for repository in ["../x", "a/../b", "/etc", "a", "a/b/c", "a/", ".a/b"] {
            assert!(cache.repository(repository).is_err(), "{repository}");
        }
        for name in ["../model", "", ".hidden", "a/b"] {
            let file = PinnedFile { name: name.into(), sha256: "0".repeat(64) };
            assert!(file_name(&file).is_err(), "{name}");
        }
    }
}
