//! The losses that attacks climb, as functions of the logits z of an image with label y.
//!
//! Every one of them rises towards a flip. With π the classes by falling logit (the lower class
//! first among equals):
//!
//! | | value | source |
//! |---|---|---|
//! | cross-entropy | log Σⱼ exp zⱼ − z_y | Goodfellow et al. 2015 |
//! | DLR | (max_{j≠y} zⱼ − z_y) / (z_π1 − z_π3) | Croce & Hein 2020, eq. 6 |
//! | targeted DLR | (z_t − z_y) / (z_π1 − (z_π3 + z_π4)/2) | Croce & Hein 2020, eq. 7 |
//! | margin | max_{j≠y} zⱼ − z_y | Carlini & Wagner 2017, f₆ |
//! | difference | z_t − z_y | DeepFool's f_t |
//!
//! DLR divides by a distance between ranks; with fewer classes than it names there is none, and the
//! difference stands alone. A gradient with respect to the image is the pull-back of
//! [`Loss::at`]'s second part, so that no model has to know a loss.

/// Keeps a quotient of equal logits finite, as in the authors' code.
const TINY: f64 = 1e-12;

/// A loss by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Cross-entropy of the label.
    CrossEntropy,
    /// Difference of logits ratio.
    Dlr,
    /// Difference of logits ratio towards a class.
    TargetedDlr {
        /// The class.
        target: u16,
    },
    /// Lead of the best other class.
    Margin,
    /// Lead of one other class.
    Difference {
        /// The class.
        target: u16,
    },
}

impl Loss {
    /// The loss and its derivatives by each logit; `None` where a logit is not finite, a class does
    /// not exist, or there is only one.
    #[must_use]
    pub fn at(self, logits: &[f32], label: u16) -> Option<(f32, Vec<f32>)> {
        let own = usize::from(label);
        if own >= logits.len() || logits.len() < 2 || logits.iter().any(|z| !z.is_finite()) {
            return None;
        }
        let ranks = ranks(logits);
        let best_other = || ranks.iter().copied().find(|j| *j != own);
        let other = match self {
            Self::CrossEntropy => return Some(cross_entropy(logits, own)),
            Self::Dlr | Self::Margin => best_other()?,
            Self::TargetedDlr { target } | Self::Difference { target } => usize::from(target),
        };
        if other >= logits.len() || other == own {
            return None;
        }
        // Where the denominator's classes stand, and with which factor.
        let scale: &[(usize, f64)] = match (self, ranks.as_slice()) {
            (Self::Dlr, [first, _, third, ..]) => &[(*first, 1.0), (*third, -1.0)],
            (Self::TargetedDlr { .. }, [first, _, third, fourth, ..]) => {
                &[(*first, 1.0), (*third, -0.5), (*fourth, -0.5)]
            }
            _ => &[],
        };
        let z = |j: usize| f64::from(logits[j]);
        let lead = z(other) - z(own);
        let spread = if scale.is_empty() { 1.0 } else { scale.iter().map(|(j, f)| f * z(*j)).sum::<f64>() + TINY };
        let mut slope = vec![0.0_f64; logits.len()];
        slope[other] += 1.0 / spread;
        slope[own] -= 1.0 / spread;
        for (j, f) in scale {
            slope[*j] -= lead / spread / spread * f;
        }
        Some(((lead / spread) as f32, slope.into_iter().map(|x| x as f32).collect()))
    }
}

/// The classes with the (up to four) largest logits, best first.
fn ranks(logits: &[f32]) -> Vec<usize> {
    let mut top: Vec<usize> = Vec::with_capacity(5);
    for (class, z) in logits.iter().enumerate() {
        let at = top.iter().position(|t| *z > logits[*t]).unwrap_or(top.len());
        top.insert(at, class);
        top.truncate(4);
    }
    top
}

fn cross_entropy(logits: &[f32], own: usize) -> (f32, Vec<f32>) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut slope: Vec<f32> = logits.iter().map(|z| (z - most).exp()).collect();
    let sum: f32 = slope.iter().sum();
    slope.iter_mut().for_each(|p| *p /= sum);
    // p − 1, without the cancellation that leaves a confident model no gradient.
    slope[own] = 0.0;
    slope[own] = -slope.iter().sum::<f32>();
    (most + sum.ln() - logits[own], slope)
}

