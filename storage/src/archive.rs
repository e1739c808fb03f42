//! The past, for those who check it.
//!
//! | column family | key | row |
//! |---|---|---|
//! | `handovers` | height u64 | the set that follows, where it is another one; kept for ever |
//! | `rounds` | kind u8 (0 opened, 1 closed, 2 its miners bound), challenge u16, validator 32, seq u64 | height u64, index u32 |
//! | `epoch-rows` | height u64, key of the state | the row after the closing block of an epoch |
//!
//! | `headers` | height u64 | the header of a set change or an epoch's end, once its block is pruned |
//!
//! Numbers in keys are big endian. The rows at an epoch's close are written with its block, all of
//! them: a copy of the state (some megabytes) once per epoch costs less than keeping every version of
//! every row with an index from key hashes back to keys, and a replay reads it in order: a row is
//! written once per epoch and read with one seek for the whole copy, where a walk over a tree of that
//! version takes a seek for each node and each value (about four per row), and the table of keys would
//! have to be written at every height. [`Options::kept_epochs`](crate::Options) of them stay, or fewer
//! by [`crate::Retention`].

use perturb_ledger::archive::{self, Archive, Oldest, Place, RoundPlaces, RoundStep, RowPage};
use perturb_ledger::light::Handover;
use perturb_ledger::proofs::StateProof;
use perturb_ledger::state::SET;
use perturb_ledger::{Block, Certificate, Commit, Header, Receipt, StoreError, Transaction};
use perturb_types::{NetworkId, RoundId, encode};
use rocksdb::{Direction, IteratorMode, WriteBatch};

use crate::database::{Database, EPOCH_ROWS, HANDOVERS, META, ROUNDS, VALUES, height_key};
use crate::error::StorageError;
use crate::prune::closes;

/// Row of META: the heights whose rows are kept, oldest first.
pub(crate) const EPOCH_HEIGHTS: &[u8] = b"epoch-heights";

pub(crate) fn round_key(kind: u8, round: &RoundId) -> Vec<u8> {
    [&[kind][..], &round.challenge.0.to_be_bytes(), &round.validator.0, &round.seq.to_be_bytes()].concat()
}

/// The round that an executed transaction is a step of, and which.
pub(crate) fn round_of(transaction: &Transaction) -> Option<(u8, RoundId)> {
    archive::round_of(transaction).map(|(step, round)| (step as u8, round))
}

impl Database {
    /// What a commit leaves for later readers.
    pub(crate) fn put_past(&self, batch: &mut WriteBatch, commit: &Commit) -> Result<(), StorageError> {
        let header = &commit.block.header;
        if header.validators != header.next_validators
            && let Some((_, Some(set))) = commit.values.iter().find(|(key, _)| key == SET)
        {
            batch.put_cf(self.family(HANDOVERS)?, height_key(commit.height), set);
        }
        self.put_rounds(batch, &commit.block)?;
        if closes(&commit.block) || commit.height == 0 { self.put_epoch_rows(batch, commit) } else { Ok(()) }
    }

    /// Where the rounds of a block are found.
    pub(crate) fn put_rounds(&self, batch: &mut WriteBatch, block: &Block) -> Result<(), StorageError> {
        let rounds = self.family(ROUNDS)?;
        for (index, transaction) in block.body.transactions.iter().enumerate() {
            if let Some((kind, round)) = round_of(transaction) {
                batch.put_cf(rounds, round_key(kind, &round), encode::encode(&(block.header.height, index as u32)));
            }
        }
        Ok(())
    }

    /// The whole state after this commit; the oldest copy goes.
    fn put_epoch_rows(&self, batch: &mut WriteBatch, commit: &Commit) -> Result<(), StorageError> {
        let (family, values) = (self.family(EPOCH_ROWS)?, self.family(VALUES)?);
        let height = height_key(commit.height);
        let at = |key: &[u8]| [height.as_slice(), key].concat();
        // What was there before, without what the commit changes, and then its changes.
        for row in self.inner.db.iterator_cf(values, IteratorMode::Start) {
            let (key, value) = row.map_err(|e| self.failed(e))?;
            if commit.values.binary_search_by(|(k, _)| k.as_slice().cmp(&key)).is_err() {
                batch.put_cf(family, at(&key), value);
            }
        }
        for (key, value) in &commit.values {
            if let Some(value) = value {
                batch.put_cf(family, at(key), value);
            }
        }
        let mut heights = self.epoch_heights()?;
        heights.push(commit.height);
        while heights.len() as u64 > self.inner.options.kept_epochs.max(1) {
            let oldest = heights.remove(0);
            batch.delete_range_cf(family, height_key(oldest), height_key(oldest + 1));
        }
        batch.put_cf(self.family(META)?, EPOCH_HEIGHTS, encode::encode(&heights));
        Ok(())
    }

    /// The heights whose whole state is kept, oldest first.
    ///
    /// # Errors
    /// The disk.
    pub fn epoch_heights(&self) -> Result<Vec<u64>, StorageError> {
        self.get(META, EPOCH_HEIGHTS)?.map_or(Ok(Vec::new()), |b| self.parse("heights of kept epochs", &b))
    }

