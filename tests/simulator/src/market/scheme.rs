//! Every strategy: who plays it, what it needs, and the most that it may gain.
//!
//! A gain is the share of the emission (in percentage points) that goes to the schemers' miners above
//! what they get in the same market with everybody honest. Ranks pay in steps (70, 25, 3, 1.5, 0.5 %
//! under the subnet's rules), so that a small difference between two miners can be worth a rank: the
//! bounds are bounds on that.

use super::{Aim, Conduct, Member, Miner, Setting};

/// What the second rank is worth to the third best miner, and what the first. An aggregate within the
/// honest contributions is all that the rules promise: where two miners' honest contributions overlap,
/// liars can choose which of the two comes first.
const SECOND: f64 = 22.0;
const FIRST: f64 = 67.0;

/// All that the third best miner does not have anyway: where a third is dropped as idle, liars that were
/// under a third of the power are over it, and the rules promise nothing.
const THE_REST: f64 = 97.0;

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
        self.validators.iter().fold(0.0, |sum, v| sum + stake(&self.scheming.validators[*v])) / total * 100.0
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
    among(Setting::usual(), 0..count, conduct)
}

/// In another market, some validators that behave otherwise.
fn among(honest: Setting, who: std::ops::Range<usize>, conduct: impl Fn(usize) -> Conduct) -> Played {
    let mut scheming = honest.clone();
    scheming.validators[who.clone()].iter_mut().for_each(|member| member.conduct = conduct(THEIRS));
    Played { honest, scheming, miners: vec![THEIRS], validators: who.collect() }
}

/// A market whose miners differ by a tenth of what they usually do: less than two validators' means of one
/// miner may.
fn close_race() -> Setting {
    let mut setting = Setting::usual();
    for (rank, miner) in (0..).zip(&mut setting.miners) {
        (miner.changed, miner.time_ms) = (60 + 6 * rank, 1500 + 90 * rank);
    }
    setting
}

/// A market in which a third of the power, less a thousandth of it, keeps still in one way, and of the
/// seven equal others some behave otherwise.
fn beside(mut honest: Setting, third: Conduct, count: usize, conduct: impl Fn(usize) -> Conduct) -> Played {
    honest.validators[..3].iter_mut().for_each(|member| member.stake = 1162);
    let mut played = among(honest, 3..3 + count, conduct);
    played.scheming.validators[..3].iter_mut().for_each(|member| member.conduct = third);
    played.validators.extend(0..3);
    played
}

/// A market in which a third of all rounds is checked.
fn much_checked() -> Setting {
    Setting { check_rate: 300_000, ..Setting::usual() }
}

/// The third best miner takes three more places with answers of its own.
fn sybil() -> Played {
    let honest = Setting::usual();
    let mut scheming = honest.clone();
    let first = scheming.miners.len();
    scheming.miners.extend((0..3).map(|_| Miner::of_rank(THEIRS as u32)));
    let miners = std::iter::once(THEIRS).chain(first..first + 3).collect();
    Played { honest, scheming, miners, validators: Vec::new() }
}

/// The schemers' miner: the third best, so that there is something to gain and something to lose.
const THEIRS: usize = 2;

/// The best miner.
const BEST: usize = 0;

/// What [`Aim::Swaps`] would be worth if miners showed their answers before they are bound: no strategy,
/// since nobody can play it, but it shows that the market would see the gain.
pub const FORESIGHT: Scheme = Scheme {
    name: "a miner knows the best one's answers beforehand",
    cost: "what is impossible",
    bound: 0.0,
    build: || aimed(THEIRS, Aim::Foresees(BEST)),
};

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
    Scheme {
        name: "a miner answers at the deadline's edge",
        cost: "the passes of all that time",
        bound: 0.0,
        build: || aimed(THEIRS, Aim::Edge),
    },
    Scheme { name: "a miner hands in garbage", cost: "nothing", bound: 0.0, build: || aimed(THEIRS, Aim::Garbage) },
    Scheme {
        name: "a miner pads its answers beyond what is read",
        cost: "bytes",
        bound: 0.0,
        build: || aimed(THEIRS, Aim::Pads((0..10).collect())),
    },
    Scheme {
        name: "a miner pads them for a third of the validators",
        cost: "bytes",
        bound: 0.5,
        build: || aimed(THEIRS, Aim::Pads(vec![7, 8, 9])),
    },
    Scheme {
        name: "a miner makes wrong classes tie",
        cost: "passes of the model",
        bound: 0.5,
        build: || aimed(THEIRS, Aim::Ties),
    },
    Scheme {
        name: "a miner repeats the best one's commitments",
        cost: "saves its work",
        bound: 0.0,
        build: || aimed(THEIRS, Aim::Repeats(BEST)),
    },
    Scheme {
        name: "a miner swaps its answers for the best one's",
        cost: "nothing",
        bound: 0.0,
        build: || aimed(THEIRS, Aim::Swaps(BEST)),
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
        name: "a validator asks others about another's images",
        cost: "its images",
        bound: 1.0,
        build: || conducted(1, Conduct::Proxies),
    },
    Scheme {
        name: "three of ten ask others about others' images",
        cost: "their images",
        bound: 5.0,
        build: || conducted(3, Conduct::Proxies),
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
    Scheme {
        name: "three of ten say that every checked round fails",
        cost: "a line on the record each time",
        bound: 0.5,
        build: || among(much_checked(), 0..3, |_| Conduct::Accuses),
    },
    Scheme {
        name: "a third contributes nothing",
        cost: "nothing",
        bound: 0.5,
        build: || beside(Setting::usual(), Conduct::Absent, 0, |_| Conduct::Honest),
    },
    Scheme {
        name: "… beside one that favours its miner",
        cost: "nothing",
        bound: 1.0,
        build: || beside(Setting::usual(), Conduct::Absent, 1, Conduct::Favours),
    },
    Scheme {
        name: "… beside three that favour a miner",
        cost: "nothing",
        bound: 5.0,
        build: || beside(Setting::usual(), Conduct::Absent, 3, Conduct::Favours),
    },
    Scheme {
        name: "… beside three that forge every round",
        cost: "nothing",
        bound: 5.0,
        build: || beside(Setting::usual(), Conduct::Absent, 3, |own| Conduct::Forges { own, rate: 1_000_000 }),
    },
    Scheme {
        name: "three of ten favour a miner in a close race",
        cost: "nothing",
        bound: SECOND,
        build: || among(close_race(), 0..3, Conduct::Favours),
    },
    Scheme {
        name: "… beside a third that contributes nothing",
        cost: "nothing",
        bound: FIRST,
        build: || beside(close_race(), Conduct::Absent, 3, Conduct::Favours),
    },
    Scheme {
        name: "a third is dropped as idle, and three favour",
        cost: "nothing",
        bound: THE_REST,
        build: || beside(Setting::usual(), Conduct::Lazy, 3, Conduct::Favours),
    },
];
