//! Transactions that wait for a block.
//!
//! A transaction enters if the runtime finds it valid on the newest state. Two transactions of one account with one
//! nonce exclude each other: the first stays. The pool is not stored; a restart forgets it, as a real node may.

use crate::chain::Outcome;
use crate::runtime::UncheckedExtrinsic;
use crate::runtime::extensions::nonce_tag;
use sp_core::H256;
use sp_runtime::AccountId32;
use sp_runtime::transaction_validity::ValidTransaction;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

/// Most transactions that wait; a full subnet of 256 neurons with a few each.
pub(crate) const MAX_WAITING: usize = 2048;

/// Most transactions tried in one block; the rest stay for the next.
pub(crate) const MAX_PER_BLOCK: usize = 512;

/// Blocks after which a transaction whose nonce never came up is dropped.
const MAX_BLOCKS_WAITING: u32 = 64;

/// Statuses one watcher can be behind: a transaction has at most four in its life.
pub(crate) const STATUS_BUFFER: usize = 8;

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It can be in the next block.
    Ready,
    /// It waits for an earlier nonce.
    Future,
    /// It is in this block.
    InBlock(H256),
    /// That block is final.
    Finalized(H256),
    /// It can never be included.
    Invalid,
    /// It waited too long.
    Dropped,
}

impl Status {
    /// Does nothing follow it.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Finalized(_) | Self::Invalid | Self::Dropped)
    }
}

/// Why a valid transaction does not enter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoolError {
    /// It waits already.
    #[error("Transaction is already imported")]
    AlreadyImported,
    /// Another one of the same account and nonce waits.
    #[error("Priority is too low: ({old} vs {new})")]
    TooLowPriority {
        /// Priority of the one that waits.
        old: u64,
        /// Priority of the one refused.
        new: u64,
    },
    /// There is no room.
    #[error("Immediately Dropped")]
    Full,
}

struct Waiting {
    extrinsic: UncheckedExtrinsic,
    bytes: Vec<u8>,
    hash: H256,
    provides: Vec<Vec<u8>>,
    priority: u64,
    blocks: u32,
    watchers: Vec<mpsc::Sender<Status>>,
}

/// The pool.
#[derive(Default)]
pub(crate) struct Pool {
    /// In the order of arrival.
    waiting: BTreeMap<u64, Waiting>,
    hashes: BTreeSet<H256>,
    tags: BTreeMap<Vec<u8>, u64>,
    next: u64,
}

impl Pool {
    /// Let a valid transaction wait; its watcher is told so at once.
    pub(crate) fn add(
        &mut self,
        hash: H256,
        (extrinsic, bytes): (UncheckedExtrinsic, Vec<u8>),
        validity: ValidTransaction,
        watcher: Option<mpsc::Sender<Status>>,
    ) -> Result<(), PoolError> {
        if self.hashes.contains(&hash) {
            return Err(PoolError::AlreadyImported);
        }
        let rival = validity.provides.iter().find_map(|tag| self.tags.get(tag));
        if let Some(old) = rival.and_then(|place| self.waiting.get(place)) {
            return Err(PoolError::TooLowPriority { old: old.priority, new: validity.priority });
        }
        if self.waiting.len() >= MAX_WAITING {
            return Err(PoolError::Full);
        }
        let ready = validity.requires.iter().all(|tag| self.tags.contains_key(tag));
        let place = self.next;
        self.next += 1;
        self.hashes.insert(hash);
        self.tags.extend(validity.provides.iter().map(|tag| (tag.clone(), place)));
        let waiting = Waiting {
            extrinsic,
            bytes,
            hash,
            provides: validity.provides,
            priority: validity.priority,
            blocks: 0,
            watchers: watcher.into_iter().collect(),
        };
        waiting.tell(&if ready { Status::Ready } else { Status::Future });
        self.waiting.insert(place, waiting);
        Ok(())
    }

    /// Places and transactions for the next block.
    pub(crate) fn next_block(&self) -> (Vec<u64>, Vec<UncheckedExtrinsic>) {
        self.waiting.iter().take(MAX_PER_BLOCK).map(|(place, waiting)| (*place, waiting.extrinsic.clone())).unzip()
    }

    /// Tell the watchers what became of transactions in the block `hash`, and forget those that are done.
    pub(crate) fn settle(&mut self, places: &[u64], outcomes: &[Outcome], hash: H256) {
        for (place, outcome) in places.iter().zip(outcomes) {
            let last: &[Status] = match outcome {
                Outcome::Included => &[Status::InBlock(hash), Status::Finalized(hash)],
                Outcome::Invalid(_) => &[Status::Invalid],
                Outcome::Later => {
                    let Some(waiting) = self.waiting.get_mut(place) else { continue };
                    waiting.blocks += 1;
                    if waiting.blocks < MAX_BLOCKS_WAITING {
                        continue;
                    }
                    &[Status::Dropped]
                }
            };
            self.remove(*place, last);
        }
    }

