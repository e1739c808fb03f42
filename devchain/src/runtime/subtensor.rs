//! The pallet `SubtensorModule`: storage, calls, events and errors with the names, hashers, argument names and
//! indices of Subtensor's runtime at spec 461.
//!
//! Only what a validator node and its miners use is here. The rules live beside this file: `weights` (who may set
//! which weights), `commits` (who may commit them), `reveal` (how timelocked commits become weights), `epoch` (when a
//! subnet's epoch ends), `serving` (axons), `admin` (development changes that no extrinsic could make).

// The FRAME macros write items of their own, which carry no documentation, and `expect` on what they
// themselves have built; calls have the arguments that Subtensor's have.
#![allow(missing_docs, clippy::expect_used, clippy::too_many_arguments)]

pub use super::types::*;
pub use pallet::*;

#[frame_support::pallet]
pub mod pallet {
    use super::{AxonInfo, CommitBytes, EpochConsensus, HashCommit, NeuronCertificate, TimelockedCommit};
    use crate::runtime::primitives::{AlphaBalance, MechId, NetUid, NetUidStorageIndex, TaoBalance};
    use frame_support::dispatch::Pays;
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use sp_core::H256;
    use sp_runtime::traits::UniqueSaturatedInto;
    use sp_runtime::{AccountId32, PerU16};
    use std::collections::VecDeque;

    use frame_support::traits::{ConstBool, ConstU8, ConstU16, ConstU64};

    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId32, RuntimeEvent: From<Event<Self>>> {}

    /// The account whose id is 32 zero bytes: what the chain answers where nobody is registered.
    #[pallet::type_value]
    pub fn DefaultZeroAccount<T: Config>() -> T::AccountId {
        AccountId32::new([0; 32])
    }

    /// 18 % of 2⁶⁴: how much a unit of staked TAO counts beside a unit of alpha.
    #[pallet::type_value]
    pub fn DefaultTaoWeight() -> u64 {
        3_320_413_933_267_719_290
    }

    #[pallet::type_value]
    pub fn DefaultMechanismCount() -> MechId {
        MechId(1)
    }

    #[pallet::type_value]
    pub fn DefaultTokenSymbol() -> Vec<u8> {
        "\u{1d70f}".as_bytes().to_vec()
    }

    // ---- the whole chain

    /// Share of 2⁶⁴ that staked TAO counts beside alpha.
    #[pallet::storage]
    pub type TaoWeight<T> = StorageValue<_, u64, ValueQuery, DefaultTaoWeight>;
    /// Stake weight, in rao, below which a hotkey may not set weights.
    #[pallet::storage]
    pub type StakeThreshold<T> = StorageValue<_, u64, ValueQuery>;
    /// Number of subnets.
    #[pallet::storage]
    pub type TotalNetworks<T> = StorageValue<_, u16, ValueQuery>;
    /// Version that timelocked commits must bear.
    #[pallet::storage]
    pub type CommitRevealWeightsVersion<T> = StorageValue<_, u16, ValueQuery, ConstU16<4>>;

    // ---- keys and stake

    /// hotkey → coldkey.
    #[pallet::storage]
    pub type Owner<T: Config> =
        StorageMap<_, Blake2_128Concat, T::AccountId, T::AccountId, ValueQuery, DefaultZeroAccount<T>>;
    /// (hotkey, netuid) → alpha staked to it, in rao. On netuid 0 it is TAO.
    #[pallet::storage]
    pub type TotalHotkeyAlpha<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, AlphaBalance, ValueQuery>;
    /// (hotkey, netuid) → is it registered there.
    #[pallet::storage]
    pub type IsNetworkMember<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, bool, ValueQuery>;

    // ---- schedule of epochs

