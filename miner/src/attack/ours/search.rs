//! One image's search, as a machine: what it wants next follows from what it was told last. It computes
//! and decides; the model is asked by whoever drives it, for many images at once.

use perturb_challenge::pixels::Pixels;
use perturb_types::Measurement;

use super::Ours;
use super::climb::{Climb, Next, blend};
use super::edits::{Change, Order, pruned};
use super::pace::{self, Pace};
use crate::attack::context::mix;
use crate::attack::{Task, Trial};
use crate::criterion::Criterion;
use crate::loss::Loss;
use crate::model::Pulled;

/// Shares of a dense change that the survey tries at the lowest level, thousandths.
const RUNGS: [u64; 4] = [10, 50, 150, 400];

/// Shares of the squares that a round of shrinking tries to take away, before scaling.
const CUTS: [f64; 4] = [0.6, 0.4, 0.2, 0.1];

/// Scale of the cuts: at first, at most (nine tenths go), and the least that is tried.
const SCALE: (f64, f64, f64) = (1.5, 1.5, 0.08);

/// Values that a miner toggles in its every candidate.
const MARKS: u64 = 2;

/// Halvings of the squares until the SSIM gate lets a change pass.
const GATE_TRIES: u32 = 7;

/// What a search wants of the model.
pub(super) enum Want {
    /// Loss and gradient at a candidate.
    Gradient {
        /// The candidate.
        at: Pixels,
        /// The loss.
        loss: Loss,
    },
    /// The verdict on candidates.
    Offer(Vec<Pixels>),
    /// Nothing more.
    Done,
}

/// What it is told.
pub(super) enum Told {
    /// Of a [`Want::Gradient`].
    Gradient {
        /// Logits at the candidate.
        logits: Vec<f32>,
        /// Loss and gradient.
        pulled: Pulled,
        /// The verdict on the candidate.
        trial: Trial,
    },
    /// Of a [`Want::Offer`], in order.
    Offer(Vec<Trial>),
}

enum Phase {
    /// Waits for the gradient at the clean image.
    Clean,
    /// Waits for a first batch; a second one would begin at this level.
    Survey(Vec<Change>, u8),
    /// Waits for the gradient at a climb's candidate.
    Climb(Box<Climb>, Change),
    /// Waits for the gradient at the flip.
    Look,
    /// Waits for the verdicts on shorter changes.
    Shrink(Vec<Change>),
    Over,
}

/// A flip in hand.
struct Flip {
    change: Change,
    measurement: Measurement,
}

/// One image's search.
pub(super) struct Search<'a> {
    task: Task<'a>,
    criterion: &'a dyn Criterion,
    limits: Ours,
    phase: Phase,
    /// Average of the slopes seen, what edits are ranked by.
    slope: Vec<f32>,
    /// Values that this miner toggles.
    marks: Vec<(usize, i16)>,
    flip: Option<Flip>,
    /// The highest level known to have no flip.
    failed: u8,
    /// The squares that the gates allow at a level, once known.
    allowed: Vec<Option<u64>>,
    /// Cost of a change of each value in SSIM, once that gate was seen to bind.
    cost: Option<Vec<f32>>,
    scale: f64,
    last_cut: f64,
}

impl<'a> Search<'a> {
    pub fn new(task: Task<'a>, criterion: &'a dyn Criterion, limits: Ours) -> Self {
        let (lowest, _) = criterion.levels();
        Self {
            task,
            criterion,
            limits,
            phase: Phase::Clean,
            slope: Vec::new(),
            marks: Vec::new(),
            flip: None,
            failed: lowest.saturating_sub(1),
            allowed: vec![None; 256],
            cost: None,
            scale: SCALE.0,
            last_cut: CUTS[1],
        }
    }

    pub fn begin(&mut self) -> Want {
        let (lowest, highest) = self.criterion.levels();
        if lowest > highest {
            self.phase = Phase::Over;
            return Want::Done;
        }
        Want::Gradient { at: self.task.clean.clone(), loss: Loss::Margin }
    }

    /// Goes on with what it was told.
    pub fn step(&mut self, told: Told, pace: Pace) -> Want {
        match (std::mem::replace(&mut self.phase, Phase::Over), told) {
            (Phase::Clean, Told::Gradient { pulled, .. }) => {
                self.slope = pulled.gradient;
                self.choose_marks();
                self.survey_lowest(pace)
            }
            (Phase::Survey(changes, next), Told::Offer(trials)) => {
                let lowest = self.take_best(changes, &trials);
                if lowest {
                    self.shrink_or_end(pace)
                } else if self.flip.is_none() {
                    self.survey_from(next, pace)
                } else {
                    self.descend(pace)
                }
            }
            (Phase::Climb(climb, change), Told::Gradient { logits, pulled, trial }) => {
                self.climbed(climb, change, logits, &pulled, trial, pace)
            }
            (Phase::Look, Told::Gradient { pulled, .. }) => {
                blend(&mut self.slope, &pulled.gradient, 0.5);
                self.shorten(pace)
            }
            (Phase::Shrink(changes), Told::Offer(trials)) => self.shrunk(changes, &trials, pace),
            _ => Want::Done,
        }
    }

