//! Many seeds, one report; the first violation is shrunk.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::bug::Bug;
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::stats::Stats;
use crate::world::{Options, Outcome, World};

/// What to run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Validators at the beginning.
    pub founders: usize,
    /// The rule that is broken on purpose.
    pub bug: Bug,
    /// Threads.
    pub threads: usize,
}

/// A seed that broke a rule.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
}

impl Campaign {
    /// The plan of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        Plan {
            planted: self.bug.planted(),
            host_bug: self.bug.host_bug(),
            ledger_bug: self.bug.ledger_bug(),
            ..Plan::draw(seed, self.founders)
        }
    }

    /// Runs until the seeds are used up or a rule is broken. `progress` is told after each seed.
    pub fn run(&self, progress: impl Fn(u64) + Sync) -> (Stats, Option<Found>) {
        let next = AtomicU64::new(self.first);
        let end = self.first.saturating_add(self.seeds);
        let stop = AtomicBool::new(false);
        let total = Mutex::new((Stats::default(), None::<Found>));
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end {
                            return;
                        }
                        let outcome = run(self.plan(seed), Options::default());
                        let Ok(mut total) = total.lock() else { return };
                        total.0.add(&outcome.stats);
                        if let Some(violation) = outcome.violation {
                            stop.store(true, Ordering::Relaxed);
                            // Of several threads' findings the lowest seed is reported.
                            if total.1.as_ref().is_none_or(|f| seed < f.seed) {
                                total.1 = Some(Found { seed, violation });
                            }
                        }
                        progress(total.0.seeds);
                    }
                });
            }
        });
        total.into_inner().unwrap_or_default()
    }
}

/// One run of a plan.
pub fn run(plan: Plan, options: Options) -> Outcome {
    match World::new(plan, options) {
        Ok(world) => world.run(),
        Err(why) => Outcome {
            violation: Some(Violation { rule: "setup", what: why }),
            stats: Stats::default(),
            hash: String::new(),
            tail: Vec::new(),
            finality_ms: Vec::new(),
        },
    }
}

/// Takes away whatever the violation does not need: faults, liars, losses, clock skews. The rule
/// broken stays the same.
pub fn shrink(plan: Plan, rule: &str) -> Plan {
    let breaks = |plan: &Plan| run(plan.clone(), Options::default()).violation.is_some_and(|v| v.rule == rule);
    let mut best = plan;
    loop {
        let smaller = simpler(&best).into_iter().find(breaks);
        match smaller {
            Some(plan) => best = plan,
            None => return best,
        }
    }
}

/// All plans that are one step simpler.
fn simpler(plan: &Plan) -> Vec<Plan> {
    let mut out = Vec::new();
    for i in 0..plan.faults.len() {
        let mut faults = plan.faults.clone();
        faults.remove(i);
        out.push(Plan { faults, ..plan.clone() });
    }
    for i in 0..plan.liars.len() {
        let mut liars = plan.liars.clone();
        if liars[i].1.len() > 1 {
            for k in 0..liars[i].1.len() {
                let mut fewer = liars.clone();
                fewer[i].1.remove(k);
                out.push(Plan { liars: fewer, ..plan.clone() });
            }
        }
        liars.remove(i);
        out.push(Plan { liars, ..plan.clone() });
    }
    if plan.twin.is_some() {
        out.push(Plan { twin: None, ..plan.clone() });
    }
    if plan.wires.loss > 0 || plan.wires.twice > 0 || plan.wires.relay {
        let wires = crate::plan::Wires { loss: 0, twice: 0, relay: false, ..plan.wires.clone() };
        out.push(Plan { wires, ..plan.clone() });
    }
    if plan.skews.iter().any(|s| *s != 0) {
        out.push(Plan { skews: vec![0; plan.skews.len()], ..plan.clone() });
    }
    if plan.closes_ms.len() > 1 {
        out.push(Plan { closes_ms: plan.closes_ms[..1].to_vec(), ..plan.clone() });
    }
    out
}
