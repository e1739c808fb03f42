//! Replay of the arithmetic alone, for certified blocks: a quorum has checked their signatures.
//!
//! The rules that lead from rounds to weights are written down here a second time: who may open
//! and close which round, what a verdict is worth, what enters a history, when a round expires, who
//! contributes and with which weight, who failed a spot check, who is an outlier, what is kept, ranks
//! and vector. The ledger's executor is not used. Not restated is what no score of the epoch follows
//! from: delegations, readiness, work, evidence, what faults will cost, the round keys and the pulse of
//! the next epoch, and its set, which is taken from the certified header. Every block's results are compared with the root in its
//! header; so the first block where the rules make something else is found.

use std::collections::{BTreeMap, BTreeSet};

use perturb_challenge::history::pushes;
use perturb_challenge::rules::judge_round;
use perturb_ledger::epoch::{EpochRecord, MinerRecord};
use perturb_ledger::genesis::MAX_CHALLENGES;
use perturb_ledger::images::MAX_SKIPS;
use perturb_ledger::reputation::Reputation;
use perturb_ledger::spot::FreshRow;
use perturb_ledger::state::{
    self, HistoryRow, META, Meta, OpenRow, PARAMETERS, SET, SNAPSHOT, SeqRow, epoch_key, history_key,
};
use perturb_ledger::store::{Change, Row};
use perturb_ledger::tx::Order;
use perturb_ledger::verdict::CheckVerdict;
use perturb_ledger::{
    Block, Certificate, ChallengeSpec, Effect, Genesis, Header, Neuron, Parameters, Receipt, Snapshot, Transaction,
    ValidatorSet, receipt,
};
use perturb_types::encode::{self, Domain};
use perturb_types::envelope::Payload;
use perturb_types::{
    ChallengeId, ConsensusKey, Digest, Envelope, Hotkey, NetworkId, Reason, RoundCommits, RoundId, RoundOpen,
    RoundResult, RoundReveal, RoundSkip,
};

use super::checks::Checks;
use super::close;
use super::lots::Lots;
use super::{Engine, Mismatch};
use crate::error::AuditError;

/// A history's key: challenge, miner, validator.
pub(crate) type HistoryId = (ChallengeId, Hotkey, Hotkey);

/// What scores follow from.
pub struct Fast {
    pub(crate) network: NetworkId,
    pub(crate) parameters: Parameters,
    pub(crate) reputations: BTreeMap<Hotkey, Reputation>,
    /// Orders that wait: by height and nonce.
    orders: BTreeMap<(u64, u64), Order>,
    pub(crate) checks: Checks,
    pub(crate) meta: Meta,
    pub(crate) set: ValidatorSet,
    neurons: Vec<Neuron>,
    /// Their hotkeys.
    registered: BTreeSet<Hotkey>,
    lots: Lots,
    pub(crate) specs: BTreeMap<ChallengeId, ChallengeSpec>,
    pub(crate) histories: BTreeMap<HistoryId, HistoryRow>,
    opened: BTreeMap<RoundId, OpenRow>,
    next: BTreeMap<(ChallengeId, Hotkey), SeqRow>,
    /// The miners of the records of the epoch before: what they came to may be kept.
    pub(crate) last: BTreeMap<ChallengeId, Vec<MinerRecord>>,
    pub(crate) height: u64,
    records: Vec<(ChallengeId, EpochRecord)>,
    touched: BTreeSet<HistoryId>,
    results: u64,
}

/// The rows under a prefix, of rows in order.
pub(super) fn under<'r>(rows: &'r [Row], prefix: &[u8]) -> &'r [Row] {
    let from = rows.partition_point(|(key, _)| key.as_slice() < prefix);
    let rest = rows.get(from..).unwrap_or_default();
    let count = rest.partition_point(|(key, _)| key.starts_with(prefix));
    rest.get(..count).unwrap_or_default()
}

