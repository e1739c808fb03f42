//! What a library of answers to a public image set is worth, beside our own attack run afresh:
//!
//! ```text
//! answers [SET] [ROUNDS] [KEPT] [MODEL] [CALL_US:FORWARD_US,…] [CROP:BRIGHTNESS:FIELD:CELLS …]
//! ```
//!
//! ROUNDS transforms of each image of SET come, which is a folder of PNGs or SEED:IMAGES of the demo set. The
//! library knows exactly which. For the very cut and side that came it has KEPT answers to other brightnesses and fields, and a change made for all of those; it has another
//! change made for every transform of the image. What it has of every other cut and side is counted in what the
//! library costs, and no time is spent on it here. Each is sent as it is, or gone on from. The last line knows the
//! answer to the very transform, which no library has: what there is to gain at all.
//!
//! Time is virtual, so the table is the same on every machine. Gains are over our attack afresh on the same
//! rounds; their standard error is that of the images' means, since rounds of one image are alike.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::rules::{Rules, TransformRules};
use perturb_challenge::source::{DemoSource, FolderSource, ImageSource};
use perturb_challenge::transform::Transform;
use perturb_miner::attack::ours::Ours;
use perturb_miner::metered::Spent;
use perturb_miner::model::{Model, ModelError};
use perturb_miner::tensor::TensorModel;

mod library;
mod machine;
mod play;
#[path = "../../src/attack/ours/shrink.rs"]
mod shrink;

use library::{Came, Change, DRAWS, PROBES, Robust, answers};
use machine::{Machine, NIGHT};
use play::{Alike, Outcome, Warm, attack, blind};

/// The table's lines.
const NAMES: [&str; 10] = [
    "afresh",
    "afresh, as those that go on",
    "kept answers, sent",
    "made for the cut, sent",
    "made for all, sent",
    "kept answers, gone on from",
    "answers a pixel off, gone on from",
    "made for the cut, gone on from",
    "made for all, gone on from",
    "the very answer, sent",
];

/// Kept answers that are tried.
const TRIED: usize = 4;

/// Secrets of a library's own draws, 24 steps' and the probes; rounds take others.
const OWN: Range<u64> = 1 << 50..(1 << 50) + 24 * DRAWS + PROBES;

/// One image's outcomes, by machine, line and round.
type Rounds = Vec<Vec<Vec<Outcome>>>;

/// What is measured.
struct Bench {
    rules: Rules,
    rounds: u64,
    kept: u64,
    own: Range<u64>,
    machines: Vec<Machine>,
    /// Passes of: the answers of a cut, the change made for a cut, and the one made for all; mean and count.
    cost: [(f64, u64); 3],
}

impl Bench {
    fn paid(&mut self, which: usize, spent: Spent) {
        self.cost[which].0 += (spent.forwards + 2 * spent.backwards) as f64;
        self.cost[which].1 += 1;
    }

    /// Everything against all rounds of one image.
    fn image(&mut self, model: &mut dyn Model, source: &Pixels, number: u64) -> Result<Rounds, ModelError> {
        let rules = self.rules.clone();
        let (all, spent) = Robust::make(model, (&rules, source), None, self.own.clone())?;
        self.paid(2, spent);
        let mut out: Rounds = vec![vec![Vec::new(); NAMES.len()]; self.machines.len()];
        for round in 0..self.rounds {
            let came = Came::new(model, (&rules, source), None, (number << 20) + round)?;
            let like = Some(&came.transform);
            let (cut, spent) = Robust::make(model, (&rules, source), like, self.own.clone())?;
            self.paid(1, spent);
            let near = Transform {
                left: beside(came.transform.left, came.transform.crop),
                top: beside(came.transform.top, came.transform.crop),
                ..came.transform.clone()
            };
            let secrets = self.own.start..self.own.start + self.kept;
            let (kept, spent) = answers(model, (&rules, source), (&came, &came.transform), secrets.clone())?;
            self.paid(0, spent);
            let off = answers(model, (&rules, source), (&came, &near), secrets)?.0;
            let sent = [kept.first().map(|c| c.on(&came, 1000)), cut.sent(&came), all.sent(&came)];
            let very = attack(model, NIGHT, &rules, &came, &Ours::default())?.1;
            let mut blinds = Vec::new();
            for image in sent.into_iter().chain([very]) {
                blinds.push(match image {
                    Some(image) => blind(model, &rules, &came, image)?,
                    None => Outcome::default(),
                });
            }
            let whole = |kept| Vec::from_iter(Iterator::zip(<[Change]>::iter(kept), [1000; TRIED]));
            let first = [whole(&kept), whole(&off), cut.first(), all.first()];
            let alike = Alike { came: &came, values: source.rgb.len() };
            for (machine, lines) in self.machines.iter().zip(&mut out) {
                lines[0].push(attack(model, *machine, &rules, &came, &Ours::default())?.0);
                lines[1].push(attack(model, *machine, &rules, &came, &alike)?.0);
                for (line, blind) in [2, 3, 4, 9].into_iter().zip(&blinds) {
                    lines[line].push(*blind);
                }
                for (line, first) in (5..).zip(&first) {
                    let warm = Warm { came: &came, first: first.clone() };
                    lines[line].push(attack(model, *machine, &rules, &came, &warm)?.0);
                }
            }
        }
        Ok(out)
    }

