//! What can go wrong in an audit, and how the program says so.

use perturb_ledger::genesis::GenesisError;
use perturb_ledger::{BlockError, InclusionError, LedgerError, LightError, StoreError};

/// What an audit comes to; the number is the program's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Verdict {
    /// Everything that was asked for is proved.
    Ok = 0,
    /// Something is proved wrong, or what was given as a proof is none.
    Invalid = 1,
    /// The question makes no sense.
    Usage = 2,
    /// Nobody answered, or nobody holds what was asked for.
    Unavailable = 3,
    /// Consistent as far as it goes, but it leads to no point that the reader trusts.
    Untrusted = 4,
}

/// Why an audit does not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A header or a handover.
    #[error(transparent)]
    Light(#[from] LightError),
    /// A transaction in a block.
    #[error(transparent)]
    Inclusion(#[from] InclusionError),
    /// The genesis file.
    #[error("genesis: {0}")]
    Genesis(#[from] GenesisError),
    /// A block that does not follow.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A ledger that cannot be set up from what was given.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Something given as a proof that is none.
    #[error("{what}: {why}")]
    Invalid {
        /// What.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A node that does not answer, or not in the protocol.
    #[error("{node}: {why}")]
    Unavailable {
        /// The node.
        node: String,
        /// What happened.
        why: String,
    },
    /// A node that does not hold something.
    #[error("{node} does not hold {what}")]
    NotHeld {
        /// The node.
        node: String,
        /// What.
        what: String,
    },
    /// A node that held something once.
    #[error("{node} does not hold what {what} asks for any more: its past begins at height {oldest}")]
    Pruned {
        /// The node.
        node: String,
        /// The method.
        what: String,
        /// Where its past begins, as it says.
        oldest: u64,
    },
    /// No way from the data to a trusted point.
    #[error("{0}")]
    Untrusted(String),
    /// A question that makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl AuditError {
    /// Something that is no proof of what it should show.
    pub fn invalid(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Invalid { what: what.into(), why: shown(&why.to_string()) }
    }

    /// The verdict it leads to.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Light(e) | Self::Inclusion(InclusionError::Light(e)) => light(e),
            Self::Inclusion(_) | Self::Block(_) | Self::Ledger(_) | Self::Invalid { .. } => Verdict::Invalid,
            Self::Genesis(_) | Self::Usage(_) => Verdict::Usage,
            Self::Unavailable { .. } | Self::NotHeld { .. } | Self::Pruned { .. } => Verdict::Unavailable,
            Self::Untrusted(_) => Verdict::Untrusted,
        }
    }
}

/// Characters of a foreign text that are shown.
const MAX_SHOWN: usize = 300;

/// A text that others may have written: short, on one line, without control characters.
pub fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn light(error: &LightError) -> Verdict {
    if error.is_untrusted() { Verdict::Untrusted } else { Verdict::Invalid }
}

/// Rows from outside that make no state.
impl From<StoreError> for AuditError {
    fn from(e: StoreError) -> Self {
        Self::invalid("state", e.0)
    }
}
