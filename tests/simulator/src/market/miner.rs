//! Miners with aims of their own.
//!
//! An answer is what its validator measures, and the digest of its bytes: nothing of a classifier is
//! played. How good it is follows from the miner's skill, the image's difficulty and chance.

use perturb_types::{Digest, RoundId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What a miner is after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    /// It answers everybody as well as it can.
    #[default]
    Honest,
    /// It answers none of these validators, and saves the work.
    Skips(Vec<usize>),
    /// It answers one validator badly and all others well, to set that one apart; the target moves on
    /// with each epoch. Other validators may be spared for good.
    Targets {
        /// Never a target.
        spares: Vec<usize>,
    },
    /// It answers when most of the time is over.
    Late,
    /// It searches until the deadline and changes half as many values for it; every other answer is too
    /// late by some milliseconds.
    Edge,
    /// It hands in garbage: bytes that decode to nothing.
    Garbage,
    /// It pads its answers to these validators beyond what is read of one: they have its commitment, and
    /// nothing behind it.
    Pads(Vec<usize>),
    /// It answers so that two wrong classes tie.
    Ties,
    /// It signs the commitment that another miner made, and hands in that one's bytes when it has seen
    /// them.
    Repeats(usize),
    /// It binds itself to its own answer, and hands in another miner's with one value changed when it has
    /// seen it.
    Swaps(usize),
    /// It binds itself to another miner's answer with one value changed. Nobody can, as long as miners show
    /// nothing before commitments are agreed: this is what [`Aim::Swaps`] would be worth otherwise.
    Foresees(usize),
}

/// An image that a round asks about.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Of the bytes that the miners get.
    pub digest: Digest,
    /// How many times the usual number of values must change, in thousandths.
    pub difficulty: u32,
}

/// What miners are asked by one validator.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The round.
    pub round: RoundId,
    /// Its image.
    pub image: Image,
    /// Its validator.
    pub validator: usize,
    /// The epoch.
    pub epoch: u64,
    /// Validators that there are.
    pub members: usize,
    /// Milliseconds until the deadline.
    pub deadline_ms: u32,
}

/// What a miner hands to one validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The largest change in 8-bit levels.
    pub level: u8,
    /// Channel values changed.
    pub changed: u32,
    /// From the challenge's arrival to the commitment, milliseconds.
    pub time_ms: u32,
    /// Whether it decodes at all.
    pub decodes: bool,
    /// Whether another wrong class is as good as the best.
    pub tied: bool,
    /// Whether a picture follows its commitment, of a length that is read.
    pub shown: bool,
    /// Digest of the picture.
    pub bytes: Digest,
    /// The miner that the signed commitment names: nobody else can show what fits.
    pub bound_as: usize,
}

impl Given {
    /// A miner's own answer in a round, at the best level.
    pub fn of(miner: usize, round: &RoundId, changed: u32, time_ms: u32) -> Self {
        let bytes = Digest::of(format!("{round} {miner}").as_bytes());
        Self { level: 1, changed, time_ms, decodes: true, tied: false, shown: true, bytes, bound_as: miner }
    }

    /// Whether this miner shows the picture that it is bound to.
    pub fn fits(&self, miner: usize) -> bool {
        self.shown && self.bound_as == miner
    }

    /// The same with one value changed, as another miner's.
    pub fn altered(self, by: usize) -> Self {
        let bytes = Digest::of(format!("{} {by}", self.bytes).as_bytes());
        Self { changed: self.changed + 1, bytes, bound_as: by, ..self }
    }
}

/// One miner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miner {
    /// Channel values that it changes on an image of usual difficulty: fewer is better.
    pub changed: u32,
    /// Milliseconds that it needs, about.
    pub time_ms: u32,
    /// What it is after.
    pub aim: Aim,
}

impl Miner {
    /// An honest miner of a rank: 0 is the best.
    pub fn of_rank(rank: u32) -> Self {
        Self { changed: 60 + 60 * rank, time_ms: 1500 + 900 * rank, aim: Aim::Honest }
    }

    /// The same with another aim.
    #[must_use]
    pub fn aiming(self, aim: Aim) -> Self {
        Self { aim, ..self }
    }

    /// What it hands in of its own.
    fn answer(&self, me: usize, asked: &Asked, rng: &mut ChaCha8Rng) -> Option<Given> {
        let difficulty = u64::from(asked.image.difficulty);
        let changed = u64::from(self.changed) * difficulty * rng.random_range(800..1200) / 1_000_000;
        let time_ms = self.time_ms * rng.random_range(800..1200) / 1000;
        let given = Given::of(me, &asked.round, (changed as u32).max(1), time_ms);
        match &self.aim {
            Aim::Skips(whom) if whom.contains(&asked.validator) => None,
            Aim::Targets { spares } => {
                let targets: Vec<usize> = (0..asked.members).filter(|v| !spares.contains(v)).collect();
                let target = targets.get(asked.epoch as usize % targets.len().max(1));
                (target != Some(&asked.validator)).then_some(given)
            }
            Aim::Late => Some(Given { time_ms: asked.deadline_ms * 19 / 20, ..given }),
            Aim::Edge => {
                let time_ms = asked.deadline_ms + given.time_ms % 2;
                Some(Given { changed: given.changed / 2 + 1, time_ms, ..given })
            }
            Aim::Garbage => Some(Given { decodes: false, ..given }),
            Aim::Pads(whom) => Some(Given { shown: !whom.contains(&asked.validator), ..given }),
            Aim::Ties => Some(Given { tied: true, ..given }),
            _ => Some(given),
        }
    }
}

/// What all miners hand to one validator in time, in their order.
pub fn answers(miners: &[Miner], asked: &Asked, rng: &mut ChaCha8Rng) -> Vec<Option<Given>> {
    let own: Vec<Option<Given>> = miners.iter().enumerate().map(|(i, m)| m.answer(i, asked, rng)).collect();
    let bound = |(i, miner): (usize, &Miner)| match miner.aim {
        Aim::Repeats(whom) => own[whom],
        Aim::Foresees(whom) => own[whom].map(|given| given.altered(i)),
        _ => own[i],
    };
    miners.iter().enumerate().map(bound).collect()
}

/// What miners would rather have handed in once they have seen all answers of the round: who, and what.
pub fn regrets(miners: &[Miner], given: &[Option<Given>]) -> Vec<(usize, Given)> {
    let rather = |(i, miner): (usize, &Miner)| match miner.aim {
        Aim::Repeats(whom) => given[whom].map(|given| (i, Given { bound_as: i, ..given })),
        Aim::Swaps(whom) => given[whom].map(|given| (i, given.altered(i))),
        _ => None,
    };
    miners.iter().enumerate().filter_map(rather).collect()
}
