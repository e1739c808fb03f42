//! Numbers that the whole network shares: in genesis at first, in the state from then on, where the
//! owner may order others.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_challenge::recheck::TOLERANCE;
use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::genesis::GenesisError;
use crate::validators::PowerRule;

/// The engine's waits, milliseconds: base and what each round adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// For a proposal.
    pub propose_ms: u32,
    /// More for each round.
    pub propose_delta_ms: u32,
    /// For prevotes.
    pub prevote_ms: u32,
    /// More for each round.
    pub prevote_delta_ms: u32,
    /// For precommits.
    pub precommit_ms: u32,
    /// More for each round.
    pub precommit_delta_ms: u32,
}

/// How closed rounds are checked again by everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpotChecks {
    /// Rounds of a million that are checked; 0 checks none.
    pub rate: u32,
    /// Blocks after the draw in which verdicts count.
    pub window_blocks: u64,
    /// Millionths of a logit by which two machines' margins may differ.
    pub margin_tolerance: u32,
}

impl Default for SpotChecks {
    fn default() -> Self {
        Self { rate: 20_000, window_blocks: 200, margin_tolerance: TOLERANCE }
    }
}

/// How long a closed round waits until a pulse draws it, or spares it ([`crate::draw`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draws {
    /// Milliseconds, at least, from the time in the header after a result's to the pulse.
    pub delay_ms: u32,
    /// Rounds of the beacon from one pulse that draws to the next.
    pub pulse_stride: u32,
    /// Blocks after which a round whose pulse never came is not drawn any more.
    pub retention_blocks: u64,
}

impl Default for Draws {
    /// With quicknet's rounds of 3 s: a draw every 30 s, a minute and more after the result.
    fn default() -> Self {
        Self { delay_ms: 60_000, pulse_stride: 10, retention_blocks: 3_600 }
    }
}

/// What a validator's faults cost it, in millionths of its standing, and how it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReputationRule {
    /// Whether contributions weigh less with a lower standing. Voting power never depends on it.
    pub weigh: bool,
    /// For each round opened and never closed.
    pub unclosed: u32,
    /// For each failed spot check.
    pub failed_check: u32,
    /// For each proved equivocation.
    pub equivocation: u32,
    /// Once per epoch in which more than `missed_tolerance` of the certificates lack its vote.
    pub missed_votes: u32,
    /// Part of an epoch's certificates (millionths) that may lack its vote: a certificate needs no
    /// more than two thirds, and its maker chooses which.
    pub missed_tolerance: u32,
    /// Regained with each epoch that closes.
    pub recovery: u32,
}

impl Default for ReputationRule {
    fn default() -> Self {
        Self {
            weigh: true,
            unclosed: 10_000,
            failed_check: 200_000,
            equivocation: 1_000_000,
            missed_votes: 50_000,
            missed_tolerance: 500_000,
            recovery: 25_000,
        }
    }
}

/// Numbers that the whole network shares.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Least stake of a member, rao.
    pub min_stake_rao: u64,
    /// Stake to power.
    pub power: PowerRule,
    /// Milliseconds from one height's start to the next one's.
    pub block_interval_ms: u32,
    /// Transactions of a block.
    pub max_block_transactions: u32,
    /// Bytes of a block's transactions.
    pub max_block_bytes: u32,
    /// Rounds of one validator, challenge and epoch.
    pub max_rounds_per_epoch: u32,
    /// Blocks after which an opened round counts as never closed.
    pub open_round_blocks: u64,
    /// Uid that gets everything where nobody earned.
    pub burn_uid: u16,
    /// The engine's waits.
    pub timeouts: Timeouts,
    /// Spot checks.
    #[serde(default)]
    pub spot_checks: SpotChecks,
    /// What faults cost.
    #[serde(default)]
    pub reputation: ReputationRule,
    /// Median of the rounds that members close in an epoch, and of the verdicts they give, from which
    /// on less than half of it is idle; 0 binds nobody. See [`crate::work`].
    #[serde(default = "min_work")]
    pub min_work: u32,
    /// Milliseconds by which a fresh proposal's time may lie behind a voter's clock when it comes, in
    /// round 0: who proposes cannot date a block back to before something that is known by now. Later
    /// rounds allow more.
    #[serde(default = "default_proposal_age_ms")]
    pub proposal_age_ms: u32,
    /// Blocks for which every order of the owner waits before it holds. No order changes it.
    #[serde(default = "default_order_delay_blocks")]
    pub order_delay_blocks: u32,
    /// Draws.
    #[serde(default)]
    pub draws: Draws,
}

/// Work of an epoch below which differences are chance.
fn min_work() -> u32 {
    10
}

/// Well above the lag of honest clocks and wires, well below the delay of a draw.
fn default_proposal_age_ms() -> u32 {
    10_000
}

/// An hour of blocks of 6 s.
fn default_order_delay_blocks() -> u32 {
    600
}

impl Parameters {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What does not.
    pub fn validate(&self) -> Result<(), GenesisError> {
        bounds::parameters(self)?;
        let fault = |what: &str| Err(GenesisError::Content(format!("parameters: {what}")));
        if self.spot_checks.rate > MILLION {
            return fault("spot_checks: rate must be at most 1000000");
        }
        Ok(())
    }
}

/// A whole in millionths.
pub const MILLION: u32 = 1_000_000;
