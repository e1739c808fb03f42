//! Spot checks: everybody verifies the same few rounds again.
//!
//! Which rounds are checked is drawn by pulses ([`crate::draw`]).
//!
//! The members fetch the images by their digests and verify again. Who finds otherwise says so with a
//! [`Disagreement`] within `window_blocks`. When those who disagree hold a quorum, the validator's
//! contributions to the challenge are dropped from the epoch in the making, its standing falls, and
//! the disagreements stay as evidence. Silence is agreement.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode::Domain;
use perturb_types::envelope::Payload;
use perturb_types::{ChallengeId, Digest, Hotkey, RoundId};

use crate::execute::{Executor, TxError};
use crate::state::{self, check_key, check_prefix, fault_key, struck_key};
use crate::store::StateStore;

/// What does not hold about a checked round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Finding {
    /// The image that the miners got cannot be had from its validator or from anyone else.
    ImageMissing = 0,
    /// It is not the source image under the revealed transform.
    ImageWrong = 1,
    /// A counted answer cannot be had.
    AnswerMissing = 2,
    /// Measuring an answer gives other numbers.
    Measurement = 3,
    /// The model says another label, beyond the margin tolerance.
    Label = 4,
}

/// A member's word that a checked round does not hold.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Disagreement {
    /// Who says so.
    pub hotkey: Hotkey,
    /// The round.
    pub round: RoundId,
    /// Digest of the result's transaction.
    pub result: Digest,
    /// What does not hold.
    pub finding: Finding,
}

impl Payload for Disagreement {
    const DOMAIN: Domain = Domain::Disagreement;
    const NAME: &'static str = "disagreement";
    const MAX_BYTES: usize = 128;
}

/// A round that was closed and may be drawn.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FreshRow {
    /// Digest of the result's transaction.
    pub result: Digest,
    /// Digest of the image that the miners got.
    pub image: Digest,
    /// The height of the block that has the result.
    pub height: u64,
}

/// A round that is checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckRow {
    /// The round's row as it was drawn.
    pub fresh: FreshRow,
    /// The height at which it was drawn.
    pub drawn: u64,
    /// Who disagrees, in the order of their transactions.
    pub findings: Vec<(Hotkey, Finding)>,
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Ends checks whose window is over.
    pub(crate) fn end_checks(&mut self) -> Result<(), TxError> {
        let rule = self.parameters().spot_checks;
        for (key, row) in self.state.scan(check_prefix())? {
            let row: CheckRow = state::parse(&key, &row)?;
            if row.drawn.saturating_add(rule.window_blocks) <= self.height() {
                self.state.delete(key);
            }
        }
        self.state.accept();
        Ok(())
    }

    /// A challenge is gone: its rounds are not checked any more.
    pub(crate) fn forget_checks(&mut self, challenge: ChallengeId) -> Result<(), TxError> {
        for (key, _) in self.state.scan(check_prefix())? {
            if state::round_after(check_prefix(), &key).is_none_or(|r| r.challenge == challenge) {
                self.state.delete(key);
            }
        }
        self.forget_fresh(challenge)
    }

    pub(crate) fn disagreement(&mut self, d: &Disagreement) -> Result<(), TxError> {
        let invalid = |why: &str| Err(TxError::Invalid(format!("disagreement on {}: {why}", d.round)));
        let key = check_key(&d.round);
        let Some(mut row) = self.state.get::<CheckRow>(&key)? else {
            return invalid("it is not being checked");
        };
        if row.fresh.result != d.result {
            return invalid("it names another result");
        }
        if d.hotkey == d.round.validator || row.findings.iter().any(|(who, _)| *who == d.hotkey) {
            return invalid("its own validator, or said already");
        }
        row.findings.push((d.hotkey, d.finding));
        let set = &self.frame.set;
        let power = row.findings.iter().filter_map(|(who, _)| set.by_hotkey(who)).map(|v| v.power).sum();
        if !set.is_quorum(power) {
            self.state.put(key, &row);
            return Ok(());
        }
        self.state.delete(key);
        self.state.put(fault_key(&d.round), &row);
        let epoch = self.frame.meta.epoch;
        self.state.put(struck_key(d.round.challenge, &d.round.validator), &epoch);
        self.blame(&d.round.validator, |r| r.failed_checks += 1)?;
        Ok(())
    }

    /// Whether a validator's contributions to a challenge are dropped from this epoch.
    pub(crate) fn is_struck(&self, challenge: ChallengeId, validator: &Hotkey) -> Result<bool, TxError> {
        let struck: Option<u64> = self.state.get(&struck_key(challenge, validator))?;
        Ok(struck == Some(self.frame.meta.epoch))
    }
}
