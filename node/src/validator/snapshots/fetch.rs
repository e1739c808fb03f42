//! Fetching a snapshot from peers, none of which is trusted.
//!
//! 1. All validators are asked what they hold. Only what is far ahead counts, or what is ahead while
//!    nobody holds the next block any more.
//! 2. Offers are tried from the highest on. The manifest and each part are asked of those who offered
//!    it, some parts at once; bytes that are not those of the digest cost who sent them its session,
//!    and the part is asked of another.
//! 3. The import proves each part in its turn, in a thread of its own (storage): a snapshot that does
//!    not lead to the certified state is thrown away, with everybody who offered it.
//!
//! What belief begins with is this node's own newest header, so that a snapshot continues the history
//! that this node has seen.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use perturb_ledger::snapshot::{MAX_OFFER_BYTES, Manifest, Offer, Part, Request, SnapshotError};
use perturb_ledger::{Genesis, StateStore, Trust, query};
use perturb_p2p::{Decline, NetworkHandle, PeerId, Protocol, RequestError, Role};
use perturb_storage::{Database, Import, StorageError};
use perturb_types::{Digest, encode};
use tokio::sync::{mpsc, oneshot};

use crate::validator::faults::{Fault, Faults};

/// Peers asked for offers: any of them may have what the others have.
const MAX_ASKED: usize = 32;

/// How long an offer may take.
const OFFER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a part may take: some megabytes over a thin line.
const PART_TIMEOUT: Duration = Duration::from_secs(30);

/// Parts under way at once.
const AT_ONCE: usize = 4;

/// A peer that is busy is asked again after this, and at most [`MOST_BUSY`] times for a part.
const BUSY: Duration = Duration::from_millis(250);

/// See [`BUSY`].
const MOST_BUSY: u32 = 40;

/// The peers, as the fetcher sees them.
pub trait Peers: Send + Sync + 'static {
    /// Connected validators.
    fn all(&self) -> Vec<PeerId>;

    /// Asks one.
    fn ask(
        &self,
        peer: PeerId,
        request: Request,
        timeout: Duration,
    ) -> impl Future<Output = Result<Vec<u8>, RequestError>> + Send;

    /// It did wrong.
    fn punish(&self, peer: PeerId, fault: Fault, why: &str) -> impl Future<Output = ()> + Send;

    /// It answered.
    fn answered(&self, peer: &PeerId);
}

/// The network's peers, and where their faults are counted.
pub struct Connected {
    /// The network.
    pub network: NetworkHandle,
    /// The counters.
    pub faults: Arc<Faults>,
}

impl Peers for Connected {
    fn all(&self) -> Vec<PeerId> {
        self.network.peers().iter().filter(|p| p.role == Role::Validator).map(|p| p.peer_id).collect()
    }

    async fn ask(&self, peer: PeerId, request: Request, timeout: Duration) -> Result<Vec<u8>, RequestError> {
        self.network.request(peer, Protocol::Snapshot, encode::encode(&request), timeout).await
    }

    async fn punish(&self, peer: PeerId, fault: Fault, why: &str) {
        self.faults.punish(&self.network, peer, fault, why).await;
    }

    fn answered(&self, peer: &PeerId) {
        self.faults.answered(peer);
    }
}

/// Fetches snapshots into the place beside a database.
pub struct Fetcher<P> {
    peers: Arc<P>,
    database: Database,
    genesis: Genesis,
    after: u64,
}

