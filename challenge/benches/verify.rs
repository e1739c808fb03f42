//! Speed of what a validator does to an answer before the model.
#![allow(clippy::unwrap_used, missing_docs)]

use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::ssim::ssim;
use perturb_challenge::{Rules, measure};
use perturb_types::Measurement;

fn main() {
    divan::main();
}

/// An image with structure, and it with every second value one level higher.
fn pair(side: u32) -> (Pixels, Pixels) {
    let at = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8 / 4 + (i / side % 128) as u8;
    let clean: Vec<u8> = (0..side * side * 3).map(at).collect();
    let other = clean.iter().enumerate().map(|(i, v)| v + (i % 2) as u8).collect();
    (Pixels::new(side, side, clean).unwrap(), Pixels::new(side, side, other).unwrap())
}

#[divan::bench(args = [64, 224, 480])]
fn ssim_of_images(bencher: divan::Bencher<'_, '_>, side: u32) {
    let (a, b) = pair(side);
    bencher.bench(|| ssim(&a, &b));
}

#[divan::bench(args = [64, 224, 480])]
fn measure_images(bencher: divan::Bencher<'_, '_>, side: u32) {
    let (a, b) = pair(side);
    bencher.bench(|| measure(&a, &b));
}

#[divan::bench(args = [64, 224, 480])]
fn decode_png(bencher: divan::Bencher<'_, '_>, side: u32) {
    let png = pair(side).1.encode_png().unwrap();
    bencher.bench(|| Pixels::decode_png(&png, &PngLimits::default()).unwrap());
}

#[divan::bench]
fn score(bencher: divan::Bencher<'_, '_>) {
    let rules = Rules::subnet();
    let m = Measurement { level: 1, sum_squares: 9000, changed: 9000, channels: 150_528, ..Measurement::default() };
    bencher.bench(|| perturb_challenge::rules::score(&rules, divan::black_box(&m), 300));
}
