//! `perturb attack`: an attack without the network, judged exactly as a validator would judge it.

mod outcome;
mod page;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use color_eyre::eyre::{Context as _, Result, bail, eyre};
use perturb_challenge::classifier::Classifier;
use perturb_challenge::pixels::Pixels;
use perturb_challenge::report::{Model, report};
use perturb_challenge::rules::Rules;
use perturb_miner::attack::{self, Attack, Context, Options, Task};
use perturb_miner::criterion::RuleCriterion;
use perturb_miner::metered::Metered;
use perturb_miner::tensor::TensorModel;
use perturb_model::Differentiable;

use crate::cli::AttackArgs;
use crate::score::{natural, read_clean};
use outcome::{Outcome, Totals};
use page::Page;

/// Images of one call: what a page can show and a folder hold without surprises.
const MAX_IMAGES: usize = 10_000;

/// The model's label of each image.
fn labels(model: &dyn Differentiable, images: &[&Pixels]) -> Result<Vec<u16>> {
    let rows = model.logits(images)?;
    let best = |z: &Vec<f32>| (0..z.len()).max_by(|a, b| z[*a].total_cmp(&z[*b]).then(b.cmp(a))).unwrap_or(0) as u16;
    Ok(rows.iter().map(best).collect())
}

/// One image's file, and its name in the output folder.
struct Item {
    path: PathBuf,
    stem: String,
}

fn items(paths: &[PathBuf]) -> Result<Vec<Item>> {
    if paths.len() > MAX_IMAGES {
        bail!("{} images; at most {MAX_IMAGES} in one call", paths.len());
    }
    let mut taken = BTreeSet::new();
    let item = |path: &PathBuf| {
        let plain = path.file_stem().map_or_else(|| "image".to_owned(), |s| s.to_string_lossy().into_owned());
        // Files of one name from several folders do not overwrite each other's answers.
        let numbered = (2..).map(|n| format!("{plain}-{n}"));
        let free = std::iter::once(plain.clone()).chain(numbered).find(|s| !taken.contains(s));
        let stem = free.unwrap_or_default();
        taken.insert(stem.clone());
        Item { path: path.clone(), stem }
    };
    Ok(paths.iter().map(item).collect())
}

/// Everything that stays the same from batch to batch.
struct Run {
    rules: Rules,
    attack: Box<dyn Attack>,
    classifier: Arc<dyn Differentiable>,
    model: TensorModel,
    budget: Duration,
    passes: u64,
    salt: u64,
}

impl Run {
    fn new(args: &AttackArgs) -> Result<Self> {
        let rules = Rules::by_name(&args.rules)
            .ok_or_else(|| eyre!("unknown rules `{}`: `subnet` or `whitepaper`", args.rules))?;
        if args.epsilon.is_some_and(|e| !(1.0..=255.0).contains(&e)) {
            bail!("--epsilon: 1 to 255 levels");
        }
        if args.step_size.is_some_and(|s| !(s > 0.0 && s.is_finite())) {
            bail!("--step-size: a positive number");
        }
        let options =
            Options { epsilon: args.epsilon, steps: args.steps, step_size: args.step_size, restarts: args.restarts };
        let Some(attack) = attack::by_name(&args.attack, &options) else {
            bail!("unknown attack `{}`: one of {}", args.attack, attack::NAMES.join(", "));
        };
        perturb_model::set_threads(usize::from(args.threads));
        let classifier: Arc<dyn Differentiable> =
            Arc::from(perturb_model::open(&args.model, None, args.device.resolve()?)?);
        let budget = Duration::from_millis(u64::from(args.budget_ms.unwrap_or(rules.deadline_ms)));
        let model = TensorModel::new(classifier.clone());
        Ok(Self { rules, attack, classifier, model, budget, passes: u64::from(args.passes), salt: args.salt })
    }

    /// Attacks a batch and has the verifier judge what came of it.
    fn batch(&mut self, batch: &[Item]) -> Result<Vec<Outcome>> {
        let count = batch.len() as u32;
        // A batch's pictures are held, not all.
        let pictures: Vec<Pixels> = batch.iter().map(|i| read_clean(&i.path)).collect::<Result<_>>()?;
        let cleans: Vec<&Pixels> = pictures.iter().collect();
        let labels = labels(self.classifier.as_ref(), &cleans)?;
        let started = Instant::now();
        let deadline = started + self.budget * count;
        let mut metered = Metered::new(&mut self.model, self.passes * u64::from(count), Some(deadline));
        let criterion = RuleCriterion::new(self.rules.clone());
        let tasks = cleans.iter().zip(&labels).map(|(clean, &label)| Task { clean, label, salt: self.salt }).collect();
        let context = Context::new(&mut metered, &criterion, tasks).since(started, Instant::now);
        let found = attack::run(self.attack.as_ref(), context)?;
        let each_ms = started.elapsed().as_secs_f64() * 1e3 / f64::from(count.max(1));
        let spent = metered.spent();
        let classifier: &dyn Classifier = self.classifier.as_ref();
        let judge = Model { classifier, semantics: natural(classifier) };
        batch
            .iter()
            .zip(&pictures)
            .zip(found)
            .zip(labels)
            .map(|(((item, clean), found), label)| {
                let adversarial = found.map(|f| f.image);
                let verdict = match &adversarial {
                    Some(image) => {
                        let png = image.encode_png()?;
                        Some(report(&self.rules, clean, &png, Some(&judge), each_ms.ceil() as u32))
                    }
                    None => None,
                };
                Ok(Outcome {
                    image: item.path.display().to_string(),
                    attack: self.attack.name(),
                    label,
                    time_ms: each_ms,
                    forwards: spent.forwards as f64 / f64::from(count),
                    backwards: spent.backwards as f64 / f64::from(count),
                    verdict,
                    clean: clean.clone(),
                    adversarial,
                })
            })
            .collect()
    }
}

/// Attacks, writes and prints.
///
/// # Errors
/// A file that cannot be read or written, an unknown name, a model that does not fit. An image for which
/// nothing was found is no error: its line says so.
pub fn run(args: &AttackArgs) -> Result<()> {
    let mut run = Run::new(args)?;
    let items = items(&args.images)?;
    std::fs::create_dir_all(&args.out).wrap_err_with(|| format!("{}", args.out.display()))?;
    let (mut totals, mut page) = (Totals::default(), args.report.as_ref().map(|path| (path, Page::default())));
    let mut out = std::io::stdout().lock();
    for batch in items.chunks(usize::from(args.batch)) {
        for (item, outcome) in batch.iter().zip(run.batch(batch)?) {
            outcome.write(&args.out, &item.stem)?;
            totals.add(&outcome);
            if let Some((_, page)) = &mut page {
                page.add(&outcome)?;
            }
            match args.json {
                true => writeln!(out, "{}", serde_json::to_string(&outcome)?)?,
                false => writeln!(out, "{outcome}")?,
            }
        }
    }
    if !args.json && totals.images > 1 {
        writeln!(out, "{totals}")?;
    }
    if let Some((path, page)) = page {
        let title = format!("{} on {} under {}", run.attack.name(), run.classifier.name(), args.rules);
        let page = page.finish(&title, &totals);
        std::fs::write(path, page).wrap_err_with(|| format!("{}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
