//! The secret transform of a round.
//!
//! A public data set can be attacked in advance; so each round changes its image by a transform that
//! follows from 32 secret bytes. In this order:
//!
//! 1. *Crop*: `crop` pixels come off each axis in all, at a secret offset. Every offset gives the same
//!    size, (width − crop) × (height − crop), and no pixel is made up. An image with a side of at most
//!    2·crop is not cropped.
//! 2. *Mirror* left to right, or not.
//! 3. *Brightness*: one whole number of levels for all channel values, plus a smooth field ([`Field`])
//!    that differs from place to place. The sum is kept within 0..=255.
//!
//! The field is what makes the transforms too many to answer in advance.
//!
//! The secret follows from the round's image lot ([`TransformSecret::of`]), which its result shows:
//! whoever has the source image can then repeat the transform and compare.

use perturb_types::round::TransformSecret;

use crate::pixels::{CHANNELS, Pixels};
use crate::rules::TransformRules;
use crate::stream::Stream;

mod field;

pub use field::Field;

/// A transform, with its choices made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Mirror left to right.
    pub flip: bool,
    /// Pixels taken off each axis in all.
    pub crop: u16,
    /// Columns of these that are taken off the left side.
    pub left: u16,
    /// Rows of these that are taken off the top.
    pub top: u16,
    /// Levels added to every channel value.
    pub brightness: i16,
    /// Levels added besides, by place.
    pub field: Field,
}

impl Transform {
    /// The transform that follows from a secret.
    #[must_use]
    pub fn derive(secret: &TransformSecret, rules: &TransformRules) -> Self {
        let mut stream = Stream::new("perturb/transform-stream/1", &secret.0, 0);
        let flip = stream.below(2) == 1;
        let offsets = u64::from(rules.crop) + 1;
        let (left, top) = (stream.below(offsets) as u16, stream.below(offsets) as u16);
        let brightness = stream.below(2 * u64::from(rules.brightness) + 1) as i16 - i16::from(rules.brightness);
        let field = Field::draw(&mut stream, rules);
        Self { flip: flip && rules.flip, crop: rules.crop, left, top, brightness, field }
    }

