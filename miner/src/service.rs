//! Answering validators: only for what is agreed, a commitment first, the image on proof of it.
//!
//! The service knows nothing of the network: bytes in, bytes out. Nothing that a validator says is
//! believed. That a round is open, of this validator, with this miner and this image, and under which
//! rules and deadline, is proved by rows of the certified state; so are the miner's own commitments before
//! it shows an answer. It shows none before the round's deadline has passed since the challenge came: by
//! then nobody can hand it in elsewhere, not even in a round that was opened earlier with the same image.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::rules::Rules;
use perturb_ledger::agreed::{self, AgreedError, AgreedRows};
use perturb_ledger::{Handover, LightError};
use perturb_types::encode;
use perturb_types::round::AnswerStatement;
use perturb_types::wire::{self, Challenge, Decline, MinerRequest, MinerResponse, WireRound};
use perturb_types::{Digest, Hotkey, HotkeyPair, NetworkId, RoundId};

use crate::attack::{self, Attack, Context, Task};
use crate::book::{Book, Bound, Work};
use crate::criterion::RuleCriterion;
use crate::drill::Drill;
use crate::follow::Follower;
use crate::metered::Metered;
use crate::model::Model;
use crate::turns::{NoTurn, Turns, Waits};

/// How far behind this miner's clock a header may lie, milliseconds: it bounds how long a row that the
/// state no longer has can be shown. Clocks that differ by less do no harm.
const MAX_AGE_MS: u64 = 120_000;

/// Passes one attack may spend: the deadline binds long before on any real model.
const PASS_BUDGET: u64 = 100_000;

/// Left of the deadline for signing, sending and the validator's own clock.
const SAFETY: Duration = Duration::from_millis(150);

/// A model as the service holds it.
pub struct Loaded {
    /// Its name in the challenge configuration.
    pub name: String,
    /// SHA-256 of its weights.
    pub digest: Digest,
    /// The model.
    pub model: Box<dyn Model + Send>,
}

/// What the service did so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Challenges answered with a digest.
    pub answered: u64,
    /// Challenges declined.
    pub declined: u64,
    /// Images handed over.
    pub fetched: u64,
}

