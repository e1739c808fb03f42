//! `perturb model list`, `pull`, `inspect --model` and `verify`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use color_eyre::eyre::{Result, bail};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use perturb_model::ModelError;
use perturb_model::hub::{self, Cache, Pin, fetch::standard_endpoint, pins};
use perturb_model::zoo::{self, ModelSpec, Origin, Resize};
use perturb_types::Digest;

fn find(name: &str) -> Result<&'static ModelSpec> {
    let unknown = || ModelError::UnknownModel { name: name.escape_default().take(80).collect() };
    Ok(zoo::find(name).ok_or_else(unknown)?)
}

/// The table of models.
#[must_use]
pub fn list() -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(["model", "family", "million", "input", "top-1 %", "weights"]);
    for spec in zoo::models() {
        table.add_row([
            spec.name.to_owned(),
            spec.architecture.family().to_owned(),
            format!("{:.2}", spec.parameters as f64 / 1e6),
            spec.preprocessing.crop.to_string(),
            format!("{:.2}", f64::from(spec.top1) / 100.0),
            weights(spec).to_owned(),
        ]);
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// In a word, how the weights are got.
fn weights(spec: &ModelSpec) -> &'static str {
    match (spec.origin, pins::known(spec.name)) {
        (Origin::Torchvision { .. }, _) => "torchvision",
        (Origin::Hub, Ok(Some(_))) => "hub, pinned",
        (Origin::Hub, Ok(None)) => "hub, not pinned",
        (Origin::Hub, Err(_)) => "hub, pins unreadable",
    }
}

/// Fetches a model's weights; `pin` is (commit, SHA-256) in place of the known one.
///
/// # Errors
/// An unknown model, one without a pin, or whatever the hub and the disk have to say.
pub fn pull(model: &str, pin: Option<(&str, &str)>, folder: Option<PathBuf>) -> Result<()> {
    let spec = find(model)?;
    let pin = pin.map(|(revision, sha256)| Pin::single(revision, sha256)).transpose()?;
    let cache = Cache::standard(folder)?;
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::no_length(),
        false => ProgressBar::hidden(),
    };
    // A template that does not parse leaves indicatif's own style.
    if let Ok(style) = ProgressStyle::with_template("{bytes} of {total_bytes}  {bytes_per_sec}  {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let outcome = hub::pull(spec, pin.as_ref(), &cache, &standard_endpoint(), |done, total| {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let weights = outcome?;
    let found = Digest(zoo::verify(spec, &weights.files)?);
    if found != Digest(weights.digest) {
        bail!("these files changed after they were fetched: their SHA-256 is {found}");
    }
    for file in &weights.files {
        println!("{}", file.display());
    }
    println!("sha256    {found}");
    Ok(())
}

/// Checks weights against the table: the given files, or what lies in the cache by this digest or the pin.
///
/// # Errors
/// What does not fit, or a digest that is another one.
pub fn verify(model: &str, files: Vec<PathBuf>, sha256: Option<String>, folder: Option<PathBuf>) -> Result<()> {
    let spec = find(model)?;
    let given = sha256.map(|text| text.to_ascii_lowercase().parse::<Digest>()).transpose()?;
    let cache = || Cache::standard(folder);
    let files = match (files.is_empty(), given) {
        (false, _) => files,
        (true, Some(digest)) => hub::agreed(spec, &digest.0, &cache()?)?.files,
        (true, None) => hub::pulled(spec, None, &cache()?)?.files,
    };
    let found = Digest(zoo::verify(spec, &files)?);
    let expected = match given {
        Some(digest) => Some(digest),
        None => pins::known(spec.name)?.map(|pin| pin.digest()).transpose()?,
    };
    let parameters = zoo::parameters(spec);
    let trained: u64 = parameters.iter().filter(|p| p.kind == zoo::ParameterKind::Trained).map(|p| p.values()).sum();
    println!("model     {}", spec.name);
    println!("tensors   {} as in the table, {trained} parameters", parameters.len());
    println!("sha256    {found}");
    match expected {
        Some(expected) if expected == found => println!("pinned    yes"),
        Some(expected) => bail!("the expected SHA-256 is {expected}: these are other weights"),
        None => println!("pinned    no: compare the digest with a source that you trust"),
    }
    Ok(())
}

/// Tells what the table says of a model.
///
/// # Errors
/// An unknown model.
pub fn inspect(model: &str, tensors: bool) -> Result<()> {
    let spec = find(model)?;
    let preprocessing = &spec.preprocessing;
    println!("model     {}", spec.name);
    println!("family    {}", spec.architecture.family());
    println!("weights   {}", weights(spec));
    if let Some(repository) = spec.repository() {
        println!("hub       {repository}");
    }
    if let Some(pin) = pins::known(spec.name)? {
        println!("revision  {}", pin.revision);
        for file in &pin.files {
            println!("sha256    {} {}", file.sha256, file.name);
        }
    }
    match preprocessing.resize {
        Resize::Shortest(side) => println!("resize    shorter side to {side}, bicubic, antialiased"),
        Resize::Squash(side) => println!("resize    both sides to {side}, bicubic, antialiased"),
    }
    println!("crop      {0}x{0}, centre", preprocessing.crop);
    println!("mean      {:?}", preprocessing.mean);
    println!("std       {:?}", preprocessing.deviation);
    println!("classes   {}", spec.classes);
    println!("trained   on {0}x{0}", spec.train_side);
    println!("layers    {:?}", spec.architecture);
    if tensors {
        for parameter in zoo::parameters(spec) {
            println!("{:?} {:?} {}", parameter.kind, parameter.shape, parameter.name);
        }
    }
    Ok(())
}
