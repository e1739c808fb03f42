//! An attack, or what a library has, played against one image that came.

use std::time::Duration;

use perturb_challenge::measure::measure;
use perturb_challenge::pixels::Pixels;
use perturb_challenge::rules::{Rules, score};
use perturb_miner::attack::{self, Attack, Context, Task, ours::Ours};
use perturb_miner::criterion::RuleCriterion;
use perturb_miner::loss::Loss;
use perturb_miner::metered::Metered;
use perturb_miner::model::{Levels, Model, ModelError};
use perturb_types::Measurement;

use crate::library::{Came, Change};
use crate::machine::{Machine, NIGHT, Timed, now};
use crate::shrink::Cuts;

/// After each gradient of a climb from a kept change, how much may still be missing, as a share of the level.
const HOPE: [f32; 8] = [1.9, 1.3, 0.75, 0.55, 0.45, 0.36, 0.3, 0.25];
/// A pass that takes less than this, milliseconds, is cheap.
const CHEAP_MS: f64 = 2.0;
/// Passes an attack may spend: the deadline binds before.
const PASSES: u64 = 1_000_000;
/// Milliseconds before the deadline at which a search ends.
const MARGIN_MS: u32 = 150;

/// What an answer came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// The score, 0 to 1.
    pub score: f64,
    /// The level, 0 without a flip.
    pub level: u8,
    /// Share of the values that were changed.
    pub changed: f64,
    /// Virtual milliseconds.
    pub ms: f64,
    /// Passes, a backward pass counting as two.
    pub passes: f64,
}

/// Runs an attack on the clock of `machine`; the outcome and the answer.
pub fn attack(
    model: &mut dyn Model,
    machine: Machine,
    rules: &Rules,
    came: &Came,
    attack: &dyn Attack,
) -> Result<(Outcome, Option<Pixels>), ModelError> {
    let started = now();
    let deadline = started + Duration::from_millis(u64::from(rules.deadline_ms.saturating_sub(MARGIN_MS)));
    let criterion = RuleCriterion::new(rules.clone());
    let mut metered = Metered::new(Timed { model, machine }, PASSES, Some(deadline)).with_clock(now);
    let task = Task { clean: &came.pixels, label: came.label, salt: 1 };
    let context = Context::new(&mut metered, &criterion, vec![task]).since(started, now);
    let found = attack::run(attack, context)?.pop().flatten();
    let spent = metered.spent();
    let ms = (now() - started).as_secs_f64() * 1e3;
    let outcome = Outcome { ms, passes: (spent.forwards + 2 * spent.backwards) as f64, ..Outcome::default() };
    let Some(found) = found else { return Ok((outcome, None)) };
    let m = found.measurement;
    let outcome = Outcome {
        score: f64::from(score(rules, &m, rules.bucket(ms.ceil() as u32)).0) / 1e6,
        level: m.level,
        changed: f64::from(m.changed) / f64::from(m.channels.max(1)),
        ..outcome
    };
    Ok((outcome, Some(found.image)))
}

/// Hands in an image in the first moment, whether or not it flips.
pub fn blind(model: &mut dyn Model, rules: &Rules, came: &Came, image: Pixels) -> Result<Outcome, ModelError> {
    let sent = Sent(image);
    attack(model, NIGHT, rules, came, &sent).map(|(outcome, _)| outcome)
}

/// One image, and that is all.
struct Sent(Pixels);

impl Attack for Sent {
    fn name(&self) -> &'static str {
        "sent"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        context.offer(vec![(0, self.0.clone())]).map(|_| ())
    }
}

/// Goes on from what is kept: the first of it is tried in one batch; a miss is climbed on from at the lowest of its
/// levels; a flip is pruned as our own attack does it, for as long as that is worth its time. Where nothing flips, or
/// where passes are so cheap that it costs next to nothing, our own attack is run afresh in the time that is left.
pub struct Warm<'l> {
    /// The image that came.
    pub came: &'l Came,
    /// Kept changes, and the share of their values that is tried.
    pub first: Vec<(&'l Change, usize)>,
}

impl Warm<'_> {
    /// Sign steps at one level, along `slope` and what is seen on the way; given up where our own attack would.
    fn climb(&self, context: &mut Context<'_>, from: &Pixels, slope: &mut [f32], level: i16) -> Result<(), ModelError> {
        let clean = &self.came.pixels;
        let mut at = from.clone();
        let mut missing = f32::INFINITY;
        for hope in HOPE {
            let levels = Levels::from(&at);
            let Some((logits, pulled)) = context.gradient(&[(0, &levels, Loss::Margin)])?.pop() else { return Ok(()) };
            blend(slope, &pulled.gradient, 0.3);
            missing = missing.min(-pulled.value / pulled.gradient.iter().map(|g| g.abs()).sum::<f32>().max(1e-12));
            if context.judge_known(0, &at, &logits).worth.is_some() || missing > hope * f32::from(level) {
                return Ok(());
            }
            at = applied(clean, &steep(slope, level));
        }
        Ok(())
    }

    /// Fewer values: the flip in hand without those that help least, and the steepest alone.
    fn prune(&self, context: &mut Context<'_>, slope: &mut [f32]) -> Result<(), ModelError> {
        let clean = &self.came.pixels;
        let (mut cuts, mut round_ms, mut looked) = (Cuts::default(), 0.0, None);
        loop {
            let Some(best) = context.best(0).cloned() else { return Ok(()) };
            let (m, began) = (best.measurement, context.elapsed_ms());
            let hoped = Measurement { sum_squares: (m.sum_squares as f64 * (1.0 - cuts.hoped())) as u64, ..m };
            let value = |m: &Measurement, ms: f64| context.criterion().value(m, ms.ceil() as u32);
            if value(&hoped, began + round_ms) <= value(&m, began) {
                return Ok(());
            }
            if looked.is_none_or(|level| level != m.level) {
                let levels = Levels::from(&best.image);
                if let Some((_, pulled)) = context.gradient(&[(0, &levels, Loss::Margin)])?.pop() {
                    blend(slope, &pulled.gradient, 0.5);
                }
                looked = Some(m.level);
            }
            let offered = context.elapsed_ms();
            let by: Vec<i16> =
                best.image.rgb.iter().zip(&clean.rgb).map(|(a, c)| i16::from(*a) - i16::from(*c)).collect();
            let targets = cuts.targets(m.sum_squares);
            let shorter = [parts(&by, slope, &targets), parts(&steep(slope, m.level.into()), slope, &targets)];
            context.offer(shorter.iter().flatten().map(|by| (0, applied(clean, by))).collect())?;
            round_ms = context.elapsed_ms() - offered;
            let after = context.best(0).map_or(0, |b| b.measurement.sum_squares);
            if !cuts.learn(m.sum_squares, after) {
                return Ok(());
            }
        }
    }
}

