//! Timelocked commits against the development chain, which opens them by real decryption.

use perturb_chain::submitter::Submissions;
use perturb_chain::{Beacon, Submission};
use perturb_devchain::beacon::BeaconSource;

use super::*;

/// Epochs of two seconds, and ten rounds of the beacon in each second.
fn committing() -> Genesis {
    let mut genesis = genesis();
    genesis.subnets[0].tempo = 20;
    genesis.subnets[0].commit_reveal = true;
    let own = serde_json::json!({"secret_seed": "tests", "period_ms": 100});
    genesis.beacon = serde_json::from_value::<BeaconSource>(own).unwrap();
    genesis
}

impl Net {
    /// Options with the chain's own beacon.
    async fn beacon_options(&self) -> ChainOptions {
        let info: serde_json::Value = self.ask("dev_beacon", rpc_params![]).await;
        let beacon = Beacon {
            public_key: hex::decode(info["publicKey"].as_str().unwrap().trim_start_matches("0x"))
                .unwrap()
                .try_into()
                .unwrap(),
            genesis_ms: info["genesisTime"].as_u64().unwrap() * 1000,
            period_ms: info["periodMs"].as_u64().unwrap(),
        };
        ChainOptions { beacon, ..options() }
    }

    async fn committing_client(&self) -> ChainClient {
        let options = self.beacon_options().await;
        ChainClient::connect_with(std::slice::from_ref(&self.url), options).await.unwrap()
    }
}

/// A submitter at work until its vectors are over.
struct Running {
    vectors: mpsc::Sender<AgreedVector>,
    latest: watch::Receiver<Submissions>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(net: &Net, client: &ChainClient, view: &watch::Receiver<ChainView>) -> Self {
        let (vectors, incoming) = mpsc::channel(4);
        let (status, latest) = watch::channel(Default::default());
        let submitter = Submitter::new(client.clone(), net.store(), pair(1));
        let view = view.clone();
        let task = tokio::spawn(async move { submitter.run(incoming, view, status).await.unwrap() });
        Self { vectors, latest, task }
    }

    async fn until(&mut self, what: &str, holds: impl FnMut(&Submissions) -> bool) -> Submissions {
        let wait = tokio::time::timeout(PATIENCE, self.latest.wait_for(holds)).await;
        wait.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone()
    }

    async fn finish(self) -> Submissions {
        drop(self.vectors);
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
        self.latest.borrow().clone()
    }
}

