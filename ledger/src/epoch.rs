//! The close of an epoch: scores, weights, the next validator set.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_challenge::shares;
use perturb_challenge::vector;
use perturb_types::{ChallengeId, Hotkey, Millionths};

use crate::aggregate::{Aggregate, Contribution, aggregate};
use crate::execute::{Executor, TxError};
use crate::genesis::ChallengeSpec;
use crate::receipt::{Effect, WeightVector};
use crate::reputation::Reputation;
use crate::state::{
    self, HistoryRow, KeyRow, epoch_key, history_parts, history_prefix, key_key, ready_key, ready_prefix,
    reputation_key,
};
use crate::store::StateStore;
use crate::tx::Snapshot;
use crate::validators::{Validator, ValidatorSet, powers};

/// Epochs whose records stay in the state.
pub const KEPT_RECORDS: u64 = 1000;

/// What became of a miner.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MinerRecord {
    /// The miner.
    pub hotkey: Hotkey,
    /// Its uid at the snapshot.
    pub uid: u16,
    /// Answers counted so far, over all validators.
    pub processed: u64,
    /// The contributions.
    pub contributions: Vec<Contribution>,
    /// What they come to; `None` where the contributors hold no quorum.
    pub aggregate: Option<Aggregate>,
    /// Its part of [`shares::WHOLE`].
    pub share: u64,
}

/// The record of an epoch and challenge.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochRecord {
    /// The epoch.
    pub epoch: u64,
    /// The closing block's height.
    pub height: u64,
    /// The mechanism.
    pub mechanism: u8,
    /// The chain block whose metagraph the uids refer to.
    pub snapshot_block: u64,
    /// Lowest version key accepted there.
    pub version_key: u64,
    /// Answers that entered the histories in the epoch, over all challenges.
    pub results: u64,
    /// The registered miners with a history, by rising uid.
    pub miners: Vec<MinerRecord>,
    /// The agreed vector.
    pub weights: WeightVector,
}

/// What an epoch's close comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The set of the next height.
    pub set: ValidatorSet,
    /// What the closing transaction did.
    pub effect: Effect,
}

/// Closes the epoch.
///
/// # Errors
/// The state cannot be read.
pub fn close<S: StateStore + ?Sized>(x: &mut Executor<'_, S>, snapshot: &Snapshot) -> Result<Closed, TxError> {
    x.settle_checks()?;
    let epoch = x.frame.meta.epoch;
    let mut weights = Vec::new();
    for spec in state::challenges(&x.state)? {
        forget_departed(x, &spec, snapshot)?;
        let record = score(x, &spec, snapshot)?;
        for rejected in record.miners.iter().filter_map(|m| m.aggregate.as_ref()).flat_map(|a| a.rejected.clone()) {
            x.blame(&rejected, |r| r.rejected += 1)?;
        }
        x.state.put(epoch_key(epoch, spec.id), &record);
        weights.push((spec.id, record.weights));
        if let Some(old) = epoch.checked_sub(KEPT_RECORDS) {
            x.state.delete(epoch_key(old, spec.id));
        }
    }
    x.settle_reputations(snapshot)?;
    let set = next_set(x, snapshot)?;
    for (key, _) in x.state.scan(&ready_prefix(epoch))? {
        x.state.delete(key);
    }
    x.frame.meta.epoch = epoch + 1;
    x.frame.meta.epoch_start = x.height();
    x.frame.meta.results = 0;
    x.frame.snapshot = snapshot.clone();
    x.frame.set = set.clone();
    x.state.accept();
    let effect = Effect::Closed { epoch, weights, next_validators: set.hash(&x.network()) };
    Ok(Closed { set, effect })
}

/// Drops the histories of miners and by validators that are no longer registered: a uid's new hotkey
/// starts anew, and what nobody will count again does not stay.
fn forget_departed<S: StateStore + ?Sized>(
    x: &mut Executor<'_, S>,
    spec: &ChallengeSpec,
    snapshot: &Snapshot,
) -> Result<(), TxError> {
    for (key, _) in x.state.scan(&history_prefix(spec.id))? {
        let registered = |hotkey: &Hotkey| snapshot.neuron(hotkey).is_some();
        let gone = history_parts(spec.id, &key)
            .is_none_or(|(miner, validator)| !registered(&miner) || !registered(&validator));
        if gone {
            x.state.delete(key);
        }
    }
    Ok(())
}

/// Contributions by miner, and how many answers were counted of each.
fn contributions<S: StateStore + ?Sized>(
    x: &Executor<'_, S>,
    spec: &ChallengeSpec,
) -> Result<BTreeMap<Hotkey, (u64, Vec<Contribution>)>, TxError> {
    let epoch = x.frame.meta.epoch;
    let mut by_miner: BTreeMap<Hotkey, (u64, Vec<Contribution>)> = BTreeMap::new();
    for (key, row) in x.state.scan(&history_prefix(spec.id))? {
        let Some((miner, validator)) = history_parts(spec.id, &key) else { continue };
        let row: HistoryRow = state::parse(&key, &row)?;
        let entry = by_miner.entry(miner).or_default();
        entry.0 = entry.0.saturating_add(row.ring.processed);
        let Some(member) = x.frame.set.by_hotkey(&validator) else { continue };
        if row.fresh == epoch && row.ring.eligible(&spec.rules) && !x.is_struck(spec.id, &validator)? {
            let reputation: Reputation = x.state.get(&reputation_key(&validator))?.unwrap_or_default();
            let weight = reputation.weight(&x.parameters().reputation, member.power);
            entry.1.push(Contribution { validator, weight, mean: row.ring.mean() });
        }
    }
    Ok(by_miner)
}

