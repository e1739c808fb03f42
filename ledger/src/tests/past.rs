//! The past, as a node serves it and a light client checks it.

use super::*;
use crate::archive::{Archive, state_root};
use crate::light::{LightError, Trust};
use crate::serve::{self, HandoversAnswer, HeaderAnswer, ProofAnswer, RoundAnswer, StateAnswer};
use serde_json::{Value, json};

/// Two epochs; the fifth validator joins at the first close, rows come and go.
fn history(net: &Net) -> Ledger<MemoryStore> {
    let mut ls = pair(net);
    let d = Delegation::sign(&net.id(), &net.hotkeys[4], &net.keys[4], 0);
    let mut txs = vec![Transaction::KeyDelegation(Box::new(d))];
    txs.extend((0..5).map(|v| net.ready(v, 0)));
    let input = net.input(&ls[0], txs);
    net.step(&mut ls, input);
    let txs = (0..4).flat_map(|v| net.whole(v, 0, 0)).collect();
    net.close(&mut ls, 9, 1, txs);
    let txs = (0..5).map(|v| net.ready(v, 1)).collect();
    net.close(&mut ls, 19, 2, txs);
    let [l, _] = ls;
    l
}

fn ask<T: serde::de::DeserializeOwned>(l: &Ledger<MemoryStore>, method: &str, params: Value) -> T {
    serde_json::from_value(serve::answer(l.store(), method, &params).unwrap()).unwrap()
}

#[test]
fn a_light_client_follows_the_sets_from_genesis_or_from_a_trusted_header() {
    let net = Net::new();
    let l = history(&net);
    let answer: HandoversAnswer = ask(&l, "perturb_handovers", json!([0]));
    let handovers: Vec<_> = answer.handovers.into_iter().map(|h| h.0).collect();
    assert_eq!((handovers.len(), answer.more), (1, false));
    let newest: HeaderAnswer = ask(&l, "perturb_header", json!([null]));
    let (header, certificate) = (newest.header.0, newest.certificate.unwrap().0);

    let mut trust = Trust::genesis(&net.genesis).unwrap();
    let error = trust.check(&header, &certificate).unwrap_err();
    assert!(matches!(error, LightError::Set { .. }) && error.is_untrusted());
    trust.advance(&handovers[0]).unwrap();
    assert_eq!(trust.check(&header, &certificate), Ok(5));
    assert!(matches!(trust.advance(&handovers[0]), Err(LightError::Before { .. })));

    let (at, next) = (&handovers[0].header, handovers[0].next.clone());
    let digest = at.digest(&net.id());
    let from = Trust::header(net.id(), (at.height, digest), at, next.clone()).unwrap();
    assert_eq!(from, trust);
    let other = Trust::header(net.id(), (at.height, Digest([1; 32])), at, next);
    assert!(other.unwrap_err().is_untrusted());
}

#[test]
fn a_light_client_takes_no_forged_header_or_set() {
    let net = Net::new();
    let l = history(&net);
    let good = l.store().handovers_from(0, 9).unwrap().remove(0);
    let trust = Trust::genesis(&net.genesis).unwrap();
    let refused = |change: &dyn Fn(&mut crate::Handover)| {
        let mut bad = good.clone();
        change(&mut bad);
        let mut t = trust.clone();
        let error = t.advance(&bad).unwrap_err();
        assert_eq!(t, trust, "a refused handover changes nothing");
        error
    };
    assert!(matches!(refused(&|h| h.header.state_root = Digest([1; 32])), LightError::Other { .. }));
    assert!(matches!(refused(&|h| h.next = trust.set().clone()), LightError::Next { .. }));
    assert!(matches!(refused(&|h| h.certificate.signatures.truncate(2)), LightError::Certificate(_)));
    assert!(matches!(refused(&|h| h.header.network = NetworkId([1; 32])), LightError::Network { .. }));
    assert!(matches!(refused(&|h| h.header.protocol = 9), LightError::Protocol { .. }));
}

