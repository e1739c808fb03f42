//! Changes that a developer makes and no extrinsic could: the genesis neurons, and the calls named `dev_…`.
//!
//! They run inside the block that is being made, so they are part of its state, survive a restart and can be read at
//! that block like anything else.

use super::drand::{BeaconConfig, BeaconConfiguration};
use super::primitives::{AlphaBalance, MechId, NetUid, NetUidStorageIndex};
use super::subtensor::{
    Active, ActivityCutoff, Axons, BlockAtRegistration, CommitRevealWeightsEnabled, Consensus, Dividends, Emission,
    Event, Incentive, IsNetworkMember, Keys, LastUpdate, MaxAllowedUids, MaxWeightsLimit, MechanismCountCurrent,
    MinAllowedWeights, NetworksAdded, Owner, RevealPeriodEpochs, ServingRateLimit, StakeThreshold, StakeWeight,
    SubnetOwner, SubnetOwnerHotkey, SubnetworkN, Tempo, TotalHotkeyAlpha, TotalNetworks, Uids, ValidatorPermit,
    ValidatorTrust, Weights, WeightsSetRateLimit, WeightsVersionKey,
};
use super::{Balances, Drand, Runtime, SubtensorModule};
use crate::beacon::Beacon;
use crate::error::GenesisError;
use crate::genesis::{Genesis, Neuron, RAO_PER_TAO, Subnet, account};
use frame_support::traits::Currency;
use sp_runtime::{AccountId32, PerU16};

/// A development change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevOp {
    /// Register a hotkey under the next free uid. One that is registered already is refused.
    Register {
        /// The subnet.
        netuid: u16,
        /// The new neuron.
        hotkey: AccountId32,
        /// Its owner.
        coldkey: AccountId32,
    },
    /// Set the alpha staked to a hotkey, registered or not.
    SetStake {
        /// The subnet; on 0 the stake is TAO.
        netuid: u16,
        /// The hotkey.
        hotkey: AccountId32,
        /// The new stake, in rao.
        rao: u64,
    },
    /// Give or take a validator permit.
    SetPermit {
        /// The subnet.
        netuid: u16,
        /// A registered hotkey.
        hotkey: AccountId32,
        /// The new permit.
        permit: bool,
    },
    /// Change the tempo; the running epoch keeps its start.
    SetTempo {
        /// The subnet.
        netuid: u16,
        /// Blocks per epoch.
        tempo: u16,
    },
    /// Switch commit-reveal on or off.
    SetCommitReveal {
        /// The subnet.
        netuid: u16,
        /// On or off.
        enabled: bool,
    },
    /// Set the rate limit of weights.
    SetRateLimit {
        /// The subnet.
        netuid: u16,
        /// Blocks between two submissions.
        blocks: u64,
    },
    /// Take a hotkey's uid and give it to another, as the chain does when a full subnet admits a newcomer.
    Replace {
        /// The subnet.
        netuid: u16,
        /// The neuron that goes.
        hotkey: AccountId32,
        /// The neuron that comes.
        new_hotkey: AccountId32,
        /// Owner of the neuron that comes.
        new_coldkey: AccountId32,
    },
    /// Store a round of the beacon; one that the beacon has not signed is refused.
    PutPulse {
        /// Its number.
        round: u64,
        /// The beacon's signature.
        signature: Vec<u8>,
    },
}

/// Why a development change was not made.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DevError {
    /// No such subnet.
    #[error("subnet {0} does not exist")]
    NoSubnet(u16),
    /// The hotkey has no uid there.
    #[error("hotkey {hotkey} is not registered on subnet {netuid}")]
    NotRegistered {
        /// The hotkey.
        hotkey: AccountId32,
        /// The subnet.
        netuid: u16,
    },
    /// The hotkey has a uid there already.
    #[error("hotkey {hotkey} is registered on subnet {netuid} already, with uid {uid}")]
    AlreadyRegistered {
        /// The hotkey.
        hotkey: AccountId32,
        /// The subnet.
        netuid: u16,
        /// Its uid.
        uid: u16,
    },
    /// The signature is not the beacon's for this round.
    #[error("round {0}: not signed by the chain's beacon")]
    BadPulse(u64),
    /// All uids are taken.
    #[error("subnet {0} is full; replace a neuron instead")]
    Full(u16),
}

