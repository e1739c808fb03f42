//! How many forged rounds are found: at least as many as are to be checked.
//!
//! Three of ten equal validators run nothing but forged rounds, as many as the ledger takes, and say of
//! each other's that they hold. Every fourth batch is closed by the very block that closes an epoch. The
//! ledger draws, weighs the verdicts and strikes; what a node would find by fetching and measuring
//! images is known here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use perturb_challenge::used::Used;
use perturb_ledger::images::Pass;
use perturb_ledger::state::fault_key;
use perturb_ledger::verdict::{Checked, Finding};
use perturb_ledger::{StateStore, Transaction, query};
use perturb_types::{Digest, RoundId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::miner::{Asked, Given, Image, Miner};
use super::round::Round;
use super::rounds::{draw, verdicts_on};
use super::stage::{Stage, WINDOW_BLOCKS};
use super::validator::perfect;
use super::{Fault, Setting};
use crate::cast::CHALLENGE;

/// Forgers of the ten validators.
const FORGERS: usize = 3;

/// The forgers' miner.
const THEIRS: usize = 1;

/// Rounds of each forger in a batch.
const AT_ONCE: u64 = 64;

/// One batch in so many is closed together with its epoch.
const BATCHES: usize = 4;

/// What is wrong with forged rounds, in turns, and what a member finds.
const KINDS: [(&str, Finding); 6] = [
    ("invented measurements", Finding::Measurement),
    ("failures stated of good answers", Finding::Stated),
    ("the image cannot be had", Finding::ImageMissing),
    ("an answer cannot be had", Finding::AnswerMissing),
    ("another image than the source's", Finding::ImageWrong),
    ("labels that the model does not give", Finding::Label),
];

/// Forged rounds of one kind, and how many of them their validators were struck for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Rounds.
    pub forged: u64,
    /// Of these, found.
    pub found: u64,
}

impl Count {
    /// Wilson's interval for the chance to be found, with 95 % confidence.
    pub fn interval(&self) -> (f64, f64) {
        const Z: f64 = 1.959_963_984_540_054;
        if self.forged == 0 {
            return (0.0, 1.0);
        }
        let (n, share) = (self.forged as f64, self.found as f64 / self.forged as f64);
        let scale = 1.0 + Z * Z / n;
        let middle = (share + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }

    fn add(&mut self, found: bool) {
        self.forged += 1;
        self.found += u64::from(found);
    }
}

/// What a play of forged rounds came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of a million rounds, how many are to be checked.
    pub rate: u32,
    /// All of them.
    pub all: Count,
    /// By what is wrong with them.
    pub kinds: Vec<(&'static str, Count)>,
    /// Those that the block closed which closed their epoch.
    pub at_close: Count,
    /// Rounds that pulses drew.
    pub drawn: u64,
    /// Rounds that pulses spared.
    pub spared: u64,
}

impl Report {
    /// What does not hold, if anything: the configured chance lies within the confidence bound or below,
    /// whatever is drawn is found, and no round escapes the pulses.
    pub fn broken(&self) -> Option<String> {
        let (rate, (_, most)) = (f64::from(self.rate) / 1e6, self.all.interval());
        if rate > most {
            return Some(format!(
                "{} of {} forged rounds are found: less than {rate}",
                self.all.found, self.all.forged
            ));
        }
        if self.drawn != self.all.found {
            return Some(format!("{} forged rounds are drawn, {} found", self.drawn, self.all.found));
        }
        if self.drawn + self.spared != self.all.forged {
            return Some(format!("{} drawn and {} spared of {}", self.drawn, self.spared, self.all.forged));
        }
        None
    }

    /// The figures, for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let drawn = f64::from(self.rate) / 1e4;
        let _ = writeln!(out, "{:<50} {:>7} {:>6} {:>8}  95 % confidence", "forged rounds", "forged", "found", "share");
        let all = [("all of them", self.all), ("in the block that closes their epoch", self.at_close)];
        for (what, count) in all.iter().chain(&self.kinds) {
            let (low, high) = count.interval();
            let share = count.found as f64 / count.forged.max(1) as f64 * 100.0;
            let (forged, found) = (count.forged, count.found);
            let bounds = format!("{:.2} to {:.2} %", low * 100.0, high * 100.0);
            let _ = writeln!(out, "{what:<50} {forged:>7} {found:>6} {share:>7.2}%  {bounds}");
        }
        let _ = writeln!(out, "{drawn:.2} % of all rounds are to be checked; {} of these were drawn", self.drawn);
        out
    }
}

struct Forged {
    round: RoundId,
    kind: usize,
    at_close: bool,
}

