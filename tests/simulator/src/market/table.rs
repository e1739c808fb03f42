//! The campaign over seeds, and the printed table of gains.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::scheme::{Played, Scheme};
use super::{Conduct, Fault, Setting, Yield, play};

/// What a strategy came to over some seeds.
#[derive(Clone, Debug)]
pub struct Gain {
    /// Its name.
    pub name: &'static str,
    /// What it costs.
    pub cost: &'static str,
    /// The schemers' part of the power, percent.
    pub power: f64,
    /// Their miners' share of the emission with everybody honest, percent, mean of the seeds.
    pub before: f64,
    /// Their share with the strategy.
    pub after: f64,
    /// Standard deviation of the gain over the seeds, percentage points.
    pub spread: f64,
    /// The bound on the gain.
    pub bound: f64,
    /// Rounds forged, and found.
    pub forged: (u64, u64),
    /// The least standing that an honest validator ended with, millionths.
    pub least_standing: u32,
    /// Transactions with bytes that came after the commitments, and taken.
    pub late: (u64, u64),
    /// Aggregates outside the honest contributions, and how far at most.
    pub outside: (u64, u32),
    /// Seeds.
    pub seeds: u64,
}

impl Gain {
    /// Percentage points of the emission above honesty.
    pub fn gain(&self) -> f64 {
        self.after - self.before
    }

    /// What of the rules it breaks.
    pub fn broken(&self) -> Vec<String> {
        let (gain, bound, standing) = (self.gain(), self.bound, self.least_standing);
        let (outside, far) = self.outside;
        let rules = [
            (gain > bound, format!("gains {gain:.2} points, its bound is {bound:.2}")),
            (standing < 1_000_000, format!("costs an honest validator standing: {standing}")),
            (outside > 0, format!("moves {outside} aggregates outside the honest contributions, by up to {far}")),
            (self.late.1 > 0, format!("gets {} transactions taken with bytes that came late", self.late.1)),
        ];
        rules.into_iter().filter(|(broken, _)| *broken).map(|(_, what)| format!("\"{}\" {what}", self.name)).collect()
    }
}

/// Honest markets that were played, each with its seed.
#[derive(Default)]
struct Honest(Mutex<Vec<(Setting, u64, Yield)>>);

impl Honest {
    /// What everybody's honesty comes to. Two threads may find out the same at once.
    fn play(&self, setting: &Setting, seed: u64) -> Result<Yield, Fault> {
        let known = |all: &Vec<(Setting, u64, Yield)>| {
            all.iter().find(|(of, number, _)| *number == seed && of == setting).map(|(_, _, got)| got.clone())
        };
        if let Some(got) = self.0.lock().ok().and_then(|all| known(&all)) {
            return Ok(got);
        }
        let got = play(setting, seed)?;
        if let Ok(mut all) = self.0.lock() {
            all.push((setting.clone(), seed, got.clone()));
        }
        Ok(got)
    }
}

/// Plays a strategy and honesty on the same seeds.
///
/// # Errors
/// A market that cannot be played.
pub fn measure(scheme: &Scheme, first: u64, seeds: u64) -> Result<Gain, Fault> {
    measure_beside(&Honest::default(), scheme, first, seeds)
}

fn measure_beside(honest: &Honest, scheme: &Scheme, first: u64, seeds: u64) -> Result<Gain, Fault> {
    let played = scheme.build();
    let (mut before, mut gains) = (0.0, Vec::new());
    let mut gain = Gain {
        name: scheme.name,
        cost: scheme.cost,
        power: played.power(),
        before: 0.0,
        after: 0.0,
        spread: 0.0,
        bound: scheme.bound,
        forged: (0, 0),
        late: (0, 0),
        least_standing: 1_000_000,
        outside: (0, 0),
        seeds,
    };
    for seed in first..first + seeds {
        let scheming = play(&played.scheming, seed)?;
        let base = theirs(&played, &honest.play(&played.honest, seed)?);
        before += base;
        gains.push(theirs(&played, &scheming) - base);
        note(&mut gain, &played.scheming, &scheming);
    }
    let n = seeds.max(1) as f64;
    let mean = gains.iter().sum::<f64>() / n;
    gain.before = before / n;
    gain.after = gain.before + mean;
    gain.spread = (gains.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / n).sqrt();
    Ok(gain)
}

/// Measures several strategies, each on a thread of its own while there are threads.
///
/// # Errors
/// The first market that cannot be played.
pub fn campaign(schemes: &[Scheme], first: u64, seeds: u64, threads: usize) -> Result<Vec<Gain>, Fault> {
    let (next, honest) = (AtomicUsize::new(0), Honest::default());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((i, scheme)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    schemes.get(i).map(|scheme| (i, scheme))
                } {
                    let gain = measure_beside(&honest, scheme, first, seeds);
                    if let Ok(mut done) = done.lock() {
                        done.insert(i, gain);
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default().into_values().collect()
}

/// The share of the schemers' miners, in percent; those that are not there have none.
fn theirs(played: &Played, got: &Yield) -> f64 {
    played.miners.iter().filter_map(|m| got.shares.get(*m)).sum::<f64>() / 10_000.0
}

fn note(gain: &mut Gain, setting: &Setting, got: &Yield) {
    gain.forged = (gain.forged.0 + got.forged, gain.forged.1 + got.found);
    gain.late = (gain.late.0 + got.late.0, gain.late.1 + got.late.1);
    gain.outside = (gain.outside.0 + got.outside.0, gain.outside.1.max(got.outside.1));
    let honest = setting.validators.iter().zip(&got.standing).filter(|(v, _)| v.conduct == Conduct::Honest);
    gain.least_standing = honest.map(|(_, s)| *s).min().unwrap_or(1_000_000).min(gain.least_standing);
}

/// The table, for people.
pub fn table(gains: &[Gain]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<50} {:>6} {:>8} {:>8} {:>16} {:>7} {:>13} {:>11}  costs",
        "strategy", "power", "honest", "with it", "gain (sd)", "bound", "forged/found", "late/taken"
    );
    let of = |(all, some): (u64, u64)| if all == 0 { "-".to_owned() } else { format!("{all}/{some}") };
    for g in gains {
        let change = format!("{:+.2} ({:.2})", g.gain(), g.spread);
        let _ = writeln!(
            out,
            "{:<50} {:>5.0}% {:>7.2}% {:>7.2}% {:>16} {:>7.2} {:>13} {:>11}  {}",
            g.name,
            g.power,
            g.before,
            g.after,
            change,
            g.bound,
            of(g.forged),
            of(g.late),
            g.cost
        );
    }
    if let Some(seeds) = gains.first().map(|g| g.seeds) {
        let _ = writeln!(out, "percent of the emission, means of {seeds} seeds");
    }
    out
}
