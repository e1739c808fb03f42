//! A classifier that can be differentiated, in the attacks' terms.

use perturb_challenge::pixels::Pixels;

/// Why a model gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The budget of passes is spent.
    #[error("the budget of {0} passes is spent")]
    Budget(u64),
    /// The deadline is over.
    #[error("the deadline is over")]
    Deadline,
    /// The model itself failed.
    #[error("the model failed: {0}")]
    Failed(String),
}

/// The margin of one image and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct MarginGradient {
    /// Logits, one per class.
    pub logits: Vec<f32>,
    /// ∂(z_label − max other z)/∂(channel value in 8-bit levels); interleaved RGB as the image is.
    pub gradient: Vec<f32>,
}

/// A classifier with gradients over 8-bit images.
pub trait GradientModel {
    /// Logits of each image: one forward pass an image.
    ///
    /// # Errors
    /// Budget or deadline spent, or the model's own failure.
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError>;

    /// Logits and the gradient of the margin of `label`: one forward and one backward pass.
    ///
    /// # Errors
    /// Budget or deadline spent, or the model's own failure.
    fn margin_gradient(&mut self, image: &Pixels, label: u16) -> Result<MarginGradient, ModelError>;
}

impl<M: GradientModel + ?Sized> GradientModel for &mut M {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        (**self).logits(images)
    }

    fn margin_gradient(&mut self, image: &Pixels, label: u16) -> Result<MarginGradient, ModelError> {
        (**self).margin_gradient(image, label)
    }
}

/// The label with the highest logit other than `label`, and `z_label − z_other`.
/// `None` where there is no other class or a logit is not finite.
pub fn margin(logits: &[f32], label: u16) -> Option<(u16, f32)> {
    let own = *logits.get(usize::from(label))?;
    let (other, best) =
        logits.iter().enumerate().filter(|(i, _)| *i != usize::from(label)).max_by(|a, b| a.1.total_cmp(b.1))?;
    (own.is_finite() && best.is_finite()).then_some((other as u16, own - best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_is_to_the_best_other_class() {
        assert_eq!(margin(&[1.0, 3.0, 2.5], 1), Some((2, 0.5)));
        assert_eq!(margin(&[1.0, 3.0, 2.5], 0), Some((1, -2.0)));
        assert_eq!(margin(&[1.0, f32::NAN], 0), None);
        assert_eq!(margin(&[1.0], 0), None);
        assert_eq!(margin(&[1.0, 2.0], 9), None);
    }
}