pub(super) fn one<T: borsh::BorshDeserialize>(rows: &[Row], key: &[u8]) -> Result<T, AuditError> {
    let row = rows.binary_search_by(|(k, _)| k.as_slice().cmp(key)).ok().and_then(|i| rows.get(i));
    let (_, value) =
        row.ok_or_else(|| AuditError::invalid("state", format!("row {} is missing", super::leaf::name(key))))?;
    Ok(state::parse(key, value)?)
}

/// Validator and number of an open round's key, or of a validator's numbers' key.
fn owner(prefix: &[u8], key: &[u8]) -> Option<(Hotkey, u64)> {
    let (validator, rest) = key.strip_prefix(prefix)?.split_at_checked(32)?;
    let seq = rest.get(1..).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    Some((Hotkey(validator.try_into().ok()?), seq))
}

fn find(specs: &BTreeMap<ChallengeId, ChallengeSpec>, id: ChallengeId) -> Result<&ChallengeSpec, String> {
    specs.get(&id).ok_or_else(|| format!("no challenge {id}"))
}

fn hotkeys(neurons: &[Neuron]) -> BTreeSet<Hotkey> {
    neurons.iter().map(|n| n.hotkey).collect()
}

/// Milliseconds for which a round is open at least.
fn open_ms(p: &Parameters) -> u64 {
    p.open_round_blocks.saturating_mul(u64::from(p.block_interval_ms))
}

impl Fast {
    /// The arithmetic's state, from the rows of a state whose root was compared.
    ///
    /// # Errors
    /// The rows are no state of the network.
    pub fn new(genesis: &Genesis, header: &Header, rows: &[Row]) -> Result<Self, AuditError> {
        let snapshot: Snapshot = one(rows, SNAPSHOT)?;
        let mut this = Self {
            network: genesis.network_id(),
            parameters: one(rows, PARAMETERS)?,
            reputations: BTreeMap::new(),
            orders: BTreeMap::new(),
            checks: Checks::read(&genesis.beacon, rows)?,
            meta: one(rows, META)?,
            set: one(rows, SET)?,
            registered: hotkeys(&snapshot.neurons),
            neurons: snapshot.neurons,
            lots: Lots::read(genesis.network_id(), rows)?,
            specs: BTreeMap::new(),
            histories: BTreeMap::new(),
            opened: BTreeMap::new(),
            next: BTreeMap::new(),
            last: BTreeMap::new(),
            height: header.height,
            records: Vec::new(),
            touched: BTreeSet::new(),
            results: 0,
        };
        for (key, value) in under(rows, state::reputation_prefix()) {
            let Some(hotkey) = state::hotkey_after(state::reputation_prefix(), key) else { continue };
            this.reputations.insert(hotkey, state::parse(key, value)?);
        }
        for (key, value) in under(rows, state::order_prefix()) {
            let (Some(height), Some(nonce)) = (state::order_height(key), state::order_nonce(key)) else { continue };
            this.orders.insert((height, nonce), state::parse(key, value)?);
        }
        for (key, value) in under(rows, b"challenge/") {
            let spec: ChallengeSpec = state::parse(key, value)?;
            this.read(rows, spec.id)?;
            this.lots.read_challenge(rows, spec.id)?;
            this.specs.insert(spec.id, spec);
        }
        this.read_last(rows)?;
        Ok(this)
    }

    fn read(&mut self, rows: &[Row], id: ChallengeId) -> Result<(), AuditError> {
        for (key, value) in under(rows, &state::history_prefix(id)) {
            let Some((miner, validator)) = state::history_parts(id, key) else { continue };
            self.histories.insert((id, miner, validator), state::parse(key, value)?);
        }
        self.checks.read_outliers(rows, id)?;
        let prefix = state::open_prefix(id);
        for (key, value) in under(rows, &prefix) {
            let Some((validator, seq)) = owner(&prefix, key) else { continue };
            self.opened.insert(RoundId { validator, challenge: id, seq }, state::parse(key, value)?);
        }
        let prefix = state::seq_key(id, &Hotkey([0; 32]));
        let prefix = prefix.get(..prefix.len().saturating_sub(32)).unwrap_or_default();
        for (key, value) in under(rows, prefix) {
            let Some((validator, _)) = owner(prefix, key) else { continue };
            let row: SeqRow = state::parse(key, value)?;
            self.next.insert((id, validator), row);
        }
        Ok(())
    }