/// Why an offer came to nothing.
enum Failed {
    /// Nobody is left who gives the next part.
    Nobody,
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

/// The thread that imports.
struct Importer {
    parts: mpsc::Sender<(Vec<u8>, oneshot::Sender<Result<(), StorageError>>)>,
    ended: oneshot::Receiver<Result<(), StorageError>>,
}

impl Importer {
    /// Begins; an import belongs to one thread.
    fn start(database: Database, genesis: Genesis, trust: Trust, manifest: Vec<u8>) -> Result<Self, StorageError> {
        let (parts, mut given) = mpsc::channel::<(Vec<u8>, oneshot::Sender<Result<(), StorageError>>)>(1);
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
            if import.wanted().is_some() { import.cancel() } else { import.seal() }
        };
        std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || drop(end.send(work())))
            .map_err(|source| StorageError::Io { path: "thread".into(), source })?;
        Ok(Self { parts, ended })
    }

    /// Hands over the next part. `None`: the import has ended, see [`Importer::end`].
    async fn add(&self, bytes: Vec<u8>) -> Option<Result<(), StorageError>> {
        let (reply, added) = oneshot::channel();
        self.parts.send((bytes, reply)).await.ok()?;
        added.await.ok()
    }

    /// Ends it, whole or not.
    async fn end(self) -> Result<(), StorageError> {
        drop(self.parts);
        let gone = || StorageError::Ledger("the import ended unexpectedly".into());
        self.ended.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn blame(error: StorageError) -> Failed {
    match &error {
        StorageError::Snapshot(e) if e.blames_manifest() => Failed::Lie(error),
        _ => Failed::Own(error),
    }
}

impl<P: Peers> Fetcher<P> {
    /// Snapshots count from `after` blocks ahead of this node on.
    pub fn new(peers: Arc<P>, database: Database, genesis: Genesis, after: u64) -> Self {
        Self { peers, database, genesis, after }
    }

    /// Imports a snapshot where one is needed and can be had; gives its height.
    ///
    /// # Errors
    /// This node's own disk.
    pub async fn fetch(&self, head: u64) -> Result<Option<u64>, StorageError> {
        let offers = self.offers().await;
        for ((height, digest), offerers) in worthwhile(head, self.after, &offers) {
            tracing::info!(height, %digest, offered_by = offerers.len(), "this node is far behind: fetching a snapshot");
            match self.attempt((height, digest), &Offerers::new(&offerers)).await {
                Ok(()) => return Ok(Some(height)),
                Err(Failed::Nobody) => tracing::warn!(height, "nobody gives all of the snapshot"),
                Err(Failed::Own(error)) => return Err(error),
                Err(Failed::Lie(error)) => {
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
        let peers = self.peers.all().into_iter().take(MAX_ASKED);
        stream::iter(peers).map(ask).buffer_unordered(MAX_ASKED).filter_map(async |o| o).collect().await
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
            let peer = from.next().ok_or(Failed::Nobody)?;
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
        let manifest = &manifest;
        let get =
            async |part: Part| self.get(from, Request::Part(digest, part), |bytes| manifest.names(part, bytes)).await;
        let mut parts = Box::pin(stream::iter(manifest.parts()).map(get).buffered(AT_ONCE));
        while let Some(part) = parts.next().await {
            let bytes = match part {
                Ok(bytes) => bytes,
                Err(failed) => {
                    import.end().await.map_err(Failed::Own)?;
                    return Err(failed);
                }
            };
            match import.add(bytes).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    import.end().await.map_err(Failed::Own)?;
                    return Err(blame(error));
                }
                None => break,
            }
        }
        import.end().await.map_err(blame)
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

/// The snapshots worth fetching, highest first, each with those who offered it.
fn worthwhile(head: u64, after: u64, offers: &[(PeerId, Offer)]) -> Vec<((u64, Digest), Vec<PeerId>)> {
    let mut ahead = offers.iter().filter(|(_, o)| o.tip > head).peekable();
    // One who says that it has the next block is enough to go on by blocks.
    let pruned = ahead.peek().is_some() && ahead.all(|(_, o)| o.oldest_block > head.saturating_add(1));
    let least = if pruned { head } else { head.saturating_add(after) };
    let mut found: BTreeMap<(u64, Digest), Vec<PeerId>> = BTreeMap::new();
    for (peer, offer) in offers {
        if let Some(snapshot) = offer.snapshot.filter(|(height, _)| *height > least) {
            found.entry(snapshot).or_default().push(*peer);
        }
    }
    found.into_iter().rev().collect()
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
        let of = |head, offers: &[(PeerId, Offer)]| -> Vec<u64> {
            worthwhile(head, 50, offers).iter().map(|((height, _), _)| *height).collect()
        };
        let near = [(peers[0], offer(40, 1, 30)), (peers[1], offer(40, 1, 30))];
        assert!(of(10, &near).is_empty(), "blocks are enough");
        let far = [(peers[0], offer(140, 1, 100)), (peers[1], offer(140, 1, 120)), (peers[2], offer(140, 1, 60))];
        assert_eq!(of(10, &far), [120, 100], "the highest first, and only what is far ahead");
        let pruned = [(peers[0], offer(40, 20, 30)), (peers[1], offer(5, 1, 4))];
        assert_eq!(of(10, &pruned), [30]);
        assert!(of(35, &pruned).is_empty(), "it is not ahead");
        let one_has = [(peers[0], offer(40, 20, 30)), (peers[1], offer(40, 11, 30))];
        assert!(of(10, &one_has).is_empty());
    }
}
