//! A slice of the market: what strategies gain over honesty, and that its judge can fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use perturb_simulator::market::table::{Gain, campaign, measure, table};
use perturb_simulator::market::{Setting, play, scheme};

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn no_strategy_gains_more_than_its_bound_or_costs_an_honest_validator_standing() {
    let gains = campaign(scheme::ALL, 1, 2, threads()).unwrap();
    println!("{}", table(&gains));
    let broken: Vec<String> = gains.iter().filter_map(Gain::broken).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let forged: u64 = gains.iter().map(|g| g.forged.0).sum();
    assert!(forged > 100, "somebody forges: {forged} rounds");
}

#[test]
fn honest_miners_are_paid_by_their_skill() {
    let got = play(&Setting::usual(), 1).unwrap();
    assert!(got.shares.windows(2).all(|w| w[0] >= w[1]), "{:?}", got.shares);
    assert!((got.shares.iter().sum::<f64>() - 1e6).abs() < 1.0, "all of it is paid: {:?}", got.shares);
    assert!(got.standing.iter().all(|s| *s == 1_000_000));
}

#[test]
fn one_seed_gives_one_market() {
    let shares = |seed| play(&Setting::usual(), seed).unwrap().shares;
    assert_eq!(shares(3), shares(3));
}

#[test]
fn a_gain_above_its_bound_is_said() {
    let mut gain = measure(&scheme::ALL[0], 1, 1).unwrap();
    (gain.before, gain.after, gain.bound) = (3.0, 9.0, 5.9);
    assert!(gain.broken().is_some_and(|what| what.contains("gains 6.00 points")));
    (gain.bound, gain.least_standing) = (6.1, 999_999);
    assert!(gain.broken().is_some_and(|what| what.contains("standing")));
    (gain.least_standing, gain.outside) = (1_000_000, (1, 5));
    assert!(gain.broken().is_some_and(|what| what.contains("honest contributions")));
}
