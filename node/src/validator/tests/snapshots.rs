//! A node far behind among peers that lie in every way, and one that does not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use perturb_consensus::Status;
use perturb_ledger::Genesis;
use perturb_ledger::snapshot::{Chunk, ChunkLimits, Manifest, Offer, Part, PartInfo, Request};
use perturb_p2p::{Decline, PeerId, RequestError};
use perturb_storage::{Database, Options, Retention};
use perturb_types::{Digest, encode};
use tokio_util::sync::CancellationToken;

use super::world::{genesis, history};
use crate::localnet::plan::Plan;
use crate::validator::faults::Fault;
use crate::validator::snapshots::fetch::{Fetcher, Position};
use crate::validator::snapshots::keep;
use crate::validator::snapshots::peers::Peers;
use crate::validator::snapshots::shelf::Shelf;

/// Blocks of the history.
const TIP: u64 = 8;

struct World {
    dir: tempfile::TempDir,
    plan: Plan,
    genesis: Genesis,
    shelf: Arc<Shelf>,
    /// Where it says that the state ended.
    root: Digest,
    manifest: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(&dir.path().join("net"), 7, 1, 0, 6).unwrap();
        let genesis = genesis(&plan);
        let db = history(&dir.path().join("ahead"), &plan, &genesis, TIP);
        let folder = dir.path().join("shelf").join(format!("{TIP:020}"));
        std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
        let made = db.export_in_chunks(TIP, &folder, ChunkLimits { bytes: 100, rows: 3 }).unwrap();
        assert!(made.chunks > 4, "{} chunks", made.chunks);
        let root = db.header(TIP).unwrap().unwrap().state_root;
        let manifest = std::fs::read(folder.join("manifest")).unwrap();
        let shelf = Arc::new(Shelf::open(db, dir.path().join("shelf")).unwrap());
        Self { dir, plan, genesis, shelf, root, manifest }
    }

    /// A node that has come to a height.
    fn behind(&self, height: u64) -> Database {
        history(&self.dir.path().join("behind"), &self.plan, &self.genesis, height)
    }

    fn reopen(&self) -> Database {
        Database::open(&self.dir.path().join("behind"), &self.genesis.network_id(), Options::default()).unwrap()
    }

    /// The honest manifest with something changed, and what its parts then are.
    fn lie(&self, change: impl FnOnce(&mut Manifest, &mut BTreeMap<Part, Vec<u8>>)) -> Behaviour {
        let mut manifest = Manifest::decode(&self.manifest).unwrap();
        let digest = Digest::of(&self.manifest);
        let part = |part| (part, self.shelf.answer(&encode::encode(&Request::Part(digest, part))).unwrap());
        let mut parts: BTreeMap<_, _> = manifest.parts().map(part).collect();
        change(&mut manifest, &mut parts);
        let height = manifest.header.height;
        Behaviour::Lies { height, manifest: encode::encode(&manifest), parts }
    }
}

enum Behaviour {
    Honest,
    /// Busy so many times.
    Busy(Mutex<u32>),
    Silent,
    Endless,
    /// An offer that cannot be read.
    Garbage,
    /// Offers what the honest do, and gives other bytes.
    OtherBytes,
    /// Offers what the honest do as if it were higher.
    Higher,
    /// Offers, and gives nothing.
    Withholds,
    /// A snapshot of its own making.
    Lies {
        height: u64,
        manifest: Vec<u8>,
        parts: BTreeMap<Part, Vec<u8>>,
    },
}

struct Cast {
    shelf: Arc<Shelf>,
    peers: Vec<(PeerId, Behaviour)>,
    punished: Mutex<Vec<(usize, Fault)>>,
    /// Requests so far.
    asked: AtomicU32,
}

impl Cast {
    fn new(world: &World, peers: Vec<(PeerId, Behaviour)>) -> Self {
        Self { shelf: world.shelf.clone(), peers, punished: Mutex::default(), asked: AtomicU32::new(0) }
    }

