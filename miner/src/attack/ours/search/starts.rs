//! Where the climbs of a level begin, one after the other.

use rand::Rng;

use super::Search;
use crate::attack::float::seeded;
use crate::attack::ours::aims::{Aim, NEAREST};
use crate::attack::ours::climb::{Climb, Start};
use crate::attack::ours::edits::Change;
use crate::loss::Loss;

/// Levels missing below which a level is worth more starts than one towards each aim.
const NEAR: f32 = 0.35;

/// Starts of that kind, beside those towards each aim by [`WIDE`] steps: cross-entropy from the nearest point,
/// and one from a random point.
const MORE: usize = 2;

/// First steps of a climb, in half sides of the box. Narrow ones keep the start, which is a good one, and mostly
/// flip in half as many steps; wide ones cross the box at once, as APGD's do, and get to some flips that the
/// others never see.
const NARROW: f32 = 1.0;
const WIDE: f32 = 2.0;

impl Search<'_> {
    /// Aims at a level.
    fn aims_at(&self, level: u8) -> usize {
        if self.room.tight(level).is_some() { self.aims.len() } else { self.aims.len().min(NEAREST) }
    }

    /// Starts at a level below a flip.
    pub(super) fn starts(&self, level: u8) -> usize {
        let near = self.nearest.as_ref().is_some_and(|(missing, _)| *missing < NEAR);
        let aims = self.aims_at(level);
        if near { 2 * aims + MORE } else { aims }
    }

    /// The next climb at a level: towards each aim by narrow steps, by cross-entropy from the nearest point so
    /// far, towards each aim by wide steps, and then from random points.
    pub(super) fn climb(&mut self, level: u8) -> Option<Climb> {
        let nearest = self.aims.first()?.slope.clone();
        self.room.densest(&nearest, level)?;
        let (tried, count) = (self.tried[usize::from(level)], self.aims_at(level));
        // Past the one by cross-entropy, the aims come round again.
        let round = if tried > count { tried - count - 1 } else { tried };
        let aim = self.ranked(level).get(round % count.max(1)).and_then(|at| self.aims.get(*at))?;
        let towards = Loss::Difference { target: aim.target };
        let slope = aim.slope.clone();
        let dense = |slope: &[f32]| -> Vec<f32> {
            Change::dense(self.task.clean, slope, level).by.iter().map(|d| f32::from(*d)).collect()
        };
        let steps = self.limits.steps;
        let start = if tried == count {
            let from = self.nearest.as_ref().map_or_else(|| dense(&nearest), |(_, latent)| latent.clone());
            Start { loss: Loss::CrossEntropy, from, slope: nearest, first: WIDE, steps }
        } else if tried <= 2 * count {
            let first = if tried < count { NARROW } else { WIDE };
            Start { loss: towards, from: dense(&slope), slope, first, steps }
        } else {
            let mut rng = seeded(self.task.salt, usize::from(level), tried as u32);
            let most = f32::from(level);
            let from = slope.iter().map(|_| rng.random_range(-most..=most)).collect();
            Start { loss: towards, from, slope, first: WIDE, steps: steps.saturating_mul(2) }
        };
        let dense = self.room.densest(&start.slope, level)?;
        let tight = self.room.tight(level).map(|squares| (squares, dense));
        Some(Climb::new(level, start, tight))
    }

    /// The aims by what a level allows of them.
    fn ranked(&mut self, level: u8) -> Vec<usize> {
        let mut at: Vec<usize> = (0..self.aims.len()).collect();
        if self.room.tight(level).is_some() {
            let room = &mut self.room;
            let reach = |a: &Aim| room.densest(&a.slope, level).map_or(f32::INFINITY, |c| a.missing_with(&c, level));
            let missing: Vec<f32> = self.aims.iter().map(reach).collect();
            at.sort_by(|a, b| missing[*a].total_cmp(&missing[*b]));
        }
        at
    }
}
