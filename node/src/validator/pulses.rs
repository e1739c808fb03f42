//! Bringing the pulses that the agreed state waits for.
//!
//! Once a round of the beacon is out, one member takes it from the chain's state and submits it; the
//! others look a little later, each when its turn comes, so that mostly one does and all do if it must be.
//! A pulse proves itself: from whom it comes makes no difference. What the chain does not have yet is
//! asked for again, ever less often, as long as it is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use color_eyre::eyre::Result;
use perturb_chain::ChainClient;
use perturb_chain::pulses::MAX_PULSES;
use perturb_consensus::Verdict;
use perturb_ledger::{Pulse, Transaction, query};
use perturb_types::{Beacon, Hotkey};
use tokio_util::sync::CancellationToken;

use super::agreed::Agreed;
use super::bytes_of;
use super::driver::DriverHandle;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// From one member's turn to the next one's, milliseconds: a height or two.
const TURN_MS: u64 = 1_500;

/// Turns before all may bring a pulse at once: a draw is not held up by many that are away.
const MAX_TURNS: u64 = 8;

/// The first wait before a pulse is looked for again, milliseconds, and the longest one.
const AGAIN_MS: (u64, u64) = (1_000, 60_000);

/// When what is waited for is looked for next, and how long after that.
#[derive(Default)]
struct Looks(BTreeMap<u64, (u64, u64)>);

impl Looks {
    /// The rounds to look for now, the oldest first, at most [`MAX_PULSES`].
    fn due(&mut self, awaited: &[u64], beacon: &Beacon, turn: u64, now_ms: u64) -> Vec<u64> {
        self.0.retain(|round, _| awaited.binary_search(round).is_ok());
        let mut due = Vec::new();
        for round in awaited.iter().copied() {
            let first = beacon.time_of(round).saturating_add(turn.min(MAX_TURNS) * TURN_MS);
            let (at, wait) = self.0.get(&round).copied().unwrap_or((first, AGAIN_MS.0));
            if at <= now_ms && due.len() < MAX_PULSES {
                self.0.insert(round, (now_ms.saturating_add(wait), wait.saturating_mul(2).min(AGAIN_MS.1)));
                due.push(round);
            }
        }
        due
    }
}

/// How many members come before `me` for the pulses of a time: the order changes with every one.
fn turn(members: &[Hotkey], me: &Hotkey, newest: u64) -> Option<u64> {
    let count = members.len() as u64;
    let place = members.iter().position(|m| m == me)? as u64;
    Some((place + count - newest % count) % count)
}

/// Runs until `stop`.
///
/// # Errors
/// The state cannot be read.
pub async fn run(
    agreed: Arc<Agreed>,
    me: Hotkey,
    chain: ChainClient,
    driver: DriverHandle,
    stop: CancellationToken,
) -> Result<()> {
    let machine = driver.status();
    let mut looks = Looks::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        // What an old state waits for may have come long ago.
        if machine.borrow().is_behind() {
            continue;
        }
        let db = agreed.database();
        let awaited = query::awaited_pulses(db)?;
        let members: Vec<Hotkey> = query::validators(db)?.iter().map(|v| v.hotkey).collect();
        let Some(turn) = turn(&members, &me, query::draws(db)?.newest) else { continue };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let beacon = &agreed.genesis().beacon;
        let due = looks.due(&awaited, beacon, turn, now_ms);
        if due.is_empty() {
            continue;
        }
        match chain.pulses(&due).await {
            Ok(found) => bring(found, beacon, &driver).await,
            Err(error) => tracing::debug!(%error, "the chain's pulses cannot be read"),
        }
    }
}

async fn bring(found: Vec<(u64, Vec<u8>)>, beacon: &Beacon, driver: &DriverHandle) {
    for (round, signature) in found {
        let pulse = signature.try_into().ok().map(|signature| Pulse { round, signature });
        let Some(pulse) = pulse.filter(|p| p.verify(beacon)) else {
            tracing::warn!(round, "the chain's pulse is not of the network's beacon");
            continue;
        };
        if let Verdict::Reject(why) = driver.submit(bytes_of(&Transaction::Pulse(pulse))).await {
            tracing::warn!(round, %why, "the pulse was refused");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_pulse_is_looked_for_when_it_is_out_and_then_ever_less_often() {
        let (beacon, mut looks) = (Beacon::QUICKNET, Looks::default());
        let out = beacon.time_of(1000);
        assert!(looks.due(&[1000], &beacon, 0, out - 1).is_empty());
        let times: Vec<u64> =
            (out..out + 300_000).step_by(500).filter(|t| looks.due(&[1000], &beacon, 0, *t).len() == 1).collect();
        let waits: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(&waits[..8], [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert!(looks.due(&[], &beacon, 0, out).is_empty() && looks.0.is_empty(), "what has come is forgotten");
    }

    #[test]
    fn a_gap_holds_no_later_pulse_up_and_no_more_are_asked_for_than_a_read_takes() {
        let (beacon, mut looks) = (Beacon::QUICKNET, Looks::default());
        let awaited: Vec<u64> = (1..=40).map(|r| r * 10).collect();
        let now = beacon.time_of(400);
        assert_eq!(looks.due(&awaited, &beacon, 0, now), awaited[..16]);
        assert_eq!(looks.due(&awaited, &beacon, 0, now), awaited[16..32], "those that wait are passed over");
    }

    #[test]
    fn members_take_turns_and_whoever_is_away_is_made_up_for() {
        let members: Vec<Hotkey> = (0..4).map(|i| Hotkey([i; 32])).collect();
        for newest in [0, 10, 20, 31] {
            let mut turns: Vec<u64> = members.iter().map(|m| turn(&members, m, newest).unwrap()).collect();
            turns.sort_unstable();
            assert_eq!(turns, [0, 1, 2, 3]);
        }
        assert_ne!(turn(&members, &members[0], 0), turn(&members, &members[0], 31));
        assert_eq!(turn(&members, &Hotkey([9; 32]), 0), None);
        let (beacon, mut looks) = (Beacon::QUICKNET, Looks::default());
        let out = beacon.time_of(10);
        assert!(looks.due(&[10], &beacon, 3, out + 3 * TURN_MS - 1).is_empty());
        assert_eq!(looks.due(&[10], &beacon, 3, out + 3 * TURN_MS), [10]);
    }
}
