//! Every rule that can be broken on purpose, in the machine or in its driver.

use clap::ValueEnum;
use perturb_consensus::Planted;

use crate::host::HostBug;

/// A planted bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Bug {
    /// Nothing is broken.
    #[default]
    None,
    /// Machine: the log is never synced before a message leaves.
    SkippedSync,
    /// Machine: a third of the power counts as a quorum.
    LowQuorum,
    /// Machine: a restart forgets the quorums of prevotes, and with them the lock.
    DroppedLocks,
    /// Machine: votes are never sent a second time.
    SilentRebroadcast,
    /// Machine: blocks count as valid without being executed.
    UncheckedRoots,
    /// Machine: votes are given at heights whose signatures were lost.
    UnmutedRestart,
    /// Machine: a fresh proposal may be as old as it likes.
    AgeUnbounded,
    /// Driver: the guard is rolled back with the database.
    GuardForgotten,
    /// Driver: a crash within a commit leaves half of it.
    TornCommit,
    /// Driver: messages leave before the log is synced.
    SpeaksFirst,
    /// Driver: the log is empty after a restart.
    LogCleared,
}

impl Bug {
    /// All that are bugs.
    pub const ALL: [Self; 11] = [
        Self::SkippedSync,
        Self::LowQuorum,
        Self::DroppedLocks,
        Self::SilentRebroadcast,
        Self::UncheckedRoots,
        Self::UnmutedRestart,
        Self::AgeUnbounded,
        Self::GuardForgotten,
        Self::TornCommit,
        Self::SpeaksFirst,
        Self::LogCleared,
    ];

    /// What it breaks in the machine.
    pub fn planted(self) -> Planted {
        match self {
            Self::SkippedSync => Planted::SkippedSync,
            Self::LowQuorum => Planted::LowQuorum,
            Self::DroppedLocks => Planted::DroppedLocks,
            Self::SilentRebroadcast => Planted::SilentRebroadcast,
            Self::UncheckedRoots => Planted::UncheckedRoots,
            Self::UnmutedRestart => Planted::UnmutedRestart,
            Self::AgeUnbounded => Planted::AgeUnbounded,
            _ => Planted::Nothing,
        }
    }

    /// What it breaks in the driver.
    pub fn host_bug(self) -> HostBug {
        match self {
            Self::GuardForgotten => HostBug::GuardForgotten,
            Self::TornCommit => HostBug::TornCommit,
            Self::SpeaksFirst => HostBug::SpeaksFirst,
            Self::LogCleared => HostBug::LogCleared,
            _ => HostBug::None,
        }
    }
}
