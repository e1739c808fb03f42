//! What dashboards and services ask of the newest agreed state.

use std::collections::{BTreeMap, BTreeSet};

use perturb_types::{ChallengeId, Hotkey, RoundId};

use crate::draw::DrawRow;
use crate::genesis::{ChallengeSpec, Parameters};
use crate::images::UnrevealedRow;
use crate::outliers::OutlierRow;
use crate::reputation::Reputation;
use crate::spot::FreshRow;
use crate::state::{
    self, DRAWS, HistoryRow, KeyRow, META, Meta, OpenRow, Overlay, PARAMETERS, SET, SNAPSHOT, SeqRow, all_open_prefix,
    check_prefix, fresh_prefix, fresh_round, history_parts, history_prefix, idle_key, key_key, open_key, order_height,
    order_nonce, order_prefix, outlier_key, pulse_prefix, pulse_round, ready_key, reputation_key, round_after, seq_key,
    unrevealed_key, work_key,
};
use crate::store::{Row, StateStore, StoreError};
use crate::tx::{Order, Snapshot};
use crate::validators::ValidatorSet;
use crate::verdict::CheckRow;
use crate::work::WorkRow;

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

/// The numbers that hold for the next height.
///
/// # Errors
/// The store cannot be read.
pub fn parameters<S: StateStore + ?Sized>(store: &S) -> Result<Parameters, StoreError> {
    must(store, PARAMETERS)
}

/// The rounds that are being checked.
///
/// # Errors
/// The store cannot be read.
pub fn checks<S: StateStore + ?Sized>(store: &S) -> Result<Vec<(RoundId, CheckRow)>, StoreError> {
    let rows = store.scan(check_prefix())?;
    let parse = |(key, row): &Row| Some((round_after(check_prefix(), key)?, state::parse(key, row)));
    rows.iter().filter_map(parse).map(|(round, row)| Ok((round, row?))).collect()
}

/// The rounds whose images somebody may still ask for: those that are open, that wait for their draw, and
/// that were drawn and are checked.
///
/// # Errors
/// The store cannot be read.
pub fn owed<S: StateStore + ?Sized>(store: &S) -> Result<BTreeSet<RoundId>, StoreError> {
    let mut rounds = BTreeSet::new();
    for prefix in [all_open_prefix(), check_prefix()] {
        rounds.extend(store.scan(prefix)?.iter().filter_map(|(key, _)| round_after(prefix, key)));
    }
    rounds.extend(store.scan(fresh_prefix())?.iter().filter_map(|(key, _)| fresh_round(key)));
    Ok(rounds)
}

/// The lowest height whose block a round that is owed rests on: its opening, or its result. Of a closed
/// round the state names the result's height alone; it was opened at most `open_round_blocks` before.
///
/// # Errors
/// The store cannot be read.
pub fn unchecked_from<S: StateStore + ?Sized>(store: &S) -> Result<Option<u64>, StoreError> {
    let longest = parameters(store)?.open_round_blocks;
    let open = store.scan(all_open_prefix())?;
    let open = open.iter().map(|(key, row)| Ok(state::parse::<OpenRow>(key, row)?.height));
    // By rising height.
    let fresh = store.scan(fresh_prefix())?;
    let fresh = fresh.first().map(|(key, row)| Ok(state::parse::<FreshRow>(key, row)?.height.saturating_sub(longest)));
    let drawn = checks(store)?.into_iter().map(|(_, row)| Ok(row.fresh.height.saturating_sub(longest)));
    open.chain(fresh).chain(drawn).try_fold(None, |low: Option<u64>, height: Result<u64, StoreError>| {
        let height = height?;
        Ok(Some(low.map_or(height, |low| low.min(height))))
    })
}

/// The rounds of the beacon that are waited for, rising.
///
/// # Errors
/// The store cannot be read.
pub fn awaited_pulses<S: StateStore + ?Sized>(store: &S) -> Result<Vec<u64>, StoreError> {
    Ok(store.scan(pulse_prefix())?.iter().filter_map(|(key, _)| pulse_round(key)).collect())
}

/// What is known of the draws so far.
///
/// # Errors
/// The store cannot be read.
pub fn draws<S: StateStore + ?Sized>(store: &S) -> Result<DrawRow, StoreError> {
    Ok(state::read(store, DRAWS)?.unwrap_or_default())
}

/// The orders that wait, with the height from which on each holds, and its nonce.
///
/// # Errors
/// The store cannot be read.
pub fn orders<S: StateStore + ?Sized>(store: &S) -> Result<Vec<(u64, u64, Order)>, StoreError> {
    let rows = store.scan(order_prefix())?;
    let parse = |(key, row): &Row| Some((order_height(key)?, order_nonce(key)?, state::parse(key, row)));
    rows.iter().filter_map(parse).map(|(height, nonce, row)| Ok((height, nonce, row?))).collect()
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

/// A round that is open.
///
/// # Errors
/// The store cannot be read.
pub fn open_round<S: StateStore + ?Sized>(
    store: &S,
    id: ChallengeId,
    validator: &Hotkey,
    seq: u64,
) -> Result<Option<OpenRow>, StoreError> {
    state::read(store, &open_key(id, validator, seq))
}

/// The round that ran out whose images a validator has not shown yet, of a challenge.
///
/// # Errors
/// The store cannot be read.
pub fn unrevealed<S: StateStore + ?Sized>(
    store: &S,
    id: ChallengeId,
    validator: &Hotkey,
) -> Result<Option<UnrevealedRow>, StoreError> {
    state::read(store, &unrevealed_key(id, validator))
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

/// For how many owners of miners a validator was an outlier at the last close, by challenge.
///
/// # Errors
/// The store cannot be read.
pub fn outlier<S: StateStore + ?Sized>(
    store: &S,
    id: ChallengeId,
    validator: &Hotkey,
) -> Result<OutlierRow, StoreError> {
    Ok(state::read(store, &outlier_key(id, validator))?.unwrap_or_default())
}

/// What a validator did in the open epoch.
///
/// # Errors
/// The store cannot be read.
pub fn work<S: StateStore + ?Sized>(store: &S, validator: &Hotkey) -> Result<WorkRow, StoreError> {
    Ok(state::read(store, &work_key(validator))?.unwrap_or_default())
}

/// The first epoch of which one that was dropped as idle may be a member again.
///
/// # Errors
/// The store cannot be read.
pub fn idle_until<S: StateStore + ?Sized>(store: &S, validator: &Hotkey) -> Result<Option<u64>, StoreError> {
    state::read(store, &idle_key(validator))
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
