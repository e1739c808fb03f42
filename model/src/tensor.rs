//! Between 8-bit pixels and tensors; devices and threads; gradients.

use crate::classifier::Differentiable;
use crate::error::ModelError;
use perturb_challenge::pixels::Pixels;
use perturb_types::limits::{MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE};
use tch::{Cuda, Device, Kind, Tensor};

/// Most torch threads that can be asked for; more only quarrel over the cores.
pub const MAX_THREADS: usize = 256;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The first CUDA device if libtorch has one, the processor otherwise.
    Auto,
    /// The CUDA device of this index, or an error.
    Cuda(usize),
}

impl DeviceChoice {
    /// The torch device, after a check that it exists.
    ///
    /// # Errors
    /// `NoDevice` if a CUDA device was asked for that libtorch does not see, `Precision` if the
    /// environment makes libtorch round what it multiplies there.
    pub fn resolve(self) -> Result<Device, ModelError> {
        let available = || match Cuda::is_available() {
            true => usize::try_from(Cuda::device_count()).unwrap_or(0),
            false => 0,
        };
        let device = match self {
            Self::Cpu => Device::Cpu,
            Self::Auto if available() > 0 => Device::Cuda(0),
            Self::Auto => Device::Cpu,
            Self::Cuda(index) if index < available() => Device::Cuda(index),
            Self::Cuda(asked) => {
                return Err(ModelError::NoDevice { asked, available: available() });
            }
        };
        check_precision(device)?;
        if device.is_cuda() {
            // Autotuning picks kernels by speed on the day: two runs could differ.
            Cuda::cudnn_set_benchmark(false);
        }
        Ok(device)
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = ModelError;

    /// `cpu`, `auto`, `cuda` (the first) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let index = match text {
            "cpu" => return Ok(Self::Cpu),
            "auto" => return Ok(Self::Auto),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
        };
        index.map(Self::Cuda).ok_or_else(|| ModelError::Option {
            name: "device",
            value: text.escape_default().take(32).collect(),
            allowed: "cpu, auto, cuda or cuda:N",
        })
    }
}

