//! Our side of `make parity` and `make throughput`; `scripts/parity` has the other.
//!
//! ```text
//! parity compare MODEL FOLDER DEVICE                     weights.safetensors against reference.safetensors
//! parity time MODEL FOLDER DEVICE BATCH THREADS REPEATS  least seconds of a pass, without and with gradient
//! ```
//!
//! DEVICE is cpu, cuda or cuda:N.

use perturb_model::zoo::{self, ModelSpec, small::small_models};
use perturb_model::{DeviceChoice, Differentiable, ModelError, ZooClassifier, input_gradient, set_threads};
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;
use tch::{Cuda, Device, Kind, Tensor};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["compare", model, folder, device] => compare(spec(model)?, Path::new(folder), resolved(device)?),
        ["time", model, folder, device, batch, threads, repeats] => {
            set_threads(threads.parse()?);
            time(spec(model)?, Path::new(folder), resolved(device)?, batch.parse()?, repeats.parse()?)
        }
        _ => {
            let usage = "parity compare MODEL FOLDER DEVICE | parity time MODEL FOLDER DEVICE BATCH THREADS REPEATS";
            Err(format!("usage: {usage}").into())
        }
    }
}

fn spec(name: &str) -> Outcome<&'static ModelSpec> {
    let small = || small_models().iter().find(|spec| spec.name == name);
    zoo::find(name).or_else(small).ok_or_else(|| format!("no model is called {name}").into())
}

fn resolved(device: &str) -> Outcome<Device> {
    Ok(device.parse::<DeviceChoice>()?.resolve()?)
}

fn load(spec: &ModelSpec, folder: &Path, device: Device, kind: Kind) -> Outcome<ZooClassifier> {
    Ok(ZooClassifier::load_as(spec, &[folder.join("weights.safetensors")], None, device, kind)?)
}

/// `‖a − b‖/‖b‖`.
fn error(a: &Tensor, b: &Tensor) -> Outcome<f64> {
    let difference = a.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_sub(b)?.f_norm()?;
    Ok(difference.f_div(&b.f_norm()?)?.f_double_value(&[])?)
}

fn compare(spec: &ModelSpec, folder: &Path, device: Device) -> Outcome<()> {
    let reference: HashMap<String, Tensor> =
        Tensor::read_safetensors(folder.join("reference.safetensors"))?.into_iter().collect();
    let get = |name: &str| reference.get(name).ok_or_else(|| format!("no {name} in the reference"));
    let mut errors = serde_json::Map::new();
    for (kind, bits) in [(Kind::Double, 64), (Kind::Float, 32)] {
        let model = load(spec, folder, device, kind)?;
        let cotangent = get("cotangent")?.f_to_device(device)?.f_to_kind(kind)?;
        let objective = |logits: &Tensor| -> Result<Tensor, ModelError> { Ok(logits.f_mul(&cotangent)?.f_sum(kind)?) };
        let (logits, gradient) = input_gradient(&model, &get("x")?.f_to_device(device)?.f_to_kind(kind)?, objective)?;
        for (what, found) in [("logits", &logits), ("gradient", &gradient)] {
            errors.insert(format!("{what}{bits}"), error(found, get(what)?)?.into());
        }
    }
    for what in ["logits", "gradient"] {
        errors.insert(format!("theirs_{what}32"), error(get(&format!("{what}32"))?, get(what)?)?.into());
    }
    println!("{}", serde_json::Value::Object(errors));
    Ok(())
}

fn time(spec: &ModelSpec, folder: &Path, device: Device, batch: i64, repeats: usize) -> Outcome<()> {
    let model = load(spec, folder, device, Kind::Float)?;
    let side = spec.preprocessing.crop;
    let x = Tensor::f_rand([batch, 3, side, side], (Kind::Float, device))?.f_mul_scalar(255.0)?;
    let forward = seconds(device, repeats, || tch::no_grad(|| model.forward(&x)).map(drop))?;
    let gradient =
        seconds(device, repeats, || input_gradient(&model, &x, |logits| Ok(logits.f_sum(Kind::Float)?)).map(drop))?;
    println!("{}", serde_json::json!({ "forward": forward, "gradient": gradient }));
    Ok(())
}

/// The shortest of so many runs after one that does not count: what disturbs a run only lengthens it.
fn seconds(device: Device, repeats: usize, mut run: impl FnMut() -> Result<(), ModelError>) -> Outcome<f64> {
    let mut run = || -> Result<(), ModelError> {
        run()?;
        if let Device::Cuda(index) = device {
            // A call there returns before its work is done.
            Cuda::synchronize(index as i64);
        }
        Ok(())
    };
    run()?;
    let mut least = f64::INFINITY;
    for _ in 0..repeats.max(1) {
        let begin = Instant::now();
        run()?;
        least = least.min(begin.elapsed().as_secs_f64());
    }
    Ok(least)
}
