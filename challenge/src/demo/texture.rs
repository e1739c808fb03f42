//! Ten textures as functions of the plane.
//!
//! A texture maps a point (in pixels) to a level in `[0, 1]`. Points are turned by an angle and
//! divided by a period, which gives lattice coordinates `(u, v)`; all but the two noises are
//! periodic there. Edges are softened over about one and a half pixels, so that no texture depends
//! on how a single pixel is rounded.
//!
//! Only `+ - * /`, `sqrt`, `floor` (exact in IEEE arithmetic) and `libm`'s sine are used.

use super::stream::Stream;

/// Width of a softened edge, in pixels.
const EDGE_PX: f64 = 1.5;

/// A texture family: the classes of the demo set, in the order of their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Stripes,
    Grating,
    Checks,
    Dots,
    Rings,
    Crosshatch,
    Grain,
    Clouds,
    Zigzag,
    Bricks,
}

/// All families; the position is the class.
pub(super) const FAMILIES: [Family; 10] = [
    Family::Stripes,
    Family::Grating,
    Family::Checks,
    Family::Dots,
    Family::Rings,
    Family::Crosshatch,
    Family::Grain,
    Family::Clouds,
    Family::Zigzag,
    Family::Bricks,
];

/// One texture with all its parameters drawn.
pub(super) struct Texture {
    family: Family,
    /// Cosine and sine of the orientation.
    turn: (f64, f64),
    /// Cosine and sine of the second line family (crosshatch).
    second: (f64, f64),
    /// Pixels per lattice unit.
    period: f64,
    /// Phase of `u` and `v`; for rings the centre as a share of the image.
    phase: (f64, f64),
    /// Duty cycle, radius, thickness or amplitude, as the family needs.
    shape: f64,
    /// Softened edge in lattice units.
    soft: f64,
    /// Seed of the noise lattices.
    lattice: u64,
    /// Side of the image, in pixels.
    side: f64,
}

impl Texture {
    /// Draws the parameters of a `family` for an image of `side` pixels.
    pub(super) fn sample(family: Family, side: f64, stream: &mut Stream) -> Self {
        let angle = stream.between(0.0, core::f64::consts::TAU);
        let crossing = stream.between(1.05, 2.09);
        let phase = (stream.fraction(), stream.fraction());
        let size = stream.fraction();
        let shape = stream.fraction();
        let lattice = stream.word();
        let within = |low: f64, high: f64, at: f64| low + (high - low) * at;
        let period = match family {
            Family::Stripes | Family::Grating => within(8.0, 15.0, size),
            Family::Checks => within(12.0, 20.0, size),
            Family::Dots | Family::Crosshatch => within(9.0, 15.0, size),
            Family::Rings => within(8.0, 14.0, size),
            Family::Grain => within(1.8, 3.0, size),
            Family::Clouds => within(9.0, 16.0, size),
            Family::Zigzag => within(9.0, 14.0, size),
            Family::Bricks => within(8.0, 12.0, size),
        };
        let shape = match family {
            Family::Dots => within(0.23, 0.35, shape),
            Family::Crosshatch => within(0.20, 0.30, shape),
            Family::Bricks => within(0.20, 0.32, shape),
            Family::Zigzag => within(0.8, 1.3, shape),
            _ => within(0.42, 0.58, shape),
        };
        Self {
            family,
            turn: (libm::cos(angle), libm::sin(angle)),
            second: (libm::cos(angle + crossing), libm::sin(angle + crossing)),
            period,
            phase,
            shape,
            soft: EDGE_PX / period,
            lattice,
            side,
        }
    }

    /// The level in `[0, 1]` at a point in pixels.
    pub(super) fn at(&self, x: f64, y: f64) -> f64 {
        let (cos, sin) = self.turn;
        let u = (x * cos + y * sin) / self.period + self.phase.0;
        let v = (y * cos - x * sin) / self.period + self.phase.1;
        match self.family {
            Family::Stripes => self.band(u),
            Family::Grating => 0.5 + 0.5 * libm::sin(core::f64::consts::TAU * u),
            Family::Checks => {
                let (a, b) = (2.0 * self.band(u) - 1.0, 2.0 * self.band(v) - 1.0);
                0.5 + 0.5 * a * b
            }
            Family::Dots => {
                let (du, dv) = (fract(u) - 0.5, fract(v) - 0.5);
                edge(self.shape - (du * du + dv * dv).sqrt(), self.soft)
            }
            Family::Rings => {
                let dx = x - self.side * (0.25 + 0.5 * self.phase.0);
                let dy = y - self.side * (0.25 + 0.5 * self.phase.1);
                self.band((dx * dx + dy * dy).sqrt() / self.period)
            }
            Family::Crosshatch => {
                let (cos, sin) = self.second;
                let w = (x * cos + y * sin) / self.period + self.phase.1;
                self.line(u).max(self.line(w))
            }
            Family::Grain => self.noise(u, v, 0),
            Family::Clouds => 0.72 * self.noise(u, v, 1) + 0.28 * self.noise(2.0 * u, 2.0 * v, 2),
            Family::Zigzag => {
                let bent = u + self.shape * triangle(0.6 * v);
                edge(triangle(bent) - 0.5, 2.0 * self.soft)
            }
            Family::Bricks => {
                let odd = fract(v.floor() * 0.5);
                // Half a unit of `u` shifts a brick by half its length.
                let along = fract(0.5 * u + odd);
                let across = edge(self.shape - triangle_gap(fract(v)), 2.0 * self.soft);
                let end = edge(0.5 * self.shape - triangle_gap(along), self.soft);
                across.max(end)
            }
        }
    }

