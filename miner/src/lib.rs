//! The miner: attacks that find the least change which fools a classifier, and the service that
//! answers validators with them.
//!
//! How the pieces stack:
//!
//! - [`gradient::GradientModel`] is a classifier one can differentiate, in plain 8-bit images:
//!   attacks know nothing of tensors. [`tensor::TensorModel`] makes one of a tch model.
//! - [`metered::Metered`] wraps it with a budget and a deadline *inside* the model: an attack can
//!   neither overrun nor miscount.
//! - [`criterion::Criterion`] says what a candidate is worth; [`criterion::RuleCriterion`] is the
//!   network's own verdict. Only it may call a candidate adversarial.
//! - [`attack::Attack`] searches. Its candidates are 8-bit images, its best one is kept by the
//!   context, so that a deadline never loses what was found.
//! - [`service::Service`] answers `/perturb/challenge/1`: digest first, image after.

pub mod attack;
pub mod criterion;
pub mod drill;
pub mod gradient;
pub mod metered;
pub mod service;
pub mod tensor;

pub use attack::{Attack, Context};
pub use criterion::{Criterion, RuleCriterion};
pub use gradient::GradientModel;
pub use metered::Metered;
pub use service::Service;
