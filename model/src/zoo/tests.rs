//! Tests of the zoo: the table against the libraries' figures, the reader against broken files, and
//! every architecture against what timm and torchvision computed (`fixtures/`, made by
//! `scripts/parity/fixtures.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::fixtures::{file, made_up, spec, written};
use super::*;
use crate::tensor::input_gradient;
use base64::Engine as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// One case: what a library computed in `f64` with weights made by [`made_up`].
#[derive(Deserialize)]
struct Fixture {
    model: String,
    /// Names and shapes, in the library's order.
    tensors: Vec<(String, Vec<i64>)>,
    /// Shape of the input.
    shape: Vec<i64>,
    /// Bytes: the input. Absent where it would be long: then it is [`noise`].
    x: Option<String>,
    /// Of the gradient, each so many-th value is given.
    stride: i64,
    /// `f64`s: what the logits are multiplied with before they are summed.
    cotangent: String,
    logits: String,
    gradient: String,
}

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn doubles(text: &str) -> Vec<f64> {
    bytes(text).as_chunks::<8>().0.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect()
}

fn loaded(name: &str, kind: Kind) -> ZooClassifier {
    crate::set_threads(1);
    let spec = spec(name);
    let weights = written(&file(&spec, |_| {}));
    ZooClassifier::load_as(&spec, &[weights.path], None, Device::Cpu, kind).unwrap()
}

