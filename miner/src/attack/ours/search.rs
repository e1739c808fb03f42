//! One image's search, as a machine: what it wants next follows from what it was told last. It computes
//! and decides; the model is asked by whoever drives it, for many images at once.

mod starts;

use perturb_challenge::pixels::Pixels;
use perturb_types::Measurement;

use super::Ours;
use super::aims::{Aim, CLASSES};
use super::climb::{Climb, blend};
use super::edits::{Change, pruned};
use super::pace::{self, Pace};
use super::room::Room;
use super::shrink::Cuts;
use crate::attack::{Task, Trial};
use crate::criterion::Criterion;
use crate::loss::{Loss, others};
use crate::model::Pulled;

/// Shares of a dense change that the survey tries at the lowest level, thousandths.
const RUNGS: [u64; 4] = [10, 50, 150, 400];

/// Aims whose dense changes are surveyed.
const SURVEYED: usize = 2;

/// Gradients below which a climb is not worth beginning: of those that flip, most do within as many.
const LEAST_CLIMB: f64 = 3.0;

/// Shares that are left of a change which flips but fails a gate, thousandths.
const TRIMS: [u64; 5] = [950, 900, 800, 700, 500];

/// What a search wants of the model.
pub(super) enum Want {
    /// Losses and gradients at a candidate.
    Gradient {
        /// The candidate.
        at: Pixels,
        /// The losses.
        losses: Vec<Loss>,
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
        /// Each loss and its gradient.
        pulled: Vec<Pulled>,
        /// The verdict on the candidate.
        trial: Trial,
    },
    /// Of a [`Want::Offer`], in order.
    Offer(Vec<Trial>),
}

enum Phase {
    /// Waits for the gradient at the clean image.
    Clean,
    /// Waits for the first batch.
    Survey(Vec<Change>),
    /// Waits for the slopes of more classes at the clean image.
    Aims(Vec<u16>),
    /// Waits for the second batch, along the aims.
    SurveyAims(Vec<Change>),
    /// Waits for the gradient at a climb's candidate.
    Climb(Box<Climb>),
    /// Waits for the verdicts on parts of a climb's candidate which flips but fails a gate.
    Trim(Box<Climb>, Pulled, Vec<Change>),
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
    /// Whether the slope is one taken there.
    seen: bool,
}

/// One image's search.
pub(super) struct Search<'a> {
    task: Task<'a>,
    criterion: &'a dyn Criterion,
    limits: Ours,
    phase: Phase,
    room: Room<'a>,
    /// Classes to head for, nearest first, and more whose slope is not known yet.
    aims: Vec<Aim>,
    others: Vec<u16>,
    /// What edits are ranked by.
    slope: Vec<f32>,
    flip: Option<Flip>,
    /// Climbs given up, by level.
    tried: Vec<usize>,
    /// Milliseconds spent on the climb at hand.
    spent: f64,
    cuts: Cuts,
    /// Milliseconds of the last gradient and of the last offer.
    gradient_ms: f64,
    offer_ms: f64,
}

impl<'a> Search<'a> {
    pub fn new(task: Task<'a>, criterion: &'a dyn Criterion, limits: Ours) -> Self {
        Self {
            task,
            criterion,
            limits,
            phase: Phase::Clean,
            room: Room::new(task, criterion),
            aims: Vec::new(),
            others: Vec::new(),
            slope: Vec::new(),
            flip: None,
            tried: vec![0; 256],
            spent: 0.0,
            cuts: Cuts::default(),
            gradient_ms: 0.0,
            offer_ms: 0.0,
        }
    }

    pub fn begin(&mut self) -> Want {
        let (lowest, highest) = self.criterion.levels();
        if lowest > highest {
            self.phase = Phase::Over;
            return Want::Done;
        }
        Want::Gradient { at: self.task.clean.clone(), losses: vec![Loss::Margin] }
    }

