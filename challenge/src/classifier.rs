//! The model that answers are tried on, as the pipeline sees it.

use perturb_types::{Digest, Millionths};

use crate::pixels::Pixels;

/// A model that failed on its input; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the classifier failed: {0}")]
pub struct ClassifierError(pub String);

/// A classifier over 8-bit RGB images; resizing and normalising happen inside.
pub trait Classifier: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// SHA-256 of its weights file.
    fn digest(&self) -> Digest;

    /// Number of classes: the length of each row of [`Self::logits`].
    fn classes(&self) -> usize;

    /// One row of logits per image, in order.
    ///
    /// # Errors
    /// The model cannot take the images, or failed.
    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError>;
}

/// What a row of logits says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// The class with the largest logit; the lower one of equals.
    pub class: u16,
    /// logit of `class` minus logit of the reference class, in millionths, at least 0.
    pub margin: i64,
}

/// Reads a row of logits against the reference class `label`.
///
/// The margin is `⌊(z_class − z_label)·10⁶ + ½⌋`, taken in `f64`.
///
/// # Errors
/// An empty row, more than 2¹⁶ classes, a `label` outside it, or a value that is not finite.
pub fn predict(logits: &[f32], label: u16) -> Result<Prediction, ClassifierError> {
    if logits.len() > usize::from(u16::MAX) + 1 {
        return Err(ClassifierError(format!("{} classes, at most 65536 are possible", logits.len())));
    }
    let reference = *logits
        .get(usize::from(label))
        .ok_or_else(|| ClassifierError(format!("label {label} is outside its {} classes", logits.len())))?;
    let mut best = (0usize, f32::NEG_INFINITY);
    for (class, &z) in logits.iter().enumerate() {
        if !z.is_finite() {
            return Err(ClassifierError(format!("logit {class} is {z}")));
        }
        if z > best.1 {
            best = (class, z);
        }
    }
    Ok(Prediction { class: best.0 as u16, margin: lead(best.1, reference) })
}

/// Lead of one logit over another, `⌊(a − b)·10⁶ + ½⌋`.
pub(crate) fn lead(a: f32, b: f32) -> i64 {
    ((f64::from(a) - f64::from(b)) * f64::from(Millionths::ONE.0) + 0.5).floor() as i64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_largest_logit_wins_and_the_lower_class_of_equals() {
        assert_eq!(predict(&[1.0, 3.5, 3.5], 0).unwrap(), Prediction { class: 1, margin: 2_500_000 });
        assert_eq!(predict(&[2.0, 1.0], 0).unwrap(), Prediction { class: 0, margin: 0 });
    }

    #[test]
    fn broken_rows_are_errors() {
        assert!(predict(&[], 0).is_err());
        assert!(predict(&[1.0], 1).is_err());
        assert!(predict(&[1.0, f32::NAN], 0).is_err());
        assert!(predict(&[1.0, f32::INFINITY], 0).is_err());
        assert!(predict(&[f32::MAX, f32::MIN], 1).unwrap().margin > 0);
    }
}
