//! A validator's services: readiness, registration, rounds. The answers are invented, everything
//! else is real: openings, signed answers, measurements that follow the rules, scores.

use std::collections::{BTreeMap, BTreeSet};

use perturb_challenge::rules::Rules;
use perturb_challenge::verify::Verdict;
use perturb_ledger::images::{self, UnrevealedRow};
use perturb_ledger::seeds::{self, Lots};
use perturb_ledger::state::open_key;
use perturb_ledger::tx::Readiness;
use perturb_ledger::verdict::{CheckVerdict, Checked, Finding};
use perturb_ledger::{Ledger, StateStore, Transaction, query};
use perturb_types::round::{Meaning, TransformSecret};
use perturb_types::{
    Digest, Entry, Hotkey, Measurement, Millionths, Reason, RoundCommits, RoundId, RoundKey, RoundOpen, RoundPair,
    RoundResult, RoundReveal, Signed, encode,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::cast::{CHALLENGE, Cast};
use crate::pulses;

/// Milliseconds between two looks of the services.
pub const APP_MS: u64 = 700;

/// Milliseconds after which a pulse that no block has is brought again.
const BRING_AGAIN_MS: u64 = 3_000;

/// How a validator runs its rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As it should.
    #[default]
    Honest,
    /// Its own miner always wins and the others never answer, all within the rules.
    Favours(usize),
    /// It opens rounds and closes none.
    NeverCloses,
    /// Its results claim scores that do not follow.
    Forges,
    /// Its measurements are not those of the images, or its images cannot be had.
    Invents,
    /// It runs no rounds.
    Idle,
}

/// What a validator says about drawn rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checking {
    /// What it finds; now and then its machine cannot tell.
    #[default]
    Honest,
    /// The contrary.
    Lies,
    /// That it cannot tell.
    Shrugs,
    /// Nothing.
    Silent,
}

/// One round in so many is one that a member's machine cannot judge.
const CANNOT_TELL: u64 = 9;

impl Checking {
    fn verdict(self, me: usize, round: &RoundId, invented: bool) -> Option<Checked> {
        let fails = Checked::Fails(Finding::Measurement);
        match (self, invented) {
            (Self::Honest, _) if (round.seq + me as u64).is_multiple_of(CANNOT_TELL) => Some(Checked::Unknown),
            (Self::Honest, true) | (Self::Lies, false) => Some(fails),
            (Self::Honest, false) | (Self::Lies, true) => Some(Checked::Holds),
            (Self::Shrugs, _) => Some(Checked::Unknown),
            (Self::Silent, _) => None,
        }
    }
}

struct Round {
    /// The epoch whose seed drew it.
    epoch: u64,
    open: Signed<RoundOpen>,
    lots: Lots,
    /// The first image drawn, and the secret of its transform.
    image: (u64, TransformSecret),
    /// Commitments, where a miner answered, and result: once the state says who was asked.
    closing: Option<(Option<Vec<u8>>, Vec<u8>)>,
    told: u32,
}

/// A validator's services. What is here survives a crash, as the node's pending rows do.
#[derive(Default)]
pub struct App {
    pending: BTreeMap<u64, Round>,
    /// Rounds made.
    pub rounds: u64,
    /// Rounds whose measurements it invented.
    pub invented: Vec<RoundId>,
    checked: BTreeSet<RoundId>,
    /// Pulses that it brought, and when.
    brought: BTreeMap<u64, u64>,
}

