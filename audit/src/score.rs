//! What an epoch came to for a miner, or that it is not in the epoch's record.
//!
//! The record of an epoch and challenge is one row of the state, so its absence from a later state
//! can be proved, and a miner's absence from the record is shown by the whole record.

use perturb_ledger::epoch::{EpochRecord, KEPT_RECORDS, MinerRecord};
use perturb_ledger::proofs::StateProof;
use perturb_ledger::state::{self, epoch_key};
use perturb_ledger::{Header, StoreError};
use perturb_types::{ChallengeId, Hotkey};
use serde_json::{Value, json};

use crate::bundle::{Bundle, Claim};
use crate::error::AuditError;
use crate::history::{Checked, History, TrustAnchor};
use crate::nodes::Nodes;
use crate::report::{Report, Step};
use crate::root;
use crate::source::Ask;

/// What a proved record says about a miner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in the record.
    Scored {
        /// Its part of the record.
        record: Box<MinerRecord>,
        /// The closing block's height.
        height: u64,
        /// Its weight in the agreed vector; 0 where it has none.
        weight: u16,
        /// What the contributions of the whole set would weigh.
        total: u128,
    },
    /// The record does not name it: it had no history, or was not registered.
    NotNamed {
        /// How many miners the record names.
        miners: usize,
    },
    /// The epoch was closed without a record: there was no such challenge.
    NoRecord,
    /// The epoch is not closed in that state.
    NotClosed {
        /// The epoch in the making there.
        now: u64,
    },
}

/// The record that a proof shows under a header's state; `None` for absence.
///
/// # Errors
/// The proof does not hold, or is one of another row.
pub fn record(
    header: &Header,
    epoch: u64,
    challenge: ChallengeId,
    proof: &StateProof,
) -> Result<Option<EpochRecord>, AuditError> {
    let key = epoch_key(epoch, challenge);
    let what = || format!("record of epoch {epoch}, challenge {challenge}");
    if proof.key != key || !proof.verify(&header.state_root) {
        return Err(AuditError::invalid(what(), format!("the proof does not hold under header {}", header.height)));
    }
    let Some(bytes) = &proof.value else { return Ok(None) };
    let record: EpochRecord = state::parse(&key, bytes).map_err(|e: StoreError| AuditError::invalid(what(), e.0))?;
    if record.epoch != epoch || record.height > header.height {
        return Err(AuditError::invalid(what(), "the record names another epoch, or a later block"));
    }
    Ok(Some(record))
}

/// What a proved record, or its absence, says about a miner.
///
/// # Errors
/// The proof does not hold, or the state no longer keeps records of that epoch.
pub fn standing(
    header: &Header,
    epoch: u64,
    challenge: ChallengeId,
    miner: &Hotkey,
    proof: &StateProof,
) -> Result<Standing, AuditError> {
    let Some(record) = record(header, epoch, challenge, proof)? else {
        if epoch >= header.epoch {
            return Ok(Standing::NotClosed { now: header.epoch });
        }
        if header.epoch - epoch > KEPT_RECORDS {
            let node = format!("the state after height {} (epoch {})", header.height, header.epoch);
            return Err(AuditError::NotHeld { node, what: format!("a record as old as epoch {epoch}'s any more") });
        }
        return Ok(Standing::NoRecord);
    };
    let Some(found) = record.miners.iter().find(|m| m.hotkey == *miner) else {
        return Ok(Standing::NotNamed { miners: record.miners.len() });
    };
    let weight = record.weights.iter().find(|(_, hotkey, _)| *hotkey == Some(*miner)).map_or(0, |(_, _, w)| *w);
    Ok(Standing::Scored { record: Box::new(found.clone()), height: record.height, weight, total: record.total })
}

/// A standing as steps and as a result.
pub fn show(
    header: &Checked,
    epoch: u64,
    challenge: ChallengeId,
    miner: &Hotkey,
    standing: &Standing,
) -> (Step, Value) {
    let at = header.header.height;
    let (step, standing) = match standing {
        Standing::Scored { record, height, weight, total } => scored(record, *height, *weight, *total),
        Standing::NotNamed { miners } => {
            let text = format!("absent: the record of epoch {epoch} names {miners} miners, not this one");
            (Step::ok(text), json!({ "present": false, "why": "not_named" }))
        }
        Standing::NoRecord => {
            let text = format!("absent: epoch {epoch} has no record of challenge {challenge}");
            (Step::ok(text), json!({ "present": false, "why": "no_record" }))
        }
        Standing::NotClosed { now } => {
            let text = format!("absent: epoch {epoch} is not closed at height {at}, which is in epoch {now}");
            (Step::ok(text), json!({ "present": false, "why": "not_closed" }))
        }
    };
    let result = json!({
        "epoch": epoch, "challenge": challenge, "miner": miner, "header": at, "digest": header.digest,
        "standing": standing,
    });
    (Step::ok(format!("miner {miner} in epoch {epoch}, by the state after height {at}")).with([step]), result)
}

