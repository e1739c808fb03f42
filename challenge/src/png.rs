//! The structure of a PNG, walked before anything is allocated or inflated.
//!
//! Accepted is exactly: signature, IHDR (8 bits per channel, RGB, not interlaced, sides within the
//! limits), then chunks up to IEND, with which the file ends. Only IHDR, IDAT and IEND reach the
//! decoder: ancillary chunks (texts, profiles, gamma) are skipped unread, so no decompression but
//! that of the pixels takes place. The compressed pixels may not be longer than an encoder that
//! compresses nothing would make them, which bounds what a bomb can inflate to.
//!
//! An *answer* has nothing but these three kinds: whatever else it carried would be stored and sent by
//! everybody who checks it.

use std::borrow::Cow;

use crate::pixels::{DecodeError, PngLimits};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];

/// Chunks of one file: an image in IDAT pieces of 1 KiB within the byte limit stays far below.
const MAX_CHUNKS: usize = 8192;

/// Bytes around a chunk's data: length, type, CRC.
const FRAME: usize = 12;

/// A PNG whose structure holds; the pixels are not looked at yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Structure {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Where the IDAT chunks lie, whole with their frames.
    image_data: Vec<(usize, usize)>,
    end: (usize, usize),
}

/// Which chunks a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// Ancillary ones besides, which are skipped.
    Any,
    /// IHDR, IDAT and IEND alone.
    Image,
}

/// One chunk: type, start and end of the whole, and its data.
struct Chunk<'a> {
    kind: [u8; 4],
    start: usize,
    end: usize,
    data: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_be_bytes(four))
}

fn chunk(bytes: &[u8], start: usize) -> Result<Chunk<'_>, DecodeError> {
    let cut = || DecodeError::Truncated { at: start };
    let len = word(bytes, start).ok_or_else(cut)? as usize;
    let end = start.checked_add(FRAME).and_then(|e| e.checked_add(len)).ok_or_else(cut)?;
    let whole = bytes.get(start..end).ok_or_else(cut)?;
    let kind = whole.get(4..8).and_then(|k| k.try_into().ok()).ok_or_else(cut)?;
    let data = whole.get(8..8 + len).ok_or_else(cut)?;
    Ok(Chunk { kind, start, end, data })
}

fn header(data: &[u8], limits: &PngLimits) -> Result<(u32, u32), DecodeError> {
    let (Some(width), Some(height), 13) = (word(data, 0), word(data, 4), data.len()) else {
        return Err(DecodeError::Structure("the first chunk is not an IHDR of 13 bytes".into()));
    };
    if width == 0 || height == 0 {
        return Err(DecodeError::Structure(format!("{width}×{height} pixels")));
    }
    let too_large =
        width > limits.max_side || height > limits.max_side || u64::from(width) * u64::from(height) > limits.max_pixels;
    if too_large {
        return Err(DecodeError::TooLarge { width, height, limits: *limits });
    }
    match data[8..13] {
        [8, 2, 0, 0, 0] => Ok((width, height)),
        [16, 2, ..] => Err(DecodeError::Depth { bits: 16 }),
        [bits, 2, 0, 0, 0] => Err(DecodeError::Depth { bits }),
        [8, 2, 0, 0, _] => Err(DecodeError::Interlaced),
        [8, 2, ..] => Err(DecodeError::Structure("unknown compression or filter method".into())),
        [_, color, ..] => Err(DecodeError::Colour { kind: color_name(color) }),
        _ => Err(DecodeError::Structure("IHDR".into())),
    }
}

fn color_name(kind: u8) -> &'static str {
    match kind {
        0 => "grey",
        2 => "RGB",
        3 => "palette",
        4 => "grey with alpha",
        6 => "RGBA",
        _ => "unknown",
    }
}

/// Bytes of the raw image data: each row with its filter byte.
fn raw_bytes(width: u32, height: u32) -> u64 {
    (u64::from(width) * 3 + 1) * u64::from(height)
}

/// What raw data takes at most when nothing compresses: a hundredth over it, and the frame's bytes.
fn longest_image_data(width: u32, height: u32) -> u64 {
    let raw = raw_bytes(width, height);
    raw + raw / 100 + 1024
}

/// Walks the file.
pub(crate) fn walk(bytes: &[u8], limits: &PngLimits, chunks: Chunks) -> Result<Structure, DecodeError> {
    if bytes.len() > limits.max_bytes {
        return Err(DecodeError::TooLong { size: bytes.len(), limit: limits.max_bytes });
    }
    if bytes.get(..8) != Some(&SIGNATURE[..]) {
        return Err(DecodeError::NotPng);
    }
    let first = chunk(bytes, 8)?;
    if &first.kind != b"IHDR" {
        return Err(DecodeError::Structure("the first chunk is not an IHDR".into()));
    }
    let (width, height) = header(first.data, limits)?;
    let (mut at, mut image_data, mut compressed) = (first.end, Vec::new(), 0u64);
    for _ in 0..MAX_CHUNKS {
        let next = chunk(bytes, at)?;
        at = next.end;
        match &next.kind {
            b"IDAT" => {
                if image_data.last().is_some_and(|&(_, end)| end != next.start) {
                    return Err(DecodeError::Structure("image data in two places".into()));
                }
                compressed += next.data.len() as u64;
                image_data.push((next.start, next.end));
            }
            b"IEND" => {
                if next.end != bytes.len() {
                    return Err(DecodeError::TrailingBytes { count: bytes.len() - next.end });
                }
                if image_data.is_empty() || compressed > longest_image_data(width, height) {
                    let why = format!("{compressed} bytes of image data for {width}×{height} pixels");
                    return Err(DecodeError::Structure(why));
                }
                return Ok(Structure { width, height, image_data, end: (next.start, next.end) });
            }
            b"acTL" | b"fcTL" | b"fdAT" => return Err(DecodeError::Animated),
            b"tRNS" => return Err(DecodeError::Colour { kind: "RGB with a transparent colour" }),
            kind if chunks == Chunks::Image => return Err(DecodeError::Surplus { kind: *kind }),
            b"PLTE" => {}
            kind if kind[0] & 0x20 == 0 => {
                return Err(DecodeError::Structure("an unknown critical chunk".into()));
            }
            _ => {}
        }
    }
    Err(DecodeError::Structure(format!("more than {MAX_CHUNKS} chunks")))
}

impl Structure {
    /// The file with nothing but IHDR, image data and IEND; copied only where it has more.
    pub(crate) fn essence<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let image: usize = self.image_data.iter().map(|(a, b)| b - a).sum();
        let ihdr = (0, 8 + FRAME + 13);
        if ihdr.1 + image + FRAME == bytes.len() {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(ihdr.1 + image + FRAME);
        for (from, to) in [ihdr].iter().chain(&self.image_data).chain([&self.end]) {
            out.extend_from_slice(bytes.get(*from..*to).unwrap_or_default());
        }
        Cow::Owned(out)
    }
}
