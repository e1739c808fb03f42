//! Tests of the PNG reader, mostly on hostile files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use proptest::prelude::*;

fn limits() -> PngLimits {
    PngLimits::default()
}

fn noise(width: u32, height: u32) -> Pixels {
    Pixels::new(width, height, (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect())
        .unwrap()
}

fn crc(bytes: &[u8]) -> u32 {
    let mut c = !0u32;
    for b in bytes {
        c ^= u32::from(*b);
        for _ in 0..8 {
            c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
        }
    }
    !c
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
    [&[0x89, b'P', b'N', b'G', 13, 10, 26, 10][..], &chunks.concat()].concat()
}

fn ihdr(width: u32, height: u32, tail: [u8; 5]) -> Vec<u8> {
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &tail].concat())
}

/// The IDAT chunks of an encoded image, as one.
fn image_data(p: &Pixels) -> Vec<u8> {
    let png = p.encode_png().unwrap();
    png[33..png.len() - 12].to_vec()
}

const RGB8: [u8; 5] = [8, 2, 0, 0, 0];

#[test]
fn a_buffer_must_fit_its_sides() {
    assert!(Pixels::new(2, 2, vec![0; 12]).is_ok());
    assert!(Pixels::new(2, 2, vec![0; 11]).is_err());
    assert!(Pixels::new(0, 2, vec![]).is_err());
    assert!(Pixels::new(u32::MAX, u32::MAX, vec![]).is_err());
    let broken = Pixels { width: 3, height: 3, rgb: vec![0; 5] };
    assert!(broken.encode_png().is_err());
    assert!(crate::measure(&broken, &broken).is_err());
    assert_eq!(crate::ssim::ssim(&broken, &broken).0, 0);
}

#[test]
fn a_hand_made_file_is_read_and_ancillary_chunks_are_skipped() {
    let p = noise(5, 4);
    let parts =
        [ihdr(5, 4, RGB8), chunk(b"tEXt", b"k\0v"), image_data(&p), chunk(b"zTXt", b"junk"), chunk(b"IEND", b"")];
    assert_eq!(Pixels::decode_png(&file(&parts), &limits()).unwrap(), p);
}

#[test]
fn sides_are_limited_before_anything_is_allocated() {
    let big = file(&[ihdr(30_000, 30_000, RGB8), chunk(b"IDAT", b"x"), chunk(b"IEND", b"")]);
    let refused = Pixels::decode_png(&big, &limits()).unwrap_err();
    assert!(matches!(refused, DecodeError::TooLarge { width: 30_000, height: 30_000, .. }));
    assert!(refused.to_string().contains("30000×30000"));
    // Each side within the limit, the area not.
    let area = file(&[ihdr(4096, 4096, RGB8), chunk(b"IDAT", b"x"), chunk(b"IEND", b"")]);
    assert!(matches!(Pixels::decode_png(&area, &limits()), Err(DecodeError::TooLarge { .. })));
    let long = vec![0; limits().max_bytes + 1];
    assert!(matches!(Pixels::decode_png(&long, &limits()), Err(DecodeError::TooLong { .. })));
}

#[test]
fn a_decompression_bomb_is_refused_by_its_structure() {
    // A 1×1 image with the data of a large one: more than an encoder could need.
    let data = image_data(&noise(200, 200));
    let bomb = file(&[ihdr(1, 1, RGB8), data, chunk(b"IEND", b"")]);
    assert!(matches!(Pixels::decode_png(&bomb, &limits()), Err(DecodeError::Structure(_))));
    // Data that inflates to more than its header says stays within the header's size.
    let zeros = image_data(&Pixels::new(500, 500, vec![0; 750_000]).unwrap());
    let surplus = file(&[ihdr(9, 9, RGB8), zeros, chunk(b"IEND", b"")]);
    if let Ok(p) = Pixels::decode_png(&surplus, &limits()) {
        assert_eq!(p.channels(), 243);
    }
}

