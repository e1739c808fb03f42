//! `dev_…`: what only a development chain offers. Each change is made in the next block; the answer, `{"block": hash,
//! "uid": number or null}`, comes when that block is there. `dev_setFault` and `dev_beacon` need no block.
//!
//! | method | arguments |
//! |---|---|
//! | `dev_registerHotkey` | netuid, hotkey, coldkey |
//! | `dev_setStake` | netuid, hotkey, rao |
//! | `dev_setPermit` | netuid, hotkey, permit |
//! | `dev_setTempo` | netuid, blocks |
//! | `dev_setPendingEpoch` | netuid, block: an epoch runs there out of turn; 0 for none |
//! | `dev_setCommitReveal` | netuid, enabled |
//! | `dev_setRevealPeriod` | netuid, epochs |
//! | `dev_setWeightsRateLimit` | netuid, blocks |
//! | `dev_setMinAllowedWeights` | netuid, count |
//! | `dev_setMaxWeightsLimit` | netuid, share of 65535 |
//! | `dev_setWeightsVersionKey` | netuid, key |
//! | `dev_setMechanisms` | netuid, count |
//! | `dev_setMaxAllowedValidators` | netuid, count |
//! | `dev_setNullConsensus` | netuid, is it Null (not Yuma) |
//! | `dev_setPermitsByStake` | do epochs give permits by stake |
//! | `dev_deregister` | netuid, hotkey, new hotkey, new coldkey: the new one takes the old one's uid |
//! | `dev_swapHotkey` | netuid, hotkey, new hotkey: the neuron goes on under the new one |
//! | `dev_endow` | account, rao |
//! | `dev_upgradeRuntime` | spec version: higher than the one there is |
//! | `dev_putPulse` | round, signature: a round of the beacon, checked against its public key |
//! | `dev_setFault` | one object, see [`Fault`]; what it does not name is switched off |
//! | `dev_beacon` | none |
//!
//! `dev_beacon` answers what a client needs to make timelocked commits: `{"publicKey": hex, "scheme", "genesisTime": s,
//! "periodMs", "own": does the chain play the beacon itself, "lastStoredRound"}`.

use super::{Account, Answer, Hex, Module};
use crate::beacon::SCHEME;
use crate::faults::Fault;
use crate::node::{Node, OpDone, OpError};
use crate::runtime::Runtime;
use crate::runtime::admin::{DevOp, Parameter};
use crate::runtime::drand::LastStoredRound;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::{ErrorObjectOwned, Params, ParamsSequence};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

const REFUSED: i32 = 5001;

type Parse = fn(&mut ParamsSequence<'_>) -> Answer<DevOp>;

const CHANGES: [(&str, Parse); 20] = [
    ("dev_registerHotkey", |params| {
        let (netuid, Account(hotkey), Account(coldkey)) = (params.next()?, params.next()?, params.next()?);
        Ok(DevOp::Register { netuid, hotkey, coldkey })
    }),
    ("dev_setStake", |params| {
        let (netuid, Account(hotkey), rao) = (params.next()?, params.next()?, params.next()?);
        Ok(DevOp::SetStake { netuid, hotkey, rao })
    }),
    ("dev_setPermit", |params| {
        let (netuid, Account(hotkey), permit) = (params.next()?, params.next()?, params.next()?);
        Ok(DevOp::SetPermit { netuid, hotkey, permit })
    }),
    ("dev_setTempo", |params| set(params, Parameter::Tempo)),
    ("dev_setPendingEpoch", |params| set(params, Parameter::PendingEpoch)),
    ("dev_setCommitReveal", |params| set(params, Parameter::CommitReveal)),
    ("dev_setRevealPeriod", |params| set(params, Parameter::RevealPeriod)),
    ("dev_setWeightsRateLimit", |params| set(params, Parameter::RateLimit)),
    ("dev_setMinAllowedWeights", |params| set(params, Parameter::MinWeights)),
    ("dev_setMaxWeightsLimit", |params| set(params, Parameter::MaxWeight)),
    ("dev_setWeightsVersionKey", |params| set(params, Parameter::VersionKey)),
    ("dev_setMechanisms", |params| set(params, Parameter::Mechanisms)),
    ("dev_setMaxAllowedValidators", |params| set(params, Parameter::MaxValidators)),
    ("dev_setNullConsensus", |params| set(params, Parameter::NullConsensus)),
    ("dev_setPermitsByStake", |params| Ok(DevOp::SetPermitsByStake(params.next()?))),
    ("dev_deregister", |params| {
        let (netuid, Account(hotkey)) = (params.next()?, params.next()?);
        let (Account(new_hotkey), Account(new_coldkey)) = (params.next()?, params.next()?);
        Ok(DevOp::Replace { netuid, hotkey, new_hotkey, new_coldkey })
    }),
    ("dev_swapHotkey", |params| {
        let (netuid, Account(hotkey), Account(new_hotkey)) = (params.next()?, params.next()?, params.next()?);
        Ok(DevOp::Swap { netuid, hotkey, new_hotkey })
    }),
    ("dev_endow", |params| {
        let (Account(account), rao) = (params.next()?, params.next()?);
        Ok(DevOp::Endow { account, rao })
    }),
    ("dev_upgradeRuntime", |params| Ok(DevOp::Upgrade { spec_version: params.next()? })),
    ("dev_putPulse", |params| {
        let (round, Hex(signature)) = (params.next()?, params.next()?);
        Ok(DevOp::PutPulse { round, signature })
    }),
];

/// A subnet and the new value of one parameter.
fn set<V: DeserializeOwned>(params: &mut ParamsSequence<'_>, parameter: fn(V) -> Parameter) -> Answer<DevOp> {
    Ok(DevOp::Set { netuid: params.next()?, parameter: parameter(params.next()?) })
}

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    for (name, parse) in CHANGES {
        module.register_async_method(name, move |params, node, _| change(params, node, parse))?;
    }
    module.register_method("dev_setFault", |params, node, _| -> Answer<Fault> {
        let fault = params.sequence().optional_next::<Fault>()?.unwrap_or_default();
        node.faults.set(fault);
        Ok(fault)
    })?;
    module.register_method("dev_beacon", |_, node, _| -> Answer<Value> {
        let chain = node.chain();
        let last = chain.read(LastStoredRound::<Runtime>::get)?;
        let beacon = chain.beacon();
        Ok(json!({
            "publicKey": Hex(beacon.public_key().to_vec()),
            "scheme": SCHEME,
            "genesisTime": beacon.genesis_secs(),
            "periodMs": beacon.period_ms(),
            "own": beacon.is_own(),
            "lastStoredRound": last,
        }))
    })?;
    Ok(())
}

async fn change(params: Params<'static>, node: Arc<Node>, parse: Parse) -> Answer<Value> {
    let op = parse(&mut params.sequence())?;
    let OpDone { block, uid } = node.change(op).await?;
    Ok(json!({ "block": block, "uid": uid }))
}

impl From<OpError> for ErrorObjectOwned {
    fn from(error: OpError) -> Self {
        Self::owned(REFUSED, error.to_string(), None::<()>)
    }
}
