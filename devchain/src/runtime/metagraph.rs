//! The metagraph: a subnet and all of its neurons in one answer, whole or the fields that are asked for.
//!
//! The structs carry no documentation of each field: names, order and types are the interface, and what each means is
//! said at the storage item of the same name.

#![allow(missing_docs)]

use super::commitments::CommitmentOf;
use super::primitives::{AlphaBalance, FixedI128, MechId, NetUid, NetUidStorageIndex, TaoBalance};
use super::rpc_info::{ChainIdentityV2, SubnetIdentityV3, compact, subnet_state};
use super::subtensor::{
    ActivityCutoff, AxonInfo, Axons, Burn, CommitRevealWeightsEnabled, ImmunityPeriod, Incentive, Kappa,
    LastMechansimStepBlock, LastUpdate, MaxAllowedUids, MaxAllowedValidators, MaxWeightsLimit, MinAllowedWeights,
    NetworkRegisteredAt, NetworkRegistrationAllowed, RevealPeriodEpochs, Rho, ServingRateLimit, SubnetOwner,
    SubnetOwnerHotkey, SubnetworkN, Tempo, TokenSymbol, WeightsSetRateLimit, WeightsVersionKey,
};
use super::{Runtime, SubtensorModule};
use frame_support::pallet_prelude::{Decode, Encode, TypeInfo};
use scale::Compact;
use sp_runtime::{AccountId32, PerU16};

/// Defines [`Metagraph`] by its fields and [`SelectiveMetagraph`] by the same as options, with two more in between.
macro_rules! metagraph {
    ($($name:ident: $ty:ty,)* ; $($late:ident: $late_ty:ty,)*) => {
        #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
        pub struct Metagraph {
            pub netuid: Compact<NetUid>,
            $(pub $name: $ty,)*
            $(pub $late: $late_ty,)*
        }

        #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
        pub struct SelectiveMetagraph {
            pub netuid: Compact<NetUid>,
            $(pub $name: Option<$ty>,)*
            pub validators: Option<Vec<Compact<u16>>>,
            pub commitments: Option<Vec<(AccountId32, Vec<Compact<u8>>)>>,
            $(pub $late: Option<$late_ty>,)*
        }

        /// Fields in the order of their indices.
        const FIELDS: &[&str] =
            &["netuid", $(stringify!($name),)* "validators", "commitments", $(stringify!($late),)*];

        /// The fields of these indices. The netuid is one of them: who does not ask for it gets 0.
        fn select(graph: Metagraph, indices: &[u16]) -> SelectiveMetagraph {
            let wanted = |name: &str| {
                let at = FIELDS.iter().position(|field| *field == name).and_then(|at| u16::try_from(at).ok());
                at.is_some_and(|at| indices.contains(&at))
            };
            let netuid = graph.netuid.0;
            SelectiveMetagraph {
                netuid: Compact(if wanted("netuid") { netuid } else { NetUid::ROOT }),
                validators: wanted("validators").then(|| validators(&graph)),
                commitments: wanted("commitments").then(|| commitments(netuid)),
                $($name: wanted(stringify!($name)).then_some(graph.$name),)*
                $($late: wanted(stringify!($late)).then_some(graph.$late),)*
            }
        }
    };
}

