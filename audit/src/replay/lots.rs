//! Lots written down a second time: with which seed and keys rounds are drawn, which miners they ask, and
//! which images they use.

use std::collections::BTreeMap;

use perturb_challenge::sampling::{Candidate, sample};
use perturb_challenge::used::{Page, Used};
use perturb_ledger::images::{Pass, REVEAL_BLOCKS, UnrevealedRow};
use perturb_ledger::seeds::{self, SeedsRow};
use perturb_ledger::state::{self, AskedRow, OpenRow, SEEDS};
use perturb_ledger::store::Row;
use perturb_ledger::{ChallengeSpec, Neuron, Pulse};
use perturb_types::round::TransformSecret;
use perturb_types::vrf::{Draw, Purpose};
use perturb_types::{
    ChallengeId, Digest, Hotkey, Lot, NetworkId, RoundId, RoundKey, RoundOpen, RoundResult, RoundReveal, RoundSkip,
    limits,
};

use super::fast::{one, under};
use crate::error::AuditError;

/// A validator in a challenge.
type Runner = (ChallengeId, Hotkey);

/// What rounds are drawn with, and what they have used.
pub(crate) struct Lots {
    network: NetworkId,
    seeds: SeedsRow,
    keys: BTreeMap<(u64, Hotkey), RoundKey>,
    asked: BTreeMap<(ChallengeId, Hotkey), AskedRow>,
    passes: BTreeMap<Runner, Pass>,
    unrevealed: BTreeMap<Runner, UnrevealedRow>,
}

/// The pages of a validator's pass.
fn pages(rows: &[Row], id: ChallengeId, validator: &Hotkey) -> Result<BTreeMap<u32, Page>, AuditError> {
    let prefix = state::pages_of(id, validator);
    let mut pages = BTreeMap::new();
    for (key, value) in under(rows, &prefix) {
        let Some(page) = key.last_chunk() else { continue };
        pages.insert(u32::from_be_bytes(*page), state::parse(key, value)?);
    }
    Ok(pages)
}

impl Lots {
    /// From the rows of a state; its challenges one by one ([`Self::read_challenge`]).
    ///
    /// # Errors
    /// The rows are no state of the network.
    pub fn read(network: NetworkId, rows: &[Row]) -> Result<Self, AuditError> {
        let seeds: SeedsRow = one(rows, SEEDS)?;
        let mut this = Self {
            network,
            seeds,
            keys: BTreeMap::new(),
            asked: BTreeMap::new(),
            passes: BTreeMap::new(),
            unrevealed: BTreeMap::new(),
        };
        for (key, value) in under(rows, state::round_keys_prefix()) {
            let (Some(epoch), Some(hotkey)) = (state::round_key_epoch(key), key.last_chunk()) else { continue };
            this.keys.insert((epoch, Hotkey(*hotkey)), state::parse(key, value)?);
        }
        for (key, value) in under(rows, state::unrevealed_prefix()) {
            let Some(runner) = state::unrevealed_parts(key) else { continue };
            this.unrevealed.insert(runner, state::parse(key, value)?);
        }
        Ok(this)
    }

    /// The miners and the passes of a challenge.
    ///
    /// # Errors
    /// The rows are no state of the network.
    pub fn read_challenge(&mut self, rows: &[Row], id: ChallengeId) -> Result<(), AuditError> {
        let prefix = state::asked_prefix(id);
        for (key, value) in under(rows, &prefix) {
            let Some(miner) = state::hotkey_after(&prefix, key) else { continue };
            self.asked.insert((id, miner), state::parse(key, value)?);
        }
        let prefix = state::used_of(id);
        for (key, value) in under(rows, &prefix) {
            let Some(validator) = state::hotkey_after(&prefix, key) else { continue };
            let pass = Pass::new(state::parse(key, value)?, pages(rows, id, &validator)?);
            self.passes.insert((id, validator), pass);
        }
        Ok(())
    }

    /// The beginning of a block: pulses that were given up, reveals that never came.
    pub fn begin(&mut self, given_up: &[u64], height: u64) {
        self.seeds.waiting.retain(|w| !given_up.contains(&w.pulse));
        self.unrevealed.retain(|_, row| row.until > height);
    }

    /// A pulse is in a block.
    pub fn pulse(&mut self, pulse: &Pulse) {
        let waiting = self.seeds.waiting.iter().filter(|w| w.pulse == pulse.round);
        let Some(epoch) = waiting.map(|w| w.epoch).max() else { return };
        self.seeds.epoch = epoch;
        self.seeds.seed = seeds::seed(&self.network, &pulse.signature, epoch);
        self.seeds.waiting.retain(|w| w.epoch > epoch);
    }

    /// A round ran out.
    pub fn expire(&mut self, round: &RoundId, opened: &OpenRow, height: u64) {
        let until = height.saturating_add(REVEAL_BLOCKS);
        let row = UnrevealedRow { seq: round.seq, key: opened.key, seed: opened.seed, until };
        self.unrevealed.insert((round.challenge, round.validator), row);
    }

    /// A challenge was changed or removed.
    pub fn void(&mut self, id: ChallengeId) {
        self.unrevealed.retain(|(challenge, _), _| *challenge != id);
    }

    /// A challenge has another set, or is gone.
    pub fn forget(&mut self, id: ChallengeId) {
        self.passes.retain(|(challenge, _), _| *challenge != id);
    }

    /// Who is not registered any more has no pass.
    pub fn forget_departed(&mut self, registered: impl Fn(&Hotkey) -> bool) {
        self.passes.retain(|(_, validator), _| registered(validator));
    }

