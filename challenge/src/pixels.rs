//! Images: 8-bit RGB at native resolution, and the one PNG form they travel in.
//!
//! A PNG is judged by its structure before anything is allocated (`png.rs`): signature, header,
//! limits, chunk frames. What is then decoded is at most the limits' number of pixels.

use std::io::Cursor;

use image::codecs::png::{CompressionType, FilterType, PngDecoder, PngEncoder};
use image::{ExtendedColorType, ImageDecoder, ImageEncoder};
use perturb_types::limits;

use crate::png::{self, Chunks};

/// Channels of a pixel.
pub const CHANNELS: usize = 3;

/// An 8-bit RGB image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Interleaved RGB, rows first: `width·height·3` values.
    pub rgb: Vec<u8>,
}

/// What a PNG may measure; checked before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PngLimits {
    /// Bytes of the file.
    pub max_bytes: usize,
    /// Pixels along one side.
    pub max_side: u32,
    /// Pixels in all.
    pub max_pixels: u64,
}

impl Default for PngLimits {
    /// The network's limits for images on the wire.
    fn default() -> Self {
        Self {
            max_bytes: limits::MAX_PNG_BYTES,
            max_side: limits::MAX_IMAGE_SIDE,
            max_pixels: limits::MAX_IMAGE_PIXELS,
        }
    }
}

/// A pixel buffer that does not fit its sides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} channel values for an image of {width}×{height} pixels, which has {expected}")]
pub struct ShapeError {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// width · height · 3.
    pub expected: u64,
    /// Values given.
    pub found: usize,
}

/// Bytes that are not a PNG of the accepted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The file is too long.
    #[error("{size} bytes, at most {limit} are accepted")]
    TooLong {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The signature is missing.
    #[error("not a PNG: the signature is missing")]
    NotPng,
    /// The file ends inside a chunk.
    #[error("the file ends inside the chunk at byte {at}")]
    Truncated {
        /// Where the chunk starts.
        at: usize,
    },
    /// The chunks make no image.
    #[error("malformed: {0}")]
    Structure(String),
    /// Larger than the limits.
    #[error("{width}×{height} pixels: at most {} a side and {} in all", limits.max_side, limits.max_pixels)]
    TooLarge {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// The limits.
        limits: PngLimits,
    },
    /// Samples of another depth than 8 bits.
    #[error("{bits}-bit samples: only 8-bit RGB is accepted")]
    Depth {
        /// Bits of a sample.
        bits: u8,
    },
    /// Another colour type.
    #[error("colour type {kind}: only 8-bit RGB is accepted")]
    Colour {
        /// The type's name.
        kind: &'static str,
    },
    /// Interlaced.
    #[error("interlaced: only plain row order is accepted")]
    Interlaced,
    /// Other sides than the clean image's.
    #[error("{width}×{height} pixels, the clean image has {}×{}", wanted.0, wanted.1)]
    Shape {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// The clean image's.
        wanted: (u32, u32),
    },
    /// A chunk that an answer may not have.
    #[error("a chunk {}: an answer has IHDR, IDAT and IEND alone", String::from_utf8_lossy(kind))]
    Surplus {
        /// The chunk's type.
        kind: [u8; 4],
    },
    /// An animation.
    #[error("an animation: only still images are accepted")]
    Animated,
    /// Bytes after the end.
    #[error("{count} bytes after the end of the image")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The pixels do not decode.
    #[error("the image data does not decode: {0}")]
    Data(String),
}

/// An image that cannot be written as a PNG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image cannot be written as a PNG: {0}")]
pub struct EncodeError(pub String);

/// Channel values of an image of these sides.
fn values(width: u32, height: u32) -> u64 {
    (u64::from(width) * u64::from(height)).saturating_mul(CHANNELS as u64)
}

