//! Asking servers: a blocking HTTP client whose every request is bounded in bytes, time and tries.

mod breaker;
mod client;
mod pace;
#[cfg(test)]
pub(crate) mod testing;

pub use breaker::Breaker;
pub use client::{Client, ClientError, Patience, base};
pub use pace::{Pace, Wall};