    /// Blocks from one epoch to the next; 0 stops them.
    #[pallet::storage]
    pub type Tempo<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<360>>;
    /// Block at which the last epoch ran.
    #[pallet::storage]
    pub type LastEpochBlock<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    /// Block at which an epoch runs out of turn; 0 for none.
    #[pallet::storage]
    pub type PendingEpochAt<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    /// Number of epochs that have run.
    #[pallet::storage]
    pub type SubnetEpochIndex<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    /// Blocks since the last epoch.
    #[pallet::storage]
    pub type BlocksSinceLastStep<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    /// Block of the last epoch (the chain's own spelling).
    #[pallet::storage]
    pub type LastMechansimStepBlock<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Epochs that one block runs at most; the others wait for the next block.
    #[pallet::storage]
    pub type MaxEpochsPerBlock<T> = StorageValue<_, u8, ValueQuery, ConstU8<2>>;

    /// Blocks from an owner's trigger to its epoch.
    #[pallet::storage]
    pub type AdminFreezeWindow<T> = StorageValue<_, u16, ValueQuery, ConstU16<10>>;
    /// Who counts in an epoch.
    #[pallet::storage]
    pub type SubnetEpochConsensus<T> = StorageMap<_, Identity, NetUid, EpochConsensus, ValueQuery>;

    // ---- commits

    /// (storage index, epoch) → timelocked commits of that epoch, in their order.
    #[pallet::storage]
    pub type TimelockedWeightCommits<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        NetUidStorageIndex,
        Twox64Concat,
        u64,
        VecDeque<TimelockedCommit<T::AccountId>>,
        ValueQuery,
    >;
    /// (storage index, hotkey) → commits by hash that wait for being revealed.
    #[pallet::storage]
    pub type WeightCommits<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        NetUidStorageIndex,
        Twox64Concat,
        T::AccountId,
        VecDeque<HashCommit>,
        OptionQuery,
    >;

    // ---- subnets and their parameters

    /// Does the subnet exist.
    #[pallet::storage]
    pub type NetworksAdded<T> = StorageMap<_, Identity, NetUid, bool, ValueQuery>;
    /// Number of uids.
    #[pallet::storage]
    pub type SubnetworkN<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery>;
    /// Block at which the subnet was made.
    #[pallet::storage]
    pub type NetworkRegisteredAt<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    /// Coldkey of the owner.
    #[pallet::storage]
    pub type SubnetOwner<T: Config> = StorageMap<_, Identity, NetUid, T::AccountId, ValueQuery, DefaultZeroAccount<T>>;
    /// Hotkey of the owner, who validates without a permit.
    #[pallet::storage]
    pub type SubnetOwnerHotkey<T: Config> =
        StorageMap<_, Identity, NetUid, T::AccountId, ValueQuery, DefaultZeroAccount<T>>;
    /// Symbol of the subnet's token.
    #[pallet::storage]
    pub type TokenSymbol<T> = StorageMap<_, Identity, NetUid, Vec<u8>, ValueQuery, DefaultTokenSymbol>;
    /// Number of mechanisms.
    #[pallet::storage]
    pub type MechanismCountCurrent<T> = StorageMap<_, Twox64Concat, NetUid, MechId, ValueQuery, DefaultMechanismCount>;
    /// Most uids the subnet can have.
    #[pallet::storage]
    pub type MaxAllowedUids<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<256>>;
    /// Most validators with a permit.
    #[pallet::storage]
    pub type MaxAllowedValidators<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<128>>;
    /// Blocks for which a new neuron is not replaced.
    #[pallet::storage]
    pub type ImmunityPeriod<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<4096>>;
    /// Blocks after which a silent validator is inactive.
    #[pallet::storage]
    pub type ActivityCutoff<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<5000>>;
    /// Greatest share (of 65535) one weight may have.
    #[pallet::storage]
    pub type MaxWeightsLimit<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<65535>>;
    /// Least version key a submission must bear; 0 accepts any.
    #[pallet::storage]
    pub type WeightsVersionKey<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    /// Least number of weights.
    #[pallet::storage]
    pub type MinAllowedWeights<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery>;
    /// Blocks between two submissions of one neuron.
    #[pallet::storage]
    pub type WeightsSetRateLimit<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<100>>;
    /// Blocks between two servings of one neuron.
    #[pallet::storage]
    pub type ServingRateLimit<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<50>>;
    /// Must weights be committed and revealed.
    #[pallet::storage]
    pub type CommitRevealWeightsEnabled<T> = StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;
    /// Epochs from commit to reveal.
    #[pallet::storage]
    pub type RevealPeriodEpochs<T> = StorageMap<_, Twox64Concat, NetUid, u64, ValueQuery, ConstU64<1>>;
    /// Majority of stake (of 65535) that makes consensus.
    #[pallet::storage]
    pub type Kappa<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<32767>>;
    /// Steepness of the trust sigmoid.
    #[pallet::storage]
    pub type Rho<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<10>>;
    /// May neurons register.
    #[pallet::storage]
    pub type NetworkRegistrationAllowed<T> = StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;
    /// Price of a registration, in rao.
    #[pallet::storage]
    pub type Burn<T> = StorageMap<_, Identity, NetUid, TaoBalance, ValueQuery>;