impl Pixels {
    /// An image of `width` × `height` pixels.
    ///
    /// # Errors
    /// `rgb` is not `width·height·3` long, or a side is 0.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, ShapeError> {
        let expected = values(width, height);
        if expected == 0 || expected != rgb.len() as u64 {
            return Err(ShapeError { width, height, expected, found: rgb.len() });
        }
        Ok(Self { width, height, rgb })
    }

    /// Channel values: width · height · 3.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.rgb.len()
    }

    /// Writes its levels as classifiers on a processor take them: three planes, red first, into `width·height·3`
    /// values. Of an image that does not fit its sides, or more or less room, as many pixels as there are.
    pub fn write_planes(&self, planes: &mut [f32]) {
        let area = planes.len() / CHANNELS;
        let (red, others) = planes.split_at_mut(area);
        let (green, blue) = others.split_at_mut(area);
        let to = red.iter_mut().zip(green).zip(blue);
        for (pixel, ((red, green), blue)) in self.rgb.chunks_exact(CHANNELS).zip(to) {
            *red = f32::from(pixel[0]);
            *green = f32::from(pixel[1]);
            *blue = f32::from(pixel[2]);
        }
    }

    /// Whether another image has the same sides; `false` where a buffer does not fit its sides.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        let whole = |p: &Self| p.rgb.len() as u64 == values(p.width, p.height);
        (self.width, self.height) == (other.width, other.height) && whole(self) && whole(other)
    }

    /// Width and height of a PNG whose structure holds; nothing is inflated.
    ///
    /// # Errors
    /// Everything but broken image data.
    pub fn png_shape(bytes: &[u8], limits: &PngLimits) -> Result<(u32, u32), DecodeError> {
        png::walk(bytes, limits, Chunks::Any).map(|s| (s.width, s.height))
    }

    /// Reads a PNG: 8-bit RGB, not interlaced, not animated, nothing after its end.
    ///
    /// # Errors
    /// Any other bytes; see [`DecodeError`].
    pub fn decode_png(bytes: &[u8], limits: &PngLimits) -> Result<Self, DecodeError> {
        Self::inflate(bytes, &png::walk(bytes, limits, Chunks::Any)?, limits)
    }

    /// Reads an answer to a clean image: a PNG of the same sides, of image data alone and of at most
    /// [`limits::answer_bytes`]. What is longer is not looked into.
    ///
    /// # Errors
    /// Any other bytes; other sides are [`DecodeError::Shape`].
    pub fn decode_answer(bytes: &[u8], clean: &Self) -> Result<Self, DecodeError> {
        let wanted = (clean.width, clean.height);
        let limits = PngLimits { max_bytes: limits::answer_bytes(wanted.0, wanted.1), ..PngLimits::default() };
        let structure = png::walk(bytes, &limits, Chunks::Image)?;
        let (width, height) = (structure.width, structure.height);
        if (width, height) != wanted {
            return Err(DecodeError::Shape { width, height, wanted });
        }
        Self::inflate(bytes, &structure, &limits)
    }

    fn inflate(bytes: &[u8], structure: &png::Structure, limits: &PngLimits) -> Result<Self, DecodeError> {
        let data = |e: image::ImageError| DecodeError::Data(e.to_string());
        let essence = structure.essence(bytes);
        let mut bound = image::Limits::no_limits();
        bound.max_image_width = Some(limits.max_side);
        bound.max_image_height = Some(limits.max_side);
        bound.max_alloc = Some(limits.max_pixels.saturating_mul(CHANNELS as u64).saturating_add(1 << 20));
        let decoder = PngDecoder::with_limits(Cursor::new(essence.as_ref()), bound).map_err(data)?;
        let expected = values(structure.width, structure.height);
        if decoder.total_bytes() != expected {
            return Err(DecodeError::Structure("the image data is not RGB".into()));
        }
        let mut rgb = vec![0; expected as usize];
        decoder.read_image(&mut rgb).map_err(data)?;
        Self::new(structure.width, structure.height, rgb).map_err(|e| DecodeError::Data(e.to_string()))
    }

    /// Writes the PNG that [`Self::decode_png`] reads back to the same pixels.
    ///
    /// # Errors
    /// The buffer does not fit the sides.
    pub fn encode_png(&self) -> Result<Vec<u8>, EncodeError> {
        if self.rgb.len() as u64 != values(self.width, self.height) {
            return Err(EncodeError(format!("{}×{} pixels, {} values", self.width, self.height, self.rgb.len())));
        }
        let mut out = Vec::new();
        PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::Adaptive)
            .write_image(&self.rgb, self.width, self.height, ExtendedColorType::Rgb8)
            .map_err(|e| EncodeError(e.to_string()))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
