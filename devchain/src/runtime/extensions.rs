//! The transaction extensions, in the order and under the names that Subtensor's metadata gives them.
//!
//! Those of FRAME are FRAME's own. Here are the five that are Subtensor's: a nonce check that lets free calls through
//! from accounts without a balance, the pool's checks of weights, commits and axons, and three that carry no bytes and
//! check nothing that can occur on this chain.

use super::commits::commit_hash;
use super::drand::LastStoredRound;
use super::primitives::{MechId, NetUid, NetUidStorageIndex};
use super::subtensor::{AxonInfo, Call, CommitRevealWeightsEnabled, Error, Uids};
use super::{Runtime, RuntimeCall, RuntimeOrigin, SubtensorModule};
use frame_support::dispatch::{DispatchInfo, Pays};
use frame_support::pallet_prelude::{Decode, DecodeWithMemTracking, Encode, TypeInfo};
use sp_runtime::traits::{AsSystemOriginSigner, Implication, TransactionExtension, ValidateResult};
use sp_runtime::transaction_validity::{
    InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction,
};
use sp_runtime::{AccountId32, impl_tx_ext_default};

/// Replay protection by nonce. An account without any balance may still make calls that pay no fee.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct CheckNonce(#[codec(compact)] pub u32);

impl TransactionExtension<RuntimeCall> for CheckNonce {
    const IDENTIFIER: &'static str = "CheckNonce";
    type Implicit = ();
    /// The signer and the nonce its account has.
    type Val = Option<(AccountId32, u32)>;
    type Pre = ();

    impl_tx_ext_default!(RuntimeCall; weight);

    fn validate(
        &self,
        origin: RuntimeOrigin,
        _call: &RuntimeCall,
        info: &DispatchInfo,
        _len: usize,
        (): (),
        _inherited: &impl Implication,
        _source: TransactionSource,
    ) -> ValidateResult<Self::Val, RuntimeCall> {
        let Some(who) = origin.as_system_origin_signer().cloned() else {
            return Ok((ValidTransaction::default(), None, origin));
        };
        let account = frame_system::Account::<Runtime>::get(&who);
        if info.pays_fee == Pays::Yes && account.providers == 0 && account.sufficients == 0 {
            return Err(InvalidTransaction::Payment.into());
        }
        if self.0 < account.nonce {
            return Err(InvalidTransaction::Stale.into());
        }
        let before = (account.nonce < self.0).then(|| nonce_tag(&who, self.0.saturating_sub(1)));
        let validity = ValidTransaction {
            requires: before.into_iter().collect(),
            provides: vec![nonce_tag(&who, self.0)],
            ..ValidTransaction::default()
        };
        Ok((validity, Some((who, account.nonce)), origin))
    }

    fn prepare(
        self,
        val: Self::Val,
        _origin: &RuntimeOrigin,
        _call: &RuntimeCall,
        _info: &DispatchInfo,
        _len: usize,
    ) -> Result<(), TransactionValidityError> {
        let Some((who, nonce)) = val else { return Ok(()) };
        if self.0 > nonce {
            return Err(InvalidTransaction::Future.into());
        }
        frame_system::Account::<Runtime>::mutate(who, |account| account.nonce = nonce.saturating_add(1));
        Ok(())
    }
}

/// The pool's tag for one account's transaction with one nonce.
pub(crate) fn nonce_tag(who: &AccountId32, nonce: u32) -> Vec<u8> {
    (who, nonce).encode()
}

/// Refuses in the pool what would fail in the block for reasons that can be seen beforehand, with
/// `InvalidTransaction::Custom(code)`; see [`custom_code`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct SubtensorTransactionExtension;

impl SubtensorTransactionExtension {
    fn check(who: &AccountId32, call: &Call<Runtime>) -> Result<(), Error<Runtime>> {
        match call {
            Call::set_weights { netuid, .. } => Self::check_weights(who, *netuid, MechId::MAIN),
            Call::set_mechanism_weights { netuid, mecid, .. } => Self::check_weights(who, *netuid, *mecid),
            Call::commit_timelocked_weights { netuid, reveal_round, .. }
            | Call::commit_timelocked_mechanism_weights { netuid, reveal_round, .. } => {
                Self::check_stake(who, *netuid)?;
                if *reveal_round < LastStoredRound::<Runtime>::get() { Err(Error::InvalidRevealRound) } else { Ok(()) }
            }
            Call::commit_weights { netuid, .. } => Self::check_commit(who, *netuid, MechId::MAIN),
            Call::commit_mechanism_weights { netuid, mecid, .. } => Self::check_commit(who, *netuid, *mecid),
            Call::reveal_weights { netuid, uids, values, salt, version_key } => {
                let index = NetUidStorageIndex::from(*netuid);
                let hash = commit_hash(who, index, uids, values, salt, *version_key);
                Self::check_stake(who, *netuid)?;
                SubtensorModule::check_reveal(who, *netuid, index, hash)
            }
            Call::reveal_mechanism_weights { netuid, mecid, uids, values, salt, version_key } => {
                let index = NetUidStorageIndex::new(*netuid, *mecid);
                let hash = commit_hash(who, index, uids, values, salt, *version_key);
                Self::check_stake(who, *netuid)?;
                SubtensorModule::check_reveal(who, *netuid, index, hash)
            }
            Call::serve_axon { netuid, version, ip, port, ip_type, protocol, placeholder1, placeholder2 }
            | Call::serve_axon_tls {
                netuid, version, ip, port, ip_type, protocol, placeholder1, placeholder2, ..
            } => {
                let axon = AxonInfo {
                    block: SubtensorModule::current_block(),
                    version: *version,
                    ip: *ip,
                    port: *port,
                    ip_type: *ip_type,
                    protocol: *protocol,
                    placeholder1: *placeholder1,
                    placeholder2: *placeholder2,
                };
                SubtensorModule::check_axon(who, *netuid, &axon)
            }
            _ => Ok(()),
        }
    }