    /// Goes on with what it was told.
    pub fn step(&mut self, told: Told, pace: Pace) -> Want {
        match &told {
            Told::Gradient { .. } => self.gradient_ms = pace.round,
            Told::Offer(_) => self.offer_ms = pace.round,
        }
        match (std::mem::replace(&mut self.phase, Phase::Over), told) {
            (Phase::Clean, Told::Gradient { logits, pulled, .. }) => self.began(&logits, pulled, pace),
            (Phase::Survey(changes), Told::Offer(trials)) => {
                self.take_best(changes, &trials);
                self.more_aims(pace)
            }
            (Phase::Aims(targets), Told::Gradient { pulled, .. }) => self.aimed(targets, pulled, pace),
            (Phase::SurveyAims(changes), Told::Offer(trials)) => {
                self.take_best(changes, &trials);
                self.descend(pace)
            }
            (Phase::Climb(climb), Told::Gradient { mut pulled, trial, .. }) => match pulled.pop() {
                Some(seen) => self.climbed(climb, seen, trial, pace),
                None => Want::Done,
            },
            (Phase::Trim(climb, seen, changes), Told::Offer(trials)) => {
                self.take_best(changes, &trials);
                let done = self.flip.as_ref().is_some_and(|f| f.measurement.level <= climb.level);
                if done { self.descend(pace) } else { self.climb_on(*climb, seen, pace) }
            }
            (Phase::Look, Told::Gradient { mut pulled, .. }) => {
                if let (Some(flip), Some(seen)) = (&mut self.flip, pulled.pop()) {
                    blend(&mut self.slope, &seen.gradient, 0.5);
                    flip.seen = true;
                }
                self.shrink_or_end(pace)
            }
            (Phase::Shrink(changes), Told::Offer(trials)) => self.shrunk(changes, &trials, pace),
            _ => Want::Done,
        }
    }

    fn channels(&self) -> usize {
        self.task.clean.rgb.len()
    }

    /// The first batch: the ladder and the densest change at the lowest level, and the densest above it, all
    /// towards the best other class: mostly that is all there is to it.
    fn began(&mut self, logits: &[f32], mut pulled: Vec<Pulled>, pace: Pace) -> Want {
        let Some(seen) = pulled.pop() else { return Want::Done };
        self.slope.clone_from(&seen.gradient);
        self.room.choose_marks(&self.slope);
        let ranked = others(logits, self.task.label);
        let mut targets = ranked.into_iter().take(CLASSES);
        let Some(first) = targets.next() else { return Want::Done };
        self.aims.push(Aim::new(self.task.clean, first, seen.value, seen.gradient));
        let (lowest, highest) = self.criterion.levels();
        let mut changes = Vec::new();
        if pace::sparsity_counts(self.criterion, self.channels(), lowest) {
            let order = self.room.order(&self.slope, lowest);
            let all = Change::dense(self.task.clean, &self.slope, lowest).squares();
            changes.extend(RUNGS.iter().map(|r| order.prefix(self.channels(), all * r / 1000)));
        }
        for level in lowest..=highest.min(lowest.saturating_add(1)) {
            changes.extend(self.room.densest(&self.slope, level));
        }
        self.others = targets.collect();
        self.offer(changes, Phase::Survey, pace)
    }

    /// Asks for the slopes of more classes: as many as a lower level is worth.
    fn more_aims(&mut self, pace: Pace) -> Want {
        let Some(level) = self.next_level() else { return self.descend(pace) };
        let mut targets = std::mem::take(&mut self.others);
        if targets.is_empty() {
            return self.survey_aims(pace);
        }
        // One more forward pass, and a backward pass for each: about two thirds of a gradient.
        let affordable = self.allowance(level, pace) / (self.gradient_ms * 2.0 / 3.0) - 1.0;
        targets.truncate(affordable.max(0.0) as usize);
        if targets.is_empty() {
            return self.descend(pace);
        }
        let losses = targets.iter().map(|&target| Loss::Difference { target }).collect();
        self.phase = Phase::Aims(targets);
        Want::Gradient { at: self.task.clean.clone(), losses }
    }