fn score<S: StateStore + ?Sized>(
    x: &Executor<'_, S>,
    spec: &ChallengeSpec,
    snapshot: &Snapshot,
) -> Result<EpochRecord, TxError> {
    let by_miner = contributions(x, spec)?;
    let mut miners = Vec::new();
    for neuron in &snapshot.neurons {
        let Some((processed, contributions)) = by_miner.get(&neuron.hotkey).cloned() else { continue };
        // The quorum is one of power, whatever the standing.
        let power = |c: &Contribution| x.frame.set.by_hotkey(&c.validator).map_or(0, |v| v.power);
        let aggregate = if x.frame.set.is_quorum(contributions.iter().map(power).sum()) {
            aggregate(spec.aggregation, &contributions)
        } else {
            None
        };
        miners.push(MinerRecord {
            hotkey: neuron.hotkey,
            uid: neuron.uid,
            processed,
            contributions,
            aggregate,
            share: 0,
        });
    }
    let confident = |a: &Aggregate| a.confidence.0 >= spec.min_confidence;
    let ranked: Vec<(u16, Millionths)> = miners
        .iter()
        .map(|m| (m.uid, m.aggregate.as_ref().filter(|a| confident(a)).map_or(Millionths::ZERO, |a| a.score)))
        .collect();
    let mut parts = shares::shares(&spec.rules, &ranked);
    // What is burned belongs to no miner.
    let _burned = shares::burn(&mut parts, spec.rules.burn);
    for (miner, share) in miners.iter_mut().zip(parts) {
        miner.share = share;
    }
    let vector = vector::weights(&spec.rules, &ranked, &snapshot.hyper(), x.parameters().burn_uid);
    let named = |uid: u16| snapshot.neurons.iter().find(|n| n.uid == uid).map(|n| n.hotkey);
    Ok(EpochRecord {
        epoch: x.frame.meta.epoch,
        height: x.height(),
        mechanism: spec.mechanism,
        snapshot_block: snapshot.reference.number,
        version_key: snapshot.weights_version_key,
        results: x.frame.meta.results,
        miners,
        weights: vector.into_iter().map(|(uid, w)| (uid, named(uid), w)).collect(),
    })
}

/// The members of the next epoch: permit, stake, a key, and a readiness in the epoch that ends.
///
/// The set never becomes empty, and the quorum never passes to a small group because the others were
/// silent: unless those who are ready hold more than two thirds of the power of the old set's members
/// that still qualify, all of these stay. So whoever has less than a third of the power cannot come
/// to a third of the next set by keeping others' readiness out of blocks.
fn next_set<S: StateStore + ?Sized>(x: &Executor<'_, S>, snapshot: &Snapshot) -> Result<ValidatorSet, TxError> {
    let epoch = x.frame.meta.epoch;
    let mut qualified: Vec<(Hotkey, perturb_types::ConsensusKey, u64, bool)> = Vec::new();
    for n in snapshot.neurons.iter().filter(|n| n.permit && n.stake_rao >= x.parameters().min_stake_rao) {
        if let Some(row) = x.state.get::<KeyRow>(&key_key(&n.hotkey))? {
            let ready = x.state.has(&ready_key(epoch, &n.hotkey))?;
            qualified.push((n.hotkey, row.key, n.stake_rao, ready));
        }
    }
    let old = |h: &Hotkey| x.frame.set.by_hotkey(h).is_some();
    let power_of = |h: &Hotkey| u128::from(x.frame.set.by_hotkey(h).map_or(0, |v| v.power));
    let staying: u128 = qualified.iter().map(|q| power_of(&q.0)).sum();
    let ready_old: u128 = qualified.iter().filter(|q| q.3).map(|q| power_of(&q.0)).sum();
    let trust_silence = ready_old * 3 > staying * 2;
    let members: Vec<_> = qualified.iter().filter(|q| q.3 || (!trust_silence && old(&q.0))).collect();
    let stakes: Vec<u64> = members.iter().map(|m| m.2).collect();
    let power = powers(x.parameters().power, &stakes);
    let set = members.iter().zip(power).map(|(m, power)| Validator { hotkey: m.0, key: m.1, power });
    // Nobody qualifies: the old set goes on rather than none.
    Ok(ValidatorSet::new(set.collect()).unwrap_or_else(|_| x.frame.set.clone()))
}

/// The record of an epoch.
///
/// # Errors
/// The store cannot be read.
pub fn record<S: StateStore + ?Sized>(
    store: &S,
    epoch: u64,
    challenge: ChallengeId,
) -> Result<Option<EpochRecord>, crate::store::StoreError> {
    state::read(store, &epoch_key(epoch, challenge))
}
