//! Transactions: one ordered enum, each re-verified on execution.
//!
//! A transaction carries signed bytes, never a claim that they were checked. Tags 0 to 11 are in use;
//! upgrade plans, anchors and evaluation orders will take the next ones, in order.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_challenge::vector::Hyper;
use perturb_types::encode::{self, DecodeError, Domain};
use perturb_types::envelope::Payload;
use perturb_types::keys::verify_ed25519;
use perturb_types::{
    ConsensusKey, ConsensusPair, Digest, Envelope, Hotkey, HotkeyPair, NetworkId, RoundKey, RoundPair, limits,
};
use serde::{Deserialize, Serialize};

use crate::block::ChainReference;
use crate::evidence::Equivocation;
use crate::parameters::Parameters;
use crate::pulse::Pulse;

/// A neuron of the subnet.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Neuron {
    /// Its number.
    pub uid: u16,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its coldkey.
    pub coldkey: [u8; 32],
    /// Its stake weight, rao.
    pub stake_rao: u64,
    /// Whether it may set weights.
    pub permit: bool,
}

/// The subnet at one finalized block of the chain.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Snapshot {
    /// The block.
    pub reference: ChainReference,
    /// Blocks per epoch of the subnet.
    pub tempo: u16,
    /// Fewest entries of a weight vector.
    pub min_allowed_weights: u16,
    /// Largest part of one weight, in 65535ths.
    pub max_weight_limit: u16,
    /// Lowest version key accepted; 0 accepts any.
    pub weights_version_key: u64,
    /// Whether plain weights are refused.
    pub commit_reveal: bool,
    /// Mechanisms.
    pub mechanisms: u8,
    /// The neurons, by rising uid.
    pub neurons: Vec<Neuron>,
}

impl Snapshot {
    /// The neuron of a hotkey.
    pub fn neuron(&self, hotkey: &Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|n| n.hotkey == *hotkey)
    }

    /// The burn uid, or the lowest uid where nobody holds that one: the chain refuses a whole vector for
    /// one uid that it does not know.
    pub fn burn_uid(&self, wanted: u16) -> u16 {
        let held = self.neurons.binary_search_by_key(&wanted, |n| n.uid).is_ok();
        if held { wanted } else { self.neurons.first().map_or(wanted, |n| n.uid) }
    }

    /// The limits on a weight vector.
    pub fn hyper(&self) -> Hyper {
        Hyper { min_allowed: self.min_allowed_weights, max_weight_limit: self.max_weight_limit }
    }

    /// Whether uids rise and no hotkey is there twice.
    pub fn is_ordered(&self) -> bool {
        let mut hotkeys: Vec<&Hotkey> = self.neurons.iter().map(|n| &n.hotkey).collect();
        hotkeys.sort_unstable();
        self.neurons.len() <= limits::MAX_NEURONS
            && self.neurons.windows(2).all(|w| w[0].uid < w[1].uid)
            && hotkeys.windows(2).all(|w| w[0] < w[1])
    }
}

/// A hotkey's delegation to a consensus key and its round key, signed by all three.
///
/// Statement: `borsh(hotkey, consensus key, round key, sequence u64)`. The hotkey signs it in domain
/// `Delegation` (sr25519), the consensus key (ed25519) and the round key (sr25519, signing context
/// `perturb/round-key/1`) in domain `DelegationAccept`: so nobody can delegate to a key that is not theirs. In a genesis file, which makes the network id, both sign
/// over the zero network id.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Delegation {
    /// Who delegates.
    pub hotkey: Hotkey,
    /// To which key.
    pub key: ConsensusKey,
    /// With which round key ([`RoundPair::of`] it).
    pub round_key: RoundKey,
    /// Rises with every delegation of the hotkey.
    pub sequence: u64,
    /// The hotkey's signature.
    pub signature: [u8; 64],
    /// The consensus key's signature.
    pub acceptance: [u8; 64],
    /// The round key's signature.
    pub possession: [u8; 64],
}

impl Delegation {
    /// What the keys sign.
    #[must_use]
    pub fn statement(&self) -> Vec<u8> {
        encode::encode(&(self.hotkey, self.key, self.round_key, self.sequence))
    }

    /// Signs a delegation with both keys.
    pub fn sign(network: &NetworkId, hotkey: &HotkeyPair, key: &ConsensusPair, sequence: u64) -> Self {
        Self::accept(network, hotkey.hotkey(), key, sequence).endorse(network, hotkey)
    }

    /// The consensus key's half, where the hotkey lives elsewhere: its own signature is still to come.
    pub fn accept(network: &NetworkId, hotkey: Hotkey, key: &ConsensusPair, sequence: u64) -> Self {
        let round = RoundPair::of(key);
        let none = [0; 64];
        let (round_key, key_of) = (round.public(), key.public());
        let bare =
            Self { hotkey, key: key_of, round_key, sequence, signature: none, acceptance: none, possession: none };
        let statement = bare.statement();
        let acceptance = key.sign(&encode::signing_bytes(Domain::DelegationAccept, network, &statement));
        Self { acceptance, possession: round.possess(network, &statement), ..bare }
    }

    /// The hotkey's half.
    pub fn endorse(self, network: &NetworkId, hotkey: &HotkeyPair) -> Self {
        Self { signature: hotkey.sign(Domain::Delegation, network, &self.statement()), ..self }
    }

