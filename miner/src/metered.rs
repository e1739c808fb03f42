//! Budget and deadline, enforced inside the model.

use std::time::Instant;

use perturb_challenge::pixels::Pixels;

use crate::gradient::{GradientModel, MarginGradient, ModelError};

/// Passes spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Forward passes, one an image.
    pub forwards: u64,
    /// Backward passes, one an image.
    pub backwards: u64,
}

/// A model that counts and stops.
pub struct Metered<M> {
    inner: M,
    budget: u64,
    deadline: Option<Instant>,
    clock: fn() -> Instant,
    spent: Spent,
}

impl<M: GradientModel> Metered<M> {
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

    fn charge(&mut self, forwards: u64, backwards: u64) -> Result<(), ModelError> {
        if self.deadline.is_some_and(|d| (self.clock)() >= d) {
            return Err(ModelError::Deadline);
        }
        if self.spent.forwards + self.spent.backwards + forwards + backwards > self.budget {
            return Err(ModelError::Budget(self.budget));
        }
        self.spent.forwards += forwards;
        self.spent.backwards += backwards;
        Ok(())
    }
}

impl<M: GradientModel> GradientModel for Metered<M> {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.charge(images.len() as u64, 0)?;
        self.inner.logits(images)
    }

    fn margin_gradient(&mut self, image: &Pixels, label: u16) -> Result<MarginGradient, ModelError> {
        self.charge(1, 1)?;
        self.inner.margin_gradient(image, label)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::attack::tests::Linear;

    #[test]
    fn the_budget_ends_inside_the_model() {
        let image = Pixels::new(1, 1, vec![1, 2, 3]).unwrap();
        let mut m = Metered::new(Linear::new(vec![1.0; 3]), 3, None);
        assert!(m.margin_gradient(&image, 0).is_ok());
        assert!(m.logits(&[&image]).is_ok());
        assert_eq!(m.logits(&[&image]), Err(ModelError::Budget(3)));
        assert_eq!(m.spent(), Spent { forwards: 2, backwards: 1 });
    }

    #[test]
    fn the_deadline_ends_inside_the_model() {
        let image = Pixels::new(1, 1, vec![1, 2, 3]).unwrap();
        let mut m = Metered::new(Linear::new(vec![1.0; 3]), 9, Some(Instant::now()));
        assert_eq!(m.logits(&[&image]), Err(ModelError::Deadline));
        assert_eq!(m.spent(), Spent::default());
    }
}
