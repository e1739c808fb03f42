//! A market's rounds and checks as transactions.

use std::collections::BTreeSet;

use perturb_ledger::verdict::{CheckVerdict, Checked, Finding};
use perturb_ledger::{Pulse, Transaction, query};
use perturb_types::round::TransformSecret;
use perturb_types::{Digest, Entry, RoundCommits, RoundId, RoundOpen, RoundResult, Signed};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::miner::{Given, Image};
use super::stage::Stage;
use super::validator::LABEL;
use super::{Conduct, Fault, Setting};
use crate::cast::{CHALLENGE, Signer};

/// What the rounds so far came to.
pub(super) struct Rounds {
    /// The next number of each validator.
    next: Vec<u64>,
    /// Rounds whose measurements were invented.
    pub forged: BTreeSet<RoundId>,
    /// Checks that were answered.
    checked: BTreeSet<RoundId>,
}

impl Rounds {
    /// None yet.
    pub fn new(setting: &Setting) -> Self {
        Self { next: vec![0; setting.validators.len()], forged: BTreeSet::new(), checked: BTreeSet::new() }
    }

    /// One round of every validator that works, and the checks that were drawn meanwhile.
    pub fn step(
        &mut self,
        setting: &Setting,
        stage: &mut Stage,
        epoch: u64,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), Fault> {
        let (mut openings, mut commits, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for validator in 0..setting.validators.len() {
            let image = Image { difficulty: rng.random_range(600..1600) };
            let hotkey = stage.validators[validator].0.hotkey();
            let is_member = stage.ledger.validators().by_hotkey(&hotkey).is_some();
            if is_member && setting.validators[validator].works() {
                let (open, bound, result) = self.round(setting, stage, validator, epoch, &image, rng);
                openings.push(open);
                commits.extend(bound);
                results.push(result);
            }
        }
        stage.block(openings)?;
        stage.block(commits)?;
        stage.block(results)?;
        // The next block puts what was closed down to a pulse, which draws among it.
        stage.block(Vec::new())?;
        let awaited = query::awaited_pulses(stage.ledger.store()).map_err(Fault::new)?;
        stage.block(awaited.into_iter().filter_map(Pulse::of_development).map(Transaction::Pulse).collect())?;
        let verdicts = self.check(setting, stage)?;
        if !verdicts.is_empty() {
            // What is decided already takes no more of them.
            stage.offer(verdicts)?;
        }
        Ok(())
    }

    fn round(
        &mut self,
        setting: &Setting,
        stage: &Stage,
        validator: usize,
        epoch: u64,
        image: &Image,
        rng: &mut ChaCha8Rng,
    ) -> (Transaction, Option<Transaction>, Transaction) {
        let member = &setting.validators[validator];
        let (hotkey, pair) = &stage.validators[validator];
        let round = RoundId { validator: hotkey.hotkey(), challenge: CHALLENGE, seq: self.next[validator] };
        self.next[validator] += 1;
        let secret = TransformSecret(rng.random());
        let open = RoundOpen {
            round,
            epoch,
            image: Digest(rng.random()),
            transform: secret.commitment(&stage.network, &round),
            miners: stage.miners.iter().map(|m| m.hotkey()).collect(),
            opened_ms: 0,
        };
        let open = Signed::sign(pair, &stage.network, open);
        let members = setting.validators.len();
        let given: Vec<Option<Given>> =
            setting.miners.iter().map(|m| m.answer(image, validator, epoch, members, rng)).collect();
        let rules = stage.ledger.genesis().challenges[0].rules.clone();
        let answers: Vec<_> = stage.miners.iter().map(|m| (m.hotkey(), answer(&round, m))).collect();
        let (entries, forged) = member.record(&rules, &given, &answers, rng);
        if forged {
            self.forged.insert(round);
        }
        let bound = bind(stage, &open, &entries).map(|c| Signed::sign(pair, &stage.network, c).into_envelope());
        let result =
            RoundResult { round, open: open.digest(), transform: secret, source_index: 0, label: LABEL, entries };
        let result = Signed::sign(pair, &stage.network, result);
        (
            Transaction::RoundOpen(open.into_envelope()),
            bound.map(Transaction::RoundCommits),
            Transaction::RoundResult(result.into_envelope()),
        )
    }

    /// What every working member says of the drawn rounds of the others. What a node finds by fetching
    /// images is known here: which rounds were invented. Who has a miner of its own says that all hold: a
    /// verdict is work, and whoever forges has friends among its like.
    fn check(&mut self, setting: &Setting, stage: &Stage) -> Result<Vec<Transaction>, Fault> {
        let mut out = Vec::new();
        for (round, row) in query::checks(stage.ledger.store()).map_err(Fault::new)? {
            if !self.checked.insert(round) {
                continue;
            }
            for (member, (hotkey, pair)) in setting.validators.iter().zip(&stage.validators) {
                let hotkey = hotkey.hotkey();
                if !member.works() || hotkey == round.validator {
                    continue;
                }
                let fails = member.conduct == Conduct::Honest && self.forged.contains(&round);
                let verdict = if fails { Checked::Fails(Finding::Measurement) } else { Checked::Holds };
                let v = CheckVerdict { hotkey, round, result: row.fresh.result, verdict };
                out.push(Transaction::CheckVerdict(Signed::sign(pair, &stage.network, v).into_envelope()));
            }
        }
        Ok(out)
    }
}

/// A miner's answer in a round.
fn answer(round: &RoundId, miner: &Signer) -> Digest {
    Digest::of(format!("{round} {}", miner.hotkey()).as_bytes())
}

/// What the miners are bound to whose answers their validator records.
fn bind(stage: &Stage, open: &RoundOpen, entries: &[Entry]) -> Option<RoundCommits> {
    let of = |(miner, entry): (&Signer, &Entry)| {
        entry.answer.map(|answer| miner.bind(&stage.network, open.round, open.image, &answer))
    };
    let commits: Vec<_> = stage.miners.iter().zip(entries).map(of).collect();
    commits.iter().any(Option::is_some).then_some(RoundCommits { round: open.round, commits })
}
