//! What an attack works with: the images, the model, the criterion, and the best of each image.

use std::time::Instant;

use perturb_challenge::pixels::Pixels;
use perturb_types::Measurement;

use crate::criterion::{Criterion, Worth};
use crate::loss::{self, Loss};
use crate::model::{Levels, Model, ModelError, Pull, Pulled};
use crate::rounding::{Rounding, round};

/// Candidates that one call of the model judges at the most; fewer where the deadline is near. What was found
/// is kept after each call, so that a deadline in between takes nothing away.
const OFFER: usize = 64;

/// One in so many channel values is left as it is in a miner's own rounded candidates.
const LEFT_ALONE: u64 = 1024;

/// An image to attack.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The clean image.
    pub clean: &'a Pixels,
    /// Its label by the model.
    pub label: u16,
    /// A number of the miner's own, so that two miners with one attack and model do not give the
    /// same bytes: duplicates earn nothing. 0: no marks.
    pub salt: u64,
}

/// A candidate that the criterion accepted.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The image, 8-bit.
    pub image: Pixels,
    /// What it is worth.
    pub worth: Worth,
    /// Its measurement.
    pub measurement: Measurement,
    /// Milliseconds from the start until it was found.
    pub found_ms: u32,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// What it is worth, if the criterion accepts it.
    pub worth: Option<Worth>,
    /// Lead of the best other class over the label, millionths of a logit; `None` where the model was not asked
    /// or gave nothing finite.
    pub lead: Option<i64>,
}

/// A request for gradients at one image.
#[derive(Clone, Debug)]
pub struct Ask<'b> {
    /// Position of the task.
    pub task: usize,
    /// Where.
    pub at: &'b Levels,
    /// Of which losses.
    pub losses: &'b [Loss],
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug)]
pub struct Reply {
    /// Logits at the image.
    pub logits: Vec<f32>,
    /// Value and gradient of each loss.
    pub pulled: Vec<Pulled>,
}

/// A well-mixed number of a salt and an index (splitmix64's finaliser).
pub(crate) fn mix(salt: u64, index: u64) -> u64 {
    let mut z = salt.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What an attack works with.
pub struct Context<'a> {
    model: &'a mut dyn Model,
    criterion: &'a dyn Criterion,
    tasks: Vec<Task<'a>>,
    best: Vec<Option<Candidate>>,
    started: Instant,
    clock: fn() -> Instant,
}

impl<'a> Context<'a> {
    /// An attack on these images, beginning now.
    pub fn new(model: &'a mut dyn Model, criterion: &'a dyn Criterion, tasks: Vec<Task<'a>>) -> Self {
        let best = tasks.iter().map(|_| None).collect();
        Self { model, criterion, tasks, best, started: Instant::now(), clock: Instant::now }
    }

    /// The same, on a clock that began earlier: when the challenge came in.
    #[must_use]
    pub fn since(mut self, started: Instant, clock: fn() -> Instant) -> Self {
        (self.started, self.clock) = (started, clock);
        self
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// An image to attack.
    pub fn task(&self, i: usize) -> Task<'a> {
        self.tasks[i]
    }

