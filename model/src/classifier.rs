//! The demo network behind the network's `Classifier` trait.

use crate::error::{ModelError, WeightsError};
use crate::net::{ARCHITECTURE, DemoNet, tensor_specs};
use crate::tensor::{to_rows, to_tensor};
use crate::weights;
use perturb_challenge::classifier::{Classifier, ClassifierError};
use perturb_challenge::demo::CLASSES;
use perturb_challenge::file;
use perturb_challenge::pixels::Pixels;
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tch::{Device, Tensor};

/// The embedded weights: `weights/README.md` says how they were made.
const EMBEDDED: &[u8] = include_bytes!("../weights/demo.safetensors");

/// Images per forward pass, and pixels in all: bounds the memory of a large request.
const MAX_BATCH: usize = 64;
const MAX_BATCH_PIXELS: u64 = 1 << 22;

/// A classifier whose gradient miners may take.
pub trait Differentiable: Classifier {
    /// Logits (`N×classes`) of `x`: `N×3×H×W`, fp32, 8-bit levels `0..=255`, on [`Self::device`].
    /// The preprocessing is part of the graph. Differentiable in `x` if `x` requires a gradient.
    ///
    /// # Errors
    /// `Input` for another shape, `Torch` if libtorch refuses.
    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError>;

    /// Where `x` has to be.
    fn device(&self) -> Device;
}

/// The demo network, loaded from a safetensors file. Shared freely between threads.
pub struct TchClassifier {
    digest: [u8; 32],
    device: Device,
    /// Tensor handles may move between threads but not be used by two at once: each call takes its
    /// own handles on the shared, immutable storage and computes without the lock.
    net: Mutex<DemoNet>,
}

impl std::fmt::Debug for TchClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TchClassifier({ARCHITECTURE}, {:?})", self.device)
    }
}

impl TchClassifier {
    /// The classifier with the embedded weights.
    ///
    /// # Errors
    /// `Torch` if the device cannot hold them.
    pub fn embedded(device: Device) -> Result<Self, ModelError> {
        Self::from_bytes(EMBEDDED, "(embedded)", device)
    }

    /// The classifier with the weights of a file.
    ///
    /// # Errors
    /// `Read` if the file cannot be read, `Weights` with the first mismatch if it does not fit.
    pub fn load(path: &Path, device: Device) -> Result<Self, ModelError> {
        let failed = |source| ModelError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        // One byte more than fits, so that a longer (or endless) file is recognised.
        file::open_regular(path, u64::MAX)
            .and_then(|(file, _)| file.take(weights::MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        Self::from_bytes(&bytes, &path.display().to_string(), device)
    }

    /// The classifier with the weights of a safetensors file in memory; `origin` names it in errors.
    ///
    /// # Errors
    /// `Weights` with the first mismatch if the bytes do not fit.
    pub fn from_bytes(bytes: &[u8], origin: &str, device: Device) -> Result<Self, ModelError> {
        let refuse = |problem: WeightsError| ModelError::Weights {
            origin: origin.to_owned(),
            architecture: ARCHITECTURE,
            problem,
        };
        let tensors = weights::read(bytes, &tensor_specs()).map_err(refuse)?;
        let net = Mutex::new(DemoNet::new(&tensors, device)?);
        Ok(Self { digest: Sha256::digest(bytes).into(), device, net })
    }

    /// SHA-256 of the safetensors file.
    #[must_use]
    pub fn file_digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Handles of this call's own on the network.
    pub(crate) fn net(&self) -> DemoNet {
        // The lock guards a read of handles, which cannot be left half done.
        self.net.lock().unwrap_or_else(PoisonError::into_inner).share()
    }

    /// Logits of images of any sizes: equally sized neighbours share a batch.
    fn infer(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        let net = self.net();
        let mut rows = Vec::with_capacity(images.len());
        let same_size = |a: &&Pixels, b: &&Pixels| (a.width, a.height) == (b.width, b.height);
        for group in images.chunk_by(same_size) {
            let area = group.first().map_or(1, |p| u64::from(p.width) * u64::from(p.height));
            let fit = (MAX_BATCH_PIXELS / area.max(1)).clamp(1, MAX_BATCH as u64);
            for batch in group.chunks(fit as usize) {
                let x = to_tensor(batch, self.device)?;
                rows.extend(to_rows(&tch::no_grad(|| net.forward(&x))?)?);
            }
        }
        Ok(rows)
    }
}

impl Differentiable for TchClassifier {
    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        self.net().forward(x)
    }

    fn device(&self) -> Device {
        self.device
    }
}

impl Classifier for TchClassifier {
    fn name(&self) -> &str {
        ARCHITECTURE
    }

    fn digest(&self) -> perturb_types::Digest {
        perturb_types::Digest(self.digest)
    }

    fn classes(&self) -> usize {
        CLASSES
    }

    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        self.infer(images).map_err(|error| ClassifierError(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
