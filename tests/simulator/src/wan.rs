//! How long a decision takes in a wide-area network, with the work of each node charged.
//!
//! No faults and no liars: validators in ten regions, everybody connected to everybody, messages
//! that take what the table says, and every step of a machine charged to virtual time with what it
//! really took on this machine (signatures, execution, encoding). A node is one core.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::campaign::run;
use crate::oracle::Violation;
use crate::plan::{Plan, Wires};
use crate::world::Options;

/// Regions and how many of a hundred validators stand there.
const REGIONS: [(&str, u32); 10] = [
    ("us-east", 25),
    ("us-west", 15),
    ("sa-east", 3),
    ("eu-west", 13),
    ("eu-central", 20),
    ("ap-south", 4),
    ("ap-northeast", 8),
    ("ap-southeast", 7),
    ("oceania", 4),
    ("af-south", 1),
];

/// Round trips between regions in milliseconds, rounded from public measurements between large
/// clouds; below the diagonal nothing is said twice.
const ROUND_TRIPS_MS: [[u64; 10]; 10] = [
    [2, 70, 115, 70, 92, 190, 150, 215, 200, 225],
    [0, 2, 178, 125, 142, 218, 98, 162, 140, 275],
    [0, 0, 2, 178, 200, 300, 256, 325, 312, 338],
    [0, 0, 0, 2, 26, 122, 202, 174, 256, 158],
    [0, 0, 0, 0, 2, 112, 225, 158, 290, 154],
    [0, 0, 0, 0, 0, 2, 122, 58, 146, 250],
    [0, 0, 0, 0, 0, 0, 2, 70, 104, 350],
    [0, 0, 0, 0, 0, 0, 0, 2, 93, 315],
    [0, 0, 0, 0, 0, 0, 0, 0, 2, 410],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
];

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Validators.
    pub validators: usize,
    /// Heights decided.
    pub heights: u64,
    /// From a proposal's making to its commit at a node, over all nodes and heights: median, nine of
    /// ten, the slowest.
    pub finality_ms: [u64; 3],
    /// Gossiped messages delivered per height, over all nodes and topics.
    pub messages_per_height: u64,
    /// Of these on the consensus topic.
    pub votes_per_height: u64,
    /// Transactions agreed.
    pub transactions: u64,
    /// Milliseconds of work charged per node and height.
    pub work_ms: f64,
}

/// The region of each validator: by weight, in a random order of the seed.
fn regions(rng: &mut ChaCha8Rng, actors: usize) -> Vec<usize> {
    let total: u32 = REGIONS.iter().map(|(_, w)| w).sum();
    (0..actors)
        .map(|_| {
            let mut at = rng.random_range(0..total);
            REGIONS
                .iter()
                .position(|(_, w)| {
                    let here = at < *w;
                    at = at.saturating_sub(*w);
                    here
                })
                .unwrap_or(0)
        })
        .collect()
}

/// Runs a network of `validators` for a number of heights.
///
/// # Errors
/// A rule was broken.
pub fn measure(seed: u64, validators: usize, heights: u64) -> Result<Report, Violation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let regions = regions(&mut rng, validators + 1);
    let one_way = |a: usize, b: usize| ROUND_TRIPS_MS[a.min(b)][a.max(b)] / 2;
    let table = regions.iter().map(|a| regions.iter().map(|b| one_way(*a, *b)).collect()).collect();
    let calm = Plan::calm(seed, validators, Wires { base_ms: 0, jitter_ms: 6, loss: 0, twice: 0, relay: false });
    let options = Options { table: Some(table), charged: true, heights: Some(heights), ..Options::default() };
    let outcome = run(calm, options);
    if let Some(violation) = outcome.violation {
        return Err(violation);
    }
    let mut finality = outcome.finality_ms;
    finality.sort_unstable();
    let at = |part: usize| finality.get((finality.len() * part / 10).min(finality.len().saturating_sub(1))).copied();
    let heights = outcome.stats.heights.max(1);
    Ok(Report {
        validators,
        heights,
        finality_ms: [at(5), at(9), at(10)].map(Option::unwrap_or_default),
        messages_per_height: outcome.stats.messages / heights,
        votes_per_height: outcome.stats.consensus_messages / heights,
        transactions: outcome.stats.transactions.values().sum(),
        work_ms: outcome.stats.charged_us as f64 / 1000.0 / heights as f64 / (validators + 1) as f64,
    })
}
