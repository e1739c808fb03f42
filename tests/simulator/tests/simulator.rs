//! A slice of the simulator, and that its oracles can fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use perturb_simulator::bent::LedgerBug;
use perturb_simulator::bug::Bug;
use perturb_simulator::byzantine::Kind;
use perturb_simulator::campaign::{Campaign, run, shrink};
use perturb_simulator::cast::PROPOSAL_AGE_MS;
use perturb_simulator::plan::{Plan, Wires};
use perturb_simulator::report;
use perturb_simulator::world::Options;

fn campaign(first: u64, seeds: u64, founders: usize, bug: Bug) -> Campaign {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Campaign { first, seeds, founders, bug, threads }
}

#[test]
fn no_rule_is_broken_in_a_slice_of_seeds() {
    let began = Instant::now();
    let (stats, found) = campaign(1, 500, 4, Bug::None).run(|_| {});
    println!("{}", report::of(&stats, u64::from(found.is_some()), began.elapsed().as_secs_f64()));
    assert!(found.is_none(), "{found:?}");
    assert_eq!(stats.seeds, 500);
    assert!(stats.least_heights >= 20, "every run covers 20 heights, not {}", stats.least_heights);
    assert!(stats.epochs >= 500 && stats.set_changes >= 500, "every run closes an epoch and changes the set");
    assert!(stats.faults["crash"] >= 450, "crashes: {:?}", stats.faults);
    for kind in Kind::ALL {
        assert!(stats.liars.contains_key(kind.name()), "{} never played", kind.name());
    }
    assert!(stats.liars.contains_key("twins"));
}

#[test]
fn more_validators_keep_the_rules_too() {
    let (stats, found) = campaign(1, 12, 7, Bug::None).run(|_| {});
    assert!(found.is_none(), "{found:?}");
    assert!(stats.least_heights >= 20);
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in [3, 8] {
        let hash = || run(Plan::draw(seed, 4), Options::default()).hash;
        assert_eq!(hash(), hash());
    }
    assert_ne!(run(Plan::draw(3, 4), Options::default()).hash, run(Plan::draw(4, 4), Options::default()).hash);
}

#[test]
fn clocks_that_differ_by_more_than_the_age_bound_cost_rounds_and_not_the_network() {
    for seed in 1..=3 {
        let wires = Wires { base_ms: 20, jitter_ms: 60, loss: 0, twice: 0, relay: false };
        let skews = vec![-3_000, -1_500, 0, 3_000, 0];
        let spread = skews.iter().max().unwrap() - skews.iter().min().unwrap();
        assert!(spread > i64::from(PROPOSAL_AGE_MS) + 2_000, "more than age bound and drift together");
        let plan = Plan { skews, ..Plan::calm(seed, 4, wires) };
        let outcome = run(plan, Options { heights: Some(6), ..Options::default() });
        assert_eq!(outcome.violation, None);
        assert!(outcome.stats.most_rounds >= 1, "it costs rounds");
    }
}

/// The rule that a bug in everybody's ledger breaks. All nodes agree on what it does, so that no other rule
/// has anything to say.
fn rule(bug: LedgerBug) -> Option<&'static str> {
    match bug {
        LedgerBug::None => None,
        LedgerBug::KnownPulse | LedgerBug::ResultIgnored => Some("draws"),
        LedgerBug::UnknownShields | LedgerBug::OneAccuser => Some("checks"),
        LedgerBug::IdleStays | LedgerBug::OnlyTheBusiest => Some("work"),
        LedgerBug::UnboundAnswers => Some("rounds"),
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let (stats, found) = campaign(1, 400, 4, bug).run(|_| {});
        let found = found.unwrap_or_else(|| panic!("{bug:?} was not found in {} seeds", stats.seeds));
        println!("{bug:?}: found by \"{}\" after {} seeds (seed {})", found.violation.rule, stats.seeds, found.seed);
        let rule = rule(bug.ledger_bug()).unwrap_or(found.violation.rule);
        assert_eq!(found.violation.rule, rule, "{bug:?}: {}", found.violation.what);
    }
}

#[test]
fn a_violation_is_shrunk_to_what_it_needs() {
    let campaign = campaign(1, 50, 4, Bug::SkippedSync);
    let (_, found) = campaign.run(|_| {});
    let found = found.expect("a skipped sync shows at once");
    let plan = campaign.plan(found.seed);
    let small = shrink(plan, found.violation.rule);
    assert!(small.faults.is_empty() && small.liars.is_empty(), "{}", report::plan(&small));
    assert_eq!(run(small, Options::default()).violation.map(|v| v.rule), Some(found.violation.rule));
}
