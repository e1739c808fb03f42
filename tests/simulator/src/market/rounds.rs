//! A market's rounds and checks, block by block.
//!
//! Openings, then commitments, then results, as in a node: when answers are shown, the state has the
//! commitments. Who comes with bytes later finds validators here that put whatever it hands them into
//! a block, so that the ledger alone refuses it.

use std::collections::BTreeSet;

use perturb_ledger::execute::TxError;
use perturb_ledger::verdict::{CheckVerdict, Checked};
use perturb_ledger::{Pulse, Transaction, query};
use perturb_types::{Digest, RoundId, Signed};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::miner::{Asked, Image, answers, regrets};
use super::round::Round;
use super::stage::Stage;
use super::{Conduct, Fault, Setting};
use crate::cast::CHALLENGE;

/// What the rounds so far came to.
pub(super) struct Rounds {
    /// The next number of each validator.
    next: Vec<u64>,
    /// Rounds whose measurements were invented.
    pub forged: BTreeSet<RoundId>,
    /// Checks that were answered.
    checked: BTreeSet<RoundId>,
    /// Transactions with bytes that came late, and how many of them a block has.
    pub late: (u64, u64),
}

impl Rounds {
    /// None yet.
    pub fn new(setting: &Setting) -> Self {
        let next = vec![0; setting.validators.len()];
        Self { next, forged: BTreeSet::new(), checked: BTreeSet::new(), late: (0, 0) }
    }

    /// One round of every validator that runs any, and the checks that were drawn meanwhile.
    pub fn step(
        &mut self,
        setting: &Setting,
        stage: &mut Stage,
        epoch: u64,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), Fault> {
        let mut first = self.open(setting, stage, epoch, rng);
        let second = self.proxy(setting, stage, &mut first, rng);
        stage.block(first.iter().map(Round::opening).collect())?;
        let commits = first.iter().filter_map(|round| round.commits(&stage.cast));
        let block = second.iter().map(Round::opening).chain(commits).collect();
        stage.block(block)?;
        stage.block(second.iter().filter_map(|round| round.commits(&stage.cast)).collect())?;
        first.extend(second);
        self.close(stage, &first)?;
        // The next block puts what was closed down to a pulse, which draws among it.
        stage.block(Vec::new())?;
        draw(stage)?;
        self.check(setting, stage)
    }

    /// The rounds of those who have images of their own.
    fn open(&mut self, setting: &Setting, stage: &Stage, epoch: u64, rng: &mut ChaCha8Rng) -> Vec<Round> {
        let mut out = Vec::new();
        for (validator, member) in setting.validators.iter().enumerate() {
            let difficulty = rng.random_range(600..1600);
            let proxies = matches!(member.conduct, Conduct::Proxies(_));
            if !proxies && member.conduct != Conduct::Lazy && is_member(stage, validator) {
                let image = Image { digest: Digest(rng.random()), difficulty };
                // Who has just joined draws when the next seed is out.
                out.extend(self.round(setting, stage, validator, epoch, image, rng));
            }
        }
        out
    }

    /// The rounds of proxies on images of others, whose rounds they are to help their miners in.
    fn proxy(&mut self, setting: &Setting, stage: &Stage, first: &mut [Round], rng: &mut ChaCha8Rng) -> Vec<Round> {
        let mut out = Vec::new();
        for (validator, member) in setting.validators.iter().enumerate() {
            let Conduct::Proxies(own) = member.conduct else { continue };
            let from = (self.next[validator] as usize + validator) % first.len().max(1);
            let Some(victim) = first.get_mut(from).filter(|_| is_member(stage, validator)) else { continue };
            let of = (victim.asked.epoch, victim.asked.image);
            let Some(round) = self.round(setting, stage, validator, of.0, of.1, rng) else { continue };
            let others = round.seen.iter().enumerate().filter(|(miner, _)| *miner != own);
            let best = others.filter_map(|(_, given)| *given).min_by_key(|given| given.changed);
            victim.late.extend(best.map(|given| (own, given.altered(own))));
            out.push(round);
        }
        out
    }

