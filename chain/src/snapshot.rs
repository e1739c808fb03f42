//! The metagraph snapshot: a subnet's neurons and parameters at ONE finalized block.
//!
//! Two validators that read the same block must hold the same value, byte for byte: neurons are
//! sorted by uid, everything is an integer, and the source depends on the block's metadata alone:
//! `SubnetInfoRuntimeApi.get_subnet_state` where the runtime has it, otherwise the storage maps.
//! A *failing* call is an error, never a reason to take the other source: the sources state
//! stake differently (the call: alpha and weighted TAO together; storage: alpha alone).

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use perturb_types::Hotkey;
use serde::{Deserialize, Serialize};
use subxt::dynamic;
use subxt::ext::scale_decode::DecodeAsType;
use subxt::utils::AccountId32;

use crate::link::Link;
use crate::read::{MAX_NEURONS, Reader};
use crate::{BlockHash, ChainClient, ChainError};

/// Storage reads of the fallback in flight at once.
const PARALLEL_READS: usize = 16;
/// The runtime API about subnets.
const API: &str = "SubnetInfoRuntimeApi";
/// Its method that returns the whole state of a subnet.
const STATE: &str = "get_subnet_state";
/// Its method that foretells the next epoch.
const NEXT_EPOCH: &str = "get_next_epoch_start_block";

/// One registered hotkey of a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neuron {
    /// Its number on the subnet.
    pub uid: u16,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// The account that owns it.
    pub coldkey: [u8; 32],
    /// Its stake weight on the subnet in rao (10⁻⁹): alpha and weighted TAO.
    pub stake_rao: u64,
    /// Whether it may set weights.
    pub permit: bool,
    /// The block in which this hotkey took the uid.
    pub registered_at: u64,
}

/// The subnet's parameters that weights must obey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hyper {
    /// Fewest entries of a weight vector (a sole self-weight is exempt).
    pub min_allowed_weights: u16,
    /// Greatest share of one entry, in 1/65535; 65535 where the runtime has no such limit.
    pub max_weights_limit: u16,
    /// Lowest version key accepted; 0 accepts any.
    pub weights_version_key: u64,
    /// Blocks that must pass between two updates of one validator.
    pub weights_rate_limit: u64,
    /// Whether plain weights are refused in favour of commit and reveal.
    pub commit_reveal: bool,
    /// Mechanisms of the subnet.
    pub mechanism_count: u8,
    /// Blocks after which a silent validator counts as inactive; `None` if the runtime has none.
    pub activity_cutoff: Option<u16>,
    /// Whether Yuma consensus is switched off here, so that one validator's weights count alone.
    pub null_consensus: bool,
}

/// A subnet at one finalized block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetagraphSnapshot {
    /// The subnet.
    pub netuid: u16,
    /// Height of the block.
    pub block_number: u64,
    /// Its hash.
    pub block_hash: BlockHash,
    /// The subnet's epoch index at the block.
    pub epoch_index: u64,
    /// Blocks between two epochs; 0: none run.
    pub tempo: u16,
    /// The neurons, by rising uid.
    pub neurons: Vec<Neuron>,
    /// The parameters.
    pub hyper: Hyper,
}

impl MetagraphSnapshot {
    /// The neuron of a hotkey.
    pub fn neuron(&self, hotkey: &Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|n| n.hotkey == *hotkey)
    }

    /// The neuron with a uid.
    pub fn by_uid(&self, uid: u16) -> Option<&Neuron> {
        self.neurons.binary_search_by_key(&uid, |n| n.uid).ok().and_then(|i| self.neurons.get(i))
    }
}

/// The columns of a subnet's state, each by uid.
#[derive(Debug, Clone, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct SubnetState {
    hotkeys: Vec<AccountId32>,
    coldkeys: Vec<AccountId32>,
    validator_permit: Vec<bool>,
    block_at_registration: Vec<u64>,
    total_stake: Vec<u64>,
}