    // ---- neurons, by (netuid, key or uid)

    /// hotkey → uid.
    #[pallet::storage]
    pub type Uids<T: Config> = StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, T::AccountId, u16, OptionQuery>;
    /// uid → hotkey.
    #[pallet::storage]
    pub type Keys<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Identity, u16, T::AccountId, ValueQuery, DefaultZeroAccount<T>>;
    /// uid → block at which its hotkey registered.
    #[pallet::storage]
    pub type BlockAtRegistration<T> = StorageDoubleMap<_, Identity, NetUid, Identity, u16, u64, ValueQuery>;
    /// hotkey → where it serves.
    #[pallet::storage]
    pub type Axons<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, T::AccountId, AxonInfo, OptionQuery>;

    /// hotkey → the key with which it identifies itself.
    #[pallet::storage]
    pub type NeuronCertificates<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, T::AccountId, NeuronCertificate, OptionQuery>;

    // ---- neurons, one vector by uid for each subnet

    /// Stake weight as a share of 65535.
    #[pallet::storage]
    pub type StakeWeight<T> = StorageMap<_, Identity, NetUid, Vec<u16>, ValueQuery>;
    /// Has it been heard of within the activity cutoff.
    #[pallet::storage]
    pub type Active<T> = StorageMap<_, Identity, NetUid, Vec<bool>, ValueQuery>;
    /// May it set weights on others.
    #[pallet::storage]
    pub type ValidatorPermit<T> = StorageMap<_, Identity, NetUid, Vec<bool>, ValueQuery>;
    /// Consensus weight of each neuron.
    #[pallet::storage]
    pub type Consensus<T> = StorageMap<_, Identity, NetUid, Vec<PerU16>, ValueQuery>;
    /// Dividends of each validator.
    #[pallet::storage]
    pub type Dividends<T> = StorageMap<_, Identity, NetUid, Vec<PerU16>, ValueQuery>;
    /// Trust in each validator.
    #[pallet::storage]
    pub type ValidatorTrust<T> = StorageMap<_, Identity, NetUid, Vec<PerU16>, ValueQuery>;
    /// Emission of each neuron, in rao.
    #[pallet::storage]
    pub type Emission<T> = StorageMap<_, Identity, NetUid, Vec<AlphaBalance>, ValueQuery>;

    // ---- neurons, for each mechanism