/// A miner's side of `/perturb/challenge/1`.
pub struct Service {
    network: NetworkId,
    pair: HotkeyPair,
    attack: Box<dyn Attack>,
    models: Vec<(Digest, Mutex<Loaded>)>,
    turns: Turns,
    drill: Drill,
    sets: Follower,
    book: Mutex<Book>,
    counts: Mutex<Counts>,
    /// The time in Unix milliseconds.
    clock: fn() -> u64,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves plain data that is still whole.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A refusal with its reason.
struct Refusal(Decline, String);

fn bad(why: impl ToString) -> Refusal {
    Refusal(Decline::BadChallenge, why.to_string())
}

fn not_agreed(why: impl ToString) -> Refusal {
    Refusal(Decline::NotAgreed, why.to_string())
}

/// What a request comes to; `None` is silence.
type Reply = Result<Option<MinerResponse>, Refusal>;

impl Service {
    /// A service for one miner with these models, which follows the network's sets.
    pub fn new(
        pair: HotkeyPair,
        attack: Box<dyn Attack>,
        models: Vec<Loaded>,
        drill: Drill,
        sets: Follower,
        clock: fn() -> u64,
    ) -> Self {
        Self {
            network: sets.trust().network(),
            pair,
            attack,
            turns: Turns::new(models.len()),
            models: models.into_iter().map(|loaded| (loaded.digest, Mutex::new(loaded))).collect(),
            drill,
            sets,
            book: Mutex::default(),
            counts: Mutex::default(),
            clock,
        }
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// Answers one request of `validator`, the hotkey that the connection proved. Blocks while
    /// the attack runs; `waits` says whether the validator still waits for it. `None` means silence
    /// (only a drill is ever silent).
    pub fn answer(&self, validator: &Hotkey, request: &[u8], waits: &Waits) -> Option<Vec<u8>> {
        let received = Instant::now();
        let reply = match wire::from_cbor("request", request, wire::MAX_MINER_REQUEST_BYTES) {
            Ok(MinerRequest::Offer { round, agreed }) => self.offer(validator, &round, &agreed),
            Ok(MinerRequest::Handovers { handovers }) => self.follow(&handovers),
            Ok(MinerRequest::Challenge(c)) => self.challenge(validator, &c, received, waits),
            Ok(MinerRequest::Fetch { round, agreed }) => self.fetch(validator, &round, &agreed),
            Err(e) => Err(bad(e)),
        };
        let reply = match reply {
            Ok(reply) => reply?,
            Err(Refusal(code, why)) => {
                tracing::info!(validator = %validator.short(), ?code, %why, "declined");
                lock(&self.counts).declined += 1;
                MinerResponse::Declined { code, why }
            }
        };
        wire::to_cbor("response", &reply).ok()
    }

    /// This miner's own number for a round.
    fn salt(&self, round: &RoundId) -> u64 {
        let digest = Digest::of(&encode::encode(&(self.pair.hotkey(), round)));
        digest.0.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
    }

    /// The round of a request, which has to be the asker's.
    fn round(validator: &Hotkey, round: &WireRound) -> Result<RoundId, Refusal> {
        let round = RoundId::try_from(round).map_err(bad)?;
        if round.validator != *validator {
            return Err(bad("the round is of another validator"));
        }
        Ok(round)
    }

    fn rows(&self, bytes: &[u8]) -> Result<AgreedRows, Refusal> {
        let rows: AgreedRows = encode::decode("agreed rows", bytes, wire::MAX_MINER_REQUEST_BYTES).map_err(bad)?;
        if rows.header.time_ms.saturating_add(MAX_AGE_MS) < (self.clock)() {
            return Err(not_agreed("the header is too old, or this machine's clock is ahead"));
        }
        Ok(rows)
    }

    /// What a proof that does not hold is answered with: where only a set is missing, from where on.
    fn unproved(&self, error: AgreedError) -> Reply {
        match error {
            AgreedError::Light(LightError::Set { .. }) => {
                Ok(Some(MinerResponse::Need { from: self.sets.trust().from() }))
            }
            other => Err(not_agreed(other)),
        }
    }

    fn follow(&self, handovers: &[impl AsRef<[u8]>]) -> Reply {
        if handovers.len() > wire::MAX_HANDOVERS {
            return Err(bad("too many handovers at once"));
        }
        let read = |bytes: &[u8]| encode::decode::<Handover>("handover", bytes, bytes.len());
        let handovers = handovers.iter().map(|bytes| read(bytes.as_ref()));
        let handovers: Vec<Handover> = handovers.collect::<Result<_, _>>().map_err(bad)?;
        Ok(Some(MinerResponse::Need { from: self.sets.follow(&handovers) }))
    }

    fn offer(&self, validator: &Hotkey, round: &WireRound, agreed: &[u8]) -> Reply {
        let round = Self::round(validator, round)?;
        if lock(&self.book).is_begun(&round) {
            return Err(bad("one attack per round"));
        }
        let (rows, trust) = (self.rows(agreed)?, self.sets.trust());
        let (row, spec) = match agreed::offered(&rows, &round, &trust) {
            Ok(rows) => rows,
            Err(error) => return self.unproved(error),
        };
        if row.commits.is_some() {
            return Err(bad("the round's miners are bound already"));
        }
        let me = self.pair.hotkey();
        let place = row.miners.iter().position(|m| *m == me).ok_or_else(|| bad("this miner was not sampled"))?;
        if !self.drill.is_garbage() && !self.models.iter().any(|(digest, _)| *digest == spec.model_digest) {
            let named: String = spec.model.chars().take(64).collect();
            return Err(Refusal(Decline::UnknownModel, format!("`{named}` with these weights is not here")));
        }
        let power = trust.set().by_hotkey(validator).map_or(1, |member| member.power);
        lock(&self.book).offer(round, Work { image: row.image, spec, power, place });
        Ok(Some(MinerResponse::Ready))
    }

    fn fetch(&self, validator: &Hotkey, round: &WireRound, agreed: &[u8]) -> Reply {
        let round = Self::round(validator, round)?;
        let Some(bound) = lock(&self.book).bound(&round) else {
            return Err(Refusal(Decline::UnknownAnswer, "no answer is kept for this round".into()));
        };
        if Instant::now() < bound.show_from {
            return Err(Refusal(Decline::Early, "the round's deadline has not passed".into()));
        }
        let rows = self.rows(agreed)?;
        let row = match agreed::opened(&rows, &round, &self.sets.trust()) {
            Ok(row) => row,
            Err(error) => return self.unproved(error),
        };
        let agreed = row.commits.and_then(|commits| commits.get(bound.place).copied().flatten());
        if agreed != Some(bound.commit) {
            return Err(not_agreed("the agreed state does not have this miner's commitment"));
        }
        lock(&self.counts).fetched += 1;
        Ok(Some(MinerResponse::Image { png: bound.png.to_vec() }))
    }

    /// Waits for the model and attacks the image; `None` where nothing was found.
    fn attack(
        &self,
        round: &RoundId,
        (clean, label): (&Pixels, u16),
        work: &Work,
        (received, allowed): (Instant, Duration),
        waits: &Waits,
    ) -> Result<Option<Pixels>, Refusal> {
        let known = self.models.iter().enumerate().find(|(_, (digest, _))| *digest == work.spec.model_digest);
        let Some((at, (_, model))) = known else { return Ok(None) };
        let turn = self.turns.take(round.validator, work.power, at, received + allowed, waits);
        let turn = turn.map_err(|why| match why {
            NoTurn::Full => Refusal(Decline::Busy, "others wait who had less".into()),
            NoTurn::Over => Refusal(Decline::NotFound, "the model was not free in time".into()),
        })?;
        let mut loaded = lock(model);
        let model = Metered::new(&mut *loaded.model, PASS_BUDGET, Some(received + allowed));
        let mut model = model.sharing(turn.power(), self.turns.load(at)).asked(waits.clone());
        let criterion = RuleCriterion::new(aimed_at(&work.spec.rules));
        let salt = self.salt(round);
        let task = Task { clean, label, salt };
        // The validator's clock runs since the challenge came in, not since the model was free.
        let context = Context::new(&mut model, &criterion, vec![task]).since(received, Instant::now);
        let found = attack::run(self.attack.as_ref(), context);
        let found = found.map_err(|e| Refusal(Decline::Internal, e.to_string()))?.pop().flatten();
        Ok(found.map(|found| self.drill.bent(&mut model, (clean, label), found.image, salt)))
    }

    fn challenge(&self, validator: &Hotkey, c: &Challenge, received: Instant, waits: &Waits) -> Reply {
        let round = Self::round(validator, &c.round)?;
        let image = Digest::of(&c.image);
        let Some(work) = lock(&self.book).begin(&round, &image) else {
            return Err(not_agreed("this round and image were not shown to be agreed, or are worked on already"));
        };
        let clean = Pixels::decode_png(&c.image, &PngLimits::default()).map_err(bad)?;
        let deadline = Duration::from_millis(u64::from(work.spec.rules.deadline_ms));
        let allowed = deadline.saturating_sub(SAFETY);
        let found = match self.drill.unworked(&c.image, received + allowed) {
            Some(found) => found,
            None => self.attack(&round, (&clean, c.label), &work, (received, allowed), waits)?,
        };
        let Some(answer) = self.drill.image(&clean, found) else {
            return match self.drill.silent() {
                true => Ok(None),
                false => Err(Refusal(Decline::NotFound, "no adversarial image within the rules and the time".into())),
            };
        };
        let png = answer.encode_png().map_err(|e| Refusal(Decline::Internal, e.to_string()))?;
        let png = self.drill.bytes(png);
        self.drill.dawdle(received, allowed);
        let statement = AnswerStatement::of(&self.network, round, image, &self.pair.hotkey(), &Digest::of(&png));
        let signed = statement.sign(&self.pair, &self.network);
        let (place, show_from) = (work.place, received + deadline);
        lock(&self.book).bind(round, Bound { place, commit: signed.commit, png: Arc::new(png), show_from });
        lock(&self.counts).answered += 1;
        let signature = self.drill.signature(signed.signature).to_vec();
        self.drill.turn();
        Ok(Some(MinerResponse::Announce { commit: signed.commit.0.to_vec(), signature }))
    }
}

/// The rules as an attack weighs them: time in milliseconds, since the bucket only hides what a moment costs.
fn aimed_at(rules: &Rules) -> Rules {
    Rules { time_bucket_ms: 1, ..rules.clone() }
}

#[cfg(test)]
mod tests;