impl App {
    /// One look: what is to be submitted now.
    pub fn look<S: StateStore>(
        &mut self,
        cast: &Cast,
        me: usize,
        style: Style,
        ledger: &Ledger<S>,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Vec<u8>> {
        let mut out = self.membership(cast, me, ledger);
        let hotkey = cast.hotkeys[me].hotkey();
        if ledger.validators().by_hotkey(&hotkey).is_none() || style == Style::Idle {
            return out;
        }
        let Ok(row) = query::sequence(ledger.store(), CHALLENGE, &hotkey) else { return out };
        let is_open = |seq| ledger.store().value(&open_key(CHALLENGE, &hotkey, seq)).is_ok_and(|v| v.is_some());
        let id = RoundId { validator: hotkey, challenge: CHALLENGE, seq: row.next };
        let drawing = seeds::drawing(ledger.store(), &hotkey).ok().flatten();
        // What was drawn with a seed that is no longer active is void.
        let is_valid = |seq, round: &Round| seq >= row.next && drawing.is_some_and(|(epoch, ..)| round.epoch == epoch);
        self.pending.retain(|seq, round| is_open(*seq) || is_valid(*seq, round));
        if let Ok(Some(owed)) = query::unrevealed(ledger.store(), CHALLENGE, &hotkey) {
            if style != Style::NeverCloses {
                out.push(reveal(cast, me, &owed));
            }
            return out;
        }
        if let Some(drawing) = drawing.filter(|_| self.pending.is_empty() && !row.open)
            && let Some(round) = self.round(cast, me, &id, ledger.store(), drawing, rng)
        {
            self.pending.insert(id.seq, round);
            if style == Style::Invents {
                self.invented.push(id);
            }
            self.rounds += 1;
        }
        for round in self.pending.values_mut() {
            if round.closing.is_none()
                && let Ok(Some(row)) = query::open_round(ledger.store(), CHALLENGE, &hotkey, round.open.round.seq)
            {
                (round.closing, round.told) = (Some(closing(cast, me, style, round, &row.miners, rng)), 0);
            }
            // Told at once, and again after some looks: a block or a restart may have passed it by.
            if round.told.is_multiple_of(4) {
                match &round.closing {
                    None => out.push(encode::encode(&Transaction::RoundOpen(round.open.envelope().clone()))),
                    Some((commits, result)) if style != Style::NeverCloses => {
                        out.extend(commits.clone());
                        out.push(result.clone());
                    }
                    Some(_) => {}
                }
            }
            round.told += 1;
        }
        out
    }

    /// Verifies the drawn rounds of the others again and says what comes of it. What a node finds by
    /// fetching the images is known here: which rounds were invented.
    pub fn check<S: StateStore>(
        &mut self,
        cast: &Cast,
        me: usize,
        checking: Checking,
        ledger: &Ledger<S>,
        invented: &[RoundId],
    ) -> Vec<Vec<u8>> {
        let hotkey = cast.hotkeys[me].hotkey();
        let mut out = Vec::new();
        if ledger.validators().by_hotkey(&hotkey).is_none() {
            return out;
        }
        for (round, row) in query::checks(ledger.store()).unwrap_or_default() {
            if round.validator == hotkey || self.checked.contains(&round) {
                continue;
            }
            let Some(verdict) = checking.verdict(me, &round, invented.contains(&round)) else { continue };
            self.checked.insert(round);
            let v = CheckVerdict { hotkey, round, result: row.fresh.result, verdict };
            let signed = Signed::sign(&cast.pairs[me], &cast.network, v);
            out.push(encode::encode(&Transaction::CheckVerdict(signed.into_envelope())));
        }
        out
    }

    /// Pulses that the state waits for and that are out: told once, and again after a while.
    pub fn pulses<S: StateStore>(&mut self, seed: u64, now_ms: u64, ledger: &Ledger<S>) -> Vec<Vec<u8>> {
        let awaited = query::awaited_pulses(ledger.store()).unwrap_or_default();
        self.brought.retain(|round, _| awaited.contains(round));
        let mut out = Vec::new();
        for round in awaited {
            let told = self.brought.get(&round).is_some_and(|at| now_ms < at + BRING_AGAIN_MS);
            if told {
                continue;
            }
            if let Some(pulse) = pulses::pulse(seed, &ledger.genesis().beacon, round, now_ms) {
                self.brought.insert(round, now_ms);
                out.push(encode::encode(&Transaction::Pulse(pulse)));
            }
        }
        out
    }

    fn membership<S: StateStore>(&self, cast: &Cast, me: usize, ledger: &Ledger<S>) -> Vec<Vec<u8>> {
        let (store, hotkey) = (ledger.store(), cast.hotkeys[me].hotkey());
        let mut out = Vec::new();
        match query::registered_key(store, &hotkey) {
            Ok(Some(_)) => {
                let epoch = ledger.head().epoch;
                if let Ok(false) = query::is_ready(store, epoch, &hotkey) {
                    let ready = Signed::sign(&cast.pairs[me], &cast.network, Readiness { hotkey, epoch });
                    out.push(encode::encode(&Transaction::Readiness(ready.into_envelope())));
                }
            }
            Ok(None) => out.push(encode::encode(&cast.register(me))),
            Err(_) => {}
        }
        out
    }

    /// A round as it is drawn now, of the first image.
    fn round<S: StateStore>(
        &self,
        cast: &Cast,
        me: usize,
        id: &RoundId,
        store: &S,
        (epoch, _, seed): (u64, RoundKey, Digest),
        rng: &mut ChaCha8Rng,
    ) -> Option<Round> {
        let lots = Lots::draw(&RoundPair::of(&cast.pairs[me]), &cast.network, seed, id);
        let of = (CHALLENGE, cast.genesis.challenges[0].source_len);
        let image = *images::upcoming(store, &cast.network, of, id.validator, &lots.value).ok()?.first()?;
        let open = RoundOpen { round: *id, epoch, image: Digest(rng.random()), miners: lots.miners, opened_ms: 0 };
        let open = Signed::sign(&cast.pairs[me], &cast.network, open);
        Some(Round { epoch, open, lots, image, closing: None, told: 0 })
    }
}

/// Commitments and result of a round that asks these.
fn closing(
    cast: &Cast,
    me: usize,
    style: Style,
    round: &Round,
    asked: &[Hotkey],
    rng: &mut ChaCha8Rng,
) -> (Option<Vec<u8>>, Vec<u8>) {
    let (open, rules, label) = (&round.open, &cast.genesis.challenges[0].rules, 3);
    let of = |(place, miner): (usize, &Hotkey)| entry(cast, rules, open, label, (place, miner), style, rng);
    let mut entries: Vec<Entry> = asked.iter().enumerate().map(of).collect();
    if style == Style::Forges
        && let Some(first) = entries.first_mut()
    {
        first.score = Millionths(first.score.0 / 2 + 500_000);
    }
    let commits = commits(cast, open, &entries);
    let commits = commits.map(|c| Signed::sign(&cast.pairs[me], &cast.network, c).into_envelope());
    let ((source_index, transform), images, skipped) = (round.image, round.lots.images, Vec::new());
    let (id, open) = (open.round, open.digest());
    let result = RoundResult { round: id, open, images, skipped, source_index, transform, label, entries };
    let result = Signed::sign(&cast.pairs[me], &cast.network, result);
    let commits = commits.map(|envelope| encode::encode(&Transaction::RoundCommits(envelope)));
    (commits, encode::encode(&Transaction::RoundResult(result.into_envelope())))
}

/// What shows the images of a round that ran out.
fn reveal(cast: &Cast, me: usize, owed: &UnrevealedRow) -> Vec<u8> {
    let round = RoundId { validator: cast.hotkeys[me].hotkey(), challenge: CHALLENGE, seq: owed.seq };
    let images = Lots::draw(&RoundPair::of(&cast.pairs[me]), &cast.network, owed.seed, &round).images;
    let reveal = Signed::sign(&cast.pairs[me], &cast.network, RoundReveal { round, images });
    encode::encode(&Transaction::RoundReveal(reveal.into_envelope()))
}

/// Miner 0 flips at level 1, 1 at level 2, 2 now and then, 3 is silent; the details differ with the
/// image.
fn entry(
    cast: &Cast,
    rules: &Rules,
    open: &Signed<RoundOpen>,
    label: u16,
    (place, hotkey): (usize, &Hotkey),
    style: Style,
    rng: &mut ChaCha8Rng,
) -> Entry {
    // Who has lost its permit is asked as well, and is no miner.
    let miner = cast.miners.iter().position(|m| m.hotkey() == *hotkey).unwrap_or(usize::MAX);
    let changed: u32 = rng.random_range(50..400);
    let lucky = rng.random_bool(0.4);
    let level = match (style, miner) {
        (Style::Favours(own), m) => (m == own).then_some(1),
        (_, 0) => Some(1),
        (_, 1) => Some(2),
        (_, 2) => lucky.then_some(2),
        _ => None,
    };
    let Some(level) = level else {
        return Verdict::absent(rules, label, *hotkey, Reason::ResponseMissing, 0);
    };
    let measurement = Measurement {
        level,
        sum_squares: u64::from(changed) * u64::from(level).pow(2),
        changed,
        channels: 12_288,
        ssim: Millionths(999_000),
    };
    let verdict = Verdict {
        reason: Reason::Success,
        measurement,
        predicted: 4,
        margin_millionths: 500_000,
        semantic: Meaning::NotAsked,
    };
    verdict.entry(rules, label, *hotkey, answer(&open.round, place), 500, false)
}

/// What the miner at a place of a round answers.
pub fn answer(round: &RoundId, place: usize) -> Digest {
    Digest::of(format!("{round} {place}").as_bytes())
}

/// What the miners bound themselves to, where one of them did.
fn commits(cast: &Cast, open: &RoundOpen, entries: &[Entry]) -> Option<RoundCommits> {
    let bound = entries.iter().map(|entry| {
        let answer = cast.broken.bound(entry.answer?);
        let miner = cast.miners.iter().find(|m| m.hotkey() == entry.miner)?;
        Some(miner.bind(&cast.network, open.round, open.image, &answer))
    });
    let commits: Vec<_> = bound.collect();
    commits.iter().any(Option::is_some).then_some(RoundCommits { round: open.round, commits })
}