    fn index(&self, peer: &PeerId) -> usize {
        self.peers.iter().position(|(p, _)| p == peer).unwrap()
    }
}

impl Peers for Cast {
    fn all(&self) -> Vec<PeerId> {
        self.peers.iter().map(|(p, _)| *p).collect()
    }

    async fn ask(&self, peer: PeerId, request: Request, timeout: Duration) -> Result<Vec<u8>, RequestError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let honest = || self.shelf.answer(&encode::encode(&request)).map_err(RequestError::Declined);
        let offer = |height, digest| Offer { tip: height, oldest_block: 1, snapshot: Some((height, digest)) };
        let offered = || encode::decode::<Offer>("offer", &honest().unwrap(), 64).unwrap();
        match &self.peers[self.index(&peer)].1 {
            Behaviour::Honest => honest(),
            Behaviour::Busy(left) => {
                let mut left = left.lock().unwrap();
                if *left == 0 {
                    return honest();
                }
                *left -= 1;
                Err(RequestError::Declined(Decline::Busy))
            }
            Behaviour::Silent => Err(RequestError::Timeout(timeout)),
            Behaviour::Endless => Err(RequestError::Failed("the answer is over the limit".into())),
            Behaviour::Garbage => Ok(vec![9; 60]),
            Behaviour::OtherBytes => {
                let mut bytes = honest()?;
                if matches!(request, Request::Part(..)) {
                    *bytes.last_mut().unwrap() ^= 1;
                }
                Ok(bytes)
            }
            Behaviour::Higher => match request {
                Request::Offer => {
                    let snapshot = offered().snapshot.map(|(height, digest)| (height + 1000, digest));
                    Ok(encode::encode(&Offer { tip: u64::MAX, oldest_block: u64::MAX, snapshot }))
                }
                _ => honest(),
            },
            Behaviour::Withholds => match request {
                Request::Part(..) => Err(RequestError::Declined(Decline::NotFound)),
                _ => honest(),
            },
            Behaviour::Lies { height, manifest, parts } => match request {
                Request::Offer => Ok(encode::encode(&offer(*height, Digest::of(manifest)))),
                Request::Manifest(_) => Ok(manifest.clone()),
                Request::Part(_, part) => parts.get(&part).cloned().ok_or(RequestError::Declined(Decline::NotFound)),
            },
        }
    }

    async fn punish(&self, peer: PeerId, fault: Fault, why: &str) {
        assert!(!why.is_empty());
        self.punished.lock().unwrap().push((self.index(&peer), fault));
    }

    fn answered(&self, _: &PeerId) {}
}

async fn fetched(world: &World, db: &Database, after: u64, cast: Vec<Behaviour>) -> (Option<u64>, Vec<(usize, Fault)>) {
    let peers = cast.into_iter().map(|b| (PeerId::random(), b)).collect();
    let cast = Arc::new(Cast::new(world, peers));
    let head = db.height().unwrap().unwrap();
    let found = Fetcher::new(cast.clone(), db.clone(), world.genesis.clone(), after)
        .fetch(Position { head, stuck: false })
        .await
        .unwrap();
    let mut punished = std::mem::take(&mut *cast.punished.lock().unwrap());
    punished.sort_by_key(|(peer, _)| *peer);
    (found, punished)
}

