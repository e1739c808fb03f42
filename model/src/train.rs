//! Training of the demo network, from drawing the images to the finished file.
//!
//! Every step draws a fresh batch of [`demo::TRAIN_SEED`] (no image is seen twice), and flips, crops
//! and brightens it as a round's secret transform may. The loss is cross entropy with smoothed
//! labels. Batch normalisation is used while training and folded into the convolutions at the end,
//! so the file holds plain convolutions.
//!
//! No adversarial training: random changes of up to half a level already take about half of all
//! images beyond a dense flip at k = 3, and the demo needs all levels.
//!
//! With one seed, one number of threads and one build of libtorch the result is the same file. On
//! other processors the order of sums differs, and with it the last digits of the weights: the
//! committed file, not the recipe, is what its digest stands for.

use crate::classifier::{Differentiable, TchClassifier};
use crate::error::ModelError;
use crate::histogram::{LevelAttack, LevelHistogram, histogram};
use crate::net::{CONVOLUTIONS, FEATURES, HEAD, convolve, pool, preprocess};
use crate::tensor::{self, to_tensor};
use crate::weights::{self, HostTensor};
use perturb_challenge::demo::{self, CLASSES, DemoSet};
use perturb_challenge::pixels::Pixels;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::nn::{self, OptimizerConfig};
use tch::{Device, Kind, Reduction, Tensor};

/// Momentum and epsilon of the batch normalisation.
const BN_MOMENTUM: f64 = 0.05;
const BN_EPSILON: f64 = 1e-5;

/// Share of the steps over which the learning rate rises.
const WARM_UP: f64 = 0.1;

/// Smallest side of a random crop, in pixels.
const MIN_CROP: u32 = 48;

/// Largest random change of brightness, in levels.
const BRIGHTNESS: f64 = 20.0;

/// Most images that can be measured: the histogram keeps them in memory (12 KiB each).
const MAX_MEASURED: u64 = 100_000;

/// Images per batch while measuring.
const MEASURE_BATCH: usize = 50;

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Where the safetensors file goes.
    pub out: PathBuf,
    /// Seed of initialisation and augmentation.
    pub seed: u64,
    /// Optimiser steps, 1 to 100,000.
    pub steps: u32,
    /// Images per step, 2 to 1024.
    pub batch: u32,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Share of probability spread over all classes in the loss; keeps logits small.
    pub label_smoothing: f64,
    /// Torch threads.
    pub threads: usize,
    /// Held-out images the accuracy is measured on.
    pub held_out: u64,
    /// Held-out images the histogram of levels is measured on.
    pub histogram: u64,
}

impl Default for TrainOptions {
    /// The recipe of the embedded weights: about two minutes on two cores.
    fn default() -> Self {
        Self {
            out: PathBuf::from("demo.safetensors"),
            seed: 1,
            steps: 1200,
            batch: 64,
            learning_rate: 4e-3,
            label_smoothing: 0.1,
            threads: 2,
            held_out: 2000,
            histogram: 1000,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainReport {
    /// The file written.
    pub out: PathBuf,
    /// Its SHA-256.
    pub digest: [u8; 32],
    /// Its size, in bytes.
    pub file_bytes: u64,
    /// Number of weights.
    pub parameters: u64,
    /// Images drawn and trained on.
    pub images: u64,
    /// Duration of the training, in milliseconds.
    pub train_ms: u64,
    /// Held-out measurements.
    pub measured: Measured,
}

/// Held-out accuracy and levels of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Held-out images.
    pub images: u64,
    /// Of those, how many got their class.
    pub correct: u64,
    /// Smallest levels of dense flips, on the first images.
    pub levels: LevelHistogram,
}

impl Measured {
    /// Share of held-out images that got their class.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.images.max(1) as f64
    }
}

/// Progress of a training, once in a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u32,
    /// Steps to do.
    pub steps: u32,
    /// Mean loss since the last report.
    pub loss: f64,
    /// Accuracy on the (changed) training images since the last report.
    pub accuracy: f64,
}

/// Trains the demo network, writes its file and measures what was written.
///
/// `progress` is called about fifty times.
///
/// # Errors
/// `Option` for options outside their bounds, `Write` if the file cannot be written, `Torch` if
/// libtorch fails.
pub fn train_demo(options: &TrainOptions, mut progress: impl FnMut(Progress)) -> Result<TrainReport, ModelError> {
    check(options)?;
    tensor::set_threads(options.threads);
    tch::manual_seed(options.seed as i64);
    let started = Instant::now();
    let mut trainee = Trainee::new(options)?;
    let every = (options.steps / 50).max(1);
    let (mut loss, mut accuracy, mut since) = (0.0, 0.0, 0_u32);
    for step in 0..options.steps {
        let (step_loss, step_accuracy) = trainee.step(options, step)?;
        (loss, accuracy, since) = (loss + step_loss, accuracy + step_accuracy, since + 1);
        if (step + 1) % every == 0 || step + 1 == options.steps {
            let (loss_mean, accuracy_mean) = (loss / f64::from(since), accuracy / f64::from(since));
            progress(Progress { step: step + 1, steps: options.steps, loss: loss_mean, accuracy: accuracy_mean });
            (loss, accuracy, since) = (0.0, 0.0, 0);
        }
    }
    let train_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);

    let tensors = trainee.folded()?;
    let bytes = weights::write(&tensors).map_err(|problem| ModelError::Weights {
        origin: options.out.display().to_string(),
        architecture: crate::net::ARCHITECTURE,
        problem,
    })?;
    write_file(&options.out, &bytes)?;
    let classifier = TchClassifier::load(&options.out, Device::Cpu)?;
    Ok(TrainReport {
        out: options.out.clone(),
        digest: classifier.file_digest(),
        file_bytes: bytes.len() as u64,
        parameters: tensors.values().map(|tensor| tensor.values.len() as u64).sum(),
        images: u64::from(options.steps) * u64::from(options.batch),
        train_ms,
        measured: measure(&classifier, options.held_out, options.histogram)?,
    })
}

