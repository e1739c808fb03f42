//! The report of a campaign, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::plan::Plan;
use crate::stats::Stats;

fn table(out: &mut String, title: &str, counts: &BTreeMap<&'static str, u64>) {
    let _ = writeln!(out, "{title}");
    for (what, count) in counts {
        let _ = writeln!(out, "  {count:>12}  {what}");
    }
}

/// The counts in words.
pub fn of(stats: &Stats, violations: u64, seconds: f64) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} seeds, {:.1} virtual hours, {} events, {} messages in {seconds:.0} s; violations: {violations}",
        stats.seeds,
        stats.virtual_ms as f64 / 3_600_000.0,
        stats.events,
        stats.messages,
    );
    let _ = writeln!(
        out,
        "{} heights (at least {} in a run), {} epochs closed, {} changes of the validator set, {} aggregates judged, {} spot checks failed, rounds drawn {}, spared {}, without a pulse {}",
        stats.heights,
        stats.least_heights,
        stats.epochs,
        stats.set_changes,
        stats.aggregates,
        stats.failed_checks,
        stats.draws[0],
        stats.draws[1],
        stats.draws[2]
    );
    let rounds: Vec<String> = stats
        .rounds_after_healing
        .iter()
        .enumerate()
        .filter(|(_, n)| **n > 0)
        .map(|(r, n)| format!("{r}: {n}"))
        .collect();
    let _ = writeln!(
        out,
        "after healing: heights by round {}; at most {} rounds beyond the highest then; everybody decided again within {} ms",
        rounds.join(", "),
        stats.most_rounds,
        stats.slowest_recovery_ms
    );
    table(&mut out, "faults that happened", &stats.faults);
    table(&mut out, "points at which nodes lost power", &stats.crash_points);
    table(&mut out, "runs in which a strategy played", &stats.liars);
    table(&mut out, "messages bent or added by each", &stats.lies);
    table(&mut out, "remedies", &stats.remedies);
    table(&mut out, "transactions agreed", &stats.transactions);
    out
}

/// A plan in words.
pub fn plan(plan: &Plan) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} founders, stakes {:?}{}, leaver {:?}, {:?}",
        plan.founders,
        plan.stakes,
        if plan.by_stake { " (power by stake)" } else { " (equal power)" },
        plan.leaver,
        plan.wires
    );
    let _ = writeln!(
        out,
        "clock skews {:?}, epochs close at {:?}, heals at {} ms",
        plan.skews, plan.closes_ms, plan.heal_ms
    );
    for (actor, kinds) in &plan.liars {
        let names: Vec<&str> = kinds.iter().map(|k| k.name()).collect();
        let _ = writeln!(out, "  liar {actor}: {}", names.join(", "));
    }
    if let Some(twin) = plan.twin {
        let _ = writeln!(out, "  twins of {twin}");
    }
    for fault in &plan.faults {
        let _ = writeln!(out, "  {} ms, for {} ms: {:?}", fault.at_ms, fault.for_ms, fault.what);
    }
    out
}