    fn channels(&self) -> usize {
        self.task.clean.rgb.len()
    }

    /// The candidate of a change: the miner's marks toggled.
    fn candidate(&self, change: &Change) -> Pixels {
        let mut change = change.clone();
        for &(i, by) in &self.marks {
            change.by[i] = if change.by[i] == 0 { by } else { 0 };
        }
        change.apply(self.task.clean)
    }

    fn passes(&self, change: &Change) -> bool {
        self.criterion.gates(self.task.clean, &self.candidate(change)).is_some()
    }

    /// Two values of the weaker half of those in the model's view that can move.
    fn choose_marks(&mut self) {
        if self.task.salt == 0 {
            return;
        }
        let clean = &self.task.clean.rgb;
        let movable = |i: &usize| if self.slope[*i] > 0.0 { clean[*i] < 255 } else { clean[*i] > 0 };
        let mut view: Vec<usize> = (0..clean.len()).filter(|i| self.slope[*i] != 0.0).filter(movable).collect();
        if view.is_empty() {
            return;
        }
        let half = view.len() / 2;
        view.select_nth_unstable_by(half, |a, b| self.slope[*a].abs().total_cmp(&self.slope[*b].abs()).then(a.cmp(b)));
        // The order within the half is the selection's own: by index it is everybody's.
        view.truncate(half.max(1));
        view.sort_unstable();
        let pick = |n: u64| view[(mix(self.task.salt, n ^ 0x6d61_726b) % view.len() as u64) as usize];
        self.marks = (0..MARKS).map(pick).map(|i| (i, if self.slope[i] > 0.0 { 1 } else { -1 })).collect();
        self.marks.sort_unstable();
        self.marks.dedup();
    }

    fn order(&self, level: u8) -> Order {
        let cost = if level > 1 { self.cost.as_deref() } else { None };
        Order::new(self.task.clean, &self.slope, level, cost, self.task.salt)
    }

    /// The densest change up the slope at `level` that passes the gates; `None` where hardly anything
    /// does. What the gates allow there is remembered.
    fn densest(&mut self, level: u8) -> Option<Change> {
        let clean = self.task.clean;
        let dense = Change::dense(clean, &self.slope, level);
        let all = dense.squares();
        let known = self.allowed[usize::from(level)];
        let mut squares = known.unwrap_or_else(|| self.criterion.most_squares(self.channels()));
        if all == 0 {
            return None;
        }
        if all.saturating_add(MARKS) <= squares {
            if self.passes(&dense) {
                self.allowed[usize::from(level)] = Some(u64::MAX);
                return Some(dense);
            }
            // Not PSNR's doing: from here on edits go where SSIM minds them least.
            squares = all;
            if level > 1 && self.cost.is_none() {
                self.cost = Some(ssim_cost(clean));
            }
        }
        let order = self.order(level);
        for _ in 0..GATE_TRIES {
            // A mark may add a value.
            let change = order.prefix(self.channels(), squares.saturating_sub(MARKS));
            if change.squares() == 0 {
                return None;
            }
            if self.passes(&change) {
                self.allowed[usize::from(level)] = Some(squares);
                return Some(change);
            }
            squares = squares * 7 / 10;
        }
        None
    }

    /// The first batch: the ladder and the densest change at the lowest level, and the densest above it.
    fn survey_lowest(&mut self, pace: Pace) -> Want {
        let (lowest, highest) = self.criterion.levels();
        let mut changes = Vec::new();
        if pace::sparsity_counts(self.criterion, self.channels(), lowest) {
            let order = self.order(lowest);
            let all = Change::dense(self.task.clean, &self.slope, lowest).squares();
            changes.extend(RUNGS.iter().map(|r| order.prefix(self.channels(), all * r / 1000)));
        }
        for level in lowest..=highest.min(lowest.saturating_add(1)) {
            changes.extend(self.densest(level));
        }
        self.survey(changes, lowest.saturating_add(2), pace)
    }

    /// The second batch: the densest changes from `level` on, every level at first, then half as much
    /// again each time.
    fn survey_from(&mut self, mut level: u8, pace: Pace) -> Want {
        let (_, highest) = self.criterion.levels();
        let mut changes = Vec::new();
        while level <= highest && level < u8::MAX {
            changes.extend(self.densest(level));
            level = level.saturating_add((level / 3).max(1));
        }
        self.survey(changes, u8::MAX, pace)
    }

