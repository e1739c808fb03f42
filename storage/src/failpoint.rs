//! Fail points: a device for tests, inert in every other run.
//!
//! `PERTURB_FAILPOINT=name` or `name:n` in the environment of a process makes it abort at the first
//! (the n-th) time it comes past the point of that name: what kill -9 does, at a chosen place. Every
//! write of this crate has a point before and one after it. Nothing else reads the variable, and it
//! is read once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable.
pub const VARIABLE: &str = "PERTURB_FAILPOINT";

/// Every point, in the order of a node's life.
pub const FAIL_POINTS: [&str; 46] = [
    "identity-before",
    "identity-after",
    "guard-create-written",
    "guard-create-renamed",
    "guard-known-before",
    "guard-known-after",
    "commit-before",
    "commit-after",
    "log-append-before",
    "log-append-after",
    "log-sync-before",
    "log-sync-after",
    "guard-first-before",
    "guard-first-after",
    "guard-second-before",
    "guard-second-after",
    "row-before",
    "row-after",
    "row-delete-before",
    "row-delete-after",
    "image-before",
    "image-after",
    "images-prune-before",
    "images-prune-after",
    "prune-blocks-before",
    "prune-blocks-after",
    "prune-states-before",
    "prune-states-after",
    "prune-tree-before",
    "prune-tree-after",
    "export-part-before",
    "export-part-after",
    "export-rename-before",
    "export-rename-after",
    "import-part-before",
    "import-part-after",
    "import-head-before",
    "import-head-after",
    "import-rename-before",
    "import-rename-after",
    "adopt-rows-before",
    "adopt-rows-after",
    "adopt-aside-before",
    "adopt-aside-after",
    "adopt-rename-before",
    "adopt-rename-after",
];

struct Armed {
    name: String,
    left: AtomicU64,
}

fn armed() -> Option<&'static Armed> {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let read = || {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, n) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Armed { name: name.into(), left: AtomicU64::new(n.parse().unwrap_or(1)) })
    };
    ARMED.get_or_init(read).as_ref()
}

/// Comes past a point.
pub(crate) fn failpoint(name: &str) {
    debug_assert!(FAIL_POINTS.contains(&name), "{name} is not in the list");
    if let Some(armed) = armed()
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

/// A write with a point before and after it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Identity,
    GuardKnown,
    Commit,
    LogAppend,
    LogSync,
    GuardFirst,
    GuardSecond,
    Row,
    RowDelete,
    Image,
    ImagesPrune,
    PruneBlocks,
    PruneStates,
    PruneTree,
    ExportPart,
    ExportRename,
    ImportPart,
    ImportHead,
    ImportRename,
    AdoptRows,
    AdoptAside,
    AdoptRename,
}

impl Write {
    const fn points(self) -> [&'static str; 2] {
        match self {
            Self::Identity => ["identity-before", "identity-after"],
            Self::GuardKnown => ["guard-known-before", "guard-known-after"],
            Self::Commit => ["commit-before", "commit-after"],
            Self::LogAppend => ["log-append-before", "log-append-after"],
            Self::LogSync => ["log-sync-before", "log-sync-after"],
            Self::GuardFirst => ["guard-first-before", "guard-first-after"],
            Self::GuardSecond => ["guard-second-before", "guard-second-after"],
            Self::Row => ["row-before", "row-after"],
            Self::RowDelete => ["row-delete-before", "row-delete-after"],
            Self::Image => ["image-before", "image-after"],
            Self::ImagesPrune => ["images-prune-before", "images-prune-after"],
            Self::PruneBlocks => ["prune-blocks-before", "prune-blocks-after"],
            Self::PruneStates => ["prune-states-before", "prune-states-after"],
            Self::PruneTree => ["prune-tree-before", "prune-tree-after"],
            Self::ExportPart => ["export-part-before", "export-part-after"],
            Self::ExportRename => ["export-rename-before", "export-rename-after"],
            Self::ImportPart => ["import-part-before", "import-part-after"],
            Self::ImportHead => ["import-head-before", "import-head-after"],
            Self::ImportRename => ["import-rename-before", "import-rename-after"],
            Self::AdoptRows => ["adopt-rows-before", "adopt-rows-after"],
            Self::AdoptAside => ["adopt-aside-before", "adopt-aside-after"],
            Self::AdoptRename => ["adopt-rename-before", "adopt-rename-after"],
        }
    }

    /// Does it, between its points.
    pub(crate) fn around<T, E>(self, write: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let [before, after] = self.points();
        failpoint(before);
        let done = write()?;
        failpoint(after);
        Ok(done)
    }
}
