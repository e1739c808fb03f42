//! A validator that fetches blocks over real sockets, from peers most of which lie.

use std::sync::Arc;
use std::time::Duration;

use perturb_chain::{ChainClient, ChainOptions};
use perturb_consensus::wire::{Beacon, MAX_RANGE_BYTES, Request, Response};
use perturb_consensus::{Config, Machine, Planted};
use perturb_ledger::{Certificate, Genesis, Ledger};
use perturb_p2p::{self as p2p, Denial, NetworkEvent, NetworkHandle, Protocol};
use perturb_storage::{Database, SigningGuard};
use perturb_types::{Hotkey, NetworkId, Signed, encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::world::{genesis, history};
use crate::localnet::plan::{Member, Plan};
use crate::metagraph::Metagraph;
use crate::validator::driver::{Disk, Driver, peer_name};
use crate::validator::faults::{Fault, Faults};
use crate::validator::pump;
use crate::validator::snapshots::shelf::Shelf;

/// Blocks of the history: more than one range holds.
const TIP: u64 = 100;

/// How long the whole play may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time between two claims of a peer.
const CLAIM: Duration = Duration::from_millis(200);

pub struct Everybody;

impl p2p::Authority for Everybody {
    fn allows(&self, _: &Hotkey, _: p2p::Role) -> Result<(), Denial> {
        Ok(())
    }
}

/// How a peer answers who asks for blocks.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Real blocks, with certificates of a single signature.
    FewSignatures,
    /// Real certificates under other bodies.
    OtherBodies,
    /// Bytes that mean nothing.
    Noise,
    /// Nothing at all.
    Silent,
}

async fn join(
    member: &Member,
    network: NetworkId,
    known: Vec<p2p::Multiaddr>,
) -> (NetworkHandle, mpsc::Receiver<NetworkEvent>) {
    let mut config = p2p::Config::new(p2p::NetworkKey::generate(), network, p2p::Role::Validator, Arc::new(Everybody));
    config.hotkey = Some(member.hotkey.clone());
    config.dev_loopback = true;
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    config.known_peers = known;
    p2p::Network::start(config).await.unwrap()
}

fn answer(db: &Database, manner: Manner, request: &[u8]) -> Option<Vec<u8>> {
    let Ok(Request::Blocks { from, count }) = encode::decode("request", request, 64) else { return Some(vec![]) };
    match manner {
        Manner::Silent => return None,
        Manner::Noise => return Some(vec![0xA5; 1000]),
        _ => {}
    }
    let mut blocks = db.block_range(from, usize::from(count), MAX_RANGE_BYTES).unwrap();
    for (block, certificate) in &mut blocks {
        match manner {
            Manner::FewSignatures => {
                let mut few: Certificate = encode::decode("certificate", certificate, certificate.len()).unwrap();
                few.signatures.truncate(1);
                *certificate = encode::encode(&few);
            }
            Manner::OtherBodies => {
                let mut other: perturb_ledger::Block = encode::decode("block", block, block.len()).unwrap();
                other.body.parent_certificate =
                    Some(encode::decode("certificate", certificate, certificate.len()).unwrap());
                *block = encode::encode(&other);
            }
            _ => {}
        }
    }
    Some(encode::encode(&Response::range(blocks)))
}