    /// The criterion.
    pub fn criterion(&self) -> &'a dyn Criterion {
        self.criterion
    }

    /// Milliseconds since the start, shared among the images: what each has cost so far.
    pub fn elapsed_ms(&self) -> f64 {
        let all = (self.clock)().saturating_duration_since(self.started).as_secs_f64() * 1e3;
        all / self.tasks.len().max(1) as f64
    }

    /// The images that nothing was found for.
    pub fn open(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.best[i].is_none()).collect()
    }

    /// The best candidate of an image so far.
    pub fn best(&self, i: usize) -> Option<&Candidate> {
        self.best[i].as_ref()
    }

    pub(super) fn into_best(self) -> Vec<Option<Candidate>> {
        self.best
    }

    /// Whether these logits say another label than the task's.
    pub fn flipped(&self, i: usize, logits: &[f32]) -> bool {
        loss::margin(logits, self.tasks[i].label).is_some_and(|(_, lead)| lead > 0.0)
    }

    /// Gradients, in one call of the model.
    ///
    /// # Errors
    /// Budget, deadline or the model.
    pub fn gradients(&mut self, asks: &[Ask<'_>]) -> Result<Vec<Reply>, ModelError> {
        let images: Vec<&Levels> = asks.iter().map(|a| a.at).collect();
        let pulls: Vec<Pull> = asks
            .iter()
            .enumerate()
            .flat_map(|(image, a)| {
                let label = self.tasks[a.task].label;
                a.losses.iter().map(move |&loss| Pull { image, label, loss })
            })
            .collect();
        let passes = self.model.gradients(&images, &pulls)?;
        let mut pulled = passes.pulled.into_iter();
        let replies = asks.iter().zip(passes.logits);
        Ok(replies
            .map(|(a, logits)| Reply { logits, pulled: pulled.by_ref().take(a.losses.len()).collect() })
            .collect())
    }

    /// The gradient of one loss for each image.
    ///
    /// # Errors
    /// Budget, deadline or the model.
    pub fn gradient(&mut self, asks: &[(usize, &Levels, Loss)]) -> Result<Vec<(Vec<f32>, Pulled)>, ModelError> {
        let asks: Vec<Ask<'_>> =
            asks.iter().map(|(task, at, loss)| Ask { task: *task, at, losses: std::slice::from_ref(loss) }).collect();
        let replies = self.gradients(&asks)?;
        Ok(replies.into_iter().filter_map(|mut r| r.pulled.pop().map(|p| (r.logits, p))).collect())
    }

    /// Logits between the levels.
    ///
    /// # Errors
    /// Budget, deadline or the model.
    pub fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.model.float_logits(images)
    }

    /// Runs the model over candidates, `(task, image)`, and returns what each is worth; the best of
    /// each task is kept. Candidates whose pixels fail the gates cost no pass.
    ///
    /// # Errors
    /// Budget, deadline or the model.
    pub fn offer(&mut self, candidates: Vec<(usize, Pixels)>) -> Result<Vec<Trial>, ModelError> {
        self.judge(candidates, false)
    }

    /// [`Self::offer`] for searches that live on logits: the model is asked also where a gate fails.
    ///
    /// # Errors
    /// Budget, deadline or the model.
    pub fn probe(&mut self, candidates: Vec<(usize, Pixels)>) -> Result<Vec<Trial>, ModelError> {
        self.judge(candidates, true)
    }

    fn judge(&mut self, candidates: Vec<(usize, Pixels)>, all: bool) -> Result<Vec<Trial>, ModelError> {
        let gate = |(task, image): &(usize, Pixels)| self.criterion.gates(self.tasks[*task].clean, image);
        let passed: Vec<Option<Measurement>> = candidates.iter().map(gate).collect();
        let mut out = vec![Trial::default(); candidates.len()];
        let asked: Vec<usize> = (0..candidates.len()).filter(|&c| all || passed[c].is_some()).collect();
        let mut rest = asked.as_slice();
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(rest.len().min(self.model.forwards_left().clamp(1, OFFER)));
            rest = later;
            let images: Vec<&Pixels> = chunk.iter().map(|&c| &candidates[c].1).collect();
            let logits = self.model.logits(&images)?;
            for (&c, z) in chunk.iter().zip(&logits) {
                let (task, image) = (candidates[c].0, &candidates[c].1);
                out[c] = self.keep(task, image, passed[c], z);
            }
        }
        Ok(out)
    }

    /// Judges a candidate whose logits are known already; the best is kept.
    pub fn judge_known(&mut self, task: usize, image: &Pixels, logits: &[f32]) -> Trial {
        // Most points of a climb flip nothing, and the gates are dear beside a small model.
        let flips = self.flipped(task, logits);
        let measurement = if flips { self.criterion.gates(self.tasks[task].clean, image) } else { None };
        self.keep(task, image, measurement, logits)
    }

    fn keep(&mut self, task: usize, image: &Pixels, m: Option<Measurement>, logits: &[f32]) -> Trial {
        let label = self.tasks[task].label;
        let lead = loss::margin(logits, label).map(|(_, lead)| (f64::from(lead) * 1e6) as i64);
        let worth = m.and_then(|m| self.criterion.worth(&m, logits, label));
        if let (Some(measurement), Some(worth)) = (m, worth)
            && self.best[task].as_ref().is_none_or(|b| worth > b.worth)
        {
            let found_ms = self.elapsed_ms() as u32;
            self.best[task] = Some(Candidate { image: image.clone(), worth, measurement, found_ms });
        }
        Trial { worth, lead }
    }

    /// Offers images between the levels, `(task, image)`, rounded to the nearest level and away from the clean
    /// image, with the miner's marks; whether one of the two was accepted.
    ///
    /// # Errors
    /// Budget, deadline or the model.
    pub fn offer_rounded(&mut self, images: &[(usize, &Levels)]) -> Result<Vec<bool>, ModelError> {
        let mut candidates = Vec::with_capacity(2 * images.len());
        let mut owner = Vec::with_capacity(2 * images.len());
        for (at, (task, image)) in images.iter().enumerate() {
            let clean = self.tasks[*task].clean;
            let mut nearest = round(clean, image, Rounding::Nearest);
            let mut away = round(clean, image, Rounding::Away);
            self.mark(*task, &mut nearest);
            self.mark(*task, &mut away);
            if away != nearest {
                owner.push(at);
                candidates.push((*task, away));
            }
            owner.push(at);
            candidates.push((*task, nearest));
        }
        let trials = self.offer(candidates)?;
        let mut accepted = vec![false; images.len()];
        for (at, trial) in owner.into_iter().zip(trials) {
            accepted[at] |= trial.worth.is_some();
        }
        Ok(accepted)
    }

    /// Sets a few values back to the clean image's, others for each miner.
    pub fn mark(&self, task: usize, image: &mut Pixels) {
        let Task { clean, salt, .. } = self.tasks[task];
        if salt == 0 {
            return;
        }
        for (i, (x, c)) in image.rgb.iter_mut().zip(&clean.rgb).enumerate() {
            if mix(salt, i as u64).is_multiple_of(LEFT_ALONE) {
                *x = *c;
            }
        }
    }
}
