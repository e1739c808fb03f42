//! One round of a market as transactions.

use perturb_challenge::rules::Rules;
use perturb_challenge::verify::Verdict;
use perturb_ledger::images::Pass;
use perturb_ledger::seeds::{self, Lots};
use perturb_ledger::{Transaction, images};
use perturb_types::round::{AnswerStatement, Meaning, TransformSecret};
use perturb_types::{
    Entry, Lot, Measurement, Millionths, Reason, RoundCommits, RoundOpen, RoundPair, RoundResult, Signed,
};

use super::miner::{Asked, Given};
use super::stage::Stage;
use crate::cast::Cast;

/// Channel values of every image: 64 by 64 pixels.
const CHANNELS: u32 = 12_288;

/// The model's label for every clean image.
const LABEL: u16 = 3;

/// A round, with all that its validator will sign.
pub(super) struct Round {
    /// What it asks.
    pub asked: Asked,
    /// What its validator says that each miner handed in.
    pub seen: Vec<Option<Given>>,
    /// What miners hand in after all are bound: who, and what.
    pub late: Vec<(usize, Given)>,
    open: Signed<RoundOpen>,
    drawn: Drawn,
}

/// What a validator draws for a round.
#[derive(Clone, Copy)]
struct Drawn {
    images: Lot,
    source_index: u64,
    transform: TransformSecret,
}

impl Round {
    /// A round as it is drawn now, which asks all miners; none for who has no round key yet.
    /// With a `pass` its image is the next one of that: for several rounds of a block.
    pub fn new(stage: &Stage, asked: Asked, seen: Vec<Option<Given>>, pass: Option<&mut Pass>) -> Option<Self> {
        let (cast, store, round) = (&stage.cast, stage.ledger.store(), asked.round);
        let (epoch, _, seed) = seeds::drawing(store, &round.validator).ok()??;
        let lots = Lots::draw(&RoundPair::of(&cast.pairs[asked.validator]), &cast.network, seed, &round);
        let of = (round.challenge, cast.genesis.challenges[0].source_len);
        let source_index = match pass {
            Some(pass) => *pass.draw(&cast.network, &lots.value, 1)?.first()?,
            None => images::upcoming(store, &cast.network, of, round.validator, &lots.value).ok()?.first()?.0,
        };
        let transform = TransformSecret::of(&cast.network, &lots.value, 0);
        let (image, miners) = (asked.image.digest, lots.miners);
        let open = RoundOpen { round, epoch, image, miners, opened_ms: 0 };
        let open = Signed::sign(&cast.pairs[asked.validator], &cast.network, open);
        let drawn = Drawn { images: lots.images, source_index, transform };
        Some(Self { asked, seen, late: Vec::new(), open, drawn })
    }

    /// Its opening.
    pub fn opening(&self) -> Transaction {
        Transaction::RoundOpen(self.open.envelope().clone())
    }

    /// What the miners are bound to, where one of them is.
    pub fn commits(&self, cast: &Cast) -> Option<Transaction> {
        self.bind(cast, &self.seen)
    }

    /// The record of what was shown in time.
    pub fn result(&self, cast: &Cast) -> Transaction {
        self.record(cast, &self.seen)
    }

    /// What a validator would put into blocks that helps those who come late: the commitments once more,
    /// with theirs, and a result with what they would rather have shown. Nothing where nobody is late.
    pub fn attempts(&self, cast: &Cast) -> Vec<Transaction> {
        if self.late.is_empty() {
            return Vec::new();
        }
        let mut seen = self.seen.clone();
        self.late.iter().for_each(|(miner, given)| seen[*miner] = Some(*given));
        self.bind(cast, &seen).into_iter().chain([self.record(cast, &seen)]).collect()
    }

    fn is_late(&self, given: &Given, rules: &Rules) -> bool {
        rules.bucket(given.time_ms) > rules.deadline_ms
    }

    fn bind(&self, cast: &Cast, seen: &[Option<Given>]) -> Option<Transaction> {
        let rules = &cast.genesis.challenges[0].rules;
        let (round, image) = (self.asked.round, self.asked.image.digest);
        let bound = cast.miners.iter().zip(seen).map(|(miner, given)| {
            let given = given.filter(|given| !self.is_late(given, rules))?;
            let named = cast.miners[given.bound_as].hotkey();
            let statement = AnswerStatement::of(&cast.network, round, image, &named, &given.bytes);
            Some(miner.bind_to(&cast.network, statement))
        });
        let commits: Vec<_> = bound.collect();
        commits.iter().any(Option::is_some).then(|| {
            let commits = RoundCommits { round, commits };
            let signed = Signed::sign(&cast.pairs[self.asked.validator], &cast.network, commits);
            Transaction::RoundCommits(signed.into_envelope())
        })
    }

    fn record(&self, cast: &Cast, seen: &[Option<Given>]) -> Transaction {
        let entries = (0..seen.len()).map(|miner| self.entry(cast, seen, miner)).collect();
        let result = RoundResult {
            round: self.asked.round,
            open: self.open.digest(),
            images: self.drawn.images,
            skipped: Vec::new(),
            source_index: self.drawn.source_index,
            transform: self.drawn.transform,
            label: LABEL,
            entries,
        };
        let signed = Signed::sign(&cast.pairs[self.asked.validator], &cast.network, result);
        Transaction::RoundResult(signed.into_envelope())
    }

    fn entry(&self, cast: &Cast, seen: &[Option<Given>], miner: usize) -> Entry {
        let (rules, hotkey) = (&cast.genesis.challenges[0].rules, cast.miners[miner].hotkey());
        let absent = |reason, time_ms| Verdict::absent(rules, LABEL, hotkey, reason, time_ms);
        let Some(given) = seen[miner] else { return absent(Reason::ResponseMissing, 0) };
        if self.is_late(&given, rules) {
            return absent(Reason::Timeout, given.time_ms);
        }
        if !given.fits(miner) {
            return absent(Reason::ResponseMissing, given.time_ms);
        }
        let same = |(other, g): (usize, &Option<Given>)| g.is_some_and(|g| g.fits(other) && g.bytes == given.bytes);
        let duplicate = seen.iter().enumerate().filter(|(other, _)| *other != miner).any(same);
        verdict(&given).entry(rules, LABEL, hotkey, given.bytes, given.time_ms, duplicate)
    }
}

fn verdict(given: &Given) -> Verdict {
    if !given.decodes {
        return Verdict::unmeasured(Reason::DecodeFailed, LABEL);
    }
    let measurement = Measurement {
        level: given.level,
        sum_squares: u64::from(given.changed) * u64::from(given.level).pow(2),
        changed: given.changed,
        channels: CHANNELS,
        ssim: Millionths(999_000),
    };
    Verdict {
        reason: Reason::Success,
        measurement,
        predicted: 4,
        margin_millionths: 500_000,
        semantic: Meaning::NotAsked,
    }
}
