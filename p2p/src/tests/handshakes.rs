//! Forgeries, replays, refusals, bans.

use super::*;
use crate::DownReason;
use crate::handshake::Proof;

fn code(response: Response) -> u8 {
    match response {
        Response::Refused { code, text } => {
            assert!(!text.is_empty());
            code
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_proofs_are_refused_with_their_reason() {
    let mut a = Node::start(config(1, Role::Validator)).await;
    // A peer id for each, or the rate limit would answer.
    let connect = async |n: u8| {
        let config = Config { key: NetworkKey::from_seed([n; 32]), ..config(2, Role::Miner) };
        Raw::connect(&config, &a.addr()).await
    };

    let mut raw = connect(31).await;
    raw.hello().await;
    let forged = Proof { hotkey: hotkey(2).hotkey(), signature: [3; 64] };
    assert_eq!(code(raw.shake(&Request::Prove(Some(forged))).await), 3, "a bad signature");

    let mut raw = connect(32).await;
    let nonce = raw.hello().await;
    let elsewhere = Introducer { own: NetworkKey::from_seed([9; 32]).peer_id(), ..raw.side.clone() };
    let stolen = elsewhere.prove(&raw.peer, nonce);
    assert_eq!(code(raw.shake(&Request::Prove(stolen)).await), 3, "a proof made for another connection");

    let mut raw = connect(33).await;
    assert_eq!(code(raw.shake(&Request::Prove(None)).await), 6, "a proof without a hello");

    let mut raw = connect(34).await;
    raw.hello().await;
    assert_eq!(code(raw.shake(&Request::Prove(None)).await), 5, "a miner without a hotkey");

    let mut raw = connect(35).await;
    let old = raw.hello().await;
    let new = raw.hello().await;
    assert_ne!(old, new, "nonces are fresh");
    let replayed = raw.side.prove(&raw.peer, old);
    assert_eq!(code(raw.shake(&Request::Prove(replayed)).await), 3, "a replayed nonce");

    assert!(matches!(a.refused().await, Refusal::BadSignature { .. }));
    assert_eq!(a.net.metrics().handshakes_refused, 5);
    assert!(a.net.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_good_once() {
    let a = Node::start(config(1, Role::Validator)).await;
    let mut raw = Raw::connect(&config(2, Role::Miner), &a.addr()).await;
    let nonce = raw.hello().await;
    let proof = Request::Prove(raw.side.prove(&raw.peer, nonce));
    assert_eq!(raw.shake(&proof).await, Response::Welcome);
    assert_eq!(code(raw.shake(&proof).await), 6, "the same proof again");
    a.up(raw.side.own).await;
    assert_eq!(a.net.peers().len(), 1, "the session stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_gets_an_answer_or_a_closed_stream() {
    let a = Node::start(config(1, Role::Validator)).await;
    let mut raw = Raw::connect(&config(2, Role::Miner), &a.addr()).await;
    let answer = raw.ask(Protocol::Handshake, vec![0xff; 100]).await.unwrap().unwrap();
    assert_eq!(code(encode::decode("response", &answer, 1024).unwrap()), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_network_is_refused_and_both_sides_say_why() {
    let mut a = Node::start(config(1, Role::Validator)).await;
    let mut foreign = config(2, Role::Validator);
    foreign.network = NetworkId([8; 32]);
    foreign.known_peers = vec![a.addr()];
    let mut b = Node::start(foreign).await;
    assert!(matches!(a.refused().await, Refusal::WrongNetwork { .. }));
    match b.refused().await {
        Refusal::ByRemote { code: 2, text } => assert!(text.contains("wrong network"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_authorised_is_refused_with_the_applications_words() {
    let mut strict = config(1, Role::Validator);
    strict.authority = Arc::new(Deny(vec![hotkey(2).hotkey()]));
    let mut a = Node::start(strict).await;
    let mut stranger = config(2, Role::Miner);
    stranger.known_peers = vec![a.addr()];
    let mut b = Node::start(stranger).await;
    assert!(matches!(a.refused().await, Refusal::NotAuthorised(_)));
    match b.refused().await {
        Refusal::ByRemote { code: 4, text } => assert!(text.ends_with("is not a registered Miner"), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// Allows everybody until told otherwise.
struct Switch(std::sync::atomic::AtomicBool);

impl Authority for Switch {
    fn allows(&self, _: &Hotkey, _: Role) -> Result<(), Denial> {
        match self.0.load(std::sync::atomic::Ordering::SeqCst) {
            true => Ok(()),
            false => Err(Denial("deregistered".into())),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_when_the_hotkey_is_no_longer_authorised() {
    let switch = Arc::new(Switch(true.into()));
    let mut strict = config(1, Role::Validator);
    strict.authority = switch.clone();
    let mut a = Node::start(strict).await;
    let mut miner = config(2, Role::Miner);
    miner.known_peers = vec![a.addr()];
    let b = Node::start(miner).await;
    a.up(b.id()).await;
    switch.0.store(false, std::sync::atomic::Ordering::SeqCst);
    let why = a
        .until("the end", |e| match e {
            NetworkEvent::PeerDown { why, .. } => Some(why),
            _ => None,
        })
        .await;
    assert_eq!(why, DownReason::NoLongerAuthorised("deregistered".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_session_of_a_hotkey_displaces_the_older() {
    let mut a = Node::start(config(1, Role::Validator)).await;
    let miner = |key: u8| {
        let mut config = config(2, Role::Miner);
        config.key = NetworkKey::from_seed([key; 32]);
        config.known_peers = vec![a.addr()];
        config
    };
    let first = Node::start(miner(21)).await;
    let second = miner(22);
    a.up(first.id()).await;
    let second = Node::start(second).await;
    let (down, why) = a
        .until("the displacement", |e| match e {
            NetworkEvent::PeerDown { peer, why } => Some((peer.peer_id, why)),
            _ => None,
        })
        .await;
    assert_eq!((down, why), (first.id(), DownReason::Displaced));
    a.up(second.id()).await;
    assert_eq!(a.net.peers().iter().filter(|p| p.hotkey == Some(hotkey(2).hotkey())).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_meets_its_own_hotkey_and_says_so() {
    let mut a = Node::start(config(1, Role::Validator)).await;
    let mut twin = config(1, Role::Validator);
    twin.key = NetworkKey::from_seed([50; 32]);
    twin.known_peers = vec![a.addr()];
    let mut b = Node::start(twin).await;
    assert_eq!(b.refused().await, Refusal::OwnHotkey(hotkey(1).hotkey()));
    drop(b);
    let mut raw_twin = config(1, Role::Miner);
    raw_twin.key = NetworkKey::from_seed([51; 32]);
    let mut raw = Raw::connect(&raw_twin, &a.addr()).await;
    let request = Request::Hello(raw.side.hello([1; 32]));
    let Response::Hello(hello, _) = raw.shake(&request).await else { panic!("no hello") };
    let proof = raw.side.prove(&raw.peer, hello.nonce);
    assert_eq!(code(raw.shake(&Request::Prove(proof)).await), 10);
    assert_eq!(a.refused().await, Refusal::OwnHotkey(hotkey(1).hotkey()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_hotkey_loses_its_session_and_is_told_why_when_it_returns() {
    let mut a = Node::start(config(1, Role::Validator)).await;
    let mut miner = config(2, Role::Miner);
    miner.known_peers = vec![a.addr()];
    let mut b = Node::start(miner).await;
    a.up(b.id()).await;
    a.net.ban(hotkey(2).hotkey(), Duration::from_secs(60), "forged answers").await.unwrap();
    let why = a
        .until("the end", |e| match e {
            NetworkEvent::PeerDown { why, .. } => Some(why),
            _ => None,
        })
        .await;
    assert_eq!(why, DownReason::Banned("forged answers".into()));
    match b.refused().await {
        Refusal::ByRemote { code: 7, text } => assert!(text.contains("forged answers"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_failures_ban_the_peer() {
    let mut strict = config(1, Role::Validator);
    strict.limits.failures_to_ban = 3;
    let a = Node::start(strict).await;
    let forger = config(2, Role::Miner);
    for _ in 0..3 {
        let mut raw = Raw::connect(&forger, &a.addr()).await;
        raw.hello().await;
        let forged = Proof { hotkey: hotkey(3).hotkey(), signature: [3; 64] };
        // The last answer may be cut off by the ban.
        let bytes = encode::encode(&Request::Prove(Some(forged)));
        raw.ask(Protocol::Handshake, bytes).await;
    }
    a.metric("the ban", |m| m.bans_imposed == 1 && m.bans == 1).await;
    // The hotkey that was claimed has done nothing.
    let mut innocent = config(3, Role::Miner);
    innocent.known_peers = vec![a.addr()];
    let c = Node::start(innocent).await;
    c.up(a.id()).await;
}
