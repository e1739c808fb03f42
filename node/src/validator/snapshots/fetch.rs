//! Fetching a snapshot from peers, none of which is trusted.
//!
//! 1. Connected validators are asked what they hold. Only what is far ahead counts, or what is ahead
//!    while nobody says to hold the next block, or while this node does not get on.
//! 2. What most of them offer is tried first: all who are honest have the same bytes. The manifest and
//!    each part are asked of those who offered it, some parts at once; bytes that are not those of the
//!    digest cost who sent them its session, and the part is asked of another. All of it has a time,
//!    by its size: who drips is left alone for a while.
//! 3. The import proves each part in its turn, in a thread of its own (storage): a snapshot that does
//!    not lead to the certified state is thrown away, with everybody who offered it.
//!
//! What belief begins with is this node's own newest header, so that a snapshot continues the history
//! that this node has seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use perturb_ledger::snapshot::{MAX_OFFER_BYTES, Manifest, Offer, Part, Request, SnapshotError};
use perturb_ledger::{Genesis, StateStore, Trust, query};
use perturb_p2p::{Decline, PeerId, RequestError};
use perturb_storage::{Database, Import, StorageError};
use perturb_types::{Digest, encode};
use tokio::sync::{mpsc, oneshot};

use super::BEHIND;
use super::peers::Peers;
use crate::validator::faults::Fault;

/// Peers asked for offers: any of them may have what the others have.
const MAX_ASKED: usize = 32;

/// How long an offer may take.
const OFFER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a part may take: a megabyte over a thin line.
const PART_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a snapshot may take, beside the bytes that have come at [`LEAST_RATE`].
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes a second below which a snapshot is given up.
const LEAST_RATE: u64 = 64 << 10;

/// How long offers are not believed of who offered what came to nothing.
const AVOIDED: Duration = Duration::from_secs(120);

/// Parts under way at once.
const AT_ONCE: usize = 4;

/// A peer that is busy is asked again after this, and at most [`MOST_BUSY`] times for a part.
const BUSY: Duration = Duration::from_millis(250);

/// See [`BUSY`].
const MOST_BUSY: u32 = 40;

/// Fetches snapshots into the place beside a database.
pub struct Fetcher<P> {
    peers: Arc<P>,
    database: Database,
    genesis: Genesis,
    after: u64,
    avoided: Mutex<HashMap<PeerId, Instant>>,
}

/// How this node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its newest block.
    pub head: u64,
    /// Whether it has had no new block for a while, although somebody says to be ahead.
    pub stuck: bool,
}

/// Why an offer came to nothing.
enum Failed {
    /// Nobody is left who gives the next part, or not in time, or it begins with what this node does
    /// not know.
    Nothing,
    /// It is a lie.
    Lie(StorageError),
    /// This node's own trouble.
    Own(StorageError),
}

/// Those who offered one snapshot and have not failed yet; asked in turn.
struct Offerers {
    left: Mutex<Vec<PeerId>>,
    turn: AtomicUsize,
}

impl Offerers {
    fn new(peers: &[PeerId]) -> Self {
        Self { left: Mutex::new(peers.to_vec()), turn: AtomicUsize::new(0) }
    }

    fn next(&self) -> Option<PeerId> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        turn.checked_rem(left.len()).and_then(|at| left.get(at).copied())
    }

    fn drop(&self, peer: &PeerId) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| p != peer);
    }
}

/// How a step of the import went.
type Step = Result<(), StorageError>;

/// The thread that imports.
struct Importer {
    /// Parts in order, each with whom to tell.
    parts: mpsc::Sender<(Vec<u8>, oneshot::Sender<Step>)>,
    ended: oneshot::Receiver<Step>,
}

