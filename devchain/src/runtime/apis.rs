//! The runtime APIs, which clients reach through `state_call`.

#![allow(missing_docs)]

use super::metagraph::{self, Metagraph, SelectiveMetagraph};
use super::primitives::{MechId, NetUid};
use super::rpc_info::{self, HyperparamEntry, NeuronInfoLite, SubnetState};
use super::{
    AuraId, Block, Executive, InherentDataExt, METADATA_VERSIONS, Runtime, SubtensorModule, System, TransactionPayment,
};
use frame_support::weights::Weight;
use pallet_transaction_payment::{FeeDetails, RuntimeDispatchInfo};
use sp_core::OpaqueMetadata;
use sp_inherents::{CheckInherentsResult, InherentData};
use sp_runtime::traits::Block as BlockT;
use sp_runtime::transaction_validity::{TransactionSource, TransactionValidity};
use sp_runtime::{AccountId32, ApplyExtrinsicResult, ExtrinsicInclusionMode};
use sp_version::RuntimeVersion;

/// Declarations of the APIs that no dependency of ours declares.
pub mod decl {
    use super::{FeeDetails, HyperparamEntry, MechId, Metagraph, NetUid, NeuronInfoLite, RuntimeDispatchInfo};
    use super::{SelectiveMetagraph, SubnetState, Weight};
    use scale::Codec;
    use sp_runtime::traits::{Block as BlockT, MaybeDisplay};

    sp_api::decl_runtime_apis! {
        /// Nonces of accounts.
        pub trait AccountNonceApi<AccountId, Nonce>
        where
            AccountId: Codec,
            Nonce: Codec,
        {
            /// Nonce of the account's next transaction, without regard to the pool.
            fn account_nonce(account: AccountId) -> Nonce;
        }

        /// Fees.
        #[api_version(4)]
        pub trait TransactionPaymentApi<Balance>
        where
            Balance: Codec + MaybeDisplay,
        {
            /// What the extrinsic weighs and costs.
            fn query_info(uxt: <Block as BlockT>::Extrinsic, len: u32) -> RuntimeDispatchInfo<Balance>;
            /// What the fee is made of.
            fn query_fee_details(uxt: <Block as BlockT>::Extrinsic, len: u32) -> FeeDetails<Balance>;
            /// Fee for a weight.
            fn query_weight_to_fee(weight: Weight) -> Balance;
            /// Fee for a length in bytes.
            fn query_length_to_fee(length: u32) -> Balance;
        }

        /// Neurons.
        pub trait NeuronInfoRuntimeApi {
            /// All neurons of a subnet, by uid.
            fn get_neurons_lite(netuid: NetUid) -> Vec<NeuronInfoLite>;
            /// One neuron.
            fn get_neuron_lite(netuid: NetUid, uid: u16) -> Option<NeuronInfoLite>;
        }

        /// Subnets.
        pub trait SubnetInfoRuntimeApi {
            /// The whole metagraph of the main mechanism.
            fn get_metagraph(netuid: NetUid) -> Option<Metagraph>;
            /// The whole metagraph of one mechanism.
            fn get_mechagraph(netuid: NetUid, mecid: MechId) -> Option<Metagraph>;
            /// Fields of the metagraph of the main mechanism, by their indices.
            fn get_selective_metagraph(netuid: NetUid, metagraph_indexes: Vec<u16>) -> Option<SelectiveMetagraph>;
            /// Fields of the metagraph of one mechanism, by their indices.
            fn get_selective_mechagraph(
                netuid: NetUid,
                subid: MechId,
                metagraph_indexes: Vec<u16>,
            ) -> Option<SelectiveMetagraph>;
            /// The cheapest whole snapshot of a subnet.
            fn get_subnet_state(netuid: NetUid) -> Option<SubnetState>;
            /// Block at which the next epoch starts.
            fn get_next_epoch_start_block(netuid: NetUid) -> Option<u64>;
            /// Parameters by name.
            fn get_subnet_hyperparams_v3(netuid: NetUid) -> Option<Vec<HyperparamEntry>>;
        }
    }
}

