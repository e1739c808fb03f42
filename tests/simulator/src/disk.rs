//! What a node's disk holds, and what is left of it after a power cut.

use std::collections::HashSet;

use perturb_consensus::GuardMark;
use perturb_consensus::record::Record;
use perturb_types::Digest;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::store::Store;

/// A log record with its checksum, as the storage room keeps it.
#[derive(Clone)]
struct Framed {
    height: u64,
    crc: u32,
    bytes: Vec<u8>,
}

/// A record of the synced log does not fit its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

/// A node's disk.
#[derive(Clone)]
pub struct Disk {
    /// The database.
    pub store: Store,
    /// The guard's file; always synced, never rolled back.
    pub guard: Option<GuardMark>,
    log: Vec<Framed>,
    /// Records at the front of `log` that are synced.
    synced: usize,
    /// Digests of the synced records.
    known: HashSet<Digest>,
    /// Writes fail.
    pub full: bool,
}

impl Disk {
    /// A disk with the genesis block.
    pub fn new(store: Store) -> Self {
        Self { store, guard: None, log: Vec::new(), synced: 0, known: HashSet::new(), full: false }
    }

    /// Appends a record, unsynced.
    pub fn append(&mut self, height: u64, bytes: Vec<u8>) {
        self.log.push(Framed { height, crc: crc32fast::hash(&bytes), bytes });
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self) {
        for record in &self.log[self.synced..] {
            self.known.insert(Digest::of(&record.bytes));
        }
        self.synced = self.log.len();
    }

    /// Whether this record is on disk.
    pub fn has_synced(&self, record: &Record) -> bool {
        self.known.contains(&Digest::of(&record.encode()))
    }

    /// A height is committed: its records go.
    pub fn clear(&mut self, height: u64) {
        self.log.retain(|r| r.height > height);
        self.synced = self.log.len();
        self.known = self.log.iter().map(|r| Digest::of(&r.bytes)).collect();
    }

    /// Power is lost: of what was not synced a random front part is left. Says whether a record
    /// was lost.
    pub fn lose_power(&mut self, rng: &mut ChaCha8Rng) -> bool {
        let unsynced = self.log.len() - self.synced;
        let kept = if unsynced == 0 { 0 } else { rng.random_range(0..=unsynced) };
        // A record cut in the middle does not fit its checksum and goes, as with RocksDB's own log.
        self.log.truncate(self.synced + kept);
        self.sync();
        kept < unsynced
    }

    /// Flips a bit of a synced record; false where there is none.
    pub fn flip(&mut self, rng: &mut ChaCha8Rng) -> bool {
        if self.log.is_empty() {
            return false;
        }
        let at = rng.random_range(0..self.log.len());
        let bytes = &mut self.log[at].bytes;
        let bit = rng.random_range(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        true
    }

    /// The log of the height in progress, in order.
    ///
    /// # Errors
    /// A record is damaged.
    pub fn records(&self, height: u64) -> Result<Vec<Vec<u8>>, Damaged> {
        let of_height = self.log.iter().filter(|r| r.height == height);
        of_height.map(|r| if crc32fast::hash(&r.bytes) == r.crc { Ok(r.bytes.clone()) } else { Err(Damaged) }).collect()
    }

    /// Everything but the guard begins anew from this store.
    pub fn replace(&mut self, store: Store) {
        self.store = store;
        self.log.clear();
        self.synced = 0;
        self.known.clear();
    }
}