impl Importer {
    /// Begins; an import belongs to one thread.
    fn start(database: Database, genesis: Genesis, trust: Trust, manifest: Vec<u8>) -> Result<Self, StorageError> {
        let (parts, mut given) = mpsc::channel::<(Vec<u8>, oneshot::Sender<Step>)>(1);
        let (end, ended) = oneshot::channel();
        let work = move || {
            let mut import = Import::beside(&database, &genesis, trust, &manifest)?;
            while let Some((bytes, reply)) = given.blocking_recv() {
                let added = import.add(&bytes);
                let failed = added.is_err();
                let _ = reply.send(added);
                if failed {
                    return import.cancel();
                }
            }
            if import.wanted().is_some() { import.cancel() } else { import.seal(&database) }
        };
        std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || drop(end.send(work())))
            .map_err(|source| StorageError::Io { path: "thread".into(), source })?;
        Ok(Self { parts, ended })
    }

    /// Hands over the next part. `None`: the import has ended, see [`Importer::end`].
    async fn add(&self, bytes: Vec<u8>) -> Option<Step> {
        let (reply, added) = oneshot::channel();
        self.parts.send((bytes, reply)).await.ok()?;
        added.await.ok()
    }

    /// Ends it, whole or not.
    async fn end(self) -> Step {
        drop(self.parts);
        let gone = || StorageError::Ledger("the import ended unexpectedly".into());
        self.ended.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn blame(error: StorageError) -> Failed {
    match &error {
        StorageError::Snapshot(e) if e.blames_manifest() => Failed::Lie(error),
        // How large it is, only the one who offers it says so far.
        StorageError::Snapshot(_) | StorageError::NotAhead { .. } | StorageError::Space { .. } => {
            tracing::warn!(%error, "a snapshot is of no use here");
            Failed::Nothing
        }
        _ => Failed::Own(error),
    }
}

impl<P: Peers> Fetcher<P> {
    /// Snapshots count from `after` blocks ahead of this node on.
    pub fn new(peers: Arc<P>, database: Database, genesis: Genesis, after: u64) -> Self {
        Self { peers, database, genesis, after, avoided: Mutex::default() }
    }

    /// Imports a snapshot where one is needed and can be had; gives its height.
    ///
    /// # Errors
    /// This node's own disk.
    pub async fn fetch(&self, at: Position) -> Result<Option<u64>, StorageError> {
        let offers = self.offers().await;
        for ((height, digest), offerers) in worthwhile(at, self.after, &offers) {
            tracing::info!(height, %digest, offered_by = offerers.len(), "this node is far behind: fetching a snapshot");
            match self.attempt((height, digest), &Offerers::new(&offerers)).await {
                Ok(()) => return Ok(Some(height)),
                Err(Failed::Own(error)) => return Err(error),
                Err(Failed::Nothing) => {
                    tracing::warn!(height, "the snapshot came to nothing");
                    self.avoid(&offerers);
                }
                Err(Failed::Lie(error)) => {
                    self.avoid(&offerers);
                    for peer in offerers {
                        self.peers.punish(peer, Fault::Snapshot, &error.to_string()).await;
                    }
                }
            }
        }
        Ok(None)
    }

    async fn offers(&self) -> Vec<(PeerId, Offer)> {
        let ask = async |peer: PeerId| {
            let read = |bytes: &[u8]| encode::decode::<Offer>("offer", bytes, MAX_OFFER_BYTES);
            match self.peers.ask(peer, Request::Offer, OFFER_TIMEOUT).await {
                Ok(bytes) => match read(&bytes) {
                    Ok(offer) => {
                        self.peers.answered(&peer);
                        Some((peer, offer))
                    }
                    Err(error) => {
                        self.peers.punish(peer, Fault::Answer, &error.to_string()).await;
                        None
                    }
                },
                Err(error) => {
                    self.missed(peer, &error).await;
                    None
                }
            }
        };
        let peers: Vec<_> = self.peers.all().into_iter().filter(|p| !self.avoids(p)).take(MAX_ASKED).collect();
        stream::iter(peers).map(ask).buffer_unordered(MAX_ASKED).filter_map(async |o| o).collect().await
    }

    fn avoid(&self, peers: &[PeerId]) {
        let now = Instant::now();
        let mut avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.retain(|_, since| now.duration_since(*since) < AVOIDED);
        avoided.extend(peers.iter().map(|peer| (*peer, now)));
    }

    fn avoids(&self, peer: &PeerId) -> bool {
        let avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.get(peer).is_some_and(|since| since.elapsed() < AVOIDED)
    }

    async fn missed(&self, peer: PeerId, error: &RequestError) {
        if let Some(fault) = Fault::of(error) {
            self.peers.punish(peer, fault, &error.to_string()).await;
        }
    }

    /// Bytes that fit, of whoever gives them.
    async fn get(&self, from: &Offerers, request: Request, fits: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, Failed> {
        let mut busy = 0;
        loop {
            let peer = from.next().ok_or(Failed::Nothing)?;
            match self.peers.ask(peer, request, PART_TIMEOUT).await {
                Ok(bytes) if fits(&bytes) => {
                    self.peers.answered(&peer);
                    return Ok(bytes);
                }
                Ok(_) => {
                    from.drop(&peer);
                    self.peers.punish(peer, Fault::Part, "other bytes than those of the digest it offered").await;
                }
                Err(
                    RequestError::RateLimited
                    | RequestError::Busy
                    | RequestError::Declined(Decline::RateLimited | Decline::Busy),
                ) if busy < MOST_BUSY => {
                    busy += 1;
                    tokio::time::sleep(BUSY).await;
                }
                Err(error) => {
                    from.drop(&peer);
                    self.missed(peer, &error).await;
                }
            }
        }
    }

    async fn attempt(&self, (height, digest): (u64, Digest), from: &Offerers) -> Result<(), Failed> {
        let bytes = self.get(from, Request::Manifest(digest), |bytes| Digest::of(bytes) == digest).await?;
        let manifest = Manifest::decode(&bytes).map_err(|e| blame(e.into()))?;
        let found = manifest.header.height;
        if found != height {
            let why = format!("it is of height {found}, and was offered as one of {height}");
            return Err(blame(SnapshotError::Manifest(why).into()));
        }
        let trust = self.trust().map_err(Failed::Own)?;
        let import = Importer::start(self.database.clone(), self.genesis.clone(), trust, bytes).map_err(Failed::Own)?;
        let brought = self.bring(&manifest, digest, from, &import).await;
        // Whatever happened, the thread ends, and its folder with it where it is not whole.
        let ended = import.end().await;
        brought?;
        ended.map_err(blame)
    }

    /// Brings the parts to the import, in order.
    async fn bring(
        &self,
        manifest: &Manifest,
        digest: Digest,
        from: &Offerers,
        import: &Importer,
    ) -> Result<(), Failed> {
        let get =
            async |part: Part| self.get(from, Request::Part(digest, part), |bytes| manifest.names(part, bytes)).await;
        let mut parts = Box::pin(stream::iter(manifest.parts()).map(get).buffered(AT_ONCE));
        let (began, mut come) = (Instant::now(), 0);
        while let Some(part) = parts.next().await {
            let bytes = part?;
            // By what has come, not by what is claimed: otherwise a large claim buys a long time.
            come += bytes.len() as u64;
            if began.elapsed() > PATIENCE + Duration::from_secs(come / LEAST_RATE) {
                return Err(Failed::Nothing);
            }
            match import.add(bytes).await {
                Some(added) => added.map_err(blame)?,
                // It has ended, and says why.
                None => break,
            }
        }
        Ok(())
    }

    /// Belief begins with this node's own newest header.
    fn trust(&self) -> Result<Trust, StorageError> {
        let ledger = |e: &dyn std::fmt::Display| StorageError::Ledger(e.to_string());
        let store = |e: perturb_ledger::StoreError| ledger(&e);
        match self.database.newest().map_err(store)? {
            Some((header, _)) if header.height > 0 => {
                let network = self.genesis.network_id();
                let set = query::validators(&self.database).map_err(store)?;
                Trust::header(network, (header.height, header.digest(&network)), &header, set).map_err(|e| ledger(&e))
            }
            _ => Trust::genesis(&self.genesis).map_err(|e| ledger(&e)),
        }
    }
}

/// The snapshots worth fetching, each with those who offered it: what most offer first, of these the
/// highest.
fn worthwhile(at: Position, after: u64, offers: &[(PeerId, Offer)]) -> Vec<((u64, Digest), Vec<PeerId>)> {
    let mut ahead = offers.iter().filter(|(_, o)| o.tip > at.head).peekable();
    // One who says to have the next block is enough to go on by blocks, for as long as that works.
    let pruned = ahead.peek().is_some() && ahead.all(|(_, o)| o.oldest_block > at.head.saturating_add(1));
    let least = match (at.stuck, pruned) {
        (true, _) => at.head,
        // What is nearly there comes by blocks: nobody restarts this node for a few of them.
        (false, true) => at.head.saturating_add(BEHIND.min(after)),
        (false, false) => at.head.saturating_add(after),
    };
    let mut found: BTreeMap<(u64, Digest), Vec<PeerId>> = BTreeMap::new();
    for (peer, offer) in offers {
        if let Some(snapshot) = offer.snapshot.filter(|(height, _)| *height > least) {
            found.entry(snapshot).or_default().push(*peer);
        }
    }
    let mut found: Vec<_> = found.into_iter().rev().collect();
    found.sort_by_key(|(_, offerers)| std::cmp::Reverse(offerers.len()));
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_snapshot_is_worth_it_far_ahead_or_where_nobody_has_the_next_block() {
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        let offer = |tip, oldest_block, height| Offer {
            tip,
            oldest_block,
            snapshot: Some((height, Digest([height as u8; 32]))),
        };
        let of = |head, stuck, offers: &[(PeerId, Offer)]| -> Vec<u64> {
            let at = Position { head, stuck };
            worthwhile(at, 50, offers).iter().map(|((height, _), _)| *height).collect()
        };
        let near = [(peers[0], offer(40, 1, 30)), (peers[1], offer(40, 1, 30))];
        assert!(of(10, false, &near).is_empty(), "blocks are enough");
        assert_eq!(of(10, true, &near), [30], "blocks do not come");
        let far = [(peers[0], offer(140, 1, 100)), (peers[1], offer(140, 1, 120)), (peers[2], offer(140, 1, 60))];
        assert_eq!(of(10, false, &far), [120, 100], "the highest first, and only what is far ahead");
        let most = [(peers[0], offer(140, 1, 100)), (peers[1], offer(999, 1, 255)), (peers[2], offer(140, 1, 100))];
        assert_eq!(of(10, false, &most), [100, 255], "what most offer first");
        let pruned = [(peers[0], offer(40, 20, 30)), (peers[1], offer(5, 1, 4))];
        assert_eq!(of(10, false, &pruned), [30]);
        assert!(of(20, false, &[(peers[0], offer(40, 22, 30))]).is_empty(), "a few blocks are not worth a restart");
        assert_eq!(of(20, true, &[(peers[0], offer(40, 22, 30))]), [30], "unless nothing else works");
        assert!(of(35, true, &pruned).is_empty(), "it is not ahead");
        let one_has = [(peers[0], offer(40, 20, 30)), (peers[1], offer(40, 11, 30))];
        assert!(of(10, false, &one_has).is_empty());
    }
}