    /// Whether the signatures of consensus key and round key verify.
    #[must_use]
    pub fn is_accepted(&self, network: &NetworkId) -> bool {
        let statement = self.statement();
        let bytes = encode::signing_bytes(Domain::DelegationAccept, network, &statement);
        verify_ed25519(&self.key, &bytes, &self.acceptance)
            && self.round_key.is_possessed(network, &statement, &self.possession)
    }

    /// Whether all signatures verify.
    #[must_use]
    pub fn verify(&self, network: &NetworkId) -> bool {
        self.hotkey.verify(Domain::Delegation, network, &self.statement(), &self.signature) && self.is_accepted(network)
    }
}

/// A validator's word that it will take part in the epoch after the one named.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Readiness {
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// The epoch in the making when it says so.
    pub epoch: u64,
}

impl Payload for Readiness {
    const DOMAIN: Domain = Domain::Readiness;
    const NAME: &'static str = "readiness";
    const MAX_BYTES: usize = 64;
}

/// What the owner may order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// A new challenge; its id must be free.
    AddChallenge(Box<crate::genesis::ChallengeSpec>),
    /// Another specification for a challenge.
    UpdateChallenge(Box<crate::genesis::ChallengeSpec>),
    /// A challenge ends.
    RemoveChallenge(perturb_types::ChallengeId),
    /// The lowest program version validators must run (major, minor, patch).
    SetRequiredVersion(u16, u16, u16),
    /// Other numbers for the whole network.
    SetParameters(Box<Parameters>),
    /// An order that waits for its height is taken back: its nonce.
    Revoke(u64),
    /// Another owner; orders that wait stay.
    SetOwner(Hotkey),
}

/// An owner's order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OwnerAction {
    /// What.
    pub order: Order,
    /// One more than the last.
    pub nonce: u64,
    /// Height from which on it holds: `order_delay_blocks` above the block that has it at least.
    pub effective: u64,
    /// Height after which it can no longer be agreed.
    pub expires: u64,
    /// The owner hotkey's signature over borsh(order, nonce, effective, expires) in domain
    /// `OwnerAction`.
    pub signature: [u8; 64],
}

impl OwnerAction {
    /// Signs an order.
    pub fn sign(
        network: &NetworkId,
        owner: &HotkeyPair,
        order: Order,
        nonce: u64,
        effective: u64,
        expires: u64,
    ) -> Self {
        let bytes = encode::encode(&(&order, nonce, effective, expires));
        let signature = owner.sign(Domain::OwnerAction, network, &bytes);
        Self { order, nonce, effective, expires, signature }
    }

    /// Whether the signature is the owner's.
    #[must_use]
    pub fn verify(&self, network: &NetworkId, owner: &Hotkey) -> bool {
        let bytes = encode::encode(&(&self.order, self.nonce, self.effective, self.expires));
        owner.verify(Domain::OwnerAction, network, &bytes, &self.signature)
    }
}

/// What a block does.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Transaction {
    /// A validator binds itself to a round (tag 0).
    RoundOpen(Envelope),
    /// A validator closes a round (tag 1).
    RoundResult(Envelope),
    /// A hotkey delegates (tag 2).
    KeyDelegation(Box<Delegation>),
    /// A validator will be there (tag 3).
    Readiness(Envelope),
    /// An epoch ends; made by the proposer, never by the mempool (tag 4).
    EpochClose {
        /// The epoch that ends.
        epoch: u64,
        /// The subnet at the block's chain reference.
        snapshot: Box<Snapshot>,
    },
    /// The owner orders (tag 5).
    OwnerAction(Box<OwnerAction>),
    /// Somebody signed two things that contradict each other (tag 6).
    Evidence(Box<Equivocation>),
    /// What a member found about a drawn round: a signed [`crate::verdict::CheckVerdict`] (tag 7).
    CheckVerdict(Envelope),
    /// A round of the beacon that draws what waits for it (tag 8).
    Pulse(Pulse),
    /// What the miners of a round are bound to: a signed [`perturb_types::RoundCommits`] (tag 9).
    RoundCommits(Envelope),
    /// The images of a round that ran out: a signed [`perturb_types::RoundReveal`] (tag 10).
    RoundReveal(Envelope),
    /// A round none of whose images serves: a signed [`perturb_types::RoundSkip`] (tag 11).
    RoundSkip(Envelope),
}

impl Transaction {
    /// Reads a transaction.
    ///
    /// # Errors
    /// Too large or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::decode("transaction", bytes, limits::MAX_TRANSACTION_BYTES)
    }

    /// Its domain-separated digest.
    pub fn digest(&self, network: &NetworkId) -> Digest {
        encode::digest_of(Domain::Transaction, network, self)
    }

    /// Its name in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundOpen(_) => "round opening",
            Self::RoundResult(_) => "round result",
            Self::KeyDelegation(_) => "key delegation",
            Self::Readiness(_) => "readiness",
            Self::EpochClose { .. } => "epoch close",
            Self::OwnerAction(_) => "owner action",
            Self::Evidence(_) => "evidence",
            Self::CheckVerdict(_) => "check verdict",
            Self::Pulse(_) => "pulse",
            Self::RoundCommits(_) => "round commits",
            Self::RoundReveal(_) => "round reveal",
            Self::RoundSkip(_) => "round skip",
        }
    }
}
