//! One signed round in its blocks: its opening, its result, and what of it counted.

use perturb_challenge::transform::check_reveal;
use perturb_ledger::{Effect, Inclusion, Transaction, Trust};
use perturb_types::envelope::Payload;
use perturb_types::round::AnswerStatement;
use perturb_types::{Envelope, Hotkey, Millionths, RoundId, RoundOpen, RoundResult, Signed};
use serde_json::{Value, json};

use crate::bundle::{Bundle, Claim};
use crate::error::AuditError;
use crate::history::{History, TrustAnchor};
use crate::nodes::Nodes;
use crate::report::{Report, Step};
use crate::root;

/// A round that was checked.
#[derive(Clone, Debug)]
pub struct Round {
    /// Its opening.
    pub open: RoundOpen,
    /// The opening's height and index.
    pub opened: (u64, u64),
    /// Its result, with its height and index and the scores that entered the histories; none where
    /// it was not shown, which does not prove that there is none.
    pub closed: Option<Closed>,
}

/// The result of a round.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The result.
    pub result: RoundResult,
    /// Its height and index.
    pub place: (u64, u64),
    /// The scores that entered the histories.
    pub counted: Vec<(Hotkey, Millionths)>,
}

fn wrong<T>(round: &RoundId, why: impl ToString) -> Result<T, AuditError> {
    Err(AuditError::invalid(format!("round {round}"), why))
}

/// Opens an envelope whose signer has to be the member with the round's hotkey.
fn signed<T: Payload>(trust: &Trust, round: &RoundId, envelope: &Envelope) -> Result<Signed<T>, AuditError> {
    let signed: Signed<T> = match envelope.clone().open(&trust.network()) {
        Ok(signed) => signed,
        Err(e) => return wrong(round, e),
    };
    match trust.set().by_key(&signed.signer()) {
        Some(member) if member.hotkey == round.validator => Ok(signed),
        _ => wrong(round, format!("the signer of its {} is not the member it should be", T::NAME)),
    }
}

/// Checks that blocks have a round's opening and result, that the result follows the opening, and
/// that the miners signed the answers in it.
///
/// # Errors
/// The first thing that does not hold.
pub fn check(
    history: &History,
    round: &RoundId,
    opened: &Inclusion,
    closed: Option<&Inclusion>,
) -> Result<Round, AuditError> {
    let trust = history.at(opened.header.height)?;
    opened.verify(trust)?;
    let Transaction::RoundOpen(envelope) = &opened.transaction else { return wrong(round, "that is no opening") };
    let open: Signed<RoundOpen> = signed(trust, round, envelope)?;
    if open.round != *round {
        return wrong(round, format!("the opening is that of round {}", open.round));
    }
    let closed = closed.map(|inclusion| check_result(history, round, &open, inclusion)).transpose()?;
    let place = (opened.header.height, opened.path.index);
    if closed.as_ref().is_some_and(|c| c.place <= place) {
        return wrong(round, "its result stands before its opening");
    }
    Ok(Round { open: open.into_value(), opened: place, closed })
}

fn check_result(
    history: &History,
    round: &RoundId,
    open: &Signed<RoundOpen>,
    closed: &Inclusion,
) -> Result<Closed, AuditError> {
    let trust = history.at(closed.header.height)?;
    closed.verify(trust)?;
    let Transaction::RoundResult(envelope) = &closed.transaction else { return wrong(round, "that is no result") };
    let result: Signed<RoundResult> = signed(trust, round, envelope)?;
    if result.round != *round || result.open != open.digest() {
        return wrong(round, "the result is that of another opening");
    }
    if !result.entries.iter().map(|e| e.miner).eq(open.miners.iter().copied()) {
        return wrong(round, "the entries are not the opened miners in their order");
    }
    if let Err(e) = check_reveal(&result.transform, &trust.network(), round, &open.transform) {
        return wrong(round, e);
    }
    for entry in &result.entries {
        let Some(answer) = &entry.answer else { continue };
        let statement = AnswerStatement { round: *round, image: open.image, answer: answer.digest };
        if !statement.verify(&entry.miner, &trust.network(), &answer.signature) {
            return wrong(round, format!("{} never signed that answer", entry.miner));
        }
    }
    let Effect::Scored { round: scored, counted } = &closed.receipt.receipt.effect else {
        return wrong(round, "its receipt is none of a scored round");
    };
    if scored != round {
        return wrong(round, "its receipt is that of another round");
    }
    let place = (closed.header.height, closed.path.index);
    Ok(Closed { counted: counted.clone(), place, result: result.into_value() })
}

