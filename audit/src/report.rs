//! What an audit says: a tree of steps for people, the same and a result for programs.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::error::{AuditError, Verdict};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It was checked and holds.
    Ok,
    /// It does not hold.
    Bad,
    /// For information; nothing follows from it.
    Note,
}

/// One step of an audit with those below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// How it ended.
    pub mark: Mark,
    /// What was done or found.
    pub text: String,
    /// Its parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

impl Step {
    /// A step that holds.
    pub fn ok(text: impl Into<String>) -> Self {
        Self { mark: Mark::Ok, text: text.into(), steps: Vec::new() }
    }

    /// A step that does not hold.
    pub fn bad(text: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, ..Self::ok(text) }
    }

    /// Something worth knowing.
    pub fn note(text: impl Into<String>) -> Self {
        Self { mark: Mark::Note, ..Self::ok(text) }
    }

    /// The step with parts.
    #[must_use]
    pub fn with(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    fn draw(&self, f: &mut fmt::Formatter<'_>, lead: &str, last: bool) -> fmt::Result {
        let sign = match self.mark {
            Mark::Ok => '✓',
            Mark::Bad => '✗',
            Mark::Note => '·',
        };
        writeln!(f, "{lead}{} {sign} {}", if last { "└─" } else { "├─" }, self.text)?;
        let lead = format!("{lead}{}", if last { "   " } else { "│  " });
        for (i, step) in self.steps.iter().enumerate() {
            step.draw(f, &lead, i + 1 == self.steps.len())?;
        }
        Ok(())
    }
}

/// The whole of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it comes to.
    pub verdict: Verdict,
    /// What was asked.
    pub title: String,
    /// What was done.
    pub steps: Vec<Step>,
    /// What was found; null where nothing was.
    pub result: Value,
}

impl Report {
    /// An audit that found something.
    pub fn new(verdict: Verdict, title: impl Into<String>, steps: Vec<Step>, result: Value) -> Self {
        Self { verdict, title: title.into(), steps, result }
    }

    /// An audit that ended with an error.
    pub fn failed(title: impl Into<String>, mut steps: Vec<Step>, error: &AuditError) -> Self {
        let text = error.to_string();
        // With one node, its step has said so.
        if !steps.last().is_some_and(|s| s.mark == Mark::Bad && s.text.ends_with(&text)) {
            steps.push(Step::bad(text));
        }
        Self::new(error.verdict(), title, steps, Value::Null)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Ok => "proved",
            Verdict::Invalid => "INVALID",
            Verdict::Usage => "cannot be asked",
            Verdict::Unavailable => "UNAVAILABLE",
            Verdict::Untrusted => "UNTRUSTED",
        };
        writeln!(f, "{}: {word}", self.title)?;
        for (i, step) in self.steps.iter().enumerate() {
            step.draw(f, "", i + 1 == self.steps.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_report_is_a_tree_for_people_and_an_object_for_programs() {
        let steps = vec![Step::ok("one").with([Step::note("part"), Step::bad("broken")]), Step::ok("two")];
        let report = Report::new(Verdict::Invalid, "root 7", steps, Value::Null);
        let drawn = "root 7: INVALID\n├─ ✓ one\n│  ├─ · part\n│  └─ ✗ broken\n└─ ✓ two\n";
        assert_eq!(report.to_string(), drawn);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["verdict"], "invalid");
        assert_eq!(json["steps"][0]["steps"][1]["mark"], "bad");
    }
}