/// Variables that make libtorch or its libraries round the factors of fp32 products, which no setting of
/// a single operation takes back, and the value that does not.
const ROUNDING_ON_CUDA: [(&str, &str); 2] = [("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "0"), ("NVIDIA_TF32_OVERRIDE", "0")];
const ROUNDING_ON_CPU: [(&str, &str); 2] =
    [("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT"), ("DNNL_DEFAULT_FPMATH_MODE", "STRICT")];

/// That the environment leaves fp32 products on this device alone.
///
/// # Errors
/// `Precision` with the variable that does not.
pub(crate) fn check_precision(device: Device) -> Result<(), ModelError> {
    precise(device, |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

fn precise(device: Device, variable: impl Fn(&str) -> Option<String>) -> Result<(), ModelError> {
    let rounding = if device.is_cuda() { ROUNDING_ON_CUDA } else { ROUNDING_ON_CPU };
    for (name, harmless) in rounding {
        if let Some(value) = variable(name).filter(|value| !value.is_empty() && !value.eq_ignore_ascii_case(harmless)) {
            let value = value.escape_default().take(32).collect();
            return Err(ModelError::Precision { variable: name, value, harmless });
        }
    }
    Ok(())
}

/// The size of a tensor that someone else's code has made: of some kinds (nested ones) libtorch knows
/// none, and says so.
///
/// # Errors
/// `Torch` if it has none.
pub(crate) fn shape(x: &Tensor) -> Result<Vec<i64>, ModelError> {
    Ok(Vec::<i64>::try_from(x.f_internal_shape_as_tensor()?)?)
}

/// Sets how many threads torch uses for one operation, for the whole process (1 to
/// [`MAX_THREADS`]; other numbers are moved to the nearest). Call it before the first inference.
pub fn set_threads(threads: usize) {
    let threads = i32::try_from(threads.clamp(1, MAX_THREADS)).unwrap_or(1);
    tch::set_num_threads(threads);
}

/// A batch of equally sized images as an `N×3×H×W` fp32 tensor of 8-bit levels.
///
/// # Errors
/// `Input` for no image, an image whose bytes do not fill its size, one outside the network's limits
/// ([`MAX_IMAGE_SIDE`], [`MAX_IMAGE_PIXELS`]), or images of different sizes.
pub fn to_tensor(images: &[&Pixels], device: Device) -> Result<Tensor, ModelError> {
    let Some(first) = images.first() else {
        return Err(ModelError::Input("an empty batch".to_owned()));
    };
    let (width, height) = (first.width, first.height);
    let sides = 1..=MAX_IMAGE_SIDE;
    let area = u64::from(width) * u64::from(height);
    if !sides.contains(&width) || !sides.contains(&height) || area > MAX_IMAGE_PIXELS {
        return Err(ModelError::Input(format!(
            "an image of {width}x{height} pixels; sides of 1 to {MAX_IMAGE_SIDE} and at most \
             {MAX_IMAGE_PIXELS} pixels are accepted"
        )));
    }
    let values = width as usize * height as usize * 3;
    for image in images {
        if (image.width, image.height) != (width, height) || image.rgb.len() != values {
            return Err(ModelError::Input(format!(
                "an image of {}x{} pixels with {} bytes in a batch of {width}x{height}",
                image.width,
                image.height,
                image.rgb.len()
            )));
        }
    }
    let (count, height, width) = (images.len(), i64::from(height), i64::from(width));
    if device == Device::Cpu {
        // One pass, where libtorch takes three.
        let mut planes = vec![0_f32; values * count];
        for (image, planes) in images.iter().zip(planes.chunks_exact_mut(values)) {
            image.write_planes(planes);
        }
        return Ok(Tensor::f_from_slice(&planes)?.f_reshape([count as i64, 3, height, width])?);
    }
    // A quarter of the bytes on their way to the device.
    let mut levels = Vec::with_capacity(values * count);
    images.iter().for_each(|image| levels.extend_from_slice(&image.rgb));
    let levels = Tensor::f_from_data_size(&levels, &[count as i64, height, width, 3], Kind::Uint8)?;
    Ok(levels.f_to_device(device)?.f_permute([0_i64, 3, 1, 2].as_slice())?.f_to_kind(Kind::Float)?.f_contiguous()?)
}

/// The images of an `N×3×H×W` tensor of levels, rounded to the nearest level and kept in `0..=255`.
///
/// # Errors
/// `Input` for another shape, `Torch` if libtorch refuses.
pub fn to_pixels(x: &Tensor) -> Result<Vec<Pixels>, ModelError> {
    let size = x.size();
    let &[_, 3, height, width] = size.as_slice() else {
        return Err(ModelError::Input(format!("shape {size:?}, expected [N, 3, H, W]")));
    };
    let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(ModelError::Input(format!("shape {size:?} is too large")));
    };
    let bytes = x
        .f_round()?
        .f_clamp(0.0, 255.0)?
        .f_permute([0_i64, 2, 3, 1].as_slice())?
        .f_to_kind(Kind::Uint8)?
        .f_to_device(Device::Cpu)?
        .f_contiguous()?;
    let mut flat = vec![0_u8; bytes.numel()];
    let count = flat.len();
    bytes.f_copy_data(&mut flat, count)?;
    let each = width as usize * height as usize * 3;
    if each == 0 {
        return Err(ModelError::Input(format!("shape {size:?} has an empty dimension")));
    }
    Ok(flat.chunks_exact(each).map(|rgb| Pixels { width, height, rgb: rgb.to_vec() }).collect())
}

/// The rows of an `N×C` tensor.
///
/// # Errors
/// `Input` for another number of dimensions, `Torch` if libtorch refuses.
pub fn to_rows(x: &Tensor) -> Result<Vec<Vec<f32>>, ModelError> {
    let size = x.size();
    let &[_, columns] = size.as_slice() else {
        return Err(ModelError::Input(format!("shape {size:?}, expected [N, C]")));
    };
    let host = x.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut flat = vec![0_f32; host.numel()];
    let count = flat.len();
    host.f_copy_data(&mut flat, count)?;
    Ok(flat.chunks_exact((columns.max(1)) as usize).map(<[f32]>::to_vec).collect())
}

/// Logits of `x` and the gradient of an objective of them with respect to `x`, both detached.
///
/// `x`: `N×3×H×W`, 8-bit levels. `objective` reduces the logits to one number; a sum over images
/// gives every image its own gradient, since no image influences another's logits.
///
/// # Errors
/// What the model, the objective or libtorch report.
pub fn input_gradient<M, F>(model: &M, x: &Tensor, objective: F) -> Result<(Tensor, Tensor), ModelError>
where
    M: Differentiable + ?Sized,
    F: FnOnce(&Tensor) -> Result<Tensor, ModelError>,
{
    let leaf = x.f_detach()?.f_set_requires_grad(true)?;
    let logits = tch::with_grad(|| model.forward(&leaf))?;
    let value = tch::with_grad(|| objective(&logits))?;
    let gradients = Tensor::f_run_backward(&[&value], &[&leaf], false, false)?;
    let gradient = gradients.into_iter().next();
    let gradient = gradient.ok_or_else(|| ModelError::Input("no gradient".to_owned()))?;
    Ok((logits.f_detach()?, gradient))
}

/// Margins `z_y − max_{j≠y} z_j` of each row of `logits` (`N×C`) for its label (`N`, int64):
/// positive while the label is predicted, negative once it is not. Differentiable.
///
/// # Errors
/// `Torch` for shapes that do not fit.
pub fn margins(logits: &Tensor, labels: &Tensor) -> Result<Tensor, ModelError> {
    let index = labels.f_unsqueeze(1)?;
    let own = logits.f_gather(1, &index, false)?.f_squeeze_dim(1)?;
    let (others, _) = logits.f_scatter_value(1, &index, f64::NEG_INFINITY)?.f_max_dim(1, false)?;
    Ok(own.f_sub(&others)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn pixels(width: u32, height: u32, seed: u8) -> Pixels {
        let rgb = (0..width * height * 3).map(|i| (i as u8).wrapping_mul(7) ^ seed).collect();
        Pixels { width, height, rgb }
    }

    #[test]
    fn pixels_survive_the_way_through_a_tensor() {
        let (a, b) = (pixels(5, 3, 1), pixels(5, 3, 99));
        let x = to_tensor(&[&a, &b], Device::Cpu).unwrap();
        assert_eq!(x.size(), [2, 3, 3, 5]);
        // Pixel (x = 1, y = 2), green.
        assert_eq!(x.double_value(&[0, 1, 2, 1]), f64::from(a.rgb[(2 * 5 + 1) * 3 + 1]));
        assert_eq!(to_pixels(&x).unwrap(), vec![a, b]);
    }

    #[test]
    fn unfit_images_are_errors() {
        let fit = pixels(4, 4, 0);
        let short = Pixels { width: 4, height: 4, rgb: vec![0; 47] };
        let empty = Pixels { width: 0, height: 4, rgb: vec![] };
        let side = MAX_IMAGE_SIDE + 1;
        let wide = Pixels { width: side, height: 1, rgb: vec![0; 3 * side as usize] };
        let other = pixels(3, 4, 0);
        for batch in [&[][..], &[&short], &[&empty], &[&wide], &[&fit, &other]] {
            assert!(matches!(to_tensor(batch, Device::Cpu), Err(ModelError::Input(_))));
        }
    }

    #[test]
    fn margins_are_those_computed_by_hand() {
        let logits = Tensor::from_slice(&[3.0_f32, 1.0, 2.5, -1.0, 4.0, 0.0]).reshape([2, 3]);
        let labels = Tensor::from_slice(&[0_i64, 2]);
        let margins = to_rows(&margins(&logits, &labels).unwrap().unsqueeze(0)).unwrap();
        assert_eq!(margins, vec![vec![0.5, -4.0]]);
    }

    #[test]
    fn an_absent_cuda_device_is_a_clear_error() {
        let error = DeviceChoice::Cuda(4096).resolve().unwrap_err().to_string();
        assert!(error.contains("CUDA device 4096"), "{error}");
        assert_eq!(DeviceChoice::Cpu.resolve().unwrap(), Device::Cpu);
        assert!(DeviceChoice::Auto.resolve().is_ok());
    }

    #[test]
    fn an_environment_that_rounds_products_is_refused() {
        let with = |device, name: &'static str, value: &'static str| {
            precise(device, move |asked| (asked == name).then(|| value.to_owned()))
        };
        let (cpu, cuda) = (Device::Cpu, Device::Cuda(0));
        for (device, name, value) in [
            (cuda, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1"),
            (cuda, "NVIDIA_TF32_OVERRIDE", "1"),
            (cpu, "ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
            (cpu, "DNNL_DEFAULT_FPMATH_MODE", "any"),
        ] {
            let error = with(device, name, value).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}={value}")), "{error}");
        }
        for (device, name, value) in [
            (cuda, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "0"),
            (cuda, "ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
            (cpu, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1"),
            (cpu, "ONEDNN_DEFAULT_FPMATH_MODE", "strict"),
            (cpu, "ONEDNN_DEFAULT_FPMATH_MODE", ""),
        ] {
            assert!(with(device, name, value).is_ok(), "{name}={value}");
        }
    }

    #[test]
    fn devices_are_named_as_in_torch() {
        for (text, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("auto", DeviceChoice::Auto),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