#[test]
fn other_kinds_of_png_are_refused_with_their_reason() {
    let with = |w: [u8; 5]| file(&[ihdr(2, 2, w), chunk(b"IDAT", b"x"), chunk(b"IEND", b"")]);
    let refused = |w| Pixels::decode_png(&with(w), &limits()).unwrap_err();
    assert_eq!(refused([8, 6, 0, 0, 0]), DecodeError::Colour { kind: "RGBA" });
    assert_eq!(refused([8, 0, 0, 0, 0]), DecodeError::Colour { kind: "grey" });
    assert_eq!(refused([8, 3, 0, 0, 0]), DecodeError::Colour { kind: "palette" });
    assert_eq!(refused([16, 6, 0, 0, 0]), DecodeError::Colour { kind: "RGBA" });
    assert_eq!(refused([16, 2, 0, 0, 0]), DecodeError::Depth { bits: 16 });
    assert_eq!(refused([8, 2, 0, 0, 1]), DecodeError::Interlaced);
    assert!(matches!(refused([8, 2, 1, 0, 0]), DecodeError::Structure(_)));
    assert!(matches!(refused([8, 2, 0, 0, 9]), DecodeError::Interlaced | DecodeError::Structure(_)));
    assert_eq!(Pixels::decode_png(b"\xff\xd8\xff\xe0JFIF", &limits()), Err(DecodeError::NotPng));
    assert_eq!(Pixels::decode_png(b"", &limits()), Err(DecodeError::NotPng));
}

#[test]
fn animations_transparency_and_trailing_bytes_are_refused() {
    let p = noise(2, 2);
    let with = |extra: Vec<u8>| file(&[ihdr(2, 2, RGB8), extra, image_data(&p), chunk(b"IEND", b"")]);
    assert_eq!(Pixels::decode_png(&with(chunk(b"acTL", &[0; 8])), &limits()), Err(DecodeError::Animated));
    assert!(matches!(Pixels::decode_png(&with(chunk(b"tRNS", &[0; 6])), &limits()), Err(DecodeError::Colour { .. })));
    assert!(matches!(Pixels::decode_png(&with(chunk(b"ABCD", b"")), &limits()), Err(DecodeError::Structure(_))));
    let mut trailing = p.encode_png().unwrap();
    trailing.extend(b"junk");
    assert_eq!(Pixels::decode_png(&trailing, &limits()), Err(DecodeError::TrailingBytes { count: 4 }));
    let no_data = file(&[ihdr(2, 2, RGB8), chunk(b"IEND", b"")]);
    assert!(matches!(Pixels::decode_png(&no_data, &limits()), Err(DecodeError::Structure(_))));
}

#[test]
fn an_answer_has_image_data_alone_and_a_clean_image_may_have_more() {
    let p = noise(5, 4);
    let with =
        |kind: &[u8; 4], data: &[u8]| file(&[ihdr(5, 4, RGB8), chunk(kind, data), image_data(&p), chunk(b"IEND", b"")]);
    assert_eq!(Pixels::decode_answer(&p.encode_png().unwrap(), &p).unwrap(), p);
    for kind in [b"tEXt", b"zTXt", b"iCCP", b"gAMA", b"pHYs", b"PLTE", b"prIv"] {
        let png = with(kind, b"k\0v");
        assert_eq!(Pixels::decode_answer(&png, &p), Err(DecodeError::Surplus { kind: *kind }));
        assert_eq!(Pixels::decode_png(&png, &limits()).unwrap(), p);
    }
    assert_eq!(Pixels::decode_answer(&with(b"acTL", b""), &p), Err(DecodeError::Animated));
    let small = noise(4, 4).encode_png().unwrap();
    assert_eq!(Pixels::decode_answer(&small, &p), Err(DecodeError::Shape { width: 4, height: 4, wanted: (5, 4) }));
}

