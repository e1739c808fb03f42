//! When a subnet's epochs run, foreseen from one block's state: what a timelocked commit is timed by.
//!
//! An epoch runs in block `b`, where tempo ≠ 0, when `PendingEpochAt` > 0 is reached, or `b − LastEpochBlock ≥ tempo`,
//! or `BlocksSinceLastStep` > 50400. Within a block the chain first reveals, then runs epochs, then applies
//! extrinsics. Reveals therefore count an epoch that is due in their block as begun, and find the count of blocks
//! since the last epoch still without that block. Source: Subtensor's `block_step`, as the official SDK follows it.

use std::cmp::Ordering;

/// Longest tempo an owner may set; a subnet without an epoch for longer gets one.
pub const MAX_TEMPO: u64 = 50_400;
/// Longest reveal period that is simulated: Subtensor's own bound.
pub const MAX_REVEAL_PERIOD: u64 = 100;

/// The state of a subnet's epochs at one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSchedule {
    /// The block that this is the state of.
    pub block: u64,
    /// Block of the last epoch.
    pub last_epoch_block: u64,
    /// Block at which an epoch runs out of turn; 0: none.
    pub pending_epoch_at: u64,
    /// Epochs that have run.
    pub epoch_index: u64,
    /// Blocks between two epochs; 0: none run.
    pub tempo: u16,
    /// Blocks since the last epoch, by the chain's own count.
    pub blocks_since_last_step: u64,
}

/// A commit that would not be revealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The tempo is 0.
    #[error("the subnet runs no epochs (its tempo is 0), so no commit would be revealed")]
    NoEpochs,
    /// The period is out of bounds.
    #[error("the subnet's reveal period of {0} epochs is beyond the {MAX_REVEAL_PERIOD} that Subtensor allows")]
    LongPeriod(u64),
    /// An epoch that is due too long runs in the block before the next one is due: no reveal sees it.
    #[error("the epoch that would reveal a commit made now passes between two reveals; a block later it will not")]
    Skipped,
}

/// When a commit will be revealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reveal {
    /// The epoch that the chain files the commit under, if it gets into the next block.
    pub commit_epoch: u64,
    /// The first block in which the chain reveals it.
    pub block: u64,
}

impl EpochSchedule {
    /// Whether an epoch is due in `block`, `since` blocks after the last by the chain's count.
    fn is_due(&self, block: u64, since: u64) -> bool {
        self.tempo != 0
            && ((self.pending_epoch_at > 0 && block >= self.pending_epoch_at)
                || since > MAX_TEMPO
                || block.saturating_sub(self.last_epoch_block) >= u64::from(self.tempo))
    }

    /// The epoch that reveals and commits in the next block belong to: one that is due there has begun.
    fn next_block_epoch(&self) -> u64 {
        let due = self.is_due(self.block.saturating_add(1), self.blocks_since_last_step);
        self.epoch_index.saturating_add(u64::from(due))
    }

    /// The state after the next block.
    fn advance(&mut self) {
        self.block = self.block.saturating_add(1);
        self.blocks_since_last_step = self.blocks_since_last_step.saturating_add(1);
        if self.is_due(self.block, self.blocks_since_last_step) {
            self.last_epoch_block = self.block;
            self.pending_epoch_at = 0;
            self.epoch_index = self.epoch_index.saturating_add(1);
            self.blocks_since_last_step = 0;
        }
    }

    /// When a commit is revealed that gets into the block after this one, `period` epochs after its own.
    ///
    /// # Errors
    /// The subnet runs no epochs, or the period is beyond what is simulated.
    pub fn reveal_after(mut self, period: u64) -> Result<Reveal, ScheduleError> {
        if self.tempo == 0 {
            return Err(ScheduleError::NoEpochs);
        }
        if period > MAX_REVEAL_PERIOD {
            return Err(ScheduleError::LongPeriod(period));
        }
        let commit_epoch = self.next_block_epoch();
        let target = commit_epoch.saturating_add(period);
        // Every epoch comes within MAX_TEMPO + 1 blocks of the one before, so this ends.
        loop {
            // The chain reveals in exactly that epoch; commits of earlier ones it removes.
            match self.next_block_epoch().cmp(&target) {
                Ordering::Less => self.advance(),
                Ordering::Equal => return Ok(Reveal { commit_epoch, block: self.block.saturating_add(1) }),
                Ordering::Greater => return Err(ScheduleError::Skipped),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const AT_10: EpochSchedule = EpochSchedule {
        block: 10,
        last_epoch_block: 10,
        pending_epoch_at: 0,
        epoch_index: 4,
        tempo: 50,
        blocks_since_last_step: 0,
    };

    #[test]
    fn a_commit_is_revealed_where_the_next_epoch_is_due() {
        assert_eq!(AT_10.reveal_after(1).unwrap(), Reveal { commit_epoch: 4, block: 60 });
        assert_eq!(AT_10.reveal_after(3).unwrap(), Reveal { commit_epoch: 4, block: 160 });
        assert_eq!(AT_10.reveal_after(0).unwrap(), Reveal { commit_epoch: 4, block: 11 });
    }

    #[test]
    fn a_commit_into_the_block_of_an_epoch_belongs_to_that_epoch() {
        let before = EpochSchedule { block: 59, blocks_since_last_step: 49, ..AT_10 };
        assert_eq!(before.reveal_after(1).unwrap(), Reveal { commit_epoch: 5, block: 110 });
    }

    #[test]
    fn an_epoch_out_of_turn_moves_those_after_it() {
        let pending = EpochSchedule { pending_epoch_at: 30, ..AT_10 };
        assert_eq!(pending.reveal_after(1).unwrap().block, 30);
        assert_eq!(pending.reveal_after(2).unwrap().block, 80);
    }

    #[test]
    fn a_subnet_without_an_epoch_for_too_long_gets_one() {
        // The count passes 50400 in block 12, but a reveal sees that one block later.
        let silent = EpochSchedule {
            block: 11,
            last_epoch_block: 11,
            tempo: u16::MAX,
            blocks_since_last_step: MAX_TEMPO,
            ..AT_10
        };
        assert_eq!(silent.reveal_after(1).unwrap().block, 13);
    }

    #[test]
    fn an_epoch_that_no_reveal_sees_reveals_nothing() {
        // Found by comparing with the official core: the epoch runs in block 12, counted from 50401 blocks of silence,
        // and with a tempo of 1 the next is due in block 13, where the reveal would have seen it.
        let silent = EpochSchedule { tempo: 1, last_epoch_block: 100, blocks_since_last_step: MAX_TEMPO - 1, ..AT_10 };
        assert_eq!(silent.reveal_after(1), Err(ScheduleError::Skipped));
    }

    #[test]
    fn a_subnet_that_runs_no_epochs_takes_no_commits() {
        let stopped = EpochSchedule { tempo: 0, ..AT_10 };
        assert_eq!(stopped.reveal_after(1), Err(ScheduleError::NoEpochs));
        assert_eq!(AT_10.reveal_after(101), Err(ScheduleError::LongPeriod(101)));
    }
}
