//! Budget and deadline, enforced inside the model.
//!
//! A model may be wanted by several searches at once, each of whose clocks runs while it waits. A search
//! that finds nothing goes on to its deadline, which would cost the others their answers: while others
//! wait, it has its asker's part of the power of them all of its time. It ends where its asker has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use perturb_challenge::pixels::Pixels;

use crate::model::{Levels, Model, ModelError, Passes, Pull};
use crate::turns::Waits;

/// Passes spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Forward passes, one an image.
    pub forwards: u64,
    /// Backward passes, one a gradient.
    pub backwards: u64,
}

/// A model that counts and stops. A call that the budget does not cover is refused as a whole,
/// before the model sees it.
pub struct Metered<M> {
    inner: M,
    budget: u64,
    deadline: Option<Instant>,
    turn: Option<Share>,
    /// Whether the asker still waits.
    asked: Option<Waits>,
    clock: fn() -> Instant,
    spent: Spent,
    /// What a forward pass cost in the last call.
    forward: Option<Duration>,
}

/// A turn among others.
struct Share {
    began: Instant,
    /// The asker's power, and that of those who wait.
    power: u64,
    waiting: Arc<AtomicU64>,
}

/// A backward pass costs about as much as two forward passes.
const BACKWARD: usize = 2;

impl<M: Model> Metered<M> {
    /// Allows `budget` passes (forwards plus backwards) until `deadline`.
    pub fn new(inner: M, budget: u64, deadline: Option<Instant>) -> Self {
        let spent = Spent::default();
        Self { inner, budget, deadline, turn: None, asked: None, clock: Instant::now, spent, forward: None }
    }

    /// The same, on another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Instant) -> Self {
        self.clock = clock;
        self
    }

    /// The same, from now on for a share of the time while others wait for the model: the part of
    /// `power` in it and what waits.
    #[must_use]
    pub fn sharing(mut self, power: u64, waiting: Arc<AtomicU64>) -> Self {
        self.turn = Some(Share { began: (self.clock)(), power: power.max(1), waiting });
        self
    }

    /// The same, for as long as the asker waits.
    #[must_use]
    pub fn asked(mut self, waits: Waits) -> Self {
        self.asked = Some(waits);
        self
    }

    /// The moment at which it is over, as things stand.
    fn end(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        let Some(Share { began, power, waiting }) = &self.turn else { return Some(deadline) };
        let left = deadline.saturating_duration_since(*began).as_nanos();
        let all = u128::from(*power) + u128::from(waiting.load(Ordering::SeqCst));
        let share = left.saturating_mul(u128::from(*power)) / all;
        Some(*began + Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX)))
    }

    /// What was spent so far.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    fn charge(&mut self, forwards: usize, backwards: usize) -> Result<(), ModelError> {
        let has_left = self.asked.as_ref().is_some_and(|waits| !waits());
        if has_left || self.end().is_some_and(|end| (self.clock)() >= end) {
            return Err(ModelError::Deadline);
        }
        let (forwards, backwards) = (forwards as u64, backwards as u64);
        if self.spent.forwards + self.spent.backwards + forwards + backwards > self.budget {
            return Err(ModelError::Budget(self.budget));
        }
        self.spent.forwards += forwards;
        self.spent.backwards += backwards;
        Ok(())
    }

    /// Makes a call that is charged for, and remembers what it cost.
    fn timed<T>(
        &mut self,
        forwards: usize,
        backwards: usize,
        call: impl FnOnce(&mut M) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        self.charge(forwards, backwards)?;
        let began = (self.clock)();
        let out = call(&mut self.inner)?;
        let passes = u32::try_from(forwards + BACKWARD * backwards).unwrap_or(u32::MAX).max(1);
        self.forward = Some((self.clock)().saturating_duration_since(began) / passes);
        Ok(out)
    }
}