    /// Of every challenge that had a record, also of one that is not there any more: it may come again.
    fn read_last(&mut self, rows: &[Row]) -> Result<(), AuditError> {
        let Some(before) = self.meta.epoch.checked_sub(1) else { return Ok(()) };
        let mut prefix = epoch_key(before, ChallengeId(0));
        prefix.truncate(prefix.len().saturating_sub(2));
        for (key, value) in under(rows, &prefix) {
            let Some(id) = key.last_chunk().copied().map(u16::from_be_bytes) else { continue };
            self.last.insert(ChallengeId(id), state::parse::<EpochRecord>(key, value)?.miners);
        }
        Ok(())
    }

    fn member(&self, signer: &ConsensusKey, hotkey: &Hotkey) -> Result<(), String> {
        match self.set.by_key(signer) {
            Some(member) if member.hotkey == *hotkey => Ok(()),
            _ => Err(format!("{signer} is not the member with hotkey {hotkey}")),
        }
    }

    fn payload<T: Payload>(envelope: &Envelope) -> Result<T, String> {
        encode::decode(T::NAME, &envelope.payload, T::MAX_BYTES).map_err(|e| e.to_string())
    }

    fn transaction(&mut self, transaction: &Transaction, header: &Header) -> Result<Effect, String> {
        match transaction {
            Transaction::RoundOpen(envelope) => self.open(envelope),
            Transaction::RoundReveal(envelope) => self.reveal(envelope).map(|()| Effect::Applied),
            Transaction::RoundSkip(envelope) => self.skip(envelope).map(|()| Effect::Applied),
            Transaction::RoundResult(envelope) => self.result(envelope, transaction.digest(&self.network)),
            Transaction::RoundCommits(envelope) => self.bind(envelope).map(|()| Effect::Applied),
            Transaction::OwnerAction(action) => {
                match &action.order {
                    Order::Revoke(nonce) => self.orders.retain(|(_, n), _| n != nonce),
                    order => drop(self.orders.insert((action.effective, action.nonce), order.clone())),
                }
                Ok(Effect::Applied)
            }
            Transaction::CheckVerdict(envelope) => {
                let v: CheckVerdict = Self::payload(envelope)?;
                self.member(&envelope.signer, &v.hotkey)?;
                self.checks.verdict(&v)?;
                Ok(Effect::Applied)
            }
            Transaction::Pulse(pulse) => {
                let rate = self.parameters.spot_checks.rate;
                self.checks.pulse(pulse, rate, &self.network, self.height)?;
                self.lots.pulse(pulse);
                Ok(Effect::Applied)
            }
            Transaction::EpochClose { epoch, snapshot } => self.close(*epoch, snapshot, header),
            // No score follows from these.
            Transaction::KeyDelegation(_) | Transaction::Readiness(_) | Transaction::Evidence(_) => Ok(Effect::Applied),
        }
    }

    /// A round that begins or is skipped: it takes the next number, and none is open.
    fn take_number(&mut self, round: &RoundId) -> Result<&mut SeqRow, String> {
        let of = |r: &RoundId| (r.challenge, r.validator);
        if self.opened.keys().any(|other| of(other) == of(round)) {
            return Err(format!("round {round}: the one before is open"));
        }
        let row = self.next.entry(of(round)).or_default();
        if round.seq != row.next {
            return Err(format!("round {round}: the next number is {}", row.next));
        }
        if row.epoch != self.meta.epoch {
            (row.epoch, row.opened, row.skipped) = (self.meta.epoch, 0, 0);
        }
        row.next += 1;
        Ok(row)
    }