fn relative_error(found: &Tensor, expected: &[f64]) -> f64 {
    let found = Vec::<f64>::try_from(found.to_kind(Kind::Double).flatten(0, -1)).unwrap();
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

fn input(fixture: &Fixture, kind: Kind) -> Tensor {
    let levels = fixture.x.as_deref().map_or_else(|| noise(&fixture.shape), bytes);
    Tensor::f_from_data_size(&levels, &fixture.shape, Kind::Uint8).unwrap().to_kind(kind)
}

/// A picture in which every level is as likely as any other.
fn noise(shape: &[i64]) -> Vec<u8> {
    let bound = (3.0 / shape.iter().skip(1).product::<i64>() as f64).sqrt();
    made_up("noise", shape).into_iter().map(|value| ((f64::from(value) / bound + 1.0) * 127.5) as u8).collect()
}

#[test]
fn every_architecture_has_a_fixture() {
    let names: Vec<String> = fixtures().into_iter().map(|fixture| fixture.model).collect();
    for spec in small::small_models().iter().chain(models().iter().filter(|spec| spec.name.starts_with("test_"))) {
        assert!(names.iter().any(|name| name == spec.name), "{}", spec.name);
    }
}

#[test]
fn the_fixtures_enlarge_and_reduce_wide_and_high_pictures() {
    let sizes: Vec<Vec<i64>> = fixtures().into_iter().map(|fixture| fixture.shape).collect();
    for size in [[26, 34], [34, 26], [150, 200], [200, 150]] {
        assert!(sizes.iter().any(|shape| shape[2..] == size), "{size:?}");
    }
}

#[test]
fn names_and_shapes_are_the_library_s_in_its_order() {
    for fixture in fixtures() {
        let ours: Vec<(String, Vec<i64>)> =
            parameters(&spec(&fixture.model)).into_iter().map(|p| (p.name, p.shape)).collect();
        assert_eq!(ours, fixture.tensors, "{}", fixture.model);
    }
}

#[test]
fn logits_and_input_gradients_are_the_library_s() {
    for fixture in fixtures() {
        let model = loaded(&fixture.model, Kind::Double);
        let cotangent = Tensor::from_slice(&doubles(&fixture.cotangent)).reshape([fixture.shape[0], -1]);
        let objective = |logits: &Tensor| Ok(logits.f_mul(&cotangent)?.f_sum(Kind::Double)?);
        let (logits, gradient) = input_gradient(&model, &input(&fixture, Kind::Double), objective).unwrap();
        let shown = gradient.flatten(0, -1).slice(0, 0, None, fixture.stride);
        for (what, found, expected) in [("logits", &logits, &fixture.logits), ("gradient", &shown, &fixture.gradient)] {
            let error = relative_error(found, &doubles(expected));
            assert!(error <= 1e-9, "{} of {:?}: {what} differ by {error:e}", fixture.model, fixture.shape);
        }
    }
}

#[test]
fn single_precision_stays_close_and_repeats_itself() {
    for fixture in fixtures() {
        let model = loaded(&fixture.model, Kind::Float);
        let logits = tch::no_grad(|| model.forward(&input(&fixture, Kind::Float))).unwrap();
        let error = relative_error(&logits, &doubles(&fixture.logits));
        assert!(error <= 1e-4, "{}: {error:e}", fixture.model);
        let again = tch::no_grad(|| model.forward(&input(&fixture, Kind::Float))).unwrap();
        assert_eq!(again, logits, "{}", fixture.model);
    }
}

#[test]
fn without_a_gradient_the_logits_are_the_same() {
    for name in ["small/tf_efficientnetv2", "small/swin", "test_vit.r160_in1k", "test_convnext.r160_in1k"] {
        let model = loaded(name, Kind::Double);
        let x = Tensor::arange(3 * 20 * 24, (Kind::Double, Device::Cpu)).remainder(255.0).reshape([1, 3, 20, 24]);
        let plain = tch::no_grad(|| model.forward(&x)).unwrap();
        let with = model.forward(&x.detach().set_requires_grad(true)).unwrap();
        assert!(plain.allclose(&with.detach(), 1e-12, 1e-12, false), "{name}");
    }
}

#[test]
fn parameters_are_as_many_as_the_libraries_count() {
    for spec in models() {
        let all = parameters(spec);
        let count: u64 = all.iter().filter(|p| p.kind == ParameterKind::Trained).map(ParameterSpec::values).sum();
        assert_eq!(count, spec.parameters, "{}", spec.name);
    }
    let tensors = |name| parameters(&spec(name)).len();
    assert_eq!(tensors("tf_efficientnetv2_l.in21k_ft_in1k"), 1548);
    assert_eq!(tensors("efficientnet_b5.imagenet1k_v1"), 854);
}

#[test]
fn both_libraries_order_an_efficientnet_alike() {
    let shapes = |name| -> Vec<Vec<i64>> { parameters(&spec(name)).into_iter().map(|p| p.shape).collect() };
    assert_eq!(shapes("tf_efficientnetv2_l.in21k_ft_in1k"), shapes("efficientnet_v2_l.imagenet1k_v1"));
    assert_eq!(shapes("tf_efficientnet_b5.ra_in1k"), shapes("efficientnet_b5.imagenet1k_v1"));
}

#[test]
fn models_are_found_by_their_whole_or_unambiguous_short_name() {
    assert_eq!(find("convnext_small").unwrap().name, "convnext_small.fb_in1k");
    assert_eq!(find("efficientnet_v2_l.imagenet1k_v1").unwrap().preprocessing.crop, 480);
    assert!(find("").is_none());
    assert!(find("resnet50").is_none());
    let mut names: Vec<&str> = models().iter().map(|spec| spec.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), models().len());
}

#[test]
fn a_classifier_takes_images_of_mixed_sizes_in_order() {
    let model = loaded("small/tf_efficientnet_b", Kind::Float);
    let image = |width: u32, height: u32| Pixels {
        width,
        height,
        rgb: (0..width * height * 3).map(|i| (i % 251) as u8).collect(),
    };
    let (a, b) = (image(40, 30), image(64, 70));
    let rows = model.logits(&[&a, &b, &b, &a]).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!((rows[0].len(), model.classes()), (10, 10));
    for (x, y) in rows[0].iter().zip(&rows[3]) {
        assert!((x - y).abs() < 1e-5);
    }
    assert!(model.logits(&[&image(4096, 1)]).is_err());
}

fn image(width: u32, height: u32, seed: u32) -> Pixels {
    Pixels { width, height, rgb: (0..width * height * 3).map(|i| ((i + seed) % 251) as u8).collect() }
}

#[test]
fn a_model_answers_several_threads_at_once() {
    let model = loaded("small/swin", Kind::Float);
    let images: Vec<Pixels> = (0..3).map(|seed| image(40, 30, seed)).collect();
    fixtures::answers_alike_from_several_threads(&model, &images);
}