    fn aimed(&mut self, targets: Vec<u16>, pulled: Vec<Pulled>, pace: Pace) -> Want {
        let clean = self.task.clean;
        let seen = targets.into_iter().zip(pulled);
        self.aims.extend(seen.map(|(target, p)| Aim::new(clean, target, p.value, p.gradient)));
        self.aims.sort_by(|a, b| a.missing.total_cmp(&b.missing).then(a.target.cmp(&b.target)));
        self.survey_aims(pace)
    }

    /// The second batch: dense changes towards the nearest classes, at levels about as many as are missing.
    fn survey_aims(&mut self, pace: Pace) -> Want {
        let (lowest, highest) = self.criterion.levels();
        let below = self.flip.as_ref().map_or(highest, |f| f.measurement.level.saturating_sub(1));
        let near = self.aims.first().map_or(highest, |a| a.missing.ceil().clamp(0.0, 255.0) as u8);
        let mut levels = [near.saturating_sub(1), near, near.saturating_add(1), near.saturating_add(3), highest]
            .map(|level| level.clamp(lowest, highest))
            .to_vec();
        levels.dedup();
        levels.retain(|level| *level <= below);
        let mut changes = Vec::new();
        for aim in self.aims.iter().take(SURVEYED) {
            changes.extend(levels.iter().filter_map(|level| self.room.densest(&aim.slope, *level)));
        }
        self.offer(changes, Phase::SurveyAims, pace)
    }

    /// Offers the candidates of `changes`; goes on to the next level where there are none.
    fn offer(&mut self, mut changes: Vec<Change>, phase: fn(Vec<Change>) -> Phase, pace: Pace) -> Want {
        changes.retain(|c| c.squares() > 0);
        changes.dedup();
        if changes.is_empty() {
            return self.descend(pace);
        }
        let images = changes.iter().map(|c| self.room.candidate(c)).collect();
        self.phase = phase(changes);
        Want::Offer(images)
    }

    /// Keeps the flip of the lowest level, and of those the sparsest.
    fn take_best(&mut self, changes: Vec<Change>, trials: &[Trial]) {
        for (change, _) in changes.into_iter().zip(trials).filter(|(_, t)| t.worth.is_some()) {
            self.keep(change, false);
        }
    }

    fn keep(&mut self, change: Change, seen: bool) {
        let Some(measurement) = self.room.measure(&change) else { return };
        let rank = |m: &Measurement| (m.level, m.sum_squares);
        if self.flip.as_ref().is_none_or(|f| rank(&measurement) < rank(&f.measurement)) {
            self.flip = Some(Flip { change, measurement, seen });
        }
    }

    /// The level to climb in next: the one below the flip. Without a flip, of the levels that allow anything
    /// the one with the fewest climbs, highest first: where the gates forbid dense changes a lower level may
    /// have a flip that a higher one has not.
    fn next_level(&self) -> Option<u8> {
        let (lowest, highest) = self.criterion.levels();
        if let Some(flip) = &self.flip {
            let level = flip.measurement.level.checked_sub(1).filter(|l| *l >= lowest)?;
            return (self.tried[usize::from(level)] < self.aims.len()).then_some(level);
        }
        let open = (lowest..=highest).rev().find(|l| self.room.is_open(*l)).unwrap_or(lowest);
        let levels = (open..=highest).rev().filter(|l| self.tried[usize::from(*l)] < self.limits.starts);
        levels.min_by_key(|l| self.tried[usize::from(*l)])
    }

    /// Milliseconds that the next climb at `level` may take.
    fn allowance(&self, level: u8, pace: Pace) -> f64 {
        let Some(flip) = &self.flip else { return f64::INFINITY };
        let (hit, tried) = (flip.measurement.level, self.tried[usize::from(level)]);
        pace::allowance(self.criterion, self.channels(), (hit, level), tried, pace)
    }

