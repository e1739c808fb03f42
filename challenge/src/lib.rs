//! What a challenge is and what an answer to it is worth.
//!
//! Everything that is agreed here follows from 8-bit pixels by integer arithmetic, or by the
//! operations that IEEE 754 defines to the last bit (`+ - * /` and `sqrt`) in a fixed order, with
//! the pure-Rust `libm` for `exp`: so every validator reaches the same millionths.
//!
//! - [`pixels`]: images and the one PNG form that is accepted; [`classifier`]: the model's trait.
//! - [`rules`]: the two presets, gates, score and the verdict's re-derivation from a record.
//! - [`measure`]: L∞ level, sum of squares and SSIM; [`verify`]: the pipeline over an answer;
//!   [`recheck`]: whether what another machine recorded is possible; [`report`]: a verdict for people.
//! - [`history`], [`shares`], [`vector`]: from scores to the weights the chain stores.
//! - [`transform`], [`sampling`], [`used`], [`source`], [`construct`]: what a round is made of.
//! - [`semantics`]: whether two labels mean the same; [`payload`]: the JSON form of a challenge.
//! - [`pace`]: how long what blocks may go on; [`file`]: reading files that may be anything.
//!
//! What needs libraries for other formats or servers (parquet, JPEG, HTTP, a language model) is in the
//! feature `outside`; the ledger and the auditor do without.

pub mod classifier;
pub mod construct;
pub mod demo;
pub mod file;
pub mod history;
pub mod measure;
pub mod pace;
pub mod payload;
pub mod pixels;
mod png;
pub mod recheck;
#[cfg(feature = "outside")]
pub mod remote;
pub mod report;
pub mod rules;
pub mod sampling;
pub mod semantics;
pub mod shares;
#[cfg(feature = "outside")]
mod shelf;
pub mod source;
pub mod ssim;
mod stream;
pub mod transform;
pub mod used;
pub mod vector;
pub mod verify;

pub use classifier::{Classifier, ClassifierError};
pub use measure::measure;
pub use pixels::{Pixels, PngLimits};
pub use rules::Rules;
