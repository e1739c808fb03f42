//! Miners with aims of their own.
//!
//! An answer is what its validator measures: nothing of a classifier is played. How good it is follows
//! from the miner's skill, the image's difficulty and chance.

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
    /// It answers at the last moment.
    Late,
    /// It hands in garbage of any length: bytes that decode to nothing.
    Garbage,
    /// It answers so that two wrong classes tie.
    Ties,
}

/// An image that a round asks about.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// How many times the usual number of values must change, in thousandths.
    pub difficulty: u32,
}

/// What a miner hands to one validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The largest change in 8-bit levels.
    pub level: u8,
    /// Channel values changed.
    pub changed: u32,
    /// From the challenge's arrival to the answer, milliseconds.
    pub time_ms: u32,
    /// Whether it decodes at all.
    pub decodes: bool,
    /// Whether another wrong class is as good as the best.
    pub tied: bool,
}

/// One miner.
#[derive(Clone, Debug)]
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

    /// What it hands to a validator in an epoch; `members` is the number of validators.
    pub fn answer(
        &self,
        image: &Image,
        validator: usize,
        epoch: u64,
        members: usize,
        rng: &mut ChaCha8Rng,
    ) -> Option<Given> {
        let changed = u64::from(self.changed) * u64::from(image.difficulty) * rng.random_range(800..1200) / 1_000_000;
        let given = Given {
            level: 1,
            changed: (changed as u32).max(1),
            time_ms: self.time_ms * rng.random_range(800..1200) / 1000,
            decodes: true,
            tied: false,
        };
        match &self.aim {
            Aim::Honest => Some(given),
            Aim::Skips(whom) if whom.contains(&validator) => None,
            Aim::Skips(_) => Some(given),
            Aim::Targets { spares } => {
                let targets: Vec<usize> = (0..members).filter(|v| !spares.contains(v)).collect();
                let target = targets.get(epoch as usize % targets.len().max(1));
                (target != Some(&validator)).then_some(given)
            }
            Aim::Late => Some(Given { time_ms: 19_000, ..given }),
            Aim::Garbage => Some(Given { decodes: false, ..given }),
            Aim::Ties => Some(Given { tied: true, ..given }),
        }
    }
}
