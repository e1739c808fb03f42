//! A market: miners that want more than points, validators with a miner of their own, and validators
//! that do not work, on the ledger that a node runs.
//!
//! What an aim is worth is measured against the same market in which everybody is honest: the same
//! seed, the same images, the same skills. Consensus is not played here (`world` does that): one
//! proposer makes the blocks and every member signs. Rounds, checks, histories, standing, aggregation
//! and weights are the ledger's own.
//!
//! | file | what it says |
//! |---|---|
//! | `miner` | how good an answer is, and whom a miner answers |
//! | `validator` | what a validator records of the answers |
//! | `stage` | genesis and blocks |
//! | `round` | one round as transactions |
//! | `rounds` | the order in which rounds and checks get into blocks |
//! | `scheme` | every strategy, what it needs, and the bound on what it may gain |
//! | `table` | the campaign over seeds, and its table |
//! | `forged` | how many forged rounds are found |

pub mod forged;
mod miner;
mod round;
mod rounds;
pub mod scheme;
mod stage;
pub mod table;
mod validator;

use std::collections::BTreeSet;

use perturb_ledger::epoch::{self, EpochRecord};
use perturb_ledger::query;
use perturb_types::{Hotkey, RoundId};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use miner::{Aim, Miner};
pub use validator::{Conduct, Member};

use crate::cast::CHALLENGE;
use rounds::Rounds;
use stage::Stage;

/// A market that could not be played: a strategy whose transactions the ledger refuses, or an input that
/// makes no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl Fault {
    fn new(what: impl ToString) -> Self {
        Self(what.to_string())
    }
}

/// Who plays, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The validators, all founders.
    pub validators: Vec<Member>,
    /// The miners.
    pub miners: Vec<Miner>,
    /// Epochs to play.
    pub epochs: u64,
    /// Rounds of each validator in an epoch.
    pub rounds: u32,
    /// Scores of a history.
    pub history: u32,
    /// Rounds of a million that are checked.
    pub check_rate: u32,
    /// The median work from which on less than half of it is idle.
    pub min_work: u32,
}

impl Setting {
    /// Ten equal validators and six honest miners of falling skill.
    pub fn usual() -> Self {
        Self {
            validators: (0..10).map(|_| Member::honest(1000)).collect(),
            miners: (0..6).map(Miner::of_rank).collect(),
            epochs: 8,
            rounds: 6,
            history: 6,
            check_rate: 20_000,
            min_work: 4,
        }
    }
}

/// What a market came to.
#[derive(Clone, Debug, Default)]
pub struct Yield {
    /// Each miner's part of what all epochs with a record paid, in millionths.
    pub shares: Vec<f64>,
    /// Each validator's standing at the end, in millionths.
    pub standing: Vec<u32>,
    /// Rounds whose measurements were invented.
    pub forged: u64,
    /// Of these, the ones that a check found.
    pub found: u64,
    /// Transactions by which validators tried to help those who came with bytes after the commitments, and
    /// how many of them were taken.
    pub late: (u64, u64),
    /// Aggregates of miners beyond the honest contributions, with how far (millionths) at the most, in
    /// epochs in which liars had less than a third of the power.
    pub outside: (u64, u32),
    /// Aggregates judged.
    pub aggregates: u64,
}

/// Plays a setting from a seed.
///
/// # Errors
/// See [`Fault`].
pub fn play(setting: &Setting, seed: u64) -> Result<Yield, Fault> {
    let mut stage = Stage::new(setting)?;
    let mut rounds = Rounds::new(setting);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = Yield { shares: vec![0.0; setting.miners.len()], ..Yield::default() };
    let mut paid = 0u32;
    for number in 0..setting.epochs {
        for _ in 0..setting.rounds {
            rounds.step(setting, &mut stage, number, &mut rng)?;
        }
        let promised = lies_are_few(setting, &stage);
        stage.close(Vec::new())?;
        let record = epoch::record(stage.ledger.store(), number, CHALLENGE).map_err(Fault::new)?;
        let record = record.ok_or_else(|| Fault::new(format!("epoch {number} has no record")))?;
        paid += u32::from(pay(&stage, &record, &mut out));
        if promised {
            judge(setting, &stage, &record, &mut out);
        }
    }
    for share in &mut out.shares {
        *share /= f64::from(paid.max(1));
    }
    out.standing = standing(&stage)?;
    out.forged = rounds.forged.len() as u64;
    out.found = found(&stage, &rounds.forged)?;
    out.late = rounds.late;
    Ok(out)
}

/// Whether liars have less than a third of the power, so that the rules promise something.
fn lies_are_few(setting: &Setting, stage: &Stage) -> bool {
    let set = stage.ledger.validators();
    let liars = setting.validators.iter().zip(&stage.cast.hotkeys).filter(|(member, _)| member.lies());
    let power = liars.filter_map(|(_, hotkey)| set.by_hotkey(&hotkey.hotkey())).map(|v| u128::from(v.power));
    power.sum::<u128>() * 3 < u128::from(set.total())
}

/// Adds an epoch's shares; whether it paid anybody.
fn pay(stage: &Stage, record: &EpochRecord, out: &mut Yield) -> bool {
    let whole = perturb_challenge::shares::WHOLE as f64;
    for miner in &record.miners {
        if let Some(i) = stage.cast.miners.iter().position(|m| m.hotkey() == miner.hotkey) {
            out.shares[i] += miner.share as f64 / whole * 1e6;
        }
    }
    record.miners.iter().any(|miner| miner.share > 0)
}

/// Counts the aggregates of an epoch that lie outside its honest contributions.
fn judge(setting: &Setting, stage: &Stage, record: &EpochRecord, out: &mut Yield) {
    let members = setting.validators.iter().zip(&stage.cast.hotkeys);
    let honest: BTreeSet<Hotkey> =
        members.filter(|(member, _)| member.conduct == Conduct::Honest).map(|(_, hotkey)| hotkey.hotkey()).collect();
    for miner in record.miners.iter().filter(|miner| miner.kept.is_none()) {
        let Some(aggregate) = &miner.aggregate else { continue };
        let means = miner.contributions.iter().filter(|c| honest.contains(&c.validator)).map(|c| c.mean.0);
        let (Some(low), Some(high)) = (means.clone().min(), means.max()) else { continue };
        let beyond = low.saturating_sub(aggregate.score.0).max(aggregate.score.0.saturating_sub(high));
        out.aggregates += 1;
        if beyond > 0 {
            out.outside = (out.outside.0 + 1, out.outside.1.max(beyond));
        }
    }
}

fn standing(stage: &Stage) -> Result<Vec<u32>, Fault> {
    let of = |hotkey: Hotkey| query::reputation(stage.ledger.store(), &hotkey).map(|r| r.standing);
    stage.cast.hotkeys.iter().map(|hotkey| of(hotkey.hotkey()).map_err(Fault::new)).collect()
}

/// How many of these rounds stand in the state as failed checks.
fn found(stage: &Stage, forged: &BTreeSet<RoundId>) -> Result<u64, Fault> {
    use perturb_ledger::StateStore;
    use perturb_ledger::state::fault_key;
    let mut count = 0;
    for round in forged {
        count += u64::from(stage.ledger.store().value(&fault_key(round)).map_err(Fault::new)?.is_some());
    }
    Ok(count)
}
