//! `perturb score`: what an answer is worth, exactly as a validator would say.

use std::path::Path;

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_challenge::classifier::Classifier;
use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::report::{Model, report};
use perturb_challenge::rules::Rules;
use perturb_challenge::semantics::wordnet::{Wordnet, graph};
use perturb_challenge::semantics::{Exact, Semantics};
use perturb_types::limits;
use tch::Device;

use crate::cli::ScoreArgs;

fn read(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).wrap_err_with(|| format!("{}", path.display()))?.len();
    if size > limits::MAX_PNG_BYTES as u64 {
        bail!("{}: {size} bytes, a PNG on the wire has at most {}", path.display(), limits::MAX_PNG_BYTES);
    }
    std::fs::read(path).wrap_err_with(|| format!("{}", path.display()))
}

fn rules(args: &ScoreArgs) -> Result<Rules> {
    let mut rules =
        Rules::by_name(&args.rules).ok_or_else(|| eyre!("unknown rules `{}`: `subnet` or `whitepaper`", args.rules))?;
    if let Some(epsilon) = args.epsilon {
        if !(0.0..=1.0).contains(&epsilon) {
            bail!("--epsilon {epsilon}: a part of the pixel range, 0 to 1");
        }
        rules.epsilon = (epsilon * 1e6).round() as u32;
        rules.epsilon_steps = 0;
    }
    rules.validate()?;
    Ok(rules)
}

/// Judges and prints.
///
/// # Errors
/// A file that cannot be read, rules that make no sense, a model that does not fit. An answer that
/// fails a gate is no error: that is the report.
pub fn run(args: &ScoreArgs) -> Result<()> {
    let rules = rules(args)?;
    let clean = Pixels::decode_png(&read(&args.clean)?, &PngLimits::default())
        .wrap_err_with(|| format!("{}", args.clean.display()))?;
    let answer = read(&args.adversarial)?;
    let open = |name| perturb_model::open(name, None, Device::Cpu);
    let classifier = args.model.as_deref().map(open).transpose()?;
    // WordNet knows ImageNet's classes; another model's labels mean what their numbers say.
    let imagenet = classifier.as_ref().is_some_and(|c| c.classes() == graph().class_names().len());
    let semantics: &dyn Semantics = if imagenet { &Wordnet } else { &Exact };
    let model = classifier.as_ref().map(|classifier| Model { classifier: &**classifier, semantics });
    let report = report(&rules, &clean, &answer, model.as_ref(), args.time_ms);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
