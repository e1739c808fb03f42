//! Several nodes: each may lie or be silent, one honest one suffices.

use crate::error::{AuditError, Verdict};
use crate::report::Step;
use crate::source::{Ask, Source};

/// The nodes that are asked, in order.
pub struct Nodes(pub Vec<Box<dyn Source>>);

impl Nodes {
    /// The first node's answer that holds; every node that was asked is a step.
    ///
    /// # Errors
    /// Nobody's does: the error that says most (a lie before a wrong network before silence).
    pub fn first<T>(
        &self,
        steps: &mut Vec<Step>,
        ask: impl Fn(Ask<'_>) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        self.first_of(steps, ask, "everything below was checked here")
    }

    /// As [`Nodes::first`], of a chain's nodes: nothing proves what they say.
    ///
    /// # Errors
    /// As there.
    pub fn first_believed<T>(
        &self,
        steps: &mut Vec<Step>,
        ask: impl Fn(Ask<'_>) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        self.first_of(steps, ask, "what it says of its blocks is believed")
    }

    fn first_of<T>(
        &self,
        steps: &mut Vec<Step>,
        ask: impl Fn(Ask<'_>) -> Result<T, AuditError>,
        then: &str,
    ) -> Result<T, AuditError> {
        let mut worst = None;
        for node in &self.0 {
            match ask(Ask(node.as_ref())) {
                Ok(found) => {
                    steps.push(Step::ok(format!("{} answered; {then}", node.name())));
                    return Ok(found);
                }
                Err(error) => {
                    steps.push(Step::bad(format!("{}: {error}", node.name())));
                    if worst.as_ref().is_none_or(|w: &AuditError| rank(&error) > rank(w)) {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| AuditError::Usage("no node to ask (--node)".into())))
    }

    /// Every node's answer.
    pub fn each<T>(&self, ask: impl Fn(Ask<'_>) -> Result<T, AuditError>) -> Vec<(&str, Result<T, AuditError>)> {
        self.0.iter().map(|node| (node.name(), ask(Ask(node.as_ref())))).collect()
    }
}

/// How much an error says.
fn rank(error: &AuditError) -> u8 {
    match error.verdict() {
        Verdict::Ok => 0,
        Verdict::Unavailable => 1,
        Verdict::Usage => 2,
        Verdict::Untrusted => 3,
        Verdict::Invalid => 4,
    }
}

/// The error that says most of several nodes' answers.
pub fn worst<'a>(errors: impl Iterator<Item = &'a AuditError>) -> Verdict {
    errors.max_by_key(|e| rank(e)).map_or(Verdict::Unavailable, AuditError::verdict)
}
