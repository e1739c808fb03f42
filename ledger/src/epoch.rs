//! The close of an epoch: scores, weights, the next validator set.
//!
//! A miner is scored where those who contribute hold more than two thirds of the set's power times
//! standing ([`crate::aggregate`]). Otherwise it keeps its last score, as long as it stays registered
//! and in the record, for [`KEPT_EPOCHS`] epochs at most: a third that votes and runs no rounds would
//! else burn everybody's pay, and a score that is kept for ever would pay for work long past. Where
//! nobody has a score the weights burn.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_challenge::shares;
use perturb_challenge::vector;
use perturb_types::{ChallengeId, Hotkey, Millionths};

use crate::aggregate::{Aggregate, Contribution, aggregate};
use crate::execute::{Executor, TxError};
use crate::genesis::ChallengeSpec;
use crate::outliers::{self, Outlier};
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

/// Epochs for which a miner's aggregate stands where it gets no new one.
pub const KEPT_EPOCHS: u64 = 4;

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
    /// What they come to, or what is kept; `None` where the contributors do not hold two thirds of the
    /// set and nothing is kept.
    pub aggregate: Option<Aggregate>,
    /// Its part of [`shares::WHOLE`].
    pub share: u64,
    /// The epoch that a kept aggregate is from; `None` where it is this epoch's own.
    pub kept: Option<u64>,
}

impl MinerRecord {
    /// Its aggregate as the next epoch may keep it, with the epoch it is from; `epoch` is the record's.
    pub fn standing(&self, epoch: u64) -> Option<(u64, &Aggregate)> {
        Some((self.kept.unwrap_or(epoch), self.aggregate.as_ref()?))
    }
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
    /// What all members' contributions would weigh together: contributors need more than two thirds.
    pub total: u128,
    /// Who contributed to miners that were scored in this epoch, and for how many owners of them it is
    /// an outlier, by rising hotkey.
    pub outliers: Vec<Outlier>,
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
        x.renew_asked(spec.id, snapshot)?;
        let record = score(x, &spec, snapshot)?;
        x.keep_outliers(spec.id, &record.outliers)?;
        x.state.put(epoch_key(epoch, spec.id), &record);
        weights.push((spec.id, record.weights));
        if let Some(old) = epoch.checked_sub(KEPT_RECORDS) {
            x.state.delete(epoch_key(old, spec.id));
        }
    }
    x.settle_reputations(snapshot)?;
    let set = next_set(x, snapshot)?;
    x.begin_seed(epoch + 1, &set)?;
    x.state.delete_all(&ready_prefix(epoch))?;
    x.frame.meta.epoch = epoch + 1;
    x.frame.meta.epoch_start = x.height();
    x.frame.meta.results = 0;
    x.frame.snapshot = snapshot.clone();
    x.frame.set = set.clone();
    x.state.accept();
    let effect = Effect::Closed { epoch, weights, next_validators: set.hash(&x.network()) };
    Ok(Closed { set, effect })
}

/// Drops the histories of miners and by validators that are no longer registered, and the passes of these: a
/// uid's new hotkey starts anew, and what nobody will count again does not stay.
fn forget_departed<S: StateStore + ?Sized>(
    x: &mut Executor<'_, S>,
    spec: &ChallengeSpec,
    snapshot: &Snapshot,
) -> Result<(), TxError> {
    let registered = |hotkey: &Hotkey| snapshot.neuron(hotkey).is_some();
    let both = |(miner, validator)| registered(&miner) && registered(&validator);
    x.state.retain(&history_prefix(spec.id), |key| history_parts(spec.id, key).is_some_and(both))?;
    x.forget_passes(spec.id, registered)
}

/// What the contribution of each member weighs, whether it contributes or not.
fn set_weights<S: StateStore + ?Sized>(x: &Executor<'_, S>) -> Result<BTreeMap<Hotkey, u64>, TxError> {
    let mut out = BTreeMap::new();
    for member in x.frame.set.iter() {
        let reputation: Reputation = x.state.get(&reputation_key(&member.hotkey))?.unwrap_or_default();
        out.insert(member.hotkey, reputation.weight(&x.parameters().reputation, member.power));
    }
    Ok(out)
}

