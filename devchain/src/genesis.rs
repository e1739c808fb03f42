//! The genesis file: which subnets and neurons the chain begins with.
//!
//! It is JSON. Every field but `subnets[].netuid` and the neurons' keys has a default, unknown fields are refused:
//!
//! ```json
//! {
//!   "stake_threshold_tao": 1000,
//!   "beacon": {"secret_seed": "development", "period_ms": 3000, "genesis_time": 1692803367},
//!   "balances": [{"account": "5…", "rao": 1000000000}],
//!   "subnets": [{
//!     "netuid": 2, "tempo": 45, "min_allowed_weights": 1, "weights_set_rate_limit": 0,
//!     "neurons": [
//!       {"hotkey": "5…", "coldkey": "5…", "stake": 2000, "validator_permit": true},
//!       {"hotkey": "5…", "coldkey": "5…"}
//!     ]
//!   }]
//! }
//! ```
//!
//! Neurons get uids 0, 1, … in the order of the list. The same file gives the same genesis hash: two chains begun with
//! one file are two endpoints of one chain to a client, which tell it different blocks.

use crate::beacon::{BeaconSource, MAX_PERIOD_MS, MIN_PERIOD_MS};
use crate::error::GenesisError;
use crate::runtime::primitives::{MAX_MECHANISMS, MAX_SUBNETS};
use serde::{Deserialize, Serialize};
use sp_core::crypto::Ss58Codec;
use sp_runtime::AccountId32;
use std::collections::BTreeSet;

/// Rao in one TAO.
pub const RAO_PER_TAO: u64 = 1_000_000_000;

/// More neurons than this in one subnet are refused: uids are 16 bits and every snapshot carries all of them.
pub const MAX_NEURONS: usize = 4096;

/// Possible numbers of epochs from commit to reveal.
pub const REVEAL_PERIODS: std::ops::RangeInclusive<u64> = 1..=100;

/// The whole genesis file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Genesis {
    /// Stake weight, in whole TAO, below which a hotkey may not set weights. Default 1000, as on the main network.
    pub stake_threshold_tao: StakeThresholdTao,
    /// The randomness beacon that opens timelocked commits: one of the chain's own, or `"quicknet"`. Default: its own,
    /// with quicknet's schedule.
    pub beacon: BeaconSource,
    /// Who gets a validator permit. Default: whom the file or a development call gives one.
    pub permits: Permits,
    /// Accounts with a balance. Nobody needs one: calls on weights and axons are free.
    pub balances: Vec<Balance>,
    /// The subnets.
    pub subnets: Vec<Subnet>,
}

/// Where validator permits come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permits {
    /// They stay as the genesis file and development calls set them.
    #[default]
    Fixed,
    /// Each epoch gives them to the neurons with the greatest stake weight, as the real chain does.
    ByStake,
}

/// Whole TAO, 1000 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StakeThresholdTao(pub u64);

impl Default for StakeThresholdTao {
    fn default() -> Self {
        Self(1000)
    }
}

/// An account and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// Its ss58 address.
    pub account: String,
    /// Free balance in rao (10⁻⁹ TAO).
    pub rao: u64,
}

/// One subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Its number, from 1 to 4095.
    pub netuid: u16,
    /// Blocks per epoch. Default 360; 0 stops epochs.
    #[serde(default = "default_tempo")]
    pub tempo: u16,
    /// Number of mechanisms, 1 to 16. Default 1.
    #[serde(default = "default_mechanisms")]
    pub mechanisms: u8,
    /// Least number of weights in a submission (a sole self-weight is exempt). Default 0.
    #[serde(default)]
    pub min_allowed_weights: u16,
    /// Greatest share of 65535 one weight may have of the sum. Default 65535, no limit.
    #[serde(default = "default_max_weights_limit")]
    pub max_weights_limit: u16,
    /// Least version key of a submission; 0, the default, accepts any.
    #[serde(default)]
    pub weights_version_key: u64,
    /// Blocks a neuron waits between two submissions. Default 0, no limit (100 on the main network).
    #[serde(default)]
    pub weights_set_rate_limit: u64,
    /// Blocks a neuron waits between two servings of its axon. Default 0, no limit (50 on the main network).
    #[serde(default)]
    pub serving_rate_limit: u64,
    /// Refuse plain weights, as most subnets of the main network do. Default false.
    #[serde(default)]
    pub commit_reveal: bool,
    /// Epochs from a commit to its reveal, 1 to 100. Default 1.
    #[serde(default = "default_reveal_period")]
    pub reveal_period_epochs: u64,
    /// Blocks after which a silent neuron counts as inactive. Default 5000.
    #[serde(default = "default_activity_cutoff")]
    pub activity_cutoff: u16,
    /// Most uids. Default 256; never less than the neurons below.
    #[serde(default = "default_max_uids")]
    pub max_allowed_uids: u16,
    /// Most validators with a permit. Default 128.
    #[serde(default = "default_max_validators")]
    pub max_allowed_validators: u16,
    /// Hotkey of the owner (ss58), who may set weights without stake and permit. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_hotkey: Option<String>,
    /// Coldkey of the owner (ss58). Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_coldkey: Option<String>,
    /// The neurons, in the order of their uids.
    #[serde(default)]
    pub neurons: Vec<Neuron>,
}