    pub(crate) fn place(&self, kind: u8, round: &RoundId) -> Result<Option<Place>, StorageError> {
        let Some(bytes) = self.get(ROUNDS, &round_key(kind, round))? else { return Ok(None) };
        let (height, index): (u64, u32) = self.parse("place of a round", &bytes)?;
        Ok(Some(Place { height, index: index as usize }))
    }

    fn handovers(&self, from: u64, most: usize) -> Result<Vec<Handover>, StorageError> {
        let mut out = Vec::new();
        let from = height_key(from);
        let mode = IteratorMode::From(&from, Direction::Forward);
        for row in self.inner.db.iterator_cf(self.family(HANDOVERS)?, mode).take(most) {
            let (key, set) = row.map_err(|e| self.failed(e))?;
            let height = u64::from_be_bytes(key.as_ref().try_into().unwrap_or_default());
            let lost = || StorageError::Damaged { what: format!("handover {height}"), why: "its block is gone".into() };
            let header = self.header(height)?.ok_or_else(lost)?;
            let certificate = self.certificate(height)?.ok_or_else(lost)?;
            out.push(Handover { header, certificate, next: self.parse("validator set", &set)? });
        }
        Ok(out)
    }

    fn page(&self, height: u64, after: Option<&[u8]>, max_bytes: usize) -> Result<Option<RowPage>, StorageError> {
        if !self.epoch_heights()?.contains(&height) {
            return Ok(None);
        }
        let prefix = height_key(height);
        // The first key above `after`: it, and a zero byte.
        let from = match after {
            Some(after) => [prefix.as_slice(), after, &[0]].concat(),
            None => prefix.to_vec(),
        };
        let (mut page, mut bytes) = (RowPage::default(), 0);
        for row in self.inner.db.iterator_cf(self.family(EPOCH_ROWS)?, IteratorMode::From(&from, Direction::Forward)) {
            let (key, value) = row.map_err(|e| self.failed(e))?;
            let Some(key) = key.strip_prefix(prefix.as_slice()) else { break };
            bytes += key.len() + value.len();
            if bytes > max_bytes && !page.rows.is_empty() {
                page.more = true;
                break;
            }
            page.rows.push((key.to_vec(), value.into_vec()));
        }
        // Removed between the two reads: a state has rows, and an iterator sees all or none of them.
        if page.rows.is_empty() && !self.epoch_heights()?.contains(&height) {
            return Ok(None);
        }
        Ok(Some(page))
    }
}

fn store(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

impl Archive for Database {
    fn network(&self) -> Result<NetworkId, StoreError> {
        let header = self.header(0).map_err(store)?.ok_or_else(|| StoreError("the database is empty".into()))?;
        Ok(header.network)
    }

    fn tip(&self) -> Result<u64, StoreError> {
        self.height().map_err(store)?.ok_or_else(|| StoreError("the database is empty".into()))
    }

    fn oldest(&self) -> Result<Oldest, StoreError> {
        self.oldest().map_err(store)
    }

    fn block_at(&self, height: u64) -> Result<Option<(Block, Option<Certificate>)>, StoreError> {
        let Some(block) = self.block(height).map_err(store)? else { return Ok(None) };
        Ok(Some((block, self.certificate(height).map_err(store)?)))
    }

    fn header_at(&self, height: u64) -> Result<Option<(Header, Option<Certificate>)>, StoreError> {
        let Some(header) = self.header(height).map_err(store)? else { return Ok(None) };
        let certificate = self.certificate(height).map_err(store)?;
        // One without the other is being pruned at this moment.
        Ok((height == 0 || certificate.is_some()).then_some((header, certificate)))
    }

    fn receipts_at(&self, height: u64) -> Result<Option<Vec<Receipt>>, StoreError> {
        self.receipts(height).map_err(store)
    }

    fn handovers_from(&self, from: u64, most: usize) -> Result<Vec<Handover>, StoreError> {
        self.handovers(from, most).map_err(store)
    }

    fn proof_at(&self, height: u64, key: &[u8]) -> Result<Option<StateProof>, StoreError> {
        // Older trees are pruned, a piece at a time: what is left of them proves nothing.
        if height > self.tip()? || height < self.oldest().map_err(store)?.state {
            return Ok(None);
        }
        StateProof::make(self, height, key).map(Some)
    }

    fn rows_at(&self, height: u64, after: Option<&[u8]>, max_bytes: usize) -> Result<Option<RowPage>, StoreError> {
        self.page(height, after, max_bytes).map_err(store)
    }

    fn round_places(&self, round: &RoundId) -> Result<RoundPlaces, StoreError> {
        let place = |step| self.place(step as u8, round).map_err(store);
        let [opened, bound, closed] = [RoundStep::Opened, RoundStep::Bound, RoundStep::Closed].map(place);
        Ok(RoundPlaces { opened: opened?, bound: bound?, closed: closed? })
    }
}