/// Measures a model on the first `images` held-out images, and levels on the first `levels`.
///
/// # Errors
/// What the model reports.
pub fn measure<M: Differentiable + ?Sized>(model: &M, images: u64, levels: u64) -> Result<Measured, ModelError> {
    let set = DemoSet::new(demo::HELD_OUT_SEED, images);
    let mut correct = 0;
    let mut at = 0;
    while at < images {
        let until = images.min(at + MEASURE_BATCH as u64);
        let (pixels, classes): (Vec<Pixels>, Vec<u16>) = (at..until).filter_map(|i| set.get(i)).unzip();
        let x = to_tensor(&pixels.iter().collect::<Vec<_>>(), model.device())?;
        let guess = tch::no_grad(|| model.forward(&x))?.f_argmax(1, false)?;
        let guess: Vec<i64> = Vec::try_from(&guess.f_to_device(Device::Cpu)?)?;
        correct += guess.iter().zip(&classes).filter(|(g, c)| **g == i64::from(**c)).count() as u64;
        at = until;
    }
    let pixels: Vec<Pixels> = DemoSet::new(demo::HELD_OUT_SEED, levels).iter().map(|(p, _)| p).collect();
    let levels = histogram(model, &pixels, &LevelAttack::default(), MEASURE_BATCH)?;
    Ok(Measured { images, correct, levels })
}

fn check(options: &TrainOptions) -> Result<(), ModelError> {
    let bound = |ok: bool, name, value: String, allowed| match ok {
        true => Ok(()),
        false => Err(ModelError::Option { name, value, allowed }),
    };
    let TrainOptions { steps, batch, learning_rate, label_smoothing, held_out, histogram, .. } = options;
    bound((1..=100_000).contains(steps), "steps", steps.to_string(), "1 to 100000")?;
    bound((2..=1024).contains(batch), "batch", batch.to_string(), "2 to 1024")?;
    let rate = *learning_rate > 0.0 && *learning_rate <= 1.0;
    bound(rate, "learning_rate", learning_rate.to_string(), "above 0, at most 1")?;
    let smoothing = (0.0..0.9).contains(label_smoothing);
    bound(smoothing, "label_smoothing", label_smoothing.to_string(), "0 to 0.9")?;
    bound(*held_out <= MAX_MEASURED, "held_out", held_out.to_string(), "0 to 100000")?;
    bound(*histogram <= MAX_MEASURED, "histogram", histogram.to_string(), "0 to 100000")
}

/// The network while it learns: convolutions without bias, each followed by batch normalisation.
struct Trainee {
    layers: Vec<Layer>,
    head: nn::Linear,
    optimizer: nn::Optimizer,
    random: ChaCha8Rng,
    next_image: u64,
    /// Owns the variables that the layers and the optimizer refer to.
    _variables: nn::VarStore,
}

struct Layer {
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl Trainee {
    fn new(options: &TrainOptions) -> Result<Self, ModelError> {
        let variables = nn::VarStore::new(Device::Cpu);
        let root = variables.root();
        let layers = CONVOLUTIONS
            .iter()
            .map(|conv| {
                let path = root.sub(conv.name.replace('.', "_"));
                let shape = [conv.output, conv.input, conv.kernel, conv.kernel];
                Layer {
                    weight: path.kaiming_normal("weight", &shape),
                    scale: path.ones("scale", &[conv.output]),
                    shift: path.zeros("shift", &[conv.output]),
                    mean: path.zeros_no_train("mean", &[conv.output]),
                    variance: path.ones_no_train("variance", &[conv.output]),
                }
            })
            .collect();
        let head = nn::linear(root.sub(HEAD), FEATURES, CLASSES as i64, Default::default());
        let optimizer = nn::AdamW { wd: 0.02, ..Default::default() }.build(&variables, options.learning_rate)?;
        let random = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { layers, head, optimizer, random, next_image: 0, _variables: variables })
    }

