//! temp
/// Milliseconds.
pub type Millis = u64;
mod engine;
pub mod guard;
pub mod record;
mod sync;
pub mod wire;
