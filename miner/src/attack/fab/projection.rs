//! The projection of a point onto a plane within the pixel box, in L∞: problem (5) of the FAB paper,
//!
//! ```text
//! min ‖d‖∞   such that   w·d = missing,   0 ≤ t + d ≤ 255
//! ```
//!
//! Each value moves along the sign that helps, by the common length λ or as far as the box lets it, rᵢ:
//! λ is the root of the concave, piecewise linear Σ|wᵢ| min(λ, rᵢ) = |missing|. Newton's method from the
//! left reaches it in finitely many steps, each of which settles at least one more value at its bound.
//! Where even the whole box does not reach the plane, every value goes to its bound.

use super::super::float::sign;

/// d for the point `t`, the plane's normal `w` and what is `missing` of w·d.
pub(super) fn project(t: &[f32], w: &[f32], missing: f64) -> Vec<f32> {
    let towards = if missing < 0.0 { -1.0 } else { 1.0 };
    let missing = missing.abs();
    let room = |t: f32, s: f32| if s > 0.0 { 255.0 - t } else { t }.max(0.0);
    let values = || t.iter().zip(w).map(|(t, w)| (f64::from(w.abs()), f64::from(room(*t, towards * sign(*w)))));
    let reach: f64 = values().map(|(w, r)| w * r).sum();
    let mut length = 0.0_f64;
    if reach <= missing {
        length = f64::INFINITY;
    } else {
        loop {
            // What the values at their bounds give, and the slope of the others.
            let (given, slope) =
                values().fold((0.0, 0.0), |(g, s), (w, r)| if r <= length { (g + w * r, s) } else { (g, s + w) });
            let next = if slope > 0.0 { (missing - given) / slope } else { length };
            // No value more at its bound: this was the root.
            if next <= length || !next.is_finite() {
                break;
            }
            length = next;
        }
    }
    t.iter()
        .zip(w)
        .map(|(t, w)| {
            let s = towards * sign(*w);
            if s == 0.0 { 0.0 } else { s * room(*t, s).min(length as f32) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_the_box_everything_moves_by_the_same_length() {
        // 8 / (1 + 3) = 2 levels.
        assert_eq!(project(&[100.0, 100.0, 100.0], &[1.0, -3.0, 0.0], 8.0), [2.0, -2.0, 0.0]);
        assert_eq!(project(&[100.0, 100.0, 100.0], &[1.0, -3.0, 0.0], -8.0), [-2.0, 2.0, 0.0]);
    }

    #[test]
    fn what_is_at_its_bound_leaves_its_part_to_the_others() {
        // The first value has room for 1: the second must give 8 − 1·1 = 7 with weight 1.
        assert_eq!(project(&[254.0, 100.0], &[1.0, 1.0], 8.0), [1.0, 7.0]);
    }

    #[test]
    fn a_plane_out_of_reach_takes_everything_to_its_bound() {
        assert_eq!(project(&[250.0, 3.0], &[1.0, -1.0], 1000.0), [5.0, -3.0]);
        assert_eq!(project(&[250.0, 3.0], &[0.0, 0.0], 1.0), [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn the_plane_is_met_within_the_box_and_nothing_moves_further_than_the_rest(
            t in prop::collection::vec(0.0f32..=255.0, 24),
            w in prop::collection::vec(-2.0f32..2.0, 24),
            share in -0.95f64..0.95,
        ) {
            let room = |t: f32, up: bool| f64::from(if up { 255.0 - t } else { t });
            let up = share > 0.0;
            let reach: f64 = t.iter().zip(&w).map(|(t, w)| f64::from(w.abs()) * room(*t, (*w > 0.0) == up)).sum();
            let d = project(&t, &w, share * reach);
            let dot: f64 = d.iter().zip(&w).map(|(d, w)| f64::from(*d) * f64::from(*w)).sum();
            prop_assert!((dot - share * reach).abs() < 1e-4 * reach.max(1.0));
            let length = d.iter().fold(0.0_f32, |m, d| m.max(d.abs()));
            for ((t, w), d) in t.iter().zip(&w).zip(&d) {
                prop_assert!((-1e-3..=255.001).contains(&(t + d)));
                // Less than the common length only at the bound.
                let bound = room(*t, (*w > 0.0) == up) as f32;
                prop_assert!(*w == 0.0 || (d.abs() - length.min(bound)).abs() < 1e-3);
            }
        }
    }
}
