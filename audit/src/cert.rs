//! A certificate taken apart: every signature, the power behind it, who is missing, and what is
//! known of members that signed two things at once.

use std::collections::BTreeSet;

use perturb_ledger::reputation::Reputation;
use perturb_ledger::state::{self, evidence_key, reputation_key};
use perturb_ledger::{Certificate, DoubleVote, Equivocation, Header, Trust, VoteKind, vote_sign_bytes};
use perturb_types::keys::verify_ed25519;
use perturb_types::{ConsensusKey, NetworkId};
use serde_json::{Value, json};

use crate::error::{AuditError, Verdict};
use crate::history::{Checked, History, TrustAnchor};
use crate::nodes::{self, Nodes};
use crate::report::{Report, Step};
use crate::root;
use crate::source::Ask;

/// Rounds of a height whose recorded faults are asked for: later ones are rare, each costs proofs.
const MAX_ROUNDS: u32 = 4;

/// What one signature of a certificate is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// It verifies.
    Signed,
    /// It does not verify.
    Bad,
    /// There is none.
    Missing,
}

/// Every member of a set, and whether a certificate has its signature; strangers do not count.
pub fn members(trust: &Trust, certificate: &Certificate) -> Vec<(ConsensusKey, u64, Signature)> {
    let (height, round) = (certificate.height, certificate.round);
    let bytes = vote_sign_bytes(&trust.network(), VoteKind::Precommit, height, round, Some(certificate.digest));
    let verdict = |key: &ConsensusKey| match certificate.signatures.iter().find(|(signer, _)| signer == key) {
        Some((_, signature)) if verify_ed25519(key, &bytes, signature) => Signature::Signed,
        Some(_) => Signature::Bad,
        None => Signature::Missing,
    };
    trust.set().iter().map(|v| (v.key, v.power, verdict(&v.key))).collect()
}

fn member_steps(trust: &Trust, certificate: &Certificate) -> (Vec<Step>, Value) {
    let (mut steps, mut value) = (Vec::new(), Vec::new());
    for (key, power, verdict) in members(trust, certificate) {
        let Some(member) = trust.set().by_key(&key) else { continue };
        let text = |what: &str| format!("{} {what}, power {power}, key {key}", member.hotkey);
        steps.push(match verdict {
            Signature::Signed => Step::ok(text("signed")),
            Signature::Bad => Step::bad(text("signature does not verify")),
            Signature::Missing => Step::note(text("is missing")),
        });
        value.push(json!({ "hotkey": member.hotkey, "key": key, "power": power, "signature": verdict }));
    }
    let strangers = certificate.signatures.iter().filter(|(key, _)| trust.set().by_key(key).is_none());
    steps.extend(strangers.map(|(key, _)| Step::bad(format!("a signature of {key}, which is no member"))));
    (steps, Value::Array(value))
}

/// Members that signed two certificates of one height and round for different blocks: each is a
/// proof that needs no witness.
pub fn double_votes(network: &NetworkId, one: &Certificate, other: &Certificate) -> Vec<Equivocation> {
    let mut sides = [one, other];
    sides.sort_by_key(|c| c.digest);
    let [low, high] = sides;
    if (low.height, low.round) != (high.height, high.round) {
        return Vec::new();
    }
    let pair = |(key, first): &(ConsensusKey, [u8; 64])| {
        let (_, second) = high.signatures.iter().find(|(k, _)| k == key)?;
        let fault = Equivocation::Votes(DoubleVote {
            key: *key,
            kind: VoteKind::Precommit,
            height: low.height,
            round: low.round,
            digests: [Some(low.digest), Some(high.digest)],
            signatures: [*first, *second],
        });
        fault.verify(network).then_some(fault)
    };
    low.signatures.iter().filter_map(pair).collect()
}

/// Key, round and step (0 proposal, 1 prevote, 2 precommit).
type Fault = (ConsensusKey, u32, u8);

/// What the agreed state has recorded of a height's members, under the newest certified header.
struct Recorded {
    at: u64,
    faults: Vec<Fault>,
    counts: Vec<(ConsensusKey, Reputation)>,
}

fn recorded(history: &History, node: Ask<'_>, height: u64, rounds: u32) -> Result<Recorded, AuditError> {
    let newest = history.header(node, None)?;
    let (at, root) = (newest.header.height, newest.header.state_root);
    let set = history.at(height)?.set();
    let mut places = Vec::new();
    for member in set.iter() {
        for round in 0..=rounds.min(MAX_ROUNDS - 1) {
            places.extend((0..=2u8).map(|step| (member.key, round, step)));
        }
    }
    let mut keys: Vec<Vec<u8>> =
        places.iter().map(|(key, round, step)| evidence_key(key, height, *round, *step)).collect();
    keys.extend(set.iter().map(|m| reputation_key(&m.hotkey)));
    let proofs = node.rows(at, &root, &keys)?;
    let (faults, reputations) = proofs.split_at(places.len());
    let found = faults.iter().zip(&places).filter(|(p, _)| p.value.is_some()).map(|(_, place)| *place);
    let faults = found.collect();
    let mut counts = Vec::new();
    for (proof, member) in reputations.iter().zip(set.iter()) {
        let Some(value) = &proof.value else { continue };
        counts.push((member.key, state::parse(&proof.key, value)?));
    }
    Ok(Recorded { at, faults, counts })
}

