//! One signed round in its blocks: its opening, what its miners were bound to, its result, and what of
//! it counted.

use perturb_ledger::{Effect, Inclusion, Transaction, Trust};
use perturb_types::envelope::Payload;
use perturb_types::round::{AnswerStatement, commitment};
use perturb_types::{
    Digest, Envelope, Hotkey, Millionths, Reason, RoundCommits, RoundId, RoundOpen, RoundResult, Signed,
};
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
    /// The miners that were drawn for it, by rising uid.
    pub miners: Vec<Hotkey>,
    /// The opening's height and index.
    pub opened: (u64, u64),
    /// What its miners were bound to; none where it was not shown.
    pub bound: Option<Bound>,
    /// Its result, with its height and index and the scores that entered the histories; none where
    /// it was not shown, which does not prove that there is none.
    pub closed: Option<Closed>,
}

impl Round {
    /// The highest height that was shown of it.
    pub fn top(&self) -> u64 {
        let bound = self.bound.as_ref().map_or(self.opened.0, |b| b.place.0);
        self.closed.as_ref().map_or(bound, |c| c.place.0)
    }
}

/// What the miners of a round were bound to.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Their commitments, in the opening's order.
    pub commits: Vec<Option<Digest>>,
    /// Height and index.
    pub place: (u64, u64),
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

/// Checks that blocks have a round's opening, commitments and result, that each follows from the one
/// before, that the miners signed their commitments, and that the answers are what they were bound to.
///
/// # Errors
/// The first thing that does not hold.
pub fn check(
    history: &History,
    round: &RoundId,
    opened: &Inclusion,
    bound: Option<&Inclusion>,
    closed: Option<&Inclusion>,
) -> Result<Round, AuditError> {
    let trust = history.at(opened.header.height)?;
    opened.verify(trust)?;
    let Transaction::RoundOpen(envelope) = &opened.transaction else { return wrong(round, "that is no opening") };
    let open: Signed<RoundOpen> = signed(trust, round, envelope)?;
    if open.round != *round {
        return wrong(round, format!("the opening is that of round {}", open.round));
    }
    let miners = match &opened.receipt.receipt.effect {
        Effect::Opened { round: of, miners } if of == round => miners.clone(),
        _ => return wrong(round, "its opening's receipt is none of an opened round"),
    };
    let asked = Asked { open: &open, miners: &miners };
    let bound = bound.map(|inclusion| check_commits(history, &asked, inclusion)).transpose()?;
    let commits = bound.as_ref().map(|b| b.commits.as_slice());
    let closed = closed.map(|inclusion| check_result(history, &asked, commits, inclusion)).transpose()?;
    let place = (opened.header.height, opened.path.index);
    if closed.as_ref().is_some_and(|c| c.place <= place) {
        return wrong(round, "its result stands before its opening");
    }
    if let Some(bound) = &bound
        && (bound.place <= place || closed.as_ref().is_some_and(|c| c.place <= bound.place))
    {
        return wrong(round, "its commitments do not stand between opening and result");
    }
    Ok(Round { open: open.into_value(), miners, opened: place, bound, closed })
}

/// An opening, and whom it asks.
struct Asked<'a> {
    open: &'a Signed<RoundOpen>,
    miners: &'a [Hotkey],
}

fn check_commits(history: &History, asked: &Asked<'_>, bound: &Inclusion) -> Result<Bound, AuditError> {
    let (open, round) = (asked.open, &asked.open.round);
    let trust = history.at(bound.header.height)?;
    bound.verify(trust)?;
    let Transaction::RoundCommits(envelope) = &bound.transaction else { return wrong(round, "those are no commits") };
    let given: Signed<RoundCommits> = signed(trust, round, envelope)?;
    if given.round != *round || given.commits.len() != asked.miners.len() {
        return wrong(round, "the commitments are those of another round");
    }
    for (miner, commit) in asked.miners.iter().zip(&given.commits) {
        let Some(commit) = commit else { continue };
        let statement = AnswerStatement { round: *round, image: open.image, commit: commit.commit };
        if !statement.verify(miner, &trust.network(), &commit.signature) {
            return wrong(round, format!("{miner} never signed that commitment"));
        }
    }
    let commits = given.commits.iter().map(|commit| commit.map(|c| c.commit)).collect();
    Ok(Bound { commits, place: (bound.header.height, bound.path.index) })
}

