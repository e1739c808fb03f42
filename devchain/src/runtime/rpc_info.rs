//! The answers of the runtime APIs about subnets and neurons, field for field as Subtensor's runtime gives them.
//!
//! The structs carry no documentation of each field: names, order and types are the interface, and what each means is
//! said at the storage item of the same name.

#![allow(missing_docs)]

use super::primitives::{AlphaBalance, FixedI64, FixedI128, FixedU128, MechId, NetUid, NetUidStorageIndex, TaoBalance};
use super::subtensor::{
    Active, ActivityCutoff, AxonInfo, Axons, BlockAtRegistration, Burn, CommitRevealWeightsEnabled, Consensus,
    Dividends, Emission, ImmunityPeriod, Incentive, Kappa, Keys, LastMechansimStepBlock, LastUpdate, MaxAllowedUids,
    MaxAllowedValidators, MaxWeightsLimit, MinAllowedWeights, NetworkRegisteredAt, NetworkRegistrationAllowed,
    NetworksAdded, Owner, RevealPeriodEpochs, Rho, ServingRateLimit, SubnetOwner, SubnetOwnerHotkey, SubnetworkN,
    Tempo, TokenSymbol, ValidatorPermit, ValidatorTrust, WeightsSetRateLimit, WeightsVersionKey,
};
use super::{Runtime, SubtensorModule};
use frame_support::pallet_prelude::{Decode, Encode, TypeInfo};
use scale::Compact;
use sp_runtime::{AccountId32, PerU16};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct SubnetState {
    pub netuid: Compact<NetUid>,
    pub hotkeys: Vec<AccountId32>,
    pub coldkeys: Vec<AccountId32>,
    pub active: Vec<bool>,
    pub validator_permit: Vec<bool>,
    pub pruning_score: Vec<Compact<u16>>,
    pub last_update: Vec<Compact<u64>>,
    pub emission: Vec<Compact<AlphaBalance>>,
    pub dividends: Vec<Compact<PerU16>>,
    pub incentives: Vec<Compact<PerU16>>,
    pub consensus: Vec<Compact<PerU16>>,
    pub trust: Vec<Compact<PerU16>>,
    pub rank: Vec<Compact<u16>>,
    pub block_at_registration: Vec<Compact<u64>>,
    pub alpha_stake: Vec<Compact<AlphaBalance>>,
    pub tao_stake: Vec<Compact<TaoBalance>>,
    pub total_stake: Vec<Compact<TaoBalance>>,
    pub emission_history: Vec<Vec<Compact<AlphaBalance>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct PrometheusInfo {
    pub block: u64,
    pub version: u32,
    pub ip: u128,
    pub port: u16,
    pub ip_type: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct NeuronInfoLite {
    pub hotkey: AccountId32,
    pub coldkey: AccountId32,
    pub uid: Compact<u16>,
    pub netuid: Compact<NetUid>,
    pub active: bool,
    pub axon_info: AxonInfo,
    pub prometheus_info: PrometheusInfo,
    pub stake: Vec<(AccountId32, Compact<AlphaBalance>)>,
    pub rank: Compact<u16>,
    pub emission: Compact<AlphaBalance>,
    pub incentive: Compact<PerU16>,
    pub consensus: Compact<PerU16>,
    pub trust: Compact<PerU16>,
    pub validator_trust: Compact<PerU16>,
    pub dividends: Compact<PerU16>,
    pub last_update: Compact<u64>,
    pub validator_permit: bool,
    pub pruning_score: Compact<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub enum HyperparamValue {
    Bool(bool),
    U16(Compact<u16>),
    U32(Compact<u32>),
    U64(Compact<u64>),
    U128(Compact<u128>),
    TaoBalance(Compact<TaoBalance>),
    I32F32(FixedI64),
    U64F64(FixedU128),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct HyperparamEntry {
    pub name: Vec<u8>,
    pub value: HyperparamValue,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct SubnetIdentityV3 {
    pub subnet_name: Vec<u8>,
    pub github_repo: Vec<u8>,
    pub subnet_contact: Vec<u8>,
    pub subnet_url: Vec<u8>,
    pub discord: Vec<u8>,
    pub description: Vec<u8>,
    pub logo_url: Vec<u8>,
    pub additional: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct ChainIdentityV2 {
    pub name: Vec<u8>,
    pub url: Vec<u8>,
    pub github_repo: Vec<u8>,
    pub image: Vec<u8>,
    pub discord: Vec<u8>,
    pub description: Vec<u8>,
    pub additional: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Metagraph {
    pub netuid: Compact<NetUid>,
    pub name: Vec<Compact<u8>>,
    pub symbol: Vec<Compact<u8>>,
    pub identity: Option<SubnetIdentityV3>,
    pub network_registered_at: Compact<u64>,
    pub owner_hotkey: AccountId32,
    pub owner_coldkey: AccountId32,
    pub block: Compact<u64>,
    pub tempo: Compact<u16>,
    pub last_step: Compact<u64>,
    pub blocks_since_last_step: Compact<u64>,
    pub subnet_emission: Compact<u64>,
    pub alpha_in: Compact<AlphaBalance>,
    pub alpha_out: Compact<AlphaBalance>,
    pub tao_in: Compact<TaoBalance>,
    pub alpha_out_emission: Compact<AlphaBalance>,
    pub alpha_in_emission: Compact<AlphaBalance>,
    pub tao_in_emission: Compact<TaoBalance>,
    pub pending_alpha_emission: Compact<AlphaBalance>,
    pub pending_root_emission: Compact<TaoBalance>,
    pub subnet_volume: Compact<u128>,
    pub moving_price: FixedI128,
    pub rho: Compact<u16>,
    pub kappa: Compact<u16>,
    pub min_allowed_weights: Compact<u16>,
    pub max_weights_limit: Compact<u16>,
    pub weights_version: Compact<u64>,
    pub weights_rate_limit: Compact<u64>,
    pub activity_cutoff: Compact<u64>,
    pub max_validators: Compact<u16>,
    pub num_uids: Compact<u16>,
    pub max_uids: Compact<u16>,
    pub burn: Compact<TaoBalance>,
    pub difficulty: Compact<u64>,
    pub registration_allowed: bool,
    pub pow_registration_allowed: bool,
    pub immunity_period: Compact<u16>,
    pub min_difficulty: Compact<u64>,
    pub max_difficulty: Compact<u64>,
    pub min_burn: Compact<TaoBalance>,
    pub max_burn: Compact<TaoBalance>,
    pub adjustment_alpha: Compact<u64>,
    pub adjustment_interval: Compact<u16>,
    pub target_regs_per_interval: Compact<u16>,
    pub max_regs_per_block: Compact<u16>,
    pub serving_rate_limit: Compact<u64>,
    pub commit_reveal_weights_enabled: bool,
    pub commit_reveal_period: Compact<u64>,
    pub liquid_alpha_enabled: bool,
    pub alpha_high: Compact<u16>,
    pub alpha_low: Compact<u16>,
    pub bonds_moving_avg: Compact<u64>,
    pub hotkeys: Vec<AccountId32>,
    pub coldkeys: Vec<AccountId32>,
    pub identities: Vec<Option<ChainIdentityV2>>,
    pub axons: Vec<AxonInfo>,
    pub active: Vec<bool>,
    pub validator_permit: Vec<bool>,
    pub pruning_score: Vec<Compact<u16>>,
    pub last_update: Vec<Compact<u64>>,
    pub emission: Vec<Compact<AlphaBalance>>,
    pub dividends: Vec<Compact<PerU16>>,
    pub incentives: Vec<Compact<PerU16>>,
    pub consensus: Vec<Compact<PerU16>>,
    pub trust: Vec<Compact<PerU16>>,
    pub rank: Vec<Compact<u16>>,
    pub block_at_registration: Vec<Compact<u64>>,
    pub alpha_stake: Vec<Compact<AlphaBalance>>,
    pub tao_stake: Vec<Compact<TaoBalance>>,
    pub total_stake: Vec<Compact<TaoBalance>>,
    pub tao_dividends_per_hotkey: Vec<(AccountId32, Compact<TaoBalance>)>,
    pub alpha_dividends_per_hotkey: Vec<(AccountId32, Compact<AlphaBalance>)>,
    pub collateral_locked: Vec<Compact<AlphaBalance>>,
    pub collateral_min: Vec<Compact<AlphaBalance>>,
    pub collateral_earned: Vec<Compact<AlphaBalance>>,
}

fn compact<V>(values: Vec<V>) -> Vec<Compact<V>> {
    values.into_iter().map(Compact).collect()
}

/// The cheapest whole snapshot of a subnet; `None` where it does not exist.
pub(super) fn subnet_state(netuid: NetUid) -> Option<SubnetState> {
    if !NetworksAdded::<Runtime>::get(netuid) {
        return None;
    }
    let uids = 0..SubnetworkN::<Runtime>::get(netuid);
    let hotkeys: Vec<AccountId32> = uids.clone().map(|uid| Keys::<Runtime>::get(netuid, uid)).collect();
    let stakes = SubtensorModule::stakes(netuid);
    let index = NetUidStorageIndex::from(netuid);
    Some(SubnetState {
        netuid: Compact(netuid),
        coldkeys: hotkeys.iter().map(Owner::<Runtime>::get).collect(),
        active: Active::<Runtime>::get(netuid),
        validator_permit: ValidatorPermit::<Runtime>::get(netuid),
        pruning_score: Vec::new(),
        last_update: compact(LastUpdate::<Runtime>::get(index)),
        emission: compact(Emission::<Runtime>::get(netuid)),
        dividends: compact(Dividends::<Runtime>::get(netuid)),
        incentives: compact(Incentive::<Runtime>::get(index)),
        consensus: compact(Consensus::<Runtime>::get(netuid)),
        trust: Vec::new(),
        rank: Vec::new(),
        block_at_registration: uids.map(|uid| Compact(BlockAtRegistration::<Runtime>::get(netuid, uid))).collect(),
        alpha_stake: stakes.iter().map(|stake| Compact(AlphaBalance(stake.alpha))).collect(),
        tao_stake: stakes.iter().map(|stake| Compact(TaoBalance(stake.tao))).collect(),
        total_stake: stakes.iter().map(|stake| Compact(TaoBalance(stake.total))).collect(),
        emission_history: emission_history(&hotkeys),
        hotkeys,
    })
}

/// One row for each subnet, one column for each hotkey: nothing has ever been emitted here.
fn emission_history(hotkeys: &[AccountId32]) -> Vec<Vec<Compact<AlphaBalance>>> {
    NetworksAdded::<Runtime>::iter().map(|_| vec![Compact(AlphaBalance(0)); hotkeys.len()]).collect()
}

/// All neurons of a subnet, by uid; none where it does not exist.
pub(super) fn neurons_lite(netuid: NetUid) -> Vec<NeuronInfoLite> {
    if !NetworksAdded::<Runtime>::get(netuid) {
        return Vec::new();
    }
    let at = |all: &[PerU16], uid: u16| Compact(all.get(usize::from(uid)).copied().unwrap_or_default());
    let flag = |all: &[bool], uid: u16| all.get(usize::from(uid)).copied().unwrap_or(false);
    let index = NetUidStorageIndex::from(netuid);
    let (active, permits) = (Active::<Runtime>::get(netuid), ValidatorPermit::<Runtime>::get(netuid));
    let (incentives, consensus) = (Incentive::<Runtime>::get(index), Consensus::<Runtime>::get(netuid));
    let (trust, dividends) = (ValidatorTrust::<Runtime>::get(netuid), Dividends::<Runtime>::get(netuid));
    let (updates, emission) = (LastUpdate::<Runtime>::get(index), Emission::<Runtime>::get(netuid));
    let neuron = |uid: u16| {
        let hotkey = Keys::<Runtime>::get(netuid, uid);
        let coldkey = Owner::<Runtime>::get(&hotkey);
        let alpha = SubtensorModule::stake_of(&hotkey, netuid).alpha;
        NeuronInfoLite {
            uid: Compact(uid),
            netuid: Compact(netuid),
            active: flag(&active, uid),
            axon_info: Axons::<Runtime>::get(netuid, &hotkey).unwrap_or_default(),
            prometheus_info: PrometheusInfo::default(),
            stake: vec![(coldkey.clone(), Compact(AlphaBalance(alpha)))],
            rank: Compact(0),
            emission: Compact(emission.get(usize::from(uid)).copied().unwrap_or_default()),
            incentive: at(&incentives, uid),
            consensus: at(&consensus, uid),
            trust: Compact(PerU16::zero()),
            validator_trust: at(&trust, uid),
            dividends: at(&dividends, uid),
            last_update: Compact(updates.get(usize::from(uid)).copied().unwrap_or(0)),
            validator_permit: flag(&permits, uid),
            pruning_score: Compact(u16::MAX),
            hotkey,
            coldkey,
        }
    };
    (0..SubnetworkN::<Runtime>::get(netuid)).map(neuron).collect()
}

/// The parameters this chain knows, by their names; a client must not count on a name being there.
pub(super) fn hyperparams(netuid: NetUid) -> Option<Vec<HyperparamEntry>> {
    use HyperparamValue::{Bool, U16, U64};
    if !NetworksAdded::<Runtime>::get(netuid) {
        return None;
    }
    let entries = [
        ("kappa", U16(Compact(Kappa::<Runtime>::get(netuid)))),
        ("immunity_period", U16(Compact(ImmunityPeriod::<Runtime>::get(netuid)))),
        ("min_allowed_weights", U16(Compact(MinAllowedWeights::<Runtime>::get(netuid)))),
        ("max_weights_limit", U16(Compact(MaxWeightsLimit::<Runtime>::get(netuid)))),
        ("tempo", U16(Compact(Tempo::<Runtime>::get(netuid)))),
        ("weights_version", U64(Compact(WeightsVersionKey::<Runtime>::get(netuid)))),
        ("weights_rate_limit", U64(Compact(WeightsSetRateLimit::<Runtime>::get(netuid)))),
        ("activity_cutoff", U64(Compact(ActivityCutoff::<Runtime>::get(netuid).into()))),
        ("registration_allowed", Bool(NetworkRegistrationAllowed::<Runtime>::get(netuid))),
        ("serving_rate_limit", U64(Compact(ServingRateLimit::<Runtime>::get(netuid)))),
        ("max_validators", U16(Compact(MaxAllowedValidators::<Runtime>::get(netuid)))),
        ("commit_reveal_period", U64(Compact(RevealPeriodEpochs::<Runtime>::get(netuid)))),
        ("commit_reveal_weights_enabled", Bool(CommitRevealWeightsEnabled::<Runtime>::get(netuid))),
    ];
    let entry = |(name, value): (&str, HyperparamValue)| HyperparamEntry { name: name.as_bytes().to_vec(), value };
    Some(entries.into_iter().map(entry).collect())
}

/// The whole metagraph of one mechanism; `None` where it does not exist.
pub(super) fn metagraph(netuid: NetUid, mecid: MechId) -> Option<Metagraph> {
    if !SubtensorModule::mechanism_exists(netuid, mecid) {
        return None;
    }
    let state = subnet_state(netuid)?;
    let index = NetUidStorageIndex::new(netuid, mecid);
    let block = SubtensorModule::current_block();
    let last_step = LastMechansimStepBlock::<Runtime>::get(netuid);
    let count = state.hotkeys.len();
    let (no_alpha, no_tao) = (Compact(AlphaBalance(0)), Compact(TaoBalance(0)));
    Some(Metagraph {
        netuid: Compact(NetUid(index.0)),
        name: Vec::new(),
        symbol: compact(TokenSymbol::<Runtime>::get(netuid)),
        identity: None,
        network_registered_at: Compact(NetworkRegisteredAt::<Runtime>::get(netuid)),
        owner_hotkey: SubnetOwnerHotkey::<Runtime>::get(netuid),
        owner_coldkey: SubnetOwner::<Runtime>::get(netuid),
        block: Compact(block),
        tempo: Compact(Tempo::<Runtime>::get(netuid)),
        last_step: Compact(last_step),
        blocks_since_last_step: Compact(block.saturating_sub(last_step)),
        subnet_emission: Compact(0),
        alpha_in: no_alpha,
        alpha_out: no_alpha,
        tao_in: no_tao,
        alpha_out_emission: no_alpha,
        alpha_in_emission: no_alpha,
        tao_in_emission: no_tao,
        pending_alpha_emission: no_alpha,
        pending_root_emission: no_tao,
        subnet_volume: Compact(0),
        moving_price: FixedI128 { bits: 0 },
        rho: Compact(Rho::<Runtime>::get(netuid)),
        kappa: Compact(Kappa::<Runtime>::get(netuid)),
        min_allowed_weights: Compact(MinAllowedWeights::<Runtime>::get(netuid)),
        max_weights_limit: Compact(MaxWeightsLimit::<Runtime>::get(netuid)),
        weights_version: Compact(WeightsVersionKey::<Runtime>::get(netuid)),
        weights_rate_limit: Compact(WeightsSetRateLimit::<Runtime>::get(netuid)),
        activity_cutoff: Compact(ActivityCutoff::<Runtime>::get(netuid).into()),
        max_validators: Compact(MaxAllowedValidators::<Runtime>::get(netuid)),
        num_uids: Compact(SubnetworkN::<Runtime>::get(netuid)),
        max_uids: Compact(MaxAllowedUids::<Runtime>::get(netuid)),
        burn: Compact(Burn::<Runtime>::get(netuid)),
        difficulty: Compact(0),
        registration_allowed: NetworkRegistrationAllowed::<Runtime>::get(netuid),
        pow_registration_allowed: false,
        immunity_period: Compact(ImmunityPeriod::<Runtime>::get(netuid)),
        min_difficulty: Compact(0),
        max_difficulty: Compact(0),
        min_burn: no_tao,
        max_burn: no_tao,
        adjustment_alpha: Compact(0),
        adjustment_interval: Compact(0),
        target_regs_per_interval: Compact(0),
        max_regs_per_block: Compact(0),
        serving_rate_limit: Compact(ServingRateLimit::<Runtime>::get(netuid)),
        commit_reveal_weights_enabled: CommitRevealWeightsEnabled::<Runtime>::get(netuid),
        commit_reveal_period: Compact(RevealPeriodEpochs::<Runtime>::get(netuid)),
        liquid_alpha_enabled: false,
        alpha_high: Compact(0),
        alpha_low: Compact(0),
        bonds_moving_avg: Compact(0),
        identities: vec![None; count],
        axons: state.hotkeys.iter().map(|key| Axons::<Runtime>::get(netuid, key).unwrap_or_default()).collect(),
        active: state.active,
        validator_permit: state.validator_permit,
        pruning_score: state.pruning_score,
        last_update: compact(LastUpdate::<Runtime>::get(index)),
        emission: state.emission,
        dividends: state.dividends,
        incentives: compact(Incentive::<Runtime>::get(index)),
        consensus: state.consensus,
        trust: state.trust,
        rank: state.rank,
        block_at_registration: state.block_at_registration,
        alpha_stake: state.alpha_stake,
        tao_stake: state.tao_stake,
        total_stake: state.total_stake,
        tao_dividends_per_hotkey: state.hotkeys.iter().map(|key| (key.clone(), no_tao)).collect(),
        alpha_dividends_per_hotkey: state.hotkeys.iter().map(|key| (key.clone(), no_alpha)).collect(),
        collateral_locked: vec![no_alpha; count],
        collateral_min: vec![no_alpha; count],
        collateral_earned: vec![no_alpha; count],
        coldkeys: state.coldkeys,
        hotkeys: state.hotkeys,
    })
}
