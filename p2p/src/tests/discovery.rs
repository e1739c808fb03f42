//! Finding each other, losing each other, finding each other again.

use super::*;
use crate::{DownReason, NetError};

async fn bootnode(listen: &str) -> Node {
    let mut config = config(100, Role::Bootnode);
    config.listen = vec![listen.parse().unwrap()];
    Node::start(config).await
}

fn joining(n: u8, role: Role, boot: &Node) -> Config {
    let mut config = config(n, role);
    config.bootnodes = vec![boot.addr()];
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_validators_and_a_miner_find_each_other_knowing_only_the_bootnode() {
    let boot = bootnode(TCP).await;
    let a = Node::start(joining(1, Role::Validator, &boot)).await;
    // Without the peer id in the bootnode's address, too.
    let mut second = joining(2, Role::Validator, &boot);
    second.bootnodes = vec![split_peer(&boot.addr()).0];
    let b = Node::start(second).await;
    let m = Node::start(joining(3, Role::Miner, &boot)).await;
    let info = a.up(b.id()).await;
    assert_eq!((info.role, info.hotkey), (Role::Validator, Some(hotkey(2).hotkey())));
    assert_eq!(b.up(a.id()).await.hotkey, Some(hotkey(1).hotkey()));
    let miner = a.up(m.id()).await;
    assert_eq!((miner.role, miner.hotkey), (Role::Miner, Some(hotkey(3).hotkey())));
    m.up(b.id()).await;
    assert!(a.net.peers().iter().any(|p| p.role == Role::Bootnode));
    assert_eq!(a.net.peer_of(&hotkey(2).hotkey()).unwrap().peer_id, b.id());
    a.metric("the address", |m| m.known_peers == 1).await;
    assert_eq!(a.net.known_peers().await.unwrap(), vec![b.addr()], "validators are looked up, miners are not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_alone_is_enough() {
    let boot = bootnode(QUIC).await;
    let quic = |n, role| {
        let mut config = joining(n, role, &boot);
        config.listen = if role == Role::Miner { vec![] } else { vec![QUIC.parse().unwrap()] };
        config
    };
    let mut a = Node::start(quic(1, Role::Validator)).await;
    let b = Node::start(quic(2, Role::Validator)).await;
    let m = Node::start(quic(3, Role::Miner)).await;
    assert!(a.up(b.id()).await.addr.to_string().contains("quic-v1"));
    m.up(a.id()).await;
    b.publish(Topic::Consensus, b"vote").await;
    assert_eq!(a.gossip().await.data, b"vote");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_outlives_its_bootnode_and_registers_with_it_again() {
    let mut boot = bootnode(TCP).await;
    let boot_addr = boot.addr();
    let mut a = Node::start(joining(1, Role::Validator, &boot)).await;
    let mut b = Node::start(joining(2, Role::Validator, &boot)).await;
    a.up(b.id()).await;
    b.up(a.id()).await;
    // Whoever dialled, both know where to find the other.
    a.metric("the address", |m| m.known_peers == 1).await;
    b.metric("the address", |m| m.known_peers == 1).await;
    boot.net.shutdown().await;
    a.until("the bootnode's end", |e| {
        matches!(e, NetworkEvent::PeerDown { peer, .. } if peer.role == Role::Bootnode).then_some(())
    })
    .await;
    a.publish(Topic::Rounds, b"still here").await;
    assert_eq!(b.gossip().await.data, b"still here");

    // A restarted validator is found by those who remember it, without any bootnode.
    let mut again = config(2, Role::Validator);
    again.listen = vec![split_peer(&b.addr()).0];
    b.net.shutdown().await;
    let why = a
        .until("the validator's end", |e| match e {
            NetworkEvent::PeerDown { why, .. } => Some(why),
            _ => None,
        })
        .await;
    assert_eq!(why, DownReason::Disconnected);
    let b = Node::start(again).await;
    assert_eq!(b.up(a.id()).await.hotkey, Some(hotkey(1).hotkey()));
    a.up(b.id()).await;

    // The bootnode returns empty, at its old address; a newcomer finds who registered again.
    boot = bootnode(&split_peer(&boot_addr).0.to_string()).await;
    let c = Node::start(joining(3, Role::Validator, &boot)).await;
    c.up(a.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remembered_peers_are_enough_to_start_without_a_bootnode() {
    let a = Node::start(config(1, Role::Validator)).await;
    let mut second = config(2, Role::Validator);
    second.known_peers = vec![a.addr()];
    let b = Node::start(second).await;
    b.up(a.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_returns_to_a_validator_that_was_restarted() {
    let a = Node::start(config(1, Role::Validator)).await;
    let mut miner = config(2, Role::Miner);
    miner.known_peers = vec![a.addr()];
    let mut m = Node::start(miner).await;
    a.up(m.id()).await;
    m.up(a.id()).await;
    let mut again = config(1, Role::Validator);
    again.listen = vec![split_peer(&a.addr()).0];
    a.net.shutdown().await;
    m.until("the end", |e| matches!(e, NetworkEvent::PeerDown { .. }).then_some(())).await;
    let a = Node::start(again).await;
    a.up(m.id()).await;
    m.up(a.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_and_a_missing_hotkey_are_told_in_one_line() {
    let a = Node::start(config(1, Role::Validator)).await;
    let mut same = config(2, Role::Validator);
    same.listen = vec![split_peer(&a.addr()).0];
    let error = Network::start(same).await.unwrap_err();
    assert!(matches!(&error, NetError::Listen { .. }), "{error}");
    assert!(error.to_string().contains("cannot listen on /ip4/127.0.0.1/tcp/"));
    let mut quic = config(5, Role::Validator);
    quic.listen = vec![QUIC.parse().unwrap()];
    let q = Node::start(quic.clone()).await;
    quic.listen = vec![split_peer(&q.addr()).0];
    assert!(matches!(Network::start(quic).await, Err(NetError::Listen { .. })));
    let mut bare = config(3, Role::Miner);
    bare.hotkey = None;
    assert!(matches!(Network::start(bare).await, Err(NetError::HotkeyMissing(Role::Miner))));
    let mut nobody = config(4, Role::Miner);
    nobody.known_peers = vec![TCP.parse().unwrap()];
    assert!(matches!(Network::start(nobody).await, Err(NetError::KnownPeer(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bootnode_function_runs_until_it_is_told_to_stop() {
    let (started, handle) = tokio::sync::oneshot::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let boot = config(100, Role::Observer);
    let task = tokio::spawn(crate::bootnode::run(
        boot,
        |net| {
            let _ = started.send(net);
        },
        async {
            let _ = stopped.await;
        },
    ));
    let net = patiently("the start", handle).await.unwrap();
    let mut second = config(1, Role::Validator);
    second.bootnodes = net.listen_addrs();
    let a = Node::start(second).await;
    assert_eq!(a.up(net.peer_id()).await.role, Role::Bootnode);
    stop.send(()).unwrap();
    patiently("the stop", task).await.unwrap().unwrap();
}
