//! Taking neurons in, replacing them, and giving one another hotkey: what registrations, deregistrations and swaps
//! write on the real chain.

use super::primitives::{AlphaBalance, MechId, NetUid, NetUidStorageIndex};
use super::subtensor::{
    Active, Axons, BlockAtRegistration, Bonds, Consensus, Dividends, Emission, Incentive, IsNetworkMember, Keys,
    LastUpdate, MechanismCountCurrent, NeuronCertificates, Owner, StakeWeight, SubnetworkN, TimelockedWeightCommits,
    TotalHotkeyAlpha, Uids, ValidatorPermit, ValidatorTrust, WeightCommits, Weights,
};
use super::{Runtime, SubtensorModule};
use frame_support::storage::StorageDoubleMap;
use sp_runtime::{AccountId32, PerU16};

/// Give a newcomer the next uid.
pub(super) fn append(id: NetUid, hotkey: &AccountId32, coldkey: &AccountId32) {
    let uid = SubnetworkN::<Runtime>::mutate(id, |size| {
        let uid = *size;
        *size = size.saturating_add(1);
        uid
    });
    Active::<Runtime>::mutate(id, |all| set_at(all, uid, true));
    clear(id, uid);
    enter(id, uid, hotkey, coldkey);
}

/// Give a newcomer the uid of another neuron, which goes.
pub(super) fn replace(id: NetUid, uid: u16, old: &AccountId32, hotkey: &AccountId32, coldkey: &AccountId32) {
    Uids::<Runtime>::remove(id, old);
    IsNetworkMember::<Runtime>::remove(old, id);
    Axons::<Runtime>::remove(id, old);
    NeuronCertificates::<Runtime>::remove(id, old);
    clear(id, uid);
    enter(id, uid, hotkey, coldkey);
}

/// Let a neuron go on under another hotkey: uid, permit, stake, axon and weights stay. Timelocked commits that wait
/// keep the old name, as on the real chain, and come to nothing.
pub(super) fn swap(id: NetUid, uid: u16, old: &AccountId32, new: &AccountId32) -> AccountId32 {
    fn rename<M, K, V>(id: K, old: &AccountId32, new: &AccountId32)
    where
        M: StorageDoubleMap<K, AccountId32, V, Query = Option<V>>,
        K: scale::FullEncode + Copy,
        V: scale::FullCodec,
    {
        if let Some(value) = M::take(id, old) {
            M::insert(id, new, value);
        }
    }
    let coldkey = Owner::<Runtime>::get(old);
    Uids::<Runtime>::remove(id, old);
    Uids::<Runtime>::insert(id, new, uid);
    Keys::<Runtime>::insert(id, uid, new);
    Owner::<Runtime>::insert(new, &coldkey);
    IsNetworkMember::<Runtime>::remove(old, id);
    IsNetworkMember::<Runtime>::insert(new, id, true);
    let stake = TotalHotkeyAlpha::<Runtime>::take(old, id).0;
    TotalHotkeyAlpha::<Runtime>::mutate(new, id, |own| own.0 = own.0.saturating_add(stake));
    rename::<Axons<Runtime>, _, _>(id, old, new);
    rename::<NeuronCertificates<Runtime>, _, _>(id, old, new);
    for index in storage_indices(id) {
        rename::<WeightCommits<Runtime>, _, _>(index, old, new);
    }
    SubtensorModule::refresh_stake_weights(id);
    coldkey
}

/// Set the number of mechanisms, and forget what those that go have left.
pub(super) fn set_mechanisms(id: NetUid, count: u8) {
    let before = MechanismCountCurrent::<Runtime>::get(id).0;
    for index in (count..before).map(|mecid| NetUidStorageIndex::new(id, MechId(mecid))) {
        drop(Weights::<Runtime>::clear_prefix(index, u32::MAX, None));
        drop(Bonds::<Runtime>::clear_prefix(index, u32::MAX, None));
        drop(WeightCommits::<Runtime>::clear_prefix(index, u32::MAX, None));
        drop(TimelockedWeightCommits::<Runtime>::clear_prefix(index, u32::MAX, None));
        Incentive::<Runtime>::remove(index);
        LastUpdate::<Runtime>::remove(index);
    }
    MechanismCountCurrent::<Runtime>::insert(id, MechId(count));
}

/// What every registration writes.
fn enter(id: NetUid, uid: u16, hotkey: &AccountId32, coldkey: &AccountId32) {
    Uids::<Runtime>::insert(id, hotkey, uid);
    Keys::<Runtime>::insert(id, uid, hotkey);
    Owner::<Runtime>::insert(hotkey, coldkey);
    IsNetworkMember::<Runtime>::insert(hotkey, id, true);
    BlockAtRegistration::<Runtime>::insert(id, uid, SubtensorModule::current_block());
    for index in storage_indices(id) {
        SubtensorModule::note_update(index, uid);
    }
}

/// Reset what a uid's previous neuron has left, and give every vector a place for the uid.
fn clear(id: NetUid, uid: u16) {
    ValidatorPermit::<Runtime>::mutate(id, |all| set_at(all, uid, false));
    StakeWeight::<Runtime>::mutate(id, |all| set_at(all, uid, 0));
    Consensus::<Runtime>::mutate(id, |all| set_at(all, uid, PerU16::zero()));
    Dividends::<Runtime>::mutate(id, |all| set_at(all, uid, PerU16::zero()));
    ValidatorTrust::<Runtime>::mutate(id, |all| set_at(all, uid, PerU16::zero()));
    Emission::<Runtime>::mutate(id, |all| set_at(all, uid, AlphaBalance(0)));
    for index in storage_indices(id) {
        Incentive::<Runtime>::mutate(index, |all| set_at(all, uid, PerU16::zero()));
        LastUpdate::<Runtime>::mutate(index, |all| set_at(all, uid, 0));
        Weights::<Runtime>::remove(index, uid);
    }
}

fn storage_indices(id: NetUid) -> impl Iterator<Item = NetUidStorageIndex> {
    (0..MechanismCountCurrent::<Runtime>::get(id).0).map(move |mecid| NetUidStorageIndex::new(id, MechId(mecid)))
}

/// Write one place of a vector by uid, making it longer where needed.
pub(super) fn set_at<V: Clone + Default>(all: &mut Vec<V>, uid: u16, value: V) {
    let at = usize::from(uid);
    if all.len() <= at {
        all.resize(at + 1, V::default());
    }
    all[at] = value;
}
