//! Changes that a developer makes and no extrinsic could: the calls named `dev_…`.
//!
//! They run inside the block that is being made, so they are part of its state, survive a restart and can be read at
//! that block like anything else.

use super::install::endow;
use super::primitives::{AlphaBalance, MAX_MECHANISMS, NetUid};
use super::subtensor::{
    CommitRevealWeightsEnabled, EpochConsensus, Event, MaxAllowedUids, MaxAllowedValidators, MaxWeightsLimit,
    MinAllowedWeights, NetworksAdded, PendingEpochAt, RevealPeriodEpochs, SubnetEpochConsensus, SubnetworkN, Tempo,
    TotalHotkeyAlpha, Uids, ValidatorPermit, WeightsSetRateLimit, WeightsVersionKey,
};
use super::{Drand, PermitsByStake, Runtime, SpecVersion, SubtensorModule, System, neurons};
use crate::genesis::REVEAL_PERIODS;
use sp_runtime::{AccountId32, DigestItem};

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
    /// Give a neuron another hotkey; all else of it stays.
    Swap {
        /// The subnet.
        netuid: u16,
        /// The hotkey it has.
        hotkey: AccountId32,
        /// The hotkey it gets; one that is registered already is refused.
        new_hotkey: AccountId32,
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
    /// Change one parameter of a subnet.
    Set {
        /// The subnet.
        netuid: u16,
        /// The parameter and its new value.
        parameter: Parameter,
    },
    /// Let epochs give permits by stake, or leave permits as they are.
    SetPermitsByStake(bool),
    /// Give an account TAO.
    Endow {
        /// The account.
        account: AccountId32,
        /// How much more, in rao.
        rao: u64,
    },
    /// Store a round of the beacon; one that the beacon has not signed is refused.
    PutPulse {
        /// Its number.
        round: u64,
        /// The beacon's signature.
        signature: Vec<u8>,
    },
    /// Play an upgrade of the runtime: from this block on it has a higher version, and clients must sign over it.
    Upgrade {
        /// The new version.
        spec_version: u32,
    },
}

/// A parameter of a subnet, with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Blocks per epoch; the running epoch keeps its start.
    Tempo(u16),
    /// Block at which an epoch runs out of turn; 0 for none.
    PendingEpoch(u64),
    /// Commit-reveal, on or off.
    CommitReveal(bool),
    /// Epochs from commit to reveal.
    RevealPeriod(u64),
    /// Blocks between two submissions.
    RateLimit(u64),
    /// Least number of weights.
    MinWeights(u16),
    /// Greatest share (of 65535) of one weight.
    MaxWeight(u16),
    /// Least version key.
    VersionKey(u64),
    /// Number of mechanisms.
    Mechanisms(u8),
    /// Most validators with a permit.
    MaxValidators(u16),
    /// Does one validator alone count.
    NullConsensus(bool),
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
    /// All uids are taken.
    #[error("subnet {0} is full; replace a neuron instead")]
    Full(u16),
    /// A value that the chain does not allow.
    #[error("{0:?} is not allowed")]
    Value(Parameter),
    /// The signature is not the beacon's for this round.
    #[error("round {0}: not signed by the chain's beacon")]
    BadPulse(u64),
    /// An upgrade that goes back.
    #[error("spec version {new} is not above {current}")]
    OldVersion {
        /// The version asked for.
        new: u32,
        /// The version there is.
        current: u32,
    },
}

