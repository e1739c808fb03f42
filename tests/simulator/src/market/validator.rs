//! Validators with a miner of their own, and those that do not work.

use perturb_challenge::rules::Rules;
use perturb_challenge::verify::Verdict;
use perturb_types::round::Meaning;
use perturb_types::{Digest, Entry, Hotkey, Measurement, Millionths, Reason};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::miner::Given;

/// Channel values of every image: 64 by 64 pixels.
const CHANNELS: u32 = 12_288;

/// The model's label for every clean image.
pub(super) const LABEL: u16 = 3;

/// How a validator behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// As it should.
    #[default]
    Honest,
    /// It votes, and runs neither rounds nor checks.
    Lazy,
    /// Within the rules, its own miner always answers at once, and the others only ever in time to
    /// earn little: time and non-delivery are its word.
    Favours(usize),
    /// It shows its own miner each image before the clock starts, and judges fairly.
    Previews(usize),
    /// In so many of a million rounds it invents the measurements: its own miner's are perfect, and
    /// nobody else's exist.
    Forges {
        /// Its miner.
        own: usize,
        /// Of a million rounds.
        rate: u32,
    },
}

/// A validator.
#[derive(Clone, Debug)]
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

    /// Whether it runs rounds and checks.
    pub fn works(&self) -> bool {
        self.conduct != Conduct::Lazy
    }

    /// What it records of what the miners handed in, and whether that is invented. An answer is what
    /// stands in its entry if it has one.
    pub fn record(
        &self,
        rules: &Rules,
        given: &[Option<Given>],
        answers: &[(Hotkey, Digest)],
        rng: &mut ChaCha8Rng,
    ) -> (Vec<Entry>, bool) {
        let forged = matches!(self.conduct, Conduct::Forges { rate, .. } if rng.random_ratio(rate, 1_000_000));
        let seen = given.iter().enumerate().map(|(miner, given)| self.sees(miner, *given, forged));
        let entries = seen.zip(answers).map(|(given, (miner, answer))| entry(rules, given, *miner, *answer)).collect();
        (entries, forged)
    }

    /// What it says that a miner handed in.
    fn sees(&self, miner: usize, given: Option<Given>, forged: bool) -> Option<Given> {
        match self.conduct {
            Conduct::Favours(own) if own == miner => given.map(|g| Given { time_ms: 50, ..g }),
            Conduct::Favours(_) => None,
            Conduct::Previews(own) if own == miner => given.map(|g| Given { time_ms: 50, ..g }),
            Conduct::Forges { own, .. } if forged => {
                (own == miner).then_some(Given { level: 1, changed: 1, time_ms: 50, decodes: true, tied: false })
            }
            _ => given,
        }
    }
}

fn entry(rules: &Rules, given: Option<Given>, miner: Hotkey, answer: Digest) -> Entry {
    let Some(given) = given else {
        return Verdict::absent(rules, LABEL, miner, Reason::ResponseMissing, 0);
    };
    if !given.decodes {
        let verdict = Verdict::unmeasured(Reason::DecodeFailed, LABEL);
        return verdict.entry(rules, LABEL, miner, answer, given.time_ms, false);
    }
    let measurement = Measurement {
        level: given.level,
        sum_squares: u64::from(given.changed) * u64::from(given.level).pow(2),
        changed: given.changed,
        channels: CHANNELS,
        ssim: Millionths(999_000),
    };
    let verdict = Verdict {
        reason: Reason::Success,
        measurement,
        predicted: 4,
        margin_millionths: 500_000,
        semantic: Meaning::NotAsked,
    };
    verdict.entry(rules, LABEL, miner, answer, given.time_ms, false)
}