/// Make a development change in the current block; returns the uid it concerns, if it concerns one.
pub(crate) fn apply(op: &DevOp) -> Result<Option<u16>, DevError> {
    match op {
        DevOp::Register { netuid, hotkey, coldkey } => {
            let id = subnet(*netuid)?;
            if let Some(uid) = Uids::<Runtime>::get(id, hotkey) {
                return Err(DevError::AlreadyRegistered { hotkey: hotkey.clone(), netuid: *netuid, uid });
            }
            let uid = SubnetworkN::<Runtime>::get(id);
            if uid >= MaxAllowedUids::<Runtime>::get(id) {
                return Err(DevError::Full(*netuid));
            }
            append_neuron(id, hotkey, coldkey);
            SubtensorModule::deposit_event(Event::NeuronRegistered(id, uid, hotkey.clone()));
            Ok(Some(uid))
        }
        DevOp::SetStake { netuid, hotkey, rao } => {
            let id = if *netuid == 0 { NetUid::ROOT } else { subnet(*netuid)? };
            TotalHotkeyAlpha::<Runtime>::insert(hotkey, id, AlphaBalance(*rao));
            for (id, _) in NetworksAdded::<Runtime>::iter().collect::<Vec<_>>() {
                SubtensorModule::refresh_stake_weights(id);
            }
            Ok(Uids::<Runtime>::get(id, hotkey))
        }
        DevOp::SetPermit { netuid, hotkey, permit } => {
            let id = subnet(*netuid)?;
            let uid = registered(id, hotkey)?;
            ValidatorPermit::<Runtime>::mutate(id, |permits| set_at(permits, uid, *permit));
            Ok(Some(uid))
        }
        DevOp::SetTempo { netuid, tempo } => {
            let id = subnet(*netuid)?;
            Tempo::<Runtime>::insert(id, tempo);
            SubtensorModule::deposit_event(Event::TempoSet(id, *tempo));
            Ok(None)
        }
        DevOp::SetCommitReveal { netuid, enabled } => {
            let id = subnet(*netuid)?;
            CommitRevealWeightsEnabled::<Runtime>::insert(id, enabled);
            SubtensorModule::deposit_event(Event::CommitRevealEnabled(id, *enabled));
            Ok(None)
        }
        DevOp::SetRateLimit { netuid, blocks } => {
            WeightsSetRateLimit::<Runtime>::insert(subnet(*netuid)?, blocks);
            Ok(None)
        }
        DevOp::Replace { netuid, hotkey, new_hotkey, new_coldkey } => {
            let id = subnet(*netuid)?;
            let uid = registered(id, hotkey)?;
            if let Some(uid) = Uids::<Runtime>::get(id, new_hotkey) {
                return Err(DevError::AlreadyRegistered { hotkey: new_hotkey.clone(), netuid: *netuid, uid });
            }
            replace_neuron(id, uid, hotkey, new_hotkey, new_coldkey);
            SubtensorModule::deposit_event(Event::NeuronRegistered(id, uid, new_hotkey.clone()));
            Ok(Some(uid))
        }
        DevOp::PutPulse { round, signature } => {
            if Drand::bring(*round, signature) {
                Ok(None)
            } else {
                Err(DevError::BadPulse(*round))
            }
        }
    }
}

/// Write the genesis subnets, neurons and balances, and the beacon's public side.
pub(crate) fn install(genesis: &Genesis) -> Result<(), GenesisError> {
    BeaconConfig::<Runtime>::put(BeaconConfiguration::of(&Beacon::new(&genesis.beacon)));
    StakeThreshold::<Runtime>::put(genesis.stake_threshold_tao.0.saturating_mul(RAO_PER_TAO));
    TotalNetworks::<Runtime>::put(u16::try_from(genesis.subnets.len()).unwrap_or(u16::MAX));
    for balance in &genesis.balances {
        endow(&account(&balance.account)?, balance.rao);
    }
    for subnet in &genesis.subnets {
        install_subnet(subnet)?;
    }
    Ok(())
}