    /// Incentive of each neuron.
    #[pallet::storage]
    pub type Incentive<T> = StorageMap<_, Identity, NetUidStorageIndex, Vec<PerU16>, ValueQuery>;
    /// Block at which each neuron registered or last set weights.
    #[pallet::storage]
    pub type LastUpdate<T> = StorageMap<_, Identity, NetUidStorageIndex, Vec<u64>, ValueQuery>;
    /// uid → the weights it has set: (uid, value), max-upscaled to 65535.
    #[pallet::storage]
    pub type Weights<T> = StorageDoubleMap<_, Identity, NetUidStorageIndex, Identity, u16, Vec<(u16, u16)>, ValueQuery>;
    /// uid → its bonds.
    #[pallet::storage]
    pub type Bonds<T> = StorageDoubleMap<_, Identity, NetUidStorageIndex, Identity, u16, Vec<(u16, u16)>, ValueQuery>;

    /// Indices are the real runtime's.
    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A neuron set its weights.
        #[codec(index = 5)]
        WeightsSet(NetUidStorageIndex, u16),
        /// A neuron registered.
        #[codec(index = 7)]
        NeuronRegistered(NetUid, u16, T::AccountId),
        /// The greatest share of one weight changed.
        #[codec(index = 11)]
        MaxWeightLimitSet(NetUid, u16),
        /// The least number of weights changed.
        #[codec(index = 20)]
        MinAllowedWeightSet(NetUid, u16),
        /// The rate limit of weights changed.
        #[codec(index = 23)]
        WeightsSetRateLimitSet(NetUid, u64),
        /// The least version key changed.
        #[codec(index = 33)]
        WeightsVersionKeySet(NetUid, u64),
        /// A neuron announced where it serves.
        #[codec(index = 29)]
        AxonServed(NetUid, T::AccountId),
        /// The tempo changed.
        #[codec(index = 53)]
        TempoSet(NetUid, u16),
        /// A neuron committed the hash of its weights.
        #[codec(index = 86)]
        WeightsCommitted(T::AccountId, NetUidStorageIndex, H256),
        /// A neuron revealed weights whose hash it had committed.
        #[codec(index = 87)]
        WeightsRevealed(T::AccountId, NetUidStorageIndex, H256),
        /// The number of epochs from commit to reveal changed.
        #[codec(index = 101)]
        CommitRevealPeriodsSet(NetUid, u64),
        /// Commit-reveal was switched on or off.
        #[codec(index = 102)]
        CommitRevealEnabled(NetUid, bool),
        /// A neuron committed timelocked weights: BLAKE2b-256 of the commit, and the round that opens it.
        #[codec(index = 108)]
        TimelockedWeightsCommitted(T::AccountId, NetUidStorageIndex, H256, u64),
        /// A neuron goes on under another hotkey.
        #[codec(index = 103)]
        HotkeySwappedOnSubnet {
            /// Its owner.
            coldkey: T::AccountId,
            /// The hotkey it had.
            old_hotkey: T::AccountId,
            /// The hotkey it has.
            new_hotkey: T::AccountId,
            /// The subnet.
            netuid: NetUid,
        },
        /// Timelocked weights were opened and stand.
        #[codec(index = 109)]
        TimelockedWeightsRevealed(NetUidStorageIndex, T::AccountId),
        /// The owner asked for an epoch.
        #[codec(index = 136)]
        EpochTriggered {
            /// The subnet.
            netuid: NetUid,
            /// The owner's coldkey.
            by: T::AccountId,
            /// Block at which it runs.
            fires_at: u64,
        },
        /// Too many epochs were due in this block; this one waits for the next.
        #[codec(index = 137)]
        EpochDeferred {
            /// The subnet.
            netuid: NetUid,
            /// This block.
            from_block: u64,
            /// The next one.
            to_block: u64,
        },
    }

    /// Indices are the real runtime's.
    #[pallet::error]
    pub enum Error<T> {
        /// The address family is neither 4 nor 6.
        #[codec(index = 1)]
        InvalidIpType,
        /// The address cannot be served from.
        #[codec(index = 2)]
        InvalidIpAddress,
        /// The port is 0.
        #[codec(index = 3)]
        InvalidPort,
        /// The caller's hotkey is not registered in this subnet.
        #[codec(index = 4)]
        HotKeyNotRegisteredInSubNet,
        /// The caller's hotkey is not registered in any subnet it names.
        #[codec(index = 6)]
        HotKeyNotRegisteredInNetwork,
        /// The stake weight is below the threshold.
        #[codec(index = 10)]
        NotEnoughStakeToSetWeights,
        /// Weights on others need a validator permit.
        #[codec(index = 15)]
        NeuronNoValidatorPermit,
        /// As many uids as values are needed.
        #[codec(index = 16)]
        WeightVecNotEqualSize,
        /// A uid occurs twice.
        #[codec(index = 17)]
        DuplicateUids,
        /// A uid does not exist in the subnet.
        #[codec(index = 18)]
        UidVecContainInvalidOne,
        /// Fewer weights than the subnet demands.
        #[codec(index = 19)]
        WeightVecLengthIsLow,
        /// One weight has too great a share.
        #[codec(index = 27)]
        MaxWeightExceeded,
        /// The rate limit of weights has not passed.
        #[codec(index = 29)]
        SettingWeightsTooFast,
        /// The version key is older than the subnet demands.
        #[codec(index = 30)]
        IncorrectWeightVersionKey,
        /// The rate limit of serving has not passed.
        #[codec(index = 31)]
        ServingRateLimitExceeded,
        /// More uids than the subnet has.
        #[codec(index = 32)]
        UidsLengthExceedUidsInSubNet,
        /// Nobody sets weights on the root network.
        #[codec(index = 47)]
        CanNotSetRootNetworkWeights,
        /// Nothing is committed, or nothing any more.
        #[codec(index = 51)]
        NoWeightsCommitFound,
        /// What is revealed is not what was committed.
        #[codec(index = 52)]
        InvalidRevealCommitHashNotMatch,
        /// This subnet takes weights by commit-reveal only.
        #[codec(index = 53)]
        CommitRevealEnabled,
        /// This subnet takes no commits.
        #[codec(index = 54)]
        CommitRevealDisabled,
        /// No such subnet or mechanism.
        #[codec(index = 74)]
        MechanismDoesNotExist,
        /// Ten commits wait for being revealed already.
        #[codec(index = 77)]
        TooManyUnrevealedCommits,
        /// The epoch for revealing is over.
        #[codec(index = 78)]
        ExpiredWeightCommit,
        /// The epoch for revealing has not come.
        #[codec(index = 79)]
        RevealTooEarly,
        /// The rate limit of weights has not passed.
        #[codec(index = 81)]
        CommittingWeightsTooFast,
        /// The chain opens commits of another version.
        #[codec(index = 111)]
        IncorrectCommitRevealVersion,
        /// The round is older than the newest on the chain.
        #[codec(index = 112)]
        InvalidRevealRound,
        /// An epoch out of turn is awaited already.
        #[codec(index = 146)]
        EpochTriggerAlreadyPending,
        /// The regular epoch comes first.
        #[codec(index = 147)]
        AutoEpochAlreadyImminent,
        /// An epoch out of turn would break the reveals of commits.
        #[codec(index = 148)]
        DynamicTempoBlockedByCommitReveal,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(now: BlockNumberFor<T>) -> Weight {
            Self::reveal_due_commits(now.unique_saturated_into());
            Self::run_due_epochs(now.unique_saturated_into());
            Weight::zero()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Set the weights of the caller's neuron on the main mechanism of a subnet.
        #[pallet::call_index(0)]
        #[pallet::weight((Weight::from_parts(1_000_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn set_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            dests: Vec<u16>,
            weights: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_set_weights(&hotkey, netuid, MechId::MAIN, &dests, &weights, version_key)
        }

        /// Announce where the caller's neuron serves.
        #[pallet::call_index(4)]
        #[pallet::weight((Weight::from_parts(500_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn serve_axon(
            origin: OriginFor<T>,
            netuid: NetUid,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            let block = Self::current_block();
            let axon = AxonInfo { block, version, ip, port, ip_type, protocol, placeholder1, placeholder2 };
            Self::do_serve_axon(hotkey, netuid, axon, None)
        }

        /// Announce where the caller's neuron serves, and the key with which it identifies itself.
        #[pallet::call_index(40)]
        #[pallet::weight((Weight::from_parts(500_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn serve_axon_tls(
            origin: OriginFor<T>,
            netuid: NetUid,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
            certificate: Vec<u8>,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            let block = Self::current_block();
            let axon = AxonInfo { block, version, ip, port, ip_type, protocol, placeholder1, placeholder2 };
            Self::do_serve_axon(hotkey, netuid, axon, Some(&certificate))
        }

        /// Commit the hash of weights on the main mechanism of a subnet.
        #[pallet::call_index(96)]
        #[pallet::weight((Weight::from_parts(500_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn commit_weights(origin: OriginFor<T>, netuid: NetUid, commit_hash: H256) -> DispatchResult {
            Self::do_commit_hash(&ensure_signed(origin)?, netuid, MechId::MAIN, commit_hash)
        }

        /// Reveal weights on the main mechanism of a subnet whose hash was committed.
        #[pallet::call_index(97)]
        #[pallet::weight((Weight::from_parts(1_000_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn reveal_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            uids: Vec<u16>,
            values: Vec<u16>,
            salt: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_reveal_hash(&hotkey, netuid, MechId::MAIN, &uids, &values, &salt, version_key)
        }

        /// Commit timelocked weights on the main mechanism of a subnet.
        #[pallet::call_index(113)]
        #[pallet::weight((Weight::from_parts(500_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn commit_timelocked_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            commit: CommitBytes,
            reveal_round: u64,
            commit_reveal_version: u16,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_commit_timelocked(hotkey, netuid, MechId::MAIN, commit, reveal_round, commit_reveal_version)
        }

        /// Commit the hash of weights on one mechanism of a subnet.
        #[pallet::call_index(115)]
        #[pallet::weight((Weight::from_parts(500_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn commit_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            commit_hash: H256,
        ) -> DispatchResult {
            Self::do_commit_hash(&ensure_signed(origin)?, netuid, mecid, commit_hash)
        }

        /// Reveal weights on one mechanism of a subnet whose hash was committed.
        #[pallet::call_index(116)]
        #[pallet::weight((Weight::from_parts(1_000_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn reveal_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            uids: Vec<u16>,
            values: Vec<u16>,
            salt: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_reveal_hash(&hotkey, netuid, mecid, &uids, &values, &salt, version_key)
        }

        /// Commit timelocked weights on one mechanism of a subnet.
        #[pallet::call_index(118)]
        #[pallet::weight((Weight::from_parts(500_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn commit_timelocked_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            commit: CommitBytes,
            reveal_round: u64,
            commit_reveal_version: u16,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_commit_timelocked(hotkey, netuid, mecid, commit, reveal_round, commit_reveal_version)
        }

        /// Set the weights of the caller's neuron on one mechanism of a subnet.
        #[pallet::call_index(119)]
        #[pallet::weight((Weight::from_parts(1_000_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn set_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            dests: Vec<u16>,
            weights: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_set_weights(&hotkey, netuid, mecid, &dests, &weights, version_key)
        }

        /// Let an epoch of the caller's subnet run out of turn.
        #[pallet::call_index(141)]
        #[pallet::weight(Weight::from_parts(100_000_000, 0))]
        pub fn trigger_epoch(origin: OriginFor<T>, netuid: NetUid) -> DispatchResult {
            Self::do_trigger_epoch(ensure_signed(origin)?, netuid)
        }
    }

    impl<T: Config> Pallet<T> {
        /// Number of the block that is being made.
        pub fn current_block() -> u64 {
            frame_system::Pallet::<T>::block_number().unique_saturated_into()
        }
    }
}