/// Make a development change in the current block; returns the uid it concerns, if it concerns one.
pub(crate) fn apply(op: &DevOp) -> Result<Option<u16>, DevError> {
    match op {
        DevOp::Register { netuid, hotkey, coldkey } => {
            let id = subnet(*netuid)?;
            unregistered(id, hotkey)?;
            let uid = SubnetworkN::<Runtime>::get(id);
            if uid >= MaxAllowedUids::<Runtime>::get(id) {
                return Err(DevError::Full(*netuid));
            }
            neurons::append(id, hotkey, coldkey);
            SubtensorModule::refresh_stake_weights(id);
            SubtensorModule::deposit_event(Event::NeuronRegistered(id, uid, hotkey.clone()));
            Ok(Some(uid))
        }
        DevOp::Replace { netuid, hotkey, new_hotkey, new_coldkey } => {
            let id = subnet(*netuid)?;
            let uid = registered(id, hotkey)?;
            unregistered(id, new_hotkey)?;
            neurons::replace(id, uid, hotkey, new_hotkey, new_coldkey);
            SubtensorModule::refresh_stake_weights(id);
            SubtensorModule::deposit_event(Event::NeuronRegistered(id, uid, new_hotkey.clone()));
            Ok(Some(uid))
        }
        DevOp::Swap { netuid, hotkey, new_hotkey } => {
            let id = subnet(*netuid)?;
            let uid = registered(id, hotkey)?;
            unregistered(id, new_hotkey)?;
            let coldkey = neurons::swap(id, uid, hotkey, new_hotkey);
            let (old_hotkey, new_hotkey) = (hotkey.clone(), new_hotkey.clone());
            let event = Event::HotkeySwappedOnSubnet { coldkey, old_hotkey, new_hotkey, netuid: id };
            SubtensorModule::deposit_event(event);
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
            ValidatorPermit::<Runtime>::mutate(id, |permits| neurons::set_at(permits, uid, *permit));
            Ok(Some(uid))
        }
        DevOp::Set { netuid, parameter } => set(subnet(*netuid)?, *parameter).map(|()| None),
        DevOp::SetPermitsByStake(by_stake) => {
            PermitsByStake::set(by_stake);
            Ok(None)
        }
        DevOp::Endow { account, rao } => {
            endow(account, *rao);
            Ok(None)
        }
        DevOp::PutPulse { round, signature } => {
            if Drand::bring(*round, signature) {
                Ok(None)
            } else {
                Err(DevError::BadPulse(*round))
            }
        }
        DevOp::Upgrade { spec_version } => {
            let current = SpecVersion::get();
            if *spec_version <= current {
                return Err(DevError::OldVersion { new: *spec_version, current });
            }
            SpecVersion::set(spec_version);
            System::deposit_log(DigestItem::RuntimeEnvironmentUpdated);
            Ok(None)
        }
    }
}

fn set(id: NetUid, parameter: Parameter) -> Result<(), DevError> {
    let event = match parameter {
        Parameter::Tempo(tempo) => {
            Tempo::<Runtime>::insert(id, tempo);
            Event::TempoSet(id, tempo)
        }
        Parameter::PendingEpoch(block) => {
            PendingEpochAt::<Runtime>::insert(id, block);
            return Ok(());
        }
        Parameter::CommitReveal(enabled) => {
            CommitRevealWeightsEnabled::<Runtime>::insert(id, enabled);
            Event::CommitRevealEnabled(id, enabled)
        }
        Parameter::RevealPeriod(epochs) => {
            if !REVEAL_PERIODS.contains(&epochs) {
                return Err(DevError::Value(parameter));
            }
            RevealPeriodEpochs::<Runtime>::insert(id, epochs);
            Event::CommitRevealPeriodsSet(id, epochs)
        }
        Parameter::RateLimit(blocks) => {
            WeightsSetRateLimit::<Runtime>::insert(id, blocks);
            Event::WeightsSetRateLimitSet(id, blocks)
        }
        Parameter::MinWeights(count) => {
            MinAllowedWeights::<Runtime>::insert(id, count);
            Event::MinAllowedWeightSet(id, count)
        }
        Parameter::MaxWeight(limit) => {
            MaxWeightsLimit::<Runtime>::insert(id, limit);
            Event::MaxWeightLimitSet(id, limit)
        }
        Parameter::VersionKey(key) => {
            WeightsVersionKey::<Runtime>::insert(id, key);
            Event::WeightsVersionKeySet(id, key)
        }
        Parameter::Mechanisms(count) => {
            if !(1..=MAX_MECHANISMS).contains(&count) {
                return Err(DevError::Value(parameter));
            }
            neurons::set_mechanisms(id, count);
            return Ok(());
        }
        Parameter::MaxValidators(count) => {
            MaxAllowedValidators::<Runtime>::insert(id, count);
            return Ok(());
        }
        Parameter::NullConsensus(null) => {
            let consensus = if null { EpochConsensus::Null } else { EpochConsensus::Yuma };
            SubnetEpochConsensus::<Runtime>::insert(id, consensus);
            return Ok(());
        }
    };
    SubtensorModule::deposit_event(event);
    Ok(())
}

fn subnet(netuid: u16) -> Result<NetUid, DevError> {
    let id = NetUid(netuid);
    if NetworksAdded::<Runtime>::get(id) { Ok(id) } else { Err(DevError::NoSubnet(netuid)) }
}

fn registered(id: NetUid, hotkey: &AccountId32) -> Result<u16, DevError> {
    Uids::<Runtime>::get(id, hotkey).ok_or_else(|| DevError::NotRegistered { hotkey: hotkey.clone(), netuid: id.0 })
}

fn unregistered(id: NetUid, hotkey: &AccountId32) -> Result<(), DevError> {
    let taken = Uids::<Runtime>::get(id, hotkey);
    taken.map_or(Ok(()), |uid| Err(DevError::AlreadyRegistered { hotkey: hotkey.clone(), netuid: id.0, uid }))
}
