//! A classifier in the attacks' terms: batches of images in plain host memory.
//!
//! Attacks know nothing of tensors. What they may ask is the logits of 8-bit candidates, the logits
//! of images between the levels, and the gradients of named losses at such images. Everything is
//! per image: no image of a batch influences another's numbers.

use perturb_challenge::pixels::Pixels;

use crate::loss::Loss;

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

/// An image whose channel values lie between the levels too.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Interleaved RGB, rows first, in 8-bit levels 0..=255.
    pub rgb: Vec<f32>,
}

impl From<&Pixels> for Levels {
    fn from(p: &Pixels) -> Self {
        Self { width: p.width, height: p.height, rgb: p.rgb.iter().map(|x| f32::from(*x)).collect() }
    }
}

/// One backward pass that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Position of the image in the batch.
    pub image: usize,
    /// The image's own label.
    pub label: u16,
    /// The loss.
    pub loss: Loss,
}

/// A loss and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// The loss at the image.
    pub value: f32,
    /// ∂loss/∂(channel value), per level, in the image's own order.
    pub gradient: Vec<f32>,
}

/// What one call of [`Model::gradients`] gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passes {
    /// Logits, one row an image.
    pub logits: Vec<Vec<f32>>,
    /// One for each pull, in order.
    pub pulled: Vec<Pulled>,
}

/// A classifier with gradients.
pub trait Model {
    /// Logits of 8-bit images: one forward pass an image.
    ///
    /// # Errors
    /// Budget or deadline spent, or the model's own failure.
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError>;

    /// Logits of images between the levels: one forward pass an image.
    ///
    /// # Errors
    /// Budget or deadline spent, or the model's own failure.
    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError>;

    /// Logits of each image and the gradients that `pulls` ask for: one forward pass an image, one
    /// backward pass a pull. Where an image's logits are not finite its losses are NaN and their gradients 0.
    ///
    /// # Errors
    /// Budget or deadline spent, a pull that names no image or no class, or the model's own failure.
    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError>;

    /// How many forward passes may be begun at once and still end in time, judged by the last ones; `usize::MAX`
    /// where nothing hurries.
    fn forwards_left(&self) -> usize {
        usize::MAX
    }
}

impl<M: Model + ?Sized> Model for &mut M {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        (**self).logits(images)
    }

    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        (**self).float_logits(images)
    }

    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError> {
        (**self).gradients(images, pulls)
    }

    fn forwards_left(&self) -> usize {
        (**self).forwards_left()
    }
}