#[test]
fn the_rows_of_any_height_make_its_state_root() {
    let net = Net::new();
    let l = history(&net);
    for height in 0..=l.head().height {
        let (mut rows, mut after) = (Vec::new(), Value::Null);
        loop {
            let page: StateAnswer = ask(&l, "perturb_state", json!([height, after]));
            rows.extend(page.rows.0);
            if !page.more {
                break;
            }
            after = json!(hex::encode(&rows.last().unwrap().0));
        }
        let header = l.store().header_at(height).unwrap().unwrap().0;
        assert_eq!(state_root(&rows).unwrap(), header.state_root, "height {height}");
        rows.swap(0, 1);
        assert!(state_root(&rows).is_err());
    }
    // No rows, or one, make a root too; no height is special.
    for height in [0, 1, 9] {
        let (_, none) = MemoryStore::restored(height, &[]).unwrap();
        assert_eq!(none, state_root(&[]).unwrap());
        let one = [(b"k".to_vec(), vec![])];
        assert_eq!(MemoryStore::restored(height, &one).unwrap().1, state_root(&one).unwrap());
    }
    let small = l.store().rows_at(2, None, 1).unwrap().unwrap();
    assert!(small.rows.len() == 1 && small.more, "one row always fits");
}

#[test]
fn a_restored_state_goes_on_like_the_one_it_was_taken_from() {
    let net = Net::new();
    let l = history(&net);
    let rows = l.store().rows_at(2, None, usize::MAX).unwrap().unwrap().rows;
    let (mut store, root) = MemoryStore::restored(2, &rows).unwrap();
    let (header, certificate) = l.store().header_at(2).unwrap().unwrap();
    assert_eq!(root, header.state_root);
    store.set_base(header, certificate);
    let restored = Ledger::new(net.genesis.clone(), store).unwrap();
    restored.check(&l.store().block(3).unwrap().0).unwrap();
}

#[test]
fn a_round_and_a_row_are_shown_to_somebody_without_state() {
    let net = Net::new();
    let l = history(&net);
    let validator = net.hotkeys[0].hotkey().to_string();
    let shown: RoundAnswer = ask(&l, "perturb_round", json!([validator, 0, 0]));
    let trust = Trust::genesis(&net.genesis).unwrap();
    let closed = shown.closed.unwrap().0;
    shown.opened.unwrap().0.verify(&trust).unwrap();
    closed.verify(&trust).unwrap();
    shown.bound.unwrap().0.verify(&trust).unwrap();
    let mut other = closed.clone();
    other.receipt.receipt.effect = Effect::Applied;
    assert!(other.verify(&trust).is_err());
    let mut moved = closed.clone();
    moved.path.index ^= 1;
    assert!(moved.verify(&trust).is_err());
    assert!(serve::answer(l.store(), "perturb_round", &json!([validator, 0, 7])).unwrap().is_null());

    let (there, not) = (hex::encode(state::epoch_key(0, ChallengeId(0))), hex::encode(b"nothing"));
    let proofs: ProofAnswer = ask(&l, "perturb_proof", json!([3, [there, not]]));
    let root = l.head().state_root;
    assert!(proofs.proofs.iter().all(|p| p.0.verify(&root)));
    assert!(proofs.proofs[0].0.value.is_some() && proofs.proofs[1].0.value.is_none());
}

#[test]
fn a_request_of_another_shape_is_refused_and_what_is_not_held_is_null() {
    let net = Net::new();
    let l = history(&net);
    for (method, params) in [
        ("perturb_header", json!(["x"])),
        ("perturb_block", json!([])),
        ("perturb_handovers", json!({})),
        ("perturb_proof", json!([1, []])),
        ("perturb_proof", json!([1, ["zz"]])),
        ("perturb_proof", json!([1, vec!["00"; serve::MAX_PROOF_KEYS + 1]])),
        ("perturb_proof", json!([1, ["00".repeat(serve::MAX_KEY_BYTES + 1)]])),
        ("perturb_state", json!([1, "0"])),
        ("perturb_round", json!(["not ss58", 0, 0])),
        ("perturb_everything", json!([])),
    ] {
        let code = serve::answer(l.store(), method, &params).unwrap_err().code();
        assert!(code == -32602 || method == "perturb_everything", "{method}");
    }
    for (method, params) in
        [("perturb_header", json!([99])), ("perturb_block", json!([99])), ("perturb_state", json!([99, null]))]
    {
        assert!(serve::answer(l.store(), method, &params).unwrap().is_null());
    }
}
