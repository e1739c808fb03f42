//! Images by digest: they are the product, and until a round is settled they are its evidence.
//!
//! | column family | key | row |
//! |---|---|---|
//! | `images` | digest 32, place | PNG |
//! | `image-rounds` | place, digest 32 | length of the PNG u32 |
//!
//! A place is `shelf u8, validator 32, epoch u64, height u64, challenge u16, seq u64`, numbers big
//! endian. Both rows are written and removed in one batch. What there is room for, and what goes, says
//! [`crate::shelves`]. That the store is full is an outcome and never an error: a node at its limits does
//! without images before it does without votes. What is read is hashed again before it is handed out.

use std::collections::BTreeSet;

use perturb_types::{Digest, RoundId};
use rocksdb::{Direction, IteratorMode, WriteBatch};

use crate::database::{Database, IMAGE_ROUNDS, IMAGES};
use crate::error::StorageError;
use crate::failpoint::Write;
use crate::shelves::{Held, ImageUse, Place, Shelf, cost};

pub(crate) fn image_key(digest: &Digest, place: &[u8]) -> Vec<u8> {
    [&digest.0, place].concat()
}

/// Room for one round's images, made before it is opened. What is left of it is free again when this
/// goes; the round's images stay while this does.
#[must_use]
pub struct Room {
    database: Database,
    id: u64,
    place: Option<Place>,
}

impl Room {
    /// Changes how much is set aside for what is still to come; false where there is not so much room,
    /// and nothing is changed then.
    ///
    /// # Errors
    /// The disk.
    pub fn resize(&mut self, bytes: u64, pinned: &BTreeSet<RoundId>) -> Result<bool, StorageError> {
        let mut held = self.database.inner.images.lock();
        let more = bytes.saturating_sub(held.room(self.id));
        if !self.database.make_room(&mut held, Shelf::Own, more, None, pinned)? {
            held.refused();
            return Ok(false);
        }
        held.set_room(self.id, bytes);
        Ok(true)
    }

    /// Says whose images come: those of the own round that is opened in this epoch, after this height.
    pub fn begin(&mut self, round: &RoundId, epoch: u64, height: u64) {
        self.place = Some(Place::new(Shelf::Own, round, epoch, height));
        self.database.inner.images.lock().room_of(self.id, round);
    }

    /// Keeps an image of the round that was begun; false where there is none, or less room is left.
    ///
    /// # Errors
    /// The disk.
    pub fn keep(&mut self, png: &[u8]) -> Result<bool, StorageError> {
        let Some(place) = self.place else { return Ok(false) };
        let mut held = self.database.inner.images.lock();
        let (left, bytes) = (held.room(self.id), cost(png.len()));
        if bytes > left {
            return self.database.has_image(&place, &Digest::of(png));
        }
        if self.database.put_image(&mut held, place, png)? {
            held.set_room(self.id, left - bytes);
        }
        Ok(true)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.database.inner.images.lock().release(self.id);
    }
}

impl Database {
    /// Reads what is held.
    pub(crate) fn load_images(&self) -> Result<(), StorageError> {
        let mut held = Held::default();
        for row in self.inner.db.iterator_cf(self.family(IMAGE_ROUNDS)?, IteratorMode::Start) {
            let (key, len) = row.map_err(|e| self.failed(e))?;
            let (place, _, len) = self.index_row(&key, &len)?;
            held.add(place, cost(len));
        }
        *self.inner.images.lock() = held;
        Ok(())
    }

    /// A row of the index: place, digest, and length.
    pub(crate) fn index_row(&self, key: &[u8], len: &[u8]) -> Result<(Place, Digest, usize), StorageError> {
        let read = || {
            let (place, digest) = key.split_at_checked(Place::BYTES)?;
            let len = u32::from_be_bytes(len.try_into().ok()?);
            Some((Place::read(place)?, Digest(digest.try_into().ok()?), len as usize))
        };
        read().ok_or_else(|| StorageError::Damaged { what: "image index".into(), why: "a row of another shape".into() })
    }

    /// What the images take.
    #[must_use]
    pub fn image_use(&self) -> ImageUse {
        self.inner.images.lock().usage()
    }

    /// Room for so many bytes ([`crate::round_cost`]), made by dropping own rounds that nothing pins,
    /// oldest first; `None` where that is not enough.
    ///
    /// # Errors
    /// The disk.
    pub fn reserve_images(&self, bytes: u64, pinned: &BTreeSet<RoundId>) -> Result<Option<Room>, StorageError> {
        let mut held = self.inner.images.lock();
        if !self.make_room(&mut held, Shelf::Own, bytes, None, pinned)? {
            held.refused();
            return Ok(None);
        }
        let id = held.reserve(bytes);
        Ok(Some(Room { database: self.clone(), id, place: None }))
    }