    fn reveal(&mut self, envelope: &Envelope) -> Result<(), String> {
        let reveal: RoundReveal = Self::payload(envelope)?;
        self.member(&envelope.signer, &reveal.round.validator)?;
        self.lots.reveal(&reveal, find(&self.specs, reveal.round.challenge)?)
    }

    fn skip(&mut self, envelope: &Envelope) -> Result<(), String> {
        let skip: RoundSkip = Self::payload(envelope)?;
        self.member(&envelope.signer, &skip.round.validator)?;
        self.lots.skip(&skip, find(&self.specs, skip.round.challenge)?)?;
        let row = self.take_number(&skip.round)?;
        (row.skipped, row.passed) = (row.skipped.saturating_add(1), row.passed.saturating_add(1));
        if row.skipped > MAX_SKIPS { Err(format!("round {}: skipped too often", skip.round)) } else { Ok(()) }
    }

    fn open(&mut self, envelope: &Envelope) -> Result<Effect, String> {
        let open: RoundOpen = Self::payload(envelope)?;
        let round = open.round;
        self.member(&envelope.signer, &round.validator)?;
        let most = self.parameters.max_rounds_per_epoch;
        let row = self.take_number(&round)?;
        row.opened = row.opened.saturating_add(1);
        if row.opened > most {
            return Err(format!("round {round}: more than {most} rounds in the epoch"));
        }
        let number = round.seq.saturating_sub(u64::from(std::mem::take(&mut row.passed)));
        let spec = find(&self.specs, round.challenge)?;
        let (key, seed, miners) = self.lots.open(&open, spec, &self.neurons, number)?;
        let row = OpenRow {
            open: encode::digest(Domain::RoundOpen, &self.network, &envelope.payload),
            image: open.image,
            key,
            seed,
            miners: miners.clone(),
            height: self.height,
            commits: None,
        };
        self.opened.insert(round, row);
        Ok(Effect::Opened { round, miners })
    }

    fn bind(&mut self, envelope: &Envelope) -> Result<(), String> {
        let given: RoundCommits = Self::payload(envelope)?;
        let round = given.round;
        self.member(&envelope.signer, &round.validator)?;
        let row = self.opened.get_mut(&round).ok_or_else(|| format!("round {round} is not open"))?;
        let someone = given.commits.iter().any(Option::is_some);
        if row.commits.is_some() || !someone || given.commits.len() != row.miners.len() {
            return Err(format!("round {round}: its miners are bound once, all of them, and some to something"));
        }
        row.commits = Some(given.commits.iter().map(|c| c.as_ref().map(|c| c.commit)).collect());
        Ok(())
    }

    /// What each miner shows has to be what it was bound to.
    fn bound(&self, opened: &OpenRow, result: &RoundResult) -> Result<(), String> {
        for (i, entry) in result.entries.iter().enumerate() {
            let commit = opened.commits.as_ref().and_then(|all| *all.get(i)?);
            let shown = entry
                .answer
                .map(|a| encode::digest_of(Domain::AnswerCommit, &self.network, &(result.round, entry.miner, a)));
            let forged = shown.is_some() && shown != commit;
            if forged || commit.is_some() && entry.reason == Reason::BadSignature {
                return Err(format!("round {}: {} was never bound to that answer", result.round, entry.miner));
            }
        }
        Ok(())
    }