    /// A square wave of `t` with this texture's duty cycle.
    fn band(&self, t: f64) -> f64 {
        edge(triangle(t) - self.shape, 2.0 * self.soft)
    }

    /// Thin lines at the whole numbers of `t`.
    fn line(&self, t: f64) -> f64 {
        edge(self.shape - triangle_gap(fract(t)), 2.0 * self.soft)
    }

    /// Value noise: hashed lattice values, joined by a cubic.
    fn noise(&self, u: f64, v: f64, octave: u64) -> f64 {
        let (u0, v0) = (u.floor(), v.floor());
        let (fu, fv) = (smooth(u - u0), smooth(v - v0));
        // Coordinates are a few hundred at most: the casts are exact.
        let (iu, iv) = (u0 as i64, v0 as i64);
        let corner = |du: i64, dv: i64| lattice_value(self.lattice, octave, iu + du, iv + dv);
        let low = corner(0, 0) + (corner(1, 0) - corner(0, 0)) * fu;
        let high = corner(0, 1) + (corner(1, 1) - corner(0, 1)) * fu;
        let level = low + (high - low) * fv;
        // Interpolation narrows the spread: widen it to that of the other textures.
        clamp01(0.5 + 1.6 * (level - 0.5))
    }
}

/// `t` without its whole part, in `[0, 1)` (1 only by rounding).
fn fract(t: f64) -> f64 {
    t - t.floor()
}

/// A triangle wave of period 1: 1 at whole numbers, 0 half-way.
fn triangle(t: f64) -> f64 {
    (2.0 * fract(t) - 1.0).abs()
}

/// Distance of a fraction from the nearest whole number, scaled to `[0, 1]`.
fn triangle_gap(fraction: f64) -> f64 {
    1.0 - (2.0 * fraction - 1.0).abs()
}

/// A step at 0, softened over `width`.
fn edge(distance: f64, width: f64) -> f64 {
    clamp01(0.5 + distance / width)
}

fn clamp01(t: f64) -> f64 {
    t.clamp(0.0, 1.0)
}

/// The cubic with flat ends.
fn smooth(t: f64) -> f64 {
    t * t * (3.0 - 2.0 * t)
}

/// A pseudo-random level in `[0, 1)` for a lattice point (SplitMix64's finaliser).
fn lattice_value(seed: u64, octave: u64, iu: i64, iv: i64) -> f64 {
    let mut z = seed
        .wrapping_add(octave.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add((iu as u64).wrapping_mul(0xD1B5_4A32_D192_ED03))
        .wrapping_add((iv as u64).wrapping_mul(0xABC9_8388_FB8F_AC03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    f64::from((z >> 32) as u32) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_texture_stays_in_range_and_uses_most_of_it() {
        for (class, family) in FAMILIES.into_iter().enumerate() {
            for index in 0..8 {
                let mut stream = Stream::new(class as u64, index);
                let texture = Texture::sample(family, 64.0, &mut stream);
                let (mut low, mut high) = (1.0_f64, 0.0_f64);
                for y in 0..64 {
                    for x in 0..64 {
                        let level = texture.at(f64::from(x), f64::from(y));
                        assert!((0.0..=1.0).contains(&level), "{family:?} {level}");
                        low = low.min(level);
                        high = high.max(level);
                    }
                }
                assert!(high - low > 0.6, "{family:?} {low} {high}");
            }
        }
    }

    #[test]
    fn waves_have_the_stated_values() {
        assert_eq!(triangle(0.0), 1.0);
        assert_eq!(triangle(0.5), 0.0);
        assert_eq!(triangle(-0.75), 0.5);
        assert_eq!(triangle_gap(0.0), 0.0);
        assert_eq!(triangle_gap(0.5), 1.0);
        assert_eq!(edge(0.0, 1.0), 0.5);
        assert_eq!(edge(-2.0, 1.0), 0.0);
        assert_eq!(smooth(0.5), 0.5);
    }
}
