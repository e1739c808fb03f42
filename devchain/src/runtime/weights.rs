//! Who may set which weights.
//!
//! The checks and their order are those of Subtensor's `set_weights`; each failure has its own error:
//!
//! 1. not the root network
//! 2. as many uids as values
//! 3. the mechanism exists
//! 4. not more uids than the subnet has
//! 5. registered
//! 6. stake weight at the threshold, or the subnet owner
//! 7. version key
//! 8. rate limit
//! 9. permit (one weight on oneself, and the owner, are exempt, but not where `SubnetEpochConsensus` is `Null`)
//! 10. no uid twice
//! 11. every uid exists
//! 12. enough weights
//! 13. after max-upscaling to 65535, no weight above the limit
//!
//! Commit-reveal, where it is on, comes before all of them: plain submissions are refused. Revealed weights pass the
//! same checks but for the rate limit, which their commit has passed, and do not count as an update again.

use super::primitives::{MechId, NetUid, NetUidStorageIndex};
use super::subtensor::{
    CommitRevealWeightsEnabled, Config, EpochConsensus, Error, Event, LastUpdate, MaxWeightsLimit,
    MechanismCountCurrent, MinAllowedWeights, NetworksAdded, Pallet, StakeThreshold, SubnetEpochConsensus,
    SubnetOwnerHotkey, SubnetworkN, Uids, ValidatorPermit, Weights, WeightsSetRateLimit, WeightsVersionKey,
};
use frame_support::ensure;
use frame_support::pallet_prelude::DispatchResult;
use std::collections::BTreeSet;

impl<T: Config> Pallet<T> {
    /// Check and store one plain submission of weights.
    pub(super) fn do_set_weights(
        hotkey: &T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        uids: &[u16],
        values: &[u16],
        version_key: u64,
    ) -> DispatchResult {
        ensure!(!CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealEnabled);
        Self::take_weights(hotkey, netuid, mecid, uids, values, version_key)
    }

    /// Check and store weights, plain or revealed.
    pub(super) fn take_weights(
        hotkey: &T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        uids: &[u16],
        values: &[u16],
        version_key: u64,
    ) -> DispatchResult {
        let committed = CommitRevealWeightsEnabled::<T>::get(netuid);
        ensure!(netuid != NetUid::ROOT, Error::<T>::CanNotSetRootNetworkWeights);
        ensure!(uids.len() == values.len(), Error::<T>::WeightVecNotEqualSize);
        ensure!(Self::mechanism_exists(netuid, mecid), Error::<T>::MechanismDoesNotExist);
        let size = SubnetworkN::<T>::get(netuid);
        ensure!(uids.len() <= usize::from(size), Error::<T>::UidsLengthExceedUidsInSubNet);
        let uid = Uids::<T>::get(netuid, hotkey).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
        ensure!(Self::has_stake_for_weights(hotkey, netuid), Error::<T>::NotEnoughStakeToSetWeights);
        ensure!(Self::accepts_version(netuid, version_key), Error::<T>::IncorrectWeightVersionKey);
        let index = NetUidStorageIndex::new(netuid, mecid);
        ensure!(committed || Self::may_update_now(netuid, index, uid), Error::<T>::SettingWeightsTooFast);
        ensure!(Self::may_validate(netuid, uid, hotkey, uids), Error::<T>::NeuronNoValidatorPermit);
        ensure!(uids.iter().collect::<BTreeSet<_>>().len() == uids.len(), Error::<T>::DuplicateUids);
        ensure!(uids.iter().all(|dest| *dest < size), Error::<T>::UidVecContainInvalidOne);
        let least = MinAllowedWeights::<T>::get(netuid).min(size);
        ensure!(is_self_weight(uid, uids) || uids.len() >= usize::from(least), Error::<T>::WeightVecLengthIsLow);

        let upscaled = max_upscale(values);
        let limit = MaxWeightsLimit::<T>::get(netuid);
        ensure!(is_self_weight(uid, uids) || within_limit(&upscaled, limit), Error::<T>::MaxWeightExceeded);

        let row: Vec<(u16, u16)> = uids.iter().copied().zip(upscaled).collect();
        Weights::<T>::insert(index, uid, row);
        if !committed {
            Self::note_update(index, uid);
        }
        Self::deposit_event(Event::WeightsSet(index, uid));
        Ok(())
    }

    /// Does the subnet have this mechanism.
    pub(super) fn mechanism_exists(netuid: NetUid, mecid: MechId) -> bool {
        NetworksAdded::<T>::get(netuid) && MechanismCountCurrent::<T>::get(netuid) > mecid
    }

    /// Is the stake weight at the chain's threshold, or does the hotkey own the subnet.
    pub(super) fn has_stake_for_weights(hotkey: &T::AccountId, netuid: NetUid) -> bool {
        Self::is_owner(netuid, hotkey) || Self::stake_of(hotkey, netuid).total >= StakeThreshold::<T>::get()
    }

    /// Has the rate limit passed since the neuron's last update. A neuron that never updated may always.
    pub(super) fn may_update_now(netuid: NetUid, index: NetUidStorageIndex, uid: u16) -> bool {
        let last = LastUpdate::<T>::get(index).get(usize::from(uid)).copied().unwrap_or(0);
        last == 0 || Self::current_block().saturating_sub(last) >= WeightsSetRateLimit::<T>::get(netuid)
    }