    fn result(&mut self, envelope: &Envelope, transaction: Digest) -> Result<Effect, String> {
        let result: RoundResult = Self::payload(envelope)?;
        let round = result.round;
        self.member(&envelope.signer, &round.validator)?;
        let spec = find(&self.specs, round.challenge)?;
        let opened = self.opened.remove(&round).ok_or_else(|| format!("round {round} is not open"))?;
        if result.open != opened.open {
            return Err(format!("round {round}: the result names another opening"));
        }
        if !result.entries.iter().map(|e| &e.miner).eq(&opened.miners) {
            return Err(format!("round {round}: the entries are not the miners that were drawn, in their order"));
        }
        self.bound(&opened, &result)?;
        judge_round(&spec.rules, &result).map_err(|e| format!("round {round}: {e}"))?;
        let value = self.lots.result(&result, &opened, spec)?;
        let mut counted = Vec::with_capacity(result.entries.len());
        for (miner, score) in pushes(&spec.rules, &result.entries) {
            if !self.registered.contains(&miner) {
                continue;
            }
            let id = (round.challenge, miner, round.validator);
            let row = self.histories.entry(id).or_default();
            row.ring.push(score, spec.rules.history_len);
            row.fresh = self.meta.epoch;
            self.lots.count(round.challenge, miner, row.ring.processed);
            self.touched.insert(id);
            counted.push((miner, score));
        }
        if self.parameters.spot_checks.rate > 0 {
            let row = FreshRow { result: transaction, image: opened.image, value, height: self.height };
            self.checks.close(round, row);
        }
        self.meta.results += counted.len() as u64;
        self.results += counted.len() as u64;
        Ok(Effect::Scored { round, counted })
    }

    /// Orders whose height has come, in the order of their nonces.
    fn carry_out_orders(&mut self) {
        while let Some(entry) = self.orders.first_entry().filter(|e| e.key().0 <= self.height) {
            let order = entry.remove();
            self.carry_out(&order);
        }
    }

    fn carry_out(&mut self, order: &Order) {
        match order {
            Order::AddChallenge(spec) | Order::UpdateChallenge(spec) if self.is_late(spec) => {}
            Order::AddChallenge(spec) => {
                if self.specs.len() < MAX_CHALLENGES {
                    self.specs.entry(spec.id).or_insert_with(|| spec.as_ref().clone());
                }
            }
            Order::UpdateChallenge(spec) if !self.specs.contains_key(&spec.id) => {}
            Order::UpdateChallenge(spec) => {
                self.opened.retain(|round, _| round.challenge != spec.id);
                self.checks.forget(spec.id);
                self.lots.void(spec.id);
                let before = self.specs.insert(spec.id, spec.as_ref().clone());
                let set = |s: &ChallengeSpec| (s.source_fingerprint, s.source_len);
                if before.as_ref().map(set) != Some(set(spec)) {
                    self.lots.forget(spec.id);
                }
            }
            Order::RemoveChallenge(id) => {
                self.opened.retain(|round, _| round.challenge != *id);
                self.histories.retain(|(challenge, _, _), _| challenge != id);
                self.checks.forget(*id);
                self.checks.forget_outliers(*id);
                self.lots.void(*id);
                self.lots.forget(*id);
                self.lots.forget_asked(*id);
                self.specs.remove(id);
            }
            Order::SetParameters(next) => {
                let now = &self.parameters;
                let rounds_fit = open_ms(next) >= self.longest_deadline_ms().min(open_ms(now));
                if rounds_fit && next.order_delay_blocks == now.order_delay_blocks {
                    self.parameters = next.as_ref().clone();
                }
            }
            Order::SetRequiredVersion(..) | Order::SetOwner(_) | Order::Revoke(_) => {}
        }
    }

    /// A strike takes back everything that the validator said about the challenge's miners.
    fn settle_checks(&mut self) {
        let struck = self.checks.settle(&self.parameters.spot_checks, self.height, &self.set);
        let gone = |(challenge, _, validator): &HistoryId| struck.contains(&(*challenge, *validator));
        self.touched.extend(self.histories.keys().filter(|id| gone(id)));
        self.histories.retain(|id, _| !gone(id));
    }

    /// Whether a challenge's answers would be due after its rounds expire, and later than all others'.
    fn is_late(&self, spec: &ChallengeSpec) -> bool {
        u64::from(spec.rules.deadline_ms) > open_ms(&self.parameters).max(self.longest_deadline_ms())
    }

