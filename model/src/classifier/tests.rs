//! Tests of the demo classifier.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::tensor::{input_gradient, margins};
use crate::weights::{HostTensor, write};
use perturb_challenge::demo;
use std::collections::BTreeMap;
use tch::Kind;

fn embedded() -> TchClassifier {
    crate::set_threads(1);
    TchClassifier::embedded(Device::Cpu).unwrap()
}

/// A file of the architecture with small made-up weights, except for what `change` does to it.
fn file(change: impl FnOnce(&mut BTreeMap<String, HostTensor>)) -> Vec<u8> {
    let mut tensors = BTreeMap::new();
    for spec in tensor_specs() {
        let count = spec.shape.iter().product::<u64>();
        let values = (0..count).map(|i| (i % 13) as f32 * 0.01 - 0.06).collect();
        tensors.insert(spec.name, HostTensor { shape: spec.shape, values });
    }
    change(&mut tensors);
    write(&tensors).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    TchClassifier::from_bytes(bytes, "some/file", Device::Cpu).unwrap_err().to_string()
}

#[test]
fn a_file_of_the_architecture_loads() {
    assert!(TchClassifier::from_bytes(&file(|_| {}), "made up", Device::Cpu).is_ok());
}

#[test]
fn a_file_that_does_not_fit_names_tensor_expectation_and_remedy() {
    let shape = refusal(&file(|tensors| {
        tensors.insert("features.1.weight".into(), HostTensor { shape: vec![2], values: vec![0.0; 2] });
    }));
    for part in ["some/file", "features.1.weight", "[2]", "[48, 24, 3, 3]", "train-demo"] {
        assert!(shape.contains(part), "{part}: {shape}");
    }
    assert_eq!(shape.lines().count(), 1);
    let missing = refusal(&file(|tensors| drop(tensors.remove("classifier.bias"))));
    assert!(missing.contains("classifier.bias is missing, expected with shape [10]"), "{missing}");
    let unknown = refusal(&file(|tensors| {
        tensors.insert("extra".into(), HostTensor { shape: vec![1], values: vec![0.0] });
    }));
    assert!(unknown.contains("tensor extra with shape [1] is unknown"), "{unknown}");
    let infinite = refusal(&file(|tensors| {
        tensors.get_mut("classifier.bias").unwrap().values[3] = f32::INFINITY;
    }));
    assert!(infinite.contains("not finite"), "{infinite}");
}

#[test]
fn truncated_and_garbage_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let whole = file(|_| {});
    for bytes in [&whole[..whole.len() - 1], &whole[..100], &whole[..7], b"", &[0xA5; 4096]] {
        std::fs::write(&path, bytes).unwrap();
        let error = TchClassifier::load(&path, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("no complete safetensors file"), "{error}");
    }
    let error = TchClassifier::load(&folder.path().join("none"), Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::Read { .. }));
    let error = TchClassifier::load(folder.path(), Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::Read { .. }));
}

#[test]
fn a_file_too_large_is_refused_without_reading_it_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge");
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = TchClassifier::load(&path, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("more than 16777216 bytes"), "{error}");
}

#[test]
fn a_batch_gives_the_logits_of_single_images() {
    let model = embedded();
    let images: Vec<Pixels> = (0..9).map(|i| demo::draw(3, i).0).collect();
    let all: Vec<&Pixels> = images.iter().collect();
    let batch = model.logits(&all).unwrap();
    for (image, expected) in all.iter().zip(&batch) {
        let single = model.logits(&[image]).unwrap();
        assert_eq!(expected.len(), CLASSES);
        for (a, b) in single[0].iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn images_of_mixed_and_odd_sizes_are_taken_in_order() {
    let model = embedded();
    let (whole, _) = demo::draw(3, 1);
    let tiny = Pixels { width: 1, height: 3, rgb: vec![9; 9] };
    let wide = Pixels { width: 300, height: 40, rgb: vec![77; 300 * 40 * 3] };
    let rows = model.logits(&[&whole, &tiny, &wide, &whole]).unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().flatten().all(|z| z.is_finite()));
    assert_eq!(rows[0], rows[3]);
    let broken = Pixels { width: 9, height: 9, rgb: vec![0; 5] };
    assert!(model.logits(&[&whole, &broken]).is_err());
    assert!(model.logits(&[]).unwrap().is_empty());
}

#[test]
fn a_tensor_of_another_shape_is_an_error_not_a_crash() {
    let model = embedded();
    for shape in [&[3_i64, 64, 64][..], &[1, 1, 64, 64], &[0, 3, 64, 64], &[1, 3, 0, 64], &[]] {
        let x = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        assert!(matches!(model.forward(&x), Err(ModelError::Input(_))), "{shape:?}");
    }
}

#[test]
fn the_gradient_equals_the_finite_difference() {
    let net = embedded().net().to_kind(Kind::Double).unwrap();
    for (index, side) in [(0, 64), (1, 64), (2, 24)] {
        let (pixels, _) = demo::draw(21, index);
        let x = to_tensor(&[&pixels], Device::Cpu).unwrap().to_kind(Kind::Double);
        let x = x.narrow(2, 0, side).narrow(3, 0, side);
        let labels = net.forward(&x).unwrap().argmax(1, false);
        let leaf = x.detach().set_requires_grad(true);
        let margin = margins(&net.forward(&leaf).unwrap(), &labels).unwrap().sum(Kind::Double);
        let gradient = Tensor::run_backward(&[&margin], &[&leaf], false, false).remove(0);
        // A direction that is not the gradient's, to test all of it and not only its size.
        let direction = (gradient.sign() + (x.shallow_clone() * 0.7).sin()) * 0.5;
        let expected = (&gradient * &direction).sum(Kind::Double).double_value(&[]);
        let h = 1e-4;
        let at = |t: f64| {
            let moved = &x + &direction * t;
            margins(&net.forward(&moved).unwrap(), &labels).unwrap().double_value(&[0])
        };
        let found = (at(h) - at(-h)) / (2.0 * h);
        assert!((found - expected).abs() <= 1e-3 * expected.abs(), "{found} {expected}");
    }
}

#[test]
fn input_gradients_of_a_batch_are_those_of_single_images() {
    let model = embedded();
    let images: Vec<Pixels> = (0..3).map(|i| demo::draw(4, i).0).collect();
    let x = to_tensor(&images.iter().collect::<Vec<_>>(), Device::Cpu).unwrap();
    let sum = |logits: &Tensor| Ok(logits.f_narrow(1, 0, 1)?.f_sum(Kind::Float)?);
    let (logits, gradient) = input_gradient(&model, &x, sum).unwrap();
    assert_eq!(logits.size(), [3, 10]);
    assert_eq!(gradient.size(), x.size());
    for row in 0..3 {
        let (_, single) = input_gradient(&model, &x.narrow(0, row, 1), sum).unwrap();
        assert!(single.allclose(&gradient.narrow(0, row, 1), 1e-4, 1e-7, false));
    }
}

#[test]
fn threads_share_one_model() {
    let model = embedded();
    let (pixels, _) = demo::draw(5, 5);
    let expected = model.logits(&[&pixels]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(model.logits(&[&pixels]).unwrap(), expected));
        }
    });
}
