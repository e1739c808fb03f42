//! `perturb snapshot`: the state of a stopped node into a folder, and a new node from such a folder.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use color_eyre::eyre::{Result, WrapErr, bail, eyre};
use indicatif::ProgressBar;
use perturb_storage::{Database, Import, Options, SnapshotFolder};
use perturb_types::Digest;

use crate::cli::SnapshotCommand;
use crate::db;
use crate::role::read_genesis;

/// Exports or imports, and says what it did.
///
/// # Errors
/// The folder is in use, not there or there already; a height that is not kept; a snapshot that is
/// not the network's.
pub fn run(command: SnapshotCommand) -> Result<()> {
    let said = match command {
        SnapshotCommand::Export { data_dir, genesis, height, out } => export(&data_dir, &genesis, height, &out),
        SnapshotCommand::Import { data_dir, genesis, trust, folder } => import(&data_dir, &genesis, trust, &folder),
    };
    println!("{}", said?);
    Ok(())
}

fn bar(make: impl FnOnce() -> ProgressBar) -> ProgressBar {
    if std::io::stderr().is_terminal() { make() } else { ProgressBar::hidden() }
}

fn export(data_dir: &Path, genesis: &Path, height: Option<u64>, out: &Path) -> Result<String> {
    let start = Instant::now();
    let (database, genesis) = db::open(data_dir, genesis)?;
    let newest = database.height()?.ok_or_else(|| eyre!("{} holds an empty database", data_dir.display()))?;
    let height = height.unwrap_or(newest);
    let bar = bar(|| ProgressBar::new_spinner().with_message(format!("exporting the state after block {height}")));
    bar.enable_steady_tick(Duration::from_millis(100));
    let done = database.export_snapshot(height, out);
    bar.finish_and_clear();
    let done = done.wrap_err_with(|| format!("no snapshot of height {height} was made"))?;
    let header = database.header(height)?.ok_or_else(|| eyre!("header {height} is gone"))?;
    Ok(format!(
        "height {height}, header {}\nmanifest {}\n{} rows in {} chunks, {} bytes in {}, {:.1} s",
        header.digest(&genesis.network_id()),
        done.manifest,
        done.rows,
        done.chunks,
        done.bytes,
        out.display(),
        start.elapsed().as_secs_f64()
    ))
}

fn import(data_dir: &Path, genesis: &Path, trust: Option<(u64, Digest)>, folder: &Path) -> Result<String> {
    let start = Instant::now();
    let genesis = read_genesis(genesis)?;
    if !folder.join("manifest").is_file() {
        bail!("{} is no snapshot: it has no file `manifest`", folder.display());
    }
    let refused = || format!("the snapshot in {} was not imported", folder.display());
    let snapshot = SnapshotFolder::open(folder).wrap_err_with(refused)?;
    let told = snapshot.trust(&genesis, trust).wrap_err_with(refused)?;
    let mut import = Import::begin(data_dir, &genesis, told, Options::default(), snapshot.manifest_bytes())
        .wrap_err_with(refused)?;
    let (manifest, (height, digest)) = (snapshot.manifest(), import.target());
    let bytes = |part| manifest.bytes_of(part).unwrap_or_default() as u64;
    let total: u64 = manifest.parts().map(bytes).sum();
    let bar = bar(|| ProgressBar::new(total));
    while let Some(part) = import.wanted() {
        if let Err(error) = snapshot.part(part).and_then(|part| import.add(&part)) {
            bar.finish_and_clear();
            import.cancel()?;
            return Err(error).wrap_err_with(refused);
        }
        bar.inc(bytes(part));
    }
    let done: Result<Database, _> = import.finish();
    bar.finish_and_clear();
    done.wrap_err_with(refused)?;
    let rows: u64 = manifest.chunks.iter().map(|chunk| u64::from(chunk.rows)).sum();
    let rests = match trust {
        Some((at, _)) => format!("it rests on genesis and on header {at} as given"),
        None => "it rests on genesis alone: compare the header with another node's".into(),
    };
    Ok(format!(
        "height {height}, header {digest}: {rests}\n{rows} rows in {} chunks, {} bytes, {:.1} s; start the node with --data-dir {}",
        manifest.chunks.len(),
        total + snapshot.manifest_bytes().len() as u64,
        start.elapsed().as_secs_f64(),
        data_dir.display()
    ))
}

