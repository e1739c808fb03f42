//! APGD: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
//! parameter-free attacks", ICML 2020, Algorithm 1, in the L∞ ball S of radius ε. Per image:
//!
//! ```text
//! z     = P_S(x⁽ᵏ⁾ + η · sign ∇f(x⁽ᵏ⁾))                                      lines 7 and 8
//! x⁽ᵏ⁺¹⁾ = P_S(x⁽ᵏ⁾ + α (z − x⁽ᵏ⁾) + (1 − α)(x⁽ᵏ⁾ − x⁽ᵏ⁻¹⁾))    α = 0.75; 1 in the first step
//! at a checkpoint w: η ← η/2 and x ← x_max where                             lines 13 to 16
//!   1. fewer than ρ = 0.75 of the steps since the last checkpoint raised f, or
//!   2. η was not halved at the last checkpoint and f_max has not risen since
//! ```
//!
//! η starts at 2ε. Checkpoints as in the authors' code: the first after ⌊0.22·N⌋ steps, each interval
//! ⌊0.03·N⌋ shorter than the one before but at least ⌊0.06·N⌋. N = 100 steps, one random
//! start, uniform in the ball (the authors' code also scales it until it touches the ball's surface).
//!
//! f is cross-entropy or DLR, or with [`Aim::Targeted`] targeted DLR towards each of the nine best
//! other classes of the clean image in turn (section 5 of the paper). Every iterate that flips is
//! offered rounded; an image whose candidate is accepted is done.

use perturb_challenge::pixels::Pixels;

use super::float::{at_each_radius, clip, random_start, sign, stream};
use super::{Attack, Context, MAX_STEPS, Options};
use crate::loss::{Loss, others};
use crate::model::{Levels, ModelError, Pulled};

/// Target classes of the targeted version.
pub const TARGETS: usize = 9;

/// Share of the last step in the next one is 1 − this.
const ALPHA: f32 = 0.75;

/// ρ: share of steps that must rise.
const RHO: f32 = 0.75;

/// What is climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// One loss.
    Untargeted(Loss),
    /// Targeted DLR towards the best other classes.
    Targeted,
}

/// Automatic PGD.
#[derive(Clone, Copy, Debug)]
pub struct Apgd {
    /// The loss.
    pub aim: Aim,
    /// ε in levels; all levels that count, one after the other, where it is not given.
    pub epsilon: Option<f32>,
    /// N: steps of one start.
    pub steps: u32,
    /// Starts for each loss.
    pub restarts: u32,
}

/// One image under way.
struct Climber {
    task: usize,
    loss: Loss,
    x: Levels,
    previous: Vec<f32>,
    gradient: Vec<f32>,
    step: f32,
    /// f at the start and after each step.
    values: Vec<f32>,
    best: f32,
    best_x: Vec<f32>,
    best_gradient: Vec<f32>,
    best_at_check: f32,
    halved_at_check: bool,
}

impl Climber {
    fn new(task: usize, loss: Loss, x: Levels, epsilon: f32) -> Self {
        let previous = x.rgb.clone();
        Self {
            task,
            loss,
            best_x: previous.clone(),
            previous,
            x,
            gradient: Vec::new(),
            step: 2.0 * epsilon,
            values: Vec::new(),
            best: f32::NEG_INFINITY,
            best_gradient: Vec::new(),
            best_at_check: f32::NEG_INFINITY,
            halved_at_check: true,
        }
    }

    /// Takes in the loss and the gradient at `x`.
    fn see(&mut self, pulled: Pulled) {
        if self.values.is_empty() {
            self.best_at_check = pulled.value;
        }
        self.values.push(pulled.value);
        self.gradient = pulled.gradient;
        if pulled.value > self.best {
            self.best = pulled.value;
            self.best_x.clone_from(&self.x.rgb);
            self.best_gradient.clone_from(&self.gradient);
        }
    }

    /// Lines 7 and 8.
    fn go(&mut self, clean: &Pixels, epsilon: f32) {
        let alpha = if self.values.len() > 1 { ALPHA } else { 1.0 };
        let values = self.x.rgb.iter_mut().zip(&mut self.previous).zip(&self.gradient).zip(&clean.rgb);
        for (((x, previous), g), c) in values {
            let momentum = *x - *previous;
            *previous = *x;
            let z = clip(*x + self.step * sign(*g), *c, epsilon);
            *x = clip(*x + (z - *x) * alpha + momentum * (1.0 - alpha), *c, epsilon);
        }
    }

    /// Lines 13 to 16, `interval` steps after the last checkpoint.
    fn check(&mut self, interval: usize) {
        let since = &self.values[self.values.len().saturating_sub(interval + 1)..];
        let rises = since.windows(2).filter(|w| w[1] > w[0]).count();
        let oscillates = rises as f32 <= RHO * interval as f32;
        let stuck = !self.halved_at_check && self.best_at_check >= self.best;
        self.halved_at_check = oscillates || stuck;
        self.best_at_check = self.best;
        if self.halved_at_check {
            self.step /= 2.0;
            self.x.rgb.clone_from(&self.best_x);
            self.gradient.clone_from(&self.best_gradient);
        }
    }
}

impl Apgd {
    /// With these options.
    #[must_use]
    pub fn new(aim: Aim, options: &Options) -> Self {
        Self {
            aim,
            epsilon: options.epsilon,
            steps: options.steps.unwrap_or(100).min(MAX_STEPS),
            restarts: options.restarts.unwrap_or(1).clamp(1, MAX_STEPS),
        }
    }

