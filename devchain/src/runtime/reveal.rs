//! How timelocked commits become weights.
//!
//! At the beginning of every block, before the epochs: let `e` be the epoch that the block belongs to, counted with
//! lookahead, and `p` the subnet's `RevealPeriodEpochs`. Commits of epochs before `e − p` are removed; those of epoch
//! `e − p` are opened in their order with the beacon's round that each names. One whose round is not on the chain yet
//! stays and is tried again in the next block; one that does not open, bears another's hotkey, or holds weights that
//! the chain would not take, is dropped without a word.

use super::drand::Pulses;
use super::primitives::{MechId, NetUid, NetUidStorageIndex};
use super::subtensor::{
    Config, Event, MechanismCountCurrent, Pallet, RevealPeriodEpochs, TimelockedCommit, TimelockedWeightCommits,
};
use crate::timelock;
use frame_support::pallet_prelude::{Decode, Encode};
use frame_support::storage::with_storage_layer;
use std::collections::VecDeque;

/// What a timelocked commit holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Payload {
    /// The committing hotkey's 32 bytes.
    pub hotkey: Vec<u8>,
    /// Whom the weights are for.
    pub uids: Vec<u16>,
    /// The weights, one for each uid.
    pub values: Vec<u16>,
    /// Version key, as in plain submissions.
    pub version_key: u64,
}

/// What commits held before hotkeys were part of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct LegacyPayload {
    uids: Vec<u16>,
    values: Vec<u16>,
    version_key: u64,
}

impl<T: Config> Pallet<T> {
    /// Open the commits that are due at block `now`.
    pub(super) fn reveal_due_commits(now: u64) {
        let deferred = Self::deferred_epochs(now);
        for netuid in Self::subnets().into_iter().filter(|netuid| !deferred.contains(netuid)) {
            Self::reveal_commits(netuid);
        }
    }

    fn reveal_commits(netuid: NetUid) {
        let epoch = Self::epoch_with_lookahead(netuid);
        let period = RevealPeriodEpochs::<T>::get(netuid);
        let due = epoch.saturating_sub(period);
        for mecid in (0..MechanismCountCurrent::<T>::get(netuid).0).map(MechId) {
            let index = NetUidStorageIndex::new(netuid, mecid);
            for over in TimelockedWeightCommits::<T>::iter_key_prefix(index).filter(|e| *e < due).collect::<Vec<_>>() {
                TimelockedWeightCommits::<T>::remove(index, over);
            }
            if epoch >= period && TimelockedWeightCommits::<T>::contains_key(index, due) {
                let commits = TimelockedWeightCommits::<T>::take(index, due);
                let waiting: VecDeque<_> =
                    commits.into_iter().filter_map(|commit| Self::reveal(netuid, mecid, commit)).collect();
                if !waiting.is_empty() {
                    TimelockedWeightCommits::<T>::insert(index, due, waiting);
                }
            }
        }
    }

    /// Open one commit and take up its weights; returns it where its round is not there yet.
    fn reveal(
        netuid: NetUid,
        mecid: MechId,
        commit: TimelockedCommit<T::AccountId>,
    ) -> Option<TimelockedCommit<T::AccountId>> {
        let (hotkey, block, bytes, round) = commit;
        let Some(pulse) = Pulses::<crate::runtime::Runtime>::get(round) else {
            return Some((hotkey, block, bytes, round));
        };
        let taken = timelock::open(&bytes, &pulse.signature)
            .and_then(|opened| payload_of(hotkey.as_ref(), &opened))
            .map(|LegacyPayload { uids, values, version_key }| {
                with_storage_layer(|| Self::take_weights(&hotkey, netuid, mecid, &uids, &values, version_key))
            });
        match taken {
            Some(Ok(())) => {
                let index = NetUidStorageIndex::new(netuid, mecid);
                Self::deposit_event(Event::TimelockedWeightsRevealed(index, hotkey));
            }
            Some(Err(error)) => tracing::debug!(?hotkey, block, round, ?error, "revealed weights were not taken"),
            None => tracing::debug!(?hotkey, block, round, "a commit did not open"),
        }
        None
    }
}

/// The weights in an opened commit, if it is the hotkey's own. Bytes after them are not looked at, as on the real chain.
fn payload_of(hotkey: &[u8], opened: &[u8]) -> Option<LegacyPayload> {
    if let Ok(Payload { hotkey: named, uids, values, version_key }) = Payload::decode(&mut &*opened)
        && let Some(named) = named.get(..32)
    {
        return (named == hotkey).then_some(LegacyPayload { uids, values, version_key });
    }
    LegacyPayload::decode(&mut &*opened).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_opened_commit_counts_for_its_own_hotkey_only() {
        let (uids, values, version_key) = (vec![1, 2], vec![3, 65535], 7);
        let payload = Payload { hotkey: vec![9; 32], uids: uids.clone(), values: values.clone(), version_key };
        let weights = Some(LegacyPayload { uids, values, version_key });
        assert_eq!(payload_of(&[9; 32], &payload.encode()), weights);
        assert_eq!(payload_of(&[8; 32], &payload.encode()), None);
        assert_eq!(payload_of(&[8; 32], &weights.clone().unwrap().encode()), weights, "the older form names nobody");
        assert_eq!(payload_of(&[9; 32], b"\xff"), None);
        assert_eq!(payload_of(&[9; 32], &[]), None);
    }
}
