//! What a node tells about itself over JSON-RPC: the shapes that `status`, the live view and
//! other programs read.
//!
//! Methods: `perturb_status`, `perturb_epoch(n)`, `perturb_validators`, `perturb_checks`,
//! `perturb_orders`, `perturb_optimistic`, `perturb_anchors`, `perturb_peers`, `rpc_methods`.

use std::collections::BTreeMap;

use perturb_chain::EndpointHealth;
use perturb_types::{ConsensusKey, Digest, Hotkey, NetworkId};
use serde::{Deserialize, Serialize};

/// `perturb_status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The network.
    pub network: NetworkId,
    /// This validator.
    pub hotkey: Hotkey,
    /// Its consensus key.
    pub consensus_key: ConsensusKey,
    /// Its peer id.
    pub peer_id: String,
    /// Height of the newest agreed block.
    pub height: u64,
    /// Its digest.
    pub block: Digest,
    /// Its state root.
    pub state_root: Digest,
    /// Its time, Unix milliseconds.
    pub block_time_ms: u64,
    /// The lowest height above genesis whose block is held: older ones were pruned, or came as a snapshot.
    pub oldest_block: u64,
    /// The consensus round of the height in the making; none between two heights.
    pub round: Option<u32>,
    /// The epoch in the making.
    pub epoch: u64,
    /// Whether this validator is a member of the current set.
    pub member: bool,
    /// Members of the current set.
    pub validators: usize,
    /// Whether it is fetching blocks instead of voting.
    pub syncing: bool,
    /// Transactions waiting for a block.
    pub mempool: usize,
    /// Connected validators and miners.
    pub peers: Peers,
    /// The chain, as this validator sees it.
    pub chain: ChainStatus,
    /// This validator's own rounds since it started.
    pub rounds: Rounds,
    /// Answers judged by all validators in agreed blocks of this epoch.
    pub epoch_results: u64,
    /// Every miner's running score in the agreed state.
    pub miners: Vec<Running>,
    /// Rounds of this and other validators that are being checked again.
    pub checks: usize,
    /// Drawn rounds that this validator found to hold, to fail, and could not tell of since it started.
    #[serde(default)]
    pub verdicts: [u64; 3],
    /// This validator's standing, 0 to 1.
    pub standing: f64,
    /// The first epoch of which it may be a member again, where it was dropped as idle.
    #[serde(default)]
    pub idle_until: Option<u64>,
    /// Newest epoch whose weights this validator has read back from the chain, for every mechanism.
    pub weights_epoch: Option<u64>,
    /// Its vectors on their way to the chain, of the last epochs.
    #[serde(default)]
    pub weights: Vec<WeightsReport>,
    /// Its newest anchor on the chain, in words; none where it makes none.
    #[serde(default)]
    pub anchor: Option<String>,
    /// The chain's endpoints, as last asked after; empty where there is only one.
    #[serde(default)]
    pub endpoints: Vec<EndpointHealth>,
}

/// One agreed vector on its way to the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsReport {
    /// The mechanism.
    pub mechanism: u8,
    /// The network's epoch.
    pub epoch: u64,
    /// How far it has come, in words.
    pub state: String,
    /// The last refusal.
    pub error: Option<String>,
}

impl Status {
    /// The round as people read it.
    pub fn round_text(&self) -> String {
        self.round.map_or_else(|| "–".into(), |round| round.to_string())
    }
}

/// Connected peers by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Validators.
    pub validators: usize,
    /// Miners.
    pub miners: usize,
}

/// The chain's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainStatus {
    /// Whether new blocks arrive.
    pub connected: bool,
    /// The newest final block.
    pub finalized: u64,
    /// The subnet's epoch index there.
    pub epoch_index: u64,
    /// Blocks since the subnet's last epoch, of `tempo`.
    pub into_epoch: u64,
    /// Blocks per epoch.
    pub tempo: u16,
}

/// A validator's own rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounds {
    /// Opened.
    pub opened: u64,
    /// Closed with a signed result.
    pub closed: u64,
    /// Answers judged.
    pub answers: u64,
}

/// A miner's running score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Its number on the subnet.
    pub uid: u16,
    /// The miner.
    pub hotkey: Hotkey,
    /// Answers counted over all validators.
    pub results: u64,
    /// Mean over the validators' recent means, 0 to 1.
    pub mean_score: f64,
}