metagraph! {
    name: Vec<Compact<u8>>,
    symbol: Vec<Compact<u8>>,
    identity: Option<SubnetIdentityV3>,
    network_registered_at: Compact<u64>,
    owner_hotkey: AccountId32,
    owner_coldkey: AccountId32,
    block: Compact<u64>,
    tempo: Compact<u16>,
    last_step: Compact<u64>,
    blocks_since_last_step: Compact<u64>,
    subnet_emission: Compact<u64>,
    alpha_in: Compact<AlphaBalance>,
    alpha_out: Compact<AlphaBalance>,
    tao_in: Compact<TaoBalance>,
    alpha_out_emission: Compact<AlphaBalance>,
    alpha_in_emission: Compact<AlphaBalance>,
    tao_in_emission: Compact<TaoBalance>,
    pending_alpha_emission: Compact<AlphaBalance>,
    pending_root_emission: Compact<TaoBalance>,
    subnet_volume: Compact<u128>,
    moving_price: FixedI128,
    rho: Compact<u16>,
    kappa: Compact<u16>,
    min_allowed_weights: Compact<u16>,
    max_weights_limit: Compact<u16>,
    weights_version: Compact<u64>,
    weights_rate_limit: Compact<u64>,
    activity_cutoff: Compact<u64>,
    max_validators: Compact<u16>,
    num_uids: Compact<u16>,
    max_uids: Compact<u16>,
    burn: Compact<TaoBalance>,
    difficulty: Compact<u64>,
    registration_allowed: bool,
    pow_registration_allowed: bool,
    immunity_period: Compact<u16>,
    min_difficulty: Compact<u64>,
    max_difficulty: Compact<u64>,
    min_burn: Compact<TaoBalance>,
    max_burn: Compact<TaoBalance>,
    adjustment_alpha: Compact<u64>,
    adjustment_interval: Compact<u16>,
    target_regs_per_interval: Compact<u16>,
    max_regs_per_block: Compact<u16>,
    serving_rate_limit: Compact<u64>,
    commit_reveal_weights_enabled: bool,
    commit_reveal_period: Compact<u64>,
    liquid_alpha_enabled: bool,
    alpha_high: Compact<u16>,
    alpha_low: Compact<u16>,
    bonds_moving_avg: Compact<u64>,
    hotkeys: Vec<AccountId32>,
    coldkeys: Vec<AccountId32>,
    identities: Vec<Option<ChainIdentityV2>>,
    axons: Vec<AxonInfo>,
    active: Vec<bool>,
    validator_permit: Vec<bool>,
    pruning_score: Vec<Compact<u16>>,
    last_update: Vec<Compact<u64>>,
    emission: Vec<Compact<AlphaBalance>>,
    dividends: Vec<Compact<PerU16>>,
    incentives: Vec<Compact<PerU16>>,
    consensus: Vec<Compact<PerU16>>,
    trust: Vec<Compact<PerU16>>,
    rank: Vec<Compact<u16>>,
    block_at_registration: Vec<Compact<u64>>,
    alpha_stake: Vec<Compact<AlphaBalance>>,
    tao_stake: Vec<Compact<TaoBalance>>,
    total_stake: Vec<Compact<TaoBalance>>,
    tao_dividends_per_hotkey: Vec<(AccountId32, Compact<TaoBalance>)>,
    alpha_dividends_per_hotkey: Vec<(AccountId32, Compact<AlphaBalance>)>,
    ;
    collateral_locked: Vec<Compact<AlphaBalance>>,
    collateral_min: Vec<Compact<AlphaBalance>>,
    collateral_earned: Vec<Compact<AlphaBalance>>,
}

/// Uids with a permit, those with the least stake first.
fn validators(graph: &Metagraph) -> Vec<Compact<u16>> {
    let mut found: Vec<(u64, u16)> = graph
        .validator_permit
        .iter()
        .zip(&graph.total_stake)
        .zip(0u16..)
        .filter(|((permit, _), _)| **permit)
        .map(|((_, stake), uid)| (stake.0.0, uid))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, uid)| Compact(uid)).collect()
}

/// Encoded commitments by hotkey.
fn commitments(netuid: NetUid) -> Vec<(AccountId32, Vec<Compact<u8>>)> {
    CommitmentOf::<Runtime>::iter_prefix(netuid).map(|(who, found)| (who, compact(found.encode()))).collect()
}

/// Some fields of the metagraph of one mechanism; `None` where it does not exist.
pub(super) fn selective_metagraph(netuid: NetUid, mecid: MechId, indices: &[u16]) -> Option<SelectiveMetagraph> {
    let mut graph = metagraph(netuid, mecid)?;
    graph.netuid = Compact(netuid);
    Some(select(graph, indices))
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
