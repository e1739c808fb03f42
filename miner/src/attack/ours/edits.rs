//! Changes of an image in whole levels, and the orders in which they are made and taken back.
//!
//! A level more on a value whose change is u − 1 raises the margin by about |slope| and the sum of
//! squares by u² − (u − 1)² = 2u − 1. Taking the steps by |slope| / (2u − 1), best first, gives for every
//! sum of squares the whole-level change with the greatest promise; at level 1 that is the top-|slope|
//! prefix. Taking back goes by the same quotient, worst first.

use perturb_challenge::pixels::Pixels;

use super::super::context::mix;

/// A change of every channel value, in levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub by: Vec<i16>,
}

impl Change {
    pub fn none(channels: usize) -> Self {
        Self { by: vec![0; channels] }
    }

    /// Every value as far up `slope` as it can go within `level`.
    pub fn dense(clean: &Pixels, slope: &[f32], level: u8) -> Self {
        let by = clean.rgb.iter().zip(slope).map(|(&c, &g)| match g {
            g if g > 0.0 => i16::from(level.min(room(c, true))),
            g if g < 0.0 => -i16::from(level.min(room(c, false))),
            _ => 0,
        });
        Self { by: by.collect() }
    }

    /// The change from `clean` to `image`.
    #[cfg(test)]
    pub fn between(clean: &Pixels, image: &Pixels) -> Self {
        Self { by: clean.rgb.iter().zip(&image.rgb).map(|(c, x)| i16::from(*x) - i16::from(*c)).collect() }
    }

    /// The sum of squares.
    pub fn squares(&self) -> u64 {
        self.by.iter().map(|d| u64::from(d.unsigned_abs()).pow(2)).sum()
    }

    /// The largest step.
    #[cfg(test)]
    pub fn level(&self) -> u8 {
        self.by.iter().map(|d| d.unsigned_abs()).max().unwrap_or(0).min(255) as u8
    }

    pub fn apply(&self, clean: &Pixels) -> Pixels {
        let mut image = clean.clone();
        for (x, by) in image.rgb.iter_mut().zip(&self.by) {
            *x = (i16::from(*x) + by).clamp(0, 255) as u8;
        }
        image
    }
}

/// Levels that a value may still move up or down.
fn room(c: u8, up: bool) -> u8 {
    if up { 255 - c } else { c }
}

/// Slopes differ by up to this share from miner to miner, so that edits of nearly the same worth come
/// in another order for each.
const BLUR: f32 = 0.02;

fn blurred(slope: f32, salt: u64, index: usize) -> f32 {
    slope.abs() * (1.0 + BLUR * (mix(salt, index as u64) >> 40) as f32 / (1u32 << 24) as f32)
}

/// Steps of one level each, best first.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Index of the value, and whether it goes up.
    steps: Vec<(u32, bool)>,
}

impl Order {
    /// All feasible steps up `slope` to at most `level`, each weighed against its squares and, where
    /// given, against the value's own `cost`.
    pub fn new(clean: &Pixels, slope: &[f32], level: u8, cost: Option<&[f32]>, salt: u64) -> Self {
        let mut keyed: Vec<u64> = Vec::new();
        for (i, (&c, &g)) in clean.rgb.iter().zip(slope).enumerate() {
            let up = g > 0.0;
            let mut worth = blurred(g, salt, i);
            if let Some(cost) = cost {
                worth /= cost[i].max(f32::MIN_POSITIVE);
            }
            // Where the model does not look there is nothing to gain, and no number orders a NaN.
            if !(worth > 0.0 && worth.is_finite()) {
                continue;
            }
            for u in 1..=level.min(room(c, up)) {
                let key = worth / f32::from(2 * u16::from(u) - 1);
                // Positive floats sort as their bits do; the index breaks ties the same way everywhere.
                keyed.push(u64::from(!key.to_bits()) << 32 | (i as u64) << 1 | u64::from(up));
            }
        }
        keyed.sort_unstable();
        Self { steps: keyed.into_iter().map(|k| ((k as u32) >> 1, k & 1 == 1)).collect() }
    }

    /// The longest prefix within `squares`.
    pub fn prefix(&self, channels: usize, squares: u64) -> Change {
        let mut change = Change::none(channels);
        let mut spent = 0;
        for &(i, up) in &self.steps {
            let by = &mut change.by[i as usize];
            spent += 2 * u64::from(by.unsigned_abs()) + 1;
            if spent > squares {
                break;
            }
            *by += if up { 1 } else { -1 };
        }
        change
    }
}