    /// The transformed image.
    #[must_use]
    pub fn apply(&self, source: &Pixels) -> Pixels {
        let crop = u32::from(self.crop);
        let cropped = source.width > 2 * crop && source.height > 2 * crop;
        let (crop, left, top) = if cropped { (crop, usize::from(self.left), usize::from(self.top)) } else { (0, 0, 0) };
        let (width, height) = (source.width - crop, source.height - crop);
        let stride = (source.width as usize * CHANNELS).max(1);
        let mut rgb = Vec::with_capacity(width as usize * height as usize * CHANNELS);
        for row in source.rgb.chunks_exact(stride).skip(top).take(height as usize) {
            let pixels = row.chunks_exact(CHANNELS).skip(left).take(width as usize);
            if self.flip {
                pixels.rev().for_each(|p| rgb.extend_from_slice(p));
            } else {
                pixels.for_each(|p| rgb.extend_from_slice(p));
            }
        }
        let mut out = Pixels { width, height, rgb };
        self.field.add(&mut out, self.brightness);
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::rules::Rules;
    use perturb_types::Digest;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn secret(byte: u8) -> TransformSecret {
        TransformSecret([byte; 32])
    }

    #[test]
    fn a_transform_by_hand() {
        // 3×3, one distinct red value per pixel; crop 1 at (1, 0), flipped, brighter by 250.
        let source = Pixels::new(3, 3, (0..9).flat_map(|i| [i, 0, 9]).collect()).unwrap();
        let t = Transform { flip: true, crop: 1, left: 1, top: 0, brightness: 250, field: Field::default() };
        let got = t.apply(&source);
        let red: Vec<u8> = got.rgb.iter().step_by(3).copied().collect();
        assert_eq!((got.width, got.height, red), (2, 2, vec![252, 251, 255, 254]));
        assert_eq!(got.rgb[2], 255, "brightness stays within 8 bits");
        let dark = Transform { flip: false, crop: 2, left: 0, top: 0, brightness: -4, field: Field::default() };
        assert_eq!(dark.apply(&source).width, 3, "too small to crop");
        assert_eq!(dark.apply(&source).rgb[..3], [0, 0, 5]);
    }

    #[test]
    fn every_choice_occurs_and_stays_within_the_rules() {
        let rules = Rules::subnet().transform;
        let all: Vec<Transform> = (0..=255).map(|b| Transform::derive(&secret(b), &rules)).collect();
        assert!(all.iter().any(|t| t.flip) && all.iter().any(|t| !t.flip));
        for offset in 0..=rules.crop {
            assert!(all.iter().any(|t| t.left == offset) && all.iter().any(|t| t.top == offset));
        }
        assert!(all.iter().all(|t| t.left <= rules.crop && t.top <= rules.crop));
        assert!(all.iter().all(|t| t.brightness.unsigned_abs() <= u16::from(rules.brightness)));
        assert!(all.iter().any(|t| t.brightness > 0) && all.iter().any(|t| t.brightness < 0));
        let still = TransformRules { flip: false, crop: 0, brightness: 0, field: 0, cells: 0 };
        let none = Transform { flip: false, crop: 0, left: 0, top: 0, brightness: 0, field: Field::default() };
        assert_eq!(Transform::derive(&secret(9), &still), none);
    }

    /// The distinct images that `transforms` make of one demo image.
    fn distinct(transforms: impl Iterator<Item = Transform>) -> usize {
        let (source, _) = crate::demo::draw(5, 0);
        transforms.map(|t| Digest::of(&t.apply(&source).rgb)).collect::<HashSet<_>>().len()
    }

    #[test]
    fn without_a_field_every_variant_can_be_counted() {
        // Mirrored or not, 5 × 5 offsets, 17 levels: a library has them all.
        let rules = TransformRules { flip: true, crop: 4, brightness: 8, field: 0, cells: 0 };
        let offsets = (0..=rules.crop).flat_map(|left| (0..=rules.crop).map(move |top| (left, top)));
        let all = offsets.flat_map(|(left, top)| {
            (-8..=8).flat_map(move |brightness| {
                [false, true].map(|flip| Transform {
                    flip,
                    crop: rules.crop,
                    left,
                    top,
                    brightness,
                    field: Field::default(),
                })
            })
        });
        assert_eq!(distinct(all), 850);
        assert!(distinct(secrets(10_000).map(|s| Transform::derive(&s, &rules))) <= 850);
    }

    #[test]
    fn under_the_agreed_rules_no_variant_is_seen_twice() {
        // Of so many draws from M equally likely images two are equal but with e^(−n²/2M): none being equal
        // leaves M below n²/6 one chance in twenty. What the nodes allow is 49²⁵ fields.
        for rules in [Rules::subnet(), Rules::whitepaper()] {
            let draws = 10_000;
            assert_eq!(distinct(secrets(draws).map(|s| Transform::derive(&s, &rules.transform))), draws as usize);
        }
    }

    fn secrets(count: u64) -> impl Iterator<Item = TransformSecret> {
        (0..count).map(|n| TransformSecret(Digest::of(&n.to_le_bytes()).0))
    }

    proptest! {
        #[test]
        fn the_transform_is_deterministic(bytes: [u8; 32], side in 1u32..40) {
            let rules = Rules::subnet().transform;
            let source = Pixels::new(side, side, (0..side * side * 3).map(|i| (i * 7 % 256) as u8).collect()).unwrap();
            let secret = TransformSecret(bytes);
            let sent = Transform::derive(&secret, &rules).apply(&source);
            prop_assert!(Pixels::new(sent.width, sent.height, sent.rgb.clone()).is_ok());
            prop_assert_eq!(Transform::derive(&secret, &rules).apply(&source), sent);
        }
    }
}