fn recorded_steps(recorded: &Recorded) -> Step {
    let step = |s: u8| ["proposal", "prevote", "precommit"].get(usize::from(s)).copied().unwrap_or("vote");
    let mut steps: Vec<Step> = recorded
        .faults
        .iter()
        .map(|(key, round, s)| Step::bad(format!("{key} gave two {}s in round {round}: in the agreed state", step(*s))))
        .collect();
    for (key, r) in recorded.counts.iter().filter(|(_, r)| *r != Reputation::default()) {
        steps.push(Step::note(format!(
            "{key}: {} equivocations, {} rounds never closed in all",
            r.epoch.equivocations + r.past.equivocations,
            r.epoch.unclosed + r.past.unclosed
        )));
    }
    let text = match recorded.faults.len() {
        0 => format!("no equivocation at this height is recorded (proved by the state after {})", recorded.at),
        n => format!("{n} equivocations at this height are recorded (proved by the state after {})", recorded.at),
    };
    Step::ok(text).with(steps)
}

type Answer = (History, Header, Option<Certificate>, Result<Checked, AuditError>);

fn ask(anchor: &TrustAnchor, node: Ask<'_>, height: u64) -> Result<Answer, AuditError> {
    let history = History::load(anchor, node)?;
    let (header, certificate) = node.header(Some(height))?;
    let checked = history.check(header.clone(), certificate.clone());
    Ok((history, header, certificate, checked))
}

/// `cert <height>`.
pub fn run(anchor: &TrustAnchor, nodes: &Nodes, height: u64) -> Report {
    let title = format!("certificate {height}");
    let (mut steps, mut result) = (Vec::new(), json!({ "height": height }));
    let mut good: Vec<(Checked, Certificate)> = Vec::new();
    let mut errors = Vec::new();
    let mut conflict = false;
    for ((name, answer), source) in nodes.each(|node| ask(anchor, node, height)).into_iter().zip(&nodes.0) {
        let (history, header, certificate, checked) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                steps.push(Step::bad(format!("{name}: {error}")));
                errors.push(error);
                continue;
            }
        };
        let (Some(certificate), Ok(trust)) = (certificate, history.at(header.height)) else {
            let why = format!("header {height} cannot be judged: the set that certified it is not known from here");
            let error = checked.err().unwrap_or(AuditError::Untrusted(why));
            steps.push(Step::bad(format!("{name}: {error}")));
            errors.push(error);
            continue;
        };
        let (parts, value) = member_steps(trust, &certificate);
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) => {
                steps.push(Step::bad(format!("{name}: {error}")).with(parts));
                errors.push(error);
                continue;
            }
        };
        steps.push(root::header_step(&checked).with(parts));
        if result.get("members").is_none() {
            result = root::header_value(&checked);
            result["members"] = value;
            steps.extend(root::trust_steps(&history, height));
            match recorded(&history, Ask(source.as_ref()), height, certificate.round) {
                Ok(recorded) => {
                    let fault = |(key, round, step): &Fault| json!({ "key": key, "round": round, "step": step });
                    result["recorded"] = recorded.faults.iter().map(fault).collect();
                    steps.push(recorded_steps(&recorded));
                }
                Err(error) => steps.push(Step::note(format!("recorded equivocations: {error}"))),
            }
        }
        conflict |= good.iter().any(|(c, _)| c.digest != checked.digest);
        good.push((checked, certificate));
    }
    let mut keys = BTreeSet::new();
    for (i, (_, one)) in good.iter().enumerate() {
        for (_, other) in good.iter().skip(i + 1).filter(|(c, _)| c.digest != one.digest) {
            for fault in double_votes(&anchor.network(), one, other) {
                if keys.insert(fault.key()) {
                    steps
                        .push(Step::bad(format!("{} signed two blocks of height {height}: proof enough", fault.key())));
                }
            }
        }
    }
    if conflict {
        steps.push(Step::bad("two histories are certified for this height"));
    }
    result["equivocations"] = json!(keys);
    let verdict = match (good.is_empty(), conflict) {
        (true, _) => nodes::worst(errors.iter()),
        (false, true) => Verdict::Invalid,
        (false, false) => Verdict::Ok,
    };
    Report::new(verdict, title, steps, result)
}
