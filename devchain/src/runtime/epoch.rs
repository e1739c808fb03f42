//! When a subnet's epoch ends, and what an epoch does.
//!
//! At the start of every block `b`, for each subnet with tempo ≠ 0, an epoch runs if `PendingEpochAt` > 0 is reached,
//! or `BlocksSinceLastStep` > 50400, or `b − LastEpochBlock ≥ tempo`: the period is the tempo itself. It then sets
//! `LastEpochBlock = b`, `PendingEpochAt = 0`, `BlocksSinceLastStep = 0` and counts `SubnetEpochIndex` up by one.
//!
//! An epoch here renews `Active` and `StakeWeight`, and gives permits by stake where genesis or a development call says
//! so; else permits stay as those gave them. No consensus, incentive or emission is computed: a network that only
//! submits and reads weights needs none of them.

use super::PermitsByStake;
use super::primitives::{NetUid, NetUidStorageIndex};
use super::subtensor::{
    Active, ActivityCutoff, AdminFreezeWindow, BlocksSinceLastStep, CommitRevealWeightsEnabled, Config, Error, Event,
    Keys, LastEpochBlock, LastMechansimStepBlock, LastUpdate, MaxEpochsPerBlock, NetworksAdded, Pallet, PendingEpochAt,
    StakeThreshold, StakeWeight, SubnetEpochIndex, SubnetOwner, SubnetworkN, TaoWeight, Tempo, TotalHotkeyAlpha,
};
use frame_support::ensure;
use frame_support::pallet_prelude::{DispatchError, DispatchResult};

/// Longest tempo the chain allows; a subnet without an epoch for longer gets one at once.
pub const MAX_TEMPO: u64 = 50_400;

/// What a hotkey weighs on a subnet, in rao.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stake {
    /// Alpha staked to it on the subnet.
    pub alpha: u64,
    /// TAO staked to it on the root network.
    pub tao: u64,
    /// `alpha + tao · TaoWeight / 2⁶⁴`, the stake weight.
    pub total: u64,
}

impl<T: Config> Pallet<T> {
    /// Run the epochs that are due at block `now`, as many as one block runs; the others are due in the next.
    pub(super) fn run_due_epochs(now: u64) {
        let mut room = MaxEpochsPerBlock::<T>::get();
        for netuid in Self::subnets() {
            BlocksSinceLastStep::<T>::mutate(netuid, |blocks| *blocks = blocks.saturating_add(1));
            if !Self::epoch_is_due(netuid, now) {
                continue;
            }
            if let Some(left) = room.checked_sub(1) {
                room = left;
                Self::run_epoch(netuid, now);
            } else {
                let to_block = now.saturating_add(1);
                PendingEpochAt::<T>::insert(netuid, to_block);
                Self::deposit_event(Event::EpochDeferred { netuid, from_block: now, to_block });
            }
        }
    }

    /// The subnets, in the order in which the chain goes over them.
    pub(super) fn subnets() -> Vec<NetUid> {
        NetworksAdded::<T>::iter().filter(|(_, added)| *added).map(|(id, _)| id).collect()
    }

    /// Subnets whose epoch is due at block `now`, but not among those that the block runs.
    pub(super) fn deferred_epochs(now: u64) -> Vec<NetUid> {
        let due = Self::subnets().into_iter().filter(|netuid| Self::epoch_is_due(*netuid, now));
        due.skip(usize::from(MaxEpochsPerBlock::<T>::get())).collect()
    }

    /// The epoch that the current block belongs to for commits and reveals: that of the counter, or the next one where
    /// its epoch is due in this block and has not run yet.
    pub fn epoch_with_lookahead(netuid: NetUid) -> u64 {
        let due = Self::epoch_is_due(netuid, Self::current_block());
        SubnetEpochIndex::<T>::get(netuid).saturating_add(u64::from(due))
    }

    /// Is an epoch of the subnet due at block `now`.
    pub fn epoch_is_due(netuid: NetUid, now: u64) -> bool {
        let tempo = u64::from(Tempo::<T>::get(netuid));
        let pending = PendingEpochAt::<T>::get(netuid);
        tempo != 0
            && ((pending > 0 && now >= pending)
                || BlocksSinceLastStep::<T>::get(netuid) > MAX_TEMPO
                || now.saturating_sub(LastEpochBlock::<T>::get(netuid)) >= tempo)
    }

    /// Block at which the next epoch starts, or `None` where the tempo is 0.
    pub fn next_epoch_start_block(netuid: NetUid) -> Option<u64> {
        let tempo = u64::from(Tempo::<T>::get(netuid));
        if tempo == 0 {
            return None;
        }
        let regular = LastEpochBlock::<T>::get(netuid).saturating_add(tempo);
        match PendingEpochAt::<T>::get(netuid) {
            0 => Some(regular),
            pending => Some(regular.min(pending)),
        }
    }

