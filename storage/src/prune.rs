//! Forgetting by policy.
//!
//! Counted in closed epochs: `n` keeps what is needed to replay the last `n` closed epochs and the
//! one in the making, from the block that closed the epoch before them. So `n = 0` keeps the running
//! epoch. Never removed, whatever the policy says:
//!
//! - the newest block, and genesis;
//! - header, certificate and following set of every change of the set: who checks a header of
//!   today from genesis needs all of them;
//! - header and certificate of every block that closed an epoch: a copy of the state there is
//!   worth nothing without them. Both are a few kilobytes per epoch.
//!
//! What is gone is told apart from what never was: [`Database::oldest`], [`StorageError::Pruned`].

use parking_lot::MutexGuard;
use perturb_ledger::archive::Oldest;
use perturb_ledger::{Block, Header, Transaction};
use perturb_types::encode;
use rocksdb::{IteratorMode, WriteBatch};

use crate::archive::{EPOCH_HEIGHTS, round_key, round_of};
use crate::database::{
    BLOCKS, CERTIFICATES, DIGESTS, Database, EPOCH_ROWS, HEADERS, META, PRUNED_PER_COMMIT, RECEIPTS, ROUNDS, height_key,
};
use crate::error::StorageError;
use crate::failpoint::Write;

/// Row of META: the lowest height above genesis whose block is here.
pub(crate) const OLDEST_BLOCK: &str = "oldest-block";
/// Row of META: the lowest height whose state can be proved, as far as pruning decides that.
pub(crate) const OLDEST_STATE: &str = "oldest-state";

/// Blocks removed in one batch: a commit waits for one batch, some milliseconds.
const BLOCKS_PER_BATCH: u64 = 64;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Closed epochs whose blocks and receipts are kept.
    pub blocks_epochs: u64,
    /// Closed epochs whose states are kept: whole copies at their ends, and proofs at every height.
    /// [`Options::kept_versions`](crate::Options::kept_versions) and
    /// [`Options::kept_epochs`](crate::Options::kept_epochs) bound them besides.
    pub state_epochs: u64,
    /// The height from which on blocks are kept in any case: what is still being checked rests on them.
    pub needed_from: u64,
}

impl Default for Retention {
    /// Everything.
    fn default() -> Self {
        Self { blocks_epochs: u64::MAX, state_epochs: u64::MAX, needed_from: u64::MAX }
    }
}

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blocks.
    pub blocks: u64,
    /// Copies of the state.
    pub copies: u64,
    /// Nodes and values of old Merkle trees.
    pub tree_rows: u64,
}

/// Hands the lock to a commit that waits for it: one that is merely let go would be taken again by the
/// next batch before the other has woken up.
fn let_others(alone: MutexGuard<'_, ()>) {
    MutexGuard::unlock_fair(alone);
}

/// Whether a block closes an epoch.
pub(crate) fn closes(block: &Block) -> bool {
    matches!(block.body.transactions.last(), Some(Transaction::EpochClose { .. }))
}

impl Database {
    /// From which heights on blocks and states are here. Genesis, and headers that changed the set
    /// or ended an epoch, are here in any case.
    ///
    /// # Errors
    /// The disk.
    pub fn oldest(&self) -> Result<Oldest, StorageError> {
        let tip = self.height()?.unwrap_or(0);
        let provable = tip.saturating_add(1).saturating_sub(self.inner.options.kept_versions).min(tip);
        Ok(Oldest {
            block: self.number(OLDEST_BLOCK)?.unwrap_or(0),
            state: self.number(OLDEST_STATE)?.unwrap_or(0).max(provable),
        })
    }

    /// A block that has to be here: what is missing says why.
    ///
    /// # Errors
    /// [`StorageError::Pruned`]; or it is damaged.
    pub fn held_block(&self, height: u64) -> Result<Option<Block>, StorageError> {
        if let Some(block) = self.block(height)? {
            return Ok(Some(block));
        }
        let oldest = self.oldest()?.block;
        if height < oldest {
            return Err(StorageError::Pruned { what: "block", height, oldest });
        }
        Ok(None)
    }

    /// A header that was there once, which a state or a certificate tells.
    ///
    /// # Errors
    /// [`StorageError::Pruned`]; or it is damaged.
    pub fn held_header(&self, height: u64) -> Result<Header, StorageError> {
        let oldest = self.oldest()?.block;
        self.header(height)?.ok_or(StorageError::Pruned { what: "header", height, oldest })
    }

