//! A miner that pads its answers, over real sockets, and a store that is full.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use perturb_challenge::pixels::Pixels;
use perturb_ledger::{Ledger, Transaction};
use perturb_p2p::{self as p2p, NetworkEvent, NetworkHandle};
use perturb_storage::{Database, Options, round_cost};
use perturb_types::limits::{MAX_PNG_BYTES, answer_bytes};
use perturb_types::round::AnswerStatement;
use perturb_types::wire::{self, MinerRequest, MinerResponse};
use perturb_types::{ChallengeId, Digest, HotkeyPair, NetworkId, RoundId, RoundOpen, Signed, encode};
use tokio::sync::mpsc;

use super::liars::Everybody;
use super::world::{commit, genesis, history, miner_lot};
use crate::localnet::plan::Plan;
use crate::validator::evidence::{Evidence, Rooms};
use crate::validator::exchange::Asking;
use crate::validator::pending;

const NET: NetworkId = NetworkId([9; 32]);
const SIDE: u32 = 64;
const IMAGE: Digest = Digest([4; 32]);

async fn join(
    role: p2p::Role,
    pair: &HotkeyPair,
    known: Vec<p2p::Multiaddr>,
) -> (NetworkHandle, mpsc::Receiver<NetworkEvent>) {
    let mut config = p2p::Config::new(p2p::NetworkKey::generate(), NET, role, Arc::new(Everybody));
    config.hotkey = Some(pair.clone());
    config.dev_loopback = true;
    if role == p2p::Role::Validator {
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    }
    config.known_peers = known;
    p2p::Network::start(config).await.unwrap()
}

