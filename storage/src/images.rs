//! Images by digest, kept for some epochs: they are the product.
//!
//! `epoch ‖ digest → PNG`, so that an epoch goes with one range; a digest is found by trying the
//! kept epochs, newest first. What is read is hashed again before it is handed out.

use perturb_types::Digest;
use rocksdb::{Direction, IteratorMode, WriteBatch};

use crate::database::{Database, IMAGES, META};
use crate::error::StorageError;
use crate::failpoint::Write;

/// Row of META: what all images take.
pub(crate) const IMAGE_BYTES: &[u8] = b"image-bytes";

fn key(epoch: u64, digest: &Digest) -> Vec<u8> {
    [epoch.to_be_bytes().as_slice(), &digest.0].concat()
}

impl Database {
    fn image_bytes(&self) -> Result<u64, StorageError> {
        let bytes = self.get(META, IMAGE_BYTES)?;
        Ok(bytes.and_then(|b| Some(u64::from_be_bytes(b.as_slice().try_into().ok()?))).unwrap_or(0))
    }

    /// Keeps an image with an epoch; returns its digest.
    ///
    /// # Errors
    /// The disk, or the bound on all images is reached.
    pub fn put_blob(&self, epoch: u64, png: &[u8]) -> Result<Digest, StorageError> {
        let digest = Digest::of(png);
        let key = key(epoch, &digest);
        if self.get(IMAGES, &key)?.is_some() {
            return Ok(digest);
        }
        let used = self.image_bytes()?.saturating_add(png.len() as u64);
        let limit = self.inner.options.max_image_bytes;
        if used > limit {
            return Err(StorageError::Full { used, limit });
        }
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(IMAGES)?, &key, png);
        batch.put_cf(self.family(META)?, IMAGE_BYTES, used.to_be_bytes());
        self.write(Write::Image, batch, false)?;
        Ok(digest)
    }

    /// The epochs that have images, newest first.
    fn image_epochs(&self) -> Result<Vec<u64>, StorageError> {
        let family = self.family(IMAGES)?;
        let (mut out, mut from) = (Vec::new(), 0u64);
        loop {
            let start = from.to_be_bytes();
            let next = self.inner.db.iterator_cf(family, IteratorMode::From(&start, Direction::Forward)).next();
            let Some((k, _)) = next.transpose().map_err(|e| self.failed(e))? else { break };
            let Some(epoch) = k.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes) else { break };
            out.push(epoch);
            let Some(after) = epoch.checked_add(1) else { break };
            from = after;
        }
        out.reverse();
        Ok(out)
    }

    /// An image by its digest.
    ///
    /// # Errors
    /// The disk, or bytes that no longer have the digest.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StorageError> {
        for epoch in self.image_epochs()? {
            let Some(png) = self.get(IMAGES, &key(epoch, digest))? else { continue };
            if Digest::of(&png) != *digest {
                return Err(StorageError::Damaged {
                    what: format!("image {digest}"),
                    why: "its bytes have another digest".into(),
                });
            }
            return Ok(Some(png));
        }
        Ok(None)
    }

    /// Forgets the images of epochs before this one.
    ///
    /// # Errors
    /// The disk.
    pub fn prune_blobs(&self, before: u64) -> Result<(), StorageError> {
        let family = self.family(IMAGES)?;
        let (mut batch, mut freed, mut any) = (WriteBatch::default(), 0u64, false);
        for row in self.inner.db.iterator_cf(family, IteratorMode::Start) {
            let (k, png) = row.map_err(|e| self.failed(e))?;
            let epoch = k.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
            if epoch >= before {
                break;
            }
            batch.delete_cf(family, &k);
            freed += png.len() as u64;
            any = true;
        }
        if !any {
            return Ok(());
        }
        let left = self.image_bytes()?.saturating_sub(freed);
        batch.put_cf(self.family(META)?, IMAGE_BYTES, left.to_be_bytes());
        self.write(Write::ImagesPrune, batch, false)
    }
}
