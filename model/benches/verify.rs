//! What a validator's verification of one answer costs beside the bare run of the model: decode,
//! shape, measurement with SSIM, gates, model, margin, against the model alone on a tensor that is
//! already there. One thread, the demo classifier, images of the demo set's size and of two larger.
#![allow(clippy::unwrap_used, missing_docs)]

use divan::Bencher;
use perturb_challenge::Rules;
use perturb_challenge::classifier::{Classifier, predict};
use perturb_challenge::demo::draw;
use perturb_challenge::pixels::Pixels;
use perturb_challenge::semantics::Exact;
use perturb_challenge::verify::verify;
use perturb_model::{Differentiable, TchClassifier};
use perturb_types::Reason;

fn main() {
    perturb_model::set_threads(1);
    divan::main();
}

/// A clean image with structure, the model's label for it, and the PNG of a dense answer at level 1.
fn round(model: &TchClassifier, side: u32) -> (Pixels, u16, Vec<u8>) {
    let (drawn, _) = draw(1, 7);
    let at = |i: u32| {
        let (x, y, c) = (i / 3 % side * drawn.width / side, i / 3 / side * drawn.height / side, i % 3);
        drawn.rgb[((y * drawn.width + x) * 3 + c) as usize].clamp(1, 254)
    };
    let clean = Pixels::new(side, side, (0..side * side * 3).map(at).collect()).unwrap();
    let mut answer = clean.clone();
    answer.rgb.iter_mut().enumerate().for_each(|(i, v)| *v = if i * 7 % 5 < 2 { *v + 1 } else { *v - 1 });
    let label = predict(&model.logits(&[&clean]).unwrap()[0], 0).unwrap().class;
    (clean, label, answer.encode_png().unwrap())
}

#[divan::bench(args = [64, 96, 128], sample_count = 300, sample_size = 2)]
fn model_alone(bencher: Bencher<'_, '_>, side: u32) {
    let model = TchClassifier::embedded(tch::Device::Cpu).unwrap();
    let (clean, ..) = round(&model, side);
    let x = perturb_model::to_tensor(&[&clean], tch::Device::Cpu).unwrap();
    bencher.bench_local(|| tch::no_grad(|| model.forward(&x)).unwrap());
}

#[divan::bench(args = [64, 96, 128], sample_count = 300, sample_size = 2)]
fn whole_verification(bencher: Bencher<'_, '_>, side: u32) {
    let model = TchClassifier::embedded(tch::Device::Cpu).unwrap();
    let (clean, label, png) = round(&model, side);
    let rules = Rules::subnet();
    let verdict = verify(&rules, &clean, label, &png, &model, &Exact);
    assert_eq!(verdict.measurement.level, 1, "the answer must reach the model: {:?}", verdict.reason);
    assert!(matches!(verdict.reason, Reason::Success | Reason::LabelMatchWithOriginal), "{:?}", verdict.reason);
    bencher.bench_local(|| verify(&rules, &clean, label, &png, &model, &Exact));
}
