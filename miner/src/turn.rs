//! One model, several validators: turns.
//!
//! Challenges that come at once are answered one after the other, and each one's clock runs while it
//! waits. A search that finds nothing goes on to its deadline; with others waiting that would cost them
//! their answers. So with n of them waiting a search has 1/(n + 1) of its time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use perturb_challenge::pixels::Pixels;

use crate::model::{Levels, Model, ModelError, Passes, Pull};

/// Counts who waits; gone with the wait.
pub(crate) struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    /// One more.
    pub(crate) fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A model during one search's turn.
pub(crate) struct Turn<'a, M> {
    inner: M,
    waiting: &'a AtomicU32,
    /// When the turn began.
    began: Instant,
    /// How long it may last with nobody waiting.
    allowed: Duration,
    clock: fn() -> Instant,
}

impl<'a, M: Model> Turn<'a, M> {
    /// A turn that begins at `began`.
    pub(crate) fn new(
        inner: M,
        waiting: &'a AtomicU32,
        began: Instant,
        allowed: Duration,
        clock: fn() -> Instant,
    ) -> Self {
        Self { inner, waiting, began, allowed, clock }
    }

    fn check(&self) -> Result<(), ModelError> {
        let share = self.allowed / (self.waiting.load(Ordering::SeqCst) + 1);
        match (self.clock)().saturating_duration_since(self.began) < share {
            true => Ok(()),
            false => Err(ModelError::Deadline),
        }
    }
}

impl<M: Model> Model for Turn<'_, M> {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.check()?;
        self.inner.logits(images)
    }

    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.check()?;
        self.inner.float_logits(images)
    }

    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError> {
        self.check()?;
        self.inner.gradients(images, pulls)
    }

    fn forwards_left(&self) -> usize {
        self.inner.forwards_left()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    struct Blank;

    impl Model for Blank {
        fn logits(&mut self, _: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
            Ok(Vec::new())
        }
        fn float_logits(&mut self, _: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
            Ok(Vec::new())
        }
        fn gradients(&mut self, _: &[&Levels], _: &[Pull]) -> Result<Passes, ModelError> {
            Ok(Passes::default())
        }
    }

    #[test]
    fn a_search_has_its_share_of_the_time_while_others_wait() {
        let count = AtomicU32::new(0);
        let began = Instant::now();
        // A clock that stands at a third of the time, or thereabouts.
        let mut turn = Turn::new(Blank, &count, began, Duration::from_secs(3_000_000), Instant::now);
        turn.began -= Duration::from_secs(1_100_000);
        assert!(turn.logits(&[]).is_ok());
        let first = Waiting::new(&count);
        assert!(turn.logits(&[]).is_ok(), "half of the time with one waiting");
        let second = Waiting::new(&count);
        assert_eq!(turn.gradients(&[], &[]), Err(ModelError::Deadline));
        drop(first);
        assert!(turn.float_logits(&[]).is_ok(), "whoever gives up waiting no longer counts");
        drop(second);
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }
}