    /// What the whole library of an image costs, beside an answer made afresh.
    fn print_cost(&self, values: usize, afresh: f64) {
        let TransformRules { flip, crop, brightness, field, cells } = self.rules.transform;
        let cuts = (1 + u64::from(flip)) as f64 * (f64::from(crop) + 1.0).powi(2);
        println!(
            "\ncrop {crop}, brightness ±{brightness}, field ±{field} in {cells}×{cells} cells: {cuts} cuts and sides"
        );
        let names = ["kept answers", "made for the cut", "made for all"];
        let (many, bytes) = ([cuts, cuts, 1.0], [values * self.kept as usize / 4, values, values]);
        for (which, name) in names.iter().enumerate() {
            let passes = self.cost[which].0 / self.cost[which].1.max(1) as f64 * many[which];
            println!(
                "{name:<18} {passes:>10.0} passes an image, as many as {:.0} answers afresh; {:.1} MB",
                passes / afresh,
                bytes[which] as f64 * many[which] / 1e6
            );
        }
    }
}

/// The offset next to one, of those that `crop` allows.
fn beside(offset: u16, crop: u16) -> u16 {
    offset.checked_sub(1).unwrap_or(crop.min(1))
}

fn mean(x: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = x.fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
    sum / f64::max(n, 1.0)
}

/// Mean and standard error of images' means.
fn spread(images: &[f64]) -> (f64, f64) {
    let (n, m) = (images.len() as f64, mean(images.iter().copied()));
    let squares: f64 = images.iter().map(|x| (x - m).powi(2)).sum();
    (m, (squares / (n - 1.0).max(1.0) / n.max(1.0)).sqrt())
}

/// A line's gain over our attack afresh, and its standard error.
fn gain(images: &[Rounds], machine: usize, line: usize) -> (f64, f64) {
    let score = |image: &Rounds, line: usize| mean(image[machine][line].iter().map(|o| o.score));
    spread(&images.iter().map(|image| score(image, line) - score(image, 0)).collect::<Vec<_>>())
}

fn print(images: &[Rounds], machine: usize) {
    println!("                                    flips  level changed  passes      ms   score     gain");
    for (line, name) in NAMES.iter().enumerate() {
        let of = |image: &Rounds, f: &dyn Fn(&Outcome) -> f64| mean(image[machine][line].iter().map(f));
        let all = |f: &dyn Fn(&Outcome) -> f64| mean(images.iter().map(|image| of(image, f)));
        let flips = all(&|o| f64::from(u8::from(o.level > 0)));
        let (gain, error) = gain(images, machine, line);
        println!(
            "{name:<34} {:>5.1}% {:>6.2} {:>6.2}% {:>7.1} {:>7.0} {:>7.4} {gain:>+8.4} ± {error:.4}",
            100.0 * flips,
            all(&|o| f64::from(o.level)) / flips.max(1e-9),
            100.0 * all(&|o| o.changed) / flips.max(1e-9),
            all(&|o| o.passes),
            all(&|o| o.ms),
            all(&|o| o.score),
        );
    }
}