/// Plays so many forged rounds from a seed.
///
/// # Errors
/// See [`Fault`].
pub fn play(rounds: u64, seed: u64) -> Result<Report, Fault> {
    let mut setting = Setting::usual();
    setting.miners = (0..2).map(Miner::of_rank).collect();
    setting.min_work = 0;
    let mut stage = Stage::new(&setting)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut forged: Vec<Forged> = Vec::new();
    let first = Pass::new(Used::new(stage.cast.genesis.challenges[0].source_len), BTreeMap::new());
    let mut passes = vec![first; FORGERS];
    for batch in 1.. {
        let left = rounds.saturating_sub(forged.len() as u64).min(FORGERS as u64 * AT_ONCE);
        if left == 0 {
            break;
        }
        let at_close = batch % BATCHES == 0;
        let first = forged.len() as u64;
        let batch = (first..first + left).map(|number| forge(&stage, number, &mut passes, &mut rng));
        let batch: Vec<Round> = batch.collect::<Result<_, _>>()?;
        forged.extend(batch.iter().zip(first..).map(|(round, number)| Forged {
            round: round.asked.round,
            kind: kind(number),
            at_close,
        }));
        run(&mut stage, &batch, at_close)?;
        check(&mut stage, &forged)?;
    }
    (0..=WINDOW_BLOCKS).try_for_each(|_| stage.block(Vec::new()))?;
    report(&stage, setting.check_rate, &forged)
}

fn kind(number: u64) -> usize {
    // Forgers take turns, and each goes through all kinds.
    (number / FORGERS as u64) as usize % KINDS.len()
}

fn forge(stage: &Stage, number: u64, passes: &mut [Pass], rng: &mut ChaCha8Rng) -> Result<Round, Fault> {
    let (validator, seq) = ((number % FORGERS as u64) as usize, number / FORGERS as u64);
    let round = RoundId { validator: stage.cast.hotkeys[validator].hotkey(), challenge: CHALLENGE, seq };
    let image = Image { digest: Digest(rng.random()), difficulty: 1000 };
    let deadline_ms = stage.cast.genesis.challenges[0].rules.deadline_ms;
    let (epoch, members) = (stage.ledger.head().epoch, stage.cast.hotkeys.len());
    let asked = Asked { round, image, validator, epoch, members, deadline_ms };
    let seen = match KINDS[kind(number)].1 {
        Finding::Stated => (0..stage.cast.miners.len())
            .map(|miner| Some(Given { decodes: false, ..Given::of(miner, &round, 60, 1500) }))
            .collect(),
        _ => vec![None, perfect(&round, THEIRS)],
    };
    Round::new(stage, asked, seen, passes.get_mut(validator)).ok_or_else(|| Fault::new("a forger has no round key"))
}

/// Opens and closes a batch, one round of a forger after the other in one block, and draws among it.
fn run(stage: &mut Stage, batch: &[Round], at_close: bool) -> Result<(), Fault> {
    let whole = |round: &Round| {
        [Some(round.opening()), round.commits(&stage.cast), Some(round.result(&stage.cast))].into_iter().flatten()
    };
    let rounds: Vec<Transaction> = batch.iter().flat_map(whole).collect();
    if at_close { stage.close(rounds) } else { stage.block(rounds) }?;
    stage.block(Vec::new())?;
    draw(stage)
}

/// The verdicts on what was drawn: forgers say that it holds, everybody else what is wrong.
fn check(stage: &mut Stage, forged: &[Forged]) -> Result<(), Fault> {
    let mut verdicts = Vec::new();
    for (round, row) in query::checks(stage.ledger.store()).map_err(Fault::new)? {
        let Some(of) = forged.iter().rev().find(|f| f.round == round && row.verdicts.is_empty()) else { continue };
        let fails = Checked::Fails(KINDS[of.kind].1);
        let says = |member| Some(if member < FORGERS { Checked::Holds } else { fails });
        verdicts.extend(verdicts_on(stage, &round, row.fresh.result, says));
    }
    stage.block(verdicts)
}

fn report(stage: &Stage, rate: u32, forged: &[Forged]) -> Result<Report, Fault> {
    let store = stage.ledger.store();
    let mut kinds: Vec<(&str, Count)> = KINDS.iter().map(|(what, _)| (*what, Count::default())).collect();
    let (mut all, mut at_close) = (Count::default(), Count::default());
    for f in forged {
        let found = store.value(&fault_key(&f.round)).map_err(Fault::new)?.is_some();
        all.add(found);
        kinds[f.kind].1.add(found);
        if f.at_close {
            at_close.add(found);
        }
    }
    let draws = query::draws(store).map_err(Fault::new)?;
    Ok(Report { rate, all, kinds, at_close, drawn: draws.drawn, spared: draws.spared })
}
