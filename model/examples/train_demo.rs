//! Trains the demo classifier and prints its report:
//! `cargo run -p perturb-model --example train_demo -- OUT.safetensors [option=value ...]`.
//! With `measure` in place of options, only measures the file.
#![allow(clippy::print_stdout)]

use perturb_model::train::{Measured, TrainOptions, measure, train_demo};
use perturb_model::{TchClassifier, set_threads};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().ok_or("usage: train_demo OUT.safetensors [option=value ...]")?;
    let mut options = TrainOptions { out: out.into(), ..TrainOptions::default() };
    for argument in arguments {
        if argument == "measure" {
            set_threads(options.threads);
            let model = TchClassifier::load(&options.out, tch::Device::Cpu)?;
            print_measured(&measure(&model, options.held_out, options.histogram)?);
            return Ok(());
        }
        let (name, value) = argument.split_once('=').ok_or("options are name=value")?;
        match name {
            "seed" => options.seed = value.parse()?,
            "steps" => options.steps = value.parse()?,
            "batch" => options.batch = value.parse()?,
            "learning_rate" => options.learning_rate = value.parse()?,
            "label_smoothing" => options.label_smoothing = value.parse()?,
            "threads" => options.threads = value.parse()?,
            "held_out" => options.held_out = value.parse()?,
            "histogram" => options.histogram = value.parse()?,
            _ => return Err(format!("no option {name}").into()),
        }
    }
    let report = train_demo(&options, |p| {
        println!("step {:>5}/{}  loss {:.4}  accuracy {:.3}", p.step, p.steps, p.loss, p.accuracy);
    })?;
    let digest: String = report.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{} images in {} ms", report.images, report.train_ms);
    println!("{}: {} bytes, {} parameters", report.out.display(), report.file_bytes, report.parameters);
    println!("sha256 {digest}");
    print_measured(&report.measured);
    Ok(())
}

fn print_measured(measured: &Measured) {
    println!("held-out accuracy {:.4} ({}/{})", measured.accuracy(), measured.correct, measured.images);
    let levels = &measured.levels;
    println!("levels 1, 2, ... and more: {:?} + {} of {}", levels.counts, levels.more, levels.total());
}
