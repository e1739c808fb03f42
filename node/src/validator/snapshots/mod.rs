//! Snapshots of the state: made and served for others ([`shelf`]), fetched where this node is far
//! behind ([`fetch`]).
//!
//! Fetching goes on beside everything else: the node follows by blocks as well as it can, and a
//! snapshot is imported next to its database. When that is whole the node starts again on it
//! ([`Superseded`]).

pub mod fetch;
pub mod shelf;

use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::Result;
use perturb_consensus::Status;
use perturb_p2p::Request;
use perturb_storage::Retention;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use fetch::{Fetcher, Peers};
use shelf::Shelf;

/// Time between two looks whether this node is far behind.
const LOOK: Duration = Duration::from_secs(5);

/// Blocks behind from which others are asked what they hold.
const BEHIND: u64 = 16;

/// A newer database is whole: the node starts again on it.
#[derive(Debug, thiserror::Error)]
#[error("a snapshot of height {height} was imported: the node starts again on it")]
pub struct Superseded {
    /// The snapshot's height.
    pub height: u64,
}

/// Time until a snapshot that could not be made is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Makes a snapshot at each epoch's end, and forgets the past by policy. A disk that does not take a
/// snapshot costs the others something to fetch, and does not stop this node.
///
/// # Errors
/// None but the end of the machine.
pub async fn keep(
    shelf: Arc<Shelf>,
    policy: Retention,
    mut machine: watch::Receiver<Status>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let (shelf, height) = (shelf.clone(), machine.borrow_and_update().height);
        if let Err(error) = tokio::task::spawn_blocking(move || shelf.renew(policy)).await? {
            tracing::error!(%error, "no snapshot was made");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(TRY_AGAIN) => continue,
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = machine.wait_for(|status| status.height != height) => drop(changed?),
        }
    }
}

/// Answers a peer.
pub fn serve(shelf: &Arc<Shelf>, request: Request) {
    let shelf = shelf.clone();
    // A part is some megabytes from the disk.
    tokio::task::spawn_blocking(move || match shelf.answer(&request.data) {
        Ok(bytes) => request.reply.answer(bytes),
        Err(why) => request.reply.decline(why),
    });
}

/// Fetches a snapshot whenever this node is far behind.
///
/// # Errors
/// [`Superseded`] where one was imported.
pub async fn follow<P: Peers>(
    fetcher: Fetcher<P>,
    machine: watch::Receiver<Status>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        let (head, claim) = {
            let status = machine.borrow();
            (status.height, status.highest_claim)
        };
        if claim <= head.saturating_add(BEHIND) {
            continue;
        }
        let found = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            found = fetcher.fetch(head) => found,
        };
        match found {
            Ok(Some(height)) => return Err(Superseded { height }.into()),
            Ok(None) => {}
            // A disk in trouble stops the node elsewhere; here it only costs the snapshot.
            Err(error) => tracing::error!(%error, "a snapshot could not be imported"),
        }
    }
}
