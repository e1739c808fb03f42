//! Tests of the training.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn quick(out: PathBuf) -> TrainOptions {
    let levels = TrainOptions::default();
    TrainOptions { out, steps: 4, batch: 8, held_out: 20, histogram: 4, threads: 1, ..levels }
}

#[test]
fn a_short_training_writes_a_file_that_loads_and_is_the_same_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut reports = 0;
    let first = train_demo(&quick(path.clone()), |_| reports += 1).unwrap();
    assert_eq!(reports, 4);
    assert_eq!(first.images, 32);
    assert_eq!(first.parameters, 165_818);
    assert!(first.file_bytes < 2_000_000);
    assert_eq!(first.measured.images, 20);
    assert_eq!(first.measured.levels.total(), 4);
    let second = train_demo(&quick(folder.path().join("b.safetensors")), |_| {}).unwrap();
    assert_eq!(first.digest, second.digest);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn folding_the_normalisation_keeps_the_function() {
    let options = quick(PathBuf::new());
    let mut trainee = Trainee::new(&options).unwrap();
    for step in 0..3 {
        trainee.step(&options, step).unwrap();
    }
    let (x, _) = trainee.batch(4).unwrap();
    let expected = tch::no_grad(|| {
        let mut y = preprocess(&x).unwrap();
        for (conv, layer) in CONVOLUTIONS.iter().zip(&trainee.layers) {
            y = convolve(&y, &layer.weight, None, conv)
                .unwrap()
                .batch_norm(
                    Some(&layer.scale),
                    Some(&layer.shift),
                    Some(&layer.mean),
                    Some(&layer.variance),
                    false,
                    BN_MOMENTUM,
                    BN_EPSILON,
                    false,
                )
                .relu();
        }
        pool(&y).unwrap().apply(&trainee.head)
    });
    let file = weights::write(&trainee.folded().unwrap()).unwrap();
    let folded = TchClassifier::from_bytes(&file, "folded", Device::Cpu).unwrap();
    let found = tch::no_grad(|| folded.forward(&x)).unwrap();
    assert!(found.allclose(&expected, 1e-4, 1e-4, false));
}

#[test]
fn options_outside_their_bounds_are_named() {
    let fit = quick(PathBuf::from("never-written"));
    for (options, name) in [
        (TrainOptions { steps: 0, ..fit.clone() }, "steps"),
        (TrainOptions { batch: 1, ..fit.clone() }, "batch"),
        (TrainOptions { learning_rate: f64::NAN, ..fit.clone() }, "learning_rate"),
        (TrainOptions { label_smoothing: 1.0, ..fit.clone() }, "label_smoothing"),
        (TrainOptions { held_out: u64::MAX, ..fit.clone() }, "held_out"),
        (TrainOptions { histogram: u64::MAX, ..fit.clone() }, "histogram"),
    ] {
        let error = train_demo(&options, |_| {}).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_folder_that_does_not_exist_is_a_clear_error() {
    let missing = std::env::temp_dir().join("perturb-no-such-folder").join("x.safetensors");
    let error = write_file(&missing, b"x").unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
}

#[test]
fn the_learning_rate_rises_then_falls() {
    assert!((schedule(0, 100) - 0.1).abs() < 1e-12);
    assert!((schedule(9, 100) - 1.0).abs() < 1e-12);
    assert!(schedule(50, 100) > schedule(80, 100));
    assert!(schedule(99, 100) > 0.0);
}
