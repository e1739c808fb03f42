//! Committing weights: timelocked, so that the chain opens them itself, and by hash, the older way, where the neuron
//! reveals them.
//!
//! A commit belongs to the epoch of its block (see [`Pallet::epoch_with_lookahead`]) and is due
//! `RevealPeriodEpochs` later, in that epoch only. It counts as an update of the neuron, so the rate limit is asked of
//! commits; stake, permit and the weights themselves are looked at when they are revealed.

use super::primitives::{MechId, NetUid, NetUidStorageIndex};
use super::subtensor::{
    CommitBytes, CommitRevealWeightsEnabled, CommitRevealWeightsVersion, Config, Error, Event, HashCommit, Pallet,
    RevealPeriodEpochs, TimelockedWeightCommits, Uids, WeightCommits,
};
use frame_support::ensure;
use frame_support::pallet_prelude::DispatchResult;
use sp_core::H256;
use sp_runtime::traits::{BlakeTwo256, Hash};
use std::collections::VecDeque;

/// Commits of one hotkey that may wait at a time: for one epoch if timelocked, in all if by hash.
pub const MAX_UNREVEALED: usize = 10;

impl<T: Config> Pallet<T> {
    /// Check and store a timelocked commit.
    pub(super) fn do_commit_timelocked(
        hotkey: T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        commit: CommitBytes,
        round: u64,
        version: u16,
    ) -> DispatchResult {
        ensure!(Self::mechanism_exists(netuid, mecid), Error::<T>::MechanismDoesNotExist);
        ensure!(CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealDisabled);
        ensure!(version == CommitRevealWeightsVersion::<T>::get(), Error::<T>::IncorrectCommitRevealVersion);
        let (index, uid) = Self::committer(&hotkey, netuid, mecid)?;
        let hash = BlakeTwo256::hash(&commit);
        TimelockedWeightCommits::<T>::try_mutate(index, Self::epoch_with_lookahead(netuid), |commits| {
            let waiting = commits.iter().filter(|(who, ..)| *who == hotkey).count();
            ensure!(waiting < MAX_UNREVEALED, Error::<T>::TooManyUnrevealedCommits);
            commits.push_back((hotkey.clone(), Self::current_block(), commit, round));
            Ok::<_, Error<T>>(())
        })?;
        Self::note_update(index, uid);
        Self::deposit_event(Event::TimelockedWeightsCommitted(hotkey, index, hash, round));
        Ok(())
    }

    /// Check and store a commit by hash.
    pub(super) fn do_commit_hash(
        hotkey: &T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        commit_hash: H256,
    ) -> DispatchResult {
        ensure!(Self::mechanism_exists(netuid, mecid), Error::<T>::MechanismDoesNotExist);
        ensure!(CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealDisabled);
        let (index, uid) = Self::committer(hotkey, netuid, mecid)?;
        let epoch = Self::epoch_with_lookahead(netuid);
        WeightCommits::<T>::try_mutate(index, hotkey, |stored| {
            let commits = stored.get_or_insert_default();
            drop(Self::remove_expired(netuid, commits));
            ensure!(commits.len() < MAX_UNREVEALED, Error::<T>::TooManyUnrevealedCommits);
            commits.push_back((commit_hash, epoch, Self::current_block(), 0));
            Ok::<_, Error<T>>(())
        })?;
        Self::note_update(index, uid);
        Self::deposit_event(Event::WeightsCommitted(hotkey.clone(), index, commit_hash));
        Ok(())
    }

    /// Check revealed weights against the commits by hash, and take them up.
    pub(super) fn do_reveal_hash(
        hotkey: &T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        uids: &[u16],
        values: &[u16],
        salt: &[u16],
        version_key: u64,
    ) -> DispatchResult {
        ensure!(CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealDisabled);
        let index = NetUidStorageIndex::new(netuid, mecid);
        let hash = commit_hash(hotkey, index, uids, values, salt, version_key);
        WeightCommits::<T>::try_mutate_exists(index, hotkey, |stored| -> DispatchResult {
            let commits = stored.as_mut().ok_or(Error::<T>::NoWeightsCommitFound)?;
            let expired = Self::remove_expired(netuid, commits).contains(&hash);
            let Some(place) = commits.iter().position(|(committed, ..)| *committed == hash) else {
                return Err(match (expired, commits.is_empty()) {
                    (true, _) => Error::<T>::ExpiredWeightCommit,
                    (false, true) => Error::<T>::NoWeightsCommitFound,
                    (false, false) => Error::<T>::InvalidRevealCommitHashNotMatch,
                }
                .into());
            };
            let due = commits.get(place).is_some_and(|(_, epoch, ..)| Self::is_reveal_epoch(netuid, *epoch));
            ensure!(due, Error::<T>::RevealTooEarly);
            // Those committed before it can no longer be wanted.
            commits.drain(..=place);
            if commits.is_empty() {
                *stored = None;
            }
            Self::take_weights(hotkey, netuid, mecid, uids, values, version_key)
        })?;
        Self::deposit_event(Event::WeightsRevealed(hotkey.clone(), index, hash));
        Ok(())
    }

    /// Would these weights be found among the commits by hash, now. The pool asks the same before dispatch.
    pub(super) fn check_reveal(
        hotkey: &T::AccountId,
        netuid: NetUid,
        index: NetUidStorageIndex,
        hash: H256,
    ) -> Result<(), Error<T>> {
        let commits = WeightCommits::<T>::get(index, hotkey).unwrap_or_default();
        let found = commits.iter().find(|(committed, ..)| *committed == hash);
        let (_, epoch, ..) = found.ok_or(Error::<T>::NoWeightsCommitFound)?;
        if Self::is_reveal_epoch(netuid, *epoch) { Ok(()) } else { Err(Error::<T>::RevealTooEarly) }
    }

    /// Storage index and uid of a neuron that may commit now.
    fn committer(hotkey: &T::AccountId, netuid: NetUid, mecid: MechId) -> Result<(NetUidStorageIndex, u16), Error<T>> {
        let uid = Uids::<T>::get(netuid, hotkey).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
        let index = NetUidStorageIndex::new(netuid, mecid);
        ensure!(Self::may_update_now(netuid, index, uid), Error::<T>::CommittingWeightsTooFast);
        Ok((index, uid))
    }

    fn is_reveal_epoch(netuid: NetUid, commit_epoch: u64) -> bool {
        Self::epoch_with_lookahead(netuid) == commit_epoch.saturating_add(RevealPeriodEpochs::<T>::get(netuid))
    }

    /// Take the commits from the front whose epoch for revealing is over; returns their hashes.
    fn remove_expired(netuid: NetUid, commits: &mut VecDeque<HashCommit>) -> Vec<H256> {
        let now = Self::epoch_with_lookahead(netuid);
        let period = RevealPeriodEpochs::<T>::get(netuid);
        let over = commits.iter().take_while(|(_, epoch, ..)| now > epoch.saturating_add(period)).count();
        commits.drain(..over).map(|(hash, ..)| hash).collect()
    }
}

/// What a commit by hash commits to.
pub(super) fn commit_hash<A: scale::Encode>(
    hotkey: &A,
    index: NetUidStorageIndex,
    uids: &[u16],
    values: &[u16],
    salt: &[u16],
    version_key: u64,
) -> H256 {
    BlakeTwo256::hash_of(&(hotkey, index, uids, values, salt, version_key))
}
