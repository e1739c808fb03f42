//! An epoch's close written down a second time: contributions, outliers, ranks, vector.

use std::collections::{BTreeMap, BTreeSet};

use perturb_challenge::{shares, vector};
use perturb_ledger::aggregate::{Aggregate, Contribution, aggregate};
use perturb_ledger::epoch::{EpochRecord, KEPT_EPOCHS, MinerRecord};
use perturb_ledger::outliers::{Outlier, OutlierRow};
use perturb_ledger::parameters::MILLION;
use perturb_ledger::{ChallengeSpec, Snapshot};
use perturb_types::{Hotkey, Millionths};

use super::fast::Fast;

/// Answers counted of a miner, and what the validators contribute.
type Standing = (u64, Vec<Contribution>);

/// What a member's contribution weighs: power, times standing where the rule weighs.
fn weight(replay: &Fast, hotkey: &Hotkey) -> Option<u64> {
    let member = replay.set.by_hotkey(hotkey)?;
    let standing = replay.reputations.get(hotkey).map_or(MILLION, |r| r.standing);
    let part = if replay.parameters.reputation.weigh { u64::from(standing) } else { 1 };
    Some(member.power.saturating_mul(part))
}

/// A member contributes its mean where its history of the miner is full and was added to in this
/// epoch; every history counts into the number of answers.
fn standings(replay: &Fast, spec: &ChallengeSpec) -> BTreeMap<Hotkey, Standing> {
    let mut out: BTreeMap<Hotkey, Standing> = BTreeMap::new();
    let from = (spec.id, Hotkey([0; 32]), Hotkey([0; 32]));
    for ((_, miner, validator), row) in replay.histories.range(from..).take_while(|(id, _)| id.0 == spec.id) {
        let (processed, contributions) = out.entry(*miner).or_default();
        *processed = processed.saturating_add(row.ring.processed);
        if let Some(weight) = weight(replay, validator)
            && row.fresh == replay.meta.epoch
            && row.ring.eligible(&spec.rules)
            && !replay.checks.is_struck(spec.id, validator)
        {
            contributions.push(Contribution { validator: *validator, weight, mean: row.ring.mean() });
        }
    }
    out
}

/// The aggregate that a miner keeps where it gets none, and the epoch that it is from.
fn kept(replay: &Fast, spec: &ChallengeSpec, miner: &Hotkey) -> Option<(u64, Aggregate)> {
    let before = replay.last.get(&spec.id)?.iter().find(|m| m.hotkey == *miner)?;
    let from = before.kept.unwrap_or(replay.meta.epoch.checked_sub(1)?);
    if from.checked_add(KEPT_EPOCHS)? < replay.meta.epoch {
        return None;
    }
    Some((from, before.aggregate.clone()?))
}

/// Owners of miners about which a contribution was rejected, and owners contributed to, by validator.
fn outliers(miners: &[MinerRecord], snapshot: &Snapshot) -> Vec<Outlier> {
    let coldkeys: BTreeMap<Hotkey, [u8; 32]> = snapshot.neurons.iter().map(|n| (n.hotkey, n.coldkey)).collect();
    let (mut asked, mut rejected) = (BTreeSet::new(), BTreeSet::new());
    for miner in miners.iter().filter(|m| m.kept.is_none()) {
        let (Some(aggregate), Some(owner)) = (&miner.aggregate, coldkeys.get(&miner.hotkey)) else { continue };
        asked.extend(miner.contributions.iter().map(|c| (c.validator, *owner)));
        rejected.extend(aggregate.rejected.iter().map(|validator| (*validator, *owner)));
    }
    let of = |pairs: &BTreeSet<(Hotkey, [u8; 32])>, validator: &Hotkey| {
        u32::try_from(pairs.iter().filter(|(v, _)| v == validator).count()).unwrap_or(u32::MAX)
    };
    let validators: BTreeSet<Hotkey> = asked.iter().map(|(validator, _)| *validator).collect();
    let count = |v: &Hotkey| OutlierRow { rejected: of(&rejected, v), owners: of(&asked, v) };
    validators.into_iter().map(|v| Outlier { validator: v, count: count(&v) }).collect()
}

/// The record of one challenge.
pub(crate) fn record(replay: &Fast, spec: &ChallengeSpec, snapshot: &Snapshot) -> EpochRecord {
    let standings = standings(replay, spec);
    // All members of the set, whether they contribute or not.
    let total: u128 = replay.set.iter().filter_map(|m| weight(replay, &m.hotkey)).map(u128::from).sum();
    let mut miners = Vec::new();
    let mut ranked: Vec<(u16, Millionths)> = Vec::new();
    for neuron in &snapshot.neurons {
        let Some((processed, contributions)) = standings.get(&neuron.hotkey) else { continue };
        let held: u128 = contributions.iter().map(|c| u128::from(c.weight)).sum();
        let (kept, aggregate) = if held * 3 > total * 2 {
            (None, aggregate(spec.aggregation, total, contributions))
        } else if total > 0 {
            kept(replay, spec, &neuron.hotkey).unzip()
        } else {
            (None, None)
        };
        let earned = match &aggregate {
            Some(a) if a.confidence.0 >= spec.min_confidence => a.score,
            _ => Millionths::ZERO,
        };
        ranked.push((neuron.uid, earned));
        miners.push(MinerRecord {
            hotkey: neuron.hotkey,
            uid: neuron.uid,
            processed: *processed,
            contributions: contributions.clone(),
            aggregate,
            share: 0,
            kept,
        });
    }
    let mut parts = shares::shares(&spec.rules, &ranked);
    let _burned = shares::burn(&mut parts, spec.rules.burn);
    for (miner, part) in miners.iter_mut().zip(parts) {
        miner.share = part;
    }
    let by_uid: BTreeMap<u16, Hotkey> = snapshot.neurons.iter().map(|n| (n.uid, n.hotkey)).collect();
    // The chain knows no vector with a uid that nobody holds.
    let wanted = replay.parameters.burn_uid;
    let burn_uid = if by_uid.contains_key(&wanted) { wanted } else { by_uid.keys().next().copied().unwrap_or(wanted) };
    let weights = vector::weights(&spec.rules, &ranked, &snapshot.hyper(), burn_uid);
    EpochRecord {
        epoch: replay.meta.epoch,
        height: replay.height,
        mechanism: spec.mechanism,
        snapshot_block: snapshot.reference.number,
        version_key: snapshot.weights_version_key,
        results: replay.meta.results,
        total,
        outliers: outliers(&miners, snapshot),
        miners,
        weights: weights.into_iter().map(|(uid, w)| (uid, by_uid.get(&uid).copied(), w)).collect(),
    }
}