    /// Removes what the policy does not keep, in bounded batches beside the commits. A crash leaves
    /// a database that has forgotten a part of it; the next call goes on.
    ///
    /// # Errors
    /// The disk, or a block that does not read back.
    pub fn prune(&self, policy: Retention) -> Result<Pruned, StorageError> {
        let Some(tip) = self.height()? else { return Ok(Pruned::default()) };
        let states = self.kept_from(tip, policy.state_epochs)?;
        let blocks = self.kept_from(tip, policy.blocks_epochs)?.min(policy.needed_from);
        let copies = self.prune_copies(states)?;
        let tree_rows = self.prune_states(states)?;
        Ok(Pruned { blocks: self.prune_blocks(blocks)?, copies, tree_rows })
    }

    /// The block that closed the epoch before the last `epochs` closed ones; the lowest that there is
    /// where the history is shorter.
    fn kept_from(&self, tip: u64, epochs: u64) -> Result<u64, StorageError> {
        let missing = |height: u64| StorageError::Damaged { what: format!("block {height}"), why: "missing".into() };
        let epoch = |height: u64| -> Result<u64, StorageError> {
            Ok(self.header(height)?.ok_or_else(|| missing(height))?.epoch)
        };
        // The header of the block that begins epoch n says n: it is the epoch in the making after it.
        let first = match epoch(tip)?.checked_sub(epochs) {
            Some(first) if first > 0 => first,
            _ => return Ok(0),
        };
        for row in self.inner.db.iterator_cf(self.family(HEADERS)?, IteratorMode::Start) {
            let (_, bytes) = row.map_err(|e| self.failed(e))?;
            let header: Header = self.parse("header", &bytes)?;
            if header.epoch >= first {
                return Ok(header.height);
            }
        }
        let (mut low, mut high) = (self.oldest()?.block.max(1).min(tip), tip);
        while low < high {
            let middle = low + (high - low) / 2;
            if epoch(middle)? >= first { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    fn prune_blocks(&self, before: u64) -> Result<u64, StorageError> {
        let (mut from, mut blocks) = (self.oldest()?.block.max(1), 0);
        while from < before {
            let to = before.min(from.saturating_add(BLOCKS_PER_BATCH));
            let alone = self.alone();
            let mut batch = WriteBatch::default();
            for height in from..to {
                self.drop_block(&mut batch, height)?;
            }
            batch.put_cf(self.family(META)?, OLDEST_BLOCK, height_key(to));
            self.write(Write::PruneBlocks, batch, true)?;
            let_others(alone);
            blocks += to - from;
            from = to;
        }
        Ok(blocks)
    }

    fn drop_block(&self, batch: &mut WriteBatch, height: u64) -> Result<(), StorageError> {
        let key = height_key(height);
        let Some(block) = self.block(height)? else { return Ok(()) };
        let header = &block.header;
        if closes(&block) || header.validators != header.next_validators {
            batch.put_cf(self.family(HEADERS)?, key, encode::encode(header));
        } else {
            batch.delete_cf(self.family(CERTIFICATES)?, key);
            batch.delete_cf(self.family(DIGESTS)?, header.digest(&header.network).0);
        }
        let rounds = self.family(ROUNDS)?;
        for transaction in &block.body.transactions {
            if let Some((kind, round)) = round_of(transaction) {
                batch.delete_cf(rounds, round_key(kind, &round));
            }
        }
        batch.delete_cf(self.family(RECEIPTS)?, key);
        batch.delete_cf(self.family(BLOCKS)?, key);
        Ok(())
    }

    fn prune_copies(&self, before: u64) -> Result<u64, StorageError> {
        let mut copies = 0;
        loop {
            let alone = self.alone();
            let mut heights = self.epoch_heights()?;
            let Some(oldest) = heights.first().copied().filter(|height| *height < before) else { return Ok(copies) };
            heights.remove(0);
            let mut batch = WriteBatch::default();
            let family = self.family(EPOCH_ROWS)?;
            batch.delete_range_cf(family, height_key(oldest), height_key(oldest.saturating_add(1)));
            batch.put_cf(self.family(META)?, EPOCH_HEIGHTS, encode::encode(&heights));
            self.write(Write::PruneStates, batch, true)?;
            let_others(alone);
            copies += 1;
        }
    }

    fn prune_states(&self, before: u64) -> Result<u64, StorageError> {
        let known = self.number(OLDEST_STATE)?.unwrap_or(0);
        if before == 0 || before < known {
            return Ok(0);
        }
        let (mut rows, mut from) = (0, Box::default());
        loop {
            let alone = self.alone();
            let mut batch = WriteBatch::default();
            let (dropped, last) = self.drop_stale(&mut batch, before, &from)?;
            from = last;
            if dropped == 0 && before == known {
                return Ok(rows);
            }
            // First the promise goes, then what it rests on: the next call removes what a crash leaves.
            batch.put_cf(self.family(META)?, OLDEST_STATE, height_key(before));
            self.write(Write::PruneTree, batch, true)?;
            let_others(alone);
            rows += dropped as u64;
            if dropped < PRUNED_PER_COMMIT {
                return Ok(rows);
            }
        }
    }
}