fn check_result(
    history: &History,
    asked: &Asked<'_>,
    commits: Option<&[Option<Digest>]>,
    closed: &Inclusion,
) -> Result<Closed, AuditError> {
    let (open, round) = (asked.open, &asked.open.round);
    let trust = history.at(closed.header.height)?;
    closed.verify(trust)?;
    let Transaction::RoundResult(envelope) = &closed.transaction else { return wrong(round, "that is no result") };
    let result: Signed<RoundResult> = signed(trust, round, envelope)?;
    if result.round != *round || result.open != open.digest() {
        return wrong(round, "the result is that of another opening");
    }
    if !result.entries.iter().map(|e| e.miner).eq(asked.miners.iter().copied()) {
        return wrong(round, "the entries are not the miners that were drawn, in their order");
    }
    for (i, entry) in result.entries.iter().enumerate() {
        let commit = commits.and_then(|commits| *commits.get(i)?);
        let shown = entry.answer.map(|answer| commitment(&trust.network(), round, &entry.miner, &answer));
        if shown.is_some() && shown != commit {
            return wrong(round, format!("{} was never bound to that answer", entry.miner));
        }
        if commit.is_some() && entry.reason == Reason::BadSignature {
            return wrong(round, format!("the signature of {} is good", entry.miner));
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
        found.miners.len()
    );
    let mut steps = vec![Step::ok(opening)];
    if let Some(bound) = &found.bound {
        let (height, index) = bound.place;
        let (all, some) = (bound.commits.len(), bound.commits.iter().flatten().count());
        let text = format!("bound in block {height}, transaction {index}: {some} of {all} miners signed a commitment");
        steps.push(Step::ok(text));
    }
    let mut entries = Vec::new();
    match &found.closed {
        None => steps.push(Step::note("no result was shown; that does not prove that there is none")),
        Some(closed) => {
            let (height, index) = closed.place;
            let text =
                format!("closed in block {height}, transaction {index}; every answer is what its miner was bound to");
            let count = |miner: &Hotkey| closed.counted.iter().any(|(m, _)| m == miner);
            let rows = closed.result.entries.iter().map(|e| {
                let counted = if count(&e.miner) { "" } else { ", not counted" };
                Step::note(format!("{} {} {}, {} ms{counted}", e.miner, e.reason, e.score, e.time_ms))
            });
            steps.push(Step::ok(text).with(rows));
            entries.extend(closed.result.entries.iter().map(|e| {
                json!({
                    "miner": e.miner, "reason": e.reason, "score": e.score, "time_ms": e.time_ms,
                    "counted": count(&e.miner), "answer": e.answer,
                })
            }));
        }
    }
    let result = json!({
        "validator": round.validator, "challenge": round.challenge, "seq": round.seq, "epoch": found.open.epoch,
        "opened": { "height": found.opened.0, "index": found.opened.1 },
        "bound": found.bound.as_ref().map(|b| json!({ "height": b.place.0, "index": b.place.1 })),
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
        let bound = answer.bound.map(|b| Box::new(b.0));
        let closed = answer.closed.map(|c| Box::new(c.0));
        let checked = check(&history, round, &opened, bound.as_deref(), closed.as_deref())?;
        Ok((history, opened, bound, closed, checked))
    });
    match found {
        Ok((history, opened, bound, closed, checked)) => {
            let highest = closed.as_ref().or(bound.as_ref()).map_or(&opened.header, |c| &c.header);
            let (top, digest) = (highest.height, highest.digest(&history.network()));
            steps.extend(root::trust_steps(&history, top));
            let (step, result) = show(&checked);
            steps.push(step);
            let verdict = root::agreed(&history, nodes, (top, digest), &mut steps);
            let bundle = Bundle::new(&history, Claim::Round { round: *round, opened, bound, closed });
            (Report::new(verdict, title, steps, result), Some(bundle))
        }
        Err(error) => (Report::failed(title, steps, &error), None),
    }
}
