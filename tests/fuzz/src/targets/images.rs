//! Images of a data set: a picture of either format, and a parquet shard of them.

use std::fs;

use perturb_challenge::source::ImageSource;
use perturb_challenge::source::decode;
use perturb_challenge::source::digests::Digests;
use perturb_challenge::source::parquet::ParquetSource;
use perturb_challenge::{Pixels, PngLimits};

/// Small limits, so that an input cannot ask for megabytes.
const LIMITS: PngLimits = PngLimits { max_bytes: 1 << 20, max_side: 256, max_pixels: 1 << 16 };

/// Images drawn of a set that says it has more.
const MOST_DRAWN: u64 = 64;

/// A PNG or a JPEG.
pub fn picture(bytes: &[u8]) {
    decoded(bytes);
}

/// What the decoder makes of it, the same each time and within the limits.
pub fn decoded(bytes: &[u8]) -> Option<Pixels> {
    let pixels = decode::image(bytes, &LIMITS);
    assert!(decode::image(bytes, &LIMITS) == pixels, "two answers");
    let pixels = pixels.ok()?;
    assert!(pixels.width <= LIMITS.max_side && pixels.height <= LIMITS.max_side);
    assert!(pixels.rgb.len() as u64 == u64::from(pixels.width) * u64::from(pixels.height) * 3);
    Some(pixels)
}

/// A parquet file.
pub fn shard(bytes: &[u8]) {
    drawn(bytes);
}

/// Images drawn of a set of this one shard.
pub fn drawn(bytes: &[u8]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train-00000-of-00001.parquet"), bytes).unwrap();
    let open = || ParquetSource::open(folder.path(), Some("train"), &mut Digests::open(None), LIMITS);
    let Ok(set) = open() else { return 0 };
    assert!(open().unwrap().fingerprint() == set.fingerprint());
    let names = set.label_names();
    let mut drawn = 0;
    for index in 0..set.len().min(MOST_DRAWN) {
        let Ok(image) = set.get(index) else { continue };
        assert!(set.get(index).unwrap() == image, "two answers");
        assert!(image.label.is_none_or(|label| usize::from(label) < names.len()));
        drawn += 1;
    }
    assert!(set.get(set.len()).is_err(), "an image past the end");
    drawn
}
