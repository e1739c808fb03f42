//! Images in parquet shards, as the hub keeps them: `clane9/imagenet-100` and sets of its layout.
//!
//! A shard has a column `image`, a struct of `bytes` (PNG or JPEG) and `path`, and usually a column
//! `label` of whole numbers; the names of both, and of the labels, stand in the footer under the key
//! `huggingface`. Image numbers run through the shards in the order of their names.
//!
//! Opening reads the footers and each shard's SHA-256 (computed once and remembered; where the hub's
//! cache keeps the file under a SHA-256, it must be that one). Drawing reads the pages that the row
//! lies in. Memory is a footer for each shard and one page. What was digested is what is read: the file
//! stays open, and one that changes afterwards is refused when an image is drawn from it.
//!
//! Fingerprint: the way of decoding, the label names, and for each shard its columns, rows and SHA-256.
//! Names of files and folders are not in it: a copy elsewhere is the same set.

mod features;
mod file;
pub mod hub;
mod layout;
mod shard;
mod thrift;

use std::path::Path;

use perturb_types::Digest;
use sha2::{Digest as _, Sha256};

pub(in crate::source) use self::features::fits;
use self::shard::{RowError, Shard};
use super::digests::Digests;
use super::{ImageSource, SourceError, SourceImage, decode};
use crate::pixels::PngLimits;
use crate::used::MAX_IMAGES;

/// The hub's name of ImageNet-100.
pub const IMAGENET_100: &str = "clane9/imagenet-100";

/// Bytes of all footers together: those of ImageNet's thousand classes have a tenth of it.
const MAX_FOOTERS: u64 = 64 << 20;

/// A set of parquet shards.
#[derive(Debug)]
pub struct ParquetSource {
    set: String,
    shards: Vec<Shard>,
    /// The first image of each shard.
    starts: Vec<u64>,
    len: u64,
    fingerprint: Digest,
    limits: PngLimits,
}

impl ParquetSource {
    /// ImageNet-100 in the hub's cache.
    ///
    /// # Errors
    /// It is not there, or a shard is refused.
    pub fn imagenet_100(
        cache: &Path,
        split: &str,
        revision: &str,
        digests: &mut Digests,
        limits: PngLimits,
    ) -> Result<Self, SourceError> {
        let refused = |why| SourceError::Set { set: format!("imagenet-100:{split}@{revision}"), why };
        let folder = hub::snapshot(cache, IMAGENET_100, revision).map_err(refused)?;
        Self::open(&folder, Some(split), digests, limits)
    }

    /// The parquet files of a folder, or of its folder `data`; with `split` those whose names begin
    /// with it.
    ///
    /// # Errors
    /// There are none, a shard of a series is missing, or one is refused.
    pub fn open(
        folder: &Path,
        split: Option<&str>,
        digests: &mut Digests,
        limits: PngLimits,
    ) -> Result<Self, SourceError> {
        Self::bounded(folder, split, digests, limits, MAX_FOOTERS)
    }

    fn bounded(
        folder: &Path,
        split: Option<&str>,
        digests: &mut Digests,
        limits: PngLimits,
        most: u64,
    ) -> Result<Self, SourceError> {
        let set = folder.display().to_string();
        let refused = |why| SourceError::Set { set: set.clone(), why };
        let mut all = Sha256::new().chain_update(b"perturb/parquet-set/1");
        all.update(decode::way_of_decoding().map_err(refused)?.0);
        let (mut shards, mut starts, mut len, mut footers) = (Vec::<Shard>::new(), Vec::new(), 0u64, 0u64);
        for path in hub::shards(folder, split).map_err(refused)? {
            let refused = |why| SourceError::Set { set: path.display().to_string(), why };
            let shard = Shard::open(&path).map_err(refused)?;
            let columns = shard.columns();
            match shards.first() {
                Some(first) if first.features != shard.features || first.columns() != columns => {
                    return Err(refused(format!("other columns or label names than {}", first.path.display())));
                }
                Some(_) => {}
                None => {
                    all.update((shard.features.names.len() as u64).to_le_bytes());
                    for name in &shard.features.names {
                        all.update((name.len() as u64).to_le_bytes());
                        all.update(name.as_bytes());
                    }
                }
            }
            footers += shard.footer;
            if footers > most {
                return Err(refused(format!("its footer and those before it have more than {most} bytes")));
            }
            let io = |error| SourceError::Io { path: path.clone(), error };
            let (file, stamp) = shard.file.file();
            let digest = digests.of(&path, file, stamp).map_err(io)?;
            if !shard.file.unchanged().map_err(io)? {
                return Err(SourceError::Changed { path });
            }
            if let Some(claimed) = hub::claimed(&path).filter(|claimed| *claimed != digest) {
                return Err(refused(format!("damaged: its SHA-256 is {digest}, the cache keeps it as {claimed}")));
            }
            all.update((columns.len() as u64).to_le_bytes());
            all.update(columns.as_bytes());
            all.update(shard.rows.to_le_bytes());
            all.update(digest.0);
            starts.push(len);
            len += shard.rows;
            shards.push(shard);
        }
        if len == 0 || len > MAX_IMAGES {
            return Err(refused(format!("{len} images; between 1 and {MAX_IMAGES} are needed")));
        }
        // What cannot be remembered is computed again next time.
        let _ = digests.save();
        Ok(Self { set, shards, starts, len, fingerprint: Digest(all.finalize().into()), limits })
    }

    /// Bytes read from all shards so far, the computing of digests aside.
    #[cfg(test)]
    fn bytes_read(&self) -> u64 {
        self.shards.iter().map(Shard::bytes_read).sum()
    }
}

impl ImageSource for ParquetSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    fn label_names(&self) -> Vec<String> {
        self.shards.first().map(|s| s.features.names.clone()).unwrap_or_default()
    }

    fn get(&self, index: u64) -> Result<SourceImage, SourceError> {
        let at = self.starts.partition_point(|start| *start <= index).saturating_sub(1);
        let range = SourceError::Range { index, len: self.len };
        let (Some(shard), Some(start)) = (self.shards.get(at), self.starts.get(at)) else { return Err(range) };
        if index >= self.len {
            return Err(range);
        }
        let fault = |why| SourceError::Image { set: self.set.clone(), index, why };
        let (bytes, label) = shard.row(index - start, self.limits.max_bytes).map_err(|e| match e {
            RowError::Row(why) => fault(why),
            RowError::Disk(error) => SourceError::Io { path: shard.path.clone(), error },
            RowError::Changed => SourceError::Changed { path: shard.path.clone() },
        })?;
        let pixels = decode::image(&bytes, &self.limits).map_err(fault)?;
        // A label without a name, or below zero (the hub's way of saying "none"), is none.
        let label = label.and_then(|l| u16::try_from(l).ok()).filter(|l| usize::from(*l) < shard.features.names.len());
        Ok(SourceImage { pixels, label })
    }
}

#[cfg(test)]
mod tests;