sp_api::impl_runtime_apis! {
    impl sp_api::Core<Block> for Runtime {
        fn version() -> RuntimeVersion {
            super::version()
        }

        fn execute_block(block: <Block as BlockT>::LazyBlock) {
            Executive::execute_block(block);
        }

        fn initialize_block(header: &<Block as BlockT>::Header) -> ExtrinsicInclusionMode {
            Executive::initialize_block(header)
        }
    }

    impl sp_api::Metadata<Block> for Runtime {
        fn metadata() -> OpaqueMetadata {
            OpaqueMetadata::new(Runtime::metadata_at_version(14).map(|found| found.to_vec()).unwrap_or_default())
        }

        fn metadata_at_version(version: u32) -> Option<OpaqueMetadata> {
            METADATA_VERSIONS.contains(&version).then(|| Runtime::metadata_at_version(version)).flatten()
        }

        fn metadata_versions() -> Vec<u32> {
            METADATA_VERSIONS.to_vec()
        }
    }

    impl sp_block_builder::BlockBuilder<Block> for Runtime {
        fn apply_extrinsic(extrinsic: <Block as BlockT>::Extrinsic) -> ApplyExtrinsicResult {
            Executive::apply_extrinsic(extrinsic)
        }

        fn finalize_block() -> <Block as BlockT>::Header {
            Executive::finalize_block()
        }

        fn inherent_extrinsics(data: InherentData) -> Vec<<Block as BlockT>::Extrinsic> {
            data.create_extrinsics()
        }

        fn check_inherents(block: <Block as BlockT>::LazyBlock, data: InherentData) -> CheckInherentsResult {
            data.check_extrinsics(&block)
        }
    }

    impl sp_transaction_pool::runtime_api::TaggedTransactionQueue<Block> for Runtime {
        fn validate_transaction(
            source: TransactionSource,
            tx: <Block as BlockT>::Extrinsic,
            block_hash: <Block as BlockT>::Hash,
        ) -> TransactionValidity {
            Executive::validate_transaction(source, tx, block_hash)
        }
    }

    impl sp_consensus_aura::AuraApi<Block, AuraId> for Runtime {
        fn slot_duration() -> sp_consensus_aura::SlotDuration {
            sp_consensus_aura::SlotDuration::from_millis(super::SlotDuration::get())
        }

        fn authorities() -> Vec<AuraId> {
            pallet_aura::Authorities::<Runtime>::get().into_inner()
        }
    }

    impl decl::AccountNonceApi<Block, AccountId32, u32> for Runtime {
        fn account_nonce(account: AccountId32) -> u32 {
            System::account_nonce(account)
        }
    }

    impl decl::TransactionPaymentApi<Block, u64> for Runtime {
        fn query_info(uxt: <Block as BlockT>::Extrinsic, len: u32) -> RuntimeDispatchInfo<u64> {
            TransactionPayment::query_info(uxt, len)
        }

        fn query_fee_details(uxt: <Block as BlockT>::Extrinsic, len: u32) -> FeeDetails<u64> {
            TransactionPayment::query_fee_details(uxt, len)
        }

        fn query_weight_to_fee(weight: Weight) -> u64 {
            TransactionPayment::weight_to_fee(weight)
        }

        fn query_length_to_fee(length: u32) -> u64 {
            TransactionPayment::length_to_fee(length)
        }
    }

    impl decl::NeuronInfoRuntimeApi<Block> for Runtime {
        fn get_neurons_lite(netuid: NetUid) -> Vec<NeuronInfoLite> {
            rpc_info::neurons_lite(netuid)
        }

        fn get_neuron_lite(netuid: NetUid, uid: u16) -> Option<NeuronInfoLite> {
            rpc_info::neurons_lite(netuid).into_iter().nth(usize::from(uid))
        }
    }

    impl decl::SubnetInfoRuntimeApi<Block> for Runtime {
        fn get_metagraph(netuid: NetUid) -> Option<Metagraph> {
            metagraph::metagraph(netuid, MechId::MAIN)
        }

        fn get_mechagraph(netuid: NetUid, mecid: MechId) -> Option<Metagraph> {
            metagraph::metagraph(netuid, mecid)
        }

        fn get_selective_metagraph(netuid: NetUid, metagraph_indexes: Vec<u16>) -> Option<SelectiveMetagraph> {
            metagraph::selective_metagraph(netuid, MechId::MAIN, &metagraph_indexes)
        }

        fn get_selective_mechagraph(
            netuid: NetUid,
            subid: MechId,
            metagraph_indexes: Vec<u16>,
        ) -> Option<SelectiveMetagraph> {
            metagraph::selective_metagraph(netuid, subid, &metagraph_indexes)
        }

        fn get_subnet_state(netuid: NetUid) -> Option<SubnetState> {
            rpc_info::subnet_state(netuid)
        }

        fn get_next_epoch_start_block(netuid: NetUid) -> Option<u64> {
            SubtensorModule::next_epoch_start_block(netuid)
        }

        fn get_subnet_hyperparams_v3(netuid: NetUid) -> Option<Vec<HyperparamEntry>> {
            rpc_info::hyperparams(netuid)
        }
    }
}

