//! The genesis file.
//!
//! It is JSON; its canonical form is borsh of [`Genesis`], and the network id is that form's digest
//! in domain `Genesis` under the zero network id. Delegations in it are therefore signed over the
//! zero network id.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_challenge::rules::{Rules, RulesError};
use perturb_challenge::used::MAX_IMAGES;
use perturb_types::encode::{self, Domain};
use perturb_types::{Beacon, ChallengeId, ConsensusKey, Digest, Hotkey, NetworkId, RoundKey, limits};
use serde::{Deserialize, Serialize};

use crate::bounds;
pub use crate::parameters::{Draws, Parameters, ReputationRule, SpotChecks, Timeouts};
use crate::pulse;
use crate::tx::{Delegation, Snapshot};
use crate::validators::{SetError, Validator, ValidatorSet, powers};

/// Challenges at once: mechanisms of a subnet.
pub const MAX_CHALLENGES: usize = 16;

/// Characters of a name in the file.
const MAX_NAME: usize = 128;

/// How the validators' means of a miner become one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Clamp to the weighted 1/3 and 2/3 quantiles, reject what is far outside, average by weight.
    Quantile,
    /// Reject beyond so many standard deviations (millionths), average by weight. The classical
    /// rule: it can never fire for five validators or fewer.
    Zscore {
        /// The bound in millionths of σ.
        bound: u32,
    },
}

/// One challenge, as agreed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeSpec {
    /// Its id.
    pub id: ChallengeId,
    /// The mechanism of the subnet whose weights it makes.
    pub mechanism: u8,
    /// The rules.
    pub rules: Rules,
    /// The model's name.
    pub model: String,
    /// SHA-256 of its weights file.
    pub model_digest: Digest,
    /// The image source, as `perturb_challenge::source` lists them: `demo:SEED:LEN`, `folder:PATH`, ….
    pub source: String,
    /// The source's fingerprint.
    pub source_fingerprint: Digest,
    /// Its images.
    pub source_len: u64,
    /// Milliseconds from one round's start to the next one's, per validator.
    pub interval_ms: u32,
    /// Miners of a round.
    pub miners_per_round: u16,
    /// Validators' means to one score.
    pub aggregation: Aggregation,
    /// Below this confidence (millionths) a miner is left out.
    pub min_confidence: u32,
}

/// A delegation in the file, with its signatures in hex.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisDelegation {
    /// Who delegates.
    pub hotkey: Hotkey,
    /// To which key.
    pub key: ConsensusKey,
    /// With which round key.
    pub round_key: RoundKey,
    /// The hotkey's signature, hex of 64 bytes.
    pub signature: String,
    /// The consensus key's signature, hex of 64 bytes.
    pub acceptance: String,
    /// The round key's signature, hex of 64 bytes.
    pub possession: String,
}

/// Where a network begins.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The genesis hash of the Bittensor chain it lives on.
    pub chain_genesis: Digest,
    /// The subnet.
    pub netuid: u16,
    /// Unix milliseconds; the first block's time is later.
    pub time_ms: u64,
    /// The subnet where it begins.
    pub snapshot: Snapshot,
    /// The founders' delegations (sequence 0).
    pub delegations: Vec<GenesisDelegation>,
    /// Whose orders are obeyed.
    pub owner: Hotkey,
    /// The challenges, by rising id.
    pub challenges: Vec<ChallengeSpec>,
    /// The numbers.
    pub parameters: Parameters,
    /// The drand beacon whose pulses draw what is checked again.
    pub beacon: Beacon,
}

/// A genesis file that makes no network.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// Not JSON of the right shape.
    #[error("not a genesis file: {0}")]
    Json(String),
    /// Something in it contradicts itself.
    #[error("{0}")]
    Content(String),
    /// Rules of a challenge.
    #[error("challenge {0}: {1}")]
    Rules(ChallengeId, RulesError),
    /// The founders make no set.
    #[error("founders: {0}")]
    Set(#[from] SetError),
}

fn signature(text: &str) -> Option<[u8; 64]> {
    let mut out = [0u8; 64];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut out).ok()?;
    Some(out)
}

impl GenesisDelegation {
    /// The file's form of a delegation.
    pub fn of(d: &Delegation) -> Self {
        Self {
            hotkey: d.hotkey,
            key: d.key,
            round_key: d.round_key,
            signature: hex::encode(d.signature),
            acceptance: hex::encode(d.acceptance),
            possession: hex::encode(d.possession),
        }
    }