fn install_subnet(subnet: &Subnet) -> Result<(), GenesisError> {
    let id = NetUid(subnet.netuid);
    let room = u16::try_from(subnet.neurons.len()).unwrap_or(u16::MAX);
    NetworksAdded::<Runtime>::insert(id, true);
    SubnetworkN::<Runtime>::insert(id, 0);
    Tempo::<Runtime>::insert(id, subnet.tempo);
    MechanismCountCurrent::<Runtime>::insert(id, MechId(subnet.mechanisms));
    MinAllowedWeights::<Runtime>::insert(id, subnet.min_allowed_weights);
    MaxWeightsLimit::<Runtime>::insert(id, subnet.max_weights_limit);
    WeightsVersionKey::<Runtime>::insert(id, subnet.weights_version_key);
    WeightsSetRateLimit::<Runtime>::insert(id, subnet.weights_set_rate_limit);
    ServingRateLimit::<Runtime>::insert(id, subnet.serving_rate_limit);
    CommitRevealWeightsEnabled::<Runtime>::insert(id, subnet.commit_reveal);
    RevealPeriodEpochs::<Runtime>::insert(id, subnet.reveal_period_epochs);
    ActivityCutoff::<Runtime>::insert(id, subnet.activity_cutoff);
    MaxAllowedUids::<Runtime>::insert(id, subnet.max_allowed_uids.max(room));
    if let Some(owner) = &subnet.owner_hotkey {
        SubnetOwnerHotkey::<Runtime>::insert(id, account(owner)?);
    }
    if let Some(owner) = &subnet.owner_coldkey {
        SubnetOwner::<Runtime>::insert(id, account(owner)?);
    }
    for neuron in &subnet.neurons {
        install_neuron(id, neuron)?;
    }
    SubtensorModule::refresh_stake_weights(id);
    Ok(())
}

fn install_neuron(id: NetUid, neuron: &Neuron) -> Result<(), GenesisError> {
    let hotkey = account(&neuron.hotkey)?;
    let uid = SubnetworkN::<Runtime>::get(id);
    append_neuron(id, &hotkey, &account(&neuron.coldkey)?);
    TotalHotkeyAlpha::<Runtime>::insert(&hotkey, id, AlphaBalance(neuron.stake.saturating_mul(RAO_PER_TAO)));
    ValidatorPermit::<Runtime>::mutate(id, |permits| set_at(permits, uid, neuron.validator_permit));
    endow(&hotkey, neuron.balance_rao);
    Ok(())
}

fn endow(who: &AccountId32, rao: u64) {
    if rao > 0 {
        drop(Balances::deposit_creating(who, rao));
    }
}

fn append_neuron(id: NetUid, hotkey: &AccountId32, coldkey: &AccountId32) {
    let uid = SubnetworkN::<Runtime>::mutate(id, |size| {
        let uid = *size;
        *size = size.saturating_add(1);
        uid
    });
    Active::<Runtime>::mutate(id, |all| set_at(all, uid, true));
    clear_neuron(id, uid);
    enter_neuron(id, uid, hotkey, coldkey);
}

fn replace_neuron(id: NetUid, uid: u16, old: &AccountId32, hotkey: &AccountId32, coldkey: &AccountId32) {
    Uids::<Runtime>::remove(id, old);
    IsNetworkMember::<Runtime>::remove(old, id);
    Axons::<Runtime>::remove(id, old);
    clear_neuron(id, uid);
    enter_neuron(id, uid, hotkey, coldkey);
}

/// What every registration writes.
fn enter_neuron(id: NetUid, uid: u16, hotkey: &AccountId32, coldkey: &AccountId32) {
    Uids::<Runtime>::insert(id, hotkey, uid);
    Keys::<Runtime>::insert(id, uid, hotkey);
    Owner::<Runtime>::insert(hotkey, coldkey);
    IsNetworkMember::<Runtime>::insert(hotkey, id, true);
    BlockAtRegistration::<Runtime>::insert(id, uid, SubtensorModule::current_block());
    for index in storage_indices(id) {
        SubtensorModule::note_update(index, uid);
    }
    SubtensorModule::refresh_stake_weights(id);
}

/// Reset what a uid's previous neuron has left, and give every vector a place for the uid.
fn clear_neuron(id: NetUid, uid: u16) {
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

fn set_at<V: Clone + Default>(all: &mut Vec<V>, uid: u16, value: V) {
    let at = usize::from(uid);
    if all.len() <= at {
        all.resize(at + 1, V::default());
    }
    all[at] = value;
}

fn subnet(netuid: u16) -> Result<NetUid, DevError> {
    let id = NetUid(netuid);
    if NetworksAdded::<Runtime>::get(id) { Ok(id) } else { Err(DevError::NoSubnet(netuid)) }
}

fn registered(id: NetUid, hotkey: &AccountId32) -> Result<u16, DevError> {
    Uids::<Runtime>::get(id, hotkey).ok_or_else(|| DevError::NotRegistered { hotkey: hotkey.clone(), netuid: id.0 })
}
