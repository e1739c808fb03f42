//! Announcing where a neuron serves, and with which key.

use super::primitives::NetUid;
use super::subtensor::{
    AxonInfo, Axons, Config, Error, Event, NeuronCertificate, NeuronCertificates, Pallet, ServingRateLimit, Uids,
};
use frame_support::ensure;
use frame_support::pallet_prelude::DispatchResult;

impl<T: Config> Pallet<T> {
    /// Check and store an axon, and the certificate with it: a byte that names the algorithm, then a key of 64 bytes at
    /// most. One that is too long or empty is passed over, as on the real chain.
    pub(super) fn do_serve_axon(
        hotkey: T::AccountId,
        netuid: NetUid,
        axon: AxonInfo,
        certificate: Option<&[u8]>,
    ) -> DispatchResult {
        Self::check_axon(&hotkey, netuid, &axon)?;
        if let Some((algorithm, key)) = certificate.and_then(<[u8]>::split_first)
            && let Ok(public_key) = key.to_vec().try_into()
        {
            NeuronCertificates::<T>::insert(netuid, &hotkey, NeuronCertificate { public_key, algorithm: *algorithm });
        }
        Axons::<T>::insert(netuid, &hotkey, axon);
        Self::deposit_event(Event::AxonServed(netuid, hotkey));
        Ok(())
    }

    /// Would this axon be accepted in the current block. The pool asks the same before dispatch.
    pub(super) fn check_axon(hotkey: &T::AccountId, netuid: NetUid, axon: &AxonInfo) -> Result<(), Error<T>> {
        ensure!(Uids::<T>::contains_key(netuid, hotkey), Error::<T>::HotKeyNotRegisteredInNetwork);
        ensure!(matches!(axon.ip_type, 4 | 6), Error::<T>::InvalidIpType);
        ensure!(is_servable(axon.ip_type, axon.ip), Error::<T>::InvalidIpAddress);
        let last = Axons::<T>::get(netuid, hotkey).map_or(0, |axon| axon.block);
        let limit = ServingRateLimit::<T>::get(netuid);
        let waited = Self::current_block().saturating_sub(last);
        ensure!(limit == 0 || last == 0 || waited >= limit, Error::<T>::ServingRateLimitExceeded);
        ensure!(axon.port != 0, Error::<T>::InvalidPort);
        Ok(())
    }
}

/// Loopback, the broadcast address and what does not fit the family are refused; address 0 is allowed.
fn is_servable(ip_type: u8, ip: u128) -> bool {
    const LOOPBACK_V4: u128 = 0x7f00_0001;
    match ip_type {
        4 => ip < u128::from(u32::MAX) && ip != LOOPBACK_V4,
        _ => ip != u128::MAX && ip != 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_broadcast_cannot_be_served_from() {
        assert!(is_servable(4, 0));
        assert!(is_servable(4, 0x0a00_0001));
        assert!(!is_servable(4, 0x7f00_0001));
        assert!(!is_servable(4, u128::from(u32::MAX)));
        assert!(!is_servable(4, 1 << 32));
        assert!(is_servable(6, 1 << 100));
        assert!(!is_servable(6, 1));
        assert!(!is_servable(6, u128::MAX));
    }
}
