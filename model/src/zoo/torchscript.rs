//! Any model of a user's own, as TorchScript.
//!
//! The file's module takes `N×3×S×S` fp32, 8-bit levels if no preprocessing is given and the
//! preprocessed image otherwise, and returns `N×classes` logits. What it was exported with
//! (`torch.jit.trace` or `.script`, in evaluation mode, on the CPU) stays: operators run one by one,
//! since the optimising executor rewrites a module after its first calls, and its results with it.
//!
//! A trace remembers operations, not data: a tensor that the traced code made from numbers of its own is
//! memory without contents in the file, and the logits are wrong. Such tensors have to be made before.
//!
//! A TorchScript file is a program. It cannot reach the system, but it can loop for ever or ask for all
//! memory: load only files of your own.

use super::preprocess::Preprocessing;
use super::{check_shape, infer_batched};
use crate::classifier::Differentiable;
use crate::error::ModelError;
use crate::tensor::shape;
use perturb_challenge::classifier::{Classifier, ClassifierError};
use perturb_challenge::file;
use perturb_challenge::pixels::Pixels;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use tch::{CModule, Device, Kind, Tensor};

/// Largest accepted file. It is held in memory up to four times while it is loaded.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// Most classes: labels are 16-bit.
const MAX_CLASSES: i64 = 1 << 16;

/// How CUDA's libraries are told to leave TF32 alone. A module's own convolutions ask for it by default.
const NO_TF32: &str = "NVIDIA_TF32_OVERRIDE";

/// A TorchScript module behind the network's classifier. Shared freely between threads.
pub struct TorchScriptClassifier {
    name: String,
    digest: [u8; 32],
    device: Device,
    classes: usize,
    preprocessing: Option<Preprocessing>,
    module: CModule,
}

impl std::fmt::Debug for TorchScriptClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TorchScriptClassifier({}, {:?})", self.name, self.device)
    }
}

impl TorchScriptClassifier {
    /// Loads a module and asks it for the logits of one and of two grey images with sides of `side`
    /// pixels. With `expected`, the file must have that SHA-256: nothing of another one is run.
    ///
    /// # Errors
    /// `Read` if the file cannot be read; `Digest` if it is another one; `TorchScript` if it holds no
    /// module of this form, or if TF32 is not off on a CUDA device.
    pub fn load(
        path: &Path,
        side: u32,
        preprocessing: Option<Preprocessing>,
        expected: Option<[u8; 32]>,
        device: Device,
    ) -> Result<Self, ModelError> {
        let origin = path.display().to_string();
        let refuse = |problem: String| ModelError::TorchScript { origin: origin.clone(), problem };
        if device.is_cuda() && std::env::var(NO_TF32).as_deref() != Ok("0") {
            return Err(refuse(format!("start the program with {NO_TF32}=0: verdicts are computed without TF32")));
        }
        let bytes =
            file::read(path, MAX_FILE_BYTES).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(ModelError::Digest {
                origin,
                found: perturb_types::Digest(digest).to_string(),
                expected: perturb_types::Digest(expected).to_string(),
            });
        }
        let torch = |error: tch::TchError| refuse(ModelError::from(error).to_string());
        let mut module = CModule::load_data_on_device(&mut bytes.as_slice(), device).map_err(torch)?;
        module.f_set_eval().map_err(torch)?;
        let mut model = Self {
            name: path.file_stem().map_or_else(|| origin.clone(), |stem| stem.to_string_lossy().into_owned()),
            digest,
            device,
            classes: 0,
            preprocessing,
            module,
        };
        let side = i64::from(side.max(1));
        // One alone does not tell whether the module was made for a batch of one.
        for images in 1..=2_usize {
            let grey = Tensor::f_full([images as i64, 3, side, side], 128.0, (Kind::Float, device))?;
            let outcome = tch::no_grad(|| model.run(&grey)).and_then(|logits| {
                if images == 1 {
                    model.classes = classes(&shape(&logits)?)?;
                }
                check_shape(&logits, images, model.classes)
            });
            outcome.map_err(|error| {
                let size = format!("{images} of {side}x{side} pixels");
                refuse(format!("{error} (tried with {size}; `FILE.pt@SIDE` tries another size)"))
            })?;
        }
        Ok(model)
    }

    /// What the module makes of `x`, whatever that is.
    fn run(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let prepared = self.preprocessing.as_ref().map(|preprocessing| preprocessing.apply(x)).transpose()?;
        // The setting belongs to the thread, and calls come from any.
        tch::jit::f_set_graph_executor_optimize(false)?;
        Ok(self.module.forward_ts(&[prepared.as_ref().unwrap_or(x)])?)
    }
}

/// How many classes an output for one image has.
fn classes(size: &[i64]) -> Result<usize, ModelError> {
    match size {
        &[1, classes @ 1..=MAX_CLASSES] => Ok(classes as usize),
        other => Err(ModelError::Output(format!("shape {other:?} for one image, expected [1, classes]"))),
    }
}

impl Differentiable for TorchScriptClassifier {
    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let logits = self.run(x)?;
        let images = x.size().first().map_or(0, |images| images.unsigned_abs() as usize);
        check_shape(&logits, images, self.classes)?;
        Ok(logits)
    }

    fn device(&self) -> Device {
        self.device
    }
}

impl Classifier for TorchScriptClassifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> perturb_types::Digest {
        perturb_types::Digest(self.digest)
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        // Without a preprocessing the module sees every pixel.
        let pixels = |height: i64, width: i64| match &self.preprocessing {
            Some(preprocessing) => preprocessing.pixels(height, width),
            None => height.saturating_mul(width),
        };
        infer_batched(images, self.classes, self.device, pixels, |x| self.forward(x))
            .map_err(|error| ClassifierError(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