/// `HEIGHT:HASH`, as `--trust` takes it.
///
/// # Errors
/// Another text.
pub fn point(text: &str) -> Result<(u64, Digest), String> {
    let wrong = || format!("`{text}` is not HEIGHT:HASH, a height and 64 hex digits");
    let (height, digest) = text.split_once(':').ok_or_else(wrong)?;
    Ok((height.parse().map_err(|_| wrong())?, digest.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
#[path = "../../storage/tests/history/mod.rs"]
mod history;

#[cfg(test)]
mod tests {
    use super::history::History;
    use super::*;
    use crate::cli::DbCommand;

    #[test]
    fn what_is_exported_is_imported_whole_and_checked() {
        let (history, dir) = (History::new(), tempfile::tempdir().unwrap());
        let at = |name: &str| dir.path().join(name);
        let (node, genesis, second) = (at("node"), at("genesis.json"), at("second"));
        std::fs::write(&genesis, serde_json::to_vec(&history.genesis).unwrap()).unwrap();
        let said = |result: Result<String>| format!("{:#}", result.unwrap_err());
        assert!(said(export(&node, &genesis, None, &at("out"))).contains("holds no database"));
        let commits = history.commits(7).0;
        let db = Database::open(&node, &history.id(), Options::default()).unwrap();
        commits.iter().for_each(|commit| db.commit(commit).unwrap());
        assert!(said(export(&node, &genesis, None, &at("out"))).contains("in use by another process"));
        drop(db);

        for (height, name) in [(None, "newest"), (Some(6), "six")] {
            let told = export(&node, &genesis, height, &at(name)).unwrap();
            let height = height.unwrap_or(7);
            let digest = commits[height as usize].digest;
            assert!(told.starts_with(&format!("height {height}, header {digest}\nmanifest ")), "{told}");
            assert!(said(export(&node, &genesis, Some(height), &at(name))).contains("exists"));
            let trust = point(&format!("{height}:{digest}")).unwrap();
            let other = Some((height, Digest([1; 32])));
            assert!(said(import(&second, &genesis, other, &at(name))).contains("the trusted one is"));
            assert!(!second.join("database").exists());
            let told = import(&second, &genesis, Some(trust), &at(name)).unwrap();
            assert!(told.starts_with(&format!("height {height}, header {digest}: it rests on genesis and")), "{told}");
            db::run(DbCommand::Check { data_dir: second.clone(), genesis: genesis.clone() }).unwrap();
            assert!(said(import(&second, &genesis, None, &at(name))).contains("without a database"));
            std::fs::remove_dir_all(second.join("database")).unwrap();
        }
        assert!(said(export(&node, &genesis, Some(5), &at("five"))).contains("not kept; it is for [0, 3, 6]"));
        assert!(said(import(&second, &genesis, None, &at("five"))).contains("is no snapshot"));
        assert!(said(import(&second, &genesis, Some((2, Digest([0; 32]))), &at("six"))).contains("it shows [3, 6]"));
        let chunk = at("six").join("chunk-00000");
        let mut bytes = std::fs::read(&chunk).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&chunk, bytes).unwrap();
        let told = said(import(&second, &genesis, None, &at("six")));
        assert!(told.contains("chunk 0") && told.contains("six"), "{told}");
        assert!(!second.join("database.importing").exists() && !second.join("database").exists());
    }

    #[test]
    fn a_point_is_a_height_and_a_hash() {
        let digest = Digest([7; 32]);
        assert_eq!(point(&format!("12:{digest}")), Ok((12, digest)));
        for wrong in ["", "12", ":", "12:", "x:00", &format!("{digest}"), &format!("-1:{digest}"), "12:0707"] {
            assert!(point(wrong).is_err(), "{wrong}");
        }
    }
}
