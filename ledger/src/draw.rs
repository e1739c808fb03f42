//! Which closed rounds everybody checks again: drawn by a pulse that did not exist when they were closed.
//!
//! - A result that is executed at height `h` is *fresh*. At the beginning of block `h + 1` it is put
//!   down to the first round of the beacon that `pulse_stride` divides and that is signed at least
//!   `delay_ms` after the time in header `h + 1`, but never to one earlier than any before it was put
//!   down to, nor to one that a block has already: the order of pulses is the order of heights, whatever
//!   a proposer writes as its time.
//! - When the pulse of that round is in a block ([`crate::pulse`]), it draws all that waits for it: a
//!   round is checked if the first eight bytes of `H(SpotCheck, network, borsh(signature 48, round,
//!   digest of the result's transaction))`, big endian, are below `rate`/10⁶ of 2⁶⁴; of an
//!   outlier for most owners, more ([`crate::outliers`]). The result was in a
//!   block, and cannot be another any more, before the pulse was signed: whoever forges one does not
//!   know whether it is drawn, nor can it try several.
//! - Pulses may come late and in any order. What waits for one that has not come within
//!   `retention_blocks` is not drawn, which is nobody's fault, and counted. At most [`MAX_AWAITED`]
//!   pulses are waited for; what has waited longest gives way.
//!
//! A pulse is valid only while something waits for it: there is nothing to flood blocks with. A block
//! reads one row for each pulse that is awaited, and the rounds that its own pulses draw, no others.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::beacon::{SIGNATURE_BYTES, multiple_from};
use perturb_types::encode::{self, Domain};
use perturb_types::{Beacon, ChallengeId, Digest, NetworkId, RoundId};

use crate::execute::{Executor, TxError};
use crate::genesis::GenesisError;
use crate::parameters::{Draws, MILLION};
use crate::pulse::Pulse;
use crate::spot::FreshRow;
use crate::state::{
    self, DRAWS, check_key, fresh_at, fresh_key, fresh_prefix, fresh_round, pulse_key, pulse_prefix, pulse_round,
};
use crate::store::StateStore;
use crate::verdict::CheckRow;

/// Pulses that are waited for at once: with one every 30 s, those of eight hours.
pub const MAX_AWAITED: usize = 1024;

/// Least delay of a network whose beacon is not the development one, milliseconds: more than a
/// proposal's time may lie behind and ahead of honest clocks together.
pub const MIN_DELAY_MS: u32 = 60_000;

const _: () = assert!(
    MIN_DELAY_MS as u64 > crate::bounds::MAX_PROPOSAL_AGE_MS + 2_000,
    "a block that is dated back, or ahead, must not know its draw"
);

/// Most that a draw may be put off by delay or stride, milliseconds: until then every picture is kept.
pub const MAX_DELAY_MS: u32 = 600_000;

/// Most blocks that a fresh round may wait.
pub const MAX_RETENTION_BLOCKS: u64 = 100_000;

/// What waits for a pulse: the fresh rounds of these heights.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PulseRow {
    /// The lowest height.
    pub first: u64,
    /// The highest one.
    pub last: u64,
}

/// What is known of the draws so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DrawRow {
    /// The latest round of the beacon that anything was put down to.
    pub scheduled: u64,
    /// The latest round of the beacon that a block has.
    pub newest: u64,
    /// Rounds that were drawn.
    pub drawn: u64,
    /// Rounds that were not.
    pub spared: u64,
    /// Rounds whose pulse never came.
    pub expired: u64,
}

/// Whether a pulse draws a round with this result, at so many in a million.
#[must_use]
pub fn is_drawn(
    rate: u32,
    network: &NetworkId,
    signature: &[u8; SIGNATURE_BYTES],
    round: &RoundId,
    result: &Digest,
) -> bool {
    let digest = encode::digest_of(Domain::SpotCheck, network, &(signature, round, result));
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest.0[..8]);
    u128::from(u64::from_be_bytes(first)) * u128::from(MILLION) < u128::from(rate) << 64
}

/// The round of the beacon that draws what the parent of a block of this time has closed.
#[must_use]
pub fn drawing_round(beacon: &Beacon, rule: &Draws, so_far: &DrawRow, time_ms: u64) -> u64 {
    let stride = u64::from(rule.pulse_stride);
    let by_time = beacon.first_from(time_ms.saturating_add(u64::from(rule.delay_ms)), stride);
    let unknown = multiple_from(so_far.newest.saturating_add(1), stride);
    by_time.max(so_far.scheduled).max(unknown)
}

