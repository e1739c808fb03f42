//! A validator beside its chain: whom it admits, and what it anchors.

use std::sync::Arc;

use perturb_chain::{AnchorCall, AnchorState, Anchoring, Anchors, BlockHash, ChainClient, ChainOptions, Submitted};
use perturb_consensus::Status;
use perturb_ledger::{Anchor, AnchorKind, AnchorPlace, Ledger};
use perturb_p2p::{Authority, Role};
use perturb_storage::Database;
use perturb_types::{ConsensusPair, Digest, Hotkey};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::world::{commit, genesis, history};
use crate::config::AnchorPolicy;
use crate::localnet::plan::Plan;
use crate::metagraph::Metagraph;
use crate::validator::agreed::Agreed;
use crate::validator::anchors::{self, Policy};

#[tokio::test]
async fn a_member_of_the_agreed_set_is_admitted_whatever_it_holds_on_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(&dir.path().join("net"), 9, 4, 0, 2).unwrap();
    let genesis = genesis(&plan);
    let db = history(&dir.path().join("node"), &plan, &genesis, 0);
    let client = ChainClient::new(&["ws://127.0.0.1:9".into()], ChainOptions::default()).unwrap();
    // More stake than anybody has: by the chain nobody would be a validator.
    let metagraph = Metagraph::follow(client, genesis.netuid, u64::MAX, Some(db), CancellationToken::new());
    let why = |hotkey: Hotkey, role| metagraph.allows(&hotkey, role).unwrap_err().0;
    for member in &plan.validators {
        metagraph.allows(&member.hotkey.hotkey(), Role::Validator).unwrap();
    }
    let miner = plan.miners[0].hotkey.hotkey();
    metagraph.allows(&miner, Role::Miner).unwrap();
    assert!(why(miner, Role::Validator).contains("no validator permit"));
    assert!(why(Hotkey([7; 32]), Role::Validator).contains("not registered"));
}

/// A validator's part of anchoring, over an agreed history that grows.
struct Growing {
    ledger: Ledger<Database>,
    pairs: Vec<ConsensusPair>,
    machine: watch::Sender<Status>,
    due: mpsc::Receiver<Anchoring>,
    _folder: tempfile::TempDir,
}

impl Growing {
    /// With what was anchored before. `member`: which of the plan's validators this is; a stranger where there is none.
    fn start(policy: Policy, before: Anchors, member: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::new(&folder.path().join("net"), 9, 4, 0, 2).unwrap();
        let genesis = genesis(&plan);
        let db = history(&folder.path().join("node"), &plan, &genesis, 0);
        let ledger = Ledger::new(genesis.clone(), db.clone()).unwrap();
        let pairs = plan.validators.iter().map(|v| plan.consensus(v)).collect();
        let (machine, status) = watch::channel(Status::default());
        let (told, anchored) = watch::channel(Anchors::default());
        let (sender, due) = mpsc::channel(8);
        let me = plan.validators.get(member).map_or(Hotkey([7; 32]), |v| v.hotkey.hotkey());
        tokio::spawn(anchors::run(Arc::new(Agreed::new(db, genesis)), me, policy, status, anchored, sender));
        told.send_replace(before);
        Self { ledger, pairs, machine, due, _folder: folder }
    }

    /// Closes an epoch, and makes the block after it; the node is told, and says what is to be anchored now.
    async fn epoch(&mut self, network_height: u64) -> Option<Anchoring> {
        commit(&mut self.ledger, &self.pairs, vec![], true);
        assert!(self.look(network_height).await.is_none(), "the certificate is named by the next header");
        commit(&mut self.ledger, &self.pairs, vec![], false);
        self.look(network_height).await
    }

    async fn look(&mut self, network_height: u64) -> Option<Anchoring> {
        let height = self.ledger.head().height;
        self.machine.send_replace(Status { height, network_height, ..Status::default() });
        // On one thread the other task has looked when this one comes back, and waits for the next change.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        self.due.try_recv().ok()
    }
}