    /// The delegation, if its signatures are well-formed and verify.
    pub fn verified(&self) -> Option<Delegation> {
        let Self { hotkey, key, round_key, .. } = *self;
        let possession = signature(&self.possession)?;
        let (signature, acceptance) = (signature(&self.signature)?, signature(&self.acceptance)?);
        let d = Delegation { hotkey, key, round_key, sequence: 0, signature, acceptance, possession };
        d.verify(&NetworkId([0; 32])).then_some(d)
    }
}

impl ChallengeSpec {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn validate(&self) -> Result<(), GenesisError> {
        self.rules.validate().map_err(|e| GenesisError::Rules(self.id, e))?;
        let fault = |what: &str| Err(GenesisError::Content(format!("challenge {}: {what}", self.id)));
        if self.model.len() > MAX_NAME || self.source.len() > MAX_NAME {
            return fault("a name is longer than 128 bytes");
        }
        if self.miners_per_round == 0 || usize::from(self.miners_per_round) > limits::MAX_ROUND_MINERS {
            return fault("miners_per_round must lie in 1..=256");
        }
        if self.source_len == 0 || self.source_len > MAX_IMAGES {
            return fault(&format!("source_len must lie in 1..={MAX_IMAGES}"));
        }
        if self.mechanism > 15 || self.min_confidence > 1_000_000 {
            return fault("mechanism must be below 16, min_confidence at most 1000000");
        }
        bounds::challenge(self)?;
        Ok(())
    }
}

impl Genesis {
    /// Reads and checks a genesis file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(json: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = serde_json::from_slice(json).map_err(|e| GenesisError::Json(e.to_string()))?;
        genesis.validate()?;
        Ok(genesis)
    }

    /// The network id.
    pub fn network_id(&self) -> NetworkId {
        NetworkId(encode::digest_of(Domain::Genesis, &NetworkId([0; 32]), self).0)
    }

    /// Least stake of a member, rao.
    pub fn min_stake_rao(&self) -> u64 {
        self.parameters.min_stake_rao
    }

    /// Checks everything that the types do not say.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), GenesisError> {
        let fault = |what: String| Err(GenesisError::Content(what));
        if !self.snapshot.is_ordered() {
            return fault("snapshot: uids must rise and no hotkey may be there twice".into());
        }
        let ids = self.challenges.iter().map(|c| c.id).collect::<Vec<_>>();
        if ids.is_empty() || ids.len() > MAX_CHALLENGES || ids.windows(2).any(|w| w[0] >= w[1]) {
            return fault(format!("challenges: 1 to {MAX_CHALLENGES}, by rising id"));
        }
        self.challenges.iter().try_for_each(ChallengeSpec::validate)?;
        self.parameters.validate()?;
        pulse::check_beacon(&self.beacon)?;
        self.parameters.draws.validate(&self.beacon, self.parameters.block_interval_ms)?;
        self.founders().map(|_| ())
    }

    /// The first validator set.
    ///
    /// # Errors
    /// A delegation that does not verify, a founder without permit or stake, or no set.
    pub fn founders(&self) -> Result<ValidatorSet, GenesisError> {
        if self.delegations.len() > limits::MAX_VALIDATORS {
            return Err(SetError::Size(self.delegations.len()).into());
        }
        let mut members = Vec::new();
        for d in &self.delegations {
            let fault = |what: &str| GenesisError::Content(format!("delegation of {}: {what}", d.hotkey));
            d.verified().ok_or_else(|| fault("a signature does not verify"))?;
            let neuron = self.snapshot.neuron(&d.hotkey).ok_or_else(|| fault("not registered in the snapshot"))?;
            if !neuron.permit || neuron.stake_rao < self.parameters.min_stake_rao {
                return Err(fault("no permit, or less than the minimum stake"));
            }
            members.push((d.hotkey, d.key, neuron.stake_rao));
        }
        let stakes: Vec<u64> = members.iter().map(|m| m.2).collect();
        let power = powers(self.parameters.power, &stakes);
        let set = members.into_iter().zip(power).map(|((hotkey, key, _), power)| Validator { hotkey, key, power });
        Ok(ValidatorSet::new(set.collect())?)
    }
}
