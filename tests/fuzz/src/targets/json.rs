//! Genesis files, RPC parameters, and what a node answers an auditor.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::serve::{
    self, BlockAnswer, HandoversAnswer, HeaderAnswer, Hex, MAX_ANSWER_BYTES, MAX_HANDOVERS, MAX_PROOF_KEYS, METHODS,
    ProofAnswer, RoundAnswer, RpcError, StateAnswer,
};
use perturb_ledger::{Genesis, Ledger, MemoryStore, Trust};
use perturb_types::encode;
use serde_json::Value;

use crate::world::world;

/// A genesis file; one that is taken makes a network that lives.
pub fn genesis(bytes: &[u8]) {
    let Ok(genesis) = Genesis::load(bytes) else { return };
    let network = genesis.network_id();
    let text = serde_json::to_vec(&genesis).unwrap();
    assert!(Genesis::load(&text).unwrap() == genesis, "another file");
    assert!(encode::decode::<Genesis>("genesis", &encode::encode(&genesis), 1 << 26).unwrap() == genesis);
    assert!(Trust::genesis(&genesis).unwrap().network() == network);
    let mut store = MemoryStore::default();
    store.commit(&genesis_commit(&genesis).unwrap());
    let ledger = Ledger::new(genesis, store).unwrap();
    // Its first block, and its first epoch's close.
    let Some(time_ms) = ledger.head().time_ms.checked_add(10) else { return };
    let world = world();
    for closes in [None, Some(1)] {
        let mut input = world.input(&ledger, world.whole(0, 0, 0), closes);
        input.time_ms = time_ms;
        let Some(member) = ledger.validators().iter().next() else { panic!("a set without members") };
        input.proposer = member.key;
        input.reference.number = ledger.head().reference.number.saturating_add(u64::from(closes.is_some()));
        if let Some(snapshot) = &mut input.snapshot {
            snapshot.reference = input.reference.clone();
        }
        if let Ok((block, executed)) = ledger.propose(input) {
            assert!(ledger.check(&block).unwrap().digest() == executed.digest());
        }
    }
}

/// A request: a method's number, then its parameters as JSON.
pub fn rpc(bytes: &[u8]) {
    let Some((number, text)) = bytes.split_first() else { return };
    let (given, name) = match serde_json::from_slice::<Value>(text) {
        Ok(given) => (given, String::new()),
        Err(_) => (Value::Null, String::from_utf8_lossy(text).into_owned()),
    };
    let method = METHODS.get(usize::from(*number)).copied().unwrap_or(&name);
    let store = &world().stores[6];
    match serve::answer(store, method, &given) {
        Ok(answer) => {
            assert!(METHODS.contains(&method));
            let written = serde_json::to_string(&answer).unwrap();
            assert!(written.len() <= MAX_ANSWER_BYTES);
            answered(method, answer);
        }
        Err(RpcError::Store(e)) => panic!("the store fails: {e}"),
        Err(e) => assert!(e.code() < 0 && e.to_string().len() < 4096 + text.len()),
    }
}

fn answered(method: &str, answer: Value) {
    if answer.is_null() {
        return;
    }
    match method {
        "perturb_header" => drop(serde_json::from_value::<HeaderAnswer>(answer).unwrap()),
        "perturb_block" => drop(serde_json::from_value::<BlockAnswer>(answer).unwrap()),
        "perturb_handovers" => {
            let answer: HandoversAnswer = serde_json::from_value(answer).unwrap();
            assert!(answer.handovers.len() <= MAX_HANDOVERS);
        }
        "perturb_proof" => {
            let answer: ProofAnswer = serde_json::from_value(answer).unwrap();
            assert!((1..=MAX_PROOF_KEYS).contains(&answer.proofs.len()));
            let roots: Vec<_> = world().blocks.iter().map(|(b, _)| b.header.state_root).collect();
            let first = world().stores[0].block(0).unwrap().0.header.state_root;
            let holds = |root| answer.proofs.iter().all(|p| p.0.verify(root));
            assert!(roots.iter().chain([&first]).any(holds), "proofs that do not hold");
        }
        "perturb_state" => drop(serde_json::from_value::<StateAnswer>(answer).unwrap()),
        _ => drop(serde_json::from_value::<RoundAnswer>(answer).unwrap()),
    }
}

fn same<T: BorshSerialize + BorshDeserialize>(value: &Hex<T>) {
    let text = serde_json::to_string(value).unwrap();
    let back: Hex<T> = serde_json::from_str(&text).unwrap();
    assert!(encode::encode(&back.0) == encode::encode(&value.0));
}

/// What a hostile node answers an auditor.
pub fn rpc_answer(bytes: &[u8]) {
    if let Ok(answer) = serde_json::from_slice::<HeaderAnswer>(bytes) {
        same(&answer.header);
    }
    if let Ok(answer) = serde_json::from_slice::<BlockAnswer>(bytes) {
        same(&answer.block);
    }
    if let Ok(answer) = serde_json::from_slice::<HandoversAnswer>(bytes) {
        answer.handovers.iter().for_each(same);
    }
    if let Ok(answer) = serde_json::from_slice::<ProofAnswer>(bytes) {
        answer.proofs.iter().for_each(same);
    }
    if let Ok(answer) = serde_json::from_slice::<StateAnswer>(bytes) {
        same(&answer.rows);
        // An auditor computes the root of the rows it was given.
        let _ = perturb_ledger::archive::state_root(&answer.rows.0);
    }
    if let Ok(answer) = serde_json::from_slice::<RoundAnswer>(bytes) {
        answer.opened.iter().chain(&answer.closed).for_each(same);
    }
}
