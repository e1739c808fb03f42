//! What the gates allow an image, and the marks that make a miner's candidates its own.

use perturb_challenge::pixels::Pixels;
use perturb_types::Measurement;

use super::edits::{Change, Order};
use super::ssim::ssim_cost;
use crate::attack::Task;
use crate::attack::context::mix;
use crate::criterion::Criterion;

/// Values that a miner toggles in its every candidate.
const MARKS: u64 = 2;

/// Times that the squares are cut until the SSIM gate lets a change pass, and what is left each time. Seven
/// cuts leave a twelfth; of less, at a level where so little passes, no flip was ever seen.
const GATE_TRIES: u32 = 7;
const GATE_CUT: (u64, u64) = (7, 10);

/// The gates as one image meets them.
pub(super) struct Room<'a> {
    task: Task<'a>,
    criterion: &'a dyn Criterion,
    marks: Vec<(usize, i16)>,
    /// The squares that the gates allow at a level, once known; all of them: `u64::MAX`.
    allowed: Vec<Option<u64>>,
    /// Cost of a change of each value in SSIM, once that gate was seen to bind.
    cost: Option<Vec<f32>>,
}

impl<'a> Room<'a> {
    pub fn new(task: Task<'a>, criterion: &'a dyn Criterion) -> Self {
        Self { task, criterion, marks: Vec::new(), allowed: vec![None; 256], cost: None }
    }

    /// Chooses the miner's marks: values of the weaker half of those in the model's view that can move.
    pub fn choose_marks(&mut self, slope: &[f32]) {
        if self.task.salt == 0 {
            return;
        }
        let clean = &self.task.clean.rgb;
        let movable = |i: &usize| if slope[*i] > 0.0 { clean[*i] < 255 } else { clean[*i] > 0 };
        let mut view: Vec<usize> = (0..clean.len()).filter(|i| slope[*i] != 0.0).filter(movable).collect();
        if view.is_empty() {
            return;
        }
        let half = view.len() / 2;
        view.select_nth_unstable_by(half, |a, b| slope[*a].abs().total_cmp(&slope[*b].abs()).then(a.cmp(b)));
        // The order within the half is the selection's own: by index it is everybody's.
        view.truncate(half.max(1));
        view.sort_unstable();
        let pick = |n: u64| view[(mix(self.task.salt, n ^ 0x6d61_726b) % view.len() as u64) as usize];
        self.marks = (0..MARKS).map(pick).map(|i| (i, if slope[i] > 0.0 { 1 } else { -1 })).collect();
        self.marks.sort_unstable();
        self.marks.dedup();
    }

    /// The candidate of a change: the miner's marks toggled.
    pub fn candidate(&self, change: &Change) -> Pixels {
        let mut image = change.apply(self.task.clean);
        for &(i, by) in &self.marks {
            let clean = self.task.clean.rgb[i];
            image.rgb[i] = if change.by[i] == 0 { clean.saturating_add_signed(by as i8) } else { clean };
        }
        image
    }

    /// The measurement of a change's candidate, if it passes.
    pub fn measure(&self, change: &Change) -> Option<Measurement> {
        self.criterion.gates(self.task.clean, &self.candidate(change))
    }

    /// Cost of each value's change in SSIM at a level where that counts.
    pub fn cost(&self, level: u8) -> Option<&[f32]> {
        if level > 1 { self.cost.as_deref() } else { None }
    }

    pub fn order(&self, slope: &[f32], level: u8) -> Order {
        Order::new(self.task.clean, slope, level, self.cost(level), self.task.salt)
    }

    /// Squares of a change at a level that forbids the dense one; a mark may add a value.
    pub fn tight(&self, level: u8) -> Option<u64> {
        self.allowed[usize::from(level)].filter(|a| *a < u64::MAX).map(|a| a.saturating_sub(MARKS))
    }

    /// Whether the dense change is known to pass at a level.
    pub fn is_open(&self, level: u8) -> bool {
        self.allowed[usize::from(level)] == Some(u64::MAX)
    }

    /// Of another direction, fewer `squares` than were thought pass at a level.
    pub fn tighten(&mut self, level: u8, squares: u64) {
        let known = &mut self.allowed[usize::from(level)];
        *known = Some(known.map_or(squares, |k| k.min(squares)));
        self.mind_ssim(level);
    }

    /// From here on edits go where SSIM minds them least.
    fn mind_ssim(&mut self, level: u8) {
        if level > 1 && self.cost.is_none() {
            self.cost = Some(ssim_cost(self.task.clean));
        }
    }

    /// The densest change up `slope` at `level` that passes the gates; `None` where hardly anything
    /// does. What the gates allow there is remembered.
    pub fn densest(&mut self, slope: &[f32], level: u8) -> Option<Change> {
        let dense = Change::dense(self.task.clean, slope, level);
        let all = dense.squares();
        if all == 0 {
            return None;
        }
        let known = self.allowed[usize::from(level)];
        let mut squares = known.unwrap_or_else(|| self.criterion.most_squares(dense.by.len()));
        if all.saturating_add(MARKS) <= squares {
            if self.measure(&dense).is_some() {
                self.allowed[usize::from(level)] = Some(u64::MAX);
                return Some(dense);
            }
            // Not PSNR's doing.
            squares = all;
            self.mind_ssim(level);
        }
        let order = self.order(slope, level);
        for _ in 0..GATE_TRIES {
            let change = order.prefix(dense.by.len(), squares.saturating_sub(MARKS));
            if change.squares() == 0 {
                return None;
            }
            if self.measure(&change).is_some() {
                self.allowed[usize::from(level)] = Some(squares);
                return Some(change);
            }
            squares = squares * GATE_CUT.0 / GATE_CUT.1;
        }
        None
    }
}
