//! The beacon's rounds as a run has them: one a second, signed with the development key.
//!
//! Some come late, and some never: a gap, as on a chain that skipped a round. Which, follows from the
//! seed, and is the same for everybody.

use perturb_ledger::Pulse;
use perturb_types::{Beacon, Digest};

/// Milliseconds by which a late round comes later than it is signed.
pub const LATE_MS: u64 = 4_000;

/// What becomes of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is out when it is signed.
    Out,
    /// It is out [`LATE_MS`] later.
    Late,
    /// Nobody ever has it.
    Gone,
}

/// What becomes of a round in a run of this seed: one of eight is late, one of sixteen is gone.
pub fn fate(seed: u64, round: u64) -> Fate {
    match Digest::of(&[seed.to_le_bytes(), round.to_le_bytes()].concat()).0[0] % 16 {
        0 => Fate::Gone,
        1 | 2 => Fate::Late,
        _ => Fate::Out,
    }
}

/// When a round can be had; `None` for never.
pub fn out_at(seed: u64, beacon: &Beacon, round: u64) -> Option<u64> {
    match fate(seed, round) {
        Fate::Out => Some(beacon.time_of(round)),
        Fate::Late => Some(beacon.time_of(round) + LATE_MS),
        Fate::Gone => None,
    }
}

/// A round's pulse, if it is out.
pub fn pulse(seed: u64, beacon: &Beacon, round: u64, now_ms: u64) -> Option<Pulse> {
    out_at(seed, beacon, round).filter(|at| *at <= now_ms)?;
    Pulse::of_development(round)
}
