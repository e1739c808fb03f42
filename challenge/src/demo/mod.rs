//! The embedded demo set: textured images of ten classes, drawn by the program.
//!
//! An image is a pure function of `(seed, index)`, so a set needs no files, no network and no
//! licence, and anybody can draw it again. Rule (side [`SIDE`], 8-bit RGB, all arithmetic in `f64`
//! from `+ - * /`, `sqrt`, `floor` and `libm`, hence the same bytes on every machine):
//!
//! ```text
//! class      = below(10), from the stream of (seed, index)
//! t(x, y)    = (1 − a)·main(x, y) + a·other(x, y)      other: a texture of a different class
//! pixel_c    = base_c + contrast·tint_c·(t − ½) + ramp(x, y) + grain, rounded, kept in 0..=255
//! ```
//!
//! with the contrast, tint, base colour, overlay share `a`, slow luminance ramp and grain strength
//! drawn per image. Low contrast and a strong overlay make an image easy to turn, high contrast
//! makes it hard: the mixture spreads the smallest level of a flip over 1, 2, 3 and more.

mod stream;
mod texture;

use self::stream::Stream;
use self::texture::{FAMILIES, Texture};
use crate::pixels::Pixels;

/// Width and height of a demo image, in pixels.
pub const SIDE: u32 = 64;

/// Number of classes.
pub const CLASSES: usize = FAMILIES.len();

/// Names of the classes; the position is the class.
pub const LABELS: [&str; CLASSES] =
    ["stripes", "grating", "checks", "dots", "rings", "crosshatch", "grain", "clouds", "zigzag", "bricks"];

/// Seed of the images that the embedded classifier is trained on; never challenge with it.
pub const TRAIN_SEED: u64 = 0x7065_7274_7572_6201;

/// Seed of the images that its accuracy is stated for.
pub const HELD_OUT_SEED: u64 = 0x7065_7274_7572_6202;

/// Bounds of the drawn parameters: `(low, high)`.
mod range {
    /// Peak-to-peak contrast, 8-bit levels; drawn as `low + (high − low)·f²`, so low ones are common.
    pub(super) const CONTRAST: (f64, f64) = (48.0, 170.0);
    /// Base colour per channel, 8-bit levels.
    pub(super) const BASE: (f64, f64) = (88.0, 168.0);
    /// Share of the contrast a channel carries.
    pub(super) const TINT: (f64, f64) = (0.5, 1.0);
    /// Share of the overlaid texture.
    pub(super) const OVERLAY: (f64, f64) = (0.0, 0.32);
    /// Largest excursion of the grain, 8-bit levels.
    pub(super) const GRAIN: (f64, f64) = (8.0, 22.0);
    /// Slope of the luminance ramp from edge to edge, 8-bit levels.
    pub(super) const RAMP: (f64, f64) = (-24.0, 24.0);
}

/// Draws image `index` of the set `seed`, with its class in `0..CLASSES`.
///
/// Total: every pair of numbers names an image.
#[must_use]
pub fn draw(seed: u64, index: u64) -> (Pixels, u16) {
    let mut stream = Stream::new(seed, index);
    let class = stream.below(CLASSES as u32) as usize;
    let rgb = paint(class, &mut stream);
    (Pixels { width: SIDE, height: SIDE, rgb }, class as u16)
}

/// Paints one image of `class`: `3·SIDE²` bytes, rows first.
fn paint(class: usize, stream: &mut Stream) -> Vec<u8> {
    let side = f64::from(SIDE);
    let other = (class + 1 + stream.below(CLASSES as u32 - 1) as usize) % CLASSES;
    let main = Texture::sample(FAMILIES[class], side, stream);
    let second = Texture::sample(FAMILIES[other], side, stream);

    let spread = stream.fraction();
    let contrast = range::CONTRAST.0 + (range::CONTRAST.1 - range::CONTRAST.0) * spread * spread;
    let overlay = stream.between(range::OVERLAY.0, range::OVERLAY.1);
    let grain = stream.between(range::GRAIN.0, range::GRAIN.1);
    let ramp_x = stream.between(range::RAMP.0, range::RAMP.1) / side;
    let ramp_y = stream.between(range::RAMP.0, range::RAMP.1) / side;
    let polarity = if stream.below(2) == 0 { 1.0 } else { -1.0 };
    let mut base = [0.0; 3];
    let mut swing = [0.0; 3];
    for channel in 0..3 {
        base[channel] = stream.between(range::BASE.0, range::BASE.1);
        let tint = stream.between(range::TINT.0, range::TINT.1);
        swing[channel] = polarity * contrast * tint;
    }

    let mut rgb = Vec::with_capacity((SIDE * SIDE * 3) as usize);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let (x, y) = (f64::from(column), f64::from(row));
            let level = (1.0 - overlay) * main.at(x, y) + overlay * second.at(x, y) - 0.5;
            let ramp = ramp_x * (x - side / 2.0) + ramp_y * (y - side / 2.0);
            let mut word = stream.word();
            for channel in 0..3 {
                let noise = grain * triangular(&mut word);
                rgb.push(to_byte(base[channel] + swing[channel] * level + ramp + noise));
            }
        }
    }
    rgb
}

/// The next 20 bits of a word as a triangular variable in `(−1, 1)`.
fn triangular(word: &mut u64) -> f64 {
    let a = (*word & 0x3FF) as u32;
    let b = ((*word >> 10) & 0x3FF) as u32;
    *word >>= 20;
    (f64::from(a) + f64::from(b) - 1023.0) / 1024.0
}

/// Nearest 8-bit level, halves upwards.
fn to_byte(level: f64) -> u8 {
    (level + 0.5).floor().clamp(0.0, 255.0) as u8
}

/// A finite set of drawn images: `len` images of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoSet {
    /// Seed of the drawing.
    pub seed: u64,
    /// Number of images.
    pub len: u64,
}

impl DemoSet {
    /// The first `len` images of `seed`.
    #[must_use]
    pub const fn new(seed: u64, len: u64) -> Self {
        Self { seed, len }
    }

    /// Image `index` with its class, or `None` beyond the end.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<(Pixels, u16)> {
        (index < self.len).then(|| draw(self.seed, index))
    }

    /// Iterates over the set in order.
    pub fn iter(&self) -> impl Iterator<Item = (Pixels, u16)> + use<> {
        let set = *self;
        (0..set.len).map(move |index| draw(set.seed, index))
    }
}

#[cfg(test)]
mod tests;
