//! The runtime: FRAME pallets under the real pallet names and indices, executed natively.
//!
//! | index | pallet |
//! |---|---|
//! | 0 | `System` |
//! | 2 | `Timestamp` |
//! | 3 | `Aura` |
//! | 5 | `Balances` |
//! | 6 | `TransactionPayment` |
//! | 7 | `SubtensorModule` |
//! | 18 | `Commitments` |
//! | 26 | `Drand` |

// The FRAME macros write items of their own, which carry no documentation.
#![allow(missing_docs)]

pub mod admin;
pub mod apis;
pub mod commitments;
mod commits;
pub mod drand;
pub mod epoch;
pub mod extensions;
pub(crate) mod install;
pub mod metagraph;
mod neurons;
mod permits;
pub mod primitives;
pub mod reveal;
pub mod rpc_info;
mod sealed;
mod serving;
pub mod subtensor;
mod types;
pub mod weights;

use frame_support::traits::{ConstBool, ConstU8, ConstU16, ConstU32, ConstU64, Get};
use frame_support::weights::{Weight, WeightToFee};
use frame_support::{construct_runtime, derive_impl, parameter_types};
use pallet_transaction_payment::{ChargeTransactionPayment, FungibleAdapter};
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_core::storage::Storage;
use sp_runtime::traits::BlakeTwo256;
use sp_runtime::{AccountId32, MultiAddress, MultiSignature, StateVersion, generic};
use sp_version::RuntimeVersion;
use std::borrow::Cow;

/// Header of a block: 32-bit numbers, BLAKE2b-256.
pub type Header = generic::Header<u32, BlakeTwo256>;
/// A block.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// An extrinsic as it travels.
pub type UncheckedExtrinsic =
    generic::UncheckedExtrinsic<MultiAddress<AccountId32, ()>, RuntimeCall, MultiSignature, TxExtension>;
/// The transaction extensions, nested as on the real chain.
pub type TxExtension = (
    (
        frame_system::CheckNonZeroSender<Runtime>,
        frame_system::CheckSpecVersion<Runtime>,
        frame_system::CheckTxVersion<Runtime>,
        frame_system::CheckGenesis<Runtime>,
        frame_system::CheckEra<Runtime>,
        extensions::CheckNonce,
        frame_system::CheckWeight<Runtime>,
    ),
    (
        ChargeTransactionPayment<Runtime>,
        extensions::SudoTransactionExtension,
        extensions::CheckShieldedTxValidity,
        extensions::SubtensorTransactionExtension,
        extensions::DrandPriority,
    ),
    frame_metadata_hash_extension::CheckMetadataHash<Runtime>,
);
/// What makes, checks and runs blocks.
pub type Executive =
    frame_executive::Executive<Runtime, Block, frame_system::ChainContext<Runtime>, Runtime, AllPalletsWithSystem>;

/// The version that clients sign over, until a development call raises it; see [`version`].
pub const VERSION: RuntimeVersion = RuntimeVersion {
    spec_name: Cow::Borrowed("node-subtensor"),
    impl_name: Cow::Borrowed("node-subtensor"),
    authoring_version: 1,
    spec_version: 461,
    impl_version: 1,
    apis: apis::RUNTIME_API_VERSIONS,
    transaction_version: 1,
    system_version: 1,
};

/// How the state trie is hashed; follows from `system_version` above.
pub const STATE_VERSION: StateVersion = StateVersion::V1;

/// Metadata versions on offer. The official SDK cannot read version 16.
pub const METADATA_VERSIONS: [u32; 2] = [14, 15];

construct_runtime!(
    pub enum Runtime {
        System: frame_system = 0,
        Timestamp: pallet_timestamp = 2,
        Aura: pallet_aura = 3,
        Balances: pallet_balances = 5,
        TransactionPayment: pallet_transaction_payment = 6,
        SubtensorModule: subtensor = 7,
        Commitments: commitments = 18,
        Drand: drand = 26,
    }
);

