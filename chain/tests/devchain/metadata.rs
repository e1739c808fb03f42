//! Everything that the development chain's metadata shares by name with a real runtime's has the same
//! index, arguments, types, hashers and fields there. The real one is the official SDK's recording of
//! runtime 461.

use std::collections::BTreeSet;

use scale::Decode as _;
use scale_info::{PortableRegistry, TypeDef, form::PortableForm};
use subxt::ext::frame_metadata::v14::{PalletMetadata, RuntimeMetadataV14, StorageEntryType};
use subxt::ext::frame_metadata::v15::RuntimeMetadataV15;
use subxt::ext::frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use subxt::rpcs::{RpcClient, rpc_params};

use super::Net;

/// What differs because the SDK's own pallets are of another release here than there. Nothing of ours
/// names these: accounts, fees and extrinsic results are read from what is the same.
const OF_ANOTHER_RELEASE: [&str; 7] = [
    "Balances event ",
    "Balances storage Freezes",
    "Balances storage Holds",
    "System event CodeUpdated",
    "System storage BlockSize",
    "System storage BlocksTillUpgrade",
    "TransactionPayment storage TxPaymentCredit",
];

/// What is newer than the recording: the SDK of the same release asks for it.
const NEWER: [&str; 1] = ["SubtensorModule storage SubnetEpochConsensus is not there"];

type Pallet = PalletMetadata<PortableForm>;

/// Types within types that are compared: deeper than any of a call we make.
const DEPTH: usize = 7;

fn decode(bytes: &[u8]) -> RuntimeMetadataV14 {
    match RuntimeMetadataPrefixed::decode(&mut &bytes[..]).unwrap().1 {
        RuntimeMetadata::V14(metadata) => metadata,
        other => panic!("version {}", other.version()),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.trim_start_matches("0x")).unwrap()
}

/// The recording's metadata of a version, encoded.
fn golden(version: &str) -> Vec<u8> {
    let run = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.sh")).output().unwrap();
    assert!(run.status.success(), "golden.sh: {}", String::from_utf8_lossy(&run.stderr));
    let file = std::fs::read_to_string(String::from_utf8(run.stdout).unwrap().trim()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&file).unwrap();
    unhex(json["metadata"][version].as_str().unwrap())
}

/// Out of the answer of `Metadata_metadata_at_version`.
fn decode_v15(answer: &[u8]) -> RuntimeMetadataV15 {
    let bytes = Option::<Vec<u8>>::decode(&mut &answer[..]).unwrap().unwrap();
    match RuntimeMetadataPrefixed::decode(&mut &bytes[..]).unwrap().1 {
        RuntimeMetadata::V15(metadata) => metadata,
        other => panic!("version {}", other.version()),
    }
}

/// Each function of each runtime API, with its arguments and what it returns.
fn functions(metadata: &RuntimeMetadataV15) -> Vec<(String, String)> {
    let of = |id: u32| shape(&metadata.types, id, DEPTH);
    let mut found = vec![];
    for api in &metadata.apis {
        for method in &api.methods {
            let inputs: Vec<_> = method.inputs.iter().map(|i| format!("{}: {}", i.name, of(i.ty.id))).collect();
            let what = format!("({}) → {}", inputs.join(", "), of(method.output.id));
            found.push((format!("{}_{}", api.name, method.name), what));
        }
    }
    found
}

/// The shape of a type as its encoding sees it: names of wrappers do not matter, names of fields and
/// variants do.
fn shape(types: &PortableRegistry, id: u32, depth: usize) -> String {
    if depth == 0 {
        return "…".into();
    }
    let of = |id: u32| shape(types, id, depth - 1);
    let ty = types.resolve(id).unwrap();
    // Calls and events of all pallets differ by which pallets there are.
    if ["RuntimeCall", "RuntimeEvent", "RuntimeError"].contains(&ty.path.segments.last().map_or("", |s| s.as_str())) {
        return "runtime".into();
    }
    match &ty.type_def {
        TypeDef::Primitive(p) => format!("{p:?}").to_lowercase(),
        TypeDef::Compact(c) => format!("compact {}", of(c.type_param.id)),
        TypeDef::Sequence(s) => format!("[{}]", of(s.type_param.id)),
        TypeDef::Array(a) => format!("[{}; {}]", of(a.type_param.id), a.len),
        TypeDef::Tuple(t) => format!("({})", t.fields.iter().map(|f| of(f.id)).collect::<Vec<_>>().join(", ")),
        TypeDef::BitSequence(_) => "bits".into(),
        TypeDef::Composite(c) if c.fields.len() == 1 => shape(types, c.fields[0].ty.id, depth),
        TypeDef::Composite(c) => fields(types, &c.fields, depth),
        TypeDef::Variant(v) => {
            let variant = |v: &scale_info::Variant<PortableForm>| {
                format!("{} {}{}", v.index, v.name, fields(types, &v.fields, depth))
            };
            v.variants.iter().map(variant).collect::<Vec<_>>().join(" | ")
        }
    }
}

