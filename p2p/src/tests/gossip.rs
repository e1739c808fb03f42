//! Who is heard, and what travels on.

use super::*;
use crate::Verdict;

/// A validator that knows another's address.
async fn friend(n: u8, of: &Node) -> Node {
    let mut config = config(n, Role::Validator);
    config.known_peers = vec![of.addr()];
    Node::start(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_bytes_published_twice_are_delivered_twice() {
    let mut a = Node::start(config(1, Role::Validator)).await;
    let b = friend(2, &a).await;
    for _ in 0..2 {
        b.publish(Topic::Consensus, b"the same vote").await;
        let gossip = a.gossip().await;
        assert_eq!(gossip.data, b"the same vote");
        assert_eq!((gossip.author, gossip.hotkey, gossip.role), (b.id(), Some(hotkey(2).hotkey()), Role::Validator));
        a.net.report(gossip.id, Verdict::Accept).await.unwrap();
    }
    a.metric("both verdicts", |m| m.gossip_accepted == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_accepted_message_travels_on() {
    // A line: the ends know the middle and not each other.
    let mut middle = Node::start(config(1, Role::Validator)).await;
    let a = friend(2, &middle).await;
    let c = friend(3, &middle).await;
    a.up(middle.id()).await;
    c.up(middle.id()).await;
    let verdicts = [(b"one", Verdict::Reject), (b"two", Verdict::Ignore), (b"six", Verdict::Accept)];
    for (data, verdict) in verdicts {
        a.publish(Topic::Rounds, data).await;
        let gossip = middle.gossip().await;
        assert_eq!(gossip.data, data);
        middle.net.report(gossip.id, verdict).await.unwrap();
    }
    // The far end has never met the author: it counts the message and does not blame the relay.
    c.metric("the relayed message", |m| m.gossip_unknown_author == 1).await;
    assert_eq!(middle.net.metrics().gossip_replayed, 0);
    assert_eq!(c.net.metrics().gossip_in, 1, "what was rejected or ignored went no further");
    let m = middle.net.metrics();
    assert_eq!((m.gossip_rejected, m.gossip_ignored, m.gossip_accepted), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_of_four_validators_reaches_the_other_three_once() {
    const EACH: usize = 20;
    let mut boot = config(100, Role::Bootnode);
    boot.listen = vec![TCP.parse().unwrap()];
    let boot = Node::start(boot).await;
    let mut nodes = Vec::new();
    for n in 1..=4 {
        let mut config = config(n, Role::Validator);
        config.bootnodes = vec![boot.addr()];
        nodes.push(Node::start(config).await);
    }
    let ids: Vec<PeerId> = nodes.iter().map(Node::id).collect();
    for (i, node) in nodes.iter().enumerate() {
        for id in ids.iter().filter(|id| **id != ids[i]) {
            node.up(*id).await;
        }
    }
    // A first message may meet peers that have not heard of a subscription: wait until all have.
    for (i, node) in nodes.iter().enumerate() {
        let others = nodes.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, n)| n.net.clone());
        let others: Vec<_> = others.collect();
        let before: Vec<u64> = others.iter().map(|n| n.metrics().gossip_in).collect();
        patiently("all subscriptions", async {
            while others.iter().zip(&before).any(|(n, b)| n.metrics().gossip_in == *b) {
                let _ = node.net.publish(Topic::Status, b"ready?".to_vec()).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    for k in 0..EACH {
        for (i, node) in nodes.iter().enumerate() {
            node.publish(Topic::Rounds, &[i as u8, k as u8]).await;
        }
    }
    for node in &mut nodes {
        let mut seen = std::collections::HashSet::new();
        while seen.len() < 3 * EACH {
            let gossip = node.gossip().await;
            if gossip.topic == Topic::Rounds {
                assert!(seen.insert(gossip.data), "delivered twice");
            }
            node.net.report(gossip.id, Verdict::Accept).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_does_not_listen_loses_gossip_and_no_session() {
    let mut narrow = config(1, Role::Validator);
    narrow.limits.event_queue = 1;
    let mut a = Node::start(narrow).await;
    let b = friend(2, &a).await;
    b.up(a.id()).await;
    // The queue holds the listening address; everything else has to wait or to go.
    for _ in 0..5 {
        b.publish(Topic::Rounds, b"result").await;
    }
    a.metric("the overflow", |m| m.gossip_overflow >= 1).await;
    let busy = b.net.request(a.id(), crate::Protocol::Sync, vec![1], PATIENCE).await;
    assert_eq!(busy, Err(crate::RequestError::Declined(crate::Decline::Busy)));
    let up = a
        .until("the session", |e| match e {
            NetworkEvent::PeerUp(info) => Some(info.peer_id),
            _ => None,
        })
        .await;
    assert_eq!(up, b.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_a_verdict_expires() {
    let mut quick = config(1, Role::Validator);
    quick.timing.verdict = Duration::from_millis(50);
    let mut a = Node::start(quick).await;
    let b = friend(2, &a).await;
    b.publish(Topic::Status, b"hello").await;
    let gossip = a.gossip().await;
    a.metric("the expiry", |m| m.gossip_overflow == 1).await;
    a.net.report(gossip.id, Verdict::Accept).await.unwrap();
    b.publish(Topic::Status, b"again").await;
    a.gossip().await;
    assert_eq!(a.net.metrics().gossip_accepted, 0, "a late verdict does nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_author_that_never_proves_itself_is_rejected_unheard() {
    let mut strict = config(1, Role::Validator);
    strict.timing.handshake = Duration::from_millis(700);
    let mut a = Node::start(strict).await;
    let mut raw = Raw::connect(&config(2, Role::Validator), &a.addr()).await;
    let topic = Topic::Consensus.ident(&NET);
    patiently("a subscriber", async {
        while raw.swarm.behaviour_mut().gossip.as_mut().unwrap().publish(topic.clone(), b"spam".to_vec()).is_err() {
            let _ = tokio::time::timeout(Duration::from_millis(5), raw.swarm.select_next_some()).await;
        }
    })
    .await;
    let net = a.net.clone();
    raw.run_until("the rejection", || net.metrics().gossip_unauthenticated == 1).await;
    assert_eq!(net.metrics().handshakes_timed_out, 1);
    while let Ok(event) = a.events.try_recv() {
        assert!(!matches!(event, NetworkEvent::Gossip(_)), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_author_says_during_its_handshake_is_heard_after_it() {
    let mut a = Node::start(config(1, Role::Validator)).await;
    let mut raw = Raw::connect(&config(2, Role::Validator), &a.addr()).await;
    let topic = Topic::Consensus.ident(&NET);
    patiently("a subscriber", async {
        while raw.swarm.behaviour_mut().gossip.as_mut().unwrap().publish(topic.clone(), b"early".to_vec()).is_err() {
            let _ = tokio::time::timeout(Duration::from_millis(5), raw.swarm.select_next_some()).await;
        }
    })
    .await;
    let net = a.net.clone();
    raw.run_until("the message", || net.metrics().gossip_in == 1).await;
    let nonce = raw.hello().await;
    let proof = raw.side.prove(&raw.peer, nonce);
    assert_eq!(raw.shake(&Request::Prove(proof)).await, Response::Welcome);
    assert_eq!(a.gossip().await.data, b"early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_hears_consensus_and_may_not_speak_it() {
    let a = Node::start(config(1, Role::Validator)).await;
    let mut watching = config(2, Role::Observer);
    watching.known_peers = vec![a.addr()];
    let mut raw = Raw::connect(&watching, &a.addr()).await;
    let nonce = raw.hello().await;
    assert!(nonce != [0; 32]);
    assert_eq!(raw.shake(&Request::Prove(None)).await, Response::Welcome);
    let topic = Topic::Consensus.ident(&NET);
    patiently("a subscriber", async {
        while raw.swarm.behaviour_mut().gossip.as_mut().unwrap().publish(topic.clone(), b"vote".to_vec()).is_err() {
            let _ = tokio::time::timeout(Duration::from_millis(5), raw.swarm.select_next_some()).await;
        }
    })
    .await;
    let net = a.net.clone();
    raw.run_until("the rejection", || net.metrics().gossip_wrong_role == 1).await;
    drop(raw);
    let mut o = Node::start(watching).await;
    o.up(a.id()).await;
    a.publish(Topic::Consensus, b"vote").await;
    assert_eq!(o.gossip().await.data, b"vote");
    assert_eq!(o.net.publish(Topic::Rounds, vec![1]).await, Err(PublishError::NotAllowed(Topic::Rounds)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_author_over_its_rate_is_ignored_and_told_so_at_home() {
    let mut slow = config(1, Role::Validator);
    slow.limits.author_messages_per_s = 1;
    slow.limits.author_burst = 3;
    let mut a = Node::start(slow).await;
    let b = friend(2, &a).await;
    b.publish(Topic::Status, b"first").await;
    a.gossip().await;
    for _ in 0..20 {
        b.publish(Topic::Status, b"more").await;
    }
    a.metric("the excess", |m| m.gossip_rate_limited >= 15).await;
    let mut own = 0;
    for _ in 0..10 {
        own += usize::from(a.net.publish(Topic::Status, vec![1]).await == Err(PublishError::RateLimited));
    }
    assert!(own >= 5, "{own}");
    let big = vec![0; Topic::Status.max_bytes() + 1];
    assert!(matches!(b.net.publish(Topic::Status, big).await, Err(PublishError::TooLarge { .. })));
}
