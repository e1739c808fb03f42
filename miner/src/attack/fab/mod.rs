//! FAB: Croce and Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary
//! Attack", ICML 2020, Algorithm 1 for p = ∞. With π the plane where the nearest class is level with
//! the label in the linearisation at x⁽ⁱ⁾:
//!
//! ```text
//! s    = argmin |f_l − f_c| / ‖∇f_l − ∇f_c‖₁                                  eq. 6, line 6
//! δ⁽ⁱ⁾  = proj(x⁽ⁱ⁾, π, box),   δ_org = proj(x_org, π, box)                    line 7
//! α    = min(‖δ⁽ⁱ⁾‖ / (‖δ⁽ⁱ⁾‖ + ‖δ_org‖), α_max)                               eq. 9, line 8
//! x⁽ⁱ⁺¹⁾ = box((1 − α)(x⁽ⁱ⁾ + η δ⁽ⁱ⁾) + α (x_org + η δ_org))                   eq. 10, line 9
//! where it flips: keep the smallest; x ← (1 − β) x_org + β x                    lines 10 to 16
//! ```
//!
//! α_max = 0.1, η = 1.05, β = 0.9, 100 iterations, one start at the clean image. The targeted version
//! (FAB-T, section B.3 of the AutoAttack paper) linearises towards one class, each of the nine best
//! others of the clean image in turn. Every new smallest flip is offered rounded.

mod projection;

use perturb_challenge::pixels::Pixels;
use rand::Rng;

use super::apgd::targets;
use super::float::{linf, stream};
use super::{Ask, Attack, Context, MAX_STEPS, Options};
use crate::loss::Loss;
use crate::model::{Levels, ModelError, Pulled};
use projection::project;

/// α_max.
const ALPHA_MAX: f32 = 0.1;

/// η: overshoot of both projections.
const OVERSHOOT: f32 = 1.05;

/// β: how far a flip goes back towards the clean image.
const BACKWARD: f32 = 0.9;

/// Below this a projection counts as none, levels: 10⁻⁸ of the pixel range as in the authors' code.
const LEAST: f32 = 255.0 * 1e-8;

/// Radius of random starts where no ε is given, levels.
const START_RADIUS: f32 = 8.0;

/// Fast adaptive boundary.
#[derive(Clone, Copy, Debug)]
pub struct Fab {
    /// Towards one class at a time.
    pub targeted: bool,
    /// With it, an image that flipped within the rules is left out of the further targets and starts.
    pub epsilon: Option<f32>,
    /// Iterations of one start.
    pub steps: u32,
    /// Starts; the first at the clean image, the others at random.
    pub restarts: u32,
}

/// One image under way.
struct Walker {
    task: usize,
    losses: Vec<Loss>,
    x: Levels,
    /// The smallest flip's L∞, levels.
    best: f32,
}

/// Lines 6 to 9.
fn step(clean: &Pixels, origin: &[f32], x: &mut Levels, pulled: &[Pulled]) {
    let l1 = |p: &Pulled| p.gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>() + 1e-12;
    let distance = |p: &Pulled| f64::from(p.value.abs()) / l1(p);
    let Some(plane) = pulled.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))) else { return };
    let w = &plane.gradient;
    // f(x⁽ⁱ⁾) + w·(x − x⁽ⁱ⁾) = 0, as what is missing at x⁽ⁱ⁾ and at the clean image.
    let at_x = -f64::from(plane.value);
    let moved: f64 = w.iter().zip(&x.rgb).zip(origin).map(|((w, x), o)| f64::from(*w) * f64::from(x - o)).sum();
    let (here, there) = (project(&x.rgb, w, at_x), project(origin, w, at_x + moved));
    let size = |d: &[f32]| d.iter().fold(LEAST, |m, d| m.max(d.abs()));
    let alpha = (size(&here) / (size(&here) + size(&there))).min(ALPHA_MAX);
    let values = x.rgb.iter_mut().zip(&clean.rgb).zip(here.iter().zip(&there));
    for ((x, c), (d, e)) in values {
        let (near, far) = (*x + OVERSHOOT * d, f32::from(*c) + OVERSHOOT * e);
        *x = (near * (1.0 - alpha) + far * alpha).clamp(0.0, 255.0);
    }
}

