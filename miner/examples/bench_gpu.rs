//! What a device does for miners and validators: `make bench-gpu`, or on any machine
//!
//! ```text
//! bench_gpu DEVICE SIDE IMAGES MODEL…     e.g. cuda 64 40 demo, or cpu 384 8 NAME=weights.safetensors
//! ```
//!
//! Images are drawn ones of 64 × 64, tiled to `SIDE`. Three tables: gradients a second by batch;
//! answers verified a second (PNG, gates, SSIM, model) by batch; what our attack has come to after a
//! given time, alone on the device, as the verifier judges it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use perturb_challenge::classifier::Classifier;
use perturb_challenge::demo;
use perturb_challenge::pixels::Pixels;
use perturb_challenge::rules::{Rules, score as score_of};
use perturb_challenge::semantics::Exact;
use perturb_challenge::verify::{verify, verify_batch};
use perturb_miner::attack::{self, Context, Options, Task};
use perturb_miner::criterion::RuleCriterion;
use perturb_miner::loss::Loss;
use perturb_miner::metered::Metered;
use perturb_miner::model::{Levels, Model, Pull};
use perturb_miner::tensor::TensorModel;
use perturb_model::{DeviceChoice, Differentiable};
use perturb_types::Reason;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Side of a drawn image.
const DRAWN: u32 = 64;

/// How long one rate is measured for, after a first call that is not counted.
const MEASURE: Duration = Duration::from_secs(2);

/// Images of a call.
const BATCHES: [usize; 4] = [1, 8, 32, 128];

/// Times after which the attack's answer is looked at, milliseconds.
const BUDGETS_MS: [u64; 6] = [30, 100, 300, 1000, 3000, 10_000];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, side, count, models @ ..] = arguments.as_slice() else {
        return Err("usage: bench_gpu DEVICE SIDE IMAGES MODEL…".into());
    };
    let device = device.parse::<DeviceChoice>()?.resolve()?;
    let (side, count): (u32, usize) = (side.parse()?, count.parse()?);
    for name in models {
        let model: Arc<dyn Differentiable> = Arc::from(perturb_model::open(name, None, device)?);
        println!("\n{} on {device:?}, images of {side} × {side}\n", model.name());
        let images: Vec<Pixels> = (0..count.max(1)).map(|i| tiled(i as u64, side)).collect::<Outcome<_>>()?;
        gradients(&model, &images)?;
        answers(model.as_ref(), &images)?;
        for rules in [Rules::subnet(), Rules::whitepaper()] {
            against_time(&model, &images, &rules)?;
        }
    }
    Ok(())
}

/// A drawn image, repeated to `side`; a seed that no training set has.
fn tiled(index: u64, side: u32) -> Outcome<Pixels> {
    let (small, _) = demo::draw(0x7065_7274_7572_6204, index);
    let at = |x: u32, y: u32| ((y % DRAWN) * DRAWN + x % DRAWN) as usize * 3;
    let rgb = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    let rgb = rgb.flat_map(|(x, y)| small.rgb[at(x, y)..at(x, y) + 3].to_vec()).collect();
    Ok(Pixels::new(side, side, rgb)?)
}

/// Repeats `work`, which does `each` things, for a while; things a second.
fn rate(each: usize, mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    work()?;
    let (begun, mut done) = (Instant::now(), 0);
    while begun.elapsed() < MEASURE {
        work()?;
        done += each;
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

fn label(model: &dyn Classifier, image: &Pixels) -> Outcome<u16> {
    let logits = model.logits(&[image])?.pop().ok_or("no logits")?;
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    Ok(best.ok_or("no classes")? as u16)
}

fn gradients(model: &Arc<dyn Differentiable>, images: &[Pixels]) -> Outcome<()> {
    let mut tensor = TensorModel::new(model.clone());
    println!("| batch | gradients/s |\n|---|---|");
    for batch in BATCHES {
        let at: Vec<Levels> = images.iter().cycle().take(batch).map(Levels::from).collect();
        let at: Vec<&Levels> = at.iter().collect();
        let pulls: Vec<Pull> = (0..batch).map(|image| Pull { image, label: 0, loss: Loss::Margin }).collect();
        let speed = rate(batch, || {
            tensor.gradients(&at, &pulls)?;
            Ok(())
        })?;
        println!("| {batch} | {speed:.0} |");
    }
    Ok(())
}

fn answers(model: &dyn Classifier, images: &[Pixels]) -> Outcome<()> {
    let rules = Rules::subnet();
    let label = label(model, &images[0])?;
    // One level on every tenth value: through all gates, to the model.
    let answer = |shift: usize| -> Outcome<Vec<u8>> {
        let mut image = images[0].clone();
        for value in image.rgb.iter_mut().skip(shift % 10).step_by(10) {
            *value = if *value < 255 { *value + 1 } else { 254 };
        }
        Ok(image.encode_png()?)
    };
    println!("\n| batch | answers verified/s |\n|---|---|");
    for batch in BATCHES {
        let pngs: Vec<Vec<u8>> = (0..batch).map(answer).collect::<Outcome<_>>()?;
        let pngs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
        let speed = rate(batch, || {
            let verdicts = verify_batch(&rules, &images[0], label, &pngs, model, &Exact);
            let reached = |r| matches!(r, Reason::Success | Reason::LabelMatchWithOriginal);
            match verdicts.iter().all(|v| reached(v.reason)) {
                true => Ok(()),
                false => Err(format!("an answer was stopped: {:?}", verdicts.first().map(|v| v.reason)).into()),
            }
        })?;
        println!("| {batch} | {speed:.0} |");
    }
    Ok(())
}

fn against_time(model: &Arc<dyn Differentiable>, images: &[Pixels], rules: &Rules) -> Outcome<()> {
    let ours = attack::by_name("ours", &Options::default()).ok_or("no attack of our own")?;
    let criterion = RuleCriterion::new(rules.clone());
    println!(
        "\n{:?}\n\n| ms allowed | ms used | flips | k | changed | score |\n|---|---|---|---|---|---|",
        rules.preset
    );
    for budget in BUDGETS_MS {
        let (mut ms, mut flips, mut level, mut changed, mut score) = (0.0, 0, 0.0, 0.0, 0.0);
        for clean in images {
            let label = label(model.as_ref(), clean)?;
            let mut tensor = TensorModel::new(model.clone());
            let begun = Instant::now();
            let mut metered = Metered::new(&mut tensor, u64::MAX, Some(begun + Duration::from_millis(budget)));
            let context = Context::new(&mut metered, &criterion, vec![Task { clean, label, salt: 1 }]);
            let found = attack::run(ours.as_ref(), context)?.pop().flatten();
            let used = begun.elapsed().as_secs_f64() * 1e3;
            ms += used;
            let Some(found) = found else { continue };
            let png = found.image.encode_png()?;
            let verdict = verify(rules, clean, label, &png, model.as_ref(), &Exact);
            if verdict.reason != Reason::Success {
                continue;
            }
            let m = &verdict.measurement;
            flips += 1;
            level += f64::from(m.level);
            changed += 100.0 * f64::from(m.changed) / f64::from(m.channels);
            score += score_of(rules, m, used.ceil() as u32).as_f64();
        }
        let (all, won) = (images.len() as f64, f64::from(flips.max(1)));
        println!(
            "| {budget} | {:.0} | {flips} of {} | {:.2} | {:.2} % | {:.4} |",
            ms / all,
            images.len(),
            level / won,
            changed / won,
            score / all
        );
    }
    Ok(())
}
