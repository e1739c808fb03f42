//! Verdicts on drawn rounds: what each member found, on the record, and what follows from all of them.
//!
//! Every member posts one [`CheckVerdict`] for each drawn round of another validator, within
//! `window_blocks`: it *holds*, it *fails* for a [`Finding`], or the member *cannot tell*. With the power
//! of those who say so as F and H, and that of the whole set as T, the round's validator is **struck** if
//!
//! `3·F > T` and `3·F > 2·(F + H)`.
//!
//! - The first part keeps liars under a third from striking anybody, whatever honest members say or
//!   leave unsaid. The second is the quorum, of those who could tell: who is silent, cannot tell, or is
//!   the accused leaves it, so that absent members shield nobody.
//! - Powers are those of the set that certifies the block in which it is decided; who left it has none.
//! - It is decided once the verdicts still to come can no longer change it, else when the window is
//!   over; at the beginning of a block and before an epoch's close, never within: so the order of
//!   transactions decides nothing.
//!
//! A strike deletes the validator's histories of the challenge (else what was forged would count in
//! epochs to come), leaves it out of the epoch in the making, and counts against it; the row stays as
//! evidence. A check that is open when an epoch closes goes on and strikes the next one. Verdicts are
//! taken until the window is over, also of what is decided: they show who checks at all.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode::Domain;
use perturb_types::envelope::Payload;
use perturb_types::{ChallengeId, Digest, Hotkey, RoundId};

use crate::execute::{Executor, TxError};
use crate::spot::FreshRow;
use crate::state::{self, check_key, check_prefix, fault_key, history_parts, history_prefix, round_after, struck_key};
use crate::store::StateStore;
use crate::validators::ValidatorSet;

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
    /// The model says what the record cannot come from, whatever the machine.
    Label = 4,
    /// A failure that the record states is none: the answer can be read, or the model judges it.
    Stated = 5,
    /// An image that was passed over serves.
    Skipped = 6,
}

/// What a member found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Checked {
    /// The record is possible (tag 0).
    Holds,
    /// It is not (tag 1).
    Fails(Finding),
    /// This member's machine cannot tell (tag 2).
    Unknown,
}

/// A member's verdict on a drawn round.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckVerdict {
    /// Who says so.
    pub hotkey: Hotkey,
    /// The round.
    pub round: RoundId,
    /// Digest of the result's transaction.
    pub result: Digest,
    /// What it found.
    pub verdict: Checked,
}

impl Payload for CheckVerdict {
    const DOMAIN: Domain = Domain::CheckVerdict;
    const NAME: &'static str = "check verdict";
    const MAX_BYTES: usize = 128;
}

/// A round that is checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckRow {
    /// The round's row as it was drawn.
    pub fresh: FreshRow,
    /// The height at which it was drawn.
    pub drawn: u64,
    /// What members found, by rising hotkey; at most one of each.
    pub verdicts: BTreeMap<Hotkey, Checked>,
    /// Whether its validator was struck for it.
    pub struck: bool,
}

impl CheckRow {
    /// A round that was just drawn.
    pub fn new(fresh: FreshRow, drawn: u64) -> Self {
        Self { fresh, drawn, verdicts: BTreeMap::new(), struck: false }
    }

    /// What its verdicts weigh in a set; those of the round's own validator weigh nothing.
    pub fn tally(&self, accused: &Hotkey, set: &ValidatorSet) -> Tally {
        let mut tally = Tally { total: u128::from(set.total()), ..Tally::default() };
        for member in set.iter().filter(|member| member.hotkey != *accused) {
            let side = match self.verdicts.get(&member.hotkey) {
                Some(Checked::Fails(_)) => &mut tally.fails,
                Some(Checked::Holds) => &mut tally.holds,
                Some(Checked::Unknown) => &mut tally.unknown,
                None => &mut tally.outstanding,
            };
            *side += u128::from(member.power);
        }
        tally
    }
}