#[test]
fn batches_are_as_large_as_their_largest_pictures_allow() {
    // Of 480×480 pixels, sixteen; of the largest images, one; of small ones, no more than the limit.
    assert_eq!([480 * 480, 1024 * 1024, 2048 * 2048, i64::MAX, 1, 0].map(fit), [16, 3, 1, 1, 64, 64]);
    let vit = spec("vit_small_patch16_224.augreg_in21k_ft_in1k").preprocessing;
    assert_eq!(vit.pixels(2048, 2048), 2048 * 2048);
    // A strip grows as it is resized.
    assert_eq!(vit.pixels(8, 400), 248 * 12_400);
    assert_eq!(vit.pixels(248, 248), 248 * 248);
    assert_eq!(spec("tf_efficientnetv2_l.in21k_ft_in1k").preprocessing.pixels(1, 4000), 480 * 480);
}

#[test]
fn a_request_of_large_images_goes_in_batches_that_fit() {
    let seen = std::cell::RefCell::new(Vec::new());
    let forward = |x: &Tensor| {
        let images = x.size()[0];
        seen.borrow_mut().push(images);
        Ok(Tensor::zeros([images, 2], (Kind::Float, Device::Cpu)))
    };
    let (large, small) = (image(1024, 1024, 0), image(8, 8, 0));
    let mut images = vec![&large; 4];
    images.extend([&small; 70]);
    let rows = infer_batched(&images, 2, Device::Cpu, |height, width| height * width, forward).unwrap();
    assert_eq!(rows.len(), 74);
    assert_eq!(*seen.borrow(), [3, 1, 64, 6]);
}

#[test]
fn logits_that_are_not_one_row_an_image_are_an_error() {
    let two = [&image(8, 8, 0), &image(8, 8, 1)];
    for size in [&[1_i64, 5][..], &[2, 4], &[2, 6], &[10], &[2, 5, 1]] {
        let forward = |_: &Tensor| Ok(Tensor::zeros(size, (Kind::Float, Device::Cpu)));
        let outcome = infer_batched(&two, 5, Device::Cpu, |_, _| 1, forward);
        assert!(matches!(outcome, Err(ModelError::Output(_))), "{size:?}");
    }
}

/// What the table says of each model, hashed: all that makes its verdicts, without what only informs.
fn frozen() -> Vec<(&'static str, String)> {
    models()
        .iter()
        .map(|spec| {
            let ModelSpec { name, origin, architecture, preprocessing, classes, .. } = spec;
            let said = format!("{name} {origin:?} {architecture:?} {preprocessing:?} {classes}");
            let digest = perturb_types::Digest(Sha256::digest(said).into()).to_string();
            (*name, digest[..16].to_owned())
        })
        .collect()
}

/// A network agrees on a model by its name and the digest of its weights. The table's entry is in
/// neither: if it changes, two versions of this program give other verdicts on the same name and digest.
/// So an entry never changes once it is released. A correction is another entry with another name.
#[test]
fn what_the_table_says_of_a_model_never_changes() {
    let expected = [
        ("efficientnet_v2_l.imagenet1k_v1", "405093fc5605a1c1"),
        ("efficientnet_b5.imagenet1k_v1", "33c7fa0ffaa8b64b"),
        ("tf_efficientnetv2_l.in21k_ft_in1k", "66aa2ba1e1296406"),
        ("tf_efficientnetv2_m.in21k_ft_in1k", "f72e553de66a6f6b"),
        ("tf_efficientnet_b5.ra_in1k", "cac4d49c99ef9447"),
        ("convnext_small.fb_in1k", "473c6f31c7a7de17"),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", "14bc4dfe2035127e"),
        ("swin_tiny_patch4_window7_224.ms_in1k", "f0aa5a6d7495eed8"),
        ("test_efficientnet.r160_in1k", "8405b02a6f9451f4"),
        ("test_convnext.r160_in1k", "3b6139b3b4112ade"),
        ("test_vit.r160_in1k", "3cde3bec29a2f819"),
    ];
    assert_eq!(frozen(), expected.map(|(name, hash)| (name, hash.to_owned())));
}
