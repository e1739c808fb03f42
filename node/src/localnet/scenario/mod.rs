//! What happens on the chain while a network runs: each event a run of its own, which ends with the right weights
//! on the chain.
//!
//! A scenario lets one epoch pass, brings its event about by the development chain's own calls, and lets the epochs
//! pass that show what came of it. Every epoch's weights are read back from the chain as in any run.

mod chain;
mod neurons;
mod subnet;

use std::time::Duration;

use clap::ValueEnum;
use color_eyre::eyre::{Result, ensure, eyre};
use perturb_types::Hotkey;
use serde_json::Value;

use super::Run;
use super::plan::Plan;
use crate::report::{EpochReport, Status};

/// How long a condition may take to come true.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// An event on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A miner loses its uid to a newcomer, which inherits nothing.
    DeregisteredMiner,
    /// A miner that lost its uid registers again, and begins anew.
    ReregisteredHotkey,
    /// A validator loses its permit in the middle of an epoch.
    PermitLost,
    /// A validator loses its stake in the middle of an epoch.
    StakeLost,
    /// The subnet's owner shortens the tempo.
    TempoChange,
    /// The subnet gets a second mechanism.
    MechanismAdded,
    /// The subnet's owner switches commit-reveal on.
    CommitRevealOn,
    /// No block for 300 block intervals.
    ChainStall,
    /// A validator's first endpoint follows another chain.
    EndpointsDisagree,
    /// The chain's runtime is upgraded.
    RuntimeUpgrade,
}

impl Scenario {
    /// What a plan needs for it before anything is started.
    pub fn prepare(self, plan: Plan) -> Plan {
        match self {
            // Three hundred intervals of a fast chain are soon over; its epochs last as long as otherwise.
            Self::ChainStall => Plan { chain_block_ms: 250, tempo: 180, ..plan },
            Self::EndpointsDisagree => Plan { decoy: true, ..plan },
            _ => plan,
        }
    }
}

pub(super) fn height(statuses: &[Option<Status>]) -> u64 {
    statuses.iter().flatten().map(|s| s.height).max().unwrap_or(0)
}

impl Run {
    /// Plays a scenario and returns its epochs.
    ///
    /// # Errors
    /// What should have come of the event has not.
    pub async fn scenario(&mut self, scenario: Scenario) -> Result<Vec<EpochReport>> {
        let (validators, miners) = (self.network.plan.validators.len(), self.network.plan.miners.len());
        let all_up = move |s: &[Option<Status>]| {
            s.iter().flatten().count() == validators
                && s.iter().flatten().all(|s| s.height >= 3 && s.peers.miners >= miners)
        };
        self.until("the network stands", PATIENCE, all_up).await?;
        let mut reports = vec![self.next_epoch().await?];
        let more = match scenario {
            Scenario::DeregisteredMiner => self.deregistered_miner().await,
            Scenario::ReregisteredHotkey => self.reregistered_hotkey().await,
            Scenario::PermitLost => self.permit_lost().await,
            Scenario::StakeLost => self.stake_lost().await,
            Scenario::TempoChange => self.tempo_change().await,
            Scenario::MechanismAdded => self.mechanism_added().await,
            Scenario::CommitRevealOn => self.commit_reveal_on().await,
            Scenario::ChainStall => self.chain_stall().await,
            Scenario::EndpointsDisagree => self.endpoints_disagree().await,
            Scenario::RuntimeUpgrade => self.runtime_upgrade().await,
        }?;
        reports.extend(more);
        Ok(reports)
    }

    /// A development call, said in the run's output.
    async fn happens(&mut self, what: &str, method: &str, parameters: &[Value]) -> Result<Value> {
        let done = self.network.dev(method, parameters).await?;
        self.view.say(&format!("scenario: {what}"));
        Ok(done)
    }

    async fn two_epochs(&mut self) -> Result<Vec<EpochReport>> {
        Ok(vec![self.next_epoch().await?, self.next_epoch().await?])
    }

    /// The hotkey of a miner of the plan.
    fn miner(&self, i: usize) -> Result<Hotkey> {
        let miner = self.network.plan.miners.get(i).ok_or_else(|| eyre!("the scenario needs {} miners", i + 1))?;
        Ok(miner.hotkey.hotkey())
    }

    /// The last validator, whom things happen to.
    fn last_validator(&self) -> Result<(usize, Hotkey)> {
        let validators = &self.network.plan.validators;
        ensure!(validators.len() >= 4, "the scenario needs 4 validators, so that 3 of them are a quorum");
        let last = validators.len() - 1;
        Ok((last, validators[last].hotkey.hotkey()))
    }
}
