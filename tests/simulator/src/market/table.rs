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

    /// What of the rules it breaks, if anything.
    pub fn broken(&self) -> Option<String> {
        if self.gain() > self.bound {
            return Some(format!("\"{}\" gains {:.2} points, its bound is {:.2}", self.name, self.gain(), self.bound));
        }
        if self.least_standing < 1_000_000 {
            return Some(format!("\"{}\" costs an honest validator standing: {}", self.name, self.least_standing));
        }
        if self.outside.0 > 0 {
            let (count, far) = self.outside;
            return Some(format!(
                "\"{}\" moves {count} aggregates outside the honest contributions, by up to {far}",
                self.name
            ));
        }
        None
    }
}

/// Plays a strategy and honesty on the same seeds.
///
/// # Errors
/// A market that cannot be played.
pub fn measure(scheme: &Scheme, first: u64, seeds: u64) -> Result<Gain, Fault> {
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
        least_standing: 1_000_000,
        outside: (0, 0),
        seeds,
    };
    for seed in first..first + seeds {
        let honest = play(&played.honest, seed)?;
        let scheming = play(&played.scheming, seed)?;
        let base = theirs(&played, &honest);
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
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((i, scheme)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    schemes.get(i).map(|scheme| (i, scheme))
                } {
                    let gain = measure(scheme, first, seeds);
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
    gain.outside = (gain.outside.0 + got.outside.0, gain.outside.1.max(got.outside.1));
    let honest = setting.validators.iter().zip(&got.standing).filter(|(v, _)| v.conduct == Conduct::Honest);
    gain.least_standing = honest.map(|(_, s)| *s).min().unwrap_or(1_000_000).min(gain.least_standing);
}

/// The table, for people.
pub fn table(gains: &[Gain]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<50} {:>6} {:>8} {:>8} {:>16} {:>7} {:>13}  costs",
        "strategy", "power", "honest", "with it", "gain (sd)", "bound", "forged/found"
    );
    for g in gains {
        let forged = if g.forged.0 == 0 { "-".to_owned() } else { format!("{}/{}", g.forged.0, g.forged.1) };
        let change = format!("{:+.2} ({:.2})", g.gain(), g.spread);
        let _ = writeln!(
            out,
            "{:<50} {:>5.0}% {:>7.2}% {:>7.2}% {:>16} {:>7.2} {:>13}  {}",
            g.name, g.power, g.before, g.after, change, g.bound, forged, g.cost
        );
    }
    if let Some(seeds) = gains.first().map(|g| g.seeds) {
        let _ = writeln!(out, "percent of the emission, means of {seeds} seeds");
    }
    out
}
