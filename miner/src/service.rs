//! Answering validators: digest first, image after.
//!
//! The service knows nothing of the network: bytes in, bytes out. A challenge is checked before any
//! work: the opening's signature, that it opens *this* round of *this* validator, that it names
//! this miner and this image, and that the model is the one at hand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::rules::Rules;
use perturb_types::encode;
use perturb_types::round::AnswerStatement;
use perturb_types::wire::{self, Challenge, Decline, MinerRequest, MinerResponse};
use perturb_types::{Digest, Envelope, Hotkey, HotkeyPair, NetworkId, RoundId, RoundOpen};

use crate::attack::{self, Attack, Context, Task};
use crate::criterion::RuleCriterion;
use crate::drill::Drill;
use crate::metered::Metered;
use crate::model::Model;

/// Answers kept until their image is fetched: a validator fetches at once, so a few per validator
/// of the largest set suffice.
const KEPT_ANSWERS: usize = 512;

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

/// A model, and how many challenges wait for it: attacks on one model take turns.
struct Held {
    digest: Digest,
    waiting: Arc<AtomicU32>,
    loaded: Mutex<Loaded>,
}

impl Held {
    fn new(loaded: Loaded) -> Self {
        Self { digest: loaded.digest, waiting: Arc::default(), loaded: Mutex::new(loaded) }
    }

    /// The model, when it is this one's turn.
    fn take(&self) -> MutexGuard<'_, Loaded> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let loaded = lock(&self.loaded);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        loaded
    }
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
    models: Vec<Held>,
    drill: Drill,
    answers: Mutex<VecDeque<(RoundId, Digest, Vec<u8>)>>,
    counts: Mutex<Counts>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves plain data that is still whole.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A refusal with its reason.
struct Refusal(Decline, String);

impl Service {
    /// A service for one miner with these models.
    pub fn new(
        network: NetworkId,
        pair: HotkeyPair,
        attack: Box<dyn Attack>,
        models: Vec<Loaded>,
        drill: Drill,
    ) -> Self {
        Self {
            network,
            pair,
            attack,
            models: models.into_iter().map(Held::new).collect(),
            drill,
            answers: Mutex::new(VecDeque::new()),
            counts: Mutex::default(),
        }
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// Answers one request of `validator`, the hotkey that the connection proved. Blocks while
    /// the attack runs. `None` means silence (only a drill is ever silent).
    pub fn answer(&self, validator: &Hotkey, request: &[u8]) -> Option<Vec<u8>> {
        let received = Instant::now();
        let reply = match wire::from_cbor("request", request, wire::MAX_MINER_REQUEST_BYTES) {
            Ok(MinerRequest::Challenge(c)) => match self.challenge(validator, &c, received) {
                Ok(reply) => reply?,
                Err(Refusal(code, why)) => {
                    tracing::info!(validator = %validator.short(), ?code, %why, "challenge declined");
                    lock(&self.counts).declined += 1;
                    MinerResponse::Declined { code, why }
                }
            },
            Ok(MinerRequest::Fetch { round, answer }) => self.fetch(&round, &answer),
            Err(e) => MinerResponse::Declined { code: Decline::BadChallenge, why: e.to_string() },
        };
        wire::to_cbor("response", &reply).ok()
    }

    /// This miner's own number for a round.
    fn salt(&self, round: &RoundId) -> u64 {
        let digest = Digest::of(&encode::encode(&(self.pair.hotkey(), round)));
        digest.0.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
    }

    fn fetch(&self, round: &wire::WireRound, answer: &[u8]) -> MinerResponse {
        let wanted = RoundId::try_from(round).ok().zip(wire::digest(answer).ok());
        let found = wanted.and_then(|(r, d)| {
            lock(&self.answers).iter().find(|(ar, ad, _)| *ar == r && *ad == d).map(|(_, _, png)| png.clone())
        });
        match found {
            Some(png) => {
                lock(&self.counts).fetched += 1;
                MinerResponse::Image { png }
            }
            None => MinerResponse::Declined { code: Decline::UnknownAnswer, why: "no such answer".into() },
        }
    }

    fn challenge(
        &self,
        validator: &Hotkey,
        c: &Challenge,
        received: Instant,
    ) -> Result<Option<MinerResponse>, Refusal> {
        let bad = |why: String| Refusal(Decline::BadChallenge, why);
        let round = RoundId::try_from(&c.round).map_err(|e| bad(e.to_string()))?;
        let envelope: Envelope = encode::decode("opening", &c.open, c.open.len()).map_err(|e| bad(e.to_string()))?;
        let open = envelope.open::<RoundOpen>(&self.network).map_err(|e| bad(e.to_string()))?;
        if open.round != round || round.validator != *validator {
            return Err(bad("the opening is of another round or validator".into()));
        }
        let me = self.pair.hotkey();
        if !open.miners.contains(&me) {
            return Err(bad("this miner was not sampled".into()));
        }
        let image_digest = Digest::of(&c.image);
        if open.image != image_digest {
            return Err(bad("the image is not the one that was bound".into()));
        }
        let clean = Pixels::decode_png(&c.image, &PngLimits::default()).map_err(|e| bad(e.to_string()))?;
        let Some(rules) = rules_of(&c.rules) else {
            return Err(bad(format!("unknown rules `{}`", c.rules.preset.chars().take(32).collect::<String>())));
        };

        let allowed = Duration::from_millis(u64::from(c.deadline_ms)).saturating_sub(SAFETY);
        let found = if self.drill.is_garbage() {
            None
        } else {
            let Some(held) = self.models.iter().find(|held| c.model_digest == held.digest.0) else {
                let named: String = c.model.chars().take(64).collect();
                return Err(Refusal(Decline::UnknownModel, format!("`{named}` with these weights is not here")));
            };
            let mut loaded = held.take();
            let model = Metered::new(&mut *loaded.model, PASS_BUDGET, Some(received + allowed));
            let mut model = model.sharing(held.waiting.clone());
            let criterion = RuleCriterion::new(rules);
            let task = Task { clean: &clean, label: c.label, salt: self.salt(&round) };
            // The validator's clock runs since the challenge came in, not since the model was free.
            let context = Context::new(&mut model, &criterion, vec![task]).since(received, Instant::now);
            let found = attack::run(self.attack.as_ref(), context);
            found.map_err(|e| Refusal(Decline::Internal, e.to_string()))?.pop().flatten()
        };
        let found = found.map(|f| f.image);
        let Some(image) = self.drill.image(&clean, found) else {
            return if self.drill.silent() {
                Ok(None)
            } else {
                Err(Refusal(Decline::NotFound, "no adversarial image within the rules and the time".into()))
            };
        };
        let png = image.encode_png().map_err(|e| Refusal(Decline::Internal, e.to_string()))?;
        let png = self.drill.bytes(png);
        self.drill.dawdle(received, allowed);
        let answer = Digest::of(&png);
        let statement = AnswerStatement { round, image: image_digest, answer };
        let signed = statement.sign(&self.pair, &self.network);
        let mut answers = lock(&self.answers);
        if answers.len() >= KEPT_ANSWERS {
            answers.pop_front();
        }
        answers.push_back((round, answer, png));
        lock(&self.counts).answered += 1;
        let signature = self.drill.signature(signed.signature).to_vec();
        self.drill.turn();
        Ok(Some(MinerResponse::Announce { answer: answer.0.to_vec(), signature }))
    }
}

/// The rules behind the wire form: the preset with the numbers it was sent.
fn rules_of(w: &wire::WireRules) -> Option<Rules> {
    Rules::from_wire(w)
}
