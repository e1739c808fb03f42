//! The smooth brightness field of a transform: a coarse grid of secret levels, and what lies between.
//!
//! A grid of c × c cells spans the image, so (c + 1)² nodes, each a whole number of levels in −a..=a,
//! drawn row by row. With w × h the size of the image that miners get, X = max(w − 1, 1) and
//! Y = max(h − 1, 1), the pixel (x, y) lies in cell (i, j), i = min(⌊x·c/X⌋, c − 1), at the distances
//! u = x·c − i·X and X − u from its left and right nodes; j, v and Y − v alike. Its level is
//!
//! ```text
//! s = n[j][i]·(X−u)·(Y−v) + n[j][i+1]·u·(Y−v) + n[j+1][i]·(X−u)·v + n[j+1][i+1]·u·v
//! f = ⌊(2·s + X·Y) / (2·X·Y)⌋          to the nearest level, halves upwards
//! ```
//!
//! in integers alone: no machine rounds otherwise. It is the same for the three channels of a pixel,
//! and never further from 0 than a. Bound: X·Y ≤ 2²² (an image's pixels) and |n| ≤ 255, so that
//! 2·s stays far below 2⁶³.

use crate::pixels::{CHANNELS, Pixels};
use crate::rules::TransformRules;
use crate::stream::Stream;

/// A field, with its nodes drawn. Without nodes it is 0 everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// c: cells along each axis.
    cells: usize,
    /// Levels of the nodes, rows first: (c + 1)² of them, or none.
    nodes: Vec<i16>,
}

impl Field {
    /// The field that a stream gives next. Rules without an amplitude or without cells have none, and
    /// take nothing from the stream.
    pub(super) fn draw(stream: &mut Stream, rules: &TransformRules) -> Self {
        if rules.field == 0 || rules.cells == 0 {
            return Self::default();
        }
        let (cells, most) = (usize::from(rules.cells), i16::from(rules.field));
        let count = (cells + 1).pow(2);
        let nodes = (0..count).map(|_| stream.below(2 * u64::from(rules.field) + 1) as i16 - most).collect();
        Self { cells, nodes }
    }

    /// Adds `level` and the field to every channel value, kept within 0..=255.
    pub(super) fn add(&self, image: &mut Pixels, level: i16) {
        let (across, down) = (Axis::new(image.width, self.cells), Axis::new(image.height, self.cells));
        let stride = (image.width as usize * CHANNELS).max(1);
        for (y, row) in image.rgb.chunks_exact_mut(stride).enumerate() {
            let y = down.at(y);
            for (x, pixel) in row.chunks_exact_mut(CHANNELS).enumerate() {
                let change = level.saturating_add(self.level(&across, &down, across.at(x), y));
                pixel.iter_mut().for_each(|v| *v = i16::from(*v).saturating_add(change).clamp(0, 255) as u8);
            }
        }
    }

    /// f at a place.
    fn level(&self, across: &Axis, down: &Axis, (i, u): (usize, i64), (j, v): (usize, i64)) -> i16 {
        let node = |j: usize, i: usize| self.nodes.get(j * (self.cells + 1) + i).copied().map_or(0, i64::from);
        let (far_u, far_v) = (across.length - u, down.length - v);
        let upper = node(j, i) * far_u + node(j, i + 1) * u;
        let lower = node(j + 1, i) * far_u + node(j + 1, i + 1) * u;
        let area = across.length * down.length;
        (2 * (upper * far_v + lower * v) + area).div_euclid(2 * area) as i16
    }
}

/// Where the pixels of one axis lie in the grid.
struct Axis {
    /// X: the distance from the first pixel to the last, at least 1.
    length: i64,
    cells: usize,
}

impl Axis {
    fn new(pixels: u32, cells: usize) -> Self {
        Self { length: i64::from(pixels.saturating_sub(1).max(1)), cells }
    }

