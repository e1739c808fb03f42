//! Weights files for tests: every value is a function of its tensor's name and its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{ModelSpec, ParameterKind, models, parameters, small};
use perturb_challenge::classifier::Classifier;
use perturb_challenge::pixels::Pixels;
use std::path::PathBuf;

/// Threads that use a model at once.
const THREADS: usize = 4;

/// Any model, of the table or small.
pub(crate) fn spec(name: &str) -> ModelSpec {
    *models().iter().chain(small::small_models()).find(|spec| spec.name == name).unwrap()
}

/// The value of a made-up weight: a function of its name and place, the same in `scripts/parity/common.py`.
pub(crate) fn made_up(name: &str, shape: &[i64]) -> Vec<f32> {
    let seed = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    let fan_in: i64 = shape.iter().skip(1).product();
    let unit = |index: u64| {
        let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let positive = name.ends_with("running_var") || name.ends_with(".weight") || name.ends_with(".gamma");
    let count = shape.iter().product::<i64>() as u64;
    (0..count)
        .map(|index| match shape.len() {
            1 if positive => 0.5 + unit(index),
            1 => 0.2 * (2.0 * unit(index) - 1.0),
            _ => (3.0 / fan_in as f64).sqrt() * (2.0 * unit(index) - 1.0),
        })
        .map(|value| value as f32)
        .collect()
}

/// One tensor of a file: type, shape, bytes.
pub(crate) type Raw = (&'static str, Vec<i64>, Vec<u8>);

/// A file of a model with made-up weights, changed.
pub(crate) fn file(spec: &ModelSpec, change: impl FnOnce(&mut Vec<(String, Raw)>)) -> Vec<u8> {
    let mut tensors: Vec<(String, Raw)> = parameters(spec)
        .into_iter()
        .map(|p| match p.kind {
            ParameterKind::Counter => (p.name, ("I64", p.shape, 7_i64.to_le_bytes().to_vec())),
            _ => {
                let raw = made_up(&p.name, &p.shape).iter().flat_map(|value| value.to_le_bytes()).collect();
                (p.name, ("F32", p.shape, raw))
            }
        })
        .collect();
    change(&mut tensors);
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, (dtype, shape, raw)) in tensors {
        let begin = data.len();
        data.extend(raw);
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()] });
        header.insert(name, entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

pub(crate) struct Written {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn written(bytes: &[u8]) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Written { _folder: folder, path }
}

/// Asks a model for each image from several threads at once, and compares with one after the other.
pub(crate) fn answers_alike_from_several_threads(model: &dyn Classifier, images: &[Pixels]) {
    let alone: Vec<_> = images.iter().map(|image| model.logits(&[image]).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for (image, expected) in images.iter().zip(&alone) {
                    assert_eq!(&model.logits(&[image]).unwrap(), expected);
                }
            });
        }
    });
}
