//! Where a challenge's images come from: fixed, numbered sets behind one trait.
//!
//! | agreed text | set | fingerprint over |
//! |---|---|---|
//! | `demo:SEED:LEN` | [`demo`]: drawn by the program | seed, length, the first image |
//! | `folder:PATH` | [`folder`]: the PNGs of a folder | names and bytes of the files |
//! | `imagenet-100:SPLIT` or `imagenet-100:SPLIT@REVISION` | [`parquet`] shards in the hub's cache | columns, label names, rows and bytes of each shard, the decoder |
//! | `parquet:PATH` | [`parquet`] shards of a folder | the same |
//! | `http:URL`, `https:URL` | [`http`]: an image API by label | label names, digests of the images, the decoder |
//!
//! The text and the fingerprint are agreed in the challenge's configuration. Two sets with the same
//! fingerprint give the same pixels for the same number, whoever holds them and wherever they lie:
//! that is what lets another validator repeat a round.
//!
//! What reads files of formats with many features, or asks servers, is compiled in by the feature
//! `outside`: the auditor and the ledger do without.

pub mod demo;
pub mod folder;

#[cfg(feature = "outside")]
pub mod decode;
#[cfg(feature = "outside")]
pub mod digests;
#[cfg(feature = "outside")]
pub mod http;
#[cfg(feature = "outside")]
mod jpeg;
#[cfg(feature = "outside")]
pub mod open;
#[cfg(feature = "outside")]
pub mod parquet;

use std::path::PathBuf;

use perturb_types::Digest;

pub use self::demo::DemoSource;
pub use self::folder::FolderSource;
use crate::pace::Until;
use crate::pixels::{DecodeError, Pixels};
use crate::used::MAX_IMAGES;

/// An image of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceImage {
    /// The image.
    pub pixels: Pixels,
    /// The set's own label, where it has one: a position in [`ImageSource::label_names`]. A round's
    /// label is the model's; this one says what a challenge was *wanted* of.
    pub label: Option<u16>,
}

/// An image that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No such image.
    #[error("image {index} of a set of {len}")]
    Range {
        /// The index asked for.
        index: u64,
        /// Images of the set.
        len: u64,
    },
    /// A file or folder that cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's complaint.
        error: std::io::Error,
    },
    /// A file that is no PNG of the accepted kind.
    #[error("{path}: {error}")]
    Png {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        error: DecodeError,
    },
    /// A file that changed since the set was opened.
    #[error("{path}: changed since the image set was opened; start again to use it")]
    Changed {
        /// Where.
        path: PathBuf,
    },
    /// A folder without PNGs, or with too many.
    #[error("{path}: {found} PNG files; between 1 and {MAX_IMAGES} are needed")]
    Count {
        /// Where.
        path: PathBuf,
        /// How many.
        found: u64,
    },
    /// An image of the set whose bytes do not decode; the other images are no worse for it.
    #[error("image {index} of {set}: {why}")]
    Image {
        /// The set.
        set: String,
        /// The image's number.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A set that is refused as a whole.
    #[error("{set}: {why}")]
    Set {
        /// The set, or the part of it that is at fault.
        set: String,
        /// What is wrong with it.
        why: String,
    },
    /// A server that cannot be reached, or does not answer as it should.
    #[error("{set}: {why}")]
    Away {
        /// The set.
        set: String,
        /// What happened.
        why: String,
    },
}

impl SourceError {
    /// Whether only this one image is at fault, so that another may be drawn instead.
    #[must_use]
    pub const fn one_image(&self) -> bool {
        matches!(self, Self::Image { .. })
    }
}

/// A fixed, numbered set of images.
pub trait ImageSource: Send + Sync {
    /// Images of the set.
    fn len(&self) -> u64;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A digest of what the set holds and in which order: another one is another set.
    fn fingerprint(&self) -> Digest;

    /// The set's own classes by name; empty where its images have no labels.
    fn label_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Image `index`, from 0. May read a disk or wait for a server, for a bounded time.
    ///
    /// # Errors
    /// Beyond the end, or unreadable.
    fn get(&self, index: u64) -> Result<SourceImage, SourceError>;

    /// The same, without beginning anything that takes long once the time is over.
    ///
    /// # Errors
    /// As [`Self::get`]; no time was left.
    fn get_until(&self, index: u64, until: &Until) -> Result<SourceImage, SourceError> {
        let _ = until;
        self.get(index)
    }
}
