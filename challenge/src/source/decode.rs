//! Images as data sets hold them: PNG of the accepted kind, or JPEG.
//!
//! A JPEG does not say which pixels it stands for to the last bit: decoders differ in rounding and in
//! how they spread the colour. Rounds can be repeated only if every validator decodes alike, so one
//! decoder is used everywhere, by its integer code (no vector instructions, no floats), and
//! [`way_of_decoding`], which belongs to the fingerprint of each set that holds JPEGs, tells decoders
//! apart: a node that would see other pixels is refused when it opens the set, before it judges anybody.
//!
//! Orientation tags are ignored: what counts is the raster. Grey and CMYK pictures become RGB.

use std::panic::catch_unwind;

use perturb_types::Digest;
use sha2::{Digest as _, Sha256};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::pixels::{Pixels, PngLimits};

/// Scans of a progressive JPEG: each is a pass over the whole picture; encoders write about ten.
const MAX_SCANS: usize = 64;

/// What a JPEG begins with.
const JPEG_START: [u8; 3] = [0xff, 0xd8, 0xff];

/// A picture with slopes, edges and noise, its colour at half the resolution.
const PROBE: &[u8] = include_bytes!("probe.jpg");

/// Decodes an image of a data set; what is too large is refused before it is decoded.
///
/// # Errors
/// What is wrong with it, for people.
pub fn image(bytes: &[u8], limits: &PngLimits) -> Result<Pixels, String> {
    if bytes.starts_with(&JPEG_START) { jpeg(bytes, limits) } else { png(bytes, limits) }
}

fn png(bytes: &[u8], limits: &PngLimits) -> Result<Pixels, String> {
    Pixels::decode_png(bytes, limits).map_err(|e| format!("neither a JPEG nor a PNG of the accepted kind: {e}"))
}

fn jpeg(bytes: &[u8], limits: &PngLimits) -> Result<Pixels, String> {
    if bytes.len() > limits.max_bytes {
        return Err(format!("{} bytes, at most {} are accepted", bytes.len(), limits.max_bytes));
    }
    let side = limits.max_side as usize;
    let options = DecoderOptions::default()
        .set_use_unsafe(false)
        .set_strict_mode(true)
        .set_max_width(side)
        .set_max_height(side)
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    // A fault of the decoder's is a fault of the image, as far as a round is concerned.
    catch_unwind(|| decoded(bytes, options, limits)).unwrap_or_else(|_| Err("a JPEG that contradicts itself".into()))
}

fn decoded(bytes: &[u8], options: DecoderOptions, limits: &PngLimits) -> Result<Pixels, String> {
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| format!("not a JPEG that decodes: {e:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("a JPEG without dimensions")?;
    let (width, height) = (width as u64, height as u64);
    if width * height > limits.max_pixels {
        return Err(format!("{width}×{height} pixels, at most {} are accepted", limits.max_pixels));
    }
    let rgb = decoder.decode().map_err(|e| format!("not a JPEG that decodes: {e:?}"))?;
    Pixels::new(width as u32, height as u32, rgb).map_err(|e| e.to_string())
}

/// What this program's decoder makes of a known picture.
///
/// # Errors
/// It cannot decode it at all.
pub fn way_of_decoding() -> Result<Digest, String> {
    let pixels = jpeg(PROBE, &PngLimits::default())?;
    let mut h = Sha256::new().chain_update(b"perturb/jpeg-decoder/1");
    h.update(pixels.width.to_le_bytes());
    h.update(pixels.height.to_le_bytes());
    h.update(&pixels.rgb);
    Ok(Digest(h.finalize().into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_jpeg_decodes_to_the_pixels_that_every_machine_sees() {
        let pixels = image(PROBE, &PngLimits::default()).unwrap();
        assert_eq!((pixels.width, pixels.height), (40, 24));
        assert_eq!(way_of_decoding().unwrap().to_string(), PINNED);
    }

    #[test]
    fn a_grey_picture_becomes_rgb() {
        const GREY: &[u8] = include_bytes!("grey.jpg");
        let (grey, colour) =
            (image(GREY, &PngLimits::default()).unwrap(), image(PROBE, &PngLimits::default()).unwrap());
        assert!(grey.rgb.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]));
        // The same drawing in both: they agree about how bright it is.
        let luma = |p: &[u8]| (299 * i64::from(p[0]) + 587 * i64::from(p[1]) + 114 * i64::from(p[2])) / 1000;
        let pairs = grey.rgb.chunks_exact(3).zip(colour.rgb.chunks_exact(3));
        let apart: i64 = pairs.map(|(g, c)| (luma(g) - luma(c)).abs()).sum();
        assert!(apart < 40 * 24 * 6, "{apart}");
    }

    /// Changes with the decoder: then it is another set for every network that uses JPEGs.
    const PINNED: &str = "2308ba45df879d5dc98dbc078754b7b316f91449f0a040d12a6b595977df8ea8";

    #[test]
    fn what_is_too_large_is_refused_by_its_header() {
        let small = PngLimits { max_side: 39, ..PngLimits::default() };
        assert!(image(PROBE, &small).is_err());
        let few = PngLimits { max_pixels: 40 * 24 - 1, ..PngLimits::default() };
        assert!(image(PROBE, &few).unwrap_err().contains("40×24"));
        let short = PngLimits { max_bytes: PROBE.len() - 1, ..PngLimits::default() };
        assert!(image(PROBE, &short).unwrap_err().contains("bytes"));
    }

    #[test]
    fn a_png_is_read_as_on_the_wire() {
        let pixels = Pixels::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(image(&pixels.encode_png().unwrap(), &PngLimits::default()).unwrap(), pixels);
        assert!(image(b"", &PngLimits::default()).is_err());
    }

    proptest! {
        #[test]
        fn a_damaged_jpeg_is_an_error_or_an_image_of_its_sides(
            at in 0..PROBE.len(), value: u8, cut in 0..PROBE.len(),
        ) {
            let mut bytes = PROBE.to_vec();
            bytes[at] = value;
            if let Ok(pixels) = image(&bytes, &PngLimits::default()) {
                prop_assert_eq!(pixels.rgb.len() as u64, u64::from(pixels.width) * u64::from(pixels.height) * 3);
            }
            let _ = image(&bytes[..cut], &PngLimits::default());
        }
    }
}
