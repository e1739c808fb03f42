//! Anchors against the development chain: commitments and remarks, and what a crash makes of them.

use perturb_chain::submitter::Submissions;
use perturb_chain::{AnchorCall, AnchorState, Anchorer, Anchoring, Anchors, Submission};
use perturb_types::Digest;

use super::*;

fn commitment(byte: u8) -> AnchorCall {
    AnchorCall::Commitment { netuid: NETUID, text: vec![byte; 57], digests: [Digest([8; 32]), Digest([9; 32])] }
}

fn remark(byte: u8) -> AnchorCall {
    AnchorCall::Remark { bytes: vec![byte; 121] }
}

/// Where uid 0 can pay for remarks.
fn funded() -> Genesis {
    let mut genesis = genesis();
    genesis.subnets[0].neurons[0].balance_rao = RAO;
    genesis
}

/// A chain that has begun, with a client and its view.
async fn ready(genesis: Genesis) -> (Net, ChainClient, watch::Receiver<ChainView>) {
    let net = Net::start_from(genesis).await;
    let client = net.client().await;
    let view = client.subscribe_finalized(NETUID);
    until(&mut view.clone(), "a head", |v| v.connected && v.number > 0).await;
    (net, client, view)
}

/// An anchorer at work, with no weights in its way unless the test puts them there.
struct Working {
    anchors: mpsc::Sender<Anchoring>,
    weights: watch::Sender<Submissions>,
    latest: watch::Receiver<Anchors>,
    task: tokio::task::JoinHandle<()>,
}

impl Working {
    fn start(net: &Net, client: &ChainClient, view: &watch::Receiver<ChainView>, weights: Submissions) -> Self {
        let working = Self::prepare(net, client, view);
        working.weights.send_replace(weights);
        working
    }

    /// It begins when it is told of the weights.
    fn prepare(net: &Net, client: &ChainClient, view: &watch::Receiver<ChainView>) -> Self {
        let (anchors, incoming) = mpsc::channel(4);
        let (weights, watched) = watch::channel(Submissions::default());
        let (status, latest) = watch::channel(Anchors::default());
        let anchorer = Anchorer::open(client.clone(), net.folder.path().join("anchors"), pair(1)).unwrap();
        let view = view.clone();
        let task = tokio::spawn(async move { anchorer.run(incoming, view, watched, status).await.unwrap() });
        Self { anchors, weights, latest, task }
    }

    async fn anchor(&self, epoch: u64, call: AnchorCall) {
        self.anchors.send(Anchoring::new(epoch, call)).await.unwrap();
    }

    async fn until(&mut self, what: &str, holds: impl FnMut(&Anchors) -> bool) -> Anchors {
        let wait = tokio::time::timeout(PATIENCE, self.latest.wait_for(holds)).await;
        wait.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone()
    }
}

fn is_anchored(anchors: &Anchors, epoch: u64) -> bool {
    anchors.get(&epoch).is_some_and(|a| matches!(a.state, AnchorState::Anchored { .. }))
}