fn fields(types: &PortableRegistry, fields: &[scale_info::Field<PortableForm>], depth: usize) -> String {
    let field = |f: &scale_info::Field<PortableForm>| {
        format!("{}: {}", f.name.clone().unwrap_or_default(), shape(types, f.ty.id, depth.saturating_sub(1)))
    };
    format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
}

/// Name and description of each variant of a pallet's calls, events or errors.
fn variants(metadata: &RuntimeMetadataV14, id: Option<u32>) -> Vec<(String, String)> {
    let Some(id) = id else { return vec![] };
    let TypeDef::Variant(def) = &metadata.types.resolve(id).unwrap().type_def else { return vec![] };
    let one = |v: &scale_info::Variant<PortableForm>| {
        (v.name.clone(), format!("{} {}", v.index, fields(&metadata.types, &v.fields, DEPTH)))
    };
    def.variants.iter().map(one).collect()
}

fn storage(metadata: &RuntimeMetadataV14, pallet: &Pallet) -> Vec<(String, String)> {
    let Some(storage) = &pallet.storage else { return vec![] };
    let of = |id: u32| shape(&metadata.types, id, DEPTH);
    let entry = |e: &subxt::ext::frame_metadata::v14::StorageEntryMetadata<PortableForm>| {
        let how = match &e.ty {
            StorageEntryType::Plain(value) => of(value.id),
            StorageEntryType::Map { hashers, key, value } => {
                format!("{hashers:?} {} → {}", of(key.id), of(value.id))
            }
        };
        (e.name.clone(), format!("{:?} {how}", e.modifier))
    };
    storage.entries.iter().map(entry).collect()
}

/// Everything of a pallet: what it is, its name, its description.
fn parts(metadata: &RuntimeMetadataV14, pallet: &Pallet) -> Vec<(String, String)> {
    let kinds = [
        ("call", variants(metadata, pallet.calls.as_ref().map(|c| c.ty.id))),
        ("event", variants(metadata, pallet.event.as_ref().map(|e| e.ty.id))),
        ("error", variants(metadata, pallet.error.as_ref().map(|e| e.ty.id))),
        ("storage", storage(metadata, pallet)),
    ];
    let named = |(kind, list): (&str, Vec<(String, String)>)| {
        let kind = format!("{} {kind}", pallet.name);
        list.into_iter().map(move |(name, what)| (format!("{kind} {name}"), what)).collect::<Vec<_>>()
    };
    kinds.into_iter().flat_map(named).collect()
}

#[tokio::test]
async fn what_the_development_chain_shares_with_a_real_runtime_is_the_same_there() {
    let net = Net::start().await;
    let rpc = RpcClient::from_insecure_url(&net.url).await.unwrap();
    let text: String = rpc.request("state_getMetadata", rpc_params![]).await.unwrap();
    let (ours, real) = (decode(&unhex(&text)), decode(&golden("v14_hex")));
    let mut differences = BTreeSet::new();
    let mut compared = 0;
    for pallet in &ours.pallets {
        let Some(there) = real.pallets.iter().find(|p| p.name == pallet.name) else {
            differences.insert(format!("pallet {} is not there", pallet.name));
            continue;
        };
        if there.index != pallet.index {
            differences.insert(format!("pallet {} has index {}, there {}", pallet.name, pallet.index, there.index));
        }
        let theirs = parts(&real, there);
        for (name, what) in parts(&ours, pallet) {
            compared += 1;
            match theirs.iter().find(|(n, _)| *n == name) {
                None => differences.insert(format!("{name} is not there")),
                Some((_, t)) if *t != what => differences.insert(format!("{name}:\n  ours  {what}\n  there {t}")),
                Some(_) => true,
            };
        }
    }
    differences.retain(|d| !NEWER.contains(&d.as_str()));
    differences.retain(|d| !OF_ANOTHER_RELEASE.iter().any(|allowed| d.starts_with(allowed)));
    assert!(compared > 100, "only {compared} compared");
    assert!(differences.is_empty(), "{compared} compared:\n{}", differences.into_iter().collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn every_runtime_function_that_the_development_chain_offers_is_the_same_in_a_real_runtime() {
    let net = Net::start().await;
    let rpc = RpcClient::from_insecure_url(&net.url).await.unwrap();
    let text: String =
        rpc.request("state_call", rpc_params!["Metadata_metadata_at_version", "0x0f000000"]).await.unwrap();
    let (ours, real) = (functions(&decode_v15(&unhex(&text))), functions(&decode_v15(&golden("v15_hex"))));
    let mut differences = vec![];
    for (name, what) in &ours {
        match real.iter().find(|(n, _)| n == name) {
            None => differences.push(format!("{name} is not there")),
            Some((_, there)) if there != what => {
                differences.push(format!("{name}:\n  ours  {what}\n  there {there}"));
            }
            Some(_) => {}
        }
    }
    assert!(ours.len() > 20, "only {} compared", ours.len());
    assert!(differences.is_empty(), "{} compared:\n{}", ours.len(), differences.join("\n"));
}
