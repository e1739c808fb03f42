//! What happened, as a hash, and as text where it is wanted.

use std::collections::VecDeque;

use sha2::{Digest as _, Sha256};

/// Lines kept for a violation's report.
const KEPT: usize = 200;

/// The history of a run.
pub struct Trace {
    hash: Sha256,
    text: bool,
    lines: VecDeque<String>,
    all: bool,
    /// Events so far.
    pub events: u64,
}

impl Trace {
    /// A trace; `text` keeps the last lines, `all` prints every line.
    pub fn new(text: bool, all: bool) -> Self {
        Self { hash: Sha256::new(), text: text || all, lines: VecDeque::new(), all, events: 0 }
    }

    /// Something happened: numbers into the hash, words for people.
    pub fn note(&mut self, numbers: &[u64], bytes: &[u8], words: impl FnOnce() -> String) {
        for n in numbers {
            self.hash.update(n.to_le_bytes());
        }
        self.hash.update(bytes);
        if self.text {
            let line = words();
            if self.all {
                println!("{line}");
            }
            if self.lines.len() == KEPT {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }

    /// The hash of everything noted, in hex.
    pub fn hash(&self) -> String {
        let digest = self.hash.clone().finalize();
        digest.iter().take(16).map(|b| format!("{b:02x}")).collect()
    }

    /// The last lines.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