/// A round as steps and as a result.
pub fn show(found: &Round) -> (Step, Value) {
    let round = &found.open.round;
    let (height, index) = found.opened;
    let opening = format!(
        "opened in block {height}, transaction {index}: epoch {}, {} miners",
        found.open.epoch,
        found.open.miners.len()
    );
    let mut steps = vec![Step::ok(opening)];
    let mut entries = Vec::new();
    match &found.closed {
        None => steps.push(Step::note("no result was shown; that does not prove that there is none")),
        Some(closed) => {
            let (height, index) = closed.place;
            let text = format!("closed in block {height}, transaction {index}; every answer is signed by its miner");
            let count = |miner: &Hotkey| closed.counted.iter().any(|(m, _)| m == miner);
            let rows = closed.result.entries.iter().map(|e| {
                let counted = if count(&e.miner) { "" } else { ", not counted" };
                Step::note(format!("{} {} {}, {} ms{counted}", e.miner, e.reason, e.score, e.time_ms))
            });
            steps.push(Step::ok(text).with(rows));
            entries.extend(closed.result.entries.iter().map(|e| {
                json!({
                    "miner": e.miner, "reason": e.reason, "score": e.score, "time_ms": e.time_ms,
                    "counted": count(&e.miner), "answer": e.answer.map(|a| a.digest),
                })
            }));
        }
    }
    let result = json!({
        "validator": round.validator, "challenge": round.challenge, "seq": round.seq, "epoch": found.open.epoch,
        "opened": { "height": found.opened.0, "index": found.opened.1 },
        "closed": found.closed.as_ref().map(|c| json!({ "height": c.place.0, "index": c.place.1 })),
        "entries": entries,
    });
    (
        Step::ok(format!("round {} of {} in challenge {}", round.seq, round.validator, round.challenge)).with(steps),
        result,
    )
}

/// `round <validator> <seq>`: also returns the bundle that shows it.
pub fn run(anchor: &TrustAnchor, nodes: &Nodes, round: &RoundId) -> (Report, Option<Bundle>) {
    let title = format!("round {} of {}", round.seq, round.validator);
    let mut steps = Vec::new();
    let found = nodes.first(&mut steps, |node| {
        let history = History::load(anchor, node)?;
        let answer = node.round(round)?;
        let Some(opened) = answer.opened.map(|o| Box::new(o.0)) else {
            return Err(AuditError::NotHeld { node: node.0.name().into(), what: "the round's opening".into() });
        };
        let closed = answer.closed.map(|c| Box::new(c.0));
        let checked = check(&history, round, &opened, closed.as_deref())?;
        Ok((history, opened, closed, checked))
    });
    match found {
        Ok((history, opened, closed, checked)) => {
            let top = checked.closed.as_ref().map_or(checked.opened.0, |c| c.place.0);
            steps.extend(root::trust_steps(&history, top));
            let (step, result) = show(&checked);
            steps.push(step);
            let highest = closed.as_ref().map_or(&opened.header, |c| &c.header);
            let at = (highest.height, highest.digest(&history.network()));
            let verdict = root::agreed(&history, nodes, at, &mut steps);
            let bundle = Bundle::new(&history, Claim::Round { round: *round, opened, closed });
            (Report::new(verdict, title, steps, result), Some(bundle))
        }
        Err(error) => (Report::failed(title, steps, &error), None),
    }
}
