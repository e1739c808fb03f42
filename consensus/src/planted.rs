//! Rules broken on purpose.
//!
//! The simulator's oracles must be able to fail: each variant breaks one rule of this wrapper, and a
//! test shows that the oracles find it. A node never runs with anything but [`Planted::Nothing`].

/// What is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Planted {
    /// Nothing.
    #[default]
    Nothing,
    /// The log is never synced before a message leaves.
    SkippedSync,
    /// A third of the power counts as a quorum: two of four.
    LowQuorum,
    /// A restarted node forgets the quorums of prevotes it has seen, and with them its lock.
    DroppedLocks,
    /// Votes are never sent a second time.
    SilentRebroadcast,
    /// A proposed block counts as valid without being executed.
    UncheckedRoots,
    /// Votes are given at every height, also where signatures were lost.
    UnmutedRestart,
    /// A fresh proposal may be as old as it likes.
    AgeUnbounded,
}