/// A miner with so many bytes as its answer to everything.
async fn play(pair: HotkeyPair, round: RoundId, bytes: usize, known: Vec<p2p::Multiaddr>) {
    let (_network, mut events) = join(p2p::Role::Miner, &pair, known).await;
    let png = vec![0xA5; bytes];
    while let Some(event) = events.recv().await {
        let NetworkEvent::Request(request) = event else { continue };
        let response = match wire::from_cbor("request", &request.data, wire::MAX_MINER_REQUEST_BYTES).unwrap() {
            MinerRequest::Challenge(_) => {
                let statement = AnswerStatement::of(&NET, round, IMAGE, &pair.hotkey(), &Digest::of(&png));
                let bound = statement.sign(&pair, &NET);
                MinerResponse::Announce { commit: bound.commit.0.to_vec(), signature: bound.signature.to_vec() }
            }
            MinerRequest::Fetch { .. } => MinerResponse::Image { png: png.clone() },
            MinerRequest::Offer { .. } | MinerRequest::Handovers { .. } => MinerResponse::Ready,
        };
        request.reply.answer(wire::to_cbor("response", &response).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_pads_its_answers_is_bound_by_them_and_none_of_them_is_read() {
    let pair = |seed: u8| HotkeyPair::from_seed(&[seed; 32]).unwrap();
    let (validator, most) = (pair(1), answer_bytes(SIDE, SIDE));
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(&dir.path().join("net"), 9, 4, 0, 2).unwrap();
    let database = history(&dir.path().join("node"), &plan, &genesis(&plan), 1);
    let round = RoundId { validator: validator.hotkey(), challenge: ChallengeId(0), seq: 7 };
    let (network, mut events) = join(p2p::Role::Validator, &validator, vec![]).await;
    // The old limit; the bound to the byte; one more.
    let miners = [(pair(2), MAX_PNG_BYTES), (pair(3), most), (pair(4), most + 1)];
    let addrs = loop {
        let addrs = network.listen_addrs();
        if !addrs.is_empty() {
            break addrs;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let tasks: Vec<_> =
        miners.iter().map(|(pair, bytes)| tokio::spawn(play(pair.clone(), round, *bytes, addrs.clone()))).collect();
    let pump = tokio::spawn(async move { while events.recv().await.is_some() {} });
    while network.peers().len() < miners.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let challenge = wire::to_cbor("challenge", &challenge(round)).unwrap();
    let deadline = Duration::from_secs(20);
    let asking = Asking { network: &network, database: &database, id: &NET, round, image: IMAGE, answer_bytes: most };
    let mut read = Vec::new();
    for (pair, _) in &miners {
        let peer = network.peer_of(&pair.hotkey());
        let mut outcome = asking.challenge(pair.hotkey(), peer, &challenge, deadline).await;
        assert!(outcome.bound.is_some(), "each is bound by its announcement");
        asking.fetch(&mut outcome).await;
        read.push(outcome.png.map(|png| png.len()));
    }
    assert_eq!(read, [None, Some(most), None]);
    let bytes = network.metrics().responses_in_bytes;
    assert!(bytes < 3 * (most as u64 + 4096), "{bytes} bytes were read");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    pump.abort();
}

fn challenge(round: RoundId) -> MinerRequest {
    MinerRequest::Challenge(Box::new(wire::Challenge { round: round.into(), image: vec![], label: 0 }))
}

#[test]
fn a_round_is_owed_from_before_its_opening_is_agreed_and_without_room_there_is_no_opening() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(&dir.path().join("net"), 9, 4, 0, 2).unwrap();
    let genesis = genesis(&plan);
    let network = genesis.network_id();
    let pixels = Pixels::new(SIDE, SIDE, vec![90; (SIDE * SIDE * 3) as usize]).unwrap();
    let png = pixels.encode_png().unwrap();
    let one = round_cost(png.len(), 2, answer_bytes(SIDE, SIDE));
    drop(history(&dir.path().join("node"), &plan, &genesis, 0));
    // Own room for one round and a half.
    let options = Options { max_image_bytes: 2 * one, ..Options::default() };
    let db = Database::open(&dir.path().join("node"), &network, options).unwrap();
    let mut ledger = Ledger::new(genesis.clone(), db.clone()).unwrap();
    let me = &plan.validators[0];
    let pairs: Vec<_> = plan.validators.iter().map(|v| plan.consensus(v)).collect();
    let evidence = Evidence::new(db.clone(), me.hotkey.hotkey());
    let rooms = Rooms::new(evidence.clone());
    let round = |seq| RoundId { validator: me.hotkey.hotkey(), challenge: ChallengeId(0), seq };
    let open = RoundOpen {
        round: round(0),
        epoch: 0,
        image: Digest::of(&png),
        miners: miner_lot(&genesis, &pairs[0], &round(0)),
        opened_ms: 0,
    };
    let open = Transaction::RoundOpen(Signed::sign(&pairs[0], &network, open).into_envelope());

    let mut room = rooms.before_draw().unwrap();
    rooms.fit(&mut room, &pixels, &png, 2).unwrap();
    room.begin(&round(0), 0, 0);
    assert!(room.keep(&png).unwrap());
    assert_eq!(evidence.pinned().unwrap(), BTreeSet::new());
    let mut second = rooms.before_draw().unwrap();
    assert!(rooms.fit(&mut second, &pixels, &png, 2).is_err(), "one round is in progress");
    assert!(rooms.before_draw().is_err(), "no image is drawn for what has no room");
    drop((room, second));
    // A proposer leaves the opening out for long; the node dies and comes back.
    pending::store(&db, ChallengeId(0), 0, pending::OPEN, &encode::encode(&open)).unwrap();
    for agreed in [false, true] {
        if agreed {
            commit(&mut ledger, &pairs, vec![open.clone()], false);
            db.delete_row(&format!("pending/00000/{:020}/{}", 0, pending::OPEN)).unwrap();
        }
        assert_eq!(evidence.pinned().unwrap(), [round(0)].into());
        evidence.prune().unwrap();
        assert!(db.blob(&Digest::of(&png)).unwrap().is_some());
    }
    // It is never closed: when the state has given it up, its place is free.
    for _ in 0..genesis.parameters.open_round_blocks {
        commit(&mut ledger, &pairs, vec![], false);
    }
    assert_eq!(evidence.pinned().unwrap(), BTreeSet::new());
    let mut room = rooms.before_draw().unwrap();
    rooms.fit(&mut room, &pixels, &png, 2).unwrap();
}
