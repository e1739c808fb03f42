//! The genesis file of a local network, made for a small machine: short histories, short epochs.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use color_eyre::eyre::{Context, Result};
use perturb_chain::ChainClient;
use perturb_challenge::rules::{Rules, SemanticRule};
use perturb_challenge::source::{DemoSource, ImageSource};
use perturb_ledger::genesis::{
    Aggregation, ChallengeSpec, Draws, Genesis, GenesisDelegation, Parameters, SpotChecks, Timeouts,
};
use perturb_ledger::tx::{Delegation, Snapshot};
use perturb_ledger::validators::PowerRule;
use perturb_model::TchClassifier;
use perturb_types::{Beacon, ChallengeId, Digest, Hotkey, NetworkId};

use super::plan::{NETUID, Plan, seeded};
use crate::metagraph;

/// Scores in a history: an epoch of 45 s has room for it, with rounds that wait for two blocks and their
/// deadline.
const HISTORY: u32 = 4;

/// Time from one round's start to the next one's: fills a history well within an epoch.
const ROUND_INTERVAL_MS: u32 = 2500;

/// The time within which an answer counts.
const DEADLINE_MS: u32 = 2500;

/// The time in which the speed part of a score runs down: longer than the deadline, so that a machine
/// with other work to do does not decide who is first.
const SPEED_MS: u32 = 10_000;

/// Part of the rounds that are checked, millionths: with the usual one a run of minutes now and then draws none.
const CHECK_RATE: u32 = 150_000;

/// Blocks in which verdicts on a drawn round count: an epoch has some forty.
const CHECK_WINDOW_BLOCKS: u64 = 10;

/// From this median on less than half of it is idle. An epoch of 45 s has some 8 rounds of each: who was killed in
/// the middle of one of them is not idle by that.
const MIN_WORK: u32 = 10;

/// From a result to its draw, at least: within an epoch.
const DRAW_DELAY_MS: u32 = 12_000;

/// Blocks, of a second each, that a result waits for a pulse: longer than a chain is away in a drill.
const DRAW_RETENTION_BLOCKS: u64 = 120;

/// Images of the demo set.
const IMAGES: u64 = 10_000;

/// Writes the genesis file of a plan.
///
/// # Errors
/// The chain cannot be read, or the file not written.
pub async fn write(plan: &Plan, chain: &ChainClient, path: &Path) -> Result<()> {
    let chain_genesis = Digest(chain.genesis_hash().await?.0);
    let snapshot = metagraph::to_ledger(&chain.snapshot(NETUID, None).await?);
    let text = serde_json::to_string_pretty(&of(plan, chain_genesis, snapshot)?)?;
    std::fs::write(path, text).wrap_err_with(|| format!("{}", path.display()))
}

/// The genesis of a plan on a chain.
///
/// # Errors
/// The embedded model does not load, or the snapshot makes no network.
pub fn of(plan: &Plan, chain_genesis: Digest, snapshot: Snapshot) -> Result<Genesis> {
    let zero = NetworkId([0; 32]);
    let founders = &plan.validators[..plan.founders];
    let delegations = founders
        .iter()
        .map(|v| GenesisDelegation::of(&Delegation::sign(&zero, &v.hotkey, &plan.consensus(v), 0)))
        .collect();
    let classifier = TchClassifier::embedded(tch::Device::Cpu)?;
    // WordNet knows ImageNet's classes, not those of the demo.
    let semantic = match &plan.rules.semantic {
        SemanticRule::Wordnet => SemanticRule::Exact,
        other => other.clone(),
    };
    let rules = plan.rules.clone().with_history_len(HISTORY);
    let rules = Rules { timeout_ms: SPEED_MS, deadline_ms: DEADLINE_MS, semantic, ..rules };
    // The seed of the images follows from the seed of the network; it is none the model was trained on.
    let seed = u64::from_le_bytes(seeded(plan.seed, "images")[..8].try_into().unwrap_or_default());
    let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let genesis = Genesis {
        chain_genesis,
        netuid: NETUID,
        time_ms,
        snapshot,
        delegations,
        owner: Hotkey(seeded(plan.seed, "owner")),
        challenges: vec![ChallengeSpec {
            id: ChallengeId(0),
            mechanism: 0,
            rules,
            model: "demo".into(),
            model_digest: Digest(classifier.file_digest()),
            source: format!("demo:{seed}:{IMAGES}"),
            source_fingerprint: DemoSource::new(seed, IMAGES).fingerprint(),
            source_len: IMAGES,
            interval_ms: ROUND_INTERVAL_MS,
            miners_per_round: 64,
            aggregation: Aggregation::Quantile,
            min_confidence: 50_000,
        }],
        parameters: Parameters {
            min_stake_rao: 1000 * 1_000_000_000,
            power: PowerRule::Stake { max_share: 250_000 },
            block_interval_ms: 1000,
            max_block_transactions: 1000,
            max_block_bytes: 1 << 20,
            max_rounds_per_epoch: 200,
            open_round_blocks: 30,
            burn_uid: 0,
            timeouts: Timeouts {
                propose_ms: 3000,
                propose_delta_ms: 500,
                prevote_ms: 1000,
                prevote_delta_ms: 500,
                precommit_ms: 1000,
                precommit_delta_ms: 500,
            },
            spot_checks: SpotChecks { rate: CHECK_RATE, window_blocks: CHECK_WINDOW_BLOCKS, ..SpotChecks::default() },
            reputation: Default::default(),
            min_work: MIN_WORK,
            proposal_age_ms: 5_000,
            order_delay_blocks: 30,
            draws: Draws { delay_ms: DRAW_DELAY_MS, pulse_stride: 1, retention_blocks: DRAW_RETENTION_BLOCKS },
        },
        beacon: Beacon::DEVELOPMENT,
    };
    genesis.validate()?;
    Ok(genesis)
}
