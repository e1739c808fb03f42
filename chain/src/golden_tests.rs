//! What we encode, byte for byte against the official SDK's recordings of a real runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use perturb_types::Digest;
use scale::Decode;
use serde_json::Value as Json;
use subxt::client::{OfflineClient, OfflineClientAtBlock};
use subxt::config::substrate::{SpecVersionForRange, SubstrateHeader};
use subxt::config::{Hasher as _, SubstrateConfig};
use subxt::dynamic::{self, Value};
use subxt::ext::frame_metadata::RuntimeMetadataPrefixed;
use subxt::utils::{AccountId32, H256, MultiSignature};
use subxt::{ArcMetadata, Metadata};

use crate::call::{NamedCall, plain_call};
use crate::commit::commit_call;
use crate::submit::params;
use crate::{AnchorCall, BlockHash, PALLET, WeightsCall, extensions};

/// The storage entries that this crate reads, with their number of keys and whether a
/// runtime may lack them.
const ENTRIES: [(&str, usize); 20] = [
    ("SubnetEpochIndex", 1),
    ("Tempo", 1),
    ("NetworksAdded", 1),
    ("SubnetworkN", 1),
    ("Keys", 2),
    ("ValidatorPermit", 1),
    ("BlockAtRegistration", 2),
    ("Owner", 1),
    ("TotalHotkeyAlpha", 2),
    ("MinAllowedWeights", 1),
    ("WeightsVersionKey", 1),
    ("WeightsSetRateLimit", 1),
    ("CommitRevealWeightsEnabled", 1),
    ("Weights", 2),
    ("LastUpdate", 1),
    ("LastEpochBlock", 1),
    ("PendingEpochAt", 1),
    ("BlocksSinceLastStep", 1),
    ("RevealPeriodEpochs", 1),
    ("TimelockedWeightCommits", 2),
];

fn bytes(json: &Json) -> Vec<u8> {
    let text = json.as_str().unwrap();
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
}

fn hash(json: &Json) -> H256 {
    H256::from_slice(&bytes(json))
}

fn fixture() -> Json {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/golden.sh");
    let run = std::process::Command::new(script).output().unwrap();
    assert!(run.status.success(), "golden.sh: {}", String::from_utf8_lossy(&run.stderr));
    let path = String::from_utf8(run.stdout).unwrap();
    serde_json::from_str(&std::fs::read_to_string(path.trim()).unwrap()).unwrap()
}

fn client(golden: &Json, metadata: ArcMetadata) -> OfflineClientAtBlock<SubstrateConfig> {
    let network = &golden["network"];
    let number = |name: &str| u32::try_from(network[name].as_u64().unwrap()).unwrap();
    let config = SubstrateConfig::builder()
        .set_genesis_hash(hash(&network["genesis_hash"]))
        .set_metadata_for_spec_versions([(number("spec_version"), metadata)])
        .set_spec_version_for_block_ranges([SpecVersionForRange {
            block_range: 0..u64::MAX,
            spec_version: number("spec_version"),
            transaction_version: number("transaction_version"),
        }])
        .build();
    OfflineClient::new_with_config(config).at_block(66u64).unwrap()
}

fn metadata_15(golden: &Json) -> ArcMetadata {
    let raw = bytes(&golden["metadata"]["v15_hex"]);
    let inner = Option::<Vec<u8>>::decode(&mut &raw[..]).unwrap().unwrap();
    Arc::new(Metadata::decode_from(&inner).unwrap())
}

fn metadata_14(golden: &Json) -> ArcMetadata {
    let raw = bytes(&golden["metadata"]["v14_hex"]);
    RuntimeMetadataPrefixed::decode(&mut &raw[..]).unwrap();
    Arc::new(Metadata::decode_from(&raw).unwrap())
}