    /// One start on every image in `aims`; `start` numbers the starts of one search.
    fn climb(
        &self,
        context: &mut Context<'_>,
        epsilon: f32,
        aims: Vec<(usize, Loss)>,
        start: u32,
    ) -> Result<(), ModelError> {
        let mut climbers: Vec<Climber> = aims
            .into_iter()
            .map(|(task, loss)| {
                let x = random_start(context.task(task).clean, epsilon, &mut stream(context, task, start));
                Climber::new(task, loss, x, epsilon)
            })
            .collect();
        let steps = self.steps as usize;
        let (shortest, shorter) = ((steps * 6 / 100).max(1), (steps * 3 / 100).max(1));
        let mut interval = (steps * 22 / 100).max(1);
        let mut since = 0;
        for n in 0..=steps {
            if climbers.is_empty() {
                break;
            }
            let asks: Vec<_> = climbers.iter().map(|c| (c.task, &c.x, c.loss)).collect();
            let seen = context.gradient(&asks)?;
            let flips: Vec<(usize, &Levels)> = climbers
                .iter()
                .zip(&seen)
                .filter(|(c, (logits, _))| context.flipped(c.task, logits))
                .map(|(c, _)| (c.task, &c.x))
                .collect();
            context.offer_rounded(&flips)?;
            for (c, (_, pulled)) in climbers.iter_mut().zip(seen) {
                c.see(pulled);
            }
            climbers.retain(|c| context.best(c.task).is_none());
            if n > 0 {
                since += 1;
                if since == interval {
                    climbers.iter_mut().for_each(|c| c.check(interval));
                    interval = interval.saturating_sub(shorter).max(shortest);
                    since = 0;
                }
            }
            for c in &mut climbers {
                c.go(context.task(c.task).clean, epsilon);
            }
        }
        Ok(())
    }

    /// The losses for each open image, one list for each start.
    fn aims(&self, context: &mut Context<'_>, open: &[usize]) -> Result<Vec<Vec<(usize, Loss)>>, ModelError> {
        let targets = match self.aim {
            Aim::Untargeted(loss) => return Ok(vec![open.iter().map(|&i| (i, loss)).collect()]),
            Aim::Targeted => targets(context, open)?,
        };
        let most = targets.iter().map(|(_, t)| t.len()).max().unwrap_or(0);
        let of_rank = |rank: usize| {
            let towards = |(i, t): &(usize, Vec<u16>)| t.get(rank).map(|&target| (*i, Loss::TargetedDlr { target }));
            targets.iter().filter_map(towards).collect()
        };
        Ok((0..most).map(of_rank).collect())
    }
}

/// The best other classes of each clean image, at most [`TARGETS`].
pub(super) fn targets(context: &mut Context<'_>, tasks: &[usize]) -> Result<Vec<(usize, Vec<u16>)>, ModelError> {
    let clean: Vec<Levels> = tasks.iter().map(|&i| Levels::from(context.task(i).clean)).collect();
    let logits = context.float_logits(&clean.iter().collect::<Vec<_>>())?;
    Ok(tasks
        .iter()
        .zip(logits)
        .map(|(&i, z)| {
            let mut best = others(&z, context.task(i).label);
            best.truncate(TARGETS);
            (i, best)
        })
        .collect())
}

impl Attack for Apgd {
    fn name(&self) -> &'static str {
        match self.aim {
            Aim::Untargeted(Loss::CrossEntropy) => "apgd-ce",
            Aim::Untargeted(_) => "apgd-dlr",
            Aim::Targeted => "apgd-t",
        }
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        at_each_radius(context, self.epsilon, |context, epsilon, open| {
            let mut start = 0;
            for mut aims in self.aims(context, open)? {
                for _ in 0..self.restarts {
                    aims.retain(|(i, _)| context.best(*i).is_none());
                    self.climb(context, epsilon, aims.clone(), start)?;
                    start += 1;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn climber(values: &[f32]) -> Climber {
        let x = Levels { width: 1, height: 1, rgb: vec![1.0; 3] };
        let mut c = Climber::new(0, Loss::Margin, x, 4.0);
        for (i, value) in values.iter().enumerate() {
            c.x.rgb = vec![i as f32; 3];
            c.see(Pulled { value: *value, gradient: vec![*value; 3] });
        }
        c
    }

    #[test]
    fn a_climb_that_rises_keeps_its_step_and_one_that_oscillates_goes_back_with_half_of_it() {
        let mut rising = climber(&[0.0, 1.0, 2.0, 3.0, 4.0]);
        rising.check(4);
        assert_eq!(rising.step, 8.0);
        let mut swinging = climber(&[0.0, 5.0, 2.0, 4.0, 1.0]);
        swinging.check(4);
        assert_eq!((swinging.step, swinging.x.rgb[0], swinging.gradient[0]), (4.0, 1.0, 5.0));
    }

    #[test]
    fn the_second_rule_halves_where_nothing_improved_unless_the_step_was_halved_just_before() {
        // Three of three steps rise, so the first rule is content, but the maximum is an older one.
        let mut c = climber(&[9.0, 1.0, 2.0, 3.0, 4.0]);
        c.halved_at_check = false;
        c.check(3);
        assert_eq!(c.step, 4.0);
        let mut again = climber(&[9.0, 1.0, 2.0, 3.0, 4.0]);
        again.check(3);
        assert_eq!(again.step, 8.0);
    }
}