/// One neuron.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neuron {
    /// ss58 address of its hotkey.
    pub hotkey: String,
    /// ss58 address of its coldkey.
    pub coldkey: String,
    /// Alpha staked to it on this subnet, in whole TAO units (10⁹ rao). Default 0.
    #[serde(default)]
    pub stake: u64,
    /// May it set weights on others. Default false.
    #[serde(default)]
    pub validator_permit: bool,
    /// Free balance of the hotkey, in rao. Default 0.
    #[serde(default)]
    pub balance_rao: u64,
}

fn default_tempo() -> u16 {
    360
}

fn default_mechanisms() -> u8 {
    1
}

fn default_max_weights_limit() -> u16 {
    u16::MAX
}

fn default_reveal_period() -> u64 {
    1
}

fn default_activity_cutoff() -> u16 {
    5000
}

fn default_max_uids() -> u16 {
    256
}

fn default_max_validators() -> u16 {
    128
}

impl Subnet {
    /// A subnet of this number with default parameters and no neurons.
    #[must_use]
    pub fn new(netuid: u16) -> Self {
        Self {
            netuid,
            tempo: default_tempo(),
            mechanisms: default_mechanisms(),
            min_allowed_weights: 0,
            max_weights_limit: default_max_weights_limit(),
            weights_version_key: 0,
            weights_set_rate_limit: 0,
            serving_rate_limit: 0,
            commit_reveal: false,
            reveal_period_epochs: default_reveal_period(),
            activity_cutoff: default_activity_cutoff(),
            max_allowed_uids: default_max_uids(),
            max_allowed_validators: default_max_validators(),
            owner_hotkey: None,
            owner_coldkey: None,
            neurons: Vec::new(),
        }
    }
}

impl Genesis {
    /// Read and check a genesis file's text.
    ///
    /// # Errors
    /// [`GenesisError`] names the field and what is wrong with it.
    pub fn from_json(text: &str) -> Result<Self, GenesisError> {
        let genesis: Self = serde_json::from_str(text)?;
        genesis.check()?;
        Ok(genesis)
    }

    /// Check everything that the types do not say: addresses, ranges, no key or netuid twice.
    ///
    /// # Errors
    /// [`GenesisError`] with the offending value.
    pub fn check(&self) -> Result<(), GenesisError> {
        if self.stake_threshold_tao.0.checked_mul(RAO_PER_TAO).is_none() {
            return Err(GenesisError::Amount(self.stake_threshold_tao.0));
        }
        for balance in &self.balances {
            account(&balance.account)?;
        }
        if let BeaconSource::Own(own) = &self.beacon
            && !(MIN_PERIOD_MS..=MAX_PERIOD_MS).contains(&own.period_ms)
        {
            return Err(GenesisError::BeaconPeriod(own.period_ms));
        }
        let mut netuids = BTreeSet::new();
        for subnet in &self.subnets {
            if !netuids.insert(subnet.netuid) {
                return Err(GenesisError::DuplicateSubnet(subnet.netuid));
            }
            subnet.check()?;
        }
        Ok(())
    }
}

