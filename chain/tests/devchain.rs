//! The client against the embedded development chain: real metadata, extrinsics, nonces, events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "devchain/anchors.rs"]
mod anchors;
#[path = "devchain/commits.rs"]
mod commits;
#[path = "devchain/endpoints.rs"]
mod endpoints;
#[path = "devchain/metadata.rs"]
mod metadata;
#[path = "devchain/pulses.rs"]
mod pulses;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use perturb_chain::store::SubmissionStore as _;
use perturb_chain::{
    AgreedVector, ChainClient, ChainError, ChainOptions, ChainView, FileStore, State, SubmitError, Submitter,
    WeightsCall,
};
use perturb_devchain::genesis::{Genesis, Neuron, Subnet};
use perturb_devchain::{Config, Handle, run};
use perturb_types::{Hotkey, HotkeyPair};
use subxt::rpcs::{RpcClient, rpc_params};
use tokio::sync::{mpsc, watch};

const NETUID: u16 = 2;
const RAO: u64 = 1_000_000_000;
/// Generous: a condition that does not come at all fails the test, a slow machine does not.
const PATIENCE: Duration = Duration::from_secs(60);

fn pair(seed: u8) -> HotkeyPair {
    HotkeyPair::from_seed(&[seed; 32]).unwrap()
}

fn cold(seed: u8) -> Hotkey {
    Hotkey([seed; 32])
}

/// Uids 0 and 1 are validators of 2000 and 1500, uid 2 has stake but no permit, uid 3 mines.
fn genesis() -> Genesis {
    let neuron = |seed: u8, stake: u64, permit: bool| Neuron {
        hotkey: pair(seed).hotkey().to_string(),
        coldkey: cold(seed).to_string(),
        stake,
        validator_permit: permit,
        balance_rao: 0,
    };
    let mut subnet = Subnet::new(NETUID);
    subnet.tempo = 5;
    subnet.mechanisms = 2;
    subnet.weights_version_key = 7;
    subnet.neurons = vec![neuron(1, 2000, true), neuron(2, 1500, true), neuron(3, 1200, false), neuron(4, 0, false)];
    Genesis { subnets: vec![subnet], ..Genesis::default() }
}

struct Net {
    handle: Option<Handle>,
    genesis: Genesis,
    url: String,
    port: u16,
    folder: tempfile::TempDir,
}

impl Net {
    async fn start() -> Self {
        Self::start_from(genesis()).await
    }

    async fn start_from(genesis: Genesis) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut net = Self { handle: None, genesis, url: String::new(), port: 0, folder };
        net.resume().await;
        net
    }

    /// Starts the chain on its folder, on the same port as before.
    async fn resume(&mut self) {
        let config = Config {
            rpc_port: self.port,
            block_time: Duration::from_millis(100),
            genesis: self.genesis.clone(),
            data_dir: Some(PathBuf::from(self.folder.path()).join("chain")),
        };
        let handle = run(config).await.unwrap();
        self.url = handle.ws_url();
        self.port = handle.addr().port();
        self.handle = Some(handle);
    }

    async fn stop(&mut self) {
        self.handle.take().unwrap().stop().await;
    }

    async fn client(&self) -> ChainClient {
        ChainClient::connect_with(std::slice::from_ref(&self.url), options()).await.unwrap()
    }

    fn store(&self) -> Arc<FileStore> {
        Arc::new(FileStore::open(self.folder.path().join("submissions")).unwrap())
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, method: &str, params: subxt::rpcs::client::RpcParams) -> T {
        RpcClient::from_insecure_url(&self.url).await.unwrap().request(method, params).await.unwrap()
    }

    async fn nonce(&self, who: &HotkeyPair) -> u64 {
        self.ask("system_accountNextIndex", rpc_params![who.hotkey().to_string()]).await
    }

    async fn fault(&self, fault: serde_json::Value) {
        let rpc = RpcClient::from_insecure_url(&self.url).await.unwrap();
        // A cut takes this connection too, so that there may be no answer.
        let _: Result<serde_json::Value, _> = rpc.request("dev_setFault", rpc_params![fault]).await;
    }
}

fn options() -> ChainOptions {
    ChainOptions { request_timeout_ms: 5_000, min_stale_ms: 700, ..ChainOptions::default() }
}

async fn until(view: &mut watch::Receiver<ChainView>, what: &str, holds: impl FnMut(&ChainView) -> bool) -> ChainView {
    *tokio::time::timeout(PATIENCE, view.wait_for(holds)).await.unwrap_or_else(|_| panic!("never: {what}")).unwrap()
}

