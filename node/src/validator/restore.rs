//! A node whose own state is not the agreed one: quarantine, and begin again.
//!
//! The machine says so when a quorum certified a block that does not execute on its state, the ledger
//! when a row it starts from is not the one that the newest header names. From then on the node
//! neither votes nor speaks. Its database is set aside, unchanged, for people to look at; keys and
//! signing guard stay. Then the program starts anew in the same process and fetches the history from
//! the others: blocks that a quorum certified, from genesis or a snapshot. While it has not caught up,
//! and at heights where its log lost a signature, it does not vote.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use color_eyre::eyre::{Context, Report, Result, eyre};
use perturb_ledger::LedgerError;

use super::driver::DriverError;

/// How often one start of the program restores itself: a state that goes wrong again at once is a
/// matter for people.
const MOST: u32 = 3;

/// Counts the restores of one start of the program.
const COUNT: &str = "RESTORES_OF_THIS_START";

/// Databases kept aside.
const KEPT: usize = 2;

/// What shows that the own state is wrong, if that is why the node stopped.
pub fn wrong_state(error: &Report) -> Option<String> {
    if let Some(DriverError::Diverged { height, reason }) = error.downcast_ref() {
        return Some(format!("height {height}: {reason}"));
    }
    match error.downcast_ref() {
        Some(LedgerError::Damaged { row }) => Some(format!("row {row} is not the one that was agreed")),
        _ => None,
    }
}

/// Sets the database aside; says where it is now.
///
/// # Errors
/// The disk.
pub fn quarantine(data_dir: &Path) -> Result<PathBuf> {
    // Microseconds, so that names sort by age also within one second.
    let mut at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
    let name = |at: u128| data_dir.join(format!("quarantine-{at:020}"));
    while name(at).exists() {
        at += 1;
    }
    let aside = name(at);
    // An import that was under way belongs to the node that ran: the next one begins anew. First, for a
    // folder with an unfinished import and no database is for people to look at.
    if let Err(error) = perturb_storage::Import::forget(data_dir) {
        tracing::warn!(%error, "an unfinished import stays");
    }
    std::fs::rename(data_dir.join("database"), &aside).wrap_err_with(|| format!("{}", aside.display()))?;
    let mut old: Vec<PathBuf> = std::fs::read_dir(data_dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("quarantine-")))
        .collect();
    old.sort();
    for path in old.iter().rev().skip(KEPT) {
        std::fs::remove_dir_all(path).wrap_err_with(|| format!("{}", path.display()))?;
    }
    Ok(aside)
}

/// Sets the database aside and starts the program anew; returns only where that is not possible.
pub fn begin_anew(data_dir: &Path, why: &str) -> Report {
    let count = std::env::var(COUNT).ok().and_then(|n| n.parse().ok()).unwrap_or(0u32) + 1;
    if count > MOST {
        return eyre!("the state went wrong {count} times, last: {why}; look at {}", data_dir.display());
    }
    match quarantine(data_dir) {
        Ok(aside) => {
            tracing::error!(%why, aside = %aside.display(), "this node's state is wrong: restoring from the others")
        }
        Err(error) => return error.wrap_err(format!("the state is wrong ({why}) and cannot be set aside")),
    }
    let error = start_again(&[(COUNT, count.to_string())]);
    eyre!("the state was set aside ({why}); start the node again: {error}")
}

/// Starts the program anew in this process; returns only where that is not possible.
pub fn start_again(more: &[(&str, String)]) -> std::io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    // Every handle of this run is closed by the kernel: nothing of it reaches the new one.
    Command::new(program).args(std::env::args_os().skip(1)).envs(more.iter().cloned()).exec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_database_is_set_aside_and_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..4 {
            std::fs::create_dir(dir.path().join("database")).unwrap();
            std::fs::write(dir.path().join("database/mark"), i.to_string()).unwrap();
            std::fs::write(dir.path().join("signing-guard"), b"stays").unwrap();
            let aside = quarantine(dir.path()).unwrap();
            assert_eq!(std::fs::read_to_string(aside.join("mark")).unwrap(), i.to_string());
            assert!(!dir.path().join("database").exists());
        }
        let names = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, KEPT + 1, "two old ones and the guard");
        assert!(dir.path().join("signing-guard").exists());
    }

    #[test]
    fn only_a_wrong_state_begins_anew() {
        let diverged = DriverError::Diverged { height: 3, reason: "state root".into() };
        assert!(wrong_state(&Report::new(diverged)).is_some());
        assert!(wrong_state(&Report::new(LedgerError::Damaged { row: "meta".into() })).is_some());
        assert!(wrong_state(&Report::new(DriverError::Halted("full".into()))).is_none());
        assert!(wrong_state(&eyre!("something else")).is_none());
    }
}
