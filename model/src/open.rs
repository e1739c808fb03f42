//! One name for every model.
//!
//! | name | the model |
//! |---|---|
//! | `demo` | the embedded demo network |
//! | a name of the table | that model, with its weights from the hub's cache |
//! | `NAME=FILE` | that model of the table, with the weights of this file |
//! | `FILE.pt`, `FILE.pt@SIDE` | a TorchScript module that takes 8-bit levels, tried with sides of `SIDE` pixels |
//! | another path | a demo network's safetensors file |

use crate::classifier::{Differentiable, TchClassifier};
use crate::error::ModelError;
use crate::hub::{self, Cache, HubError};
use crate::tensor::check_precision;
use crate::zoo::{self, TorchScriptClassifier, ZooClassifier};
use perturb_types::limits::MAX_IMAGE_SIDE;
use std::path::{Path, PathBuf};
use tch::Device;

/// Side of the image that a TorchScript module is tried with unless its name says another, pixels.
const TRIAL_SIDE: u32 = 224;

/// Opens a model by its name. With `digest`, weights in the cache are chosen by it and whatever is
/// opened must have it: that is how a validator opens the model that its network agreed on. Without,
/// weights in the cache must be the pinned ones.
///
/// # Errors
/// `UnknownModel`, `Digest` if the weights are others, or what loading them reports.
pub fn open(name: &str, digest: Option<[u8; 32]>, device: Device) -> Result<Box<dyn Differentiable>, ModelError> {
    open_in(name, digest, device, || Cache::standard(None))
}

/// As [`open()`], with weights from this cache; it is asked for only where it is needed.
fn open_in(
    name: &str,
    digest: Option<[u8; 32]>,
    device: Device,
    cache: impl FnOnce() -> Result<Cache, HubError>,
) -> Result<Box<dyn Differentiable>, ModelError> {
    check_precision(device)?;
    let model = open_unchecked(name, digest, device, cache)?;
    match digest.map(perturb_types::Digest) {
        Some(expected) if expected != model.digest() => Err(ModelError::Digest {
            origin: name.escape_default().take(80).collect(),
            found: model.digest().to_string(),
            expected: expected.to_string(),
        }),
        _ => Ok(model),
    }
}

fn open_unchecked(
    name: &str,
    digest: Option<[u8; 32]>,
    device: Device,
    cache: impl FnOnce() -> Result<Cache, HubError>,
) -> Result<Box<dyn Differentiable>, ModelError> {
    let unknown = || ModelError::UnknownModel { name: name.escape_default().take(80).collect() };
    if name == "demo" {
        return Ok(Box::new(TchClassifier::embedded(device)?));
    }
    if let Some(spec) = zoo::find(name) {
        let weights = match digest {
            Some(digest) => hub::agreed(spec, &digest, &cache()?)?,
            None => hub::pulled(spec, None, &cache()?)?,
        };
        return Ok(Box::new(ZooClassifier::load(spec, &weights.files, Some(weights.digest), device)?));
    }
    if let Some((model, file)) = name.split_once('=') {
        let spec = zoo::find(model).ok_or_else(unknown)?;
        return Ok(Box::new(ZooClassifier::load(spec, &[PathBuf::from(file)], digest, device)?));
    }
    let (file, side) = match name.rsplit_once('@') {
        Some((file, side)) if file.ends_with(".pt") => (file, side.parse().map_err(|_| unknown())?),
        _ => (name, TRIAL_SIDE),
    };
    if !(1..=MAX_IMAGE_SIDE).contains(&side) {
        return Err(unknown());
    }
    let path = Path::new(file);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pt") => Ok(Box::new(TorchScriptClassifier::load(path, side, None, digest, device)?)),
        Some(_) => Ok(Box::new(TchClassifier::load(path, device)?)),
        None => Err(unknown()),
    }
}

#[cfg(test)]
mod tests;