fn vector(epoch: u64, mecid: u8, weights: &[(u16, u16)], reference_block: u64) -> AgreedVector {
    AgreedVector {
        call: WeightsCall { netuid: NETUID, mecid, weights: weights.to_vec(), version_key: 7 },
        epoch,
        reference_block,
        expires_after_epoch: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_snapshot_holds_the_subnet_at_one_finalized_block() {
    let net = Net::start().await;
    let client = net.client().await;
    assert_eq!(client.genesis_hash().await.unwrap().0, net.handle.as_ref().unwrap().genesis_hash());
    let (number, hash) = client.finalized().await.unwrap();
    let snapshot = client.snapshot(NETUID, Some(hash)).await.unwrap();
    assert_eq!((snapshot.block_number, snapshot.block_hash, snapshot.tempo), (number, hash, 5));
    let seen: Vec<_> = snapshot.neurons.iter().map(|n| (n.uid, n.hotkey, n.coldkey, n.stake_rao, n.permit)).collect();
    let expected = [(1, 2000, true), (2, 1500, true), (3, 1200, false), (4, 0, false)]
        .map(|(seed, stake, permit)| (u16::from(seed) - 1, pair(seed).hotkey(), cold(seed).0, stake * RAO, permit));
    assert_eq!(seen, expected);
    assert_eq!(snapshot.hyper.weights_version_key, 7);
    assert_eq!((snapshot.hyper.mechanism_count, snapshot.hyper.commit_reveal), (2, false));
    // Read again at the same block, and by the other way: the same.
    assert_eq!(client.snapshot(NETUID, Some(hash)).await.unwrap(), snapshot);
    assert_eq!(client.neurons_by_storage(NETUID, Some(hash)).await.unwrap(), snapshot.neurons);
    assert!(client.is_finalized(number, hash).await.unwrap());
    let next = client.next_epoch_start(NETUID, Some(hash)).await.unwrap().unwrap();
    assert!(next > number && next <= number + 6, "{next} after {number}");

    let missing = client.snapshot(77, None).await.unwrap_err();
    assert!(matches!(missing, ChainError::NoSuchSubnet { netuid: 77, .. }), "{missing}");
    let unknown = client.snapshot(NETUID, Some(perturb_chain::BlockHash([9; 32]))).await.unwrap_err();
    assert!(matches!(unknown, ChainError::NoSuchBlock { .. } | ChainError::Rpc { .. }), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submitted_weights_stand_on_the_chain_per_mechanism() {
    let net = Net::start().await;
    let client = net.client().await;
    let first = [(2, 100), (3, 65_535)];
    let landed = client.submit_weights(&pair(1), NETUID, 0, &first, 7).await.unwrap();
    assert_eq!(client.read_weights(NETUID, 0, 0, Some(landed.block_hash)).await.unwrap(), first);
    assert!(client.is_finalized(landed.block_number, landed.block_hash).await.unwrap());
    assert_eq!(client.last_update(NETUID, 0, None).await.unwrap()[0], landed.block_number);

    client.submit_weights(&pair(1), NETUID, 1, &[(3, 65_535)], 7).await.unwrap();
    client.submit_weights(&pair(2), NETUID, 0, &[(2, 65_535)], 9).await.unwrap();
    let all = client.all_weights(NETUID, 0, None).await.unwrap();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [(0, first.to_vec()), (1, vec![(2, 65_535)])]);
    assert_eq!(client.read_weights(NETUID, 1, 0, None).await.unwrap(), [(3, 65_535)]);
    assert_eq!(client.uid_of(NETUID, pair(4).hotkey(), None).await.unwrap(), Some(3));
    assert_eq!(client.uid_of(NETUID, pair(9).hotkey(), None).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_told_apart() {
    let net = Net::start().await;
    let client = net.client().await;
    let good: &[(u16, u16)] = &[(3, 65_535)];
    let refused = async |who: u8, mecid: u8, weights: &[(u16, u16)], key: u64| {
        client.submit_weights(&pair(who), NETUID, mecid, weights, key).await.unwrap_err()
    };
    assert_eq!(refused(3, 0, good, 7).await, SubmitError::NoPermit);
    assert_eq!(refused(4, 0, good, 7).await, SubmitError::StakeTooLow);
    let stranger = refused(9, 0, good, 7).await;
    assert!(matches!(stranger, SubmitError::NotRegistered | SubmitError::StakeTooLow), "{stranger}");
    assert_eq!(refused(1, 0, good, 6).await, SubmitError::OldVersionKey);
    assert_eq!(refused(1, 5, good, 7).await, SubmitError::NoSuchMechanism);
    assert_eq!(refused(1, 0, &[(3, 1), (3, 2)], 7).await, SubmitError::DuplicateUids);
    assert_eq!(refused(1, 0, &[(99, 65_535)], 7).await, SubmitError::UnknownUid);
    assert_eq!(refused(1, 0, &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], 7).await, SubmitError::TooManyUids);
    let _: serde_json::Value = net.ask("dev_setCommitReveal", rpc_params![NETUID, true]).await;
    assert_eq!(refused(1, 0, good, 7).await, SubmitError::CommitRevealEnabled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_follows_heads_and_epochs_and_notices_outages() {
    let mut net = Net::start().await;
    let client = net.client().await;
    let mut view = client.subscribe_finalized(NETUID);
    let first = until(&mut view, "a head", |v| v.connected && v.number > 0).await;
    let later = until(&mut view, "an epoch", |v| v.epoch_index > first.epoch_index).await;
    assert!(later.number > first.number);
    assert_eq!(client.epoch_index(NETUID, Some(later.hash)).await.unwrap(), later.epoch_index);

    // The node hangs: it answers, but makes no blocks.
    net.fault(serde_json::json!({"stop_blocks": true})).await;
    until(&mut view, "the chain is taken for stuck", |v| !v.connected).await;
    net.fault(serde_json::json!({})).await;
    let back = until(&mut view, "heads again", |v| v.connected).await;

    // The node goes away and comes back; the same client goes on.
    net.stop().await;
    until(&mut view, "the chain is away", |v| !v.connected).await;
    let away = client.finalized().await.unwrap_err();
    assert!(away.is_away() && away.to_string().contains(&net.url), "{away}");
    net.resume().await;
    until(&mut view, "heads after the restart", |v| v.connected && v.number > back.number).await;
    client.submit_weights(&pair(1), NETUID, 0, &[(3, 65_535)], 7).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vector_agreed_while_the_chain_is_away_lands_once_when_it_returns() {
    let mut net = Net::start().await;
    let client = net.client().await;
    let mut view = client.subscribe_finalized(NETUID);
    let head = until(&mut view, "a head", |v| v.connected && v.number > 0).await;
    net.stop().await;
    until(&mut view, "the chain is away", |v| !v.connected).await;

    let agreed = vector(1, 0, &[(2, 9), (3, 65_535)], head.number);
    let submitter = Submitter::new(client.clone(), net.store(), pair(1));
    let mut own_view = view.clone();
    let driving = {
        let agreed = agreed.clone();
        tokio::spawn(async move { submitter.drive(agreed, &mut own_view).await.unwrap() })
    };
    net.resume().await;
    let done = tokio::time::timeout(PATIENCE, driving).await.unwrap().unwrap();
    assert!(done.has_landed(), "{done:?}");
    assert_eq!(client.read_weights(NETUID, 0, 0, None).await.unwrap(), agreed.call.weights);
    assert_eq!(net.nonce(&pair(1)).await, 1);

    // A restart with the store: nothing is sent. A restart that lost the store: it looks first.
    let again = Submitter::new(client.clone(), net.store(), pair(1)).drive(agreed.clone(), &mut view).await.unwrap();
    assert_eq!(again.state, done.state);
    let elsewhere = Arc::new(FileStore::open(net.folder.path().join("lost")).unwrap());
    let found = Submitter::new(client.clone(), elsewhere, pair(1)).drive(agreed, &mut view).await.unwrap();
    assert!(matches!(found.state, State::ReadBack { submitted: None, .. }), "{found:?}");
    assert_eq!(net.nonce(&pair(1)).await, 1, "one extrinsic in all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_while_the_weights_are_under_way_does_not_send_them_twice() {
    let net = Net::start().await;
    let client = net.client().await;
    let view = client.subscribe_finalized(NETUID);
    until(&mut view.clone(), "a head", |v| v.connected && v.number > 0).await;
    let (vectors, incoming) = mpsc::channel(4);
    let (status, mut latest) = watch::channel(Default::default());
    let running = tokio::spawn(Submitter::new(client.clone(), net.store(), pair(1)).run(incoming, view, status));
    let head = client.finalized().await.unwrap().0;
    // Without blocks nothing can be answered: the cut falls between the sending and the block.
    net.fault(serde_json::json!({"stop_blocks": true})).await;
    vectors.send(vector(1, 0, &[(3, 65_535)], head)).await.unwrap();
    vectors.send(vector(1, 1, &[(2, 65_535)], head)).await.unwrap();
    drop(vectors);
    let signed =
        |all: &perturb_chain::submitter::Submissions| all.values().any(|s| matches!(s.state, State::Signed { .. }));
    drop(tokio::time::timeout(PATIENCE, latest.wait_for(signed)).await.unwrap().unwrap());
    net.fault(serde_json::json!({"drop_connections_ms": 300})).await;

    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    let all = latest.borrow().clone();
    assert_eq!(all.len(), 2);
    assert!(all.values().all(perturb_chain::Submission::has_landed), "{all:?}");
    assert_eq!(client.read_weights(NETUID, 1, 0, None).await.unwrap(), [(2, 65_535)]);
    assert_eq!(net.nonce(&pair(1)).await, 2, "one extrinsic a mechanism");
    assert_eq!(net.store().load_all().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_too_soon_waits_for_the_rate_limit_and_lands() {
    let net = Net::start().await;
    let client = net.client().await;
    let mut view = client.subscribe_finalized(NETUID);
    let first = client.submit_weights(&pair(1), NETUID, 0, &[(3, 65_535)], 7).await.unwrap();
    let _: serde_json::Value = net.ask("dev_setWeightsRateLimit", rpc_params![NETUID, 12]).await;
    let submitter = Submitter::new(client.clone(), net.store(), pair(1));
    let agreed = vector(1, 0, &[(2, 65_535)], first.block_number + 1);
    let done = tokio::time::timeout(PATIENCE, submitter.drive(agreed, &mut view)).await.unwrap().unwrap();
    let State::ReadBack { block_number, .. } = done.state else { panic!("{done:?}") };
    assert!(block_number >= first.block_number + 12, "{block_number} after {}", first.block_number);
}
