//! Snapshots of the state: made and served for others ([`shelf`]), fetched where this node is far
//! behind ([`fetch`]).
//!
//! Fetching goes on beside everything else: the node follows by blocks as well as it can, and a
//! snapshot is imported next to its database. When that is whole the node starts again on it
//! ([`Superseded`]).

pub mod fetch;
pub mod peers;
pub mod shelf;

use std::sync::Arc;
use std::time::{Duration, Instant};

use color_eyre::eyre::{Report, Result};
use perturb_consensus::Status;
use perturb_p2p::Request;
use perturb_storage::Retention;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use fetch::{Fetcher, Position};
use peers::Peers;
use shelf::Shelf;

/// Time between two looks whether this node is far behind.
const LOOK: Duration = Duration::from_secs(5);

/// Blocks behind from which others are asked what they hold.
const BEHIND: u64 = 16;

/// Time without a new block, while somebody says to be ahead, after which any snapshot ahead will do.
const STUCK: Duration = Duration::from_secs(60);

/// Time until a snapshot that could not be made or imported is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// A newer database is whole: the node starts again on it.
#[derive(Debug, thiserror::Error)]
#[error("a snapshot of height {height} was imported: the node starts again on it")]
pub struct Superseded {
    /// The snapshot's height.
    pub height: u64,
}

/// Makes a snapshot at each epoch's end, and forgets the past by policy. A disk that does not take a
/// snapshot costs the others something to fetch; what stops a node is a commit that fails.
///
/// # Errors
/// None: a snapshot that cannot be made is logged and tried again.
pub async fn keep(
    shelf: Arc<Shelf>,
    policy: Retention,
    mut machine: watch::Receiver<Status>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let (shelf, height) = (shelf.clone(), machine.borrow_and_update().height);
        let renewed = tokio::task::spawn_blocking(move || shelf.renew(policy)).await;
        if let Err(error) = renewed.map_err(Report::new).and_then(|done| Ok(done?)) {
            tracing::error!(%error, "no snapshot was made, or the past was not pruned");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(TRY_AGAIN) => continue,
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // The machine's end is no failure of this part: it has its own reason, which is the one to tell.
            changed = machine.wait_for(|status| status.height != height) => if changed.is_err() { return Ok(()) },
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

/// Fetches a snapshot whenever this node is far behind, or does not get on by blocks.
///
/// # Errors
/// [`Superseded`] where one was imported.
pub async fn follow<P: Peers>(
    fetcher: Fetcher<P>,
    machine: watch::Receiver<Status>,
    stop: CancellationToken,
) -> Result<()> {
    let (mut seen, mut since) = (0, Instant::now());
    let mut pause = LOOK;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = LOOK;
        let (head, claim) = {
            let status = machine.borrow();
            (status.height, status.highest_claim)
        };
        if head != seen {
            (seen, since) = (head, Instant::now());
        }
        let stuck = claim > head && since.elapsed() >= STUCK;
        if claim <= head.saturating_add(BEHIND) && !stuck {
            continue;
        }
        let found = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            found = fetcher.fetch(Position { head, stuck }) => found,
        };
        match found {
            Ok(Some(height)) => return Err(Superseded { height }.into()),
            Ok(None) => {}
            // The node goes on by blocks, and this does not fill its disk again at once.
            Err(error) => {
                tracing::error!(%error, "a snapshot could not be imported");
                pause = TRY_AGAIN;
            }
        }
    }
}