fn numbers<const N: usize>(text: &str) -> Result<[u64; N], Box<dyn Error>> {
    let all = text.split(':').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    all.try_into().map_err(|_| format!("`{text}`: not {N} numbers").into())
}

fn transform(text: &str) -> Result<TransformRules, Box<dyn Error>> {
    let [crop, brightness, field, cells] = numbers(text)?;
    let (brightness, field, cells) = (brightness.try_into()?, field.try_into()?, cells.try_into()?);
    Ok(TransformRules { flip: true, crop: crop.try_into()?, brightness, field, cells })
}

/// The demo set of `SEED:IMAGES`, or a folder of PNGs.
fn set(text: &str) -> Result<Box<dyn ImageSource>, Box<dyn Error>> {
    Ok(match numbers(text) {
        Ok([seed, len]) => Box::new(DemoSource::new(seed, len)),
        Err(_) => Box::new(FolderSource::open(text.as_ref(), PngLimits::default())?),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, or: &str| arguments.get(i).cloned().unwrap_or_else(|| or.to_owned());
    let set = set(&argument(0, "11:20"))?;
    let (rounds, kept) = (argument(1, "5").parse()?, argument(2, "8").parse()?);
    perturb_model::set_threads(1);
    let mut model = TensorModel::new(Arc::from(perturb_model::open(&argument(3, "demo"), None, tch::Device::Cpu)?));
    // About what a residual network costs on one core, and on an accelerator, where a batch is nearly free.
    let machines = argument(4, "1000:30000,6000:300")
        .split(',')
        .map(|text| numbers(text).map(|[call_us, forward_us]| Machine { call_us, forward_us }))
        .collect::<Result<Vec<_>, _>>()?;
    let mut transforms = arguments.iter().skip(5).map(|text| transform(text)).collect::<Result<Vec<_>, _>>()?;
    if transforms.is_empty() {
        transforms.push(Rules::subnet().transform);
    }
    for transform in transforms {
        let rules = Rules { transform, ..Rules::subnet() };
        rules.validate()?;
        let mut bench = Bench { rules, rounds, kept, own: OWN, machines: machines.clone(), cost: Default::default() };
        let (mut images, mut values) = (Vec::new(), 0);
        for number in 0..set.len() {
            let source = set.get(number)?.pixels;
            values = source.rgb.len();
            images.push(bench.image(&mut model, &source, number)?);
        }
        let afresh = mean(images.iter().flat_map(|image| &image[0][0]).map(|o| o.passes));
        bench.print_cost(values, afresh);
        for (machine, Machine { call_us, forward_us }) in machines.iter().enumerate() {
            println!("\n{call_us} µs a call and {forward_us} µs a pass");
            print(&images, machine);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Gains of all lines over our attack afresh where a batch is nearly free, on a few images of the demo set.
    fn gains(transform: TransformRules, images: u64) -> Vec<f64> {
        perturb_model::set_threads(1);
        let mut model = TensorModel::new(Arc::from(perturb_model::open("demo", None, tch::Device::Cpu).unwrap()));
        let rules = Rules { transform, ..Rules::subnet() };
        let machines = vec![Machine { call_us: 6000, forward_us: 300 }];
        let own = OWN.start..OWN.start + 8 * DRAWS + PROBES;
        let mut bench = Bench { rules, rounds: 1, kept: 4, own, machines, cost: Default::default() };
        let set = DemoSource::new(11, images);
        let played: Vec<Rounds> =
            (0..images).map(|i| bench.image(&mut model, &set.get(i).unwrap().pixels, i).unwrap()).collect();
        (0..NAMES.len()).map(|line| gain(&played, 0, line).0).collect()
    }

    #[test]
    fn a_library_gains_nothing_over_our_attack_afresh() {
        let gains = gains(Rules::subnet().transform, 3);
        for line in 2..NAMES.len() - 1 {
            assert!(gains[line] < 0.003, "{}: {gains:?}", NAMES[line]);
        }
        assert!(gains[2..5].iter().all(|g| *g < -0.1), "what is sent unseen flips too seldom: {gains:?}");
    }

    /// The measure sees a library that pays.
    #[test]
    fn where_a_mirror_is_all_that_changes_a_library_gains() {
        let gains = gains(transform("0:0:0:0").unwrap(), 1);
        assert!(gains[2] > 0.0, "{gains:?}");
    }
}
