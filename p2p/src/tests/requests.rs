//! Questions and answers.

use super::*;
use crate::{Decline, RequestError};

const SOON: Duration = Duration::from_secs(20);

/// A validator and a miner that listens nowhere and dialled it.
async fn validator_and_miner() -> (Node, Node) {
    let v = Node::start(config(1, Role::Validator)).await;
    let mut dialling = config(2, Role::Miner);
    dialling.known_peers = vec![v.addr()];
    let m = Node::start(dialling).await;
    v.up(m.id()).await;
    m.up(v.id()).await;
    (v, m)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_challenges_a_miner_that_dialled_out() {
    let (v, mut m) = validator_and_miner().await;
    assert!(m.net.listen_addrs().is_empty());
    let image = vec![0xab; 3_000_000];
    let ask = v.net.request(m.id(), Protocol::Challenge, image.clone(), SOON);
    let answer = async {
        let request = m.request().await;
        assert_eq!((request.protocol, request.peer.hotkey), (Protocol::Challenge, Some(hotkey(1).hotkey())));
        assert_eq!(request.data, image);
        request.reply.answer(b"digest".to_vec());
    };
    let (got, ()) = tokio::join!(ask, answer);
    assert_eq!(got, Ok(b"digest".to_vec()));
    let metrics = v.net.metrics();
    assert_eq!((metrics.requests_out_bytes, metrics.responses_in_bytes), (3_000_000, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversize_requests_and_answers_are_refused() {
    let (v, mut m) = validator_and_miner().await;
    let limit = Protocol::Challenge.max_request_bytes();
    let got = v.net.request(m.id(), Protocol::Challenge, vec![0; limit + 1], SOON).await;
    assert_eq!(got, Err(RequestError::TooLarge { protocol: Protocol::Challenge, size: limit + 1, limit }));
    let ask = v.net.request(m.id(), Protocol::Challenge, vec![0; limit], SOON);
    let answer = async {
        m.request().await.reply.answer(vec![0; Protocol::Challenge.max_response_bytes() + 1]);
    };
    let (got, ()) = tokio::join!(ask, answer);
    assert_eq!(got, Err(RequestError::Declined(Decline::TooLarge)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_longer_than_was_asked_for_is_not_read_and_the_session_stays() {
    let (v, mut m) = validator_and_miner().await;
    let long = vec![0xab; 3_000_000];
    let ask = v.net.request_at_most(m.id(), Protocol::Challenge, vec![1], 20_000, SOON);
    let (got, ()) = tokio::join!(ask, async { m.request().await.reply.answer(long) });
    assert!(matches!(&got, Err(RequestError::Failed(why)) if why.contains("at most 20000")), "{got:?}");
    assert_eq!(v.net.metrics().responses_in_bytes, 0);
    let fits = vec![0xcd; 20_000];
    let ask = v.net.request_at_most(m.id(), Protocol::Challenge, vec![2], 20_000, SOON);
    let (got, ()) = tokio::join!(ask, async { m.request().await.reply.answer(fits.clone()) });
    assert_eq!(got, Ok(fits));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asker_that_is_gone_no_longer_waits() {
    let (v, mut m) = validator_and_miner().await;
    let ask = v.net.request(m.id(), Protocol::Challenge, vec![1], SOON);
    let work = async {
        let request = m.request().await;
        assert!(request.reply.is_open());
        v.net.shutdown().await;
        let left = async {
            while request.reply.is_open() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), left).await.is_ok(), "whoever works for it can stop");
    };
    let (got, ()) = tokio::join!(ask, work);
    assert!(got.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unanswered_or_declined_request_ends() {
    let (v, mut m) = validator_and_miner().await;
    let ask = v.net.request(m.id(), Protocol::Challenge, vec![1], SOON);
    let (got, ()) = tokio::join!(ask, async { drop(m.request().await) });
    assert_eq!(got, Err(RequestError::Declined(Decline::Internal)), "dropped");
    let ask = v.net.request(m.id(), Protocol::Challenge, vec![1], SOON);
    let (got, ()) = tokio::join!(ask, async { m.request().await.reply.decline(Decline::Busy) });
    assert_eq!(got, Err(RequestError::Declined(Decline::Busy)));
    let short = Duration::from_millis(20);
    let got = v.net.request(m.id(), Protocol::Challenge, vec![1], short).await;
    assert_eq!(got, Err(RequestError::Timeout(short)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_ends_the_request() {
    let (v, mut m) = validator_and_miner().await;
    let ask = v.net.request(m.id(), Protocol::Challenge, vec![1], SOON);
    let leave = async {
        let _held = m.request().await;
        m.net.shutdown().await;
    };
    let (got, ()) = tokio::join!(ask, leave);
    assert!(matches!(got, Err(RequestError::Failed(_))), "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_asks_what_its_role_may_not() {
    let (v, m) = validator_and_miner().await;
    for protocol in [Protocol::Sync, Protocol::Challenge, Protocol::Handshake] {
        let got = m.net.request(v.id(), protocol, vec![1], SOON).await;
        assert_eq!(got, Err(RequestError::NotAllowed(protocol)));
    }
    let nobody = NetworkKey::generate().peer_id();
    let got = v.net.request(nobody, Protocol::Sync, vec![1], SOON).await;
    assert_eq!(got, Err(RequestError::NotConnected(nobody)));
    // Without a handshake, whatever the bytes claim.
    let mut raw = Raw::connect(&config(3, Role::Validator), &v.addr()).await;
    assert_eq!(raw.ask(Protocol::Sync, vec![1]).await, Some(Err(Decline::NotAuthorised)));
    assert_eq!(
        raw.ask(Protocol::Snapshot, vec![0; Protocol::Snapshot.max_request_bytes()]).await,
        Some(Err(Decline::NotAuthorised))
    );
    assert_eq!(v.net.metrics().requests_unauthorised, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validators_serve_each_other_within_the_rate() {
    let mut a = Node::start(config(1, Role::Validator)).await;
    let mut friend = config(2, Role::Validator);
    friend.known_peers = vec![a.addr()];
    let b = Node::start(friend).await;
    b.up(a.id()).await;
    let serve = tokio::spawn(async move {
        while let Some(event) = a.events.recv().await {
            if let NetworkEvent::Request(request) = event {
                request.reply.answer(vec![7; 100_000]);
            }
        }
    });
    let id = NetworkKey::from_seed([1; 32]).peer_id();
    let asks = (0..60).map(|_| b.net.request(id, Protocol::Sync, vec![1], SOON));
    let answers = futures::future::join_all(asks).await;
    let served = answers.iter().filter(|a| a.as_ref().is_ok_and(|d| d.len() == 100_000)).count();
    let limited = answers.iter().filter(|a| **a == Err(RequestError::RateLimited)).count();
    assert!(served >= 1 && limited >= 20, "{served} served, {limited} limited");
    serve.abort();
}