    fn survey(&mut self, mut changes: Vec<Change>, next: u8, pace: Pace) -> Want {
        changes.retain(|c| c.squares() > 0);
        changes.dedup();
        if changes.is_empty() {
            return self.descend(pace);
        }
        let images = changes.iter().map(|c| self.candidate(c)).collect();
        self.phase = Phase::Survey(changes, next);
        Want::Offer(images)
    }

    /// Keeps the flip of the lowest level, and of those the sparsest; whether its level is the lowest
    /// that counts.
    fn take_best(&mut self, changes: Vec<Change>, trials: &[Trial]) -> bool {
        let accepted = changes.into_iter().zip(trials).filter(|(_, t)| t.worth.is_some()).map(|(c, _)| c);
        for change in accepted {
            self.keep(change);
        }
        let (lowest, _) = self.criterion.levels();
        self.flip.as_ref().is_some_and(|f| f.measurement.level <= lowest)
    }

    fn keep(&mut self, change: Change) {
        let image = self.candidate(&change);
        let Some(measurement) = self.criterion.gates(self.task.clean, &image) else { return };
        let rank = |m: &Measurement| (m.level, m.sum_squares);
        if self.flip.as_ref().is_none_or(|f| rank(&measurement) < rank(&f.measurement)) {
            self.flip = Some(Flip { change, measurement });
        }
    }

    /// The next level to climb in, below the flip (or the highest, without one).
    fn next_level(&self) -> Option<u8> {
        let (_, highest) = self.criterion.levels();
        let Some(flip) = &self.flip else { return (self.failed < highest).then_some(highest) };
        let hit = flip.measurement.level;
        let between = hit.checked_sub(self.failed).filter(|d| *d > 1)?;
        // Level by level near the bottom, halving the distance above.
        Some(if between <= 3 { hit - 1 } else { self.failed + between / 2 })
    }

    fn descend(&mut self, pace: Pace) -> Want {
        let Some(level) = self.next_level() else { return self.shrink_or_end(pace) };
        if let Some(flip) = &self.flip {
            let hit = flip.measurement.level;
            if pace::allowance(self.criterion, self.channels(), hit, level, pace) <= pace.round {
                return self.shrink_or_end(pace);
            }
        }
        let Some(dense) = self.densest(level) else {
            self.failed = level;
            return self.descend(pace);
        };
        let allowed = self.allowed[usize::from(level)].filter(|a| *a < u64::MAX);
        let from = self.flip.as_ref().map_or(&dense, |f| &f.change);
        let tight = allowed.map(|a| a.saturating_sub(MARKS));
        let climb = Climb::new(level, tight, from, self.limits, self.task.salt, pace.now);
        let change = if tight.is_some() { dense } else { climb.candidate(self.task.clean, &self.slope, None) };
        let at = self.candidate(&change);
        self.phase = Phase::Climb(Box::new(climb), change);
        Want::Gradient { at, loss: Loss::Margin }
    }

    fn climbed(
        &mut self,
        mut climb: Box<Climb>,
        change: Change,
        logits: Vec<f32>,
        pulled: &Pulled,
        trial: Trial,
        pace: Pace,
    ) -> Want {
        if trial.worth.is_some() {
            blend(&mut self.slope, &pulled.gradient, 0.5);
            self.keep(change);
            return self.descend(pace);
        }
        let spent = pace.now - climb.began;
        let too_long = self.flip.as_ref().is_some_and(|f| {
            spent > pace::allowance(self.criterion, self.channels(), f.measurement.level, climb.level, pace)
        });
        let lead = trial.lead.map_or(f32::NEG_INFINITY, |l| l as f32 / 1e6);
        let cost = if climb.level > 1 { self.cost.as_deref() } else { None };
        let next =
            climb.see(self.task.clean, self.task.label, (logits, lead), &pulled.gradient, (&mut self.slope, cost));
        match next {
            Next::At(change, loss) if !too_long => {
                let at = self.candidate(&change);
                self.phase = Phase::Climb(climb, change);
                Want::Gradient { at, loss }
            }
            _ => {
                self.failed = self.failed.max(climb.level);
                self.descend(pace)
            }
        }
    }

    fn shrink_or_end(&mut self, pace: Pace) -> Want {
        let Some(flip) = &self.flip else { return Want::Done };
        let cut = (self.last_cut * self.scale).min(0.9);
        if flip.change.squares() <= 1 || !pace::worth_shrinking(self.criterion, &flip.measurement, cut, pace) {
            return Want::Done;
        }
        let at = self.candidate(&flip.change);
        self.phase = Phase::Look;
        Want::Gradient { at, loss: Loss::Margin }
    }

