//! Tests of the zoo: the table against the libraries' figures, the reader against broken files, and
//! every architecture against what timm and torchvision computed (`fixtures/`, made by
//! `scripts/parity/fixtures.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::tensor::input_gradient;
use base64::Engine as _;
use serde::Deserialize;
use std::path::Path;

/// One case: what a library computed in `f64` with weights made by [`made_up`].
#[derive(Deserialize)]
struct Fixture {
    model: String,
    /// Names and shapes, in the library's order.
    tensors: Vec<(String, Vec<i64>)>,
    /// Shape of the input.
    shape: Vec<i64>,
    /// Bytes: the input.
    x: String,
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

/// Any model, of the table or small.
fn spec(name: &str) -> ModelSpec {
    *models().iter().chain(small::small_models()).find(|spec| spec.name == name).unwrap()
}

/// The value of a made-up weight: a function of its name and place, the same in `scripts/parity/common.py`.
fn made_up(name: &str, shape: &[i64]) -> Vec<f32> {
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
type Raw = (&'static str, Vec<i64>, Vec<u8>);

/// A file of a model with made-up weights, changed.
fn file(spec: &ModelSpec, change: impl FnOnce(&mut Vec<(String, Raw)>)) -> Vec<u8> {
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

struct Written {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn written(bytes: &[u8]) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Written { _folder: folder, path }
}

fn loaded(name: &str, kind: Kind) -> ZooClassifier {
    crate::set_threads(1);
    let spec = spec(name);
    let weights = written(&file(&spec, |_| {}));
    ZooClassifier::load_as(&spec, &[weights.path], Device::Cpu, kind).unwrap()
}

fn relative_error(found: &Tensor, expected: &[f64]) -> f64 {
    let found = Vec::<f64>::try_from(found.to_kind(Kind::Double).flatten(0, -1)).unwrap();
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

fn input(fixture: &Fixture, kind: Kind) -> Tensor {
    Tensor::f_from_data_size(&bytes(&fixture.x), &fixture.shape, Kind::Uint8).unwrap().to_kind(kind)
}

#[test]
fn every_architecture_has_a_fixture() {
    let names: Vec<String> = fixtures().into_iter().map(|fixture| fixture.model).collect();
    for spec in small::small_models().iter().chain(models().iter().filter(|spec| spec.name.starts_with("test_"))) {
        assert!(names.iter().any(|name| name == spec.name), "{}", spec.name);
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
        for (what, found, expected) in
            [("logits", &logits, &fixture.logits), ("gradient", &gradient, &fixture.gradient)]
        {
            let error = relative_error(found, &doubles(expected));
            assert!(error <= 1e-9, "{}: {what} differ by {error:e}", fixture.model);
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

fn refusal(bytes: &[u8]) -> String {
    let spec = spec("test_vit.r160_in1k");
    verify(&spec, &[written(bytes).path]).unwrap_err().to_string()
}

#[test]
fn a_file_that_does_not_fit_names_the_tensor_and_the_remedy() {
    let vit = spec("test_vit.r160_in1k");
    let at = |tensors: &[(String, Raw)], name: &str| tensors.iter().position(|(n, _)| n == name).unwrap();
    let missing = refusal(&file(&vit, |t| drop(t.remove(at(t, "head.bias")))));
    assert!(missing.contains("head.bias is missing") && missing.contains("perturb model pull"), "{missing}");
    let unknown = refusal(&file(&vit, |t| t.push(("extra".into(), ("F32", vec![1], vec![0; 4])))));
    assert!(unknown.contains("tensor extra with shape [1] is unknown"), "{unknown}");
    let shape = refusal(&file(&vit, |t| t[0].1 = ("F32", vec![64], vec![0; 256])));
    assert!(shape.contains("cls_token has shape [64], expected [1, 1, 64]"), "{shape}");
    let half = refusal(&file(&vit, |t| t[0].1 = ("F16", vec![1, 1, 64], vec![0; 128])));
    assert!(half.contains("cls_token has type F16"), "{half}");
    let nan = refusal(&file(&vit, |t| t[0].1.2[..4].copy_from_slice(&f32::NAN.to_le_bytes())));
    assert!(nan.contains("cls_token holds a value that is not finite"), "{nan}");
}

#[test]
fn a_variance_that_is_not_positive_is_refused() {
    let effnet = spec("small/tf_efficientnet_b");
    let bytes = file(&effnet, |tensors| {
        let (_, raw) = tensors.iter_mut().find(|(name, _)| name == "bn1.running_var").unwrap();
        raw.2[..4].copy_from_slice(&0.0_f32.to_le_bytes());
    });
    let error = verify(&effnet, &[written(&bytes).path]).unwrap_err().to_string();
    assert!(error.contains("bn1.running_var holds a variance that is not positive"), "{error}");
}

#[test]
fn counters_may_be_absent_and_buffers_that_follow_are_passed_over() {
    let effnet = spec("small/tf_efficientnet_b");
    let without = file(&effnet, |tensors| tensors.retain(|(name, _)| !name.ends_with("num_batches_tracked")));
    assert!(verify(&effnet, &[written(&without).path]).is_ok());
    let swin = spec("small/swin");
    let with = file(&swin, |tensors| {
        tensors.push(("layers.0.blocks.0.attn.relative_position_index".into(), ("I64", vec![2], vec![0; 16])));
    });
    assert!(verify(&swin, &[written(&with).path]).is_ok());
}

#[test]
fn truncated_and_garbage_files_are_errors() {
    let whole = file(&spec("test_vit.r160_in1k"), |_| {});
    for bytes in [&whole[..whole.len() - 1], &whole[..5000], &whole[..7], b"", &[0xA5; 4096]] {
        assert!(refusal(bytes).contains("no complete safetensors file"), "{}", refusal(bytes));
    }
}

#[test]
fn shards_together_are_one_model_and_nothing_may_be_there_twice() {
    let vit = spec("test_vit.r160_in1k");
    let half = |first: bool| {
        written(&file(&vit, |tensors| {
            let middle = tensors.len() / 2;
            if first { tensors.truncate(middle) } else { drop(tensors.drain(..middle)) }
        }))
    };
    let (first, second) = (half(true), half(false));
    let shards = [first.path.clone(), second.path.clone()];
    assert!(verify(&vit, &shards).is_ok());
    assert!(verify(&vit, &shards[..1]).is_err());
    let twice = verify(&vit, &[first.path.clone(), first.path.clone()]).unwrap_err().to_string();
    assert!(twice.contains("is there twice"), "{twice}");
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

#[test]
fn a_module_of_one_s_own_gives_its_logits_and_gradient() {
    crate::set_threads(1);
    let x = Tensor::arange(3 * 20 * 20, (Kind::Float, Device::Cpu)).remainder(255.0).reshape([1, 3, 20, 20]);
    let weight = Tensor::from_slice(&made_up("w", &[7, 3])).reshape([7, 3]);
    let network = |x: &Tensor| {
        ((x / 255.0).square().mean_dim([2_i64, 3].as_slice(), false, Kind::Float)).linear(&weight, None::<&Tensor>)
    };
    let mut body = |inputs: &[Tensor]| tch::no_grad(|| vec![network(&inputs[0])]);
    let module = tch::CModule::create_by_tracing("Traced", "forward", &[x.shallow_clone()], &mut body).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.pt");
    module.save(&path).unwrap();
    let own = TorchScriptClassifier::load(&path, 20, None, Device::Cpu).unwrap();
    assert_eq!((own.name(), own.classes()), ("own", 7));
    let objective = |logits: &Tensor| Ok(logits.f_square()?.f_sum(Kind::Float)?);
    let leaf = x.detach().set_requires_grad(true);
    let value = objective(&network(&leaf)).unwrap();
    let expected = Tensor::run_backward(&[&value], &[&leaf], false, false).remove(0);
    for _ in 0..3 {
        let (logits, gradient) = input_gradient(&own, &x, objective).unwrap();
        assert!(logits.allclose(&network(&x), 1e-5, 1e-6, false));
        assert!(gradient.allclose(&expected, 1e-4, 1e-7, false));
    }
    for bytes in [&b"PK no module"[..], b""] {
        std::fs::write(&path, bytes).unwrap();
        let error = TorchScriptClassifier::load(&path, 20, None, Device::Cpu).unwrap_err();
        assert!(matches!(error, ModelError::TorchScript { .. }), "{error}");
    }
}