#[test]
fn an_answer_over_its_bound_is_not_looked_into_whatever_fills_it() {
    let p = noise(5, 4);
    let most = limits::answer_bytes(5, 4);
    assert_eq!(most, 64 + 4096);
    // Empty chunks of image data are allowed, up to the bound to the byte.
    let padded = |bytes: usize| {
        let plain = p.encode_png().unwrap();
        let data = image_data(&p);
        let room = bytes - plain.len();
        let empty = vec![chunk(b"IDAT", b""); room / 12].concat();
        file(&[ihdr(5, 4, RGB8), data, empty, chunk(b"IEND", b"")])
    };
    let exact = padded(most);
    assert!(exact.len() <= most && exact.len() + 12 > most);
    assert_eq!(Pixels::decode_answer(&exact, &p).unwrap(), p);
    let over = padded(most + 12);
    assert_eq!(Pixels::decode_answer(&over, &p), Err(DecodeError::TooLong { size: over.len(), limit: most }));
    let junk = vec![0xA5; 4 << 20];
    assert_eq!(Pixels::decode_answer(&junk, &p), Err(DecodeError::TooLong { size: 4 << 20, limit: most }));
    assert_eq!(limits::answer_bytes(4096, 1024), limits::MAX_PNG_BYTES, "never more than any PNG");
    assert_eq!(limits::answer_bytes(u32::MAX, u32::MAX), limits::MAX_PNG_BYTES);
}

#[test]
fn every_truncation_is_an_error() {
    let png = noise(9, 7).encode_png().unwrap();
    for end in 0..png.len() {
        assert!(Pixels::decode_png(&png[..end], &limits()).is_err(), "{end}");
    }
}

#[test]
fn damaged_image_data_is_noticed() {
    let mut png = noise(9, 7).encode_png().unwrap();
    let middle = png.len() / 2;
    png[middle] ^= 0x55;
    assert!(matches!(Pixels::decode_png(&png, &limits()), Err(DecodeError::Data(_))));
    let short = file(&[ihdr(90, 90, RGB8), image_data(&noise(9, 7)), chunk(b"IEND", b"")]);
    assert!(matches!(Pixels::decode_png(&short, &limits()), Err(DecodeError::Data(_))));
}

proptest! {
    #[test]
    fn an_answer_that_nothing_compresses_stays_within_its_bound(width in 1u32..300, height in 1u32..60, seed: u64) {
        use rand::{RngCore, SeedableRng};
        let mut rgb = vec![0; (width * height * 3) as usize];
        rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut rgb);
        let noise = Pixels::new(width, height, rgb).unwrap();
        let png = noise.encode_png().unwrap();
        let clean = Pixels::new(width, height, vec![7; noise.rgb.len()]).unwrap();
        prop_assert_eq!(Pixels::decode_answer(&png, &clean).unwrap(), noise);
    }

    #[test]
    fn what_is_written_is_read_back(width in 1u32..40, height in 1u32..40, seed: u64) {
        use rand::{RngCore, SeedableRng};
        let mut rgb = vec![0; (width * height * 3) as usize];
        rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut rgb);
        let p = Pixels::new(width, height, rgb).unwrap();
        let png = p.encode_png().unwrap();
        prop_assert_eq!(Pixels::png_shape(&png, &limits()).unwrap(), (width, height));
        prop_assert_eq!(Pixels::decode_png(&png, &limits()).unwrap(), p);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Pixels::decode_png(&bytes, &limits()).is_err());
    }

    #[test]
    fn arbitrary_damage_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        fix_header: bool,
    ) {
        let mut png = noise(12, 11).encode_png().unwrap();
        for (at, value) in edits {
            let at = at.index(png.len());
            png[at] = value;
        }
        if fix_header {
            let sum = crc(&png[12..29]);
            png[29..33].copy_from_slice(&sum.to_be_bytes());
        }
        if let Ok(p) = Pixels::decode_png(&png, &limits()) {
            prop_assert!(Pixels::new(p.width, p.height, p.rgb).is_ok());
        }
    }

    #[test]
    fn arbitrary_image_data_never_panics(data in prop::collection::vec(any::<u8>(), 0..300)) {
        let zlib = [&[0x78, 0x01][..], &data].concat();
        let png = file(&[ihdr(7, 7, RGB8), chunk(b"IDAT", &zlib), chunk(b"IEND", b"")]);
        if let Ok(p) = Pixels::decode_png(&png, &limits()) {
            prop_assert_eq!(p.channels(), 147);
        }
    }
}
