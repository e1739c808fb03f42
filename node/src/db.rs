//! `perturb db`: looking after a node's database while the node is stopped.

use std::io::IsTerminal as _;
use std::path::Path;

use color_eyre::eyre::{Result, bail, eyre};
use indicatif::ProgressBar;
use perturb_ledger::Genesis;
use perturb_storage::{Database, Options};

use crate::cli::DbCommand;
use crate::role::read_genesis;

/// Checks a database.
///
/// # Errors
/// The folder is in use or not there, or the first fault in it.
pub fn run(command: DbCommand) -> Result<()> {
    match command {
        DbCommand::Check { data_dir, genesis } => check(&data_dir, &genesis),
    }
}

/// Opens a stopped node's database; makes none.
///
/// # Errors
/// The folder is in use or holds none, or the genesis file is none or another network's.
pub(crate) fn open(data_dir: &Path, genesis: &Path) -> Result<(Database, Genesis)> {
    if !data_dir.join("database").is_dir() {
        bail!("{} holds no database; name the node's data folder with --data-dir", data_dir.display());
    }
    let genesis = read_genesis(genesis)?;
    Ok((Database::open(data_dir, &genesis.network_id(), Options::default())?, genesis))
}

fn check(data_dir: &Path, genesis: &Path) -> Result<()> {
    let (database, genesis) = open(data_dir, genesis)?;
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(database.height()?.map_or(0, |h| h + 1)),
        false => ProgressBar::hidden(),
    };
    let outcome = database.check(&genesis, |height| bar.set_position(height + 1));
    bar.finish_and_clear();
    let seen = outcome.map_err(|fault| {
        eyre!(
            "{fault}; move the folder `database` in {} away, keep `signing-guard`, and start the node again: it fetches the history from its peers",
            data_dir.display()
        )
    })?;
    println!(
        "whole: {} blocks, {} signatures, {} transactions, {} rows, {} copies of the state, {} images, {} log records",
        seen.blocks, seen.signatures, seen.transactions, seen.rows, seen.copies, seen.images, seen.log_records
    );
    Ok(())
}