    /// Write the current block as the neuron's last update.
    pub(super) fn note_update(index: NetUidStorageIndex, uid: u16) {
        let block = Self::current_block();
        LastUpdate::<T>::mutate(index, |updates| {
            let at = usize::from(uid);
            if updates.len() <= at {
                updates.resize(at + 1, 0);
            }
            updates[at] = block;
        });
    }

    fn accepts_version(netuid: NetUid, version_key: u64) -> bool {
        let demanded = WeightsVersionKey::<T>::get(netuid);
        demanded == 0 || version_key >= demanded
    }

    fn may_validate(netuid: NetUid, uid: u16, hotkey: &T::AccountId, uids: &[u16]) -> bool {
        let exempt = SubnetEpochConsensus::<T>::get(netuid) == EpochConsensus::Yuma
            && (is_self_weight(uid, uids) || Self::is_owner(netuid, hotkey));
        exempt || ValidatorPermit::<T>::get(netuid).get(usize::from(uid)).copied().unwrap_or(false)
    }

    pub(super) fn is_owner(netuid: NetUid, hotkey: &T::AccountId) -> bool {
        SubnetOwnerHotkey::<T>::contains_key(netuid) && SubnetOwnerHotkey::<T>::get(netuid) == *hotkey
    }
}

/// One weight, on oneself.
fn is_self_weight(uid: u16, uids: &[u16]) -> bool {
    uids == [uid]
}

/// Scale so that the greatest value becomes 65535, rounding halves up; all zeros stay.
///
/// The chain computes with 32 fraction bits and, above 32768, multiplies by the truncated quotient 65535 / max, which
/// rounds some values one lower than exact arithmetic would; the same steps are taken here in integers.
#[must_use]
pub fn max_upscale(values: &[u16]) -> Vec<u16> {
    const ONE: u64 = 1 << 32;
    const HALF: u64 = ONE / 2;
    let full = u64::from(u16::MAX);
    let greatest = values.iter().copied().max().map_or(0, u64::from);
    if greatest == 0 {
        return values.to_vec();
    }
    let scaled = |value: u16| {
        let value = u64::from(value);
        // Below the threshold, value · 65535 fits the chain's 31 integer bits and is divided exactly.
        let bits =
            if greatest > 32768 { value * (full * ONE / greatest) } else { divide_shifted(value * full, greatest) };
        ((bits + HALF) >> 32).min(full) as u16
    };
    values.iter().map(|value| scaled(*value)).collect()
}

/// ⌊numerator · 2³² / divisor⌋.
fn divide_shifted(numerator: u64, divisor: u64) -> u64 {
    ((u128::from(numerator) << 32) / u128::from(divisor)) as u64
}

/// Is the greatest share of the sum at most `limit` / 65535. A limit of 65535 allows all.
fn within_limit(values: &[u16], limit: u16) -> bool {
    if limit == u16::MAX {
        return true;
    }
    let sum: u64 = values.iter().map(|value| u64::from(*value)).sum();
    let greatest = values.iter().copied().max().map_or(0, u64::from);
    // Both sides truncated to 32 fraction bits, as the chain compares them.
    sum == 0 || divide_shifted(greatest, sum) <= divide_shifted(u64::from(limit), u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn upscaling_maps_the_greatest_to_65535_and_rounds() {
        assert_eq!(max_upscale(&[]), Vec::<u16>::new());
        assert_eq!(max_upscale(&[0, 0]), vec![0, 0]);
        assert_eq!(max_upscale(&[1, 2]), vec![32768, 65535]);
        assert_eq!(max_upscale(&[100, 200, 50]), vec![32768, 65535, 16384]);
        assert_eq!(max_upscale(&[65535, 3, 0]), vec![65535, 3, 0]);
        assert_eq!(max_upscale(&[40_000, 20_000]), vec![65535, 32767]);
    }

    #[test]
    fn limit_bounds_the_greatest_share_of_the_sum() {
        assert!(within_limit(&[65535, 65535], 32768));
        assert!(!within_limit(&[65535, 65535], 32000));
        assert!(within_limit(&[65535], u16::MAX));
        assert!(!within_limit(&[65535], 65534));
        assert!(within_limit(&[0, 0], 1));
    }

    proptest! {
        #[test]
        fn upscaling_keeps_order_and_zeros(values in proptest::collection::vec(any::<u16>(), 1..64)) {
            let scaled = max_upscale(&values);
            prop_assert_eq!(scaled.len(), values.len());
            for (left, value) in values.iter().zip(&scaled) {
                prop_assert_eq!(*left == 0, *value == 0);
            }
            let most = values.iter().max();
            if let Some(most) = most.filter(|value| **value > 0) {
                for (value, out) in values.iter().zip(&scaled) {
                    let exact = f64::from(*value) * 65535.0 / f64::from(*most);
                    prop_assert!((exact - f64::from(*out)).abs() <= 0.51, "{} became {}", exact, out);
                }
            }
        }

        #[test]
        fn an_agreed_vector_is_stored_as_it_is(mut values in proptest::collection::vec(any::<u16>(), 1..64)) {
            values.push(u16::MAX);
            prop_assert_eq!(max_upscale(&values), values);
        }
    }
}