    fn run_epoch(netuid: NetUid, now: u64) {
        Self::refresh_activity(netuid, now);
        Self::refresh_stake_weights(netuid);
        if PermitsByStake::get() {
            Self::refresh_permits(netuid);
        }
        BlocksSinceLastStep::<T>::insert(netuid, 0);
        LastMechansimStepBlock::<T>::insert(netuid, now);
        LastEpochBlock::<T>::insert(netuid, now);
        PendingEpochAt::<T>::insert(netuid, 0);
        SubnetEpochIndex::<T>::mutate(netuid, |index| *index = index.saturating_add(1));
    }

    fn refresh_activity(netuid: NetUid, now: u64) {
        let cutoff = u64::from(ActivityCutoff::<T>::get(netuid));
        let updates = LastUpdate::<T>::get(NetUidStorageIndex::from(netuid));
        let active = |uid: u16| updates.get(usize::from(uid)).copied().unwrap_or(0).saturating_add(cutoff) >= now;
        Active::<T>::insert(netuid, (0..SubnetworkN::<T>::get(netuid)).map(active).collect::<Vec<bool>>());
    }

    /// Recompute the stake weights: the share of each neuron among those at the stake threshold, and the owner.
    pub(super) fn refresh_stake_weights(netuid: NetUid) {
        StakeWeight::<T>::insert(netuid, shares_of_u16(&Self::counted_stakes(netuid)));
    }

    /// Stake weight of every neuron by uid, in rao; 0 for those below the threshold but the owner.
    pub(super) fn counted_stakes(netuid: NetUid) -> Vec<u64> {
        let threshold = StakeThreshold::<T>::get();
        let counted = |uid: u16| {
            let hotkey = Keys::<T>::get(netuid, uid);
            let total = Self::stake_of(&hotkey, netuid).total;
            if total >= threshold || Self::is_owner(netuid, &hotkey) { total } else { 0 }
        };
        (0..SubnetworkN::<T>::get(netuid)).map(counted).collect()
    }

    /// Let an epoch run out of turn, as far away as owners' changes are frozen before one.
    pub(super) fn do_trigger_epoch(owner: T::AccountId, netuid: NetUid) -> DispatchResult {
        let owned = SubnetOwner::<T>::contains_key(netuid) && SubnetOwner::<T>::get(netuid) == owner;
        ensure!(owned, DispatchError::BadOrigin);
        ensure!(!CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::DynamicTempoBlockedByCommitReveal);
        ensure!(PendingEpochAt::<T>::get(netuid) == 0, Error::<T>::EpochTriggerAlreadyPending);
        let now = Self::current_block();
        let window = u64::from(AdminFreezeWindow::<T>::get());
        let regular = Self::next_epoch_start_block(netuid).unwrap_or(u64::MAX);
        ensure!(regular.saturating_sub(now) >= window, Error::<T>::AutoEpochAlreadyImminent);
        let fires_at = now.saturating_add(window);
        PendingEpochAt::<T>::insert(netuid, fires_at);
        Self::deposit_event(Event::EpochTriggered { netuid, by: owner, fires_at });
        Ok(())
    }

    /// Stake of every neuron of the subnet, by uid.
    pub fn stakes(netuid: NetUid) -> Vec<Stake> {
        (0..SubnetworkN::<T>::get(netuid)).map(|uid| Self::stake_of(&Keys::<T>::get(netuid, uid), netuid)).collect()
    }

    /// Stake of one hotkey on a subnet.
    pub fn stake_of(hotkey: &T::AccountId, netuid: NetUid) -> Stake {
        let alpha = TotalHotkeyAlpha::<T>::get(hotkey, netuid).0;
        let tao = TotalHotkeyAlpha::<T>::get(hotkey, NetUid::ROOT).0;
        let weighted = (u128::from(tao) * u128::from(TaoWeight::<T>::get())) >> 64;
        Stake { alpha, tao, total: alpha.saturating_add(u64::try_from(weighted).unwrap_or(u64::MAX)) }
    }
}

/// Shares of 65535, truncated first to 32 fraction bits and then to an integer, as the chain does; zeros if the sum is.
fn shares_of_u16(amounts: &[u64]) -> Vec<u16> {
    let sum: u128 = amounts.iter().map(|amount| u128::from(*amount)).sum();
    let share = |amount: &u64| {
        let bits = (u128::from(*amount) << 32).checked_div(sum).unwrap_or(0);
        ((bits * u128::from(u16::MAX)) >> 32) as u16
    };
    amounts.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stake_shares_are_truncated_parts_of_65535() {
        assert_eq!(shares_of_u16(&[]), Vec::<u16>::new());
        assert_eq!(shares_of_u16(&[0, 0]), vec![0, 0]);
        assert_eq!(shares_of_u16(&[5]), vec![65535]);
        assert_eq!(shares_of_u16(&[1, 1]), vec![32767, 32767]);
        assert_eq!(shares_of_u16(&[3_000, 1_000, 0]), vec![49151, 16383, 0]);
        assert_eq!(shares_of_u16(&[u64::MAX, u64::MAX]), vec![32767, 32767]);
    }
}