impl Fab {
    /// With these options.
    #[must_use]
    pub fn new(targeted: bool, options: &Options) -> Self {
        Self {
            targeted,
            epsilon: options.epsilon,
            steps: options.steps.unwrap_or(100).min(MAX_STEPS),
            restarts: options.restarts.unwrap_or(1).clamp(1, MAX_STEPS),
        }
    }

    fn walker(&self, context: &Context<'_>, task: usize, losses: Vec<Loss>, start: u32) -> Walker {
        let clean = context.task(task).clean;
        let mut x = Levels::from(clean);
        let best = f32::INFINITY;
        if start > 0 {
            let radius = self.epsilon.unwrap_or(START_RADIUS) / 2.0;
            let mut rng = stream(context, task, start);
            x.rgb.iter_mut().for_each(|x| *x = (*x + radius * rng.random_range(-1.0_f32..=1.0)).clamp(0.0, 255.0));
        }
        Walker { task, losses, x, best }
    }

    fn walk(&self, context: &mut Context<'_>, mut walkers: Vec<Walker>) -> Result<(), ModelError> {
        let origins: Vec<Vec<f32>> = walkers.iter().map(|w| Levels::from(context.task(w.task).clean).rgb).collect();
        for _ in 0..self.steps {
            let asks: Vec<Ask<'_>> =
                walkers.iter().map(|w| Ask { task: w.task, at: &w.x, losses: &w.losses }).collect();
            if asks.is_empty() {
                return Ok(());
            }
            let replies = context.gradients(&asks)?;
            for ((w, origin), reply) in walkers.iter_mut().zip(&origins).zip(&replies) {
                step(context.task(w.task).clean, origin, &mut w.x, &reply.pulled);
            }
            let logits = context.float_logits(&walkers.iter().map(|w| &w.x).collect::<Vec<_>>())?;
            let mut better = Vec::new();
            let flipped: Vec<bool> = walkers.iter().zip(&logits).map(|(w, z)| context.flipped(w.task, z)).collect();
            for (at, w) in walkers.iter_mut().enumerate().filter(|(at, _)| flipped[*at]) {
                let norm = linf(&w.x, context.task(w.task).clean);
                if norm < w.best {
                    w.best = norm;
                    better.push(at);
                }
            }
            context.offer_rounded(&better.iter().map(|&at| (walkers[at].task, &walkers[at].x)).collect::<Vec<_>>())?;
            for ((w, origin), _) in walkers.iter_mut().zip(&origins).zip(&flipped).filter(|(_, f)| **f) {
                for (x, o) in w.x.rgb.iter_mut().zip(origin) {
                    *x = o + (*x - o) * BACKWARD;
                }
            }
        }
        Ok(())
    }
}

impl Attack for Fab {
    fn name(&self) -> &'static str {
        if self.targeted { "fab-t" } else { "fab" }
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        let tasks = if self.epsilon.is_some() { context.open() } else { (0..context.len()).collect() };
        let difference = |target: &u16| Loss::Difference { target: *target };
        // Each list of losses is one walk from each start.
        let walks: Vec<(usize, Vec<Vec<Loss>>)> = targets(context, &tasks)?
            .iter()
            .map(|(i, classes)| {
                let all: Vec<Loss> = classes.iter().map(difference).collect();
                (*i, if self.targeted { all.into_iter().map(|l| vec![l]).collect() } else { vec![all] })
            })
            .collect();
        let most = walks.iter().map(|(_, w)| w.len()).max().unwrap_or(0);
        for rank in 0..most {
            for start in 0..self.restarts {
                let left = |i: usize| self.epsilon.is_none() || context.best(i).is_none();
                let walkers = walks
                    .iter()
                    .filter(|(i, _)| left(*i))
                    .filter_map(|(i, lists)| lists.get(rank).map(|l| self.walker(context, *i, l.clone(), start)))
                    .collect();
                self.walk(context, walkers)?;
            }
        }
        Ok(())
    }
}
