//! What befalls the chain itself and the ways to it.

use std::time::{Duration, Instant};

use color_eyre::eyre::{Result, ensure, eyre};
use perturb_chain::Health;
use serde_json::json;

use super::{PATIENCE, Run, height};
use crate::report::{EpochReport, Status};

/// Block intervals without a block.
const STALL_BLOCKS: u64 = 300;
/// Blocks that the network itself makes meanwhile, at least.
const OWN_BLOCKS: u64 = 20;

impl Run {
    pub(super) async fn chain_stall(&mut self) -> Result<Vec<EpochReport>> {
        let before = self.look().await;
        let (at, epoch) = (height(&before), before.iter().flatten().map(|s| s.epoch).max());
        self.happens("the chain makes no blocks", "dev_setFault", &[json!({"stop_blocks": true})]).await?;
        let stall = Duration::from_millis(STALL_BLOCKS * self.network.plan.chain_block_ms);
        let began = Instant::now();
        let over = move |s: &[Option<Status>]| began.elapsed() >= stall && height(s) >= at + OWN_BLOCKS;
        self.until("the network goes on without the chain", stall + PATIENCE, over).await?;
        let after = self.look().await.iter().flatten().map(|s| s.epoch).max();
        ensure!(after == epoch, "an epoch closed without the chain: {epoch:?}, then {after:?}");
        self.happens("the chain goes on", "dev_setFault", &[json!({})]).await?;
        let back = |s: &[Option<Status>]| s.iter().flatten().all(|s| s.chain.connected);
        self.until("everybody sees the chain again", PATIENCE, back).await?;
        self.two_epochs().await
    }

    /// The first validator's first endpoint is a chain from the same genesis with other blocks.
    pub(super) async fn endpoints_disagree(&mut self) -> Result<Vec<EpochReport>> {
        let told_apart = |s: &[Option<Status>]| {
            let endpoints = s.first().and_then(Option::as_ref).map(|s| &s.endpoints[..]);
            matches!(endpoints, Some([wrong, right]) if right.in_use && matches!(wrong.health, Health::Forked { .. }))
        };
        self.until("the validator has left the other chain", PATIENCE, told_apart).await?;
        self.view.say("scenario: a validator's first endpoint follows another chain; it uses the second");
        self.two_epochs().await
    }

    pub(super) async fn runtime_upgrade(&mut self) -> Result<Vec<EpochReport>> {
        let version = self.network.dev("state_getRuntimeVersion", &[]).await?;
        let spec = version.get("specVersion").and_then(serde_json::Value::as_u64);
        let spec = spec.ok_or_else(|| eyre!("no spec version: {version}"))? + 1;
        self.happens(&format!("the runtime is upgraded to {spec}"), "dev_upgradeRuntime", &[json!(spec)]).await?;
        self.two_epochs().await
    }
}
