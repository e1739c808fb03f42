//! `perturb score`: what an answer is worth, exactly as a validator would say.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_challenge::classifier::Classifier;
use perturb_challenge::file;
use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::report::{Model, report};
use perturb_challenge::rules::Rules;
use perturb_challenge::semantics::wordnet::Wordnet;
use perturb_challenge::semantics::{Exact, Semantics};
use perturb_types::limits;
use tch::Device;

use crate::cli::ScoreArgs;

/// Lines of a list of pairs.
const MAX_PAIRS: usize = 100_000;

/// Bytes of such a list.
const MAX_PAIRS_BYTES: u64 = 64 << 20;

/// The bytes of an image file, unless it is longer than a PNG on the wire may be.
///
/// # Errors
/// A file that cannot be read, or is too long.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    file::read(path, limits::MAX_PNG_BYTES as u64).wrap_err_with(|| format!("{}", path.display()))
}

/// A clean image from a file.
///
/// # Errors
/// A file that cannot be read, or is no PNG of the accepted kind.
pub fn read_clean(path: &Path) -> Result<Pixels> {
    Pixels::decode_png(&read(path)?, &PngLimits::default()).wrap_err_with(|| format!("{}", path.display()))
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

/// The judge of meaning that fits a model: WordNet knows ImageNet's classes; another model's labels mean
/// what their numbers say.
pub fn natural(classifier: &dyn Classifier) -> &'static dyn Semantics {
    if classifier.classes() == Wordnet::CLASSES { &Wordnet } else { &Exact }
}

/// Clean image, adversarial image and milliseconds of each line.
fn pairs(path: &Path) -> Result<Vec<(PathBuf, PathBuf, u32)>> {
    let text = file::read_text(path, MAX_PAIRS_BYTES).wrap_err_with(|| format!("{}", path.display()))?;
    if text.lines().count() > MAX_PAIRS {
        bail!("{}: more than {MAX_PAIRS} lines", path.display());
    }
    let pair = |(number, line): (usize, &str)| {
        let wrong = || eyre!("{}: line {}: not clean, adversarial and milliseconds", path.display(), number + 1);
        match line.split('\t').collect::<Vec<_>>().as_slice() {
            [clean, adversarial, time] => {
                Ok((PathBuf::from(clean), PathBuf::from(adversarial), time.parse().map_err(|_| wrong())?))
            }
            _ => Err(wrong()),
        }
    };
    text.lines().enumerate().map(pair).collect()
}

/// Judges and prints.
///
/// # Errors
/// A file that cannot be read, rules that make no sense, a model that does not fit. An answer that
/// fails a gate is no error: that is the report.
pub fn run(args: &ScoreArgs) -> Result<()> {
    let rules = rules(args)?;
    let open = |name| perturb_model::open(name, None, Device::Cpu);
    let classifier = args.model.as_deref().map(open).transpose()?;
    let model =
        classifier.as_ref().map(|classifier| Model { classifier: &**classifier, semantics: natural(&**classifier) });
    let judge = |clean: &Path, adversarial: &Path, time_ms| {
        Ok::<_, color_eyre::Report>(report(&rules, &read_clean(clean)?, &read(adversarial)?, model.as_ref(), time_ms))
    };
    let mut out = std::io::stdout().lock();
    if let Some(list) = &args.pairs {
        for (clean, adversarial, time_ms) in pairs(list)? {
            writeln!(out, "{}", serde_json::to_string(&judge(&clean, &adversarial, time_ms)?)?)?;
        }
        return Ok(());
    }
    let (Some(clean), Some(adversarial), Some(time_ms)) = (&args.clean, &args.adversarial, args.time_ms) else {
        bail!("give a clean image, an adversarial image and --time-ms, or --pairs");
    };
    let report = judge(clean, adversarial, time_ms)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(())
}
