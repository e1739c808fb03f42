//! Numbers that the whole network shares: in genesis at first, in the state from then on, where the
//! owner may order others.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_challenge::recheck::TOLERANCE;
use perturb_types::limits;
use serde::{Deserialize, Serialize};

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

/// What a validator's faults cost it, in millionths of its standing, and how it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReputationRule {
    /// Whether contributions weigh less with a lower standing. Voting power never depends on it.
    pub weigh: bool,
    /// For each round opened and never closed.
    pub unclosed: u32,
    /// For each contribution rejected as an outlier.
    pub rejected: u32,
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
            rejected: 20_000,
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
    /// Rounds of one validator and challenge that may be open at once.
    pub max_open_rounds: u32,
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
}

impl Parameters {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What does not.
    pub fn validate(&self) -> Result<(), GenesisError> {
        let fault = |what: &str| Err(GenesisError::Content(format!("parameters: {what}")));
        if self.block_interval_ms == 0
            || self.max_rounds_per_epoch == 0
            || self.max_open_rounds == 0
            || self.open_round_blocks == 0
        {
            return fault("interval, rounds per epoch, open rounds and their blocks must be positive");
        }
        if self.max_block_transactions == 0
            || self.max_block_transactions as usize > limits::MAX_BLOCK_TRANSACTIONS
            || self.max_block_bytes as usize > limits::MAX_BLOCK_BYTES / 2
            || (self.max_block_bytes as usize) < limits::MAX_TRANSACTION_BYTES
        {
            return fault("block caps are outside the protocol's limits");
        }
        if matches!(self.power, PowerRule::Stake { max_share } if max_share == 0 || max_share > MILLION) {
            return fault("max_share must lie in 1..=1000000");
        }
        let (checks, rule) = (&self.spot_checks, &self.reputation);
        if checks.rate > MILLION || checks.window_blocks == 0 {
            return fault("spot_checks: rate must be at most 1000000, window_blocks positive");
        }
        if rule.missed_tolerance > MILLION || rule.recovery > MILLION {
            return fault("reputation: missed_tolerance and recovery must be at most 1000000");
        }
        Ok(())
    }
}

/// A whole in millionths.
pub const MILLION: u32 = 1_000_000;
