//! The agreed vector of an epoch against what each validator has on chain.

use std::collections::BTreeMap;

use perturb_ledger::epoch::EpochRecord;
use perturb_types::{ChallengeId, Digest, Hotkey};
use serde::Serialize;
use serde_json::json;

use crate::chain::{Chain, storage_index};
use crate::error::{AuditError, Verdict};
use crate::history::{Checked, History, TrustAnchor};
use crate::nodes::Nodes;
use crate::report::{Report, Step};
use crate::root;
use crate::score;

/// What a validator has on chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum OnChain {
    /// Exactly the agreed vector.
    Same,
    /// Another one; the first uid with another weight.
    Differs {
        /// The uid.
        uid: u16,
        /// Its agreed weight; 0 for none.
        agreed: u16,
        /// Its weight on chain; 0 for none.
        found: u16,
    },
    /// None at all: never set, or committed and not revealed yet.
    Nothing,
    /// The validator is not registered there.
    NotRegistered,
}

/// Compares vectors of (uid, weight), whatever their order.
pub fn compare(agreed: &[(u16, u16)], found: &[(u16, u16)]) -> OnChain {
    if found.is_empty() && !agreed.is_empty() {
        return OnChain::Nothing;
    }
    let (a, f): (BTreeMap<u16, u16>, BTreeMap<u16, u16>) =
        (agreed.iter().copied().collect(), found.iter().copied().collect());
    let uids: std::collections::BTreeSet<u16> = a.keys().chain(f.keys()).copied().collect();
    let weight = |v: &BTreeMap<u16, u16>, uid: u16| v.get(&uid).copied().unwrap_or(0);
    match uids.into_iter().find(|uid| weight(&a, *uid) != weight(&f, *uid)) {
        Some(uid) => OnChain::Differs { uid, agreed: weight(&a, uid), found: weight(&f, uid) },
        None => OnChain::Same,
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The epoch.
    pub epoch: u64,
    /// The challenge.
    pub challenge: ChallengeId,
    /// The subnet.
    pub netuid: u16,
    /// The genesis hash of the chain, where it is known.
    pub chain_genesis: Option<Digest>,
    /// The chain's block; none for the newest finalized one.
    pub at: Option<Digest>,
}

type Agreed = (History, Checked, EpochRecord);

/// The proved record of the epoch.
fn agreed(anchor: &TrustAnchor, nodes: &Nodes, q: &Question, steps: &mut Vec<Step>) -> Result<Agreed, AuditError> {
    nodes.first(steps, |node| {
        let history = History::load(anchor, node)?;
        let (checked, proof) = score::proved(&history, node, q.epoch, q.challenge)?;
        let Some(record) = score::record(&checked.header, q.epoch, q.challenge, &proof)? else {
            let what = format!("a record of epoch {}, challenge {}: proved absent", q.epoch, q.challenge);
            return Err(AuditError::NotHeld { node: node.0.name().into(), what });
        };
        Ok((history, checked, record))
    })
}

/// What every validator that had to submit the vector has on chain: the set that followed the close.
fn on_chain(
    history: &History,
    record: &EpochRecord,
    chain: &Chain<'_>,
    q: &Question,
) -> Result<Vec<(Hotkey, Option<u64>, OnChain)>, AuditError> {
    let index = storage_index(q.netuid, record.mechanism)?;
    let agreed: Vec<(u16, u16)> = record.weights.iter().map(|(uid, _, w)| (*uid, *w)).collect();
    let updates = chain.last_updates(index)?;
    let set = history.at(record.height.saturating_add(1))?.set();
    let mut out = Vec::new();
    for member in set.iter() {
        let Some(uid) = chain.uid(q.netuid, &member.hotkey)? else {
            out.push((member.hotkey, None, OnChain::NotRegistered));
            continue;
        };
        let found = chain.weights(index, uid)?;
        out.push((member.hotkey, updates.get(usize::from(uid)).copied(), compare(&agreed, &found)));
    }
    Ok(out)
}

fn step(hotkey: &Hotkey, updated: Option<u64>, found: &OnChain) -> Step {
    let when = updated.map_or_else(String::new, |b| format!(" (last update: chain block {b})"));
    match found {
        OnChain::Same => Step::ok(format!("{hotkey} has the agreed vector{when}")),
        OnChain::Differs { uid, agreed, found } => {
            Step::bad(format!("{hotkey} has another: uid {uid} has {found}, agreed is {agreed}{when}"))
        }
        OnChain::Nothing => Step::bad(format!("{hotkey} has none{when}")),
        OnChain::NotRegistered => Step::bad(format!("{hotkey} is not registered there")),
    }
}

/// `weights --epoch N`.
pub fn run(anchor: &TrustAnchor, nodes: &Nodes, chains: &Nodes, q: &Question) -> Report {
    let title = format!("weights of epoch {}", q.epoch);
    let mut steps = Vec::new();
    let (history, checked, record) = match agreed(anchor, nodes, q, &mut steps) {
        Ok(found) => found,
        Err(error) => return Report::failed(title, steps, &error),
    };
    steps.extend(root::trust_steps(&history, checked.header.height));
    steps.push(root::header_step(&checked));
    let vector = record.weights.iter().map(|(uid, h, w)| {
        Step::note(format!("uid {uid}: {w} ({})", h.map_or_else(|| "no miner".into(), |h| h.to_string())))
    });
    let text = format!("agreed vector of epoch {}, closed by block {}", q.epoch, record.height);
    steps.push(Step::ok(text).with(vector));
    let found = chains.first_believed(&mut steps, |node| {
        let chain = Chain::at(node.0, q.chain_genesis.as_ref(), q.at)?;
        let rows = on_chain(&history, &record, &chain, q)?;
        Ok((chain.hash, chain.number, rows))
    });
    let (hash, number, rows) = match found {
        Ok(found) => found,
        Err(error) => return Report::failed(title, steps, &error),
    };
    let parts = rows.iter().map(|(hotkey, updated, found)| step(hotkey, *updated, found));
    let same = rows.iter().filter(|(_, _, found)| *found == OnChain::Same).count();
    let text = format!("{same} of {} validators have it at chain block {number} ({hash})", rows.len());
    let all = same == rows.len();
    steps.push(if all { Step::ok(text) } else { Step::bad(text) }.with(parts));
    let result = json!({
        "epoch": q.epoch, "height": record.height, "chain_block": number, "chain_hash": hash,
        "agreed": record.weights.iter().map(|(uid, _, w)| (uid, w)).collect::<Vec<_>>(),
        "validators": rows.iter().map(|(hotkey, updated, found)| json!({
            "hotkey": hotkey, "last_update": updated, "on_chain": found,
        })).collect::<Vec<_>>(),
    });
    let verdict = root::agreed(&history, nodes, (checked.header.height, checked.digest), &mut steps);
    Report::new(if all { verdict } else { Verdict::Invalid }, title, steps, result)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn vectors_are_compared_by_uid() {
        let agreed = [(1, 65_535), (4, 7)];
        assert_eq!(compare(&agreed, &[(4, 7), (1, 65_535)]), OnChain::Same);
        assert_eq!(compare(&agreed, &[]), OnChain::Nothing);
        assert_eq!(compare(&agreed, &[(1, 65_535), (4, 8)]), OnChain::Differs { uid: 4, agreed: 7, found: 8 });
        assert_eq!(compare(&agreed, &[(1, 65_535), (4, 7), (9, 1)]), OnChain::Differs { uid: 9, agreed: 0, found: 1 });
    }
}
