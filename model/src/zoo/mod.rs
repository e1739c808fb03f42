//! The classifiers of the field, from their libraries' own weights.
//!
//! The rules: the table ([`table`]) says everything about a model; the weights are read from the
//! library's file by the library's names, exactly or not at all ([`reader`]); the preprocessing is part
//! of the graph ([`preprocess`]), so that [`Differentiable::forward`] takes 8-bit levels. There are no
//! random weights: a model without its file is an error.
//!
//! What a network computes is held against timm and torchvision in `f64`, logits and input gradients,
//! with every tensor randomised: small networks in the tests (`fixtures/`), the real sizes by
//! `make parity`.
//!
//! Inference is fp32 with deterministic kernels and without TF32, see [`layers`].

pub(crate) mod convnext;
pub(crate) mod efficientnet;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod layers;
pub mod layout;
pub mod preprocess;
mod reader;
pub mod small;
pub(crate) mod swin;
pub mod table;
#[cfg(test)]
mod tests;
pub mod torchscript;
pub(crate) mod vit;

pub use convnext::ConvNextConfig;
pub use efficientnet::{BlockKind, EfficientNetConfig, Naming, Stage};
pub use layers::{Activation, Padding};
pub use layout::{ParameterKind, ParameterSpec};
pub use preprocess::{Preprocessing, Resize};
pub use swin::SwinConfig;
pub use table::{Architecture, ModelSpec, Origin, find, models};
pub use torchscript::TorchScriptClassifier;
pub use vit::VitConfig;

use crate::classifier::Differentiable;
use crate::error::ModelError;
use crate::tensor::{shape, to_rows, to_tensor};
use layout::{Layout, Parameters};
use perturb_challenge::classifier::{Classifier, ClassifierError};
use perturb_challenge::pixels::Pixels;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// Pixels that go into one forward pass: sixteen images of 480×480. Bounds the memory of a large
/// request.
const MAX_BATCH_PIXELS: i64 = 16 * 480 * 480;

/// Images in one forward pass.
const MAX_BATCH: i64 = 64;

/// A network without its weights: plain data.
#[derive(Debug)]
enum Network {
    EfficientNet(efficientnet::EfficientNet),
    ConvNext(convnext::ConvNext),
    Vit(vit::Vit),
    Swin(swin::Swin),
}

impl Network {
    fn new(architecture: &Architecture, classes: u16, layout: &mut Layout) -> Self {
        let classes = i64::from(classes);
        match architecture {
            Architecture::EfficientNet(config) => {
                Self::EfficientNet(efficientnet::EfficientNet::new(config, classes, layout))
            }
            Architecture::ConvNext(config) => Self::ConvNext(convnext::ConvNext::new(config, classes, layout)),
            Architecture::Vit(config) => Self::Vit(vit::Vit::new(config, classes, layout)),
            Architecture::Swin(config) => Self::Swin(swin::Swin::new(config, classes, layout)),
        }
    }

    fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::EfficientNet(network) => network.forward(p, x),
            Self::ConvNext(network) => network.forward(p, x),
            Self::Vit(network) => network.forward(p, x),
            Self::Swin(network) => network.forward(p, x),
        }
    }
}

/// The tensors that a weights file of this model holds, in the library's own order.
#[must_use]
pub fn parameters(spec: &ModelSpec) -> Vec<ParameterSpec> {
    let mut layout = Layout::default();
    Network::new(&spec.architecture, spec.classes, &mut layout);
    layout.specs().to_vec()
}

/// Checks weights files against a model: every tensor's name, shape, type and values. Gives the SHA-256
/// (of several files: of their digests, in order).
///
/// # Errors
/// `Read` if a file cannot be read, `ZooWeights` with the first thing that does not fit.
pub fn verify(spec: &ModelSpec, files: &[PathBuf]) -> Result<[u8; 32], ModelError> {
    let superfluous = spec.architecture.superfluous();
    Ok(reader::read(spec.name, files, &parameters(spec), superfluous)?.digest)
}

/// Most bytes of one file of a model's weights.
pub(crate) fn size_limit(spec: &ModelSpec) -> u64 {
    reader::size_limit(&parameters(spec))
}

/// A model of the table with its weights. Shared freely between threads.
pub struct ZooClassifier {
    spec: ModelSpec,
    digest: [u8; 32],
    device: Device,
    kind: Kind,
    network: Network,
    /// Tensor handles may move between threads but not be used by two at once: each call takes its
    /// own handles on the shared, immutable storage and computes without the lock.
    parameters: Mutex<Parameters>,
}