fn check_calls(golden: &Json, at: &OfflineClientAtBlock<SubstrateConfig>) {
    let case = golden["calls"].as_array().unwrap().iter().find(|c| c["function"] == "set_weights").unwrap();
    let call = WeightsCall { netuid: 1, mecid: 0, weights: vec![(0, 100), (1, 200)], version_key: 0 };
    let NamedCall { name, fields, .. } = plain_call(&call, at.metadata_ref()).unwrap();
    assert_eq!(name, "set_mechanism_weights", "the runtime has the call of mechanisms, which is preferred");
    // The older call takes the same fields but for the mechanism.
    let plain = at.tx().call_data(&dynamic::tx(PALLET, "set_weights", fields.clone())).unwrap();
    assert_eq!(plain, bytes(&case["data_hex"]));
    // 07 pallet, call, 0100 netuid, then the mechanism, then as above.
    let ours = at.tx().call_data(&dynamic::tx(PALLET, name, fields)).unwrap();
    assert_eq!((ours[0], &ours[2..4], ours[4]), (7, &[1, 0][..], 0));
    assert_eq!(ours[5..], plain[4..]);
    let second = plain_call(&WeightsCall { mecid: 1, ..call }, at.metadata_ref()).unwrap();
    assert_eq!(at.tx().call_data(&dynamic::tx(PALLET, second.name, second.fields)).unwrap()[4], 1);
}

/// Pallet and call, then the arguments in the call's own order: netuid, mechanism, commit with its length, round, version.
fn check_commit(at: &OfflineClientAtBlock<SubstrateConfig>) {
    let call = WeightsCall { netuid: 1, mecid: 1, weights: vec![], version_key: 0 };
    let NamedCall { name, fields, .. } = commit_call(&call, &[7; 3], 1000, at.metadata_ref()).unwrap();
    let data = at.tx().call_data(&dynamic::tx(PALLET, name, fields)).unwrap();
    assert_eq!((name, data[0], data[1]), ("commit_timelocked_mechanism_weights", 7, 118));
    assert_eq!(data[2..], [&[1, 0, 1, 12, 7, 7, 7][..], &1000u64.to_le_bytes(), &[4, 0]].concat());
}

/// Pallet, call and arguments of both kinds of anchor: what an auditor looks for at an extrinsic's end.
fn check_anchors(at: &OfflineClientAtBlock<SubstrateConfig>) {
    let data = |call: AnchorCall| {
        let NamedCall { pallet, name, fields } = call.call().unwrap();
        at.tx().call_data(&dynamic::tx(pallet, name, fields)).unwrap()
    };
    let digests = [Digest([8; 32]), Digest([9; 32])];
    // Three fields: 57 plain bytes, whose kind is their number and one, and two digests of kind 131.
    let fields = [&[12, 58][..], &[7; 57], &[131], &[8; 32], &[131], &[9; 32]].concat();
    let commitment = data(AnchorCall::Commitment { netuid: 1, text: vec![7; 57], digests });
    assert_eq!(commitment, [&[18, 0, 1, 0][..], &fields].concat());
    // A length of 121 takes two bytes.
    assert_eq!(data(AnchorCall::Remark { bytes: vec![5; 121] }), [&[0, 7, 0xe5, 0x01][..], &[5; 121]].concat());
}

/// Extensions, era, nonce, signer's payload and assembled extrinsic, of a mortal extrinsic.
fn check_signing(golden: &Json, at: &OfflineClientAtBlock<SubstrateConfig>) {
    let custom = extensions::values_for(at.metadata_ref()).unwrap();
    assert_eq!(custom, [], "nothing beyond what subxt knows takes up bytes");
    let bob = bytes(&golden["ss58"][1]["public_key_hex"]);
    let dest = Value::unnamed_variant("Id", [Value::from_bytes(bob)]);
    let transfer = dynamic::tx("Balances", "transfer_keep_alive", vec![dest, Value::u128(12_345)]);

    let case = &golden["signature_payloads"][1];
    let birth = BlockHash(hash(&case["era_birth_block_hash"]).0);
    let nonce = case["nonce"].as_u64().unwrap();
    let number = case["era"]["current"].as_u64().unwrap();
    let transactions = at.tx();
    let signable =
        transactions.create_v4_signable_offline(&transfer, params(nonce, number, birth, custom.clone())).unwrap();
    assert_eq!(signable.signer_payload().unwrap(), bytes(&case["payload_hex"]));

    let case = &golden["extrinsics"][1];
    let nonce = case["nonce"].as_u64().unwrap();
    let mut signable =
        transactions.create_v4_signable_offline(&transfer, params(nonce, number, birth, custom)).unwrap();
    let account = AccountId32(bytes(&case["public_key_hex"]).try_into().unwrap());
    let signature = MultiSignature::Sr25519(bytes(&case["signature_hex"]).try_into().unwrap());
    let signed = signable.sign_with_account_and_signature(&account, &signature).unwrap();
    assert_eq!(signed.encoded(), bytes(&case["extrinsic_hex"]));
    assert_eq!(signed.hash(), hash(&case["extrinsic_hash"]));
}

