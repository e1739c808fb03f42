//! Every rule that can be broken on purpose: in the machine, in its driver, in everybody's ledger.

use clap::ValueEnum;
use perturb_consensus::Planted;

use crate::bent::LedgerBug;
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
    /// Ledger: see [`LedgerBug::KnownPulse`].
    KnownPulse,
    /// Ledger: see [`LedgerBug::ResultIgnored`].
    ResultIgnored,
    /// Ledger: see [`LedgerBug::UnknownShields`].
    UnknownShields,
    /// Ledger: see [`LedgerBug::OneAccuser`].
    OneAccuser,
    /// Ledger: see [`LedgerBug::IdleStays`].
    IdleStays,
    /// Ledger: see [`LedgerBug::OnlyTheBusiest`].
    OnlyTheBusiest,
    /// Ledger: see [`LedgerBug::UnboundAnswers`].
    UnboundAnswers,
}

impl Bug {
    /// All that are bugs.
    pub const ALL: [Self; 18] = [
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
        Self::KnownPulse,
        Self::ResultIgnored,
        Self::UnknownShields,
        Self::OneAccuser,
        Self::IdleStays,
        Self::OnlyTheBusiest,
        Self::UnboundAnswers,
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

    /// What it breaks in everybody's ledger.
    pub fn ledger_bug(self) -> LedgerBug {
        match self {
            Self::KnownPulse => LedgerBug::KnownPulse,
            Self::ResultIgnored => LedgerBug::ResultIgnored,
            Self::UnknownShields => LedgerBug::UnknownShields,
            Self::OneAccuser => LedgerBug::OneAccuser,
            Self::IdleStays => LedgerBug::IdleStays,
            Self::OnlyTheBusiest => LedgerBug::OnlyTheBusiest,
            Self::UnboundAnswers => LedgerBug::UnboundAnswers,
            _ => LedgerBug::None,
        }
    }
}
