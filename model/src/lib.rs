//! Classifiers in libtorch, with their preprocessing inside the graph.
//!
//! The rule: a model takes 8-bit pixels and gives logits. Everything in between (conversion,
//! normalisation, resizing) belongs to the model and is differentiable, so that a gradient reaches
//! the very pixels that are measured and scored, and nobody can disagree about preprocessing.
//! Inference is fp32 with deterministic kernels and without TF32; see [`net`] for the layers.
//!
//! - [`TchClassifier`] is the embedded demo network (or a file of the same architecture) behind
//!   [`perturb_challenge::classifier::Classifier`]; [`Differentiable`] adds the gradient for miners.
//! - [`zoo`] holds the classifiers of the field with their libraries' own weights, and TorchScript;
//!   [`hub`] gets the weights by pinned digest.
//! - [`open()`] opens any of them by name.
//! - [`weights`] reads safetensors files as hostile input.
//! - [`train`] draws the data, trains and measures; [`histogram`] tells how hard the images are.
pub mod classifier;
pub mod error;
pub mod histogram;
pub mod hub;
pub mod net;
pub mod open;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod train;
pub mod weights;
pub mod zoo;

pub use classifier::{Differentiable, TchClassifier};
pub use error::{ModelError, WeightsError};
pub use hub::HubError;
pub use open::open;
pub use tensor::{DeviceChoice, input_gradient, margins, set_threads, to_pixels, to_tensor};
pub use zoo::{TorchScriptClassifier, ZooClassifier};