/// The label with the highest logit other than `label`, and `z_other − z_label`: positive once the
/// label has changed. `None` where there is no other class or one of the two is not finite.
#[must_use]
pub fn margin(logits: &[f32], label: u16) -> Option<(u16, f32)> {
    let own = *logits.get(usize::from(label))?;
    let (other, best) =
        logits.iter().enumerate().filter(|(i, _)| *i != usize::from(label)).max_by(|a, b| a.1.total_cmp(b.1))?;
    (own.is_finite() && best.is_finite()).then_some((other as u16, best - own))
}

/// The classes other than `label`, best first.
#[must_use]
pub fn others(logits: &[f32], label: u16) -> Vec<u16> {
    let mut order: Vec<u16> = (0..logits.len()).map(|j| j as u16).filter(|j| *j != label).collect();
    order.sort_by(|a, b| logits[usize::from(*b)].total_cmp(&logits[usize::from(*a)]).then(a.cmp(b)));
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_losses_are_those_computed_by_hand() {
        let z = [1.0, 3.0, 2.5, 0.5];
        let value = |loss: Loss, label| loss.at(&z, label).unwrap().0;
        assert_eq!(value(Loss::Margin, 1), -0.5);
        assert_eq!(value(Loss::Margin, 0), 2.0);
        assert_eq!(value(Loss::Difference { target: 3 }, 1), -2.5);
        // (2.5 − 3)/(3 − 1) and (0.5 − 3)/(3 − (1 + 0.5)/2).
        assert_eq!(value(Loss::Dlr, 1), -0.25);
        assert!((value(Loss::TargetedDlr { target: 3 }, 1) + 2.5 / 2.25).abs() < 1e-6);
        let sum = z.iter().map(|z: &f32| z.exp()).sum::<f32>();
        assert!((value(Loss::CrossEntropy, 1) - (sum.ln() - 3.0)).abs() < 1e-6);
    }

    #[test]
    fn two_classes_have_a_dlr_without_a_scale() {
        assert_eq!(Loss::Dlr.at(&[1.0, 3.0], 1).unwrap(), (-2.0, vec![1.0, -1.0]));
    }

    #[test]
    fn what_does_not_exist_has_no_loss() {
        assert!(Loss::Margin.at(&[1.0], 0).is_none());
        assert!(Loss::Margin.at(&[1.0, f32::NAN], 0).is_none());
        assert!(Loss::Margin.at(&[1.0, 2.0], 2).is_none());
        assert!(Loss::Difference { target: 0 }.at(&[1.0, 2.0], 0).is_none());
        assert!(Loss::Difference { target: 7 }.at(&[1.0, 2.0], 0).is_none());
    }

    #[test]
    fn the_margin_is_to_the_best_other_class() {
        assert_eq!(margin(&[1.0, 3.0, 2.5], 1), Some((2, -0.5)));
        assert_eq!(margin(&[1.0, 3.0, 2.5], 0), Some((1, 2.0)));
        assert_eq!(margin(&[1.0, f32::NAN], 0), None);
        assert_eq!(margin(&[1.0], 0), None);
        assert_eq!(margin(&[1.0, 2.0], 9), None);
        assert_eq!(others(&[1.0, 3.0, 2.5, 2.5], 1), vec![2, 3, 0]);
    }

    proptest! {
        #[test]
        fn derivatives_are_those_of_finite_differences(
            z in prop::collection::vec(-4.0f32..4.0, 5), label in 0u16..5, target in 0u16..5, which in 0usize..5,
        ) {
            let target = if target == label { (label + 1) % 5 } else { target };
            let loss = [
                Loss::CrossEntropy, Loss::Dlr, Loss::TargetedDlr { target }, Loss::Margin, Loss::Difference { target },
            ][which];
            // Near a tie the ranks change within the difference.
            let mut sorted = z.clone();
            sorted.sort_by(f32::total_cmp);
            prop_assume!(sorted.windows(2).all(|w| w[1] - w[0] > 0.1));
            let (_, slope) = loss.at(&z, label).unwrap();
            for j in 0..5 {
                let moved = |by: f32| {
                    let mut z = z.clone();
                    z[j] += by;
                    f64::from(loss.at(&z, label).unwrap().0)
                };
                let expected = (moved(0.01) - moved(-0.01)) / 0.02;
                let scale = 1.0 + expected.abs();
                prop_assert!((f64::from(slope[j]) - expected).abs() < 0.02 * scale, "{} {}", slope[j], expected);
            }
        }
    }
}
