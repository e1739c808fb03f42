//! Every strategy: who plays it, what it needs, and the most that it may gain.
//!
//! A gain is the share of the emission (in percentage points) that goes to the schemers' miners above
//! what they get in the same market with everybody honest. Ranks pay in steps (70, 25, 3, 1.5, 0.5 %
//! under the subnet's rules), so that a small difference between two miners can be worth a rank: the
//! bounds are bounds on that.

use super::{Aim, Conduct, Member, Miner, Setting};

/// A strategy.
#[derive(Clone, Copy, Debug)]
pub struct Scheme {
    /// Its name.
    pub name: &'static str,
    /// What it costs whoever plays it.
    pub cost: &'static str,
    /// The most that it may gain over honesty, percentage points of the emission, on the mean of seeds.
    pub bound: f64,
    build: fn() -> Played,
}

/// A market with a strategy, beside the same market without.
#[derive(Clone, Debug)]
pub struct Played {
    /// Everybody honest.
    pub honest: Setting,
    /// With the strategy.
    pub scheming: Setting,
    /// The schemers' miners, by index in `scheming`.
    pub miners: Vec<usize>,
    /// The schemers' validators.
    pub validators: Vec<usize>,
}

impl Played {
    /// The schemers' part of the power, in percent.
    pub fn power(&self) -> f64 {
        let stake = |v: &Member| v.stake as f64;
        let total: f64 = self.scheming.validators.iter().map(stake).sum();
        self.validators.iter().map(|v| stake(&self.scheming.validators[*v])).sum::<f64>() / total * 100.0
    }
}

impl Scheme {
    /// The markets.
    pub fn build(&self) -> Played {
        (self.build)()
    }
}

/// A market in which one miner has another aim.
fn aimed(miner: usize, aim: Aim) -> Played {
    let honest = Setting::usual();
    let mut scheming = honest.clone();
    scheming.miners[miner].aim = aim;
    Played { honest, scheming, miners: vec![miner], validators: Vec::new() }
}

/// A market in which some validators behave otherwise, for the third best miner.
fn conducted(count: usize, conduct: impl Fn(usize) -> Conduct) -> Played {
    let honest = Setting::usual();
    let mut scheming = honest.clone();
    for member in scheming.validators.iter_mut().take(count) {
        member.conduct = conduct(THEIRS);
    }
    Played { honest, scheming, miners: vec![THEIRS], validators: (0..count).collect() }
}

/// The schemers' miner: the third best, so that there is something to gain and something to lose.
const THEIRS: usize = 2;

/// All strategies of the table, in its order.
pub const ALL: &[Scheme] = &[
    Scheme {
        name: "a miner skips a third of the validators",
        cost: "saves a third of its work",
        bound: 0.5,
        build: || aimed(THEIRS, Aim::Skips(vec![7, 8, 9])),
    },
    Scheme {
        name: "a miner sets one validator apart, epoch by epoch",
        cost: "its answers to the target",
        bound: 0.5,
        build: || aimed(THEIRS, Aim::Targets { spares: vec![0, 1] }),
    },
    Scheme { name: "a miner answers late", cost: "nothing", bound: 0.0, build: || aimed(THEIRS, Aim::Late) },
    Scheme { name: "a miner hands in garbage", cost: "nothing", bound: 0.0, build: || aimed(THEIRS, Aim::Garbage) },
    Scheme {
        name: "a miner makes wrong classes tie",
        cost: "passes of the model",
        bound: 0.5,
        build: || aimed(THEIRS, Aim::Ties),
    },
    Scheme { name: "a miner registers three hotkeys more", cost: "three registrations", bound: 100.0, build: sybil },
    Scheme {
        name: "a validator favours its miner",
        cost: "nothing",
        bound: 1.0,
        build: || conducted(1, Conduct::Favours),
    },
    Scheme {
        name: "three of ten validators favour a miner",
        cost: "nothing",
        bound: 5.0,
        build: || conducted(3, Conduct::Favours),
    },
    Scheme {
        name: "a validator previews its images to its miner",
        cost: "nothing",
        bound: 1.0,
        build: || conducted(1, Conduct::Previews),
    },
    Scheme {
        name: "three of ten preview theirs",
        cost: "nothing",
        bound: 5.0,
        build: || conducted(3, Conduct::Previews),
    },
    Scheme {
        name: "a validator forges every fifth round",
        cost: "its standing",
        bound: 1.0,
        build: || conducted(1, |own| Conduct::Forges { own, rate: 200_000 }),
    },
    Scheme {
        name: "three of ten forge every round",
        cost: "their standing",
        bound: 5.0,
        build: || conducted(3, |own| Conduct::Forges { own, rate: 1_000_000 }),
    },
    Scheme {
        name: "three of ten vote and do not work",
        cost: "nothing",
        bound: 0.5,
        build: || conducted(3, |_| Conduct::Lazy),
    },
];

/// The third best miner takes three more places with answers of its own.
fn sybil() -> Played {
    let honest = Setting::usual();
    let mut scheming = honest.clone();
    let first = scheming.miners.len();
    scheming.miners.extend((0..3).map(|_| Miner::of_rank(THEIRS as u32)));
    let miners = std::iter::once(THEIRS).chain(first..first + 3).collect();
    Played { honest, scheming, miners, validators: Vec::new() }
}
