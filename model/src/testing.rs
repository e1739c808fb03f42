//! What the tests of several modules need.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// A pipe without a writer: opening it as usual waits for ever.
pub(crate) fn pipe(folder: &Path) -> PathBuf {
    let path = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}
