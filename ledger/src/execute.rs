//! What a transaction does to the state. Everything it claims is checked here again.

use perturb_challenge::history::pushes;
use perturb_challenge::rules::{RecordError, judge_round};
use perturb_types::envelope::Payload;
use perturb_types::{
    Beacon, ChallengeId, Digest, Envelope, EnvelopeError, Hotkey, NetworkId, RoundId, RoundOpen, RoundResult, Signed,
};

use crate::certificate::Certificate;
use crate::commits;
use crate::evidence::Equivocation;
use crate::genesis::{ChallengeSpec, Parameters};
use crate::receipt::{Effect, Receipt};
use crate::reputation::Reputation;
use crate::spot::FreshRow;
use crate::state::{
    self, Frame, HistoryRow, KeyRow, OpenRow, Overlay, PARENT_SET, SeqRow, challenge_key, history_key, key_key,
    open_key, ready_key, reputation_key, seq_key, unrevealed_key,
};
use crate::store::{StateStore, StoreError};
use crate::tx::{Delegation, Readiness, Transaction};
use crate::validators::ValidatorSet;
use crate::verdict::CheckVerdict;
use crate::verified::Verified;

/// Why a transaction does nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// An envelope that does not open.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The signer is no member, or not the round's validator.
    #[error("{what}: the signer is not the member it should be")]
    NotMember {
        /// The transaction.
        what: &'static str,
    },
    /// A challenge that is not there.
    #[error("no challenge {0}")]
    NoChallenge(ChallengeId),
    /// A number before the next one: it has been used.
    #[error("round {round}: the next number is {next}: this one has been used")]
    Used {
        /// The round.
        round: Box<RoundId>,
        /// The next number.
        next: u64,
    },
    /// Something that may become valid: it depends on what is not in a block yet.
    #[error("too early: {0}")]
    Early(String),
    /// Anything else that is wrong with it.
    #[error("{0}")]
    Invalid(String),
    /// A record whose reason or score does not follow.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A pulse that the beacon never signed.
    #[error("pulse {0}: the beacon never signed it")]
    ForgedPulse(u64),
    /// The state cannot be read: nothing to do with the transaction.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TxError {
    /// Whether it may become valid by waiting.
    pub fn is_early(&self) -> bool {
        matches!(self, Self::Early(_))
    }
}

/// Proofs against one validator that an epoch takes: one is enough to know, and each stays for ever.
const MAX_EVIDENCE_PER_EPOCH: u64 = 16;

pub(crate) fn invalid<T>(why: impl Into<String>) -> Result<T, TxError> {
    Err(TxError::Invalid(why.into()))
}

/// Executes transactions of one block on a state.
pub struct Executor<'a, S: ?Sized> {
    /// The state with its changes.
    pub state: Overlay<'a, S>,
    /// What every transaction reads.
    pub frame: Frame,
    pub(crate) network: NetworkId,
    beacon: &'a Beacon,
    height: u64,
    /// The time in the block's header, once it has begun.
    time_ms: u64,
    pub(crate) verified: Option<&'a Verified>,
    /// The signatures of the transaction in progress were verified before: those that need its bytes alone.
    pub(crate) known: bool,
}

