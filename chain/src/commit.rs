//! Committing to weights: what is read off the chain for it, and the call.
//!
//! The reveal is foreseen from the *best* block, where the commit will land next, and timed from that block's own
//! timestamp: a machine's wrong clock cannot make a commit that never opens. Should the commit land in a later epoch
//! than foreseen, it opens before the chain reveals it, never after.

use std::sync::Arc;

use perturb_types::{Digest, Hotkey};
use serde::{Deserialize, Serialize};
use subxt::Metadata;
use subxt::dynamic::Value;
use subxt::ext::scale_decode::DecodeAsType;
use subxt::ext::scale_value::Composite;
use subxt::utils::AccountId32;

use crate::call::{NamedCall, WeightsCall, call_name};
use crate::link::Link;
use crate::options::DEFAULT_BLOCK_TIME_MS;
use crate::read::Reader;
use crate::schedule::{EpochSchedule, MAX_REVEAL_PERIOD};
use crate::timelock::{self, Beacon, COMMIT_REVEAL_VERSION, Payload, round_for};
use crate::{ChainClient, ChainError, PALLET, SubmitError};

/// Commits that one epoch of one mechanism may hold: ten of each of at most 4096 neurons.
const MAX_COMMITS: usize = 40_960;

/// A commit as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// SHA-256 of its bytes, by which it is found on the chain.
    pub digest: Digest,
    /// The beacon's round that opens it.
    pub round: u64,
    /// The first block in which the chain is foreseen to reveal it.
    pub reveal_block: u64,
}

/// A commit of ours that waits on the chain to be revealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingCommit {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The block it landed in.
    pub block: u64,
}

/// The chain's record of its beacon, in whole seconds: a development chain's shorter period is rounded up.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct BeaconConfig {
    public_key: Vec<u8>,
    period: u32,
    genesis_time: u32,
}

impl BeaconConfig {
    fn is(&self, beacon: &Beacon) -> bool {
        self.public_key == beacon.public_key
            && u64::from(self.period) == beacon.period_ms.div_ceil(1000)
            && u64::from(self.genesis_time) * 1000 == beacon.genesis_ms
    }
}

impl Reader {
    /// The state of a subnet's epochs. Runtimes without stateful epochs have none.
    pub(crate) async fn schedule(&self, netuid: u16) -> Result<EpochSchedule, ChainError> {
        Ok(EpochSchedule {
            block: self.number,
            last_epoch_block: self.required("LastEpochBlock", (netuid,)).await?,
            pending_epoch_at: self.required("PendingEpochAt", (netuid,)).await?,
            epoch_index: self.required("SubnetEpochIndex", (netuid,)).await?,
            tempo: self.required("Tempo", (netuid,)).await?,
            blocks_since_last_step: self.required("BlocksSinceLastStep", (netuid,)).await?,
        })
    }

    /// Epochs from a commit to its reveal.
    pub(crate) async fn reveal_period(&self, netuid: u16) -> Result<u64, ChainError> {
        self.required("RevealPeriodEpochs", (netuid,)).await
    }

    /// The commits of `hotkey` that wait to be revealed; none where the runtime knows no commits.
    pub(crate) async fn waiting_commits(
        &self,
        netuid: u16,
        mecid: u8,
        hotkey: Hotkey,
    ) -> Result<Vec<WaitingCommit>, ChainError> {
        const ENTRY: &str = "TimelockedWeightCommits";
        type Entry = (AccountId32, u64, Vec<u8>, u64);
        let index = self.index(netuid, mecid)?;
        let epoch = self.epoch_index(netuid).await?;
        let period = self.value::<_, u64>("RevealPeriodEpochs", (netuid,)).await?.unwrap_or(0).min(MAX_REVEAL_PERIOD);
        let mut ours = Vec::new();
        // An epoch that is due in the next block has begun for commits.
        for epoch in epoch.saturating_sub(period)..=epoch.saturating_add(1) {
            let Some(entries) = self.value::<_, Vec<Entry>>(ENTRY, (index, epoch)).await? else { continue };
            if entries.len() > MAX_COMMITS {
                return Err(self.link.inconsistent(format_args!("{} commits of epoch {epoch}", entries.len())));
            }
            let of_us = entries.into_iter().filter(|(who, ..)| who.0 == hotkey.0);
            ours.extend(of_us.map(|(_, block, bytes, _)| WaitingCommit { digest: Digest::of(&bytes), block }));
        }
        Ok(ours)
    }

    /// Refuses a chain that follows another beacon than `ours`: its commits would never open. A runtime that does not
    /// name its beacon is believed.
    async fn check_beacon(&self, ours: &Beacon) -> Result<(), SubmitError> {
        match self.of_pallet::<_, BeaconConfig>("Drand", "BeaconConfig", ()).await? {
            Some(theirs) if !theirs.is(ours) => Err(SubmitError::OtherBeacon),
            _ => Ok(()),
        }
    }
}

impl ChainClient {
    /// A commit for the block after the best one, and its bytes.
    pub(crate) async fn make_commit(
        &self,
        link: &Arc<Link>,
        hotkey: Hotkey,
        call: &WeightsCall,
    ) -> Result<(Commit, Vec<u8>), SubmitError> {
        let (number, hash) = link.best().await?;
        let reader = Reader::at(Arc::clone(link), number, hash).await?;
        let beacon = &self.options().beacon;
        reader.check_beacon(beacon).await?;
        let schedule = reader.schedule(call.netuid).await?;
        let reveal = schedule.reveal_after(reader.reveal_period(call.netuid).await?)?;
        let now_ms = reader.of_pallet::<_, u64>("Timestamp", "Now", ()).await?;
        let now_ms = now_ms.ok_or_else(|| link.not_in_metadata("storage Timestamp.Now"))?;
        let block_ms =
            self.options().block_time_ms.or_else(|| reader.slot_duration_ms()).unwrap_or(DEFAULT_BLOCK_TIME_MS);
        let round = round_for(beacon, now_ms, reveal.block.saturating_sub(number), block_ms);
        let payload = Payload {
            hotkey: hotkey.0.to_vec(),
            uids: call.weights.iter().map(|w| w.0).collect(),
            values: call.weights.iter().map(|w| w.1).collect(),
            version_key: call.version_key,
        };
        let bytes = timelock::seal(beacon, round, &payload)?;
        Ok((Commit { digest: Digest::of(&bytes), round, reveal_block: reveal.block }, bytes))
    }
}

/// The call that commits in this runtime.
pub(crate) fn commit_call(
    call: &WeightsCall,
    bytes: &[u8],
    round: u64,
    metadata: &Metadata,
) -> Result<NamedCall, SubmitError> {
    let mut fields = vec![
        ("netuid", Value::u128(u128::from(call.netuid))),
        ("commit", Value::from_bytes(bytes)),
        ("reveal_round", Value::u128(u128::from(round))),
        ("commit_reveal_version", Value::u128(u128::from(COMMIT_REVEAL_VERSION))),
    ];
    let mechanisms = "commit_timelocked_mechanism_weights";
    let name = call_name(metadata, call.mecid, mechanisms, "commit_timelocked_weights")?;
    if name == mechanisms {
        fields.push(("mecid", Value::u128(u128::from(call.mecid))));
    }
    Ok(NamedCall { pallet: PALLET, name, fields: Composite::named(fields) })
}
