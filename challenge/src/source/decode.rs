//! Images as data sets hold them: PNG of the accepted kind, or JPEG.
//!
//! A JPEG does not say which pixels it stands for to the last bit: decoders differ in rounding and in
//! how they spread the colour. Rounds can be repeated only if every validator decodes alike, so one
//! decoder is used everywhere, by its integer code (no vector instructions, no floats), and
//! [`way_of_decoding`], which belongs to the fingerprint of each set that holds JPEGs, tells decoders
//! apart: a node that would see other pixels is refused when it opens the set, before it judges anybody.
//! It decodes a known picture by every path of the decoder's that is accepted:
//!
//! | colour | baseline | progressive |
//! |---|---|---|
//! | as it is | yes | yes |
//! | halved across | yes, and with restarts | yes |
//! | halved down | yes | yes |
//! | halved both ways | yes, and with restarts | yes, and with restarts |
//! | none: grey | with factors 1 and 2 | yes |
//!
//! What none of them stands for is refused: CMYK, colour stored as RGB, other ratios, and baseline
//! pictures with a scan for each component, of which the decoder makes something else than was drawn.
//!
//! Orientation tags are ignored: what counts is the raster. Grey pictures become RGB.

use std::panic::catch_unwind;

use perturb_types::Digest;
use sha2::{Digest as _, Sha256};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::jpeg::Coding;
use crate::pixels::{Pixels, PngLimits};

/// Scans of a progressive JPEG: each is a pass over the whole picture; encoders write about ten.
const MAX_SCANS: usize = 64;

/// What a JPEG begins with.
const JPEG_START: [u8; 3] = [0xff, 0xd8, 0xff];

/// Pictures with slopes, edges and noise, of sides that no block divides, one for each path; see the
/// table above.
const PROBES: [&[u8]; 14] = [
    PROBE,
    include_bytes!("probes/420-restart.jpg"),
    include_bytes!("probes/422.jpg"),
    include_bytes!("probes/422-restart.jpg"),
    include_bytes!("probes/440.jpg"),
    include_bytes!("probes/444.jpg"),
    include_bytes!("probes/grey.jpg"),
    include_bytes!("probes/grey-2x2.jpg"),
    include_bytes!("probes/progressive-420.jpg"),
    include_bytes!("probes/progressive-420-restart.jpg"),
    include_bytes!("probes/progressive-422.jpg"),
    include_bytes!("probes/progressive-440.jpg"),
    include_bytes!("probes/progressive-444.jpg"),
    include_bytes!("probes/progressive-grey.jpg"),
];

/// The usual JPEG: baseline, one scan, its colour at half the resolution.
const PROBE: &[u8] = include_bytes!("probes/420.jpg");

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
    let (colour, coding) = (decoder.input_colorspace(), Coding::read(bytes).ok_or("a JPEG without a scan")?);
    if !coding.probed() || !matches!(colour, Some(ColorSpace::YCbCr | ColorSpace::Luma)) {
        return Err(format!("{colour:?} by {coding:x?}: not among the JPEGs that every machine sees alike"));
    }
    let rgb = decoder.decode().map_err(|e| format!("not a JPEG that decodes: {e:?}"))?;
    Pixels::new(width as u32, height as u32, rgb).map_err(|e| e.to_string())
}

/// What this program's decoder makes of known pictures.
///
/// # Errors
/// It cannot decode one of them at all.
pub fn way_of_decoding() -> Result<Digest, String> {
    let mut h = Sha256::new().chain_update(b"perturb/jpeg-decoder/2");
    for probe in PROBES {
        let pixels = jpeg(probe, &PngLimits::default())?;
        h.update(pixels.width.to_le_bytes());
        h.update(pixels.height.to_le_bytes());
        h.update(&pixels.rgb);
    }
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
        const GREY: &[u8] = include_bytes!("probes/grey.jpg");
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
    const PINNED: &str = "7433dc1fc1225598aa13ae9be3f9d636b36822e439374d14ba0a574b710d0011";

    #[test]
    fn every_path_that_is_accepted_is_probed() {
        let all: Vec<Coding> = PROBES.iter().map(|p| Coding::read(p).unwrap()).collect();
        let has = |progressive, first, components, restarts| {
            let found = all.iter().any(|c| {
                (c.progressive, c.factors[0], c.factors.len(), c.restarts) == (progressive, first, components, restarts)
            });
            assert!(found, "{progressive} {first:x} {components} {restarts}");
        };
        for first in [0x11, 0x21, 0x12, 0x22] {
            has(false, first, 3, false);
            has(true, first, 3, false);
        }
        has(false, 0x21, 3, true);
        has(false, 0x22, 3, true);
        has(true, 0x22, 3, true);
        has(false, 0x11, 1, false);
        has(false, 0x22, 1, false);
        has(true, 0x11, 1, false);
        assert!(all.iter().all(Coding::probed));
    }

    #[test]
    fn all_paths_show_about_the_same_picture() {
        let drawn = image(include_bytes!("probes/444.jpg"), &PngLimits::default()).unwrap();
        for (n, probe) in PROBES.iter().enumerate() {
            let (pixels, coding) = (image(probe, &PngLimits::default()).unwrap(), Coding::read(probe).unwrap());
            if coding.factors.len() == 3 && pixels.width == drawn.width {
                let apart: u64 = pixels.rgb.iter().zip(&drawn.rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
                assert!(apart < 16 * drawn.rgb.len() as u64, "probe {n}: {apart}");
            }
        }
    }

    #[test]
    fn what_no_probe_stands_for_is_refused() {
        // The colour at a quarter of the width; half the colour at half of the width.
        let with = |first: u8, second: u8| {
            let mut bytes = include_bytes!("probes/444.jpg").to_vec();
            let at = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
            (bytes[at + 11], bytes[at + 14]) = (first, second);
            bytes
        };
        let cmyk = include_bytes!("probes/cmyk.jpg").to_vec();
        let scans = include_bytes!("probes/420-scans.jpg").to_vec();
        for bytes in [cmyk, scans, with(0x41, 0x11), with(0x22, 0x21)] {
            let refused = image(&bytes, &PngLimits::default()).unwrap_err();
            assert!(refused.contains("not among"), "{refused}");
        }
    }

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