/// Contributions by miner, and how many answers were counted of each.
fn contributions<S: StateStore + ?Sized>(
    x: &Executor<'_, S>,
    spec: &ChallengeSpec,
    set: &BTreeMap<Hotkey, u64>,
) -> Result<BTreeMap<Hotkey, (u64, Vec<Contribution>)>, TxError> {
    let epoch = x.frame.meta.epoch;
    let mut by_miner: BTreeMap<Hotkey, (u64, Vec<Contribution>)> = BTreeMap::new();
    for (key, row) in x.state.scan(&history_prefix(spec.id))? {
        let Some((miner, validator)) = history_parts(spec.id, &key) else { continue };
        let row: HistoryRow = state::parse(&key, &row)?;
        let entry = by_miner.entry(miner).or_default();
        entry.0 = entry.0.saturating_add(row.ring.processed);
        let Some(weight) = set.get(&validator) else { continue };
        // Who is struck stays in the set's total, as one that is absent.
        if row.fresh == epoch && row.ring.eligible(&spec.rules) && !x.is_struck(spec.id, &validator)? {
            entry.1.push(Contribution { validator, weight: *weight, mean: row.ring.mean() });
        }
    }
    Ok(by_miner)
}

/// The aggregates that may still be kept, by miner, with the epoch each is from.
fn last_aggregates<S: StateStore + ?Sized>(
    x: &Executor<'_, S>,
    spec: &ChallengeSpec,
) -> Result<BTreeMap<Hotkey, (u64, Aggregate)>, TxError> {
    let epoch = x.frame.meta.epoch;
    let Some(before) = epoch.checked_sub(1) else { return Ok(BTreeMap::new()) };
    let record: Option<EpochRecord> = x.state.get(&epoch_key(before, spec.id))?;
    let mut out = BTreeMap::new();
    for miner in record.map(|r| r.miners).unwrap_or_default() {
        if let Some((from, aggregate)) = miner.standing(before).filter(|(from, _)| epoch - from <= KEPT_EPOCHS) {
            out.insert(miner.hotkey, (from, aggregate.clone()));
        }
    }
    Ok(out)
}

fn score<S: StateStore + ?Sized>(
    x: &Executor<'_, S>,
    spec: &ChallengeSpec,
    snapshot: &Snapshot,
) -> Result<EpochRecord, TxError> {
    let set = set_weights(x)?;
    let total: u128 = set.values().map(|w| u128::from(*w)).sum();
    let mut by_miner = contributions(x, spec, &set)?;
    let mut last = last_aggregates(x, spec)?;
    let mut miners = Vec::new();
    for neuron in &snapshot.neurons {
        let Some((processed, contributions)) = by_miner.remove(&neuron.hotkey) else { continue };
        let own = aggregate(spec.aggregation, total, &contributions);
        // Without a total nobody's word counts, past ones included.
        let kept = if own.is_none() && total > 0 { last.remove(&neuron.hotkey) } else { None };
        let (kept, aggregate) = kept.map_or((None, own), |(from, aggregate)| (Some(from), Some(aggregate)));
        let (hotkey, uid) = (neuron.hotkey, neuron.uid);
        miners.push(MinerRecord { hotkey, uid, processed, contributions, aggregate, share: 0, kept });
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
    let vector = vector::weights(&spec.rules, &ranked, &snapshot.hyper(), snapshot.burn_uid(x.parameters().burn_uid));
    let named = |uid: u16| snapshot.neurons.iter().find(|n| n.uid == uid).map(|n| n.hotkey);
    Ok(EpochRecord {
        epoch: x.frame.meta.epoch,
        height: x.height(),
        mechanism: spec.mechanism,
        snapshot_block: snapshot.reference.number,
        version_key: snapshot.weights_version_key,
        results: x.frame.meta.results,
        total,
        outliers: outliers::count(&miners, snapshot),
        miners,
        weights: vector.into_iter().map(|(uid, w)| (uid, named(uid), w)).collect(),
    })
}

/// What an old member's place in the next set rests on, in the order in which they count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    /// It said that it is ready, and it did its work.
    Ready,
    /// It said nothing.
    Silent,
    /// It did less than its part, whatever it said.
    Idle,
}