#[tokio::test]
async fn among_liars_of_every_kind_the_state_that_comes_is_the_certified_one() {
    let world = World::new();
    let db = world.behind(2);
    db.put_row("mine", &7u64).unwrap();
    let altered = world.lie(|manifest, parts| {
        // A row of the second chunk says something else, and the manifest names it so.
        let bytes = parts.get_mut(&Part::Chunk(1)).unwrap();
        let mut chunk: Chunk = encode::decode("chunk", bytes, bytes.len()).unwrap();
        chunk.rows[0].1.push(1);
        *bytes = encode::encode(&chunk);
        manifest.chunks[1].bytes = bytes.len() as u32;
        manifest.chunks[1].digest = Digest::of(bytes);
    });
    let forged = world.lie(|manifest, _| {
        // A state nobody certified, under somebody else's signatures.
        manifest.header.height += 5;
        manifest.header.state_root = Digest([6; 32]);
    });
    let other_block = world.lie(|manifest, parts| {
        let bytes = parts.get_mut(&Part::Block).unwrap();
        bytes.push(0);
        manifest.block = PartInfo::of(0, bytes);
    });
    let short = world.lie(|manifest, _| manifest.chunks.truncate(3));
    let empty = world.lie(|manifest, _| manifest.chunks.clear());
    let cast = vec![
        altered,
        forged,
        other_block,
        short,
        empty,
        Behaviour::Silent,
        Behaviour::Endless,
        Behaviour::Garbage,
        Behaviour::OtherBytes,
        Behaviour::Higher,
        Behaviour::Withholds,
        Behaviour::Busy(Mutex::new(1)),
        Behaviour::Honest,
    ];
    let (found, punished) = fetched(&world, &db, 3, cast).await;
    assert_eq!(found, Some(TIP), "{punished:?}");
    let of = |peer| -> Vec<Fault> { punished.iter().filter(|(p, _)| *p == peer).map(|(_, f)| *f).collect() };
    assert_eq!((of(5), of(6), of(7)), (vec![Fault::Silence], vec![Fault::Broken], vec![Fault::Answer]));
    // What most offer is tried first, and that is the truth: no other lie was even asked for.
    for peer in [0, 1, 2, 3, 4, 9, 10, 11, 12] {
        assert!(of(peer).is_empty(), "{peer}: {:?}", of(peer));
    }
    assert!(of(8).is_empty() || of(8) == [Fault::Part]);
    drop(db);
    let db = world.reopen();
    assert_eq!(db.header(TIP).unwrap().unwrap().state_root, world.root);
    db.check(&world.genesis, |_| {}).unwrap();
    assert_eq!(db.row::<u64>("mine").unwrap(), Some(7), "what the node knows besides comes along");
    assert_eq!(db.oldest().unwrap().block, TIP);
}

#[tokio::test]
async fn each_lie_is_caught_where_nobody_tells_the_truth() {
    let world = World::new();
    let db = world.behind(0);
    let lies = [
        world.lie(|m, _| m.header.state_root = Digest([6; 32])),
        world.lie(|m, _| m.certificate.signatures.clear()),
        world.lie(|m, _| m.chunks.truncate(3)),
        world.lie(|m, _| m.chunks.reverse()),
        world.lie(|m, _| m.chunks[0].rows += 1),
        world.lie(|m, parts| {
            let bytes = parts.get_mut(&Part::Chunk(2)).unwrap();
            let mut chunk: Chunk = encode::decode("chunk", bytes, bytes.len()).unwrap();
            chunk.rows.pop();
            *bytes = encode::encode(&chunk);
            (m.chunks[2].bytes, m.chunks[2].digest) = (bytes.len() as u32, Digest::of(bytes));
        }),
    ];
    let forged = world.lie(|m, _| {
        m.header.height += 5;
        m.header.state_root = Digest([6; 32]);
    });
    for (i, lie) in lies.into_iter().chain([forged, Behaviour::Higher]).enumerate() {
        let (found, punished) = fetched(&world, &db, 3, vec![lie]).await;
        assert_eq!((found, punished), (None, vec![(0, Fault::Snapshot)]), "lie {i}");
    }
    let (found, punished) = fetched(&world, &db, 3, vec![Behaviour::OtherBytes, Behaviour::Withholds]).await;
    assert_eq!((found, punished), (None, vec![(0, Fault::Part)]));
    let (found, punished) = fetched(&world, &db, 3, vec![]).await;
    assert_eq!((found, punished), (None, vec![]));
    // Nothing of all that has touched the database, and the truth is still welcome.
    db.check(&world.genesis, |_| {}).unwrap();
    let (found, _) = fetched(&world, &db, 3, vec![Behaviour::Honest]).await;
    assert_eq!(found, Some(TIP));
}

