//! Rules of the driver broken on purpose, like [`perturb_consensus::Planted`] of the machine.

/// What the simulated driver does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostBug {
    /// Nothing.
    #[default]
    None,
    /// The signing guard is rolled back together with the database.
    GuardForgotten,
    /// A crash within a commit leaves the rows of the height without its block.
    TornCommit,
    /// Messages leave before the actions ahead of them are done.
    SpeaksFirst,
    /// The log is cleared when a node starts instead of when a height is committed.
    LogCleared,
}