    fn check_stake(who: &AccountId32, netuid: NetUid) -> Result<(), Error<Runtime>> {
        if SubtensorModule::has_stake_for_weights(who, netuid) {
            Ok(())
        } else {
            Err(Error::NotEnoughStakeToSetWeights)
        }
    }

    fn check_weights(who: &AccountId32, netuid: NetUid, mecid: MechId) -> Result<(), Error<Runtime>> {
        Self::check_stake(who, netuid)?;
        if CommitRevealWeightsEnabled::<Runtime>::get(netuid) || Self::has_waited(who, netuid, mecid) {
            return Ok(());
        }
        Err(Error::SettingWeightsTooFast)
    }

    fn check_commit(who: &AccountId32, netuid: NetUid, mecid: MechId) -> Result<(), Error<Runtime>> {
        Self::check_stake(who, netuid)?;
        if Self::has_waited(who, netuid, mecid) { Ok(()) } else { Err(Error::CommittingWeightsTooFast) }
    }

    /// Has the rate limit passed. Who is not registered is told so in the block.
    fn has_waited(who: &AccountId32, netuid: NetUid, mecid: MechId) -> bool {
        let index = NetUidStorageIndex::new(netuid, mecid);
        Uids::<Runtime>::get(netuid, who).is_none_or(|uid| SubtensorModule::may_update_now(netuid, index, uid))
    }
}

/// Code that the pool answers for an error, as clients of the real chain know it.
fn custom_code(error: &Error<Runtime>) -> u8 {
    const BAD_REQUEST: u8 = 255;
    match error {
        Error::NotEnoughStakeToSetWeights => 1,
        Error::SettingWeightsTooFast | Error::CommittingWeightsTooFast => 6,
        Error::HotKeyNotRegisteredInNetwork => 10,
        Error::InvalidIpAddress => 11,
        Error::ServingRateLimitExceeded => 12,
        Error::InvalidPort => 13,
        Error::InvalidRevealRound => 15,
        Error::NoWeightsCommitFound => 16,
        Error::RevealTooEarly => 17,
        Error::HotKeyNotRegisteredInSubNet => 19,
        _ => BAD_REQUEST,
    }
}

impl TransactionExtension<RuntimeCall> for SubtensorTransactionExtension {
    const IDENTIFIER: &'static str = "SubtensorTransactionExtension";
    type Implicit = ();
    type Val = ();
    type Pre = ();

    impl_tx_ext_default!(RuntimeCall; weight prepare);

    fn validate(
        &self,
        origin: RuntimeOrigin,
        call: &RuntimeCall,
        _info: &DispatchInfo,
        _len: usize,
        (): (),
        _inherited: &impl Implication,
        _source: TransactionSource,
    ) -> ValidateResult<(), RuntimeCall> {
        if let (Some(who), RuntimeCall::SubtensorModule(call)) = (origin.as_system_origin_signer(), call) {
            Self::check(who, call).map_err(|error| InvalidTransaction::Custom(custom_code(&error)))?;
        }
        Ok((ValidTransaction::default(), (), origin))
    }
}

macro_rules! empty_extension {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
        pub struct $name;

        impl TransactionExtension<RuntimeCall> for $name {
            const IDENTIFIER: &'static str = stringify!($name);
            type Implicit = ();
            type Val = ();
            type Pre = ();

            impl_tx_ext_default!(RuntimeCall; weight validate prepare);
        }
    };
}

empty_extension!(
    /// There is no sudo pallet here.
    SudoTransactionExtension
);
empty_extension!(
    /// There are no shielded transactions here.
    CheckShieldedTxValidity
);
empty_extension!(
    /// There are no pulses to put first here.
    DrandPriority
);