    fn round(
        &mut self,
        setting: &Setting,
        stage: &Stage,
        validator: usize,
        epoch: u64,
        image: Image,
        rng: &mut ChaCha8Rng,
    ) -> Option<Round> {
        let hotkey = stage.cast.hotkeys[validator].hotkey();
        let round = RoundId { validator: hotkey, challenge: CHALLENGE, seq: self.next[validator] };
        let (members, deadline_ms) = (setting.validators.len(), stage.cast.genesis.challenges[0].rules.deadline_ms);
        let asked = Asked { round, image, validator, epoch, members, deadline_ms };
        let given = answers(&setting.miners, &asked, rng);
        let member = &setting.validators[validator];
        let invented = member.invents(rng);
        if invented {
            self.forged.insert(round);
        }
        let seen = given.iter().enumerate().map(|(miner, given)| member.sees(&round, miner, *given, invented));
        let mut out = Round::new(stage, asked, seen.collect(), None)?;
        self.next[validator] += 1;
        out.late = regrets(&setting.miners, &given);
        Some(out)
    }

    /// Closes all rounds, after a try to close them with what came late. Whatever is taken is what
    /// counts: a round closes once.
    fn close(&mut self, stage: &mut Stage, rounds: &[Round]) -> Result<(), Fault> {
        let attempts: Vec<Transaction> = rounds.iter().flat_map(|round| round.attempts(&stage.cast)).collect();
        for attempt in &attempts {
            match stage.ledger.check_transaction(attempt) {
                Err(TxError::Invalid(why)) if why.contains("bound") => {}
                Err(why) => return Err(Fault::new(format!("late bytes are refused for something else: {why}"))),
                Ok(()) => self.late.1 += 1,
            }
        }
        self.late.0 += attempts.len() as u64;
        let honest = rounds.iter().map(|round| round.result(&stage.cast));
        let taken = stage.offer(attempts.into_iter().chain(honest).collect())?;
        let closed = taken.iter().filter(|t| matches!(t, Transaction::RoundResult(_))).count();
        if closed == rounds.len() {
            return Ok(());
        }
        Err(Fault::new(format!("{closed} of {} rounds were closed", rounds.len())))
    }

    /// What members say of the drawn rounds of the others. What a node finds by fetching images is known
    /// here: which rounds were invented.
    fn check(&mut self, setting: &Setting, stage: &mut Stage) -> Result<(), Fault> {
        let mut verdicts = Vec::new();
        for (round, row) in query::checks(stage.ledger.store()).map_err(Fault::new)? {
            if self.checked.insert(round) {
                let invented = self.forged.contains(&round);
                let says = |member: usize| setting.validators[member].says(invented);
                verdicts.extend(verdicts_on(stage, &round, row.fresh.result, says));
            }
        }
        if !verdicts.is_empty() {
            stage.block(verdicts)?;
        }
        Ok(())
    }
}

fn is_member(stage: &Stage, validator: usize) -> bool {
    stage.ledger.validators().by_hotkey(&stage.cast.hotkeys[validator].hotkey()).is_some()
}

/// One more block, with the pulses that are waited for.
pub(super) fn draw(stage: &mut Stage) -> Result<(), Fault> {
    let awaited = query::awaited_pulses(stage.ledger.store()).map_err(Fault::new)?;
    stage.block(awaited.into_iter().filter_map(Pulse::of_development).map(Transaction::Pulse).collect())
}

/// What the members other than its validator say of a drawn round.
pub(super) fn verdicts_on(
    stage: &Stage,
    round: &RoundId,
    result: Digest,
    says: impl Fn(usize) -> Option<Checked>,
) -> Vec<Transaction> {
    let cast = &stage.cast;
    let verdict = |member: usize| {
        let hotkey = cast.hotkeys[member].hotkey();
        let verdict = says(member).filter(|_| hotkey != round.validator && is_member(stage, member))?;
        let v = CheckVerdict { hotkey, round: *round, result, verdict };
        Some(Transaction::CheckVerdict(Signed::sign(&cast.pairs[member], &cast.network, v).into_envelope()))
    };
    (0..cast.hotkeys.len()).filter_map(verdict).collect()
}