/// `change` with single levels taken back, least contribution for its squares first, until at most
/// each of `targets` (falling) remains.
pub(super) fn pruned(change: &Change, slope: &[f32], targets: &[u64], salt: u64) -> Vec<Change> {
    let mut keyed: Vec<(f32, u32)> = Vec::new();
    for (i, (&by, &g)) in change.by.iter().zip(slope).enumerate() {
        // What the value's change contributes to the lead, per level; negative where it hurts.
        let helps = if (by > 0) == (g > 0.0) { blurred(g, salt, i) } else { -g.abs() };
        let helps = if helps.is_finite() { helps } else { 0.0 };
        keyed.extend((1..=by.unsigned_abs()).map(|u| (helps / f32::from(2 * u - 1), i as u32)));
    }
    keyed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut current = change.clone();
    let mut left = current.squares();
    let mut steps = keyed.into_iter();
    let mut out = Vec::with_capacity(targets.len());
    for &target in targets {
        while left > target {
            let Some((_, i)) = steps.next() else { break };
            let by = &mut current.by[i as usize];
            left -= (2 * u64::from(by.unsigned_abs())).saturating_sub(1);
            *by -= by.signum();
        }
        out.push(current.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn flat(values: &[u8]) -> Pixels {
        Pixels::new(values.len() as u32 / 3, 1, values.to_vec()).unwrap()
    }

    #[test]
    fn at_level_one_a_prefix_holds_the_steepest_values() {
        let order = Order::new(&flat(&[9; 6]), &[0.5, -3.0, 0.0, 2.0, -1.0, 4.0], 1, None, 0);
        assert_eq!(order.prefix(6, 3).by, [0, -1, 0, 1, 0, 1]);
        assert_eq!(order.prefix(6, u64::MAX).squares(), 5, "a value without a slope is never touched");
    }

    #[test]
    fn at_higher_levels_steep_values_move_further() {
        let order = Order::new(&flat(&[9; 3]), &[6.0, 1.0, -2.5], 3, None, 0);
        // Quotients: 6, 2, 1.2 for the first value; 1, 1/3, 0.2; 2.5, 0.83, 0.5.
        assert_eq!(order.prefix(3, 1).by, [1, 0, 0]);
        assert_eq!(order.prefix(3, 2).by, [1, 0, -1]);
        assert_eq!(order.prefix(3, 5).by, [2, 0, -1]);
        assert_eq!(order.prefix(3, 10).by, [3, 0, -1]);
        assert_eq!(order.prefix(3, u64::MAX).by, [3, 3, -3]);
    }

    #[test]
    fn values_at_the_end_of_their_range_stay_there() {
        let order = Order::new(&flat(&[255, 254, 0, 1, 255, 0]), &[1.0, 1.0, -1.0, -1.0, -1.0, 1.0], 2, None, 0);
        assert_eq!(order.prefix(6, u64::MAX).by, [0, 1, 0, -1, -2, 2]);
        let clean = flat(&[255, 254, 0, 1, 255, 0]);
        assert_eq!(Change::dense(&clean, &[1.0, 1.0, -1.0, -1.0, -1.0, 1.0], 2).by, [0, 1, 0, -1, -2, 2]);
    }

    #[test]
    fn pruning_takes_back_what_hurts_first_and_the_highest_level_of_a_weak_value() {
        let change = Change { by: vec![1, -2, 1] };
        let out = pruned(&change, &[5.0, -2.0, -1.0], &[5, 2, 1], 0);
        assert_eq!(out[0].by, [1, -2, 0]);
        assert_eq!(out[1].by, [1, -1, 0]);
        assert_eq!(out[2].by, [1, 0, 0]);
    }

    proptest! {
        #[test]
        fn changes_keep_the_level_the_squares_and_the_range(
            clean in prop::collection::vec(any::<u8>(), 30), slope in prop::collection::vec(-1.0f32..1.0, 30),
            level in 1u8..8, share in 0u64..400, salt: u64,
        ) {
            let clean = flat(&clean);
            let order = Order::new(&clean, &slope, level, None, salt);
            let change = order.prefix(30, share);
            prop_assert!(change.level() <= level && change.squares() <= share);
            let image = change.apply(&clean);
            prop_assert_eq!(Change::between(&clean, &image), change.clone(), "nothing is clipped");
            for target in [share / 2, share / 10] {
                let less = &pruned(&change, &slope, &[target], salt)[0];
                prop_assert!(less.squares() <= target);
                prop_assert!(less.by.iter().zip(&change.by).all(|(a, b)| a.abs() <= b.abs() && a * b >= 0));
            }
        }
    }
}
