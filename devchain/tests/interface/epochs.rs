//! Epochs out of turn, too many at a time, and what they do to permits.

use jsonrpsee::rpc_params;
use perturb_devchain::runtime::RuntimeEvent;
use perturb_devchain::runtime::primitives::{MechId, NetUid};
use perturb_devchain::runtime::subtensor::{Call, Event};
use serde_json::{Value, json};
use sp_core::Pair as _;

use super::calls::{hotkey, pair};
use super::{Chain, NETUID};

const NET: [u8; 2] = NETUID.to_le_bytes();
const TAO: u64 = 1_000_000_000;

fn neuron(seed: u8, stake: u64) -> Value {
    let address = sp_core::crypto::Ss58Codec::to_ss58check(&pair(seed).public());
    json!({"hotkey": address, "coldkey": address, "stake": stake, "balance_rao": TAO})
}

#[tokio::test]
async fn permits_follow_the_stake_at_every_epoch_if_the_genesis_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let neurons = [neuron(1, 3000), neuron(2, 2000), neuron(3, 1500), neuron(4, 0)];
    let subnet = json!({
        "netuid": NETUID, "tempo": 8, "max_allowed_validators": 2, "mechanisms": 2, "neurons": neurons,
    });
    let chain = Chain::open_with(folder.path(), &json!({"permits": "by_stake", "subnets": [subnet]})).await.unwrap();
    let permits = async |at: &Value| chain.stored::<Vec<bool>>("ValidatorPermit", &NET, at).await.unwrap();
    let following = async |block: &Value| (chain.number(block).await / 8 + 1) * 8;
    assert_eq!(permits(&chain.block_at(0).await).await, [true, true, false, false]);

    let done = chain.ask("dev_setStake", rpc_params![NETUID, hotkey(3), 5000 * TAO]).await;
    let epoch = following(&done["block"]).await;
    assert_eq!(permits(&chain.block_at(epoch - 1).await).await, [true, true, false, false]);
    assert_eq!(permits(&chain.block_at(epoch).await).await, [true, false, true, false]);

    let done = chain.ask("dev_setNullConsensus", rpc_params![NETUID, true]).await;
    let epoch = following(&done["block"]).await;
    assert_eq!(permits(&chain.block_at(epoch).await).await, [false, false, true, false]);
    let on_oneself =
        |uid: u16| Call::set_weights { netuid: NetUid(NETUID), dests: vec![uid], weights: vec![1], version_key: 0 };
    let refused = chain.land(1, on_oneself(0)).await.1;
    assert_eq!(refused.as_deref(), Some("NeuronNoValidatorPermit"), "nobody else, not even about oneself");
    assert_eq!(chain.land(3, on_oneself(2)).await.1, None);

    // One mechanism fewer: what was set on it is gone.
    let second = [2, 16, 2, 0];
    let set = Call::set_mechanism_weights {
        netuid: NetUid(NETUID),
        mecid: MechId(1),
        dests: vec![3],
        weights: vec![1],
        version_key: 0,
    };
    let (block, _) = chain.land(3, set).await;
    assert_eq!(chain.stored("Weights", &second, &block).await, Some(vec![(3u16, 65_535u16)]));
    let done = chain.ask("dev_setMechanisms", rpc_params![NETUID, 1]).await;
    assert_eq!(chain.stored::<Vec<(u16, u16)>>("Weights", &second, &done["block"]).await, None);
    assert_eq!(chain.refused("dev_setMechanisms", rpc_params![NETUID, 17]).await.0, 5001);
    assert_eq!(chain.refused("dev_setRevealPeriod", rpc_params![NETUID, 0]).await.0, 5001);
}

#[tokio::test]
async fn an_epoch_runs_out_of_turn_when_the_owner_or_a_developer_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let address = sp_core::crypto::Ss58Codec::to_ss58check(&pair(1).public());
    let subnet = json!({
        "netuid": NETUID, "tempo": 5000, "owner_coldkey": address, "neurons": [neuron(1, 0), neuron(2, 0)],
    });
    let chain = Chain::open_with(folder.path(), &json!({"subnets": [subnet]})).await.unwrap();
    let number = async |item: &str, at: &Value| chain.stored::<u64>(item, &NET, at).await.unwrap_or(0);

    let at = chain.number(&chain.head().await).await + 8;
    let done = chain.ask("dev_setPendingEpoch", rpc_params![NETUID, at]).await;
    assert_eq!(number("PendingEpochAt", &done["block"]).await, at);
    let block = chain.block_at(at).await;
    assert_eq!((number("LastEpochBlock", &block).await, number("PendingEpochAt", &block).await), (at, 0));
    assert_eq!(number("SubnetEpochIndex", &block).await, 1);

    let trigger = || Call::trigger_epoch { netuid: NetUid(NETUID) };
    let (block, error) = chain.land(1, trigger()).await;
    assert_eq!(error, None);
    let fires_at = chain.number(&block).await + 10;
    let event = Event::EpochTriggered { netuid: NetUid(NETUID), by: pair(1).public().into(), fires_at };
    assert!(chain.events(&block).await.contains(&RuntimeEvent::SubtensorModule(event)));
    assert_eq!(chain.land(1, trigger()).await.1.as_deref(), Some("EpochTriggerAlreadyPending"));
    assert_eq!(number("LastEpochBlock", &chain.block_at(fires_at).await).await, fires_at);
    chain.ask("dev_setCommitReveal", rpc_params![NETUID, true]).await;
    assert_eq!(chain.land(1, trigger()).await.1.as_deref(), Some("DynamicTempoBlockedByCommitReveal"));
    chain.ask("dev_setCommitReveal", rpc_params![NETUID, false]).await;
    // Eight blocks from one epoch to the next: there are never ten before the regular one.
    chain.ask("dev_setTempo", rpc_params![NETUID, 8]).await;
    assert_eq!(chain.land(1, trigger()).await.1.as_deref(), Some("AutoEpochAlreadyImminent"));
}

#[tokio::test]
async fn one_block_runs_two_epochs_and_leaves_the_others_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let subnets = [1, 2, 3].map(|netuid| json!({"netuid": netuid, "tempo": 5}));
    let chain = Chain::open_with(folder.path(), &json!({"subnets": subnets})).await.unwrap();
    let ran = async |number: u64| {
        let at = chain.block_at(number).await;
        let mut ran = vec![];
        for netuid in [1u8, 2, 3] {
            ran.push(chain.stored::<u64>("LastEpochBlock", &[netuid, 0], &at).await.unwrap_or(0));
        }
        ran
    };
    assert_eq!(ran(4).await, [0, 0, 0]);
    assert_eq!(ran(5).await, [5, 5, 0]);
    assert_eq!(ran(6).await, [5, 5, 6]);
    assert_eq!(ran(10).await, [10, 10, 6]);
    assert_eq!(ran(11).await, [10, 10, 11]);
    let deferred = Event::EpochDeferred { netuid: NetUid(3), from_block: 5, to_block: 6 };
    let events = chain.events(&chain.block_at(5).await).await;
    assert!(events.contains(&RuntimeEvent::SubtensorModule(deferred)));
}