impl Net {
    /// What a process that died has left.
    fn on_file(&self, anchor: &Anchoring) {
        let folder = self.folder.path().join("anchors");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("anchor-{:020}.json", anchor.epoch));
        std::fs::write(file, serde_json::to_vec(anchor).unwrap()).unwrap();
    }

    /// The extrinsic at a place, in hex.
    async fn extrinsic(&self, submitted: &perturb_chain::Submitted) -> String {
        let hash = submitted.block_hash.to_string();
        let block: serde_json::Value = self.ask("chain_getBlock", rpc_params![hash]).await;
        block["block"]["extrinsics"][submitted.index as usize].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anchors_of_both_kinds_land_once_where_they_say() {
    let (net, client, view) = ready(funded()).await;
    let mut working = Working::start(&net, &client, &view, Submissions::default());
    working.anchor(3, commitment(3)).await;
    working.until("the commitment", |all| is_anchored(all, 3)).await;
    working.anchor(4, remark(4)).await;
    let all = working.until("the remark", |all| is_anchored(all, 4)).await;
    let fields = ["03".repeat(57), "83".into(), "08".repeat(32), "83".into(), "09".repeat(32)].concat();
    for (epoch, end) in [(3, fields), (4, "04".repeat(121))] {
        let AnchorState::Anchored { submitted } = &all[&epoch].state else { panic!("{all:?}") };
        let bytes = net.extrinsic(submitted).await;
        assert!(bytes.ends_with(&end), "{bytes}");
    }
    // The same again changes nothing, after a restart too.
    working.anchor(4, remark(4)).await;
    drop(working.anchors);
    tokio::time::timeout(PATIENCE, working.task).await.unwrap().unwrap();
    let again = Working::start(&net, &client, &view, Submissions::default());
    again.anchor(4, remark(4)).await;
    drop(again.anchors);
    tokio::time::timeout(PATIENCE, again.task).await.unwrap().unwrap();
    let latest = again.latest.borrow().clone();
    assert_eq!(latest, all);
    assert_eq!(net.nonce(&pair(1)).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_after_sending_finds_its_anchor_and_sends_no_other() {
    let (net, client, view) = ready(funded()).await;
    // As the file was when the process died: signed, and it is not known what became of it.
    let signed = client.sign_anchor(&pair(1), &remark(5), 0).await.unwrap();
    let landed = client.broadcast(&signed, |_| {}).await.unwrap();
    let mut anchor = Anchoring::new(5, remark(5));
    anchor.state = AnchorState::Signed { signed };
    net.on_file(&anchor);
    let mut working = Working::start(&net, &client, &view, Submissions::default());
    let all = working.until("it is found", |all| is_anchored(all, 5)).await;
    assert_eq!(all[&5].state, AnchorState::Anchored { submitted: landed });
    assert_eq!(net.nonce(&pair(1)).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_something_else_took_the_nonce_the_anchor_is_signed_anew() {
    let (net, client, view) = ready(genesis()).await;
    let signed = client.sign_anchor(&pair(1), &commitment(6), 0).await.unwrap();
    let other = client.sign_anchor(&pair(1), &commitment(7), 0).await.unwrap();
    client.broadcast(&other, |_| {}).await.unwrap();
    let mut anchor = Anchoring::new(6, commitment(6));
    anchor.state = AnchorState::Signed { signed: signed.clone() };
    net.on_file(&anchor);
    let mut working = Working::start(&net, &client, &view, Submissions::default());
    let all = working.until("it lands", |all| is_anchored(all, 6)).await;
    let AnchorState::Anchored { submitted } = &all[&6].state else { panic!("{all:?}") };
    assert_ne!(submitted.extrinsic_hash, signed.hash);
    assert_eq!(net.nonce(&pair(1)).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_new_is_signed_where_no_anchors_are_wanted_any_more() {
    let (net, client, view) = ready(genesis()).await;
    net.on_file(&Anchoring::new(3, commitment(3)));
    let working = Working::prepare(&net, &client, &view);
    drop(working.anchors);
    working.weights.send_replace(Submissions::default());
    tokio::time::timeout(PATIENCE, working.task).await.unwrap().unwrap();
    assert_eq!((working.latest.borrow().len(), net.nonce(&pair(1)).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_anchor_waits_for_weights_and_only_the_newest_is_sent() {
    let (net, client, view) = ready(genesis()).await;
    let under_way = Submission::new(vector(1, 0, &[(3, 65_535)], 1));
    let weights = Submissions::from([(under_way.key(), under_way.clone())]);
    let mut working = Working::start(&net, &client, &view, weights);
    working.anchor(1, commitment(1)).await;
    working.anchor(2, commitment(2)).await;
    working.until("both are known", |all| all.len() == 2).await;
    let head = client.finalized().await.unwrap().0;
    until(&mut view.clone(), "three more blocks", |v| v.number >= head + 3).await;
    assert_eq!(net.nonce(&pair(1)).await, 0, "weights first");
    let mut over = under_way;
    over.state = State::Failed { reason: "over".into() };
    working.weights.send_replace(Submissions::from([(over.key(), over)]));
    let all = working.until("the newer one", |all| is_anchored(all, 2)).await;
    assert_eq!((&all[&1].state, net.nonce(&pair(1)).await), (&AnchorState::Due, 1), "the newer one covers it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_registered_or_cannot_pay_is_told_what_to_do() {
    let net = Net::start().await;
    let client = net.client().await;
    let stranger = pair(77);
    let refused = client.sign_anchor(&stranger, &commitment(1), 0).await.unwrap();
    let error = client.broadcast(&refused, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("AccountNotAllowedCommit") || error == SubmitError::NotRegistered, "{error}");
    let poor = client.sign_anchor(&pair(2), &remark(1), 0).await.unwrap();
    let error = client.broadcast(&poor, |_| {}).await.unwrap_err();
    assert_eq!(error, SubmitError::CannotPay);
    assert!(error.what_it_means().contains("anchor by commitment"));
}
