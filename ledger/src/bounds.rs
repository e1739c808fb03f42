//! Bounds on what is agreed, so that whatever the owner signs (or whoever has its key) keeps blocks
//! coming and epochs closing. What it costs or pays is the owner's; whether there is a network is not.
//!
//! [`parameters`] and [`challenge`] look at numbers alone; what two of them come to together in a
//! running network is [`crate::orders`]'.
//!
//! The table of PROTOCOLS.md, "Genesis", says the same to people.

use std::ops::RangeInclusive;

use perturb_types::limits;

use crate::genesis::{ChallengeSpec, GenesisError};
use crate::parameters::{MILLION, Parameters, Timeouts};
use crate::validators::PowerRule;

/// Milliseconds between two heights: below, nodes do little but sync their disks; above, a miner's
/// answer is longer on its way to a score than its round takes.
pub const BLOCK_INTERVAL_MS: RangeInclusive<u64> = 20..=60_000;

/// A wait of round 0, milliseconds: below, no message crosses an ocean; above, each silent proposer
/// costs everybody more than a block interval.
pub const WAIT_MS: RangeInclusive<u64> = 100..=10_000;

/// What each round adds to a wait, milliseconds: never 0, or a network slower than its waits would
/// not decide in any round.
pub const WAIT_DELTA_MS: RangeInclusive<u64> = 100..=5_000;

/// Rounds over which [`MAX_ROUNDS_MS`] is counted: about as many silent proposers in a row as liars
/// under a third ever make.
pub const ROUNDS: u64 = 10;

/// All waits of the first [`ROUNDS`] rounds together, milliseconds: so long may a height take that
/// nobody proposed at before.
pub const MAX_ROUNDS_MS: u64 = 300_000;

/// Milliseconds by which a fresh proposal's time may lie behind a voter's clock in any round. The delay
/// after which a round's checks are drawn must be above this and the two seconds by which a block may
/// be ahead, or whoever dates a block back knows what will be drawn.
pub const MAX_PROPOSAL_AGE_MS: u64 = 30_000;

/// The same in round 0: below, the lag of honest clocks and wires costs rounds.
pub const PROPOSAL_AGE_MS: RangeInclusive<u64> = 2_000..=MAX_PROPOSAL_AGE_MS;

/// Transactions of a block: a set of 256 members gets its word in within four blocks.
pub const BLOCK_TRANSACTIONS: RangeInclusive<u64> = 64..=limits::MAX_BLOCK_TRANSACTIONS as u64;

/// Bytes of a block's transactions beside an epoch's close: any one transaction fits, and with the
/// close and a certificate all of it stays below what a block may have.
pub const BLOCK_BYTES: RangeInclusive<u64> =
    limits::MAX_TRANSACTION_BYTES as u64..=(limits::MAX_BLOCK_BYTES / 2) as u64;

/// The largest part of the power that one validator may hold, millionths: above a third it would stop
/// the network by leaving.
pub const MAX_SHARE: RangeInclusive<u64> = 1..=333_333;

/// Least stake of a member, rao: at most ten times what the chain asks of a validator. (Who is in the
/// set stays there while the minimum would leave no quorum: see [`crate::epoch`].)
pub const MIN_STAKE_RAO: RangeInclusive<u64> = 0..=10_000 * 1_000_000_000;

/// Rounds of one validator, challenge and epoch: one in four seconds over an epoch of twelve hours.
pub const ROUNDS_PER_EPOCH: RangeInclusive<u64> = 1..=10_000;

/// Blocks for which a round stays open: one to be answered in, and not so many that rows pile up.
pub const OPEN_ROUND_BLOCKS: RangeInclusive<u64> = 2..=10_000;

/// Blocks for which a check stays open: each is a row that every block reads, with images behind it.
pub const WINDOW_BLOCKS: RangeInclusive<u64> = 1..=10_000;

/// Millionths of a logit that two machines may differ by: below a thousandth honest ones do, above
/// one logit a check says nothing.
pub const MARGIN_TOLERANCE: RangeInclusive<u64> = 1_000..=1_000_000;

/// Part of an epoch's certificates that may lack a member's vote, millionths: a certificate needs only
/// two thirds, so up to a third may be missing without anybody's fault.
pub const MISSED_TOLERANCE: RangeInclusive<u64> = 333_334..=MILLION as u64;

/// Standing regained with each epoch, millionths: never 0, or every standing ends at 0.
pub const RECOVERY: RangeInclusive<u64> = 1_000..=MILLION as u64;

/// The burn uid: those of the chain. One that nobody holds is replaced at the close
/// ([`crate::tx::Snapshot::burn_uid`]).
pub const BURN_UID: RangeInclusive<u64> = 0..=limits::MAX_NEURONS as u64 - 1;

/// Blocks for which every order waits, so that it is seen and can be revoked. Genesis sets it and no
/// order changes it. A public network wants an hour or more: 600 blocks of 6 s.
pub const ORDER_DELAY_BLOCKS: RangeInclusive<u64> = 1..=100_000;

/// Milliseconds between two rounds of a challenge: below, rounds only wait for each other; above, no
/// history fills.
pub const ROUND_INTERVAL_MS: RangeInclusive<u64> = 500..=3_600_000;

