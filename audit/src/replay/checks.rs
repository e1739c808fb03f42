//! Spot checks written down a second time: which rounds are drawn, and who failed one.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::draw::{DrawRow, MAX_AWAITED, PulseRow, is_drawn};
use perturb_ledger::genesis::Draws;
use perturb_ledger::outliers::{MORE_CHECKS, OutlierRow};
use perturb_ledger::parameters::MILLION;
use perturb_ledger::spot::{CheckRow, Disagreement, FreshRow};
use perturb_ledger::state::{self, DRAWS, check_prefix, fresh_prefix, outlier_prefix, pulse_prefix};
use perturb_ledger::store::Row;
use perturb_ledger::{Parameters, Pulse, ValidatorSet};
use perturb_types::{Beacon, ChallengeId, Digest, Hotkey, NetworkId, RoundId};

use super::fast::under;
use crate::error::AuditError;

/// Rounds that may be drawn, rounds that are checked, and who is left out of the epoch.
pub(crate) struct Checks {
    beacon: Beacon,
    /// By the height that closed them.
    fresh: BTreeMap<u64, BTreeMap<RoundId, FreshRow>>,
    /// The heights, first and last, that wait for a round of the beacon.
    awaited: BTreeMap<u64, (u64, u64)>,
    draws: DrawRow,
    open: BTreeMap<RoundId, CheckRow>,
    struck: BTreeSet<(ChallengeId, Hotkey)>,
    /// Who was an outlier at the last close, for how many owners of miners.
    outliers: BTreeMap<(ChallengeId, Hotkey), OutlierRow>,
}

impl Checks {
    pub fn read(beacon: &Beacon, rows: &[Row]) -> Result<Self, AuditError> {
        let mut this = Self {
            beacon: beacon.clone(),
            fresh: BTreeMap::new(),
            awaited: BTreeMap::new(),
            draws: DrawRow::default(),
            open: BTreeMap::new(),
            struck: BTreeSet::new(),
            outliers: BTreeMap::new(),
        };
        for (key, value) in under(rows, fresh_prefix()) {
            let Some(round) = state::fresh_round(key) else { continue };
            let row: FreshRow = state::parse(key, value)?;
            this.fresh.entry(row.height).or_default().insert(round, row);
        }
        for (key, value) in under(rows, check_prefix()) {
            let Some(round) = state::round_after(check_prefix(), key) else { continue };
            this.open.insert(round, state::parse(key, value)?);
        }
        for (key, value) in under(rows, pulse_prefix()) {
            let Some(round) = state::pulse_round(key) else { continue };
            let row: PulseRow = state::parse(key, value)?;
            this.awaited.insert(round, (row.first, row.last));
        }
        for (key, value) in under(rows, DRAWS).iter().filter(|(key, _)| key == DRAWS) {
            this.draws = state::parse(key, value)?;
        }
        Ok(this)
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
    fn rate(&self, rate: u32, round: &RoundId) -> u32 {
        let row = self.outliers.get(&(round.challenge, round.validator));
        let often = row.is_some_and(|r| u64::from(r.rejected) * 2 > u64::from(r.owners));
        let rate = u64::from(rate) * u64::from(if often { MORE_CHECKS } else { 1 });
        u32::try_from(rate.min(u64::from(MILLION))).unwrap_or(MILLION)
    }

    /// The beginning of a block.
    pub fn begin(&mut self, parameters: &Parameters, height: u64, time_ms: u64) {
        let window = parameters.spot_checks.window_blocks;
        self.open.retain(|_, row| row.drawn.saturating_add(window) > height);
        while let Some((&round, &(first, last))) = self.awaited.first_key_value() {
            let waits = first.saturating_add(parameters.draws.retention_blocks) > height;
            if waits && self.awaited.len() < MAX_AWAITED {
                break;
            }
            self.awaited.remove(&round);
            self.take(first, last);
        }
        let Some(parent) = height.checked_sub(1).filter(|parent| self.fresh.contains_key(parent)) else { return };
        let round = self.round_for(&parameters.draws, time_ms);
        self.draws.scheduled = round;
        self.awaited.entry(round).and_modify(|heights| heights.1 = parent).or_insert((parent, parent));
    }

    /// The first round, of those that the stride divides, that is signed `delay_ms` or more after a
    /// time; not before the last that anything waits for, and behind all that are in blocks.
    fn round_for(&self, rule: &Draws, time_ms: u64) -> u64 {
        let (period, stride) = (self.beacon.period_ms.max(1), u64::from(rule.pulse_stride).max(1));
        let until = time_ms.saturating_add(u64::from(rule.delay_ms)).saturating_sub(self.beacon.genesis_ms);
        let late = u64::from(!until.is_multiple_of(period));
        let wanted = (until / period).saturating_add(1).saturating_add(late).max(self.draws.newest.saturating_add(1));
        let over = wanted % stride;
        let round = if over == 0 { wanted } else { wanted.saturating_add(stride - over) };
        round.max(self.draws.scheduled)
    }

    fn take(&mut self, first: u64, last: u64) -> BTreeMap<RoundId, FreshRow> {
        let heights: Vec<u64> = self.fresh.range(first..=last).map(|(height, _)| *height).collect();
        heights.iter().filter_map(|height| self.fresh.remove(height)).flatten().collect()
    }

    /// A pulse draws. That the beacon signed it, the quorum has checked.
    pub fn pulse(&mut self, pulse: &Pulse, rate: u32, network: &NetworkId, height: u64) -> Result<(), String> {
        let (first, last) =
            self.awaited.remove(&pulse.round).ok_or_else(|| format!("nothing waits for pulse {}", pulse.round))?;
        self.draws.newest = self.draws.newest.max(pulse.round);
        for (round, fresh) in self.take(first, last) {
            if is_drawn(self.rate(rate, &round), network, &pulse.signature, &round, &fresh.result) {
                self.open.insert(round, CheckRow { fresh, drawn: height, findings: Vec::new() });
            }
        }
        Ok(())
    }

    pub fn close(&mut self, round: RoundId, result: Digest, image: Digest, height: u64) {
        self.fresh.entry(height).or_default().insert(round, FreshRow { result, image, height });
    }

    pub fn forget(&mut self, challenge: ChallengeId) {
        self.fresh.values_mut().for_each(|rounds| rounds.retain(|round, _| round.challenge != challenge));
        self.fresh.retain(|_, rounds| !rounds.is_empty());
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