fn committed(submission: &Submission) -> bool {
    matches!(submission.state, State::Committed { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_vectors_are_revealed_by_the_chain_and_read_back_for_each_mechanism() {
    let net = Net::start_from(committing()).await;
    let client = net.committing_client().await;
    let view = client.subscribe_finalized(NETUID);
    let head = until(&mut view.clone(), "a head", |v| v.connected && v.number > 0).await;
    let mut running = Running::start(&net, &client, &view);
    running.vectors.send(vector(1, 0, &[(2, 9), (3, 65_535)], head.number)).await.unwrap();
    running.vectors.send(vector(1, 1, &[(3, 65_535)], head.number)).await.unwrap();
    let waiting =
        running.until("both wait for their reveal", |all| all.len() == 2 && all.values().all(committed)).await;
    assert_eq!(client.read_weights(NETUID, 0, 0, None).await.unwrap(), [], "hidden until then");
    let all = running.finish().await;
    assert!(all.values().all(Submission::has_landed), "{all:?}");
    for (before, after) in waiting.values().zip(all.values()) {
        let (State::Committed { commit, .. }, State::ReadBack { block_number, .. }) = (&before.state, &after.state)
        else {
            panic!("{before:?} {after:?}")
        };
        // The pulse may be a few blocks late; the epoch is not over by then.
        assert!((commit.reveal_block..commit.reveal_block + 20).contains(block_number), "{commit:?} {block_number}");
    }
    assert_eq!(client.read_weights(NETUID, 0, 0, None).await.unwrap(), [(2, 9), (3, 65_535)]);
    assert_eq!(client.read_weights(NETUID, 1, 0, None).await.unwrap(), [(3, 65_535)]);
    assert_eq!(net.nonce(&pair(1)).await, 2, "one extrinsic a mechanism");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_after_committing_finds_its_commit_and_makes_no_other() {
    let net = Net::start_from(committing()).await;
    let client = net.committing_client().await;
    let view = client.subscribe_finalized(NETUID);
    let head = until(&mut view.clone(), "a head", |v| v.connected && v.number > 0).await;
    let agreed = vector(1, 0, &[(3, 65_535)], head.number);
    let mut running = Running::start(&net, &client, &view);
    running.vectors.send(agreed.clone()).await.unwrap();
    let all = running.until("it is committed", |all| all.values().any(committed)).await;
    running.task.abort();
    // As if the file had been written before the block came: the bytes on the chain are all there is.
    let State::Committed { commit, .. } = all.values().next().unwrap().state else { panic!() };
    let mut forgetful = all.values().next().unwrap().clone();
    let signed = perturb_chain::SignedExtrinsic {
        bytes: vec![1],
        hash: perturb_chain::BlockHash([1; 32]),
        nonce: 0,
        signed_at: head.number,
        expires_at: head.number + 64,
        commit: Some(commit),
    };
    forgetful.state = State::Signed { signed };
    net.store().save(&forgetful).unwrap();
    let done = Running::start(&net, &client, &view).finish().await;
    assert!(done.values().all(Submission::has_landed), "{done:?}");
    assert_eq!(client.read_weights(NETUID, 0, 0, None).await.unwrap(), agreed.call.weights);
    assert_eq!(net.nonce(&pair(1)).await, 1, "one extrinsic in all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_switch_may_be_thrown_between_two_vectors_and_while_a_commit_waits() {
    let net = Net::start_from(committing()).await;
    let client = net.committing_client().await;
    let view = client.subscribe_finalized(NETUID);
    let head = until(&mut view.clone(), "a head", |v| v.connected && v.number > 0).await;
    let mut running = Running::start(&net, &client, &view);
    running.vectors.send(vector(1, 0, &[(2, 65_535)], head.number)).await.unwrap();
    running.until("the first is committed", |all| all.values().any(committed)).await;
    let _: serde_json::Value = net.ask("dev_setCommitReveal", rpc_params![NETUID, false]).await;
    let landed = |all: &Submissions| all.values().all(Submission::has_landed);
    running.until("the first is revealed all the same", landed).await;
    let head = client.finalized().await.unwrap().0;
    running.vectors.send(vector(2, 0, &[(3, 65_535)], head)).await.unwrap();
    running.until("the second is set plainly", |all| all.len() == 2 && landed(all)).await;
    let _: serde_json::Value = net.ask("dev_setCommitReveal", rpc_params![NETUID, true]).await;
    let head = client.finalized().await.unwrap().0;
    running.vectors.send(vector(3, 0, &[(2, 7), (3, 65_535)], head)).await.unwrap();
    running.until("the third is committed", |all| all.values().any(committed)).await;
    let all = running.finish().await;
    assert!(landed(&all) && all.len() == 3, "{all:?}");
    assert_eq!(client.read_weights(NETUID, 0, 0, None).await.unwrap(), [(2, 7), (3, 65_535)]);
    assert_eq!(net.nonce(&pair(1)).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_the_chain_drops_is_made_again_once_the_permit_is_back() {
    let net = Net::start_from(committing()).await;
    let client = net.committing_client().await;
    let view = client.subscribe_finalized(NETUID);
    let head = until(&mut view.clone(), "a head", |v| v.connected && v.number > 0).await;
    let mut running = Running::start(&net, &client, &view);
    running.vectors.send(vector(1, 0, &[(3, 65_535)], head.number)).await.unwrap();
    running.until("it is committed", |all| all.values().any(committed)).await;
    let permit = async |held: bool| {
        let hotkey = pair(1).hotkey().to_string();
        let _: serde_json::Value = net.ask("dev_setPermit", rpc_params![NETUID, hotkey, held]).await;
    };
    permit(false).await;
    let all = running.until("the chain drops the commit", |all| all.values().any(|s| s.attempts > 0)).await;
    assert!(all.values().all(|s| s.last_error.as_ref().unwrap().contains("did not reveal")), "{all:?}");
    permit(true).await;
    let all = running.finish().await;
    assert!(all.values().all(Submission::has_landed), "{all:?}");
    assert_eq!(client.read_weights(NETUID, 0, 0, None).await.unwrap(), [(3, 65_535)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_with_another_beacon_is_refused_before_anything_is_committed() {
    let net = Net::start_from(committing()).await;
    let client = net.client().await;
    let call = WeightsCall { netuid: NETUID, mecid: 0, weights: vec![(3, 65_535)], version_key: 7 };
    assert_eq!(client.sign_commit(&pair(1), &call, None).await.unwrap_err(), SubmitError::OtherBeacon);
    assert_eq!(net.nonce(&pair(1)).await, 0);
}
