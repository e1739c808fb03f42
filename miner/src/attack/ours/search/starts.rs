//! Where the climbs of a level begin, one after the other.

use rand::Rng;

use super::Search;
use crate::attack::float::seeded;
use crate::attack::ours::aims::Aim;
use crate::attack::ours::climb::{Climb, Start};

/// First steps of a climb, in half sides of the box. Narrow ones keep the start, which is a good one, and mostly
/// flip in half as many steps; wide ones cross the box at once, as APGD's do, and get to some flips that the
/// others never see.
const NARROW: f32 = 1.0;
const WIDE: f32 = 2.0;

impl Search<'_> {
    /// The next climb at a level: towards each aim by narrow steps, then by wide steps, then from random points.
    pub(super) fn climb(&mut self, level: u8) -> Option<Climb> {
        let tried = self.tried[usize::from(level)];
        let ranked = self.ranked(level);
        let round = tried / ranked.len().max(1);
        let aim = ranked.get(tried % ranked.len().max(1)).and_then(|at| self.aims.get(*at))?;
        let (target, slope) = (aim.target, aim.slope.clone());
        let dense = self.room.densest(&slope, level)?;
        let from = if round < 2 {
            dense.by.iter().map(|d| f32::from(*d)).collect()
        } else {
            let mut rng = seeded(self.task.salt, usize::from(level), tried as u32);
            let most = f32::from(level);
            slope.iter().map(|_| rng.random_range(-most..=most)).collect()
        };
        let first = if round == 0 { NARROW } else { WIDE };
        let tight = self.room.tight(level).map(|squares| (squares, dense));
        Some(Climb::new(level, Start { target, from, slope, first, steps: self.limits.steps }, tight))
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