/// Joins the columns into neurons. Refuses columns of different lengths, surplus neurons and a
/// hotkey that appears twice: a node that answers so cannot be right.
fn assemble(state: SubnetState) -> Result<Vec<Neuron>, String> {
    let n = state.hotkeys.len();
    let lengths = [
        ("coldkeys", state.coldkeys.len()),
        ("validator_permit", state.validator_permit.len()),
        ("block_at_registration", state.block_at_registration.len()),
        ("total_stake", state.total_stake.len()),
    ];
    if let Some((name, len)) = lengths.into_iter().find(|(_, len)| *len != n) {
        return Err(format!("{n} hotkeys but {len} entries of {name}"));
    }
    if n > MAX_NEURONS {
        return Err(format!("{n} neurons, at most {MAX_NEURONS} are believed"));
    }
    let mut seen = BTreeSet::new();
    let columns = state
        .hotkeys
        .into_iter()
        .zip(state.coldkeys)
        .zip(state.validator_permit)
        .zip(state.block_at_registration)
        .zip(state.total_stake);
    let mut neurons = Vec::with_capacity(n);
    for (uid, ((((hotkey, coldkey), permit), registered_at), stake_rao)) in (0u16..).zip(columns) {
        let hotkey = Hotkey(hotkey.0);
        if !seen.insert(hotkey) {
            return Err(format!("hotkey {hotkey} appears twice"));
        }
        neurons.push(Neuron { uid, hotkey, coldkey: coldkey.0, stake_rao, permit, registered_at });
    }
    Ok(neurons)
}

impl Reader {
    fn has_api(&self, method: &str) -> bool {
        let api = self.at.metadata_ref().runtime_api_trait_by_name(API);
        api.is_some_and(|api| api.method_by_name(method).is_some())
    }

    fn no_such_subnet(&self, netuid: u16) -> ChainError {
        ChainError::NoSuchSubnet { endpoint: self.link.endpoint(), netuid }
    }

    async fn state_by_api(&self, netuid: u16) -> Result<SubnetState, ChainError> {
        let payload = dynamic::runtime_api_call::<_, Option<SubnetState>>(API, STATE, (netuid,));
        let apis = self.at.runtime_apis();
        let state = self.link.ask(STATE, apis.call(payload)).await?;
        state.ok_or_else(|| self.no_such_subnet(netuid))
    }

    async fn state_by_storage(&self, netuid: u16) -> Result<SubnetState, ChainError> {
        let exists: bool = self.required("NetworksAdded", (netuid,)).await?;
        if !exists {
            return Err(self.no_such_subnet(netuid));
        }
        let count: u16 = self.required("SubnetworkN", (netuid,)).await?;
        let keys = self.by_uid::<AccountId32>("Keys", netuid).await?;
        let permits: Vec<bool> = self.required("ValidatorPermit", (netuid,)).await?;
        let registered = self.by_uid::<u64>("BlockAtRegistration", netuid).await?;
        let hotkeys: Vec<AccountId32> = (0..count).filter_map(|uid| keys.get(&uid).copied()).collect();
        let coldkeys = self.each(&hotkeys, |key| self.required("Owner", (key.0,))).await?;
        let total_stake = self.each(&hotkeys, |key| self.required("TotalHotkeyAlpha", (key.0, netuid))).await?;
        let column = |uid: u16| usize::from(uid);
        Ok(SubnetState {
            // A uid without a key makes the lengths differ, which `assemble` refuses.
            validator_permit: (0..count).map(|uid| permits.get(column(uid)).copied().unwrap_or(false)).collect(),
            block_at_registration: (0..count).map(|uid| registered.get(&uid).copied().unwrap_or(0)).collect(),
            hotkeys,
            coldkeys,
            total_stake,
        })
    }

    /// One read per hotkey, a few at a time, in order.
    async fn each<'a, T, F, Fut>(&self, hotkeys: &'a [AccountId32], read: F) -> Result<Vec<T>, ChainError>
    where
        F: Fn(&'a AccountId32) -> Fut,
        Fut: Future<Output = Result<T, ChainError>>,
    {
        // Collected first: a closure kept across an await point hides that the future may be sent.
        let reads: Vec<Fut> = hotkeys.iter().map(read).collect();
        futures::stream::iter(reads).buffered(PARALLEL_READS).try_collect().await
    }

    async fn hyper(&self, netuid: u16) -> Result<Hyper, ChainError> {
        Ok(Hyper {
            min_allowed_weights: self.required("MinAllowedWeights", (netuid,)).await?,
            max_weights_limit: self.value("MaxWeightsLimit", (netuid,)).await?.unwrap_or(u16::MAX),
            weights_version_key: self.required("WeightsVersionKey", (netuid,)).await?,
            weights_rate_limit: self.required("WeightsSetRateLimit", (netuid,)).await?,
            commit_reveal: self.required("CommitRevealWeightsEnabled", (netuid,)).await?,
            mechanism_count: self.value("MechanismCountCurrent", (netuid,)).await?.unwrap_or(1),
            activity_cutoff: self.value("ActivityCutoff", (netuid,)).await?,
            null_consensus: self.null_consensus(netuid).await?,
        })
    }

    /// The whole snapshot of this block.
    pub(crate) async fn snapshot(&self, netuid: u16) -> Result<MetagraphSnapshot, ChainError> {
        let state =
            if self.has_api(STATE) { self.state_by_api(netuid).await? } else { self.state_by_storage(netuid).await? };
        let neurons = assemble(state).map_err(|reason| self.link.inconsistent(reason))?;
        let epoch_index = self.epoch_index(netuid).await?;
        let tempo = self.required("Tempo", (netuid,)).await?;
        let hyper = self.hyper(netuid).await?;
        Ok(MetagraphSnapshot {
            netuid,
            block_number: self.number,
            block_hash: self.hash,
            epoch_index,
            tempo,
            neurons,
            hyper,
        })
    }
}

