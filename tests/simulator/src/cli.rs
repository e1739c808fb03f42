//! The command line.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::bug::Bug;
use crate::campaign::{Campaign, Found, run, shrink};
use crate::market::{forged, scheme, table};
use crate::report;
use crate::wan;
use crate::world::Options;

/// Simulates a network of validators, seed by seed, and stops at the first rule that is broken.
#[derive(Parser)]
#[command(name = "perturb-simulate")]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// One seed alone, run twice: both runs must have one trace.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Validators at the beginning; one more joins.
    #[arg(long, short, default_value_t = 4)]
    n: usize,
    /// Threads; all cores where nothing is said.
    #[arg(long)]
    threads: Option<usize>,
    /// Measure the time to a decision over a wide-area network instead.
    #[arg(long, conflicts_with = "seed")]
    wan: bool,
    /// Heights to measure.
    #[arg(long, default_value_t = 30)]
    heights: u64,
    /// Play the strategies of miners and validators against honesty, and print what each gains.
    #[arg(long, conflicts_with_all = ["seed", "wan"])]
    gains: bool,
    /// Forged rounds to play after them: how many are found.
    #[arg(long, default_value_t = 20_000)]
    forged: u64,
    /// Break a rule on purpose.
    #[arg(long, value_enum, default_value_t)]
    bug: Bug,
}

/// Parses the arguments and does what they say: 0 where no rule was broken, 1 where one was.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if !(4..=250).contains(&args.n) {
        eprintln!("--n {}: 4 to 250 validators can be simulated", args.n);
        return ExitCode::from(2);
    }
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    if args.wan {
        return wide(args.first, args.n, args.heights);
    }
    if args.gains {
        return gains(&args, threads);
    }
    let campaign = Campaign { first: args.first, seeds: args.seeds, founders: args.n, bug: args.bug, threads };
    match args.seed {
        Some(seed) => one(&campaign, seed, args.trace),
        None => many(&campaign),
    }
}

fn wide(seed: u64, validators: usize, heights: u64) -> ExitCode {
    match wan::measure(seed, validators, heights) {
        Ok(r) => {
            let [median, most, slowest] = r.finality_ms;
            println!(
                "{} validators, {} heights: final after {median} ms (median), {most} ms (nine of ten), {slowest} ms (slowest)",
                r.validators, r.heights
            );
            println!(
                "per height: {} messages delivered in all, {} of them votes and proposals; {:.1} ms of work per node; {} transactions agreed",
                r.messages_per_height, r.votes_per_height, r.work_ms, r.transactions
            );
            ExitCode::SUCCESS
        }
        Err(v) => {
            println!("violation of \"{}\": {}", v.rule, v.what);
            ExitCode::FAILURE
        }
    }
}

fn gains(args: &Args, threads: usize) -> ExitCode {
    let gains = table::campaign(scheme::ALL, args.first, args.seeds, threads);
    let played = gains.and_then(|gains| Ok((gains, forged::play(args.forged, args.first)?)));
    match played {
        Ok((gains, forged)) => {
            println!("{}\n{}", table::table(&gains), forged.text());
            let broken: Vec<String> = gains.iter().flat_map(table::Gain::broken).chain(forged.broken()).collect();
            broken.iter().for_each(|what| println!("broken: {what}"));
            if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(fault) => {
            println!("the market cannot be played: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn one(campaign: &Campaign, seed: u64, print: bool) -> ExitCode {
    let plan = campaign.plan(seed);
    print!("seed {seed}: {}", report::plan(&plan));
    let first = run(plan.clone(), Options { print, ..Options::default() });
    let second = run(plan, Options::default());
    println!("{}", report::of(&first.stats, u64::from(first.violation.is_some()), 0.0));
    println!("trace {} and again {}", first.hash, second.hash);
    if first.hash != second.hash {
        println!("the two runs differ: something is not deterministic");
        return ExitCode::FAILURE;
    }
    match first.violation {
        Some(v) => {
            println!("violation of \"{}\": {}", v.rule, v.what);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(campaign: &Campaign) -> ExitCode {
    let began = Instant::now();
    let every = (campaign.seeds / 20).max(1);
    let (stats, found) = campaign.run(|done| {
        if done % every == 0 {
            eprintln!("{done} of {} seeds, {:.0} s", campaign.seeds, began.elapsed().as_secs_f64());
        }
    });
    print!("{}", report::of(&stats, u64::from(found.is_some()), began.elapsed().as_secs_f64()));
    let Some(Found { seed, violation }) = found else { return ExitCode::SUCCESS };
    println!("\nseed {seed} violates \"{}\": {}", violation.rule, violation.what);
    println!("shrinking ...");
    let small = shrink(campaign.plan(seed), violation.rule);
    println!("what it needs:\n{}", report::plan(&small));
    let again = run(small, Options { text: true, ..Options::default() });
    for line in &again.tail {
        println!("  {line}");
    }
    if let Some(v) = again.violation {
        println!("violation of \"{}\": {}", v.rule, v.what);
    }
    println!("replay the whole of it: make simulate N={} SEED={seed} TRACE=1", campaign.founders);
    ExitCode::FAILURE
}