    fn longest_deadline_ms(&self) -> u64 {
        self.specs.values().map(|c| u64::from(c.rules.deadline_ms)).max().unwrap_or(0)
    }

    fn close(&mut self, epoch: u64, snapshot: &Snapshot, header: &Header) -> Result<Effect, String> {
        if epoch != self.meta.epoch || header.epoch != epoch.saturating_add(1) {
            return Err(format!("it closes epoch {epoch}, epoch {} is in the making", self.meta.epoch));
        }
        if snapshot.reference != header.reference {
            return Err("its snapshot is of another chain block than the header names".into());
        }
        self.settle_checks();
        let registered = hotkeys(&snapshot.neurons);
        self.histories.retain(|(_, miner, validator), _| registered.contains(miner) && registered.contains(validator));
        self.lots.forget_departed(|validator| registered.contains(validator));
        self.records = self.specs.values().map(|spec| (spec.id, close::record(self, spec, snapshot))).collect();
        let weights = self.records.iter().map(|(id, r)| (*id, r.weights.clone())).collect();
        self.neurons.clone_from(&snapshot.neurons);
        self.registered = registered;
        Ok(Effect::Closed { epoch, weights, next_validators: header.next_validators })
    }

    /// The rows of the last block that this knows: to find out which of them was agreed otherwise.
    fn changes(&self) -> Vec<Change> {
        let row = |id: &HistoryId| {
            let key = history_key(id.0, &id.1, &id.2);
            (key, self.histories.get(id).map(encode::encode))
        };
        let mut out: Vec<Change> = self.touched.iter().map(row).collect();
        out.extend(self.records.iter().map(|(id, r)| (epoch_key(r.epoch, *id), Some(encode::encode(r)))));
        out
    }

    fn mismatch(&self, what: String) -> Option<Mismatch> {
        Some(Mismatch { what, changes: self.changes(), rows: None })
    }
}

impl Engine for Fast {
    fn apply(&mut self, block: &Block, _: &Certificate) -> Result<Option<Mismatch>, AuditError> {
        let header = &block.header;
        if !self.records.is_empty() {
            return Err(AuditError::invalid(format!("block {}", header.height), "the epoch was closed before it"));
        }
        self.height = header.height;
        self.touched.clear();
        self.carry_out_orders();
        let (height, wait) = (self.height, self.parameters.open_round_blocks);
        self.settle_checks();
        let given_up = self.checks.begin(&self.parameters.draws, height, header.time_ms);
        self.lots.begin(&given_up, height);
        for (round, row) in &self.opened {
            if row.height.saturating_add(wait) <= height {
                self.lots.expire(round, row, height);
            }
        }
        self.opened.retain(|_, row| row.height.saturating_add(wait) > height);
        let mut receipts: Vec<Receipt> = Vec::with_capacity(block.body.transactions.len());
        let last = block.body.transactions.len().saturating_sub(1);
        for (index, transaction) in block.body.transactions.iter().enumerate() {
            if index != last && matches!(transaction, Transaction::EpochClose { .. }) {
                return Ok(self.mismatch(format!("transaction {index} closes the epoch before the block's end")));
            }
            match self.transaction(transaction, header) {
                Ok(effect) => receipts.push(Receipt { transaction: transaction.digest(&self.network), effect }),
                Err(why) => {
                    return Ok(self.mismatch(format!("transaction {index} ({}): {why}", transaction.name())));
                }
            }
        }
        let root: Digest = receipt::root(&self.network, &receipts);
        if root != header.results_root {
            return Ok(self.mismatch(format!("results root {}, recomputed {root}", header.results_root)));
        }
        Ok(None)
    }

    fn results(&self) -> u64 {
        self.results
    }

    fn records(&self) -> Result<Vec<(ChallengeId, EpochRecord)>, AuditError> {
        Ok(self.records.clone())
    }
}
