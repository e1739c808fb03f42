//! The beacon's rounds as the chain has them.

use perturb_devchain::beacon::{Beacon as Played, BeaconSource, verify};
use perturb_types::Beacon;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_hands_over_the_rounds_that_it_has() {
    let net = Net::start().await;
    let client = net.client().await;
    // A chain that has just begun has none: the first comes with a block.
    let last = loop {
        let info: serde_json::Value = net.ask("dev_beacon", rpc_params![]).await;
        match info["lastStoredRound"].as_u64().unwrap() {
            0 => tokio::time::sleep(Duration::from_millis(50)).await,
            last => break last,
        }
    };
    let found = client.pulses(&[last, last + 1_000_000, 1]).await.unwrap();
    let [(round, signature)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(*round, last);
    assert!(verify(&Beacon::DEVELOPMENT.public_key, last, signature), "the beacon that networks here name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_on_quicknet_hands_over_what_was_brought_to_it() {
    let quicknet = serde_json::from_value(serde_json::json!("quicknet")).unwrap();
    let net = Net::start_from(Genesis { beacon: quicknet, ..genesis() }).await;
    let signature = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";
    let _: serde_json::Value = net.ask("dev_putPulse", rpc_params![1000, format!("0x{signature}")]).await;
    let found = net.client().await.pulses(&[999, 1000, 1001]).await.unwrap();
    assert_eq!(found, [(1000, hex::decode(signature).unwrap())]);
}

#[test]
fn the_chain_plays_the_development_beacon_unless_told_otherwise() {
    let played = Played::new(&BeaconSource::default());
    let known = Beacon::DEVELOPMENT;
    assert_eq!(played.public_key(), known.public_key);
    assert_eq!((played.genesis_secs() * 1000, played.period_ms()), (known.genesis_ms, known.period_ms));
}
