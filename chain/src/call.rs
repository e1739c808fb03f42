//! Calls by name: weights of one mechanism, and what every call comes down to.

use serde::{Deserialize, Serialize};
use subxt::Metadata;
use subxt::dynamic::Value;
use subxt::ext::scale_value::Composite;

use crate::{ChainError, PALLET, SubmitError, storage_index};

/// Longest vector sent: the greatest number of neurons a subnet may have, with room.
pub const MAX_WEIGHTS: usize = 4096;

/// A call that sets one mechanism's weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsCall {
    /// The subnet.
    pub netuid: u16,
    /// The mechanism.
    pub mecid: u8,
    /// (uid, u16) exactly as they are to stand on the chain: already max-upscaled, no zeros.
    pub weights: Vec<(u16, u16)>,
    /// At least the subnet's `weights_version_key`.
    pub version_key: u64,
}

/// Whether the chain could take the weights at all.
pub(crate) fn check(call: &WeightsCall) -> Result<(), SubmitError> {
    if storage_index(call.netuid, call.mecid).is_none() {
        return Err(ChainError::BadMechanism { netuid: call.netuid, mecid: call.mecid }.into());
    }
    if call.weights.iter().all(|(_, w)| *w == 0) {
        return Err(SubmitError::TooFewWeights);
    }
    if call.weights.len() > MAX_WEIGHTS {
        return Err(SubmitError::TooManyUids);
    }
    Ok(())
}

/// A call by pallet and name, with its arguments by name.
pub(crate) struct NamedCall {
    pub(crate) pallet: &'static str,
    pub(crate) name: &'static str,
    pub(crate) fields: Composite<()>,
}

/// The name of the call for one mechanism: the call of mechanisms where the runtime has it, else the call of the only one.
pub(crate) fn call_name(
    metadata: &Metadata,
    mecid: u8,
    of_mechanisms: &'static str,
    of_the_only: &'static str,
) -> Result<&'static str, SubmitError> {
    let pallet = metadata.pallet_by_name(PALLET);
    let has = |name| pallet.as_ref().is_some_and(|p| p.call_variant_by_name(name).is_some());
    if has(of_mechanisms) {
        Ok(of_mechanisms)
    } else if mecid == 0 && has(of_the_only) {
        Ok(of_the_only)
    } else {
        Err(SubmitError::CannotEncode(format!("the runtime has no call {of_mechanisms} for mechanism {mecid}")))
    }
}

/// The call that sets plain weights in this runtime.
pub(crate) fn plain_call(call: &WeightsCall, metadata: &Metadata) -> Result<NamedCall, SubmitError> {
    let column = |f: fn(&(u16, u16)) -> u16| {
        Value::unnamed_composite(call.weights.iter().map(|w| Value::u128(u128::from(f(w)))))
    };
    let mut fields = vec![
        ("netuid", Value::u128(u128::from(call.netuid))),
        ("dests", column(|w| w.0)),
        ("weights", column(|w| w.1)),
        ("version_key", Value::u128(u128::from(call.version_key))),
    ];
    let name = call_name(metadata, call.mecid, "set_mechanism_weights", "set_weights")?;
    if name == "set_mechanism_weights" {
        fields.push(("mecid", Value::u128(u128::from(call.mecid))));
    }
    Ok(NamedCall { pallet: PALLET, name, fields: Composite::named(fields) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_call_outside_the_chains_numbering_is_refused_before_anything_is_sent() {
        let call = |netuid, mecid, n: usize| WeightsCall { netuid, mecid, weights: vec![(0, 1); n], version_key: 0 };
        assert!(check(&call(1, 0, 2)).is_ok());
        assert!(matches!(check(&call(4096, 0, 2)), Err(SubmitError::Chain(ChainError::BadMechanism { .. }))));
        assert!(matches!(check(&call(1, 16, 2)), Err(SubmitError::Chain(ChainError::BadMechanism { .. }))));
        assert_eq!(check(&call(1, 0, 4097)), Err(SubmitError::TooManyUids));
        assert_eq!(check(&call(1, 0, 0)), Err(SubmitError::TooFewWeights));
    }
}
