//! Who may validate: the neurons with the greatest stake weight, as each epoch counts it.
//!
//! Of the neurons whose counted stake is not zero, those with the greatest get a permit, `MaxAllowedValidators` of them
//! at most; among equals the later uid comes first. The subnet's owner always gets one. Where `SubnetEpochConsensus`
//! is `Null`, one neuron gets it, and the owner is no exception.

use super::primitives::NetUid;
use super::subtensor::{
    Config, EpochConsensus, Keys, MaxAllowedValidators, Pallet, SubnetEpochConsensus, ValidatorPermit,
};

impl<T: Config> Pallet<T> {
    /// Give and take the permits of a subnet by stake.
    pub(super) fn refresh_permits(netuid: NetUid) {
        let stakes = Self::counted_stakes(netuid);
        let alone = SubnetEpochConsensus::<T>::get(netuid) == EpochConsensus::Null;
        let most = if alone { 1 } else { usize::from(MaxAllowedValidators::<T>::get(netuid)) };
        let mut permits = greatest(&stakes, most);
        for (permit, uid) in permits.iter_mut().zip(0u16..) {
            *permit |= !alone && Self::is_owner(netuid, &Keys::<T>::get(netuid, uid));
        }
        ValidatorPermit::<T>::insert(netuid, permits);
    }
}

/// Which amounts are among the `most` greatest and not zero.
fn greatest(amounts: &[u64], most: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..amounts.len()).collect();
    order.sort_by_key(|at| amounts[*at]);
    let mut chosen = vec![false; amounts.len()];
    for at in order.into_iter().rev().take(most).filter(|at| amounts[*at] > 0) {
        chosen[at] = true;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_stakes_are_chosen_and_none_that_is_zero() {
        assert_eq!(greatest(&[], 2), Vec::<bool>::new());
        assert_eq!(greatest(&[3, 9, 0, 5], 2), [false, true, false, true]);
        assert_eq!(greatest(&[3, 9, 0, 5], 9), [true, true, false, true]);
        assert_eq!(greatest(&[4, 4, 4], 2), [false, true, true]);
        assert_eq!(greatest(&[4, 4], 0), [false, false]);
    }
}