    /// A challenge is gone.
    pub fn forget_asked(&mut self, id: ChallengeId) {
        self.asked.retain(|(challenge, _), _| *challenge != id);
    }

    /// So many answers of a miner were counted by a validator.
    pub fn count(&mut self, id: ChallengeId, miner: Hotkey, processed: u64) {
        let row = self.asked.entry((id, miner)).or_default();
        row.processed = row.processed.max(processed);
    }

    fn draws_with(&self, epoch: u64, round: &RoundId) -> Result<(RoundKey, Digest), String> {
        if self.unrevealed.contains_key(&(round.challenge, round.validator)) {
            return Err(format!("round {round}: the one before has not shown its images"));
        }
        let key = self.keys.get(&(epoch, round.validator)).filter(|_| epoch == self.seeds.epoch);
        let key =
            key.ok_or_else(|| format!("round {round}: epoch {} draws, with its members' keys", self.seeds.epoch))?;
        Ok((*key, self.seeds.seed))
    }

    fn value(
        &self,
        purpose: Purpose,
        round: &RoundId,
        (key, seed): (&RoundKey, Digest),
        lot: &Lot,
    ) -> Result<[u8; 32], String> {
        let draw = Draw { purpose, challenge: round.challenge, seed, seq: round.seq };
        key.open(&self.network, &draw, lot).ok_or_else(|| format!("round {round}: a lot is none of its key"))
    }

    /// Key, seed and miners of an opening, whose miners the lot of this number draws.
    ///
    /// # Errors
    /// What does not follow.
    pub fn open(
        &self,
        open: &RoundOpen,
        spec: &ChallengeSpec,
        neurons: &[Neuron],
        number: u64,
    ) -> Result<(RoundKey, Digest, Vec<Hotkey>), String> {
        let round = open.round;
        let (key, seed) = self.draws_with(open.epoch, &round)?;
        let of = RoundId { seq: number, ..round };
        let value = self.value(Purpose::Miners, &of, (&key, seed), &open.miners)?;
        let candidate = |n: &Neuron| {
            let row = self.asked.get(&(spec.id, n.hotkey)).copied().unwrap_or_default();
            let (uid, hotkey, coldkey, processed) = (n.uid, n.hotkey, n.coldkey, row.processed);
            (row.since <= open.epoch).then_some(Candidate { uid, hotkey, coldkey, processed })
        };
        let candidates: Vec<Candidate> = neurons.iter().filter(|n| !n.permit).filter_map(candidate).collect();
        let picked = sample(&spec.rules, &value, &candidates, usize::from(spec.miners_per_round));
        let miners: Vec<Hotkey> = picked.iter().filter_map(|i| Some(candidates.get(*i)?.hotkey)).collect();
        if miners.is_empty() { Err(format!("round {round} asks nobody")) } else { Ok((key, seed, miners)) }
    }

    fn use_up(&mut self, spec: &ChallengeSpec, validator: Hotkey, value: &[u8; 32], count: usize) -> Option<Vec<u64>> {
        let first = || Pass::new(Used::new(spec.source_len), BTreeMap::new());
        self.passes.entry((spec.id, validator)).or_insert_with(first).draw(&self.network, value, count)
    }

    fn use_all(&mut self, spec: &ChallengeSpec, round: &RoundId, value: &[u8; 32]) -> Result<(), String> {
        let used = self.use_up(spec, round.validator, value, limits::MAX_DRAWS);
        used.map(drop).ok_or_else(|| format!("round {round}: the used images contradict themselves"))
    }

    /// The images of a result; the value of their lot.
    ///
    /// # Errors
    /// They are not those that were drawn.
    pub fn result(&mut self, result: &RoundResult, opened: &OpenRow, spec: &ChallengeSpec) -> Result<[u8; 32], String> {
        let (round, skipped) = (result.round, result.skipped.len());
        let value = self.value(Purpose::Image, &round, (&opened.key, opened.seed), &result.images)?;
        let drawn = self.use_up(spec, round.validator, &value, skipped.saturating_add(1));
        let stated: Vec<u64> = result.skipped.iter().chain([&result.source_index]).copied().collect();
        let secret = TransformSecret::of(&self.network, &value, skipped as u64);
        if skipped < limits::MAX_DRAWS && drawn == Some(stated) && secret == result.transform {
            Ok(value)
        } else {
            Err(format!("round {round}: its images are not those that were drawn"))
        }
    }

    /// What a round that ran out has used.
    ///
    /// # Errors
    /// It owes nothing, or something else.
    pub fn reveal(&mut self, reveal: &RoundReveal, spec: &ChallengeSpec) -> Result<(), String> {
        let round = reveal.round;
        let row = self.unrevealed.remove(&(round.challenge, round.validator)).filter(|row| row.seq == round.seq);
        let row = row.ok_or_else(|| format!("round {round} owes nothing"))?;
        let value = self.value(Purpose::Image, &round, (&row.key, row.seed), &reveal.images)?;
        self.use_all(spec, &round, &value)
    }

    /// A round that was not opened.
    ///
    /// # Errors
    /// What does not follow.
    pub fn skip(&mut self, skip: &RoundSkip, spec: &ChallengeSpec) -> Result<(), String> {
        let round = skip.round;
        let (key, seed) = self.draws_with(skip.epoch, &round)?;
        let value = self.value(Purpose::Image, &round, (&key, seed), &skip.images)?;
        self.use_all(spec, &round, &value)
    }
}
