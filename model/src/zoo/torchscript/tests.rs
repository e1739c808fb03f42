//! Tests of modules that libtorch itself has traced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::tensor::input_gradient;
use crate::zoo::ZooClassifier;
use crate::zoo::fixtures::{file, made_up, spec, written};
use std::path::PathBuf;

struct Module {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

/// What `network` does to `x`, as a file.
fn traced(x: &Tensor, network: &dyn Fn(&Tensor) -> Tensor) -> Module {
    crate::set_threads(1);
    let mut body = |inputs: &[Tensor]| tch::no_grad(|| vec![network(&inputs[0])]);
    let module = CModule::create_by_tracing("Traced", "forward", &[x.shallow_clone()], &mut body).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.pt");
    module.save(&path).unwrap();
    Module { _folder: folder, path }
}

fn loaded(module: &Module, side: u32) -> Result<TorchScriptClassifier, ModelError> {
    TorchScriptClassifier::load(&module.path, side, None, None, Device::Cpu)
}

fn picture(side: i64) -> Tensor {
    Tensor::arange(3 * side * side, (Kind::Float, Device::Cpu)).remainder(255.0).reshape([1, 3, side, side])
}

/// The mean square of each channel, weighed: 7 classes.
fn network() -> impl Fn(&Tensor) -> Tensor {
    // Not inside: what is made from data while a trace is taken, it remembers without the data.
    let weight = Tensor::from_slice(&made_up("w", &[7, 3])).reshape([7, 3]);
    move |x| (x / 255.0).square().mean_dim([2_i64, 3].as_slice(), false, Kind::Float).linear(&weight, None::<&Tensor>)
}

fn pixels(side: u32, seed: u32) -> Pixels {
    Pixels { width: side, height: side, rgb: (0..side * side * 3).map(|i| ((i * 7 + seed) % 251) as u8).collect() }
}

#[test]
fn a_module_of_one_s_own_gives_its_logits_and_gradient() {
    let (x, network) = (picture(20), network());
    let module = traced(&x, &network);
    let own = loaded(&module, 20).unwrap();
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
}

#[test]
fn what_is_no_module_is_an_error() {
    let module = traced(&picture(8), &network());
    for bytes in [&b"PK no module"[..], b""] {
        std::fs::write(&module.path, bytes).unwrap();
        let error = loaded(&module, 20).unwrap_err();
        assert!(matches!(error, ModelError::TorchScript { .. }), "{error}");
    }
}

#[test]
fn another_module_than_the_expected_is_not_run() {
    // Running it would fail otherwise: it wants another side.
    let module = traced(&picture(8), &|x| x.reshape([1, 192]));
    let load = |expected| TorchScriptClassifier::load(&module.path, 9, None, expected, Device::Cpu).unwrap_err();
    assert!(matches!(load(None), ModelError::TorchScript { .. }));
    assert!(matches!(load(Some([7; 32])), ModelError::Digest { .. }));
}

#[test]
fn a_module_for_a_batch_of_one_is_refused() {
    let network = network();
    let first = traced(&picture(8), &|x| network(x).narrow(0, 0, 1));
    let turned = traced(&picture(8), &|x| network(x).transpose(0, 1).reshape([1, -1]));
    for module in [first, turned] {
        let error = loaded(&module, 8).unwrap_err().to_string();
        assert!(error.contains("for 2 images, expected [2, 7]"), "{error}");
    }
}

#[test]
fn a_module_whose_classes_depend_on_the_image_is_refused_where_they_do() {
    // A column for each pixel's row, seven at the side that it is tried with.
    let module = traced(&picture(7), &|x| x.mean_dim([1_i64, 3].as_slice(), false, Kind::Float));
    let own = loaded(&module, 7).unwrap();
    assert_eq!(own.logits(&[&pixels(7, 0)]).unwrap()[0].len(), 7);
    let error = own.logits(&[&pixels(8, 0)]).unwrap_err().to_string();
    assert!(error.contains("shape [1, 8] for 1 images, expected [1, 7]"), "{error}");
    assert!(own.forward(&picture(8)).is_err());
}

#[test]
fn an_output_without_a_shape_is_an_error_and_no_panic() {
    // Rows of unequal length: two dimensions, but no size.
    let network = network();
    let nested = |x: &Tensor| {
        let lengths = Tensor::from_slice(&[2_i64]).reshape([1, 1]);
        Tensor::internal_nested_from_padded(&network(x), &lengths, false)
    };
    let x = picture(8);
    assert!(shape(&nested(&x)).is_err());
    let error = loaded(&traced(&x, &nested), 8).unwrap_err();
    assert!(matches!(error, ModelError::TorchScript { .. }), "{error}");
}

#[test]
fn a_module_answers_several_threads_at_once() {
    let module = traced(&picture(16), &network());
    let own = loaded(&module, 16).unwrap();
    let images: Vec<Pixels> = (0..4).map(|seed| pixels(16, seed)).collect();
    crate::zoo::fixtures::answers_alike_from_several_threads(&own, &images);
}

#[test]
fn what_libtorch_traces_of_a_model_of_the_table_is_that_model() {
    for name in ["test_vit.r160_in1k", "small/swin", "small/tf_efficientnet_b", "test_convnext.r160_in1k"] {
        let spec = spec(name);
        let weights = written(&file(&spec, |_| {}));
        let model = ZooClassifier::load(&spec, std::slice::from_ref(&weights.path), None, Device::Cpu).unwrap();
        let module = traced(&picture(40), &|x| model.forward(x).unwrap());
        let module = CModule::load(&module.path).unwrap();
        tch::jit::f_set_graph_executor_optimize(false).unwrap();
        let x = picture(40).flip([3]);
        let (found, expected) = tch::no_grad(|| (module.forward_ts(&[&x]).unwrap(), model.forward(&x).unwrap()));
        assert!(found.allclose(&expected, 1e-5, 1e-5, false), "{name}");
    }
}
