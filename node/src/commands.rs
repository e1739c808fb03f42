//! `perturb model`.

use std::path::Path;

use color_eyre::eyre::{Result, bail};
use perturb_challenge::demo;
use perturb_model::train::{self, Measured, TrainOptions};
use perturb_model::{TchClassifier, set_threads};
use perturb_types::Digest;
use tch::Device;

use crate::cli::ModelCommand;
use crate::zoo;

/// Held-out images that `inspect` measures the accuracy on.
const INSPECT_IMAGES: u64 = 1000;

/// Trains and inspects models.
///
/// # Errors
/// A file that cannot be read or written, or that does not fit.
pub fn model(command: ModelCommand) -> Result<()> {
    match command {
        ModelCommand::TrainDemo { out, seed, threads } => train_demo(&out, seed, threads),
        ModelCommand::Draw { out, seed, from, count } => draw(&out, seed, from, count),
        ModelCommand::List => {
            println!("{}", zoo::list());
            Ok(())
        }
        ModelCommand::Pull { model, revision, sha256, cache } => {
            zoo::pull(&model, revision.as_deref().zip(sha256.as_deref()), cache)
        }
        ModelCommand::Verify { model, files, sha256, cache } => zoo::verify(&model, files, sha256, cache),
        ModelCommand::Inspect { model: Some(model), tensors, .. } => zoo::inspect(&model, tensors),
        ModelCommand::Inspect { file, .. } => {
            set_threads(1);
            let model = open(file.as_deref())?;
            println!("sha256    {}", Digest(model.file_digest()));
            print_measured(&train::measure(&model, INSPECT_IMAGES, 200)?);
            Ok(())
        }
        ModelCommand::Histogram { images } => {
            if !(1..=100_000).contains(&images) {
                bail!("--images {images}: choose 1 to 100000");
            }
            set_threads(1);
            print_measured(&train::measure(&open(None)?, images, images)?);
            Ok(())
        }
    }
}

fn draw(out: &Path, seed: u64, from: u64, count: u64) -> Result<()> {
    std::fs::create_dir_all(out)?;
    for index in (from..).take(usize::try_from(count)?) {
        let (image, class) = demo::draw(seed, index);
        std::fs::write(out.join(format!("{index:06}-{class}.png")), image.encode_png()?)?;
    }
    println!("drew {count} images of seed {seed} into {}", out.display());
    Ok(())
}

fn open(file: Option<&Path>) -> Result<TchClassifier> {
    Ok(match file {
        Some(path) => TchClassifier::load(path, Device::Cpu)?,
        None => TchClassifier::embedded(Device::Cpu)?,
    })
}

fn train_demo(out: &Path, seed: Option<u64>, threads: u16) -> Result<()> {
    let defaults = TrainOptions::default();
    let options = TrainOptions {
        out: out.to_owned(),
        seed: seed.unwrap_or(defaults.seed),
        threads: usize::from(threads),
        ..defaults
    };
    let report = train::train_demo(&options, |p| {
        println!("step {:>6} of {}  loss {:.4}  accuracy {:.2} %", p.step, p.steps, p.loss, p.accuracy * 100.0);
    })?;
    println!("wrote {} ({} bytes, {} parameters)", report.out.display(), report.file_bytes, report.parameters);
    println!("sha256    {}", Digest(report.digest));
    println!("trained   on {} drawn images in {:.0} s", report.images, report.train_ms as f64 / 1e3);
    print_measured(&report.measured);
    Ok(())
}

fn print_measured(m: &Measured) {
    println!("accuracy  {:.2} % of {} held-out images", m.accuracy() * 100.0, m.images);
    println!("smallest level of a dense flip, over {} held-out images:", m.levels.total());
    let shares = m.levels.shares();
    for (i, share) in shares.iter().enumerate() {
        let name = if i + 1 == shares.len() { "more".to_owned() } else { format!("{}/255", i + 1) };
        println!("  {name:<6} {:>5.1} %", share * 100.0);
    }
}