    /// One batch of shorter changes.
    fn shorten(&mut self, pace: Pace) -> Want {
        let Some(flip) = &self.flip else { return Want::Done };
        let cut = (self.last_cut * self.scale).min(0.9);
        if !pace::worth_shrinking(self.criterion, &flip.measurement, cut, pace) {
            return Want::Done;
        }
        let (channels, squares) = (self.channels(), flip.change.squares());
        let mut targets: Vec<u64> = CUTS
            .iter()
            .map(|c| squares - ((squares as f64 * (c * self.scale).min(0.9)) as u64).clamp(1, squares - 1))
            .collect();
        // Falling, for the pruning: the least is taken away first.
        targets.reverse();
        targets.dedup();
        let order = self.order(flip.measurement.level);
        let mut changes = pruned(&flip.change, &self.slope, &targets, self.task.salt);
        changes.extend(targets.iter().map(|t| order.prefix(channels, *t)));
        changes.retain(|c| c.squares() > 0);
        if changes.is_empty() {
            return Want::Done;
        }
        let images = changes.iter().map(|c| self.candidate(c)).collect();
        self.phase = Phase::Shrink(changes);
        Want::Offer(images)
    }

    fn shrunk(&mut self, changes: Vec<Change>, trials: &[Trial], pace: Pace) -> Want {
        let before = self.flip.as_ref().map_or(0, |f| f.change.squares());
        self.take_best(changes, trials);
        let after = self.flip.as_ref().map_or(0, |f| f.change.squares());
        if after < before {
            let cut = 1.0 - after as f64 / before.max(1) as f64;
            // The longest cut worked: try longer ones; a short one: stay near it.
            self.scale = (self.scale * if cut > CUTS[1] * self.scale { 1.5 } else { 0.8 }).min(SCALE.1);
            self.last_cut = (0.7 * cut / self.scale).clamp(CUTS[3], CUTS[0]);
            return self.shrink_or_end(pace);
        }
        self.scale /= 3.0;
        // Nothing shorter than one square, and nothing that would not be seen in the score.
        let longest = before as f64 * CUTS[0] * self.scale;
        if self.scale < SCALE.2 || longest < 1.0 {
            return Want::Done;
        }
        self.last_cut = CUTS[2];
        self.shorten(pace)
    }
}

/// 1/(2σ² + c₂) with σ² the variance of the 11×11 window around each value: to first order what a squared
/// level there takes from the SSIM of its windows.
fn ssim_cost(clean: &Pixels) -> Vec<f32> {
    /// c₂ of SSIM in squared levels: 0.03² · 255².
    const C2: f64 = 58.5225;
    const REACH: usize = 5;
    let (width, height) = (clean.width as usize, clean.height as usize);
    let mut cost = vec![0.0_f32; clean.rgb.len()];
    // Sums over the rectangle above and left of a corner, one row and column more than the image.
    let stride = width + 1;
    for channel in 0..3 {
        let mut sums = vec![(0.0_f64, 0.0_f64); stride * (height + 1)];
        for y in 0..height {
            for x in 0..width {
                let v = f64::from(clean.rgb[(y * width + x) * 3 + channel]);
                let (up, left, both) = (sums[y * stride + x + 1], sums[(y + 1) * stride + x], sums[y * stride + x]);
                sums[(y + 1) * stride + x + 1] = (v + up.0 + left.0 - both.0, v * v + up.1 + left.1 - both.1);
            }
        }
        for y in 0..height {
            for x in 0..width {
                let (top, bottom) = (y.saturating_sub(REACH), (y + REACH + 1).min(height));
                let (left, right) = (x.saturating_sub(REACH), (x + REACH + 1).min(width));
                let at = |y: usize, x: usize| sums[y * stride + x];
                let (a, b, c, d) = (at(bottom, right), at(top, right), at(bottom, left), at(top, left));
                // Beyond the border SSIM sees zeros, over a window of always 121 values.
                let (sum, squares) = (a.0 - b.0 - c.0 + d.0, a.1 - b.1 - c.1 + d.1);
                let variance = (squares / 121.0 - (sum / 121.0).powi(2)).max(0.0);
                cost[(y * width + x) * 3 + channel] = (1.0 / (2.0 * variance + C2)) as f32;
            }
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn ssim_minds_a_change_less_where_the_image_is_busy() {
        let rgb = (0..40 * 40)
            .flat_map(|p| {
                let busy = p % 40 >= 20 && (p % 40 + p / 40) % 2 == 0;
                [if busy { 190 } else { 128 }; 3]
            })
            .collect();
        let cost = ssim_cost(&Pixels::new(40, 40, rgb).unwrap());
        let at = |x: usize, y: usize| cost[(y * 40 + x) * 3];
        assert!(at(8, 20) > 10.0 * at(30, 20));
        assert!((at(8, 20) - 1.0 / 58.5225).abs() < 1e-6, "a flat window has no variance");
    }
}
