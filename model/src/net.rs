//! The demo network, with its preprocessing inside the graph.
//!
//! Input: `N×3×H×W`, real numbers in 8-bit levels (`0..=255`), so that gradients are per level of
//! the very pixels that travel on the wire. Output: `N×10` logits.
//!
//! ```text
//! resize     only if a side is outside 32..=128: bilinear, antialiased, to 64×64
//! normalise  (x/255 − 0.5)/0.25
//! features.0 conv  3→24, 5×5, stride 2, zero padding 2, ReLU
//! features.1 conv 24→48, 3×3, stride 2, zero padding 1, ReLU
//! features.2 conv 48→96, 3×3, stride 2, zero padding 1, ReLU
//! features.3 conv 96→128, 3×3, stride 1, zero padding 1, ReLU
//! pool       mean over all positions
//! classifier linear 128→10
//! ```
//!
//! 165,818 parameters. Convolutions ask for deterministic kernels and never for TF32, and matrix
//! products in libtorch use full fp32 unless told otherwise: logits are fp32 on every device. (On
//! CUDA the gradient's own convolutions follow the library's default; a miner may not care.)

use crate::error::ModelError;
use crate::weights::{HostTensor, TensorSpec};
use perturb_challenge::demo::CLASSES;
use tch::{Device, Kind, Tensor};

/// Name of the architecture.
pub const ARCHITECTURE: &str = "perturb-demo-cnn-1";

/// Smallest and largest side that enters the network without being resized.
pub const NATIVE_SIDES: std::ops::RangeInclusive<i64> = 32..=128;

/// Side that other images are resized to.
const RESIZED: i64 = 64;

/// Centre and half-width of the normalised range, as shares of 255.
const MEAN: f64 = 0.5;
const DEVIATION: f64 = 0.25;

/// One convolution: channels in and out, kernel side, stride, padding.
pub(crate) struct Convolution {
    pub(crate) name: &'static str,
    pub(crate) input: i64,
    pub(crate) output: i64,
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) padding: i64,
}

/// The convolutions, in order.
pub(crate) const CONVOLUTIONS: [Convolution; 4] = [
    Convolution { name: "features.0", input: 3, output: 24, kernel: 5, stride: 2, padding: 2 },
    Convolution { name: "features.1", input: 24, output: 48, kernel: 3, stride: 2, padding: 1 },
    Convolution { name: "features.2", input: 48, output: 96, kernel: 3, stride: 2, padding: 1 },
    Convolution { name: "features.3", input: 96, output: 128, kernel: 3, stride: 1, padding: 1 },
];

/// Width of the pooled features.
pub(crate) const FEATURES: i64 = 128;

/// Name of the last layer.
pub(crate) const HEAD: &str = "classifier";

/// Names and shapes of all tensors of a model file, in the order [`DemoNet::new`] takes them.
#[must_use]
pub fn tensor_specs() -> Vec<TensorSpec> {
    let mut specs = Vec::with_capacity(2 * CONVOLUTIONS.len() + 2);
    let mut layer = |name: &str, shape: &[i64]| {
        let shape: Vec<u64> = shape.iter().map(|side| side.unsigned_abs()).collect();
        let bias = shape.iter().copied().take(1).collect();
        specs.push(TensorSpec { name: format!("{name}.weight"), shape });
        specs.push(TensorSpec { name: format!("{name}.bias"), shape: bias });
    };
    for conv in &CONVOLUTIONS {
        layer(conv.name, &[conv.output, conv.input, conv.kernel, conv.kernel]);
    }
    layer(HEAD, &[CLASSES as i64, FEATURES]);
    specs
}

/// The network's parameters on a device. Immutable; clones share storage.
#[derive(Debug)]
pub struct DemoNet {
    /// Weight and bias of each convolution, then of the classifier.
    layers: Vec<(Tensor, Tensor)>,
}