impl std::fmt::Debug for ZooClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ZooClassifier({}, {:?}, {:?})", self.spec.name, self.kind, self.device)
    }
}

impl ZooClassifier {
    /// The model with the weights of `files` (one, or all shards in their order), in fp32. With
    /// `expected`, they must have that SHA-256 (as [`verify`] gives it): held against the bytes that
    /// became the weights.
    ///
    /// # Errors
    /// `Read` if a file cannot be read, `ZooWeights` with the first thing that does not fit, `Digest` if
    /// they are other weights, `Torch` if the device cannot hold them.
    pub fn load(
        spec: &ModelSpec,
        files: &[PathBuf],
        expected: Option<[u8; 32]>,
        device: Device,
    ) -> Result<Self, ModelError> {
        Self::load_as(spec, files, expected, device, Kind::Float)
    }

    /// The model computing in another precision; [`Differentiable::forward`] then takes and gives it.
    /// For measuring: validators and miners compute in fp32.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_as(
        spec: &ModelSpec,
        files: &[PathBuf],
        expected: Option<[u8; 32]>,
        device: Device,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        let mut layout = Layout::default();
        let network = Network::new(&spec.architecture, spec.classes, &mut layout);
        let contents = reader::read(spec.name, files, layout.specs(), spec.architecture.superfluous())?;
        if let Some(expected) = expected.filter(|expected| *expected != contents.digest) {
            return Err(ModelError::Digest {
                origin: files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
                found: perturb_types::Digest(contents.digest).to_string(),
                expected: perturb_types::Digest(expected).to_string(),
            });
        }
        let parameters = Mutex::new(layout.finish(contents.tensors, kind, device)?);
        Ok(Self { spec: *spec, digest: contents.digest, device, kind, network, parameters })
    }

    /// The table's entry.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }
}

/// How many images of so many pixels go into one forward pass. The pixels are those of the largest
/// picture on the way: as it comes, resized, or cut.
fn fit(pixels: i64) -> usize {
    (MAX_BATCH_PIXELS / pixels.max(1)).clamp(1, MAX_BATCH) as usize
}

/// Logits of images of any sizes: equally sized neighbours share a batch. `pixels` says what an image of
/// this height and width takes; each image must get `classes` logits.
fn infer_batched(
    images: &[&Pixels],
    classes: usize,
    device: Device,
    pixels: impl Fn(i64, i64) -> i64,
    forward: impl Fn(&Tensor) -> Result<Tensor, ModelError>,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let mut rows = Vec::with_capacity(images.len());
    for group in images.chunk_by(|a, b| (a.width, a.height) == (b.width, b.height)) {
        let (height, width) = group.first().map_or((1, 1), |image| (image.height, image.width));
        for batch in group.chunks(fit(pixels(height.into(), width.into()))) {
            let x = to_tensor(batch, device)?;
            let logits = tch::no_grad(|| forward(&x))?;
            check_shape(&logits, batch.len(), classes)?;
            rows.extend(to_rows(&logits)?);
        }
    }
    Ok(rows)
}

/// That a tensor is `images`×`classes`.
fn check_shape(logits: &Tensor, images: usize, classes: usize) -> Result<(), ModelError> {
    let size = shape(logits)?;
    if size == [images as i64, classes as i64] {
        return Ok(());
    }
    Err(ModelError::Output(format!("shape {size:?} for {images} images, expected [{images}, {classes}]")))
}

impl Differentiable for ZooClassifier {
    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let input = self.spec.preprocessing.apply(x)?;
        // The lock guards a read of handles, which cannot be left half done.
        let parameters = self.parameters.lock().unwrap_or_else(PoisonError::into_inner).share();
        self.network.forward(&parameters, &input)
    }

    fn device(&self) -> Device {
        self.device
    }
}

impl Classifier for ZooClassifier {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn digest(&self) -> perturb_types::Digest {
        perturb_types::Digest(self.digest)
    }

    fn classes(&self) -> usize {
        usize::from(self.spec.classes)
    }

    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        let pixels = |height, width| self.spec.preprocessing.pixels(height, width);
        infer_batched(images, self.classes(), self.device, pixels, |x| self.forward(&x.f_to_kind(self.kind)?))
            .map_err(|error| ClassifierError(error.to_string()))
    }
}