#[tokio::test]
async fn who_is_not_far_behind_or_already_there_fetches_nothing() {
    let world = World::new();
    let db = world.behind(6);
    let (found, punished) = fetched(&world, &db, 3, vec![Behaviour::Honest]).await;
    assert_eq!((found, punished), (None, vec![]));
    let (found, _) = fetched(&world, &db, 1, vec![Behaviour::Honest]).await;
    assert_eq!(found, Some(TIP));
    // The node went on by itself before the next start: what waits is thrown away.
    let (plan, genesis) = (&world.plan, &world.genesis);
    drop(db);
    std::fs::rename(world.dir.path().join("behind/database.ready"), world.dir.path().join("ready")).unwrap();
    std::fs::remove_dir_all(world.dir.path().join("behind/database")).unwrap();
    drop(history(&world.dir.path().join("behind"), plan, genesis, TIP));
    std::fs::rename(world.dir.path().join("ready"), world.dir.path().join("behind/database.ready")).unwrap();
    let db = world.reopen();
    assert_eq!(db.oldest().unwrap().block, 0, "it has all its blocks");
    assert!(!world.dir.path().join("behind/database.ready").exists());
}

#[tokio::test]
async fn whose_offer_came_to_nothing_is_not_asked_again_for_a_while() {
    let world = World::new();
    let db = world.behind(0);
    let peers = vec![(PeerId::random(), Behaviour::Withholds)];
    let cast = Arc::new(Cast::new(&world, peers));
    let fetcher = Fetcher::new(cast.clone(), db, world.genesis.clone(), 3);
    let at = Position { head: 0, stuck: false };
    assert_eq!(fetcher.fetch(at).await.unwrap(), None);
    let asked = cast.asked.load(Ordering::Relaxed);
    assert!(asked > 2, "an offer, a manifest, and a part");
    assert_eq!(fetcher.fetch(at).await.unwrap(), None);
    assert_eq!(cast.asked.load(Ordering::Relaxed), asked);
}

#[test]
fn the_shelf_answers_what_it_holds_and_declines_the_rest() {
    let world = World::new();
    let ask = |request: &Request| world.shelf.answer(&encode::encode(request));
    let digest = Digest::of(&world.manifest);
    let offer: Offer = encode::decode("offer", &ask(&Request::Offer).unwrap(), 64).unwrap();
    assert_eq!(offer, Offer { tip: TIP, oldest_block: 1, snapshot: Some((TIP, digest)) });
    assert_eq!(ask(&Request::Manifest(digest)).unwrap(), world.manifest);
    assert_eq!(ask(&Request::Manifest(Digest([0; 32]))), Err(Decline::NotFound));
    assert_eq!(ask(&Request::Part(digest, Part::Chunk(u32::MAX))), Err(Decline::NotFound));
    assert_eq!(ask(&Request::Part(digest, Part::Handovers(0))), Err(Decline::NotFound));
    assert_eq!(ask(&Request::Part(Digest([0; 32]), Part::Block)), Err(Decline::NotFound));
    assert_eq!(world.shelf.answer(&[9]), Err(Decline::Malformed));
    assert_eq!(world.shelf.answer(&[0; 100]), Err(Decline::Malformed));
}

/// A node that halts says why: the parts beside the machine do not complain first.
#[tokio::test]
async fn the_end_of_the_machine_is_no_failure_of_the_shelf() {
    let world = World::new();
    let (machine, status) = tokio::sync::watch::channel(Status::default());
    drop(machine);
    keep(world.shelf.clone(), Retention::default(), status, CancellationToken::new()).await.unwrap();
}
