//! Attacks side by side on one model and a folder of PNGs, under both presets:
//!
//! ```text
//! survey MODEL FOLDER [ATTACK,ATTACK…] [even|odd|all] [each]
//! ```
//!
//! Every image is attacked by each of the attacks in turn, one at a time, so that whatever else the machine
//! does troubles all of them alike. Shown are the images whose label was changed within the rules, the sum of
//! the levels needed (an image without an answer counts one more than the rules allow), the mean changed
//! share, gradients, forwards and milliseconds an image, and the mean network score; with `each` also every
//! image's own level.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::rules::Rules;
use perturb_miner::attack::{self, Attack, Candidate, Context, Options, Task};
use perturb_miner::criterion::{Criterion, RuleCriterion};
use perturb_miner::metered::{Metered, Spent};
use perturb_miner::model::Model;
use perturb_miner::tensor::TensorModel;

/// Passes that one image may cost: the deadline ends a search, not this.
const PASSES: u64 = 1_000_000;

/// One attack's sums over the images.
#[derive(Default)]
struct Sums {
    flips: u32,
    levels: u32,
    changed: f64,
    spent: Spent,
    ms: f64,
    score: f64,
    each: Vec<String>,
}

impl Sums {
    fn add(&mut self, criterion: &RuleCriterion, found: Option<&Candidate>, spent: Spent, ms: f64) {
        self.spent.forwards += spent.forwards;
        self.spent.backwards += spent.backwards;
        self.ms += ms;
        let Some(found) = found else {
            self.levels += u32::from(criterion.levels().1) + 1;
            self.each.push("-".to_owned());
            return;
        };
        let m = found.measurement;
        self.flips += 1;
        self.levels += u32::from(m.level);
        self.changed += f64::from(m.changed) / f64::from(m.channels);
        self.score += f64::from(criterion.value(&m, ms.ceil() as u32)) / 1e6;
        self.each.push(m.level.to_string());
    }

    fn line(&self, name: &str, images: usize) -> String {
        let each = |x: f64| x / images.max(1) as f64;
        format!(
            "{name:<10} {:>4}/{images:<4} {:>6} {:>8.2}% {:>9.1} {:>9.1} {:>9.1}ms {:.4}",
            self.flips,
            self.levels,
            100.0 * self.changed / f64::from(self.flips.max(1)),
            each(self.spent.backwards as f64),
            each(self.spent.forwards as f64),
            each(self.ms),
            each(self.score),
        )
    }
}

fn images(folder: &Path, which: &str) -> Result<Vec<Pixels>, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "png"));
    paths.sort();
    let wanted = |i: &usize| match which {
        "even" => i.is_multiple_of(2),
        "odd" => !i.is_multiple_of(2),
        _ => true,
    };
    let chosen = paths.iter().enumerate().filter(|(i, _)| wanted(i)).map(|(_, p)| p);
    chosen.map(|p| Ok(Pixels::decode_png(&std::fs::read(p)?, &PngLimits::default())?)).collect()
}

fn one(
    attack: &dyn Attack,
    model: &mut TensorModel,
    (rules, criterion): (&Rules, &RuleCriterion),
    (clean, label, salt): (&Pixels, u16, u64),
) -> Result<(Option<Candidate>, Spent, f64), Box<dyn Error>> {
    let started = Instant::now();
    let deadline = started + Duration::from_millis(u64::from(rules.deadline_ms));
    let mut metered = Metered::new(model, PASSES, Some(deadline));
    let context = Context::new(&mut metered, criterion, vec![Task { clean, label, salt }]).since(started, Instant::now);
    let found = attack::run(attack, context)?.pop().flatten();
    Ok((found, metered.spent(), started.elapsed().as_secs_f64() * 1e3))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, or: &str| arguments.get(i).cloned().unwrap_or_else(|| or.to_owned());
    let (name, folder) = (argument(0, "demo"), argument(1, "."));
    let (names, which) = (argument(2, "ours,apgd-ce,apgd-t,fmn,pgd,deepfool"), argument(3, "all"));
    perturb_model::set_threads(1);
    let mut model = TensorModel::new(Arc::from(perturb_model::open(&name, None, tch::Device::Cpu)?));
    let images = images(Path::new(&folder), &which)?;
    let attacks: Vec<Box<dyn Attack>> = names
        .split(',')
        .map(|name| attack::by_name(name, &Options::default()).ok_or_else(|| format!("unknown attack `{name}`")))
        .collect::<Result<_, _>>()?;
    for rules in [Rules::subnet(), Rules::whitepaper()] {
        let criterion = RuleCriterion::new(rules.clone());
        let mut sums: Vec<Sums> = attacks.iter().map(|_| Sums::default()).collect();
        for (i, clean) in images.iter().enumerate() {
            let logits = model.logits(&[clean])?.pop().unwrap_or_default();
            let label = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a))).unwrap_or(0);
            for (attack, sums) in attacks.iter().zip(&mut sums) {
                let task = (clean, label as u16, 1 + i as u64);
                let (found, spent, ms) = one(attack.as_ref(), &mut model, (&rules, &criterion), task)?;
                sums.add(&criterion, found.as_ref(), spent, ms);
            }
        }
        println!("{name}, {which}, {:?}", rules.preset);
        println!("attack        flips levels   changed gradients  forwards        time score");
        for (attack, sums) in attacks.iter().zip(&sums) {
            println!("{}", sums.line(attack.name(), images.len()));
            if arguments.get(4).is_some_and(|a| a == "each") {
                println!("           {}", sums.each.join(" "));
            }
        }
    }
    Ok(())
}
