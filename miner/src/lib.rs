//! The miner: attacks that find the least change which fools a classifier, and the service that
//! answers validators with them.
//!
//! How the pieces stack:
//!
//! - [`model::Model`] is a classifier one can differentiate, in batches of plain images: attacks know
//!   nothing of tensors. [`tensor::TensorModel`] makes one of a tch model; [`loss::Loss`] names what can
//!   be climbed.
//! - [`metered::Metered`] wraps it with a budget and a deadline *inside* the model: an attack can
//!   neither overrun nor miscount.
//! - [`criterion::Criterion`] says what a candidate is worth; [`criterion::RuleCriterion`] is the
//!   network's own verdict. Only it may call a candidate adversarial.
//! - [`attack::Attack`] searches, for a batch of images at once. Its candidates are 8-bit images
//!   ([`rounding`] makes them of what lies between the levels), each image's best one is kept by the
//!   context, so that a deadline never loses what was found.
//! - [`service::Service`] answers `/perturb/challenge/1`: only for rounds that are proved to be agreed
//!   ([`follow`] knows the validators), a commitment first, the image on proof of it. [`turns`] says whose
//!   turn it is at the model, [`book`] what became of each round.

pub mod attack;
pub mod book;
pub mod criterion;
pub mod drill;
pub mod follow;
pub mod loss;
pub mod metered;
pub mod model;
pub mod rounding;
pub mod service;
pub mod tensor;
pub mod turns;

pub use attack::{Attack, Context};
pub use criterion::{Criterion, RuleCriterion};
pub use follow::Follower;
pub use metered::Metered;
pub use model::Model;
pub use service::Service;