/// `perturb_epoch(n)`: an epoch that is closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch.
    pub epoch: u64,
    /// The closing block's height.
    pub height: u64,
    /// The state root after it.
    pub state_root: Digest,
    /// Answers that entered the histories in it.
    pub results: u64,
    /// Block of the chain whose metagraph the weights refer to.
    pub snapshot_block: u64,
    /// The ranked miners of challenge 0.
    pub miners: Vec<EpochMiner>,
    /// The agreed vector of challenge 0, by hotkey; a uid without a hotkey does not occur.
    pub weights: BTreeMap<Hotkey, u16>,
}

/// A miner in a closed epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMiner {
    /// Its number on the subnet.
    pub uid: u16,
    /// The miner.
    pub hotkey: Hotkey,
    /// Answers counted so far, over all validators.
    pub results: u64,
    /// The agreed score, 0 to 1.
    pub aggregate: f64,
    /// exp(−σ/0.1).
    pub confidence: f64,
    /// Share of the emission, 0 to 1.
    pub share: f64,
    /// The agreed u16 weight.
    pub weight: u16,
    /// The epoch that the score is from, where too few contributed and it is kept.
    #[serde(default)]
    pub kept_from: Option<u64>,
}

/// `perturb_validators`: a member of the current set, or one that faults are known of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidatorReport {
    /// The validator.
    pub hotkey: Hotkey,
    /// Its voting power; 0 where it is no member.
    pub power: u64,
    /// What its contributions weigh beside its power, 0 to 1.
    pub standing: f64,
    /// Rounds opened and never closed, in this epoch and before.
    pub unclosed: [u64; 2],
    /// Owners of miners for whom it was an outlier in the last epoch, and to whose miners it
    /// contributed, over all challenges. It costs nothing; a majority has its rounds checked more often.
    pub outlier: [u64; 2],
    /// Rounds closed and verdicts given in this epoch.
    pub work: [u64; 2],
    /// Spot checks for which it was struck.
    pub failed_checks: [u64; 2],
    /// Certificates that lack its vote.
    pub missed_votes: [u64; 2],
    /// Proofs of contradicting signatures.
    pub equivocations: [u64; 2],
}

/// `perturb_checks`: a drawn round and what members found, until its window is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The round's validator.
    pub validator: Hotkey,
    /// The challenge.
    pub challenge: u16,
    /// The validator's number.
    pub seq: u64,
    /// The height at which it was drawn.
    pub drawn: u64,
    /// The first height at which its window is over.
    pub over: u64,
    /// Power that says that it fails, that it holds, that it cannot tell, and that has not spoken.
    pub power: [u64; 4],
    /// All power, the round's validator included.
    pub total: u64,
    /// Whether its validator was struck for it.
    pub struck: bool,
    /// What each member found, in words.
    pub verdicts: BTreeMap<Hotkey, String>,
}

/// `perturb_orders`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    /// The network.
    pub network: NetworkId,
    /// Height of the newest agreed block.
    pub height: u64,
    /// Whose orders are obeyed.
    pub owner: Hotkey,
    /// The nonce of the next order.
    pub nonce: u64,
    /// Blocks for which an order waits at least.
    pub delay: u64,
    /// Orders that wait for their height.
    pub waiting: Vec<WaitingOrder>,
}

/// An order that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingOrder {
    /// From which height on it holds.
    pub height: u64,
    /// Its nonce.
    pub nonce: u64,
    /// The order.
    pub order: serde_json::Value,
}

/// `perturb_optimistic`: results that no block has yet, and what they would change. Nothing here is
/// agreed, and nothing agreed depends on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimistic {
    /// Always false: what this is not.
    pub confirmed: bool,
    /// Height of the newest agreed block below it.
    pub after_height: u64,
    /// Closed rounds that wait for a block.
    pub rounds: Vec<PendingRound>,
    /// The miners that they touch.
    pub miners: Vec<OptimisticMiner>,
}

/// A round that waits for a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingRound {
    /// Its validator.
    pub validator: Hotkey,
    /// The challenge.
    pub challenge: u16,
    /// The validator's number.
    pub seq: u64,
    /// Scores by miner, 0 to 1.
    pub scores: BTreeMap<Hotkey, f64>,
}

/// A miner with and without what waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimisticMiner {
    /// The miner.
    pub hotkey: Hotkey,
    /// Mean over the validators' means in the agreed state, 0 to 1.
    pub confirmed: f64,
    /// The same with what waits.
    pub optimistic: f64,
    /// Scores that wait.
    pub waiting: u64,
}