/// `into` with a share of `from`, each at the scale of its sum.
fn blend(into: &mut [f32], from: &[f32], share: f32) {
    let unit = |v: &[f32]| 1.0 / v.iter().map(|x| x.abs()).sum::<f32>().max(1e-12);
    let (a, b) = ((1.0 - share) * unit(into), share * unit(from));
    into.iter_mut().zip(from).for_each(|(x, y)| *x = *x * a + y * b);
}

/// Every value as far up the slope as a level allows.
fn steep(slope: &[f32], level: i16) -> Vec<i16> {
    slope.iter().map(|s| if *s == 0.0 { 0 } else { level * s.signum() as i16 }).collect()
}

fn applied(clean: &Pixels, by: &[i16]) -> Pixels {
    let mut image = clean.clone();
    image.rgb.iter_mut().zip(by).for_each(|(x, by)| *x = (i16::from(*x) + by).clamp(0, 255) as u8);
    image
}

/// The levels of `by` that help most for their squares, within each of `targets` squares.
fn parts(by: &[i16], slope: &[f32], targets: &[u64]) -> Vec<Vec<i16>> {
    let helps = |i: usize| slope[i] * f32::from(by[i].signum());
    let mut steps: Vec<(f32, usize)> = (0..by.len())
        .flat_map(|i| (1..=by[i].unsigned_abs()).map(move |u| (i, u)))
        .map(|(i, u)| (helps(i) / f32::from(2 * u - 1), i))
        .collect();
    steps.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let part = |target: &u64| {
        let (mut out, mut squares) = (vec![0_i16; by.len()], 0);
        for &(_, i) in &steps {
            squares += 2 * u64::from(out[i].unsigned_abs()) + 1;
            if squares > *target {
                break;
            }
            out[i] += by[i].signum();
        }
        out
    };
    targets.iter().map(part).collect()
}

impl Attack for Warm<'_> {
    fn name(&self) -> &'static str {
        "warm"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let images: Vec<Pixels> = self.first.iter().map(|(change, share)| change.on(self.came, *share)).collect();
        let level = |image: &Pixels| measure(&self.came.pixels, image).map_or(0, |m| m.level);
        let Some(lowest) = images.iter().map(level).filter(|l| *l > 0).min() else {
            return Ours::default().search(context);
        };
        let trials = context.offer(images.iter().map(|image| (0, image.clone())).collect())?;
        let is_cheap = context.elapsed_ms() < CHEAP_MS * images.len() as f64;
        // What is nearest to a flip at the lowest level, or the sparsest there.
        let near = self.first.iter().zip(&images).zip(&trials).filter(|((_, image), _)| level(image) == lowest);
        let Some((((change, _), image), _)) = near.max_by_key(|(_, t)| (t.worth, t.lead)) else { return Ok(()) };
        let mut slope: Vec<f32> = self.came.origins.iter().map(|at| change.slope[*at]).collect();
        let is_low = |c: &Context<'_>| c.best(0).is_some_and(|b| b.measurement.level <= lowest);
        if !is_low(context) {
            self.climb(context, image, &mut slope, i16::from(lowest))?;
        }
        if context.best(0).is_none() || is_cheap && !is_low(context) {
            Ours::default().search(context)
        } else {
            self.prune(context, &mut slope)
        }
    }
}

/// The same without a library, from the slope at the clean image: what of a gain is not the library's.
pub struct Alike<'l> {
    /// The image that came.
    pub came: &'l Came,
    /// Channel values of the public image.
    pub values: usize,
}

impl Attack for Alike<'_> {
    fn name(&self) -> &'static str {
        "alike"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let clean = Levels::from(&self.came.pixels);
        let Some((_, pulled)) = context.gradient(&[(0, &clean, Loss::Margin)])?.pop() else { return Ok(()) };
        let mut slope = vec![0.0; self.values];
        self.came.origins.iter().zip(pulled.gradient).for_each(|(at, g)| slope[*at] = g);
        let changes = [1, 2, 3].map(|level| Change { levels: steep(&slope, level), slope: slope.clone() });
        let first =
            [(0, 1000), (0, 200), (0, 25), (1, 1000), (2, 1000)].map(|(change, share)| (&changes[change], share));
        Warm { came: self.came, first: first.to_vec() }.search(context)
    }
}