/// A peer that says how far it is, again and again, and answers in its manner.
async fn play(
    plan: Arc<Plan>,
    index: usize,
    manner: Manner,
    genesis: Genesis,
    victim: Vec<p2p::Multiaddr>,
    db: Database,
) {
    let (id, member) = (genesis.network_id(), &plan.validators[index]);
    let (network, mut events) = join(member, id, victim).await;
    let pair = plan.consensus(member);
    let (mut claims, mut sent_ms, mut held) = (tokio::time::interval(CLAIM), 1, Vec::new());
    loop {
        tokio::select! {
            _ = claims.tick() => {
                // Liars claim the most, so that they are asked first.
                let height = if manner == Manner::Honest { TIP } else { 1_000_000 };
                sent_ms += 1;
                let beacon = Beacon { height, peer: peer_name(&network.peer_id()), sent_ms };
                let bytes = encode::encode(Signed::sign(&pair, &id, beacon).envelope());
                // Nobody may be there yet.
                let _ = network.publish(p2p::Topic::Status, bytes).await;
            }
            event = events.recv() => match event {
                None => return,
                Some(NetworkEvent::Gossip(g)) => network.report(g.id, p2p::Verdict::Accept).await.unwrap(),
                Some(NetworkEvent::Request(r)) if r.protocol == Protocol::Sync => match answer(&db, manner, &r.data) {
                    Some(bytes) => r.reply.answer(bytes),
                    None => held.push(r.reply),
                },
                Some(_) => {}
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_come_from_the_honest_peer_and_every_liar_is_caught_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Arc::new(Plan::new(&dir.path().join("net"), 9, 6, 0, 2).unwrap());
    let genesis = genesis(&plan);
    let db = history(&dir.path().join("others"), &plan, &genesis, TIP);
    let root = db.header(TIP).unwrap().unwrap().state_root;

    let (me, id) = (&plan.validators[0], genesis.network_id());
    let mine = history(&dir.path().join("mine"), &plan, &genesis, 0);
    let guard = SigningGuard::open(&mine, plan.consensus(me).public()).unwrap();
    let (network, events) = join(me, id, vec![]).await;
    let config = Config {
        pair: plan.consensus(me),
        peer: peer_name(&network.peer_id()),
        startup_grace_ms: perturb_consensus::STARTUP_GRACE_MS,
        planted: Planted::Nothing,
    };
    let machine = Machine::new(config, Ledger::new(genesis.clone(), mine.clone()).unwrap()).unwrap();
    // No chain: who fetches certified blocks needs none.
    let client = ChainClient::new(&["ws://127.0.0.1:9".into()], ChainOptions::default()).unwrap();
    let stop = CancellationToken::new();
    let metagraph = Metagraph::follow(client, genesis.netuid, 0, None, stop.clone());
    let faults = Arc::new(Faults::default());
    let disk = Disk { database: mine.clone(), guards: vec![guard] };
    let (driver, handle) = Driver::new(machine, disk, metagraph, network.clone(), faults.clone());
    let mut status = handle.status();
    let shelf = Arc::new(Shelf::open(mine.clone(), dir.path().join("shelf")).unwrap());
    tokio::spawn(pump(events, handle.clone(), mine.clone(), shelf, stop.clone()));
    let driver = tokio::spawn(driver.run(stop.clone()));

    let start = |index: usize, manner| {
        tokio::spawn(play(plan.clone(), index, manner, genesis.clone(), network.listen_addrs(), db.clone()));
    };
    for (i, manner) in
        [Manner::FewSignatures, Manner::OtherBodies, Manner::Noise, Manner::Silent].into_iter().enumerate()
    {
        start(i + 2, manner);
    }
    let kinds = [Fault::Certificate, Fault::Block, Fault::Answer, Fault::Silence];
    let counted = || kinds.map(|kind| (kind, faults.counted(kind)));
    let all = async {
        while counted().iter().any(|(_, n)| *n == 0) {
            tokio::time::sleep(CLAIM).await;
        }
    };
    let caught = tokio::time::timeout(PATIENCE, all).await;
    assert!(caught.is_ok(), "{:?}", counted());
    assert_eq!(mine.height().unwrap(), Some(0), "nothing of what they said was taken");
    start(1, Manner::Honest);
    // What is waited for is a read lock: it must be gone before the driver writes again.
    let arrives = async { status.wait_for(|s| s.height == TIP).await.map(drop) };
    let there = tokio::time::timeout(PATIENCE, arrives).await;
    assert!(there.is_ok(), "{:?}", counted());
    assert_eq!(mine.header(TIP).unwrap().unwrap().state_root, root);
    stop.cancel();
    driver.await.unwrap().unwrap();
}