    /// The cell of a pixel, and u: how far it lies from the cell's first node, in units of 1/c pixel.
    fn at(&self, pixel: usize) -> (usize, i64) {
        let place = pixel as i64 * self.cells as i64;
        let cell = (place / self.length).min((self.cells as i64 - 1).max(0));
        (cell as usize, place - cell * self.length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn rules(field: u8, cells: u8) -> TransformRules {
        TransformRules { flip: false, crop: 0, brightness: 0, field, cells }
    }

    fn drawn(seed: u8, rules: &TransformRules) -> Field {
        Field::draw(&mut Stream::new("test", &[seed; 32], 0), rules)
    }

    fn grey(width: u32, height: u32, level: u8) -> Pixels {
        Pixels::new(width, height, vec![level; (width * height * 3) as usize]).unwrap()
    }

    #[test]
    fn a_field_by_hand() {
        let field = Field { cells: 1, nodes: vec![0, 10, -20, 7] };
        let mut image = grey(3, 3, 100);
        field.add(&mut image, 1);
        let green: Vec<u8> = image.rgb.iter().skip(1).step_by(3).copied().collect();
        // Between 0 and −20 lies −10, between 10 and 7 8.5, which is 9; in the middle −0.75, which is −1.
        assert_eq!(green, [101, 106, 111, 91, 100, 110, 81, 95, 108]);
        assert!(image.rgb.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]), "one level a pixel");
        let mut light = grey(3, 3, 250);
        field.add(&mut light, 0);
        assert_eq!((light.rgb[6], light.rgb[18]), (255, 230), "kept within 8 bits");
    }

    #[test]
    fn the_nodes_are_where_the_grid_says() {
        let field = Field { cells: 2, nodes: (0..9).map(|n| n * 5).collect() };
        let mut image = grey(9, 5, 0);
        field.add(&mut image, 0);
        let at = |x: usize, y: usize| image.rgb[(y * 9 + x) * 3];
        let nodes: Vec<u8> = [0, 2, 4].iter().flat_map(|y| [0, 4, 8].map(|x| at(x, *y))).collect();
        assert_eq!(nodes, [0, 5, 10, 15, 20, 25, 30, 35, 40]);
    }

    #[test]
    fn no_field_takes_nothing_from_the_stream_and_changes_nothing() {
        for rules in [rules(0, 0), rules(9, 0), rules(0, 9)] {
            let (mut read, mut fresh) = (Stream::new("test", &[1; 32], 0), Stream::new("test", &[1; 32], 0));
            let field = Field::draw(&mut read, &rules);
            assert_eq!(read.below(1 << 40), fresh.below(1 << 40));
            let mut image = grey(5, 4, 30);
            field.add(&mut image, 0);
            assert_eq!(image, grey(5, 4, 30));
        }
    }

    proptest! {
        #[test]
        fn a_field_stays_within_its_levels_and_is_smooth(
            seed: u8, field in 1u8..=64, cells in 1u8..=16, width in 1u32..90, height in 1u32..90,
        ) {
            let drawn = drawn(seed, &rules(field, cells));
            prop_assert!(drawn.nodes.iter().all(|n| n.unsigned_abs() <= u16::from(field)));
            let mut image = grey(width, height, 128);
            drawn.add(&mut image, 0);
            prop_assert!(image.rgb.iter().all(|v| v.abs_diff(128) <= field));
            // From a pixel to the next at most the steepest slope, and a level of rounding.
            let steepest = 2 * u32::from(field) * u32::from(cells) / (width.max(2) - 1) + 2;
            for row in image.rgb.chunks_exact(width as usize * 3) {
                prop_assert!(row.windows(4).all(|w| u32::from(w[0].abs_diff(w[3])) <= steepest));
            }
        }

        #[test]
        fn the_same_stream_gives_the_same_field(seed: u8, cells in 1u8..=16) {
            let rules = rules(20, cells);
            prop_assert_eq!(drawn(seed, &rules), drawn(seed, &rules));
            prop_assert_ne!(drawn(seed, &rules), drawn(seed.wrapping_add(1), &rules));
        }
    }
}