impl DemoNet {
    /// Builds the network from tensors in the order of [`tensor_specs`].
    ///
    /// # Errors
    /// `Input` if the number of tensors differs; `Torch` if the device cannot hold them.
    pub fn new(tensors: &[HostTensor], device: Device) -> Result<Self, ModelError> {
        if tensors.len() != tensor_specs().len() {
            return Err(ModelError::Input(format!("{} tensors for the network", tensors.len())));
        }
        let load = |tensor: &HostTensor| -> Result<Tensor, ModelError> {
            let shape: Vec<i64> = tensor.shape.iter().map(|side| *side as i64).collect();
            Ok(Tensor::f_from_slice(&tensor.values)?.f_reshape(&shape)?.f_to_device(device)?)
        };
        let layers = tensors
            .chunks_exact(2)
            .map(|pair| Ok((load(&pair[0])?, load(&pair[1])?)))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self { layers })
    }

    /// Another handle on the same parameters.
    #[must_use]
    pub fn share(&self) -> Self {
        let layers = self.layers.iter().map(|(w, b)| (w.shallow_clone(), b.shallow_clone())).collect();
        Self { layers }
    }

    /// The same network in another precision (tests compare gradients in `f64`).
    ///
    /// # Errors
    /// `Torch` if libtorch refuses the conversion.
    pub fn to_kind(&self, kind: Kind) -> Result<Self, ModelError> {
        let layers = self
            .layers
            .iter()
            .map(|(w, b)| Ok((w.f_to_kind(kind)?, b.f_to_kind(kind)?)))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self { layers })
    }

    /// Logits (`N×10`) of a batch (`N×3×H×W`, levels `0..=255`), differentiable.
    ///
    /// # Errors
    /// `Input` for another shape, `Torch` if libtorch refuses (memory, device).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let mut x = preprocess(x)?;
        for (conv, (weight, bias)) in CONVOLUTIONS.iter().zip(&self.layers) {
            x = convolve(&x, weight, Some(bias), conv)?.f_relu()?;
        }
        let pooled = pool(&x)?;
        let Some((weight, bias)) = self.layers.last() else {
            return Err(ModelError::Input("a network without layers".to_owned()));
        };
        Ok(pooled.f_linear(weight, Some(bias))?)
    }
}

/// Checks the shape, resizes where needed and normalises.
pub(crate) fn preprocess(x: &Tensor) -> Result<Tensor, ModelError> {
    let size = x.size();
    let &[n, 3, height, width] = size.as_slice() else {
        return Err(ModelError::Input(format!("shape {size:?}, expected [N, 3, H, W]")));
    };
    if n < 1 || height < 1 || width < 1 {
        return Err(ModelError::Input(format!("shape {size:?} has an empty dimension")));
    }
    let normalised = x.f_div_scalar(255.0 * DEVIATION)?.f_sub_scalar(MEAN / DEVIATION)?;
    if NATIVE_SIDES.contains(&height) && NATIVE_SIDES.contains(&width) {
        return Ok(normalised);
    }
    Ok(normalised.f_internal_upsample_bilinear2d_aa([RESIZED, RESIZED], false, None, None)?)
}

/// A convolution with deterministic kernels, without autotuning and without TF32.
pub(crate) fn convolve(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &Convolution,
) -> Result<Tensor, ModelError> {
    let (benchmark, deterministic, cudnn, tf32) = (false, true, true, false);
    Ok(x.f_internal_convolution(
        weight,
        bias,
        [conv.stride, conv.stride],
        [conv.padding, conv.padding],
        [1, 1],
        false,
        [0, 0],
        1,
        benchmark,
        deterministic,
        cudnn,
        tf32,
    )?)
}

/// Mean over all positions: `N×C×h×w` to `N×C`.
pub(crate) fn pool(x: &Tensor) -> Result<Tensor, ModelError> {
    Ok(x.f_mean_dim([2_i64, 3].as_slice(), false, x.kind())?)
}
