//! Spot checks written down a second time: which rounds are drawn, what the verdicts on them come to,
//! and who was struck.

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::draw::{DrawRow, MAX_AWAITED, PulseRow, is_drawn};
use perturb_ledger::genesis::{Draws, SpotChecks};
use perturb_ledger::outliers::{MORE_CHECKS, OutlierRow};
use perturb_ledger::parameters::MILLION;
use perturb_ledger::spot::FreshRow;
use perturb_ledger::state::{self, DRAWS, check_prefix, fresh_prefix, outlier_prefix, pulse_prefix};
use perturb_ledger::store::Row;
use perturb_ledger::verdict::{CheckRow, CheckVerdict, Checked};
use perturb_ledger::{Pulse, ValidatorSet};
use perturb_types::{Beacon, ChallengeId, Hotkey, NetworkId, RoundId};

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

    /// The beginning of a block: pulses that never came, which are returned, and the one that what the
    /// parent closed waits for.
    pub fn begin(&mut self, draws: &Draws, height: u64, time_ms: u64) -> Vec<u64> {
        let mut given_up = Vec::new();
        while let Some((&round, &(first, last))) = self.awaited.first_key_value() {
            let waits = first.saturating_add(draws.retention_blocks) > height;
            if waits && self.awaited.len() < MAX_AWAITED {
                break;
            }
            self.awaited.remove(&round);
            self.take(first, last);
            given_up.push(round);
        }
        let closed = |parent: &u64| self.fresh.contains_key(parent);
        let Some(parent) = height.checked_sub(1).filter(closed) else { return given_up };
        let round = self.round_for(draws, time_ms);
        self.draws.scheduled = round;
        self.awaited.entry(round).and_modify(|heights| heights.1 = parent).or_insert((parent, parent));
        given_up
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
        let waits = |height: &&u64| (first..=last).contains(*height);
        let heights: Vec<u64> = self.fresh.keys().filter(waits).copied().collect();
        heights.iter().filter_map(|height| self.fresh.remove(height)).flatten().collect()
    }

    /// A pulse draws. That the beacon signed it, the quorum has checked.
    pub fn pulse(&mut self, pulse: &Pulse, rate: u32, network: &NetworkId, height: u64) -> Result<(), String> {
        let (first, last) =
            self.awaited.remove(&pulse.round).ok_or_else(|| format!("nothing waits for pulse {}", pulse.round))?;
        self.draws.newest = self.draws.newest.max(pulse.round);
        for (round, fresh) in self.take(first, last) {
            if is_drawn(self.rate(rate, &round), network, &pulse.signature, &round, &fresh.result) {
                self.open.insert(round, CheckRow::new(fresh, height));
            }
        }
        Ok(())
    }

    pub fn close(&mut self, round: RoundId, row: FreshRow) {
        self.fresh.entry(row.height).or_default().insert(round, row);
    }

    pub fn forget(&mut self, challenge: ChallengeId) {
        self.fresh.values_mut().for_each(|rounds| rounds.retain(|round, _| round.challenge != challenge));
        self.fresh.retain(|_, rounds| !rounds.is_empty());
        self.open.retain(|round, _| round.challenge != challenge);
    }

    pub fn forget_outliers(&mut self, challenge: ChallengeId) {
        self.outliers.retain(|(id, _), _| *id != challenge);
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
