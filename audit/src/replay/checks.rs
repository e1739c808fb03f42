//! Spot checks written down a second time: which rounds are drawn, what the verdicts on them come to,
//! and who was struck.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::genesis::SpotChecks;
use perturb_ledger::spot::{FreshRow, is_drawn};
use perturb_ledger::state::{self, META, Meta, check_prefix, fresh_prefix};
use perturb_ledger::store::Row;
use perturb_ledger::verdict::{CheckRow, CheckVerdict, Checked};
use perturb_ledger::{ChainReference, ValidatorSet};
use perturb_types::{ChallengeId, Digest, Hotkey, NetworkId, RoundId};

use super::fast::under;
use crate::error::AuditError;

/// Rounds that may be drawn, rounds that are checked, and who is left out of the epoch.
pub(crate) struct Checks {
    fresh: BTreeMap<RoundId, FreshRow>,
    open: BTreeMap<RoundId, CheckRow>,
    struck: BTreeSet<(ChallengeId, Hotkey)>,
    /// The newest chain block that drew.
    hash: Digest,
}

impl Checks {
    pub fn read(rows: &[Row]) -> Result<Self, AuditError> {
        let (mut fresh, mut open, mut hash) = (BTreeMap::new(), BTreeMap::new(), Digest([0; 32]));
        for (key, value) in under(rows, fresh_prefix()) {
            let Some(round) = state::round_after(fresh_prefix(), key) else { continue };
            fresh.insert(round, state::parse(key, value)?);
        }
        for (key, value) in under(rows, check_prefix()) {
            let Some(round) = state::round_after(check_prefix(), key) else { continue };
            open.insert(round, state::parse(key, value)?);
        }
        for (key, value) in under(rows, META) {
            hash = state::parse::<Meta>(key, value)?.reference.hash;
        }
        Ok(Self { fresh, open, struck: BTreeSet::new(), hash })
    }

    /// The draw at the beginning of a block.
    pub fn draw(&mut self, network: &NetworkId, rule: &SpotChecks, height: u64, reference: &ChainReference) {
        if reference.hash == self.hash {
            return;
        }
        self.hash = reference.hash;
        for (round, fresh) in std::mem::take(&mut self.fresh) {
            if is_drawn(rule, network, &reference.hash, &round) {
                self.open.insert(round, CheckRow::new(fresh, height));
            }
        }
    }

    pub fn close(&mut self, round: RoundId, result: Digest, image: Digest, height: u64) {
        self.fresh.insert(round, FreshRow { result, image, height });
    }

    pub fn forget(&mut self, challenge: ChallengeId) {
        self.fresh.retain(|round, _| round.challenge != challenge);
        self.open.retain(|round, _| round.challenge != challenge);
    }

    /// Takes a verdict down.
    pub fn verdict(&mut self, v: &CheckVerdict) -> Result<(), String> {
        let row = self.open.get_mut(&v.round).ok_or_else(|| format!("round {} is not being checked", v.round))?;
        let said = row.verdicts.contains_key(&v.hotkey);
        if row.fresh.result != v.result || said || v.hotkey == v.round.validator {
            return Err(format!("a verdict on round {} that does not count", v.round));
        }
        row.verdicts.insert(v.hotkey, v.verdict);
        Ok(())
    }

    /// Before a block's transactions and before an epoch's close: who is struck now. Checks whose window
    /// is over end.
    pub fn settle(&mut self, rule: &SpotChecks, height: u64, set: &ValidatorSet) -> BTreeSet<(ChallengeId, Hotkey)> {
        let mut now = BTreeSet::new();
        for (round, row) in &mut self.open {
            let over = height >= row.drawn.saturating_add(rule.window_blocks);
            if !row.struck && strikes(row, &round.validator, set, over) {
                row.struck = true;
                now.insert((round.challenge, round.validator));
            }
        }
        self.open.retain(|_, row| height < row.drawn.saturating_add(rule.window_blocks));
        self.struck.extend(&now);
        now
    }

    /// Whether a validator's contributions to a challenge are left out of the epoch.
    pub fn is_struck(&self, challenge: ChallengeId, validator: &Hotkey) -> bool {
        self.struck.contains(&(challenge, *validator))
    }
}

/// More than a third of all power says that the round fails, and more than two thirds of those who could
/// tell; members that are still to speak are taken to say that it holds, unless their time is `over`.
fn strikes(row: &CheckRow, accused: &Hotkey, set: &ValidatorSet, over: bool) -> bool {
    let (mut against, mut tell, mut all) = (0u128, 0u128, 0u128);
    for member in set.iter() {
        let power = u128::from(member.power);
        all += power;
        let verdict = row.verdicts.get(&member.hotkey);
        if member.hotkey == *accused || verdict == Some(&Checked::Unknown) || (verdict.is_none() && over) {
            continue;
        }
        tell += power;
        if matches!(verdict, Some(Checked::Fails(_))) {
            against += power;
        }
    }
    3 * against > all && 3 * against > 2 * tell
}