    fn descend(&mut self, pace: Pace) -> Want {
        while let Some(level) = self.next_level() {
            if self.allowance(level, pace) <= LEAST_CLIMB * self.gradient_ms {
                break;
            }
            let Some(climb) = self.climb(level) else {
                self.tried[usize::from(level)] = usize::MAX;
                continue;
            };
            self.spent = 0.0;
            return self.look_at(climb);
        }
        self.shrink_or_end(pace)
    }

    fn look_at(&mut self, climb: Climb) -> Want {
        let (at, losses) = (self.room.candidate(&climb.change), vec![climb.loss()]);
        self.phase = Phase::Climb(Box::new(climb));
        Want::Gradient { at, losses }
    }

    fn climbed(&mut self, climb: Box<Climb>, seen: Pulled, trial: Trial, pace: Pace) -> Want {
        let level = climb.level;
        self.spent += pace.round;
        if trial.worth.is_some() {
            self.slope = climb.slope;
            blend(&mut self.slope, &seen.gradient, 0.5);
            self.keep(climb.change, true);
            return self.descend(pace);
        }
        if trial.lead.is_some_and(|lead| lead > 0) && self.room.measure(&climb.change).is_none() {
            // What the gates allow was measured along another direction.
            let squares = climb.change.squares();
            let targets = TRIMS.map(|t| squares * t / 1000);
            let changes = pruned(&climb.change, &seen.gradient, &targets, self.task.salt);
            let images = changes.iter().map(|c| self.room.candidate(c)).collect();
            self.room.tighten(level, targets[TRIMS.len() / 2]);
            self.phase = Phase::Trim(climb, seen, changes);
            return Want::Offer(images);
        }
        self.climb_on(*climb, seen, pace)
    }

    fn climb_on(&mut self, mut climb: Climb, seen: Pulled, pace: Pace) -> Want {
        let level = climb.level;
        climb.tight = self.room.tight(level);
        let goes_on = climb.see(self.task.clean, seen, self.room.cost(level), self.task.salt);
        if goes_on && self.allowance(level, pace) > self.spent + self.gradient_ms {
            return self.look_at(climb);
        }
        self.tried[usize::from(level)] = self.tried[usize::from(level)].saturating_add(1);
        self.descend(pace)
    }

    fn shrink_or_end(&mut self, pace: Pace) -> Want {
        let Some(flip) = &self.flip else { return Want::Done };
        let look = if flip.seen { 0.0 } else { self.gradient_ms };
        let cost = Pace { round: look + self.offer_ms, ..pace };
        if flip.change.squares() <= 1
            || !pace::worth_shrinking(self.criterion, &flip.measurement, self.cuts.hoped(), cost)
        {
            return Want::Done;
        }
        if !flip.seen {
            let at = self.room.candidate(&flip.change);
            self.phase = Phase::Look;
            return Want::Gradient { at, losses: vec![Loss::Margin] };
        }
        // Shorter changes, by pruning the flip and by the order alone.
        let targets = self.cuts.targets(flip.change.squares());
        let order = self.room.order(&self.slope, flip.measurement.level);
        let mut changes = pruned(&flip.change, &self.slope, &targets, self.task.salt);
        changes.extend(targets.iter().map(|t| order.prefix(self.channels(), *t)));
        changes.retain(|c| c.squares() > 0);
        if changes.is_empty() {
            return Want::Done;
        }
        let images = changes.iter().map(|c| self.room.candidate(c)).collect();
        self.phase = Phase::Shrink(changes);
        Want::Offer(images)
    }

    fn shrunk(&mut self, changes: Vec<Change>, trials: &[Trial], pace: Pace) -> Want {
        let squares = |search: &Self| search.flip.as_ref().map_or(0, |f| f.change.squares());
        let before = squares(self);
        self.take_best(changes, trials);
        if self.cuts.learn(before, squares(self)) { self.shrink_or_end(pace) } else { Want::Done }
    }
}