/// Does the function exist, may callers from outside use it, and do these bytes decode as its arguments.
///
/// The generated dispatcher panics on undecodable arguments, so they are decoded here first. Functions that make
/// blocks are for the node alone.
#[must_use]
pub fn check_call(function: &str, mut arguments: &[u8]) -> Option<bool> {
    use super::UncheckedExtrinsic;
    use scale::DecodeLimit;
    use sp_core::H256;

    /// Calls nest inside calls no deeper than this.
    const MAX_DEPTH: u32 = 64;
    fn whole<V: DecodeLimit>(arguments: &mut &[u8]) -> bool {
        V::decode_all_with_depth_limit(MAX_DEPTH, arguments).is_ok()
    }

    let input = &mut arguments;
    Some(match function {
        "Core_version"
        | "Metadata_metadata"
        | "Metadata_metadata_versions"
        | "AuraApi_slot_duration"
        | "AuraApi_authorities" => input.is_empty(),
        "Metadata_metadata_at_version" | "TransactionPaymentApi_query_length_to_fee" => whole::<u32>(input),
        "TransactionPaymentApi_query_weight_to_fee" => whole::<Weight>(input),
        "TaggedTransactionQueue_validate_transaction" => whole::<(TransactionSource, UncheckedExtrinsic, H256)>(input),
        "TransactionPaymentApi_query_info" | "TransactionPaymentApi_query_fee_details" => {
            whole::<(UncheckedExtrinsic, u32)>(input)
        }
        "AccountNonceApi_account_nonce" => whole::<AccountId32>(input),
        "NeuronInfoRuntimeApi_get_neurons_lite"
        | "SubnetInfoRuntimeApi_get_metagraph"
        | "SubnetInfoRuntimeApi_get_subnet_state"
        | "SubnetInfoRuntimeApi_get_next_epoch_start_block"
        | "SubnetInfoRuntimeApi_get_subnet_hyperparams_v3" => whole::<NetUid>(input),
        "NeuronInfoRuntimeApi_get_neuron_lite" => whole::<(NetUid, u16)>(input),
        "SubnetInfoRuntimeApi_get_selective_metagraph" => whole::<(NetUid, Vec<u16>)>(input),
        "SubnetInfoRuntimeApi_get_selective_mechagraph" => whole::<(NetUid, MechId, Vec<u16>)>(input),
        "SubnetInfoRuntimeApi_get_mechagraph" => whole::<(NetUid, MechId)>(input),
        _ => return None,
    })
}