impl Draws {
    /// Whether they make sense with a beacon and the time between two heights.
    ///
    /// # Errors
    /// What does not.
    pub fn validate(&self, beacon: &Beacon, block_interval_ms: u32) -> Result<(), GenesisError> {
        let fault = |what: String| Err(GenesisError::Content(format!("parameters: draws: {what}")));
        let least = if beacon.is_development() { 1 } else { MIN_DELAY_MS };
        if !(least..=MAX_DELAY_MS).contains(&self.delay_ms) {
            return fault(format!("delay_ms must lie in {least}..={MAX_DELAY_MS}"));
        }
        let spacing = u64::from(self.pulse_stride).saturating_mul(beacon.period_ms);
        if spacing == 0 || spacing > u64::from(MAX_DELAY_MS) {
            return fault(format!("pulse_stride must be positive, and not over {MAX_DELAY_MS} ms of rounds"));
        }
        let most = spacing.saturating_add(u64::from(self.delay_ms));
        let kept = self.retention_blocks.saturating_mul(u64::from(block_interval_ms));
        if kept < most.saturating_mul(2) || self.retention_blocks > MAX_RETENTION_BLOCKS {
            return fault(format!(
                "retention_blocks must last twice the {most} ms until a draw, and be at most {MAX_RETENTION_BLOCKS}"
            ));
        }
        Ok(())
    }
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Puts what the parent closed down to a pulse, by the time in this block's header, and gives up
    /// what has waited for too long.
    pub(crate) fn schedule_draws(&mut self, time_ms: u64) -> Result<(), TxError> {
        self.expire_draws()?;
        let parent = self.height().saturating_sub(1);
        if !self.state.scan(&fresh_at(parent))?.is_empty() {
            let mut so_far = self.draws()?;
            so_far.scheduled = drawing_round(self.beacon(), &self.parameters().draws, &so_far, time_ms);
            let key = pulse_key(so_far.scheduled);
            let waits: Option<PulseRow> = self.state.get(&key)?;
            let first = waits.map_or(parent, |row| row.first);
            self.state.put(key, &PulseRow { first, last: parent });
            self.state.put(DRAWS.to_vec(), &so_far);
        }
        self.state.accept();
        Ok(())
    }

    pub(crate) fn draws(&self) -> Result<DrawRow, TxError> {
        Ok(self.state.get(DRAWS)?.unwrap_or_default())
    }

    fn expire_draws(&mut self) -> Result<(), TxError> {
        let retention = self.parameters().draws.retention_blocks;
        let awaited = self.state.scan(pulse_prefix())?;
        let surplus = awaited.len().saturating_sub(MAX_AWAITED - 1);
        for (index, (key, row)) in awaited.into_iter().enumerate() {
            let row: PulseRow = state::parse(&key, &row)?;
            // Later pulses are waited for by later heights.
            if index >= surplus && row.first.saturating_add(retention) > self.height() {
                break;
            }
            if let Some(round) = pulse_round(&key) {
                self.lose_seed(round)?;
            }
            self.state.delete(key);
            let gone = self.take_fresh(&row)?.len() as u64;
            let mut so_far = self.draws()?;
            so_far.expired = so_far.expired.saturating_add(gone);
            self.state.put(DRAWS.to_vec(), &so_far);
        }
        Ok(())
    }

    /// Removes and returns the fresh rounds of some heights.
    fn take_fresh(&mut self, heights: &PulseRow) -> Result<Vec<(RoundId, FreshRow)>, TxError> {
        let mut out = Vec::new();
        // The rows are counted, not the heights: a row that a bad disk changed may name all there are.
        for (key, row) in self.state.scan(fresh_prefix())? {
            let row: FreshRow = state::parse(&key, &row)?;
            if (heights.first..=heights.last).contains(&row.height) {
                out.extend(fresh_round(&key).map(|round| (round, row)));
                self.state.delete(key);
            }
        }
        Ok(out)
    }

    /// A round was closed: it may be drawn.
    pub(crate) fn keep_fresh(&mut self, round: &RoundId, row: FreshRow) {
        if self.parameters().spot_checks.rate > 0 {
            self.state.put(fresh_key(row.height, round), &row);
        }
    }

    /// A challenge is gone: its rounds are not drawn any more.
    pub(crate) fn forget_fresh(&mut self, challenge: ChallengeId) -> Result<(), TxError> {
        Ok(self.state.retain(fresh_prefix(), |key| fresh_round(key).is_some_and(|r| r.challenge != challenge))?)
    }

    /// A pulse draws what waits for it.
    pub(crate) fn pulse(&mut self, pulse: &Pulse, known: bool) -> Result<(), TxError> {
        let key = pulse_key(pulse.round);
        let Some(waiting) = self.state.get::<PulseRow>(&key)? else {
            return Err(TxError::Invalid(format!("pulse {}: nothing waits for it", pulse.round)));
        };
        if !known && !pulse.verify(self.beacon()) {
            return Err(TxError::ForgedPulse(pulse.round));
        }
        self.state.delete(key);
        let mut so_far = self.draws()?;
        so_far.newest = so_far.newest.max(pulse.round);
        let drawn = self.height();
        for (round, fresh) in self.take_fresh(&waiting)? {
            let rate = self.check_rate(&round)?;
            if is_drawn(rate, &self.network(), &pulse.signature, &round, &fresh.result) {
                so_far.drawn = so_far.drawn.saturating_add(1);
                self.count_drawn(&round.validator)?;
                self.state.put(check_key(&round), &CheckRow::new(fresh, drawn));
            } else {
                so_far.spared = so_far.spared.saturating_add(1);
            }
        }
        self.state.put(DRAWS.to_vec(), &so_far);
        self.take_seed(pulse.round, &pulse.signature)
    }
}
