//! What miners are bound to before they show their answers.
//!
//! A miner that is asked answers with a commitment alone. The validator puts the commitments of a round
//! into one [`RoundCommits`], once, after the opening and before the result; only when the certified
//! state has them do miners show their answers. So:
//!
//! - an answer in a result is the one that its miner was bound to, or the result is invalid;
//! - a miner that bound itself to nothing has no answer: it was silent, late, or signed nothing;
//! - a result without commitments is valid only if it holds no answer at all;
//! - who learns an answer from its showing comes too late, and who repeats another's commitment is bound
//!   to nothing that it could show, since the hotkey is part of it.
//!
//! Whether a commitment came in time, and whether an answer was shown, is the validator's word.

use perturb_types::encode::{self, Domain};
use perturb_types::round::{AnswerStatement, commitment};
use perturb_types::{Digest, Entry, Envelope, NetworkId, Reason, RoundCommits, RoundResult, Signed};

use crate::execute::{Executor, TxError, invalid};
use crate::state::{OpenRow, open_key};
use crate::store::StateStore;

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Binds the miners of an open round.
    pub(crate) fn commits(&mut self, envelope: Envelope) -> Result<(), TxError> {
        let given: Signed<RoundCommits> = self.open_envelope(envelope)?;
        let round = given.round;
        self.member("round commits", &given.signer(), &round.validator)?;
        let mut opened = self.opened(&round)?;
        if opened.commits.is_some() {
            return invalid(format!("round {round}: its miners are bound already"));
        }
        if given.commits.len() != opened.miners.len() {
            let (found, expected) = (given.commits.len(), opened.miners.len());
            return invalid(format!("round {round}: {found} commitments for {expected} miners"));
        }
        if given.commits.iter().all(Option::is_none) {
            return invalid(format!("round {round}: commitments of nobody"));
        }
        self.check_signatures(&given, &opened)?;
        opened.commits = Some(given.commits.iter().map(|bound| bound.map(|b| b.commit)).collect());
        self.state.put(open_key(round.challenge, &round.validator, round.seq), &opened);
        Ok(())
    }
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Checks the miners' signatures. What they signed is in the state, not in the transaction: that it
    /// was verified once, beside another opening of the round, says nothing.
    fn check_signatures(&self, given: &Signed<RoundCommits>, opened: &OpenRow) -> Result<(), TxError> {
        let round = given.round;
        let about = (given.digest(), opened.image, &opened.miners);
        let known = encode::digest_of(Domain::AnswerCommit, &self.network, &about);
        if self.verified.is_some_and(|verified| verified.contains(&known)) {
            return Ok(());
        }
        for (miner, bound) in opened.miners.iter().zip(&given.commits) {
            let Some(bound) = bound else { continue };
            let statement = AnswerStatement { round, image: opened.image, commit: bound.commit };
            if !statement.verify(miner, &self.network, &bound.signature) {
                return invalid(format!("round {round}: {miner} never signed that commitment"));
            }
        }
        if let Some(verified) = self.verified {
            verified.remember(known);
        }
        Ok(())
    }
}

/// Whether an entry is one that a miner with this commitment can have.
fn follows(commit: Option<Digest>, shown: Option<Digest>, entry: &Entry) -> Result<(), &'static str> {
    match (commit, shown) {
        (Some(commit), Some(shown)) if commit != shown => Err("the answer is not the one it was bound to"),
        (None, Some(_)) => Err("an answer of a miner that was bound to none"),
        // Its signature verified when it was bound.
        (Some(_), None) if entry.reason == Reason::BadSignature => Err("a bad signature that was verified"),
        _ => Ok(()),
    }
}

/// Checks that the answers of a result are those that the miners of its round were bound to.
///
/// # Errors
/// The first that is not. Early where no block has the commitments yet.
pub(crate) fn follow(network: &NetworkId, opened: &OpenRow, result: &RoundResult) -> Result<(), TxError> {
    let round = result.round;
    if opened.commits.is_none() && result.entries.iter().any(|e| e.answer.is_some()) {
        return Err(TxError::Early(format!("round {round}: its miners are bound to nothing yet")));
    }
    let none = vec![None; result.entries.len()];
    for (entry, commit) in result.entries.iter().zip(opened.commits.as_ref().unwrap_or(&none)) {
        let shown = entry.answer.map(|answer| commitment(network, &round, &entry.miner, &answer));
        follows(*commit, shown, entry)
            .map_err(|why| TxError::Invalid(format!("round {round}: {}: {why}", entry.miner)))?;
    }
    Ok(())
}
