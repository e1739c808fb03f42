//! Keys that sign the same message with the same bytes.
//!
//! sr25519 signatures are randomised in a node; here their nonce follows from key and message, so
//! that a seed or a finding means the same in every run.

use perturb_ledger::tx::{Delegation, Order, OwnerAction};
use perturb_types::encode::{self, Domain};
use perturb_types::round::{AnswerCommit, AnswerStatement};
use perturb_types::{ConsensusPair, Digest, Hotkey, NetworkId, RoundId};
use rand_core_06::{CryptoRng, RngCore};

/// No randomness: the nonce follows from the secret and the message alone.
struct NoRandomness;

impl RngCore for NoRandomness {
    fn next_u32(&mut self) -> u32 {
        0
    }
    fn next_u64(&mut self) -> u64 {
        0
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.fill(0);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core_06::Error> {
        dest.fill(0);
        Ok(())
    }
}

impl CryptoRng for NoRandomness {}

/// A hotkey.
#[derive(Clone)]
pub struct Signer(schnorrkel::Keypair);

impl Signer {
    /// The signer of a number.
    pub fn of(number: u8) -> Self {
        let mini = schnorrkel::MiniSecretKey::from_bytes(&[number; 32]).unwrap();
        Self(mini.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519))
    }

    /// The public key.
    pub fn hotkey(&self) -> Hotkey {
        Hotkey(self.0.public.to_bytes())
    }

    /// An sr25519 signature that differs only with the message.
    pub fn sign(&self, domain: Domain, network: &NetworkId, payload: &[u8]) -> [u8; 64] {
        let context = schnorrkel::signing_context(b"substrate");
        let transcript = context.bytes(&encode::signing_bytes(domain, network, payload));
        self.0.sign(schnorrkel::context::attach_rng(transcript, NoRandomness)).to_bytes()
    }

    /// What it binds itself to for an answer.
    pub fn bind(&self, network: &NetworkId, round: RoundId, image: Digest, answer: &Digest) -> AnswerCommit {
        let statement = AnswerStatement::of(network, round, image, &self.hotkey(), answer);
        let signature = self.sign(Domain::Answer, network, &encode::encode(&statement));
        AnswerCommit { commit: statement.commit, signature }
    }

    /// A delegation to a consensus key.
    pub fn delegate(&self, network: &NetworkId, pair: &ConsensusPair, sequence: u64) -> Delegation {
        let half = Delegation::accept(network, self.hotkey(), pair, sequence);
        Delegation { signature: self.sign(Domain::Delegation, network, &half.statement()), ..half }
    }

    /// An owner's order.
    pub fn order(&self, network: &NetworkId, order: Order, nonce: u64, effective: u64, expires: u64) -> OwnerAction {
        let bytes = encode::encode(&(&order, nonce, effective, expires));
        let signature = self.sign(Domain::OwnerAction, network, &bytes);
        OwnerAction { order, nonce, effective, expires, signature }
    }
}
