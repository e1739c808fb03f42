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
use crate::hub::{self, Cache};
use crate::zoo::{self, TorchScriptClassifier, ZooClassifier};
use perturb_types::limits::MAX_IMAGE_SIDE;
use std::path::{Path, PathBuf};
use tch::Device;

/// Side of the image that a TorchScript module is tried with unless its name says another, pixels.
const TRIAL_SIDE: u32 = 224;

/// Opens a model by its name. With `digest`, weights in the cache are chosen by it and whatever is
/// opened must have it: that is how a validator opens the model that its network agreed on.
///
/// # Errors
/// `UnknownModel`, `Digest` if the weights are others, or what loading them reports.
pub fn open(name: &str, digest: Option<[u8; 32]>, device: Device) -> Result<Box<dyn Differentiable>, ModelError> {
    let model = open_unchecked(name, digest, device)?;
    match digest.map(perturb_types::Digest) {
        Some(expected) if expected != model.digest() => Err(ModelError::Digest {
            origin: name.escape_default().take(80).collect(),
            found: model.digest().to_string(),
            expected: expected.to_string(),
        }),
        _ => Ok(model),
    }
}

fn open_unchecked(name: &str, digest: Option<[u8; 32]>, device: Device) -> Result<Box<dyn Differentiable>, ModelError> {
    let unknown = || ModelError::UnknownModel { name: name.escape_default().take(80).collect() };
    if name == "demo" {
        return Ok(Box::new(TchClassifier::embedded(device)?));
    }
    if let Some(spec) = zoo::find(name) {
        let files = match digest {
            Some(digest) => hub::agreed(spec, &digest, &Cache::standard())?,
            None => hub::pulled(spec, None, &Cache::standard())?,
        };
        return Ok(Box::new(ZooClassifier::load(spec, &files, device)?));
    }
    if let Some((model, file)) = name.split_once('=') {
        let spec = zoo::find(model).ok_or_else(unknown)?;
        return Ok(Box::new(ZooClassifier::load(spec, &[PathBuf::from(file)], device)?));
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
        Some("pt") => Ok(Box::new(TorchScriptClassifier::load(path, side, None, device)?)),
        Some(_) => Ok(Box::new(TchClassifier::load(path, device)?)),
        None => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_demo_opens_by_name_and_only_with_its_own_digest() {
        let model = open("demo", None, Device::Cpu).unwrap();
        let digest = model.digest().0;
        assert!(open("demo", Some(digest), Device::Cpu).is_ok());
        let error = open("demo", Some([7; 32]), Device::Cpu).err().unwrap();
        assert!(matches!(error, ModelError::Digest { .. }), "{error}");
    }

    #[test]
    fn unknown_names_and_absent_files_are_errors() {
        for name in ["", "resnet", "resnet=file", "x.pt@0", "x.pt@side", "x.pt@99999999"] {
            let error = open(name, None, Device::Cpu).err().unwrap();
            assert!(matches!(error, ModelError::UnknownModel { .. }), "{error}");
        }
        for name in ["/none/x.pt", "/none/x.safetensors", "vit_small_patch16_224=/none/x.safetensors"] {
            let error = open(name, None, Device::Cpu).err().unwrap();
            assert!(matches!(error, ModelError::Read { .. }), "{error}");
        }
    }
}
