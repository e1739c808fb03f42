//! Any model of a user's own, as TorchScript.
//!
//! The file's module takes `N×3×S×S` fp32, 8-bit levels if no preprocessing is given and the
//! preprocessed image otherwise, and returns `N×classes` logits. What it was exported with
//! (`torch.jit.trace` or `.script`, in evaluation mode, on the CPU) stays: operators run one by one,
//! since the optimising executor rewrites a module after its first calls, and its results with it.
//!
//! A TorchScript file is a program. It cannot reach the system, but it can loop for ever or ask for all
//! memory: load only files of your own.

use crate::classifier::Differentiable;
use crate::error::ModelError;
use crate::zoo::preprocess::Preprocessing;
use perturb_challenge::classifier::{Classifier, ClassifierError};
use perturb_challenge::pixels::Pixels;
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::path::Path;
use tch::{CModule, Device, Kind, Tensor};

/// Largest accepted file.
const MAX_FILE_BYTES: u64 = 8 << 30;

/// Most classes: labels are 16-bit.
const MAX_CLASSES: i64 = 1 << 16;

/// Images in one forward pass.
const MAX_BATCH: usize = 16;

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
    /// Loads a module and asks it once for the logits of a grey image with sides of `side` pixels.
    ///
    /// # Errors
    /// `Read` if the file cannot be read; `TorchScript` if it holds no module of this form, or if TF32
    /// is not off on a CUDA device.
    pub fn load(
        path: &Path,
        side: u32,
        preprocessing: Option<Preprocessing>,
        device: Device,
    ) -> Result<Self, ModelError> {
        let origin = path.display().to_string();
        let refuse = |problem: String| ModelError::TorchScript { origin: origin.clone(), problem };
        if device.is_cuda() && std::env::var(NO_TF32).as_deref() != Ok("0") {
            return Err(refuse(format!("start the program with {NO_TF32}=0: verdicts are computed without TF32")));
        }
        let mut bytes = Vec::new();
        let failed = |source| ModelError::Read { path: path.to_owned(), source };
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(refuse(format!("more than {MAX_FILE_BYTES} bytes")));
        }
        let torch = |error: tch::TchError| refuse(ModelError::from(error).to_string());
        let mut module = CModule::load_data_on_device(&mut bytes.as_slice(), device).map_err(torch)?;
        module.f_set_eval().map_err(torch)?;
        let mut model = Self {
            name: path.file_stem().map_or_else(|| origin.clone(), |stem| stem.to_string_lossy().into_owned()),
            digest: Sha256::digest(&bytes).into(),
            device,
            classes: 0,
            preprocessing,
            module,
        };
        let side = i64::from(side.max(1));
        let grey = Tensor::f_full([1, 3, side, side], 128.0, (Kind::Float, device))?;
        let logits = tch::no_grad(|| model.forward(&grey)).map_err(|error| {
            refuse(format!("{error} It was tried with an image of {side}x{side}; `FILE.pt@SIDE` tries another size"))
        })?;
        model.classes = match logits.size().as_slice() {
            &[1, classes @ 1..=MAX_CLASSES] => classes as usize,
            other => return Err(refuse(format!("an image gives an output of shape {other:?}, expected [1, classes]"))),
        };
        Ok(model)
    }
}

impl Differentiable for TorchScriptClassifier {
    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let prepared = self.preprocessing.as_ref().map(|preprocessing| preprocessing.apply(x)).transpose()?;
        // The setting belongs to the thread, and calls come from any.
        tch::jit::f_set_graph_executor_optimize(false)?;
        Ok(self.module.forward_ts(&[prepared.as_ref().unwrap_or(x)])?)
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
        super::infer_batched(images, MAX_BATCH, self.device, |x| self.forward(x))
            .map_err(|error| ClassifierError(error.to_string()))
    }
}
