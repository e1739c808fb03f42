//! The images that this validator owes: room for them before a round is opened, copies for the checks of
//! others' rounds, and when they go.
//!
//! A round's images are *pinned* while the agreed state still names it (it is open, waits for its draw, or
//! was drawn and is checked), or while its opening or result is on its way there. That is read anew each
//! time, so that a crash leaves no other truth about it. No room, no opening: a round whose images cannot
//! be shown when it is drawn would be held against its validator.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use color_eyre::eyre::{Result, bail};
use perturb_challenge::pixels::Pixels;
use perturb_ledger::query;
use perturb_storage::{Database, Room, StorageError, round_cost};
use perturb_types::{Hotkey, RoundId, limits};
use tokio_util::sync::CancellationToken;

use super::pending;

/// Epochs for which a round's images are kept where there is room.
const KEEP_EPOCHS: u64 = 4;

/// Time between two looks for images that have had their time.
const EVERY: Duration = Duration::from_secs(10);

/// One validator's images.
#[derive(Clone)]
pub struct Evidence {
    database: Database,
    me: Hotkey,
}

impl Evidence {
    /// In a database.
    pub fn new(database: Database, me: Hotkey) -> Self {
        Self { database, me }
    }

    /// The rounds whose images stay.
    ///
    /// # Errors
    /// The disk.
    pub fn pinned(&self) -> Result<BTreeSet<RoundId>, StorageError> {
        let mut rounds = query::owed(&self.database).map_err(|e| StorageError::Ledger(e.to_string()))?;
        rounds.extend(pending::rounds(&self.database, self.me)?);
        Ok(rounds)
    }

    /// Keeps a copy of an image of another validator's round, if there is room for it.
    ///
    /// # Errors
    /// The disk.
    pub fn copy(&self, round: &RoundId, png: &[u8]) -> Result<(), StorageError> {
        let epoch = query::meta(&self.database).map_err(|e| StorageError::Ledger(e.to_string()))?.epoch;
        let height = self.database.height()?.unwrap_or(0);
        if !self.database.keep_copy(round, epoch, height, png, &self.pinned()?)? {
            tracing::debug!(%round, bytes = png.len(), "no room for a copy of an image");
        }
        Ok(())
    }

    /// Forgets images that have had their time and are not owed any more.
    ///
    /// # Errors
    /// The disk.
    pub fn prune(&self) -> Result<(), StorageError> {
        let epoch = query::meta(&self.database).map_err(|e| StorageError::Ledger(e.to_string()))?.epoch;
        let rounds = self.database.prune_images(epoch.saturating_sub(KEEP_EPOCHS), &self.pinned()?)?;
        if rounds > 0 {
            tracing::info!(rounds, "the images of old epochs are gone");
        }
        Ok(())
    }

    /// Does that again and again, whether or not a round was closed.
    ///
    /// # Errors
    /// The disk.
    pub async fn keep(self, stop: CancellationToken) -> Result<()> {
        loop {
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.prune()).await??;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}

/// Room for the rounds of one challenge.
pub struct Rooms {
    evidence: Evidence,
    /// What the last round that found none would have needed: less is not asked for before the next draw,
    /// so that a full store does not use up an image with each try.
    wanted: AtomicU64,
}

impl Rooms {
    /// For one challenge.
    pub fn new(evidence: Evidence) -> Self {
        Self { evidence, wanted: AtomicU64::new(0) }
    }

    fn none<T>(&self, bytes: u64) -> Result<T> {
        let used = self.evidence.database.image_use();
        bail!(
            "no room for a round's images: {bytes} bytes are wanted, {} are taken by rounds that are still owed, {} by rounds in progress; see --max-image-mib",
            used.own,
            used.reserved
        )
    }

    /// Room before an image is drawn.
    ///
    /// # Errors
    /// The disk; or there is none.
    pub fn before_draw(&self) -> Result<Room> {
        let bytes = self.wanted.load(Ordering::Relaxed);
        let room = self.evidence.database.reserve_images(bytes, &self.evidence.pinned()?)?;
        room.map_or_else(|| self.none(bytes), Ok)
    }

    /// Makes it room for this image and an answer of the largest kind from each miner.
    ///
    /// # Errors
    /// The disk; or there is none.
    pub fn fit(&self, room: &mut Room, pixels: &Pixels, png: &[u8], miners: usize) -> Result<()> {
        let bytes = round_cost(png.len(), miners, limits::answer_bytes(pixels.width, pixels.height));
        let fits = room.resize(bytes, &self.evidence.pinned()?)?;
        self.wanted.store(if fits { 0 } else { bytes }, Ordering::Relaxed);
        if fits { Ok(()) } else { self.none(bytes) }
    }
}
