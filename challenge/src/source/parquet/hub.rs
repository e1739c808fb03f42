//! Where the hub's clients keep data sets.
//!
//! ```text
//! CACHE/datasets--OWNER--NAME/refs/main                            the revision that `main` was
//! CACHE/datasets--OWNER--NAME/snapshots/REVISION/data/*.parquet    links into blobs/
//! CACHE/datasets--OWNER--NAME/blobs/SHA256
//! ```
//!
//! `CACHE` is `HF_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` in the user's cache folder.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use perturb_types::Digest;

use crate::file;

/// Shards of a set: each is held open, and a process usually may hold 1024 files. ImageNet has 294.
pub(super) const MAX_SHARDS: usize = 512;

/// Bytes of a file under `refs/`.
const MAX_REF: u64 = 128;

/// The cache, from the environment.
#[must_use]
pub fn cache(env: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(cache) = set("HF_HUB_CACHE") {
        return cache;
    }
    let home = set("HF_HOME").or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface")));
    home.unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache/huggingface")).join("hub")
}

/// Whether a text can be a revision's name: it becomes part of a path.
fn is_revision(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !text.starts_with('.')
}

/// The folder of a data set's snapshot.
///
/// # Errors
/// The set, or that revision, is not in the cache.
pub(super) fn snapshot(cache: &Path, owner_name: &str, revision: &str) -> Result<PathBuf, String> {
    if !is_revision(revision) {
        return Err(format!("`{revision}` is no revision"));
    }
    let set = cache.join(format!("datasets--{}", owner_name.replace('/', "--")));
    let named = set.join("refs").join(revision);
    let commit = match file::read_text(&named, MAX_REF) {
        Ok(text) => text.trim().to_owned(),
        Err(e) if e.kind() == ErrorKind::NotFound => revision.to_owned(),
        Err(e) => return Err(format!("{}: {e}", named.display())),
    };
    let folder = set.join("snapshots").join(&commit);
    if !is_revision(&commit) || !folder.is_dir() {
        return Err(format!(
            "{owner_name}, revision {revision}, is not in the hub's cache {}; \
             fetch it with `hf download --repo-type dataset {owner_name}`",
            cache.display()
        ));
    }
    Ok(folder)
}

/// The parquet files of a folder or of its `data`, by name, all shards of each series; with `split`
/// those whose names begin with it.
///
/// # Errors
/// None, too many, or a shard of a series is missing.
pub(super) fn shards(folder: &Path, split: Option<&str>) -> Result<Vec<PathBuf>, String> {
    let data = folder.join("data");
    let folder = if data.is_dir() { data } else { folder.to_owned() };
    let io = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut found = Vec::new();
    for item in std::fs::read_dir(&folder).map_err(io)? {
        let path = item.map_err(io)?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let wanted = split.is_none_or(|s| name.strip_prefix(s).is_some_and(|rest| rest.starts_with(['-', '.'])));
        if wanted && path.extension().is_some_and(|e| e == "parquet") {
            found.push(path.clone());
            if found.len() > MAX_SHARDS {
                return Err(format!("{}: more than {MAX_SHARDS} parquet files", folder.display()));
            }
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(format!("{}: no parquet files", folder.display()));
    }
    complete(&found)?;
    Ok(found)
}

/// `NAME-00003-of-00017.parquet` belongs to a series of 17.
fn complete(shards: &[PathBuf]) -> Result<(), String> {
    let names: Vec<&str> = shards.iter().filter_map(|p| p.file_stem()?.to_str()).collect();
    for name in &names {
        let Some((rest, count)) = name.rsplit_once("-of-") else { continue };
        let (Some((series, _)), Ok(count)) = (rest.rsplit_once('-'), count.parse::<usize>()) else { continue };
        let missing = (0..count.min(MAX_SHARDS + 1)).map(|i| format!("{series}-{i:05}-of-{count:05}"));
        if let Some(missing) = missing.into_iter().find(|m| !names.contains(&m.as_str())) {
            return Err(format!("{missing}.parquet is missing"));
        }
    }
    Ok(())
}

/// The digest that the cache gives a file: large files are kept under their SHA-256, small ones under
/// a shorter name.
pub(super) fn claimed(path: &Path) -> Option<Digest> {
    let target = std::fs::read_link(path).ok()?;
    let name = target.file_name()?.to_str()?;
    if name.len() == 64 { name.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_cache_is_found_as_the_hubs_clients_find_it() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<(String, OsString)> = set.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect();
            cache(move |name| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        assert_eq!(with(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(with(&[("HOME", "/h"), ("HF_HOME", "/f")]), Path::new("/f/hub"));
        assert_eq!(with(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/f")]), Path::new("/c"));
        assert_eq!(with(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/f")]), Path::new("/f/hub"));
    }

    #[test]
    fn a_revision_cannot_lead_out_of_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["..", "a/b", "", ".git", "x y"] {
            assert!(snapshot(folder.path(), "o/n", name).is_err(), "{name}");
        }
        let set = folder.path().join("datasets--o--n");
        std::fs::create_dir_all(set.join("refs")).unwrap();
        std::fs::create_dir_all(set.join("snapshots/abc")).unwrap();
        std::fs::write(set.join("refs/main"), "abc\n").unwrap();
        assert_eq!(snapshot(folder.path(), "o/n", "main").unwrap(), set.join("snapshots/abc"));
        assert_eq!(snapshot(folder.path(), "o/n", "abc").unwrap(), set.join("snapshots/abc"));
        std::fs::write(set.join("refs/main"), "../../..").unwrap();
        assert!(snapshot(folder.path(), "o/n", "main").is_err());
        assert!(snapshot(folder.path(), "o/n", "other").unwrap_err().contains("hf download"));
    }

    #[test]
    fn a_missing_shard_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        assert!(shards(folder.path(), None).unwrap_err().contains("no parquet files"));
        for name in ["train-00001-of-00003", "train-00000-of-00003", "validation-00000-of-00001"] {
            std::fs::write(data.join(format!("{name}.parquet")), "").unwrap();
        }
        let refused = shards(folder.path(), Some("train")).unwrap_err();
        assert_eq!(refused, "train-00002-of-00003.parquet is missing");
        assert_eq!(shards(folder.path(), Some("validation")).unwrap().len(), 1);
        assert!(shards(folder.path(), Some("val")).is_err());
    }
}
