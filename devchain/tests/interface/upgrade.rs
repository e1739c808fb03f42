//! Changes under a connected client: the runtime's version, a neuron's hotkey and certificate.

use jsonrpsee::core::client::SubscriptionClientT;
use jsonrpsee::rpc_params;
use perturb_devchain::runtime::VERSION;
use perturb_devchain::runtime::metagraph::SelectiveMetagraph;
use perturb_devchain::runtime::primitives::NetUid;
use perturb_devchain::runtime::subtensor::Call;
use scale::{Compact, Decode, Encode};
use serde_json::{Value, json};
use sp_core::Pair as _;

use super::calls::{Signing, hotkey, pair};
use super::{Chain, NETUID, PATIENCE};

const TAO: u64 = 1_000_000_000;

fn subnet() -> Value {
    let neuron = |seed: u8, stake: u64| {
        let address = sp_core::crypto::Ss58Codec::to_ss58check(&pair(seed).public());
        json!({"hotkey": address, "coldkey": address, "stake": stake, "validator_permit": stake > 0})
    };
    json!({"netuid": NETUID, "neurons": [neuron(1, 2000), neuron(2, 0)]})
}

fn weights() -> Call<perturb_devchain::runtime::Runtime> {
    Call::set_weights { netuid: NetUid(NETUID), dests: vec![1], weights: vec![1], version_key: 0 }
}

fn axon(port: u16, certificate: &[u8]) -> Call<perturb_devchain::runtime::Runtime> {
    Call::serve_axon_tls {
        netuid: NetUid(NETUID),
        version: 1,
        ip: 0x0102_0304,
        port,
        ip_type: 4,
        protocol: 4,
        placeholder1: 0,
        placeholder2: 0,
        certificate: certificate.to_vec(),
    }
}

#[tokio::test]
async fn an_upgrade_is_told_to_subscribers_and_outdates_what_was_signed_before() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &subnet()).await;
    let (begin, end) = ("state_subscribeRuntimeVersion", "state_unsubscribeRuntimeVersion");
    let mut versions = chain.rpc.subscribe::<Value, _>(begin, rpc_params![], end).await.unwrap();
    let mut next = async || {
        let version = tokio::time::timeout(PATIENCE, versions.next()).await.unwrap().unwrap().unwrap();
        version["specVersion"].as_u64().unwrap() as u32
    };
    let (old, new) = (VERSION.spec_version, VERSION.spec_version + 12);
    assert_eq!(next().await, old);
    let before = chain.head().await;
    let signed_before = Signing::new(&chain, 1, 0).sign(weights(), 0);
    let done = chain.ask("dev_upgradeRuntime", rpc_params![new]).await;
    assert_eq!(next().await, new);

    let version = async |at: &Value| chain.ask("state_getRuntimeVersion", rpc_params![at]).await["specVersion"].clone();
    assert_eq!((version(&before).await, version(&done["block"]).await), (json!(old), json!(new)));
    let metadata = async |at: &Value| chain.ask("state_getMetadata", rpc_params![at]).await;
    assert_ne!(metadata(&before).await, metadata(&done["block"]).await, "the version is among the constants");
    let call =
        async |at: &Value| chain.ask("state_call", rpc_params!["Metadata_metadata_at_version", "0x0f000000", at]).await;
    assert_ne!(call(&before).await, call(&done["block"]).await);
    let bad_proof = (1010, "Transaction has a bad signature".to_owned());
    assert_eq!(chain.pool_says(signed_before).await, bad_proof);
    let mut right = Signing::new(&chain, 1, 0);
    right.spec_version = new;
    chain.ask("author_submitExtrinsic", rpc_params![right.sign(weights(), 0)]).await;
    assert_eq!(chain.refused("dev_upgradeRuntime", rpc_params![new]).await.0, 5001, "only upwards");

    drop(chain);
    let chain = Chain::start(folder.path(), &subnet()).await;
    assert_eq!(chain.ask("state_getRuntimeVersion", rpc_params![]).await["specVersion"], json!(new));
}

#[tokio::test]
async fn a_neuron_keeps_its_uid_stake_permit_and_certificate_under_another_hotkey() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &subnet()).await;
    let certificate = [&[1u8][..], &[0xab; 32]].concat();
    let (block, error) = chain.land(1, axon(80, &certificate)).await;
    assert_eq!(error, None);
    let key = |seed: u8| {
        let account = pair(seed).public().0;
        [&NETUID.to_le_bytes()[..], &sp_io::hashing::blake2_128(&account), &account].concat()
    };
    let stored = Some((certificate[1..].to_vec(), 1u8));
    assert_eq!(chain.stored("NeuronCertificates", &key(1), &block).await, stored);
    // Too long: the axon is taken and the certificate is not, as on the real chain.
    let (block, error) = chain.land(1, axon(81, &[7; 66])).await;
    assert_eq!(error, None);
    assert_eq!(chain.stored("NeuronCertificates", &key(1), &block).await, stored);

    let done = chain.ask("dev_swapHotkey", rpc_params![NETUID, hotkey(1), hotkey(9)]).await;
    assert_eq!(done["uid"], 0);
    let block = &done["block"];
    assert_eq!(chain.stored("NeuronCertificates", &key(9), block).await, stored);
    assert_eq!(chain.stored::<u16>("Uids", &key(9), block).await, Some(0));
    assert_eq!(chain.stored::<u16>("Uids", &key(1), block).await, None);
    let owner =
        [&sp_io::hashing::blake2_128(&pair(9).public().0)[..], &pair(9).public().0, &NETUID.to_le_bytes()].concat();
    assert_eq!(chain.stored::<u64>("TotalHotkeyAlpha", &owner, block).await, Some(2000 * TAO));
    assert_eq!(chain.land(9, weights()).await.1, None, "it validates on");
    assert_eq!(chain.refused("dev_swapHotkey", rpc_params![NETUID, hotkey(1), hotkey(8)]).await.0, 5001);
    assert_eq!(chain.refused("dev_swapHotkey", rpc_params![NETUID, hotkey(9), hotkey(2)]).await.0, 5001);
}

#[tokio::test]
async fn a_client_gets_the_fields_of_the_metagraph_that_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &subnet()).await;
    let select = async |indices: &[u16]| {
        let arguments = format!("0x{}", hex::encode((NETUID, indices.to_vec()).encode()));
        let function = "SubnetInfoRuntimeApi_get_selective_metagraph";
        let answer = chain.ask("state_call", rpc_params![function, arguments]).await;
        Option::<SelectiveMetagraph>::decode(&mut &super::unhex(answer.as_str().unwrap())[..]).unwrap().unwrap()
    };
    // Of the official list: netuid, tempo, hotkeys, validators; and one that is in no list.
    let some = select(&[0, 8, 52, 72, 999]).await;
    assert_eq!((some.netuid.0.0, some.tempo.unwrap().0), (NETUID, 360));
    assert_eq!(some.hotkeys.unwrap(), [1, 2].map(|seed| pair(seed).public().into()));
    assert_eq!(some.validators.unwrap(), [Compact(0)]);
    assert_eq!((some.coldkeys, some.block, some.commitments), (None, None, None));
    assert_eq!(select(&[7]).await.netuid.0.0, 0, "the netuid too is there only if it is asked for");
}