parameter_types! {
    /// Raised by a development call that plays an upgrade.
    pub storage SpecVersion: u32 = VERSION.spec_version;
    /// Do epochs give and take permits by stake, or do permits stay as they were set.
    pub storage PermitsByStake: bool = false;
    /// Milliseconds per block. It is kept in the state, because the pace is the operator's choice.
    pub storage SlotDuration: u64 = 1000;
}

/// The version in the current state.
#[must_use]
pub fn version() -> RuntimeVersion {
    RuntimeVersion { spec_version: SpecVersion::get(), ..VERSION }
}

/// [`version`], as FRAME asks for it.
pub struct Version;

impl Get<RuntimeVersion> for Version {
    fn get() -> RuntimeVersion {
        version()
    }
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
    type Block = Block;
    type AccountData = pallet_balances::AccountData<u64>;
    type BlockHashCount = ConstU32<2400>;
    type SS58Prefix = ConstU16<42>;
    type Version = Version;
}

impl pallet_timestamp::Config for Runtime {
    type Moment = u64;
    type OnTimestampSet = Aura;
    type MinimumPeriod = ConstU64<1>;
    type WeightInfo = ();
}

impl pallet_aura::Config for Runtime {
    type AuthorityId = AuraId;
    type MaxAuthorities = ConstU32<32>;
    type DisabledValidators = ();
    type AllowMultipleBlocksPerSlot = ConstBool<true>;
    type SlotDuration = SlotDuration;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Runtime {
    type Balance = u64;
    type ExistentialDeposit = ConstU64<500>;
    type AccountStore = System;
    type ReserveIdentifier = [u8; 8];
    type MaxLocks = ConstU32<50>;
    type MaxReserves = ConstU32<50>;
}

impl pallet_transaction_payment::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type OnChargeTransaction = FungibleAdapter<Balances, ()>;
    type WeightToFee = FeePerWeight;
    type LengthToFee = FeePerByte;
    type FeeMultiplierUpdate = ();
    type OperationalFeeMultiplier = ConstU8<5>;
    type WeightInfo = ();
}

impl subtensor::Config for Runtime {}

impl commitments::Config for Runtime {}

impl drand::Config for Runtime {}

/// Fee for computing: one rao per 2000 units (ps), of the order the real chain takes.
pub struct FeePerWeight;

impl WeightToFee for FeePerWeight {
    type Balance = u64;

    fn weight_to_fee(weight: &Weight) -> u64 {
        weight.ref_time() / 2000
    }
}

/// Fee for length: one rao per byte.
pub struct FeePerByte;

impl WeightToFee for FeePerByte {
    type Balance = u64;

    fn weight_to_fee(weight: &Weight) -> u64 {
        weight.ref_time()
    }
}

/// State before the first block, without subnets.
///
/// # Errors
/// What FRAME says against its own genesis configuration.
pub fn genesis_storage() -> Result<Storage, String> {
    // Slots have one author, whose key is the well-known development key //Alice; blocks are not sealed.
    let author = sp_core::sr25519::Public::from_raw(ALICE);
    use sp_runtime::BuildStorage as _;
    RuntimeGenesisConfig {
        aura: pallet_aura::GenesisConfig { authorities: vec![author.into()] },
        ..RuntimeGenesisConfig::default()
    }
    .build_storage()
}

const ALICE: [u8; 32] = [
    0xd4, 0x35, 0x93, 0xc7, 0x15, 0xfd, 0xd3, 0x1c, 0x61, 0x14, 0x1a, 0xbd, 0x04, 0xa9, 0x9f, 0xd6, 0x82, 0x2c, 0x85,
    0x58, 0x85, 0x4c, 0xcd, 0xe3, 0x9a, 0x56, 0x84, 0xe7, 0xa5, 0x6d, 0xa2, 0x7d,
];

/// Let slots last `millis` from this block on. Slots are counted from the epoch, so the last slot is forgotten where
/// the duration changes.
pub fn set_slot_duration(millis: u64) {
    if SlotDuration::get() != millis {
        SlotDuration::set(&millis);
        pallet_aura::CurrentSlot::<Runtime>::put(sp_consensus_aura::Slot::from(0));
    }
}