impl ChainClient {
    /// The subnet at the finalized block `at` (`None`: the finalized head).
    ///
    /// # Errors
    /// The chain is away, the block is unknown, not finalized or its state pruned, the subnet
    /// does not exist, or the runtime is not Subtensor's.
    pub async fn snapshot(&self, netuid: u16, at: Option<BlockHash>) -> Result<MetagraphSnapshot, ChainError> {
        self.reader(at).await?.snapshot(netuid).await
    }

    /// The subnet's parameters at the finalized block `at` (`None`: the head).
    ///
    /// # Errors
    /// As [`ChainClient::snapshot`].
    pub async fn hyper(&self, netuid: u16, at: Option<BlockHash>) -> Result<Hyper, ChainError> {
        self.reader(at).await?.hyper(netuid).await
    }

    /// The block in which the subnet's next epoch starts, as foreseen at the finalized block
    /// `at` (`None`: the head). For showing progress only: the owner may change the tempo.
    /// `None` if no epoch is due or the runtime does not say.
    ///
    /// # Errors
    /// As [`ChainClient::snapshot`].
    pub async fn next_epoch_start(&self, netuid: u16, at: Option<BlockHash>) -> Result<Option<u64>, ChainError> {
        let reader = self.reader(at).await?;
        if !reader.has_api(NEXT_EPOCH) {
            return Ok(None);
        }
        let payload = dynamic::runtime_api_call::<_, Option<u64>>(API, NEXT_EPOCH, (netuid,));
        reader.link.ask(NEXT_EPOCH, reader.at.runtime_apis().call(payload)).await
    }

    /// The snapshot read from the storage maps, whatever the metadata offers: what runtimes
    /// without the state API get. For tests and for comparing the two.
    ///
    /// # Errors
    /// As [`ChainClient::snapshot`].
    pub async fn neurons_by_storage(&self, netuid: u16, at: Option<BlockHash>) -> Result<Vec<Neuron>, ChainError> {
        let reader = self.reader(at).await?;
        let state = reader.state_by_storage(netuid).await?;
        let link: &Link = &reader.link;
        assemble(state).map_err(|reason| link.inconsistent(reason))
    }
}

