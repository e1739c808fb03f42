//! The client against a pretended node: only what connecting needs, so that it can misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;

use jsonrpsee::server::{RpcModule, ServerBuilder, ServerHandle};

use super::*;

const GENESIS: [u8; 32] = [0x11; 32];
const HEAD: [u8; 32] = [0x22; 32];

fn text(hash: [u8; 32]) -> String {
    BlockHash(hash).to_string()
}

/// A node that knows two blocks: 0 and a finalized head at 5. With `deaf`, it takes the question
/// for the head and never answers.
async fn node(address: &str, genesis: [u8; 32], deaf: bool) -> (SocketAddr, ServerHandle) {
    let mut module = RpcModule::new(());
    module.register_method("chain_getBlockHash", move |_, _, _| text(genesis)).unwrap();
    module
        .register_async_method("chain_getFinalizedHead", move |_, _, _| async move {
            if deaf {
                std::future::pending::<()>().await;
            }
            text(HEAD)
        })
        .unwrap();
    module
        .register_method("chain_getHeader", |_, _, _| {
            let zero = text([0; 32]);
            serde_json::json!({"parentHash": zero, "number": "0x5", "stateRoot": zero, "extrinsicsRoot": zero, "digest": {"logs": []}})
        })
        .unwrap();
    // A port that was just in use may take a moment to be free.
    let server = loop {
        match ServerBuilder::default().build(address).await {
            Ok(server) => break server,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    (server.local_addr().unwrap(), server.start(module))
}

async fn stop(handle: ServerHandle) {
    handle.stop().unwrap();
    handle.stopped().await;
}

fn options() -> ChainOptions {
    ChainOptions { request_timeout_ms: 1_000, ..ChainOptions::default() }
}

/// Asks until it succeeds; the client's own backoff paces it.
async fn until_ok(client: &ChainClient) -> (u64, BlockHash) {
    loop {
        match client.finalized().await {
            Ok(head) => return head,
            Err(_) => tokio::time::sleep(client.retry_in().await).await,
        }
    }
}

#[tokio::test]
async fn it_reads_the_head_and_works_again_after_the_node_was_away() {
    let (address, handle) = node("127.0.0.1:0", GENESIS, false).await;
    let url = format!("ws://{address}");
    let client = ChainClient::connect_with(std::slice::from_ref(&url), options()).await.unwrap();
    assert_eq!(client.genesis_hash().await.unwrap(), BlockHash(GENESIS));
    assert_eq!(client.finalized().await.unwrap(), (5, BlockHash(HEAD)));
    assert_eq!(client.finalized_on_chain(6).await.unwrap(), None);
    assert!(client.is_finalized(5, BlockHash(HEAD)).await.unwrap());
    assert!(!client.is_finalized(5, BlockHash(GENESIS)).await.unwrap());

    stop(handle).await;
    let error = loop {
        // The client may need a moment to see that the socket was closed.
        if let Err(e) = client.finalized().await {
            break e;
        }
    };
    assert!(error.is_retryable() && error.to_string().contains(&url), "{error}");

    let (_, handle) = node(&address.to_string(), GENESIS, false).await;
    assert_eq!(until_ok(&client).await, (5, BlockHash(HEAD)));
    stop(handle).await;
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused_on_reconnect_until_the_right_one_is_back() {
    let (address, handle) = node("127.0.0.1:0", GENESIS, false).await;
    let client = ChainClient::connect_with(&[format!("ws://{address}")], options()).await.unwrap();
    stop(handle).await;

    let (_, handle) = node(&address.to_string(), [0x99; 32], false).await;
    let error = loop {
        match client.finalized().await {
            Err(e @ ChainError::WrongGenesis { .. }) => break e,
            Err(_) => tokio::time::sleep(client.retry_in().await).await,
            Ok(_) => tokio::task::yield_now().await,
        }
    };
    assert!(error.to_string().contains(&text([0x99; 32])), "{error}");
    stop(handle).await;

    let (_, handle) = node(&address.to_string(), GENESIS, false).await;
    assert_eq!(until_ok(&client).await, (5, BlockHash(HEAD)));
    stop(handle).await;
}

#[tokio::test]
async fn the_genesis_of_the_options_is_insisted_on() {
    let (address, handle) = node("127.0.0.1:0", GENESIS, false).await;
    let options = ChainOptions { expected_genesis: Some(BlockHash([0x77; 32])), ..options() };
    let refused = ChainClient::connect_with(&[format!("ws://{address}")], options).await.unwrap_err();
    assert!(matches!(refused, ChainError::WrongGenesis { .. }), "{refused}");
    stop(handle).await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_costs_the_request_timeout_and_no_more() {
    let (address, handle) = node("127.0.0.1:0", GENESIS, true).await;
    let client = ChainClient::connect_with(&[format!("ws://{address}")], options()).await.unwrap();
    let started = Instant::now();
    let error = client.finalized().await.unwrap_err();
    assert!(matches!(error, ChainError::Timeout { after_ms: 1_000, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    drop(handle);
}

#[tokio::test]
async fn the_next_endpoint_is_used_when_the_first_does_not_answer() {
    let (address, handle) = node("127.0.0.1:0", GENESIS, false).await;
    let endpoints = ["ws://127.0.0.1:9".to_owned(), format!("ws://{address}")];
    let client = ChainClient::connect_with(&endpoints, options()).await.unwrap();
    assert_eq!(client.finalized().await.unwrap(), (5, BlockHash(HEAD)));
    stop(handle).await;
}

#[test]
fn the_wait_doubles_to_a_cap_with_at_most_half_on_top() {
    assert_eq!(backoff(1, 0), Duration::from_millis(250));
    assert_eq!(backoff(2, 0), Duration::from_millis(500));
    assert_eq!(backoff(5, 0), Duration::from_millis(4_000));
    assert_eq!(backoff(6, 0), Duration::from_millis(5_000));
    assert_eq!(backoff(u32::MAX, u16::MAX).as_millis(), 5_000 + 2_499);
}

#[test]
fn endpoints_are_checked_before_anything_is_sent() {
    let new =
        |e: &[&str]| ChainClient::new(&e.iter().map(ToString::to_string).collect::<Vec<_>>(), ChainOptions::default());
    assert_eq!(new(&[]).unwrap_err(), ChainError::NoEndpoint);
    assert!(matches!(new(&["http://x"]), Err(ChainError::BadEndpoint { .. })));
    assert!(matches!(new(&["ws://x"; 9]), Err(ChainError::TooManyEndpoints { count: 9, max: 8 })));
}

#[tokio::test]
async fn a_call_while_nobody_answers_fails_at_once_and_says_when_it_is_tried_again() {
    // Port 9 of this host: refused without a wait.
    let client = ChainClient::new(&["ws://127.0.0.1:9".into()], ChainOptions::default()).unwrap();
    let first = client.finalized().await.unwrap_err();
    assert!(first.is_away(), "{first}");
    let started = Instant::now();
    for _ in 0..20 {
        let again = client.finalized().await.unwrap_err();
        assert!(again.to_string().contains("ws://127.0.0.1:9"), "{again}");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(client.known_genesis(), None);
}