/// Milliseconds for an answer: below, no picture crosses an ocean; above, rounds outlast their blocks.
pub const DEADLINE_MS: RangeInclusive<u64> = 1_000..=300_000;

/// Rounds before a miner can earn: above, nobody ever would.
pub const MAX_PROCESSED: u64 = 10_000;

/// No wait of the engine is longer, milliseconds, whatever the round: a network that comes back must
/// not sleep for minutes.
pub const MAX_WAIT_MS: u64 = 30_000;

/// What lies outside its bounds, as the error says it.
fn outside(rows: &[(&str, u64, RangeInclusive<u64>)]) -> Option<String> {
    let (what, value, bounds) = rows.iter().find(|(_, value, bounds)| !bounds.contains(value))?;
    Some(format!("{what} is {value}, it must lie in {}..={}", bounds.start(), bounds.end()))
}

/// The length of one of the engine's waits: base plus delta times round, capped.
#[must_use]
pub fn wait_ms(base_ms: u64, delta_ms: u64, round: u32) -> u64 {
    base_ms.saturating_add(delta_ms.saturating_mul(u64::from(round))).min(MAX_WAIT_MS)
}

/// All waits of the first [`ROUNDS`] rounds, milliseconds.
fn rounds_ms(t: &Timeouts) -> u64 {
    let waits = [
        (t.propose_ms, t.propose_delta_ms),
        (t.prevote_ms, t.prevote_delta_ms),
        (t.precommit_ms, t.precommit_delta_ms),
    ];
    let of = |round| waits.iter().map(|(base, delta)| wait_ms((*base).into(), (*delta).into(), round)).sum::<u64>();
    (0..ROUNDS as u32).map(of).sum()
}

/// Whether all numbers lie within their bounds.
///
/// # Errors
/// The first that does not.
pub(crate) fn parameters(p: &Parameters) -> Result<(), GenesisError> {
    let (t, checks, rule) = (&p.timeouts, &p.spot_checks, &p.reputation);
    let share = match p.power {
        PowerRule::Equal => *MAX_SHARE.start(),
        PowerRule::Stake { max_share } => max_share.into(),
    };
    let rows = [
        ("min_stake_rao", p.min_stake_rao, MIN_STAKE_RAO),
        ("max_share", share, MAX_SHARE),
        ("block_interval_ms", p.block_interval_ms.into(), BLOCK_INTERVAL_MS),
        ("max_block_transactions", p.max_block_transactions.into(), BLOCK_TRANSACTIONS),
        ("max_block_bytes", p.max_block_bytes.into(), BLOCK_BYTES),
        ("max_rounds_per_epoch", p.max_rounds_per_epoch.into(), ROUNDS_PER_EPOCH),
        ("open_round_blocks", p.open_round_blocks, OPEN_ROUND_BLOCKS),
        ("burn_uid", p.burn_uid.into(), BURN_UID),
        ("timeouts: propose_ms", t.propose_ms.into(), WAIT_MS),
        ("timeouts: propose_delta_ms", t.propose_delta_ms.into(), WAIT_DELTA_MS),
        ("timeouts: prevote_ms", t.prevote_ms.into(), WAIT_MS),
        ("timeouts: prevote_delta_ms", t.prevote_delta_ms.into(), WAIT_DELTA_MS),
        ("timeouts: precommit_ms", t.precommit_ms.into(), WAIT_MS),
        ("timeouts: precommit_delta_ms", t.precommit_delta_ms.into(), WAIT_DELTA_MS),
        ("timeouts: the first ten rounds", rounds_ms(t), 0..=MAX_ROUNDS_MS),
        ("spot_checks: window_blocks", checks.window_blocks, WINDOW_BLOCKS),
        ("spot_checks: margin_tolerance", checks.margin_tolerance.into(), MARGIN_TOLERANCE),
        ("reputation: missed_tolerance", rule.missed_tolerance.into(), MISSED_TOLERANCE),
        ("reputation: recovery", rule.recovery.into(), RECOVERY),
        ("proposal_age_ms", p.proposal_age_ms.into(), PROPOSAL_AGE_MS),
        ("order_delay_blocks", p.order_delay_blocks.into(), ORDER_DELAY_BLOCKS),
    ];
    outside(&rows).map_or(Ok(()), |what| Err(GenesisError::Content(format!("parameters: {what}"))))
}

/// Whether a challenge's numbers lie within their bounds.
///
/// # Errors
/// The first that does not.
pub(crate) fn challenge(spec: &ChallengeSpec) -> Result<(), GenesisError> {
    let rules = &spec.rules;
    let rows = [
        ("interval_ms", spec.interval_ms.into(), ROUND_INTERVAL_MS),
        ("rules: timeout_ms", rules.timeout_ms.into(), DEADLINE_MS),
        ("rules: deadline_ms", rules.deadline_ms.into(), DEADLINE_MS),
        ("rules: min_processed", rules.min_processed.into(), 0..=MAX_PROCESSED),
    ];
    outside(&rows).map_or(Ok(()), |what| Err(GenesisError::Content(format!("challenge {}: {what}", spec.id))))
}
