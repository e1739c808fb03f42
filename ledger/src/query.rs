//! What dashboards and services ask of the newest agreed state.

use std::collections::BTreeMap;

use perturb_types::{ChallengeId, Hotkey};

use crate::genesis::ChallengeSpec;
use crate::state::{
    self, HistoryRow, KeyRow, META, Meta, Overlay, Reputation, SET, SNAPSHOT, SeqRow, history_parts, history_prefix,
    key_key, ready_key, reputation_key, seq_key,
};
use crate::store::{StateStore, StoreError};
use crate::tx::Snapshot;
use crate::validators::ValidatorSet;

fn must<T: borsh::BorshDeserialize>(store: &(impl StateStore + ?Sized), key: &[u8]) -> Result<T, StoreError> {
    state::read(store, key)?.ok_or_else(|| StoreError(format!("row {} is missing", hex::encode(key))))
}

/// The epoch in the making and what goes with it.
///
/// # Errors
/// The store cannot be read.
pub fn meta<S: StateStore + ?Sized>(store: &S) -> Result<Meta, StoreError> {
    must(store, META)
}

/// The set of the next height.
///
/// # Errors
/// The store cannot be read.
pub fn validators<S: StateStore + ?Sized>(store: &S) -> Result<ValidatorSet, StoreError> {
    must(store, SET)
}

/// The agreed snapshot.
///
/// # Errors
/// The store cannot be read.
pub fn snapshot<S: StateStore + ?Sized>(store: &S) -> Result<Snapshot, StoreError> {
    must(store, SNAPSHOT)
}

/// All challenges.
///
/// # Errors
/// The store cannot be read.
pub fn challenges<S: StateStore + ?Sized>(store: &S) -> Result<Vec<ChallengeSpec>, StoreError> {
    state::challenges(&Overlay::new(store))
}

/// A validator's round numbers.
///
/// # Errors
/// The store cannot be read.
pub fn sequence<S: StateStore + ?Sized>(store: &S, id: ChallengeId, validator: &Hotkey) -> Result<SeqRow, StoreError> {
    Ok(state::read(store, &seq_key(id, validator))?.unwrap_or_default())
}

/// A hotkey's registered consensus key.
///
/// # Errors
/// The store cannot be read.
pub fn registered_key<S: StateStore + ?Sized>(store: &S, hotkey: &Hotkey) -> Result<Option<KeyRow>, StoreError> {
    state::read(store, &key_key(hotkey))
}

/// Whether a hotkey has said that it is ready for the epoch after this one.
///
/// # Errors
/// The store cannot be read.
pub fn is_ready<S: StateStore + ?Sized>(store: &S, epoch: u64, hotkey: &Hotkey) -> Result<bool, StoreError> {
    Ok(store.value(&ready_key(epoch, hotkey))?.is_some())
}

/// What speaks against a validator.
///
/// # Errors
/// The store cannot be read.
pub fn reputation<S: StateStore + ?Sized>(store: &S, validator: &Hotkey) -> Result<Reputation, StoreError> {
    Ok(state::read(store, &reputation_key(validator))?.unwrap_or_default())
}

/// A miner's standing in the histories.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Standing {
    /// Answers counted over all validators.
    pub results: u64,
    /// The largest count of any one validator.
    pub processed: u64,
    /// Mean of the validators' means, in millionths.
    pub mean: u64,
}

/// Every miner's standing.
///
/// # Errors
/// The store cannot be read.
pub fn standings<S: StateStore + ?Sized>(store: &S, id: ChallengeId) -> Result<BTreeMap<Hotkey, Standing>, StoreError> {
    let mut sums: BTreeMap<Hotkey, (Standing, u64, u64)> = BTreeMap::new();
    for (key, row) in store.scan(&history_prefix(id))? {
        let Some((miner, _)) = history_parts(id, &key) else { continue };
        let row: HistoryRow = state::parse(&key, &row)?;
        let (standing, sum, count) = sums.entry(miner).or_default();
        standing.results += row.ring.processed;
        standing.processed = standing.processed.max(row.ring.processed);
        *sum += u64::from(row.ring.mean().0);
        *count += 1;
    }
    Ok(sums.into_iter().map(|(m, (s, sum, count))| (m, Standing { mean: sum / count.max(1), ..s })).collect())
}
