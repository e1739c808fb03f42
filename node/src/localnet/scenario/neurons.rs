//! Hotkeys that come and go, permits and stake.

use color_eyre::eyre::{Result, ensure, eyre};
use perturb_types::Hotkey;
use serde_json::json;

use super::{PATIENCE, Run};
use crate::localnet::plan::{NETUID, seeded};
use crate::report::{EpochReport, Status};

/// The miner that things happen to: the weaker attacker.
const VICTIM: usize = 1;

/// A miner's running score in the agreed state; `None` where that knows no such miner.
fn score_of(statuses: &[Option<Status>], miner: Hotkey) -> Option<f64> {
    let first = statuses.iter().flatten().max_by_key(|s| s.height)?;
    first.miners.iter().find(|m| m.hotkey == miner).map(|m| m.mean_score)
}

impl Run {
    /// Gives the victim's uid to a newcomer who runs no miner; returns both.
    async fn deregister(&mut self) -> Result<(Hotkey, Hotkey)> {
        let (victim, newcomer) = (self.miner(VICTIM)?, Hotkey(seeded(self.network.plan.seed, "newcomer")));
        let cold = Hotkey(seeded(self.network.plan.seed, "newcomer's coldkey"));
        let names = [json!(NETUID), json!(victim.to_string()), json!(newcomer.to_string()), json!(cold.to_string())];
        self.happens("a miner's uid went to a newcomer", "dev_deregister", &names).await?;
        Ok((victim, newcomer))
    }

    pub(super) async fn deregistered_miner(&mut self) -> Result<Vec<EpochReport>> {
        let before = score_of(&self.look().await, self.miner(VICTIM)?);
        ensure!(before.is_some_and(|score| score > 0.0), "the miner had earned nothing before it was deregistered");
        let (victim, newcomer) = self.deregister().await?;
        let reports = self.two_epochs().await?;
        for report in &reports {
            let weight = |h: &Hotkey| report.weights.get(h).copied().unwrap_or(0);
            ensure!(weight(&victim) == 0, "epoch {}: the deregistered miner has a weight", report.epoch);
            ensure!(weight(&newcomer) == 0, "epoch {}: the newcomer inherited a weight", report.epoch);
        }
        let after = self.look().await;
        ensure!(score_of(&after, victim).is_none(), "the deregistered miner's history is still there");
        // It runs no miner: its own history is silence.
        ensure!(score_of(&after, newcomer) == Some(0.0), "the newcomer inherited a history");
        Ok(reports)
    }

    pub(super) async fn reregistered_hotkey(&mut self) -> Result<Vec<EpochReport>> {
        let (victim, _) = self.deregister().await?;
        let mut reports = vec![self.next_epoch().await?];
        let old = score_of(&self.look().await, victim);
        ensure!(old.is_none(), "the deregistered miner's history is still there");
        let cold = Hotkey(seeded(self.network.plan.seed, "another coldkey"));
        let names = [json!(NETUID), json!(victim.to_string()), json!(cold.to_string())];
        let done = self.happens("the miner registered again", "dev_registerHotkey", &names).await?;
        let uid = done.get("uid").and_then(serde_json::Value::as_u64).ok_or_else(|| eyre!("no uid: {done}"))?;
        reports.extend(self.two_epochs().await?);
        let last = reports.last().ok_or_else(|| eyre!("no epoch"))?;
        let row = last.miners.iter().find(|m| m.hotkey == victim);
        let row = row.ok_or_else(|| eyre!("the miner that registered again is not ranked: {:?}", last.miners))?;
        ensure!(u64::from(row.uid) == uid, "it is ranked under uid {}, registered under {uid}", row.uid);
        ensure!(last.weights.get(&victim).is_some_and(|w| *w > 0), "it earned nothing: {:?}", last.weights);
        Ok(reports)
    }

    /// Waits until the network goes on without the validator, and checks the epochs' signers.
    async fn goes_on_without(&mut self, lost: Hotkey) -> Result<Vec<EpochReport>> {
        let all = self.network.plan.validators.len();
        let mut reports = self.two_epochs().await?;
        let fewer = move |s: &[Option<Status>]| s.iter().flatten().all(|s| s.validators == all - 1);
        self.until("the set has one member less", PATIENCE, fewer).await?;
        reports.push(self.next_epoch().await?);
        let last = self.summary.epochs.last().ok_or_else(|| eyre!("no epoch"))?;
        ensure!(!last.weights_on_chain.contains_key(&lost), "weights of a validator that may set none were awaited");
        ensure!(last.weights_on_chain.len() == all - 1, "{} validators' weights", last.weights_on_chain.len());
        Ok(reports)
    }

    pub(super) async fn permit_lost(&mut self) -> Result<Vec<EpochReport>> {
        let (_, lost) = self.last_validator()?;
        let arguments = [json!(NETUID), json!(lost.to_string()), json!(false)];
        self.happens("a validator lost its permit", "dev_setPermit", &arguments).await?;
        self.goes_on_without(lost).await
    }

    pub(super) async fn stake_lost(&mut self) -> Result<Vec<EpochReport>> {
        let (_, lost) = self.last_validator()?;
        let arguments = [json!(NETUID), json!(lost.to_string()), json!(0)];
        self.happens("a validator lost its stake", "dev_setStake", &arguments).await?;
        self.goes_on_without(lost).await
    }
}
