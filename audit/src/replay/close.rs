//! An epoch's close written down a second time: contributions, outliers, ranks, vector.

use std::collections::BTreeMap;

use perturb_challenge::{shares, vector};
use perturb_ledger::aggregate::{Contribution, aggregate};
use perturb_ledger::epoch::{EpochRecord, MinerRecord};
use perturb_ledger::parameters::MILLION;
use perturb_ledger::{ChallengeSpec, Snapshot};
use perturb_types::{Hotkey, Millionths};

use super::fast::Fast;

/// Answers counted of a miner, and what the validators contribute.
type Standing = (u64, Vec<Contribution>);

/// A member contributes its mean where its history of the miner is full and was added to in this
/// epoch; every history counts into the number of answers.
fn standings(replay: &Fast, spec: &ChallengeSpec) -> BTreeMap<Hotkey, Standing> {
    let mut out: BTreeMap<Hotkey, Standing> = BTreeMap::new();
    let from = (spec.id, Hotkey([0; 32]), Hotkey([0; 32]));
    for ((_, miner, validator), row) in replay.histories.range(from..).take_while(|(id, _)| id.0 == spec.id) {
        let (processed, contributions) = out.entry(*miner).or_default();
        *processed = processed.saturating_add(row.ring.processed);
        if let Some(member) = replay.set.by_hotkey(validator)
            && row.fresh == replay.meta.epoch
            && row.ring.eligible(&spec.rules)
            && !replay.checks.is_struck(spec.id, validator)
        {
            let rule = &replay.parameters.reputation;
            let standing = replay.reputations.get(validator).map_or(MILLION, |r| r.standing);
            let weight = match rule.weigh {
                true => member.power.saturating_mul(u64::from(standing)).max(1),
                false => member.power,
            };
            contributions.push(Contribution { validator: *validator, weight, mean: row.ring.mean() });
        }
    }
    out
}

/// The record of one challenge.
pub(crate) fn record(replay: &Fast, spec: &ChallengeSpec, snapshot: &Snapshot) -> EpochRecord {
    let standings = standings(replay, spec);
    let total = u128::from(replay.set.total());
    let mut miners = Vec::new();
    let mut ranked: Vec<(u16, Millionths)> = Vec::new();
    for neuron in &snapshot.neurons {
        let Some((processed, contributions)) = standings.get(&neuron.hotkey) else { continue };
        let power = |h: &Hotkey| u128::from(replay.set.by_hotkey(h).map_or(0, |v| v.power));
        let held: u128 = contributions.iter().map(|c| power(&c.validator)).sum();
        // A quorum is more than two thirds of all power, whatever the standing.
        let aggregate = if held * 3 > total * 2 { aggregate(spec.aggregation, contributions) } else { None };
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
        miners,
        weights: weights.into_iter().map(|(uid, w)| (uid, by_uid.get(&uid).copied(), w)).collect(),
    }
}
