//! Validators with a miner of their own, and those that do not work.

use perturb_ledger::verdict::{Checked, Finding};
use perturb_types::RoundId;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::miner::Given;

/// How a validator behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// As it should.
    #[default]
    Honest,
    /// It votes, and runs neither rounds nor checks.
    Lazy,
    /// It contributes nothing and looks busy: it closes its rounds without asking anybody, as if all had
    /// been silent, and says of every drawn round that it cannot tell.
    Absent,
    /// Within the rules, its own miner always answers at once, and the others only ever in time to
    /// earn little: time and non-delivery are its word.
    Favours(usize),
    /// It shows its own miner each image before the clock starts, and judges fairly.
    Previews(usize),
    /// It asks good miners about another validator's image, so that its own miner could hand their best
    /// answer to that one; in its own rounds that miner has the image early.
    Proxies(usize),
    /// In so many of a million rounds it invents the measurements: its own miner's are perfect, and
    /// nobody else's exist.
    Forges {
        /// Its miner.
        own: usize,
        /// Of a million rounds.
        rate: u32,
    },
    /// It says of every drawn round of another that it fails.
    Accuses,
}

/// A validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its stake in TAO.
    pub stake: u64,
    /// How it behaves.
    pub conduct: Conduct,
}

impl Member {
    /// An honest one.
    pub fn honest(stake: u64) -> Self {
        Self { stake, conduct: Conduct::Honest }
    }

    /// Whether it works against the others, and does not only keep still.
    pub fn lies(&self) -> bool {
        !matches!(self.conduct, Conduct::Honest | Conduct::Lazy | Conduct::Absent)
    }

    /// Whether it invents what it records of a round.
    pub fn invents(&self, rng: &mut ChaCha8Rng) -> bool {
        matches!(self.conduct, Conduct::Forges { rate, .. } if rng.random_ratio(rate, 1_000_000))
    }

    /// What it says that a miner handed in.
    pub fn sees(&self, round: &RoundId, miner: usize, given: Option<Given>, invented: bool) -> Option<Given> {
        let at_once = given.map(|g| Given { time_ms: AT_ONCE_MS, ..g });
        match self.conduct {
            Conduct::Favours(own) => at_once.filter(|_| own == miner),
            Conduct::Previews(own) | Conduct::Proxies(own) if own == miner => at_once,
            Conduct::Forges { own, .. } if invented => perfect(round, own).filter(|_| own == miner),
            Conduct::Absent => None,
            _ => given,
        }
    }

    /// What it says of a drawn round of another; `None` for nothing. Who has a miner of its own says that
    /// all hold: a verdict is work, and whoever forges has friends among its like.
    pub fn says(&self, invented: bool) -> Option<Checked> {
        let fails = Checked::Fails(Finding::Measurement);
        match self.conduct {
            Conduct::Lazy => None,
            Conduct::Absent => Some(Checked::Unknown),
            Conduct::Accuses => Some(fails),
            Conduct::Honest if invented => Some(fails),
            _ => Some(Checked::Holds),
        }
    }
}

/// Milliseconds that an answer takes which was ready before.
const AT_ONCE_MS: u32 = 50;

/// An answer that nobody gave: one value changed, at once.
pub(super) fn perfect(round: &RoundId, miner: usize) -> Option<Given> {
    Some(Given::of(miner, round, 1, AT_ONCE_MS))
}
