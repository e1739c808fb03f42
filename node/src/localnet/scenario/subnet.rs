//! What a subnet's owner changes.

use color_eyre::eyre::{Result, ensure};
use serde_json::json;

use super::{PATIENCE, Run};
use crate::localnet::plan::NETUID;
use crate::report::{EpochReport, Status};

impl Run {
    pub(super) async fn tempo_change(&mut self) -> Result<Vec<EpochReport>> {
        let shorter = self.network.plan.tempo / 3 * 2;
        self.happens("the tempo is two thirds", "dev_setTempo", &[json!(NETUID), json!(shorter)]).await?;
        let mut reports = self.two_epochs().await?;
        let follows = move |s: &[Option<Status>]| s.iter().flatten().all(|s| s.chain.tempo == shorter);
        self.until("everybody follows the new tempo", PATIENCE, follows).await?;
        reports.push(self.next_epoch().await?);
        // Epochs of this length alone lie between the last two snapshots.
        if let [.., before, last] = &reports[..] {
            let blocks = last.snapshot_block.saturating_sub(before.snapshot_block);
            ensure!(blocks < u64::from(self.network.plan.tempo), "the last epoch took {blocks} blocks of the chain");
        }
        Ok(reports)
    }

    pub(super) async fn mechanism_added(&mut self) -> Result<Vec<EpochReport>> {
        self.happens("the subnet has a second mechanism", "dev_setMechanisms", &[json!(NETUID), json!(2)]).await?;
        let reports = self.two_epochs().await?;
        ensure!(self.network.rows_of(NETUID, 1).await? == 0, "no challenge belongs to it, yet it has weights");
        Ok(reports)
    }

    pub(super) async fn commit_reveal_on(&mut self) -> Result<Vec<EpochReport>> {
        self.happens("commit-reveal is on", "dev_setCommitReveal", &[json!(NETUID), json!(true)]).await?;
        let committed = |s: &[Option<Status>]| {
            s.iter().flatten().all(|s| s.weights.iter().any(|w| w.state.starts_with("committed")))
        };
        let epoch = self.network.plan.epoch();
        self.until("everybody has committed", PATIENCE + epoch, committed).await?;
        self.two_epochs().await
    }
}
