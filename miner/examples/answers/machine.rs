//! A miner's machine in virtual time: every run is the same, whatever else this computer does.
//!
//! A call of the model costs a part of its own and a part for each pass; a backward pass counts as two. Nothing
//! else takes time, which favours who asks the model least: the library.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use perturb_challenge::pixels::Pixels;
use perturb_miner::model::{Levels, Model, ModelError, Passes, Pull};

/// What a model costs.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Microseconds of a call, whatever it asks.
    pub call_us: u64,
    /// Microseconds of one forward pass.
    pub forward_us: u64,
}

/// Where time is free: the night in which a library is made.
pub const NIGHT: Machine = Machine { call_us: 0, forward_us: 0 };

thread_local! {
    static HAND: Cell<u64> = const { Cell::new(0) };
}

/// The virtual clock of this thread.
pub fn now() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_micros(HAND.get())
}

/// A model that moves the clock.
pub struct Timed<'m> {
    /// What computes.
    pub model: &'m mut dyn Model,
    /// What it costs.
    pub machine: Machine,
}

impl Timed<'_> {
    fn charge(&self, forwards: usize, backwards: usize) {
        let passes = (forwards + 2 * backwards) as u64;
        HAND.set(HAND.get() + self.machine.call_us + passes * self.machine.forward_us);
    }
}

impl Model for Timed<'_> {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.charge(images.len(), 0);
        self.model.logits(images)
    }

    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.charge(images.len(), 0);
        self.model.float_logits(images)
    }

    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError> {
        self.charge(images.len(), pulls.len());
        self.model.gradients(images, pulls)
    }
}