/// The power behind each verdict on one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// It fails.
    pub fails: u128,
    /// It holds.
    pub holds: u128,
    /// Cannot tell.
    pub unknown: u128,
    /// Members that have not said yet.
    pub outstanding: u128,
    /// The whole set, the round's validator included.
    pub total: u128,
}

impl Tally {
    /// Whether these verdicts strike, if no other comes.
    #[must_use]
    pub fn strikes(&self) -> bool {
        self.fails * 3 > self.total && self.fails * 3 > (self.fails + self.holds) * 2
    }

    /// What no verdict still to come can change: `None` while one could.
    #[must_use]
    pub fn settled(&self) -> Option<bool> {
        let all_hold = Self { holds: self.holds + self.outstanding, ..*self };
        let all_fail = Self { fails: self.fails + self.outstanding, ..*self };
        match (all_hold.strikes(), all_fail.strikes()) {
            (true, _) => Some(true),
            (false, false) => Some(false),
            (false, true) => None,
        }
    }
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Takes a member's verdict down; what follows from it is decided between transactions.
    pub(crate) fn check_verdict(&mut self, v: &CheckVerdict) -> Result<(), TxError> {
        let invalid = |why: &str| Err(TxError::Invalid(format!("check verdict on {}: {why}", v.round)));
        let key = check_key(&v.round);
        let Some(mut row) = self.state.get::<CheckRow>(&key)? else {
            return invalid("it is not being checked");
        };
        if row.fresh.result != v.result {
            return invalid("it names another result");
        }
        if v.hotkey == v.round.validator || row.verdicts.contains_key(&v.hotkey) {
            return invalid("its own validator, or said already");
        }
        row.verdicts.insert(v.hotkey, v.verdict);
        self.state.put(key, &row);
        self.count_verdict(&v.hotkey)?;
        Ok(())
    }

    /// Decides the checks that verdicts or time have settled, and ends those whose window is over.
    pub(crate) fn settle_checks(&mut self) -> Result<(), TxError> {
        let window = self.parameters().spot_checks.window_blocks;
        let mut struck: BTreeSet<(ChallengeId, Hotkey)> = BTreeSet::new();
        for (key, bytes) in self.state.scan(check_prefix())? {
            let Some(round) = round_after(check_prefix(), &key) else { continue };
            let mut row: CheckRow = state::parse(&key, &bytes)?;
            let over = row.drawn.saturating_add(window) <= self.height();
            let tally = row.tally(&round.validator, &self.frame.set);
            let strikes = !row.struck && (tally.settled() == Some(true) || (over && tally.strikes()));
            if strikes {
                row.struck = true;
                struck.insert((round.challenge, round.validator));
                self.blame(&round.validator, |f| f.failed_checks += 1)?;
            }
            // Evidence from the strike on, and with every verdict when the window is over.
            if row.struck && (strikes || over) {
                self.state.put(fault_key(&round), &row);
            }
            if over {
                self.state.delete(key);
            } else if strikes {
                self.state.put(key, &row);
            }
        }
        self.strike(&struck)?;
        self.state.accept();
        Ok(())
    }

    /// What a strike does beside the blame.
    fn strike(&mut self, struck: &BTreeSet<(ChallengeId, Hotkey)>) -> Result<(), TxError> {
        let challenges: BTreeSet<ChallengeId> = struck.iter().map(|(challenge, _)| *challenge).collect();
        for challenge in challenges {
            let honest = |(_, validator)| !struck.contains(&(challenge, validator));
            self.state.retain(&history_prefix(challenge), |key| history_parts(challenge, key).is_none_or(honest))?;
        }
        let epoch = self.frame.meta.epoch;
        for (challenge, validator) in struck {
            self.state.put(struck_key(*challenge, validator), &epoch);
        }
        Ok(())
    }

    /// Whether a validator's contributions to a challenge are dropped from this epoch.
    pub(crate) fn is_struck(&self, challenge: ChallengeId, validator: &Hotkey) -> Result<bool, TxError> {
        let struck: Option<u64> = self.state.get(&struck_key(challenge, validator))?;
        Ok(struck == Some(self.frame.meta.epoch))
    }
}