struct Candidate {
    hotkey: Hotkey,
    key: perturb_types::ConsensusKey,
    stake_rao: u64,
    word: Word,
}

/// The members of the next epoch: permit, stake, a key, and a readiness in the epoch that ends; of
/// members also that they worked ([`crate::work`]).
///
/// The set never becomes empty, and the quorum never passes to a small group because the others were
/// silent: unless those who are ready hold more than two thirds of the power of the old set's members
/// that still qualify, the silent ones stay. So whoever has less than a third of the power cannot come
/// to a third of the next set by keeping others' readiness out of blocks. Idle ones stay only where
/// even ready and silent ones together do not hold that much.
fn next_set<S: StateStore + ?Sized>(x: &mut Executor<'_, S>, snapshot: &Snapshot) -> Result<ValidatorSet, TxError> {
    let (idle, waiting) = (x.take_idle()?, x.waiting()?);
    let candidates = candidates(x, snapshot, &idle, &waiting)?;
    let power_of = |c: &Candidate| u128::from(x.frame.set.by_hotkey(&c.hotkey).map_or(0, |v| v.power));
    let held = |last: Word| candidates.iter().filter(|c| c.word <= last).map(power_of).sum::<u128>();
    let enough = |last: &Word| held(*last) * 3 > held(Word::Idle) * 2;
    let last = [Word::Ready, Word::Silent].into_iter().find(enough).unwrap_or(Word::Idle);
    let members: Vec<&Candidate> = candidates.iter().filter(|c| c.word <= last).collect();
    let stakes: Vec<u64> = members.iter().map(|m| m.stake_rao).collect();
    let power = powers(x.parameters().power, &stakes);
    let set = members.iter().zip(power).map(|(m, power)| Validator { hotkey: m.hotkey, key: m.key, power });
    // Nobody qualifies: the old set goes on rather than none.
    let set = ValidatorSet::new(set.collect()).unwrap_or_else(|_| x.frame.set.clone());
    let dropped: BTreeSet<Hotkey> = idle.into_iter().filter(|h| set.by_hotkey(h).is_none()).collect();
    x.dismiss(&dropped);
    Ok(set)
}

/// Who may be a member: the old ones that still qualify, and newcomers that are ready.
fn candidates<S: StateStore + ?Sized>(
    x: &Executor<'_, S>,
    snapshot: &Snapshot,
    idle: &BTreeSet<Hotkey>,
    waiting: &BTreeSet<Hotkey>,
) -> Result<Vec<Candidate>, TxError> {
    let mut out = Vec::new();
    let waived = keeps_no_quorum(x, snapshot);
    for n in snapshot.neurons.iter().filter(|n| n.permit) {
        let old = x.frame.set.by_hotkey(&n.hotkey).is_some();
        if n.stake_rao < x.parameters().min_stake_rao && !(waived && old) {
            continue;
        }
        let Some(row) = x.state.get::<KeyRow>(&key_key(&n.hotkey))? else { continue };
        let word = match x.state.has(&ready_key(x.frame.meta.epoch, &n.hotkey))? {
            _ if idle.contains(&n.hotkey) => Word::Idle,
            true => Word::Ready,
            false => Word::Silent,
        };
        if old || (word == Word::Ready && !waiting.contains(&n.hotkey)) {
            out.push(Candidate { hotkey: n.hotkey, key: row.key, stake_rao: n.stake_rao, word });
        }
    }
    Ok(out)
}

/// Whether the least stake would leave the old set's members without a quorum of those who have a
/// permit: then it does not hold for them. An order can shut newcomers out, but not hand the set to the
/// few whose stake is the highest.
fn keeps_no_quorum<S: StateStore + ?Sized>(x: &Executor<'_, S>, snapshot: &Snapshot) -> bool {
    let power = |least: u64| -> u128 {
        let members = snapshot.neurons.iter().filter(|n| n.permit && n.stake_rao >= least);
        members.filter_map(|n| x.frame.set.by_hotkey(&n.hotkey)).map(|v| u128::from(v.power)).sum()
    };
    power(x.parameters().min_stake_rao) * 3 <= power(0) * 2
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