    /// Forget these transactions as invalid.
    pub(crate) fn reject(&mut self, places: &[u64]) {
        for place in places {
            self.remove(*place, &[Status::Invalid]);
        }
    }

    fn remove(&mut self, place: u64, last: &[Status]) {
        let Some(waiting) = self.waiting.remove(&place) else { return };
        self.hashes.remove(&waiting.hash);
        for tag in &waiting.provides {
            self.tags.remove(tag);
        }
        for status in last {
            waiting.tell(status);
        }
    }

    /// Bytes of all waiting transactions, in the order of arrival.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        self.waiting.values().map(|waiting| waiting.bytes.clone()).collect()
    }

    /// The account's next nonce: that of the state, or the first after it that no waiting transaction has.
    pub(crate) fn next_nonce(&self, who: &AccountId32, mut nonce: u32) -> u32 {
        while self.tags.contains_key(&nonce_tag(who, nonce)) {
            nonce = nonce.saturating_add(1);
        }
        nonce
    }
}

impl Waiting {
    fn tell(&self, status: &Status) {
        for watcher in &self.watchers {
            // A watcher that went away or does not listen misses it; that is its own loss.
            drop(watcher.try_send(status.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::runtime::RuntimeCall;

    fn extrinsic(remark: u8) -> (UncheckedExtrinsic, Vec<u8>) {
        let call = RuntimeCall::System(frame_system::Call::remark { remark: vec![remark] });
        (UncheckedExtrinsic::new_bare(call), vec![remark])
    }

    fn validity(who: &AccountId32, nonce: u32, ready: bool) -> ValidTransaction {
        ValidTransaction {
            requires: if ready { vec![] } else { vec![nonce_tag(who, nonce - 1)] },
            provides: vec![nonce_tag(who, nonce)],
            ..ValidTransaction::default()
        }
    }

    #[test]
    fn one_nonce_has_one_place_and_the_next_nonce_comes_after_it() {
        let who = AccountId32::new([1; 32]);
        let mut pool = Pool::default();
        let hash = H256::repeat_byte;
        pool.add(hash(1), extrinsic(1), validity(&who, 5, true), None).unwrap();
        assert_eq!(pool.add(hash(1), extrinsic(1), validity(&who, 5, true), None), Err(PoolError::AlreadyImported));
        let rival = pool.add(hash(2), extrinsic(2), validity(&who, 5, true), None);
        assert_eq!(rival, Err(PoolError::TooLowPriority { old: 0, new: 0 }));
        assert_eq!(pool.next_nonce(&who, 5), 6);
        assert_eq!(pool.next_nonce(&who, 4), 4);
    }

    #[test]
    fn watchers_hear_of_every_step_and_the_place_is_free_again() {
        let who = AccountId32::new([1; 32]);
        let mut pool = Pool::default();
        let (sender, mut watcher) = mpsc::channel(STATUS_BUFFER);
        pool.add(H256::zero(), extrinsic(1), validity(&who, 1, false), Some(sender)).unwrap();
        assert_eq!(watcher.try_recv().unwrap(), Status::Future);
        let (places, transactions) = pool.next_block();
        assert_eq!(transactions.len(), 1);
        pool.settle(&places, &[Outcome::Later], H256::zero());
        let block = H256::repeat_byte(7);
        pool.settle(&places, &[Outcome::Included], block);
        assert_eq!(watcher.try_recv().unwrap(), Status::InBlock(block));
        assert_eq!(watcher.try_recv().unwrap(), Status::Finalized(block));
        assert!(pool.bytes().is_empty());
        pool.add(H256::zero(), extrinsic(1), validity(&who, 1, true), None).unwrap();
    }

    #[test]
    fn a_nonce_that_never_comes_up_is_dropped_and_the_pool_is_bounded() {
        let who = AccountId32::new([1; 32]);
        let mut pool = Pool::default();
        let (sender, mut watcher) = mpsc::channel(STATUS_BUFFER);
        pool.add(H256::zero(), extrinsic(1), validity(&who, 9, false), Some(sender)).unwrap();
        let (places, _) = pool.next_block();
        for _ in 0..MAX_BLOCKS_WAITING {
            pool.settle(&places, &[Outcome::Later], H256::zero());
        }
        assert_eq!(watcher.try_recv().unwrap(), Status::Future);
        assert_eq!(watcher.try_recv().unwrap(), Status::Dropped);
        for nonce in 0..MAX_WAITING as u32 {
            let hash = H256::from_low_u64_be(u64::from(nonce));
            pool.add(hash, extrinsic(1), validity(&who, nonce, true), None).unwrap();
        }
        let one_more = pool.add(H256::repeat_byte(9), extrinsic(1), validity(&who, u32::MAX, true), None);
        assert_eq!(one_more, Err(PoolError::Full));
    }
}