#[tokio::test]
async fn each_closed_epoch_is_anchored_as_the_headers_have_it() {
    let mut growing = Growing::start(Policy { how: AnchorPolicy::Remark, every: 1 }, Anchors::new(), 0);
    for epoch in 0..3 {
        let anchoring = growing.epoch(0).await.unwrap();
        let AnchorCall::Remark { bytes } = &anchoring.call else { panic!("{anchoring:?}") };
        let (anchor, db) = (Anchor::from_bytes(bytes).unwrap(), growing.ledger.store());
        let closing = db.header(anchor.height).unwrap().unwrap();
        assert_eq!((anchoring.epoch, anchor.epoch, closing.epoch), (epoch, epoch, epoch + 1));
        let network = growing.ledger.network();
        assert_eq!((anchor.header, anchor.state_root), (closing.digest(&network), closing.state_root));
        let next = db.header(anchor.height + 1).unwrap().unwrap();
        assert_eq!(anchor.certificate, next.parent_certificate);
        assert!(growing.look(0).await.is_none(), "once");
    }
}

#[tokio::test]
async fn epochs_between_anchors_are_left_out_also_after_a_restart() {
    let policy = Policy { how: AnchorPolicy::Commitment, every: 3 };
    let mut growing = Growing::start(policy, Anchors::new(), 0);
    let mut anchored = Vec::new();
    for _ in 0..5 {
        anchored.push(growing.epoch(0).await.is_some());
    }
    assert_eq!(anchored, [true, false, false, true, false]);

    let before = Anchors::from([(1, Anchoring::new(1, AnchorCall::Remark { bytes: vec![] }))]);
    let mut growing = Growing::start(policy, before, 0);
    let mut anchored = Vec::new();
    for _ in 0..5 {
        anchored.push(growing.epoch(0).await.is_some());
    }
    assert_eq!(anchored, [false, false, false, false, true]);
}

#[tokio::test]
async fn who_is_no_member_or_fetches_blocks_or_has_no_policy_anchors_nothing() {
    let policy = Policy { how: AnchorPolicy::Remark, every: 1 };
    let mut stranger = Growing::start(policy, Anchors::new(), 99);
    assert!(stranger.epoch(0).await.is_none());
    let mut silent = Growing::start(Policy { how: AnchorPolicy::None, ..policy }, Anchors::new(), 0);
    assert!(silent.epoch(0).await.is_none());
    let mut behind = Growing::start(policy, Anchors::new(), 0);
    assert!(behind.epoch(100).await.is_none() && behind.epoch(100).await.is_none());
    let caught_up = behind.look(4).await.unwrap();
    assert_eq!(caught_up.epoch, 1, "the newest, which covers the others");
}

#[test]
fn what_has_landed_is_said_with_its_place() {
    let block_hash = BlockHash([3; 32]);
    let submitted = Submitted { block_number: 9, block_hash, index: 2, extrinsic_hash: BlockHash([4; 32]) };
    let mut landed = Anchoring::new(5, AnchorCall::Remark { bytes: vec![1] });
    landed.state = AnchorState::Anchored { submitted };
    let mut due = Anchoring::new(6, AnchorCall::Remark { bytes: vec![2] });
    due.last_error = Some("the chain is away".into());
    let mut all = Anchors::from([(5, landed)]);
    assert_eq!(anchors::newest_in_words(&all).unwrap(), "epoch 5 as remark: in chain block 9, extrinsic 2");
    all.insert(6, due);
    assert_eq!(anchors::newest_in_words(&all).unwrap(), "epoch 6 as remark: due (last: the chain is away)");
    let me = Hotkey([1; 32]);
    let place = AnchorPlace {
        epoch: 5,
        kind: AnchorKind::Remark,
        hotkey: me,
        block_number: 9,
        block_hash: Digest([3; 32]),
        index: 2,
    };
    assert_eq!(anchors::places(&all, me), [place]);
}