impl Subnet {
    fn check(&self) -> Result<(), GenesisError> {
        if self.netuid == 0 || self.netuid >= MAX_SUBNETS {
            return Err(GenesisError::Netuid(self.netuid));
        }
        if self.mechanisms == 0 || self.mechanisms > MAX_MECHANISMS {
            return Err(GenesisError::Mechanisms(self.mechanisms));
        }
        if !REVEAL_PERIODS.contains(&self.reveal_period_epochs) {
            return Err(GenesisError::RevealPeriod(self.reveal_period_epochs));
        }
        if self.neurons.len() > MAX_NEURONS {
            return Err(GenesisError::TooManyNeurons(self.neurons.len()));
        }
        for key in [&self.owner_hotkey, &self.owner_coldkey].into_iter().flatten() {
            account(key)?;
        }
        let mut hotkeys = BTreeSet::new();
        for neuron in &self.neurons {
            if !hotkeys.insert(account(&neuron.hotkey)?) {
                return Err(GenesisError::DuplicateHotkey(neuron.hotkey.clone()));
            }
            account(&neuron.coldkey)?;
            if neuron.stake.checked_mul(RAO_PER_TAO).is_none() {
                return Err(GenesisError::Amount(neuron.stake));
            }
        }
        Ok(())
    }
}

/// Parse an ss58 address.
///
/// # Errors
/// [`GenesisError::Address`] with the text.
pub fn account(address: &str) -> Result<AccountId32, GenesisError> {
    AccountId32::from_ss58check(address).map_err(|_| GenesisError::Address(address.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::beacon::NamedBeacon;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

    #[test]
    fn a_short_file_takes_the_documented_defaults() {
        let text = format!(r#"{{"subnets":[{{"netuid":2,"neurons":[{{"hotkey":"{ALICE}","coldkey":"{BOB}"}}]}}]}}"#);
        let genesis = Genesis::from_json(&text).unwrap();
        assert_eq!(genesis.stake_threshold_tao.0, 1000);
        let subnet = &genesis.subnets[0];
        assert_eq!((subnet.tempo, subnet.mechanisms, subnet.weights_set_rate_limit), (360, 1, 0));
        assert_eq!((subnet.max_weights_limit, subnet.commit_reveal), (65535, false));
        assert_eq!((subnet.neurons[0].stake, subnet.neurons[0].validator_permit), (0, false));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut subnet = Subnet::new(3);
        let (hotkey, coldkey) = (ALICE.to_owned(), BOB.to_owned());
        subnet.neurons.push(Neuron { hotkey, coldkey, stake: 5, validator_permit: true, balance_rao: 1 });
        let genesis = Genesis { subnets: vec![subnet], ..Genesis::default() };
        assert_eq!(Genesis::from_json(&serde_json::to_string(&genesis).unwrap()).unwrap(), genesis);
        let quicknet = Genesis { beacon: BeaconSource::Named(NamedBeacon::Quicknet), ..Genesis::default() };
        assert_eq!(Genesis::from_json(r#"{"beacon":"quicknet"}"#).unwrap(), quicknet);
        assert_eq!(Genesis::from_json(r#"{"beacon":{}}"#).unwrap(), Genesis::default());
    }

    #[test]
    fn bad_files_are_refused_with_the_reason() {
        let neuron = |key: &str| format!(r#"{{"hotkey":"{key}","coldkey":"{BOB}"}}"#);
        let subnet = |fields: &str, neurons: &str| format!(r#"{{"subnets":[{{{fields},"neurons":[{neurons}]}}]}}"#);
        let reason = |text: &str| Genesis::from_json(text).unwrap_err().to_string();
        assert!(reason("{").contains("not valid JSON"));
        assert!(reason(r#"{"subnet":[]}"#).contains("unknown field"));
        assert!(reason(&subnet(r#""netuid":0"#, "")).contains("netuid 0"));
        assert!(reason(&subnet(r#""netuid":4096"#, "")).contains("netuid 4096"));
        assert!(reason(&subnet(r#""netuid":1,"mechanisms":17"#, "")).contains("17"));
        assert!(reason(&subnet(r#""netuid":1,"reveal_period_epochs":0"#, "")).contains("0 epochs"));
        assert!(reason(r#"{"beacon":{"period_ms":99}}"#).contains("99 ms"));
        assert!(reason(r#"{"beacon":"slownet"}"#).contains("beacon"));
        assert!(reason(&subnet(r#""netuid":1"#, &neuron("5Grw"))).contains("5Grw"));
        let twice = format!("{},{}", neuron(ALICE), neuron(ALICE));
        assert!(reason(&subnet(r#""netuid":1"#, &twice)).contains(ALICE));
        let rich = format!(r#"{{"hotkey":"{ALICE}","coldkey":"{BOB}","stake":18446744074}}"#);
        assert!(reason(&subnet(r#""netuid":1"#, &rich)).contains("18446744074"));
    }
}