    /// One optimiser step: loss and accuracy on its batch.
    fn step(&mut self, options: &TrainOptions, step: u32) -> Result<(f64, f64), ModelError> {
        self.optimizer.set_lr(options.learning_rate * schedule(step, options.steps));
        let (x, classes) = self.batch(options.batch)?;
        let logits = self.forward(&x)?;
        let loss = loss(&logits, &classes, options)?;
        self.optimizer.backward_step(&loss);
        let hits = logits.f_argmax(1, false)?.f_eq_tensor(&classes)?.f_to_kind(Kind::Float)?;
        Ok((loss.f_double_value(&[])?, hits.f_mean(Kind::Float)?.f_double_value(&[])?))
    }

    /// Draws and augments the next images: levels (`N×3×h×w`) and classes (`N`).
    fn batch(&mut self, count: u32) -> Result<(Tensor, Tensor), ModelError> {
        let mut images = Vec::with_capacity(count as usize);
        let mut classes = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (pixels, class) = demo::draw(demo::TRAIN_SEED, self.next_image);
            self.next_image += 1;
            images.push(pixels);
            classes.push(i64::from(class));
        }
        let mut x = to_tensor(&images.iter().collect::<Vec<_>>(), Device::Cpu)?;
        if self.below(2) == 0 {
            let side = MIN_CROP + self.below(demo::SIDE - MIN_CROP + 1);
            let mut offset = || i64::from(self.below(demo::SIDE - side + 1));
            let (top, left) = (offset(), offset());
            x = x.f_narrow(2, top, i64::from(side))?.f_narrow(3, left, i64::from(side))?;
        }
        if self.below(2) == 0 {
            x = x.f_flip([3_i64].as_slice())?;
        }
        let shifts: Vec<f32> =
            (0..count).map(|_| ((2.0 * self.fraction() - 1.0) * BRIGHTNESS).round() as f32).collect();
        let shifts = Tensor::f_from_slice(&shifts)?.f_reshape([-1, 1, 1, 1])?;
        let x = x.f_add(&shifts)?.f_clamp(0.0, 255.0)?;
        Ok((x, Tensor::f_from_slice(&classes)?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let mut x = preprocess(x)?;
        for (conv, layer) in CONVOLUTIONS.iter().zip(&self.layers) {
            x = convolve(&x, &layer.weight, None, conv)?
                .f_batch_norm(
                    Some(&layer.scale),
                    Some(&layer.shift),
                    Some(&layer.mean),
                    Some(&layer.variance),
                    true,
                    BN_MOMENTUM,
                    BN_EPSILON,
                    false,
                )?
                .f_relu()?;
        }
        Ok(pool(&x)?.f_linear(&self.head.ws, self.head.bs.as_ref())?)
    }

    /// The tensors of the file: normalisation folded into weights and biases.
    fn folded(&self) -> Result<BTreeMap<String, HostTensor>, ModelError> {
        tch::no_grad(|| {
            let mut tensors = BTreeMap::new();
            for (conv, layer) in CONVOLUTIONS.iter().zip(&self.layers) {
                let gain = layer.scale.f_div(&layer.variance.f_add_scalar(BN_EPSILON)?.f_sqrt()?)?;
                let weight = layer.weight.f_mul(&gain.f_reshape([-1, 1, 1, 1])?)?;
                let bias = layer.shift.f_sub(&layer.mean.f_mul(&gain)?)?;
                tensors.insert(format!("{}.weight", conv.name), host(&weight)?);
                tensors.insert(format!("{}.bias", conv.name), host(&bias)?);
            }
            tensors.insert(format!("{HEAD}.weight"), host(&self.head.ws)?);
            if let Some(bias) = &self.head.bs {
                tensors.insert(format!("{HEAD}.bias"), host(bias)?);
            }
            Ok(tensors)
        })
    }

    fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.random.next_u32()) * u64::from(n)) >> 32) as u32
    }

    fn fraction(&mut self) -> f64 {
        f64::from(self.random.next_u32()) / 4_294_967_296.0
    }
}

fn loss(logits: &Tensor, classes: &Tensor, options: &TrainOptions) -> Result<Tensor, ModelError> {
    let smoothing = options.label_smoothing;
    Ok(logits.f_cross_entropy_loss::<Tensor>(classes, None, Reduction::Mean, -100, smoothing)?)
}

/// Share of the peak learning rate: a linear rise, then half a cosine.
fn schedule(step: u32, steps: u32) -> f64 {
    let done = (f64::from(step) + 1.0) / f64::from(steps);
    if done < WARM_UP {
        return done / WARM_UP;
    }
    let rest = (done - WARM_UP) / (1.0 - WARM_UP);
    0.5 * (1.0 + (core::f64::consts::PI * rest).cos()).max(0.002)
}

fn host(tensor: &Tensor) -> Result<HostTensor, ModelError> {
    let shape = tensor.size().iter().map(|side| side.unsigned_abs()).collect();
    let flat = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?.f_reshape([-1])?;
    Ok(HostTensor { shape, values: Vec::try_from(&flat)? })
}

/// Writes beside the target, syncs and renames: an interrupted training leaves the old file whole.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let failed = |source| ModelError::Write { path: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let mut file = std::fs::File::create(&part).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}

#[cfg(test)]
mod tests;
