//! Asking servers: a blocking HTTP client whose every request is bounded in bytes, time and tries.

mod aside;
mod breaker;
mod client;
mod reach;
#[cfg(test)]
pub(crate) mod testing;

pub use breaker::Breaker;
pub use client::{Client, ClientError, Patience, base};
pub use reach::Reach;

pub use crate::pace::{Pace, Wall};

/// Characters of somebody else's words that an error repeats.
const MAX_QUOTED: usize = 200;

/// An error's text, shortened: parsers quote what they do not like, however long it is.
pub(crate) fn cut(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shortened_at_a_character() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut("é".repeat(200)), "é".repeat(200));
        assert_eq!(cut("é".repeat(201)), format!("{}…", "é".repeat(200)));
    }
}
