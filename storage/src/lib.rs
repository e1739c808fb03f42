//! What a node keeps on disk.
//!
//! - [`Database`]: RocksDB under the ledger's [`perturb_ledger::StateStore`]: blocks with
//!   certificates, the state and its Merkle tree, the consensus log, images, small local rows. A
//!   height is committed in ONE synced batch that also clears the log.
//! - [`SigningGuard`]: a file of its own that refuses a second signature for one step, also when the
//!   database was rolled back.
//!
//! - Snapshots: [`Database::export_snapshot`], [`Database::import_snapshot`] and, for parts that come
//!   over the network, [`Import`]. [`Database::prune`] forgets by policy; [`check`] checks everything.
//!
//! One process per data folder: a lock file says so. A folder belongs to one network.

mod adopt;
mod archive;
pub mod check;
mod damage;
pub mod database;
pub mod error;
pub mod export;
pub mod failpoint;
pub mod guard;
pub mod images;
pub mod import;
mod log;
pub mod prune;
pub mod rows;
pub mod shelves;
mod state;
#[cfg(test)]
mod tests;

pub use database::{Database, Options};
pub use error::StorageError;
pub use export::{Exported, SnapshotFolder};
pub use guard::{SigningGuard, key_tag};
pub use images::Room;
pub use import::Import;
pub use prune::{Pruned, Retention};
pub use shelves::{ImageUse, round_cost};
