//! Several endpoints: two development chains from one genesis are two chains that disagree.

use perturb_chain::Health;

use super::*;

fn quick() -> ChainOptions {
    ChainOptions { probe_every_ms: 100, ..options() }
}

async fn number(net: &Net) -> u64 {
    net.client().await.finalized().await.unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_two_endpoints_disagree_the_one_with_the_networks_block_is_used() {
    let (wrong, right) = (Net::start().await, Net::start().await);
    let client = ChainClient::new(&[wrong.url.clone(), right.url.clone()], quick()).unwrap();
    let mut view = client.subscribe_finalized(NETUID);
    let seen = until(&mut view, "a head of the first", |v| v.connected && v.number > 1).await;
    let honest = right.client().await;
    let agreed = honest.finalized_on_chain(seen.number - 1).await.unwrap();
    let agreed = match agreed {
        Some(hash) => (seen.number - 1, hash),
        None => honest.finalized().await.unwrap(),
    };
    assert!(!client.is_finalized(agreed.0, agreed.1).await.unwrap(), "the chains differ from their first block on");
    client.hold_to(agreed.0, agreed.1);
    let mut health = client.health();
    let moved = health.wait_for(|all| all[1].in_use && matches!(all[0].health, Health::Forked { .. }));
    drop(tokio::time::timeout(PATIENCE, moved).await.unwrap().unwrap());
    assert!(client.is_finalized(agreed.0, agreed.1).await.unwrap());
    // What is submitted now lands on the right chain, and only there.
    client.submit_weights(&pair(1), NETUID, 0, &[(3, 65_535)], 7).await.unwrap();
    assert_eq!((wrong.nonce(&pair(1)).await, right.nonce(&pair(1)).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_endpoint_on_another_chain_is_not_read() {
    let (wrong, right) = (Net::start().await, Net::start().await);
    let client = ChainClient::new(std::slice::from_ref(&wrong.url), quick()).unwrap();
    let mut view = client.subscribe_finalized(NETUID);
    until(&mut view, "a head", |v| v.connected && v.number > 1).await;
    let (height, hash) = right.client().await.finalized().await.unwrap();
    client.hold_to(height, hash);
    until(&mut view, "the node is dropped", |v| !v.connected).await;
    let refused = loop {
        match client.finalized().await {
            Err(e @ ChainError::Forked { .. }) => break e,
            // Between two attempts, or not so far yet.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(refused.to_string().contains("follows another chain"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_falls_behind_is_left_for_one_that_does_not() {
    let ahead = Net::start().await;
    let until_ahead = async {
        while number(&ahead).await <= 12 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_ahead).await.unwrap();
    // Alive and making blocks, twelve behind.
    let behind = Net::start().await;
    let client = ChainClient::new(&[behind.url.clone(), ahead.url.clone()], quick()).unwrap();
    let mut view = client.subscribe_finalized(NETUID);
    until(&mut view, "a head", |v| v.connected).await;
    let mut health = client.health();
    let moved = health.wait_for(|all| all[1].in_use && matches!(all[0].health, Health::Lagging { .. }));
    drop(tokio::time::timeout(PATIENCE, moved).await.unwrap().unwrap());
    until(&mut view, "the view is the foremost's", |v| v.connected && v.number > 12).await;
}