impl<M: Model> Model for Metered<M> {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.timed(images.len(), 0, |model| model.logits(images))
    }

    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.timed(images.len(), 0, |model| model.float_logits(images))
    }

    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError> {
        self.timed(images.len(), pulls.len(), |model| model.gradients(images, pulls))
    }

    fn forwards_left(&self) -> usize {
        let (Some(end), Some(forward)) = (self.end(), self.forward) else { return usize::MAX };
        let left = end.saturating_duration_since((self.clock)());
        usize::try_from(left.as_nanos() / forward.as_nanos().max(1)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::attack::tests::Linear;
    use crate::loss::Loss;

    fn pull() -> Pull {
        Pull { image: 0, label: 0, loss: Loss::Margin }
    }

    #[test]
    fn the_budget_ends_inside_the_model() {
        let image = Pixels::new(1, 1, vec![1, 2, 3]).unwrap();
        let floats = Levels::from(&image);
        let mut m = Metered::new(Linear::new(vec![1.0; 3]), 4, None);
        assert!(m.gradients(&[&floats], &[pull(), pull()]).is_ok());
        assert!(m.logits(&[&image]).is_ok());
        assert_eq!(m.logits(&[&image]), Err(ModelError::Budget(4)));
        assert_eq!(m.float_logits(&[&floats]), Err(ModelError::Budget(4)));
        assert_eq!(m.spent(), Spent { forwards: 2, backwards: 2 });
    }

    #[test]
    fn the_deadline_ends_inside_the_model() {
        let image = Pixels::new(1, 1, vec![1, 2, 3]).unwrap();
        let mut m = Metered::new(Linear::new(vec![1.0; 3]), 9, Some(Instant::now()));
        assert_eq!(m.logits(&[&image]), Err(ModelError::Deadline));
        assert_eq!(m.spent(), Spent::default());
    }

    thread_local! {
        static HAND: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    /// A clock whose hand, in milliseconds, the test moves.
    fn moved() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(HAND.get())
    }

    #[test]
    fn a_search_has_its_share_of_the_time_while_others_wait() {
        let image = Pixels::new(1, 1, vec![1, 2, 3]).unwrap();
        let waiting = Arc::new(AtomicU64::new(0));
        // Ten milliseconds have passed before its turn, sixty are left.
        let deadline = Some(moved() + Duration::from_millis(70));
        HAND.set(10);
        let mut m = Metered::new(Linear::new(vec![1.0; 3]), 99, deadline).with_clock(moved).sharing(1, waiting.clone());
        let mut at = |hand, others| {
            HAND.set(hand);
            waiting.store(others, Ordering::SeqCst);
            m.logits(&[&image]).is_ok()
        };
        assert!(at(69, 0) && at(39, 1) && at(29, 2));
        assert!(!at(70, 0) && !at(40, 1) && !at(30, 2));
        assert!(at(40, 0), "who no longer waits no longer counts");
    }

    #[test]
    fn a_search_has_the_part_of_its_askers_power_and_none_once_that_has_left() {
        let image = Pixels::new(1, 1, vec![1, 2, 3]).unwrap();
        let (waiting, here) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1)));
        HAND.set(0);
        let waits: Waits = {
            let here = here.clone();
            Arc::new(move || here.load(Ordering::SeqCst) > 0)
        };
        let deadline = Some(moved() + Duration::from_millis(100));
        let mut m = Metered::new(Linear::new(vec![1.0; 3]), 99, deadline).with_clock(moved);
        m = m.sharing(3, waiting.clone()).asked(waits);
        let mut at = |hand| {
            HAND.set(hand);
            m.logits(&[&image])
        };
        assert!(at(74).is_ok() && at(76) == Err(ModelError::Deadline), "three of four parts");
        waiting.store(0, Ordering::SeqCst);
        assert!(at(99).is_ok());
        here.store(0, Ordering::SeqCst);
        assert_eq!(at(0), Err(ModelError::Deadline));
    }

    /// A clock on which every look takes ten milliseconds.
    fn slow() -> Instant {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        static START: OnceLock<Instant> = OnceLock::new();
        static LOOKS: AtomicU64 = AtomicU64::new(0);
        let looks = LOOKS.fetch_add(1, Ordering::Relaxed);
        *START.get_or_init(Instant::now) + Duration::from_millis(10 * looks)
    }

    #[test]
    fn what_a_pass_cost_tells_how_many_still_fit() {
        let image = Pixels::new(1, 1, vec![1, 2, 3]).unwrap();
        let deadline = Some(slow() + Duration::from_millis(100));
        let mut m = Metered::new(Linear::new(vec![1.0; 3]), 9, deadline).with_clock(slow);
        assert_eq!(m.forwards_left(), usize::MAX, "nothing is known yet");
        m.logits(&[&image, &image]).unwrap();
        // Looks at 10, 20 and 30 ms, 5 ms a pass; the next look at 40 ms leaves 60.
        assert_eq!(m.forwards_left(), 12);
        assert_eq!(Metered::new(Linear::new(vec![1.0; 3]), 9, None).forwards_left(), usize::MAX);
    }
}