fn check_storage(golden: &Json, at: &OfflineClientAtBlock<SubstrateConfig>) {
    let key_of = |name: &str| {
        let keys = golden["storage_keys"].as_array().unwrap();
        bytes(&keys.iter().find(|k| k["storage_function"] == name).unwrap()["key_hex"])
    };
    let storage = at.storage();
    let tempo = storage.entry(dynamic::storage::<(u16,), u16>(PALLET, "Tempo")).unwrap();
    assert_eq!(tempo.fetch_key((1,)).unwrap(), key_of("Tempo"));
    let keys = storage.entry(dynamic::storage::<(u16, u16), AccountId32>(PALLET, "Keys")).unwrap();
    assert_eq!(keys.fetch_key((1, 0)).unwrap(), key_of("Keys"));
    let pallet = at.metadata_ref().pallet_by_name(PALLET).unwrap();
    for (name, expected) in ENTRIES {
        let entry = pallet.storage().unwrap().entry_by_name(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(entry.keys().len(), expected, "{name}");
    }
}

/// Every dispatch error that a submission of weights may meet has a variant of its own here.
fn check_errors(at: &OfflineClientAtBlock<SubstrateConfig>) {
    let pallet = at.metadata_ref().pallet_by_name(PALLET).unwrap();
    let names: Vec<&str> = pallet.error_variants().unwrap().iter().map(|v| v.name.as_str()).collect();
    for documented in crate::submit_error::DOCUMENTED {
        assert!(names.contains(&documented), "{documented} in {names:?}");
    }
}

/// The header's number and hash, and every event of the block, as recorded.
fn check_block(golden: &Json, at: &OfflineClientAtBlock<SubstrateConfig>) {
    let block = &golden["block"];
    let header: SubstrateHeader<H256> = serde_json::from_value(block["raw"]["block"]["header"].clone()).unwrap();
    assert_eq!(header.number, block["decoded_header"]["number"].as_u64().unwrap());
    assert_eq!(at.hasher().hash(&scale::Encode::encode(&header)), hash(&block["block_hash"]));
    let events = at.events().from_bytes(bytes(&golden["events"]["raw_hex"]));
    let decoded = events.iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(decoded.len(), golden["events"]["decoded"].as_array().unwrap().len());
    assert!(decoded.iter().any(|e| (e.pallet_name(), e.event_name()) == ("System", "ExtrinsicSuccess")));
}

#[test]
fn our_encodings_equal_the_official_sdks_on_a_real_runtime() {
    let golden = fixture();
    for metadata in [metadata_15(&golden), metadata_14(&golden)] {
        let at = client(&golden, metadata);
        check_calls(&golden, &at);
        check_commit(&at);
        check_anchors(&at);
        check_signing(&golden, &at);
        check_storage(&golden, &at);
        check_block(&golden, &at);
        check_errors(&at);
    }
    let at = client(&golden, metadata_15(&golden));
    let api = at.metadata_ref().runtime_api_trait_by_name("SubnetInfoRuntimeApi").unwrap();
    crate::snapshot::check_state_type(at.metadata_ref(), api.method_by_name("get_subnet_state").unwrap().output_ty());
    assert!(api.method_by_name("get_next_epoch_start_block").is_some());
}
