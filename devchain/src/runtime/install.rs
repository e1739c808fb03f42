//! Writing the genesis file into the first state.

use super::drand::{BeaconConfig, BeaconConfiguration};
use super::primitives::{AlphaBalance, MechId, NetUid};
use super::subtensor::{
    ActivityCutoff, CommitRevealWeightsEnabled, MaxAllowedUids, MaxAllowedValidators, MaxWeightsLimit,
    MechanismCountCurrent, MinAllowedWeights, NetworksAdded, RevealPeriodEpochs, ServingRateLimit, StakeThreshold,
    SubnetOwner, SubnetOwnerHotkey, SubnetworkN, Tempo, TotalHotkeyAlpha, TotalNetworks, ValidatorPermit,
    WeightsSetRateLimit, WeightsVersionKey,
};
use super::{Balances, PermitsByStake, Runtime, SubtensorModule, neurons};
use crate::beacon::Beacon;
use crate::error::GenesisError;
use crate::genesis::{Genesis, Neuron, Permits, RAO_PER_TAO, Subnet, account};
use frame_support::traits::Currency;
use sp_runtime::AccountId32;

/// Write the genesis subnets, neurons and balances, and the beacon's public side.
pub(crate) fn install(genesis: &Genesis) -> Result<(), GenesisError> {
    BeaconConfig::<Runtime>::put(BeaconConfiguration::of(&Beacon::new(&genesis.beacon)));
    PermitsByStake::set(&(genesis.permits == Permits::ByStake));
    StakeThreshold::<Runtime>::put(genesis.stake_threshold_tao.0.saturating_mul(RAO_PER_TAO));
    TotalNetworks::<Runtime>::put(u16::try_from(genesis.subnets.len()).unwrap_or(u16::MAX));
    for balance in &genesis.balances {
        endow(&account(&balance.account)?, balance.rao);
    }
    for subnet in &genesis.subnets {
        install_subnet(subnet, genesis.permits)?;
    }
    Ok(())
}

fn install_subnet(subnet: &Subnet, permits: Permits) -> Result<(), GenesisError> {
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
    MaxAllowedValidators::<Runtime>::insert(id, subnet.max_allowed_validators);
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
    if permits == Permits::ByStake {
        SubtensorModule::refresh_permits(id);
    }
    Ok(())
}

fn install_neuron(id: NetUid, neuron: &Neuron) -> Result<(), GenesisError> {
    let hotkey = account(&neuron.hotkey)?;
    let uid = SubnetworkN::<Runtime>::get(id);
    neurons::append(id, &hotkey, &account(&neuron.coldkey)?);
    TotalHotkeyAlpha::<Runtime>::insert(&hotkey, id, AlphaBalance(neuron.stake.saturating_mul(RAO_PER_TAO)));
    ValidatorPermit::<Runtime>::mutate(id, |permits| neurons::set_at(permits, uid, neuron.validator_permit));
    endow(&hotkey, neuron.balance_rao);
    Ok(())
}

/// Give an account so much out of nothing.
pub(super) fn endow(who: &AccountId32, rao: u64) {
    if rao > 0 {
        drop(Balances::deposit_creating(who, rao));
    }
}
