//! The development calls, one by one, and what an epoch renews.

use jsonrpsee::rpc_params;
use serde_json::{Value, json};

use super::{Chain, NETUID, account};

const NET: [u8; 2] = NETUID.to_le_bytes();

#[tokio::test]
async fn every_development_change_is_in_the_block_it_is_answered_with() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &json!({"netuid": NETUID, "max_allowed_uids": 2})).await;
    let (one, two, three, cold) = (account(1), account(2), account(3), account(99));

    let done = chain.ask("dev_registerHotkey", rpc_params![NETUID, &one, &cold]).await;
    assert_eq!(done["uid"], 0);
    let key: [u8; 32] = chain.stored("Keys", &[2, 0, 0, 0], &done["block"]).await.unwrap();
    assert_eq!(key, [1; 32]);
    assert_eq!(chain.ask("dev_registerHotkey", rpc_params![NETUID, &two, &cold]).await["uid"], 1);
    for (hotkey, why) in [(&one, "registered again"), (&three, "the subnet is full")] {
        let refused = chain.refused("dev_registerHotkey", rpc_params![NETUID, hotkey, &cold]).await;
        assert_eq!(refused.0, 5001, "{why}: {}", refused.1);
    }

    let done = chain.ask("dev_setPermit", rpc_params![NETUID, &two, true]).await;
    let before = chain.block_at(chain.number(&done["block"]).await - 1).await;
    assert_eq!(chain.stored::<Vec<bool>>("ValidatorPermit", &NET, &done["block"]).await.unwrap(), [false, true]);
    assert_eq!(chain.stored::<Vec<bool>>("ValidatorPermit", &NET, &before).await.unwrap(), [false, false]);
    assert_eq!(chain.refused("dev_setPermit", rpc_params![NETUID, &three, true]).await.0, 5001);

    // 1000 TAO are the threshold: below it a stake does not count.
    chain.ask("dev_setStake", rpc_params![NETUID, &one, 3_000_000_000_000u64]).await;
    let done = chain.ask("dev_setStake", rpc_params![NETUID, &two, 1_000_000_000_000u64]).await;
    assert_eq!(chain.stored::<Vec<u16>>("StakeWeight", &NET, &done["block"]).await.unwrap(), [49_151, 16_383]);
    let done = chain.ask("dev_setStake", rpc_params![NETUID, &two, 999_999_999_999u64]).await;
    assert_eq!(chain.stored::<Vec<u16>>("StakeWeight", &NET, &done["block"]).await.unwrap(), [65_535, 0]);

    let done = chain.ask("dev_setTempo", rpc_params![NETUID, 17]).await;
    assert_eq!(chain.stored::<u16>("Tempo", &NET, &done["block"]).await, Some(17));
    let done = chain.ask("dev_setCommitReveal", rpc_params![NETUID, true]).await;
    assert_eq!(chain.stored::<bool>("CommitRevealWeightsEnabled", &NET, &done["block"]).await, Some(true));
    let done = chain.ask("dev_setWeightsRateLimit", rpc_params![NETUID, 55]).await;
    assert_eq!(chain.stored::<u64>("WeightsSetRateLimit", &NET, &done["block"]).await, Some(55));

    // The new neuron takes the uid, and neither the permit nor the stake of the old one.
    let done = chain.ask("dev_deregister", rpc_params![NETUID, &two, &three, &cold]).await;
    assert_eq!(done["uid"], 1);
    let block = &done["block"];
    assert_eq!(chain.stored::<[u8; 32]>("Keys", &[2, 0, 1, 0], block).await, Some([3; 32]));
    assert_eq!(chain.stored::<Vec<bool>>("ValidatorPermit", &NET, block).await.unwrap(), [false, false]);
    let registered: u64 = chain.stored("BlockAtRegistration", &[2, 0, 1, 0], block).await.unwrap();
    assert_eq!(registered, chain.number(block).await);
    assert_eq!(chain.refused("dev_deregister", rpc_params![NETUID, &two, &three, &cold]).await.0, 5001);

    assert_eq!(chain.refused("dev_setTempo", rpc_params![77, 3]).await.0, 5001, "no such subnet");
    assert_eq!(chain.refused("dev_setTempo", rpc_params![NETUID, "x"]).await.0, -32602);
    assert_eq!(chain.refused("dev_setFault", rpc_params![json!({"unknown": 1})]).await.0, -32602);
}

#[tokio::test]
async fn faults_stop_blocks_and_delay_answers_until_they_are_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &json!({"netuid": NETUID})).await;
    let set = async |fault: Value| chain.ask("dev_setFault", rpc_params![fault]).await;
    set(json!({"stop_blocks": true})).await;
    // A block may be under way when the fault comes; none begins after it.
    set(json!({"stop_blocks": true, "delay_ms": 200})).await;
    let stopped = chain.head().await;
    let start = std::time::Instant::now();
    assert_eq!(chain.head().await, stopped);
    assert!(start.elapsed().as_millis() >= 200, "{:?}", start.elapsed());
    let off = set(json!({})).await;
    assert_eq!(off["delay_ms"], 0);
    let number = chain.number(&stopped).await;
    chain.block_at(number + 2).await;
}

#[tokio::test]
async fn an_epoch_comes_every_tempo_and_renews_activity_only_then() {
    let folder = tempfile::tempdir().unwrap();
    let neuron = |seed: u8| json!({"hotkey": address(seed), "coldkey": address(99)});
    let subnet = json!({"netuid": NETUID, "tempo": 4, "activity_cutoff": 6, "neurons": [neuron(1), neuron(2)]});
    let chain = Chain::start(folder.path(), &subnet).await;
    let (mut index, mut last) = (0, 0);
    for number in 1..=13u64 {
        let at = chain.block_at(number).await;
        if number.is_multiple_of(4) {
            (index, last) = (index + 1, number);
        }
        let stored = async |item: &str| chain.stored::<u64>(item, &NET, &at).await.unwrap_or(0);
        assert_eq!(stored("SubnetEpochIndex").await, index, "block {number}");
        assert_eq!(stored("LastEpochBlock").await, last, "block {number}");
        assert_eq!(stored("BlocksSinceLastStep").await, number - last, "block {number}");
        // Nobody has set weights since block 0: 6 blocks on, at block 6, they are silent; block 8 is the next epoch.
        let active: Vec<bool> = chain.stored("Active", &NET, &at).await.unwrap();
        assert_eq!(active, [number < 8; 2], "block {number}");
        let call = chain.ask("state_call", rpc_params![NEXT_EPOCH, "0x0200", &at]).await;
        let next = format!("0x01{}", hex::encode((last + 4).to_le_bytes()));
        assert_eq!(call, json!(next), "block {number}");
    }
}

const NEXT_EPOCH: &str = "SubnetInfoRuntimeApi_get_next_epoch_start_block";

fn address(seed: u8) -> String {
    sp_core::crypto::Ss58Codec::to_ss58check(&sp_core::sr25519::Public::from_raw([seed; 32]))
}

#[tokio::test]
async fn two_chains_of_one_genesis_are_endpoints_that_disagree() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let subnet = json!({"netuid": NETUID});
    let one = Chain::start(one.path(), &subnet).await;
    let two = Chain::start(two.path(), &subnet).await;
    assert_eq!(one.genesis, two.genesis);
    assert_ne!(one.block_at(1).await, two.block_at(1).await, "their first blocks have other times");
}