impl<'a, S: StateStore + ?Sized> Executor<'a, S> {
    /// An executor for the block of a height.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn new(network: NetworkId, beacon: &'a Beacon, store: &'a S, height: u64) -> Result<Self, StoreError> {
        let state = Overlay::new(store);
        let frame = Frame::load(&state)?;
        Ok(Self { state, frame, network, beacon, height, time_ms: 0, verified: None, known: false })
    }

    /// Spares what was verified before a second verification, and remembers what is verified now.
    pub(crate) fn remembering(mut self, verified: &'a Verified) -> Self {
        self.verified = Some(verified);
        self
    }

    /// The parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.frame.parameters
    }

    /// What happens at the beginning of every block, before its transactions: orders that are due,
    /// rounds that have been open for too long, reveals that never came, checks that are settled, which pulse
    /// draws what the parent closed (by the time in this block's header), and the votes that the parent's
    /// certificate lacks.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn begin(&mut self, time_ms: u64, parent: Option<&Certificate>) -> Result<(), TxError> {
        self.time_ms = time_ms;
        self.carry_out_orders()?;
        self.lapse_reveals()?;
        self.expire_rounds()?;
        self.settle_checks()?;
        self.schedule_draws(time_ms)?;
        self.count_missed_votes(parent)
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The beacon whose pulses draw.
    pub fn beacon(&self) -> &'a Beacon {
        self.beacon
    }

    /// The height.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The time in the block's header.
    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Executes one transaction: all of it, or nothing. `EpochClose` is not executed here.
    ///
    /// # Errors
    /// Why it does nothing.
    pub fn execute(&mut self, transaction: &Transaction) -> Result<Receipt, TxError> {
        let meta = self.frame.meta.clone();
        let digest = transaction.digest(&self.network);
        self.known = self.verified.is_some_and(|v| v.contains(&digest));
        match self.apply(transaction, digest) {
            Ok(effect) => {
                self.state.accept();
                if let Some(verified) = self.verified {
                    verified.remember(digest);
                }
                Ok(Receipt { transaction: digest, effect })
            }
            Err(e) => {
                self.state.discard();
                self.frame.meta = meta;
                Err(e)
            }
        }
    }

    fn apply(&mut self, transaction: &Transaction, digest: Digest) -> Result<Effect, TxError> {
        match transaction {
            Transaction::RoundResult(e) => return self.result(e.clone(), digest),
            Transaction::RoundOpen(e) => return self.open(e.clone()),
            Transaction::KeyDelegation(d) => self.delegation(d),
            Transaction::Readiness(e) => self.readiness(e.clone()),
            Transaction::OwnerAction(a) => self.owner_action(a),
            Transaction::Evidence(e) => self.evidence(e),
            Transaction::CheckVerdict(e) => {
                let v: Signed<CheckVerdict> = self.open_envelope(e.clone())?;
                self.member("check verdict", &v.signer(), &v.hotkey)?;
                self.check_verdict(&v)
            }
            Transaction::Pulse(pulse) => self.pulse(pulse, self.known),
            Transaction::RoundCommits(e) => self.commits(e.clone()),
            Transaction::RoundReveal(e) => self.reveal(e.clone()),
            Transaction::RoundSkip(e) => self.skip(e.clone()),
            Transaction::EpochClose { .. } => invalid("an epoch is closed by a proposer alone"),
        }?;
        Ok(Effect::Applied)
    }

    pub(crate) fn open_envelope<T: Payload>(&self, envelope: Envelope) -> Result<Signed<T>, TxError> {
        let opened = if self.known { envelope.open_again(&self.network) } else { envelope.open(&self.network) };
        Ok(opened?)
    }

    pub(crate) fn spec(&self, id: ChallengeId) -> Result<ChallengeSpec, TxError> {
        self.state.get(&challenge_key(id))?.ok_or(TxError::NoChallenge(id))
    }

    /// The member behind a signer, which has to be `hotkey`.
    pub(crate) fn member(
        &self,
        what: &'static str,
        signer: &perturb_types::ConsensusKey,
        hotkey: &Hotkey,
    ) -> Result<(), TxError> {
        match self.frame.set.by_key(signer) {
            Some(v) if v.hotkey == *hotkey => Ok(()),
            _ => Err(TxError::NotMember { what }),
        }
    }

    /// The numbers of a validator that begins or skips its next round, which has to be this one.
    pub(crate) fn next_round(&self, round: &RoundId) -> Result<SeqRow, TxError> {
        let mut row: SeqRow = self.state.get(&seq_key(round.challenge, &round.validator))?.unwrap_or_default();
        if round.seq < row.next {
            return Err(TxError::Used { round: Box::new(*round), next: row.next });
        }
        if round.seq > row.next {
            return Err(TxError::Early(format!("round {round}: the next number is {}", row.next)));
        }
        if row.open {
            return Err(TxError::Early(format!("round {round}: the one before is open")));
        }
        if self.state.has(&unrevealed_key(round.challenge, &round.validator))? {
            return Err(TxError::Early(format!("round {round}: the one before has not shown its images")));
        }
        let epoch = self.frame.meta.epoch;
        if row.epoch != epoch {
            (row.epoch, row.opened, row.skipped) = (epoch, 0, 0);
        }
        Ok(row)
    }

    pub(crate) fn put_sequence(&mut self, round: &RoundId, row: &SeqRow) {
        self.state.put(seq_key(round.challenge, &round.validator), row);
    }

    fn open(&mut self, envelope: Envelope) -> Result<Effect, TxError> {
        let open: Signed<RoundOpen> = self.open_envelope(envelope)?;
        let round = open.round;
        self.member("round opening", &open.signer(), &round.validator)?;
        let spec = self.spec(round.challenge)?;
        let mut row = self.next_round(&round)?;
        if row.opened >= self.frame.parameters.max_rounds_per_epoch {
            return Err(TxError::Early(format!("round {round}: {} rounds were opened in this epoch", row.opened)));
        }
        let (key, seed) = self.draws_with("round opening", open.epoch, &round.validator)?;
        let miners = self.asked(&spec, &open, (&key, seed), row.miners_number())?;
        row.next += 1;
        row.opened += 1;
        (row.open, row.passed) = (true, 0);
        self.put_sequence(&round, &row);
        let opened = OpenRow {
            open: open.digest(),
            image: open.image,
            key,
            seed,
            miners: miners.clone(),
            height: self.height,
            commits: None,
        };
        self.state.put(open_key(round.challenge, &round.validator, round.seq), &opened);
        Ok(Effect::Opened { round, miners })
    }

    fn result(&mut self, envelope: Envelope, digest: Digest) -> Result<Effect, TxError> {
        let result: Signed<RoundResult> = self.open_envelope(envelope)?;
        let round = result.round;
        self.member("round result", &result.signer(), &round.validator)?;
        let spec = self.spec(round.challenge)?;
        let opened = self.opened(&round)?;
        self.check_result(&result, &opened)?;
        judge_round(&spec.rules, &result)?;
        let value = self.take_images(&opened, &result, spec.source_len)?;

        let n = spec.rules.history_len;
        let epoch = self.frame.meta.epoch;
        let mut counted = Vec::new();
        for (miner, score) in pushes(&spec.rules, &result.entries) {
            // A miner that left since the opening has no history to push to.
            if self.frame.snapshot.neuron(&miner).is_none() {
                continue;
            }
            let key = history_key(round.challenge, &miner, &round.validator);
            let mut row: HistoryRow = self.state.get(&key)?.unwrap_or_default();
            row.ring.push(score, n);
            row.fresh = epoch;
            self.state.put(key, &row);
            self.count_processed(round.challenge, &miner, row.ring.processed)?;
            counted.push((miner, score));
        }
        self.close_round(round)?;
        self.count_round(&round.validator)?;
        let fresh = FreshRow { result: digest, image: opened.image, value, height: self.height };
        self.keep_fresh(&round, fresh);
        self.frame.meta.results += counted.len() as u64;
        Ok(Effect::Scored { round, counted })
    }

    /// The row of a round that is open.
    pub(crate) fn opened(&self, round: &RoundId) -> Result<OpenRow, TxError> {
        let key = open_key(round.challenge, &round.validator, round.seq);
        if let Some(opened) = self.state.get::<OpenRow>(&key)? {
            return Ok(opened);
        }
        let row: SeqRow = self.state.get(&seq_key(round.challenge, &round.validator))?.unwrap_or_default();
        if round.seq < row.next {
            Err(TxError::Used { round: Box::new(*round), next: row.next })
        } else {
            Err(TxError::Early(format!("round {round} is not open yet")))
        }
    }

    /// The round is no longer open.
    fn close_round(&mut self, round: RoundId) -> Result<(), TxError> {
        self.state.delete(open_key(round.challenge, &round.validator, round.seq));
        let key = seq_key(round.challenge, &round.validator);
        let mut row: SeqRow = self.state.must(&key)?;
        row.open = false;
        self.state.put(key, &row);
        Ok(())
    }

    /// Ends all open rounds of a challenge, and what is owed of others; nobody is to blame.
    pub(crate) fn void_rounds(&mut self, challenge: ChallengeId) -> Result<(), TxError> {
        self.void_reveals(challenge)?;
        for (key, _) in self.state.scan(&state::open_prefix(challenge))? {
            if let Some(round) = round_of(challenge, &key) {
                self.close_round(round)?;
            }
        }
        Ok(())
    }

    fn check_result(&self, result: &RoundResult, opened: &OpenRow) -> Result<(), TxError> {
        let round = result.round;
        if result.open != opened.open {
            return invalid(format!("round {round}: the result names another opening"));
        }
        if !result.entries.iter().map(|e| e.miner).eq(opened.miners.iter().copied()) {
            return invalid(format!("round {round}: the entries are not the miners that were drawn, in their order"));
        }
        commits::follow(&self.network, opened, result)
    }

    fn delegation(&mut self, d: &Delegation) -> Result<(), TxError> {
        if !self.known && !d.verify(&self.network) {
            return invalid(format!("delegation of {}: a signature does not verify", d.hotkey));
        }
        match self.frame.snapshot.neuron(&d.hotkey) {
            Some(n) if n.permit => {}
            _ => return invalid(format!("delegation of {}: no validator permit in the agreed snapshot", d.hotkey)),
        }
        let key = key_key(&d.hotkey);
        if let Some(old) = self.state.get::<KeyRow>(&key)?
            && d.sequence <= old.sequence
        {
            return invalid(format!(
                "delegation of {}: sequence {} is not above {}",
                d.hotkey, d.sequence, old.sequence
            ));
        }
        for (other, row) in self.state.scan(b"key/")? {
            let row: KeyRow = state::parse(&other, &row)?;
            if other != key && (row.key == d.key || row.round_key == d.round_key) {
                return invalid(format!("delegation of {}: the key belongs to another hotkey", d.hotkey));
            }
        }
        // It votes in this epoch for somebody else, who has registered another one since.
        if self.frame.set.by_key(&d.key).is_some_and(|member| member.hotkey != d.hotkey) {
            return invalid(format!("delegation of {}: the key votes for another hotkey in this epoch", d.hotkey));
        }
        self.state.put(key, &KeyRow { key: d.key, round_key: d.round_key, sequence: d.sequence });
        // The old key's word: whether anybody has the new one, that one says itself.
        self.state.delete(ready_key(self.frame.meta.epoch, &d.hotkey));
        Ok(())
    }

    fn readiness(&mut self, envelope: Envelope) -> Result<(), TxError> {
        let ready: Signed<Readiness> = self.open_envelope(envelope)?;
        let epoch = self.frame.meta.epoch;
        if ready.epoch != epoch {
            return invalid(format!(
                "readiness of {} names epoch {}, this is epoch {epoch}",
                ready.hotkey, ready.epoch
            ));
        }
        // Early only after the epoch was looked at: what waits for a key must not wait for ever.
        let row: Option<KeyRow> = self.state.get(&key_key(&ready.hotkey))?;
        match row {
            Some(row) if row.key == ready.signer() => {}
            Some(_) => return Err(TxError::NotMember { what: "readiness" }),
            None => return Err(TxError::Early(format!("readiness of {}: no key is registered", ready.hotkey))),
        }
        let key = ready_key(epoch, &ready.hotkey);
        if self.state.has(&key)? {
            return invalid(format!("readiness of {} is there already", ready.hotkey));
        }
        self.state.put(key, &());
        Ok(())
    }

    fn evidence(&mut self, e: &Equivocation) -> Result<(), TxError> {
        if !self.known && !e.verify(&self.network) {
            return invalid("evidence: not two different values, both signed");
        }
        // Who leaves the set with an epoch's last block can still be caught for that block.
        let parent: Option<ValidatorSet> = self.state.get(PARENT_SET)?;
        let find = |set: &ValidatorSet| set.by_key(&e.key()).cloned();
        let Some(member) = find(&self.frame.set).or_else(|| parent.as_ref().and_then(find)) else {
            return Err(TxError::NotMember { what: "evidence" });
        };
        let (height, round, step) = e.place();
        if height > self.height {
            return invalid("evidence: of a height that is still to come");
        }
        let known: Reputation = self.state.get(&reputation_key(&member.hotkey))?.unwrap_or_default();
        if known.epoch.equivocations >= MAX_EVIDENCE_PER_EPOCH {
            return invalid("evidence: enough is known of this validator in this epoch");
        }
        let seen = state::evidence_key(&e.key(), height, round, step);
        if self.state.has(&seen)? {
            return invalid("evidence: it is recorded already");
        }
        self.state.put(seen, e);
        self.blame(&member.hotkey, |r| r.equivocations += 1)?;
        Ok(())
    }

    /// Ends rounds that have been open for too long and counts them.
    ///
    /// # Errors
    /// The state cannot be read.
    fn expire_rounds(&mut self) -> Result<(), TxError> {
        for spec in state::challenges(&self.state)? {
            for (key, row) in self.state.scan(&state::open_prefix(spec.id))? {
                let row: OpenRow = state::parse(&key, &row)?;
                if row.height.saturating_add(self.frame.parameters.open_round_blocks) > self.height {
                    continue;
                }
                let Some(round) = round_of(spec.id, &key) else { continue };
                self.close_round(round)?;
                self.owe_images(&round, &row);
                self.blame(&round.validator, |r| r.unclosed += 1)?;
            }
        }
        self.state.accept();
        Ok(())
    }
}

/// The round behind an open round's key.
fn round_of(challenge: ChallengeId, key: &[u8]) -> Option<RoundId> {
    let rest = key.strip_prefix(state::open_prefix(challenge).as_slice())?;
    let (validator, rest) = rest.split_at_checked(32)?;
    let seq = rest.get(1..)?;
    Some(RoundId {
        validator: Hotkey(validator.try_into().ok()?),
        challenge,
        seq: u64::from_be_bytes(seq.try_into().ok()?),
    })
}
