//! Budget and deadline, enforced inside the model.

use std::time::Instant;

use perturb_challenge::pixels::Pixels;

use crate::model::{Levels, Model, ModelError, Passes, Pull};

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
    clock: fn() -> Instant,
    spent: Spent,
}

impl<M: Model> Metered<M> {
    /// Allows `budget` passes (forwards plus backwards) until `deadline`.
    pub fn new(inner: M, budget: u64, deadline: Option<Instant>) -> Self {
        Self { inner, budget, deadline, clock: Instant::now, spent: Spent::default() }
    }

    /// The same, on another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Instant) -> Self {
        self.clock = clock;
        self
    }

    /// What was spent so far.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    fn charge(&mut self, forwards: usize, backwards: usize) -> Result<(), ModelError> {
        if self.deadline.is_some_and(|d| (self.clock)() >= d) {
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
}

impl<M: Model> Model for Metered<M> {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.charge(images.len(), 0)?;
        self.inner.logits(images)
    }

    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.charge(images.len(), 0)?;
        self.inner.float_logits(images)
    }

    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError> {
        self.charge(images.len(), pulls.len())?;
        self.inner.gradients(images, pulls)
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
}
