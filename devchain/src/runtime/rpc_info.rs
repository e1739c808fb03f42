//! The answers of the runtime APIs about subnets and neurons, field for field as Subtensor's runtime gives them.
//!
//! The structs carry no documentation of each field: names, order and types are the interface, and what each means is
//! said at the storage item of the same name.

#![allow(missing_docs)]

use super::primitives::{AlphaBalance, FixedI64, FixedU128, NetUid, NetUidStorageIndex, TaoBalance};
use super::subtensor::{
    Active, ActivityCutoff, AxonInfo, Axons, BlockAtRegistration, CommitRevealWeightsEnabled, Consensus, Dividends,
    Emission, ImmunityPeriod, Incentive, Kappa, Keys, LastUpdate, MaxAllowedValidators, MaxWeightsLimit,
    MinAllowedWeights, NetworkRegistrationAllowed, NetworksAdded, Owner, RevealPeriodEpochs, ServingRateLimit,
    SubnetworkN, Tempo, ValidatorPermit, ValidatorTrust, WeightsSetRateLimit, WeightsVersionKey,
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

pub(super) fn compact<V>(values: Vec<V>) -> Vec<Compact<V>> {
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
