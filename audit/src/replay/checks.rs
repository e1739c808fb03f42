//! Spot checks written down a second time: which rounds are drawn, and who failed one.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::genesis::SpotChecks;
use perturb_ledger::outliers::{MORE_CHECKS, OutlierRow};
use perturb_ledger::parameters::MILLION;
use perturb_ledger::spot::{CheckRow, Disagreement, FreshRow, is_drawn};
use perturb_ledger::state::{self, META, Meta, check_prefix, fresh_prefix, outlier_prefix};
use perturb_ledger::store::Row;
use perturb_ledger::{ChainReference, ValidatorSet};
use perturb_types::{ChallengeId, Digest, Hotkey, NetworkId, RoundId};

use super::fast::under;
use crate::error::AuditError;

/// Rounds that may be drawn, rounds that are checked, and who is left out of the epoch.
pub(crate) struct Checks {
    fresh: BTreeMap<RoundId, FreshRow>,
    open: BTreeMap<RoundId, CheckRow>,
    struck: BTreeSet<(ChallengeId, Hotkey)>,
    /// Who was an outlier at the last close, for how many owners of miners.
    outliers: BTreeMap<(ChallengeId, Hotkey), OutlierRow>,
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
        Ok(Self { fresh, open, struck: BTreeSet::new(), outliers: BTreeMap::new(), hash })
    }

    /// The outliers of a challenge, from the rows of the state that the epoch begins with.
    pub fn read_outliers(&mut self, rows: &[Row], id: ChallengeId) -> Result<(), AuditError> {
        let prefix = outlier_prefix(id);
        for (key, value) in under(rows, &prefix) {
            let Some(validator) = state::hotkey_after(&prefix, key) else { continue };
            self.outliers.insert((id, validator), state::parse(key, value)?);
        }
        Ok(())
    }

    /// An outlier for more than half of the owners has five times as many rounds drawn.
    fn rate(&self, rule: &SpotChecks, round: &RoundId) -> u32 {
        let row = self.outliers.get(&(round.challenge, round.validator));
        let often = row.is_some_and(|r| u64::from(r.rejected) * 2 > u64::from(r.owners));
        let rate = u64::from(rule.rate) * u64::from(if often { MORE_CHECKS } else { 1 });
        u32::try_from(rate.min(u64::from(MILLION))).unwrap_or(MILLION)
    }

    /// The beginning of a block.
    pub fn begin(&mut self, network: &NetworkId, rule: &SpotChecks, height: u64, reference: &ChainReference) {
        self.open.retain(|_, row| row.drawn.saturating_add(rule.window_blocks) > height);
        if reference.hash == self.hash {
            return;
        }
        self.hash = reference.hash;
        for (round, fresh) in std::mem::take(&mut self.fresh) {
            let rule = SpotChecks { rate: self.rate(rule, &round), ..*rule };
            if is_drawn(&rule, network, &reference.hash, &round) {
                self.open.insert(round, CheckRow { fresh, drawn: height, findings: Vec::new() });
            }
        }
    }

    pub fn close(&mut self, round: RoundId, result: Digest, image: Digest, height: u64) {
        self.fresh.insert(round, FreshRow { result, image, height });
    }

    pub fn forget(&mut self, challenge: ChallengeId) {
        self.fresh.retain(|round, _| round.challenge != challenge);
        self.open.retain(|round, _| round.challenge != challenge);
        self.outliers.retain(|(id, _), _| *id != challenge);
    }

    pub fn disagree(&mut self, d: &Disagreement, set: &ValidatorSet) -> Result<(), String> {
        let row = self.open.get_mut(&d.round).ok_or_else(|| format!("round {} is not being checked", d.round))?;
        let said = row.findings.iter().any(|(who, _)| *who == d.hotkey);
        if row.fresh.result != d.result || said || d.hotkey == d.round.validator {
            return Err(format!("a disagreement on round {} that does not count", d.round));
        }
        row.findings.push((d.hotkey, d.finding));
        let power = |who: &Hotkey| u128::from(set.by_hotkey(who).map_or(0, |v| v.power));
        let sum: u128 = row.findings.iter().map(|(who, _)| power(who)).sum();
        if sum * 3 > u128::from(set.total()) * 2 {
            self.open.remove(&d.round);
            self.struck.insert((d.round.challenge, d.round.validator));
        }
        Ok(())
    }

    /// Whether a validator's contributions to a challenge are left out of the epoch.
    pub fn is_struck(&self, challenge: ChallengeId, validator: &Hotkey) -> bool {
        self.struck.contains(&(challenge, *validator))
    }
}