/// Checks that a runtime's own `get_subnet_state` type has our columns: its zero value (no
/// neurons) decodes to no neurons.
#[cfg(test)]
pub(crate) fn check_state_type(metadata: &subxt::Metadata, ty: u32) {
    // Some, a compact netuid, and eighteen empty columns at most: all zeros.
    let bytes = [&[1u8][..], &[0; 64]].concat();
    let state = Option::<SubnetState>::decode_as_type(&mut &bytes[..], ty, metadata.types());
    assert_eq!(state.ok().flatten().map(assemble), Some(Ok(Vec::new())));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use scale::{Compact, Encode};

    fn state(n: u8) -> SubnetState {
        SubnetState {
            hotkeys: (0..n).map(|i| AccountId32([i; 32])).collect(),
            coldkeys: (0..n).map(|i| AccountId32([100 + i; 32])).collect(),
            validator_permit: (0..n).map(|i| i % 2 == 0).collect(),
            block_at_registration: (0..n).map(u64::from).collect(),
            total_stake: (0..n).map(|i| 1_000 * u64::from(i)).collect(),
        }
    }

    #[test]
    fn columns_become_neurons_by_rising_uid() {
        let neurons = assemble(state(3)).unwrap();
        assert_eq!(neurons.iter().map(|n| n.uid).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(
            neurons[1],
            Neuron {
                uid: 1,
                hotkey: Hotkey([1; 32]),
                coldkey: [101; 32],
                stake_rao: 1_000,
                permit: false,
                registered_at: 1
            }
        );
        assert_eq!(assemble(state(0)).unwrap(), []);
    }

    #[test]
    fn columns_of_different_lengths_are_refused() {
        for i in 0..4 {
            let mut bad = state(3);
            match i {
                0 => drop(bad.coldkeys.pop()),
                1 => bad.validator_permit.push(true),
                2 => drop(bad.block_at_registration.pop()),
                _ => bad.total_stake.clear(),
            }
            assert!(assemble(bad).unwrap_err().contains("3 hotkeys but"));
        }
    }

    #[test]
    fn a_hotkey_that_appears_twice_is_refused() {
        let mut bad = state(3);
        bad.hotkeys[2] = bad.hotkeys[0];
        assert!(assemble(bad).unwrap_err().contains("appears twice"));
    }

    /// The chain's own shape: compact numbers, some inside newtypes, fields we do not read.
    mod chain {
        use scale::{Compact, Encode};
        use scale_info::TypeInfo;

        #[derive(Encode, TypeInfo, Clone, Copy, scale::CompactAs)]
        pub struct AlphaBalance(pub u64);
        #[derive(Encode, TypeInfo)]
        pub struct AccountId32(pub [u8; 32]);
        #[derive(Encode, TypeInfo)]
        pub struct SubnetState {
            pub netuid: Compact<u16>,
            pub hotkeys: Vec<AccountId32>,
            pub coldkeys: Vec<AccountId32>,
            pub active: Vec<bool>,
            pub validator_permit: Vec<bool>,
            pub last_update: Vec<Compact<u64>>,
            pub block_at_registration: Vec<Compact<u64>>,
            pub alpha_stake: Vec<Compact<AlphaBalance>>,
            pub total_stake: Vec<Compact<AlphaBalance>>,
            pub emission_history: Vec<Vec<Compact<AlphaBalance>>>,
        }
    }

    #[test]
    fn the_chains_state_is_decoded_by_field_name_through_compacts_and_newtypes() {
        let mut registry = scale_info::Registry::new();
        let id = registry.register_type(&scale_info::meta_type::<Option<chain::SubnetState>>()).id;
        let types: scale_info::PortableRegistry = registry.into();
        let bytes = Some(chain::SubnetState {
            netuid: Compact(2),
            hotkeys: vec![chain::AccountId32([7; 32])],
            coldkeys: vec![chain::AccountId32([8; 32])],
            active: vec![true],
            validator_permit: vec![true],
            last_update: vec![Compact(9)],
            block_at_registration: vec![Compact(5)],
            alpha_stake: vec![Compact(chain::AlphaBalance(1))],
            total_stake: vec![Compact(chain::AlphaBalance(u64::MAX))],
            emission_history: vec![],
        })
        .encode();
        let state = Option::<SubnetState>::decode_as_type(&mut &bytes[..], id, &types).unwrap().unwrap();
        let neurons = assemble(state).unwrap();
        assert_eq!(neurons[0].stake_rao, u64::MAX);
        assert_eq!((neurons[0].registered_at, neurons[0].coldkey), (5, [8; 32]));
        let none = Option::<chain::SubnetState>::None.encode();
        assert!(Option::<SubnetState>::decode_as_type(&mut &none[..], id, &types).unwrap().is_none());
    }

    #[test]
    fn a_state_cut_short_is_an_error_not_a_panic() {
        let mut registry = scale_info::Registry::new();
        let id = registry.register_type(&scale_info::meta_type::<Option<chain::SubnetState>>()).id;
        let types: scale_info::PortableRegistry = registry.into();
        for bytes in [&[][..], &[1], &[1, 4, 0xff, 0xff], &[1, 4, 255, 255, 255, 255]] {
            assert!(Option::<SubnetState>::decode_as_type(&mut &*bytes, id, &types).is_err());
        }
    }

    #[test]
    fn a_snapshot_finds_neurons_by_hotkey_and_uid() {
        let snapshot = MetagraphSnapshot {
            netuid: 2,
            block_number: 10,
            block_hash: BlockHash([1; 32]),
            epoch_index: 3,
            tempo: 360,
            neurons: assemble(state(3)).unwrap(),
            hyper: Hyper {
                min_allowed_weights: 1,
                max_weights_limit: u16::MAX,
                weights_version_key: 0,
                weights_rate_limit: 100,
                commit_reveal: false,
                mechanism_count: 1,
                activity_cutoff: None,
                null_consensus: false,
            },
        };
        assert_eq!(snapshot.neuron(&Hotkey([2; 32])).unwrap().uid, 2);
        assert_eq!(snapshot.by_uid(1).unwrap().hotkey, Hotkey([1; 32]));
        assert!(snapshot.by_uid(3).is_none());
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<MetagraphSnapshot>(&json).unwrap(), snapshot);
    }
}