    /// Keeps a copy of an image of another validator's round; false where there is no room for it.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_copy(
        &self,
        round: &RoundId,
        epoch: u64,
        height: u64,
        png: &[u8],
        pinned: &BTreeSet<RoundId>,
    ) -> Result<bool, StorageError> {
        let mut held = self.inner.images.lock();
        let place = Place::new(Shelf::Copies, round, epoch, height);
        if !self.make_room(&mut held, Shelf::Copies, cost(png.len()), Some(&place), pinned)? {
            return Ok(false);
        }
        self.put_image(&mut held, place, png)?;
        Ok(true)
    }

    /// An image by its digest, wherever there is a whole copy.
    ///
    /// # Errors
    /// The disk, or bytes that no longer have the digest.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StorageError> {
        let mut damaged = None;
        let from = IteratorMode::From(&digest.0, Direction::Forward);
        for row in self.inner.db.iterator_cf(self.family(IMAGES)?, from) {
            let (key, png) = row.map_err(|e| self.failed(e))?;
            if !key.starts_with(&digest.0) {
                break;
            }
            if Digest::of(&png) == *digest {
                return Ok(Some(png.into()));
            }
            let (what, why) = (format!("image {digest}"), "its bytes have another digest".into());
            damaged = Some(StorageError::Damaged { what, why });
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Forgets the images of epochs before this one that nothing pins, and what is over the quotas since
    /// they were lowered; returns how many rounds.
    ///
    /// # Errors
    /// The disk.
    pub fn prune_images(&self, before: u64, pinned: &BTreeSet<RoundId>) -> Result<u64, StorageError> {
        let old = self.inner.images.lock().outlived(before, pinned);
        for place in &old {
            // One at a time: a round in progress waits for no more than that.
            let mut held = self.inner.images.lock();
            self.drop_round(&mut held, place)?;
        }
        let mut held = self.inner.images.lock();
        for shelf in Shelf::ALL {
            self.make_room(&mut held, shelf, 0, None, pinned)?;
        }
        Ok(old.len() as u64)
    }

    fn make_room(
        &self,
        held: &mut Held,
        shelf: Shelf,
        wanted: u64,
        for_round: Option<&Place>,
        pinned: &BTreeSet<RoundId>,
    ) -> Result<bool, StorageError> {
        let limit = shelf.quota(self.inner.options.max_image_bytes);
        let Some(victims) = held.victims(shelf, limit, wanted, for_round, pinned) else { return Ok(false) };
        for place in &victims {
            self.drop_round(held, place)?;
            held.dropped();
        }
        Ok(true)
    }

    fn has_image(&self, place: &Place, digest: &Digest) -> Result<bool, StorageError> {
        Ok(self.get(IMAGE_ROUNDS, &[&place.key()[..], &digest.0].concat())?.is_some())
    }

    /// Whether it is new there.
    fn put_image(&self, held: &mut Held, place: Place, png: &[u8]) -> Result<bool, StorageError> {
        let (digest, at) = (Digest::of(png), place.key());
        if self.has_image(&place, &digest)? {
            return Ok(false);
        }
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(IMAGES)?, image_key(&digest, &at), png);
        let len = u32::try_from(png.len()).unwrap_or(u32::MAX).to_be_bytes();
        batch.put_cf(self.family(IMAGE_ROUNDS)?, [&at[..], &digest.0].concat(), len);
        self.write(Write::Image, batch, false)?;
        held.add(place, cost(png.len()));
        Ok(true)
    }

    /// All images of a round, or none of them.
    fn drop_round(&self, held: &mut Held, place: &Place) -> Result<(), StorageError> {
        let (images, rounds) = (self.family(IMAGES)?, self.family(IMAGE_ROUNDS)?);
        let (at, mut batch) = (place.key(), WriteBatch::default());
        for row in self.inner.db.iterator_cf(rounds, IteratorMode::From(&at, Direction::Forward)) {
            let (key, _) = row.map_err(|e| self.failed(e))?;
            let Some(digest) = key.strip_prefix(at.as_slice()) else { break };
            batch.delete_cf(images, [digest, &at].concat());
            batch.delete_cf(rounds, &key);
        }
        self.write(Write::ImagesPrune, batch, false)?;
        held.remove(place);
        Ok(())
    }
}