fn scored(record: &MinerRecord, height: u64, weight: u16, total: u128) -> (Step, Value) {
    let part = record.share as f64 / perturb_challenge::shares::WHOLE as f64 * 100.0;
    let mut steps: Vec<Step> = Vec::new();
    let rejected = record.aggregate.as_ref().map(|a| a.rejected.clone()).unwrap_or_default();
    for c in &record.contributions {
        let out = if rejected.contains(&c.validator) { ", rejected as an outlier" } else { "" };
        steps.push(Step::note(format!("{} says {} with weight {}{out}", c.validator, c.mean, c.weight)));
    }
    let contributed: u128 = record.contributions.iter().map(|c| u128::from(c.weight)).sum();
    steps.push(Step::note(format!("they hold {contributed} of the set's {total}; a score needs more than two thirds")));
    if let Some(from) = record.kept {
        steps.push(Step::note(format!("the score of epoch {from} is kept")));
    }
    match &record.aggregate {
        Some(a) => steps.push(Step::ok(format!("score {}, spread {}, confidence {}", a.score, a.spread, a.confidence))),
        None => steps.push(Step::note("no score: too few contributed, and none is kept")),
    }
    steps.push(Step::ok(format!("{part:.4} % of the emission, weight {weight} of 65535")));
    let text = format!("present: uid {}, {} answers counted, closed by block {height}", record.uid, record.processed);
    let score = record.aggregate.as_ref().map(|a| a.score);
    let value = json!({
        "present": true, "uid": record.uid, "answers": record.processed, "height": height, "weight": weight,
        "share": record.share, "score": score, "kept_from": record.kept, "rejected": rejected,
        "set_weight": total.to_string(),
        "contributions": record.contributions.iter().map(|c| json!({
            "validator": c.validator, "weight": c.weight, "mean": c.mean,
        })).collect::<Vec<_>>(),
    });
    (Step::ok(text).with(steps), value)
}

/// `score --miner H --epoch N`: also returns the bundle that shows it.
pub fn run(
    anchor: &TrustAnchor,
    nodes: &Nodes,
    epoch: u64,
    challenge: ChallengeId,
    miner: &Hotkey,
) -> (Report, Option<Bundle>) {
    let title = format!("score of {miner} in epoch {epoch}");
    let mut steps = Vec::new();
    let found = nodes.first(&mut steps, |node| {
        let history = History::load(anchor, node)?;
        let (checked, proof) = proved(&history, node, epoch, challenge)?;
        let standing = standing(&checked.header, epoch, challenge, miner, &proof)?;
        Ok((history, checked, proof, standing))
    });
    let (history, checked, proof, standing) = match found {
        Ok(found) => found,
        Err(error) => return (Report::failed(title, steps, &error), None),
    };
    steps.extend(root::trust_steps(&history, checked.header.height));
    steps.push(root::header_step(&checked));
    let (step, result) = show(&checked, epoch, challenge, miner, &standing);
    steps.push(step);
    let verdict = root::agreed(&history, nodes, (checked.header.height, checked.digest), &mut steps);
    let bundle = checked.certificate.clone().map(|certificate| {
        let (header, record) = (Box::new(checked.header), Box::new(proof));
        Bundle::new(&history, Claim::Score { header, certificate, epoch, challenge, miner: *miner, record })
    });
    (Report::new(verdict, title, steps, result), bundle)
}

/// The record of an epoch under the newest certified header that a node has.
///
/// # Errors
/// No answer, or it does not hold.
pub fn proved(
    history: &History,
    node: Ask<'_>,
    epoch: u64,
    challenge: ChallengeId,
) -> Result<(Checked, StateProof), AuditError> {
    let checked = history.header(node, None)?;
    let (height, root) = (checked.header.height, checked.header.state_root);
    let proofs = node.rows(height, &root, &[epoch_key(epoch, challenge)])?;
    let proof = proofs.into_iter().next().ok_or_else(|| AuditError::invalid("proof", "none came"))?;
    Ok((checked, proof))
}
