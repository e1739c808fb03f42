//! What validators anchored, on a chain and from nodes that may say anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use perturb_audit::anchors::{self, Question};
use perturb_audit::chain::commitment_key;
use perturb_audit::source::{Local, Source};
use perturb_audit::{AuditError, Nodes, Report, TrustAnchor, Verdict};
use perturb_ledger::{Anchor, AnchorKind, AnchorPlace, MemoryStore};
use perturb_types::{Digest, Hotkey};
use serde_json::{Value, json};
use support::World;

const NETUID: u16 = 2;
/// The finalized block.
const HEAD: u64 = 40;

fn chain_hash(number: u64) -> Digest {
    Digest([number as u8; 32])
}

/// A chain's node: commitments by storage key, extrinsics by block.
#[derive(Default)]
struct FakeChain {
    commitments: BTreeMap<String, String>,
    blocks: BTreeMap<u64, Vec<String>>,
}

impl FakeChain {
    fn commit(&mut self, hotkey: &Hotkey, block: u32, fields: &[u8]) {
        let value = [&[0; 8][..], &block.to_le_bytes(), fields].concat();
        let key = format!("0x{}", hex::encode(commitment_key(NETUID, hotkey)));
        self.commitments.insert(key, format!("0x{}", hex::encode(value)));
    }

    /// A remark by a hotkey, alone in its block.
    fn remark(&mut self, hotkey: &Hotkey, block: u64, anchor: &Anchor) {
        let call = [&[0, 7, 0xe5, 1][..], &anchor.to_bytes()].concat();
        let body = [&[0x84, 0][..], &hotkey.0, &[1], &[0; 64], &[0, 0, 0, 0], &call].concat();
        let length = (body.len() as u16) << 2 | 1;
        let bytes = [&length.to_le_bytes()[..], &body].concat();
        self.blocks.insert(block, vec![format!("0x{}", hex::encode(bytes))]);
    }
}

fn fields(anchor: &Anchor) -> Vec<u8> {
    let (root, certificate) = (anchor.state_root.0, anchor.certificate.0);
    [&[12, 58][..], &anchor.label(), &[131], &root, &[131], &certificate].concat()
}

impl Source for FakeChain {
    fn name(&self) -> &str {
        "chain"
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError> {
        let number = |n: u64| format!("0x{n:x}");
        Ok(match method {
            "chain_getFinalizedHead" => json!(format!("0x{}", chain_hash(HEAD))),
            "chain_getHeader" => json!({ "number": number(HEAD) }),
            "chain_getBlockHash" => json!(format!("0x{}", chain_hash(params[0].as_u64().unwrap()))),
            "chain_getBlock" => {
                let found = self.blocks.iter().find(|(n, _)| params[0] == format!("0x{}", chain_hash(**n)));
                found.map_or(Value::Null, |(_, extrinsics)| json!({ "block": { "extrinsics": extrinsics } }))
            }
            "state_getStorage" => json!(self.commitments.get(params[0].as_str().unwrap())),
            other => panic!("{other}"),
        })
    }
}

/// A node that says where anchors are.
struct Naming(Local<MemoryStore>, Vec<AnchorPlace>);

impl Source for Naming {
    fn name(&self) -> &str {
        "naming"
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError> {
        match method {
            "perturb_anchors" => Ok(json!(self.1)),
            _ => self.0.call(method, params),
        }
    }
}

fn anchor(w: &World, height: u64) -> Anchor {
    let header = |height| w.ledger.store().block(height).unwrap().0.header.clone();
    Anchor::of(&w.id(), &header(height), &header(height + 1)).unwrap()
}

fn place(hotkey: Hotkey, epoch: u64, block: u64) -> AnchorPlace {
    let kind = AnchorKind::Remark;
    AnchorPlace { epoch, kind, hotkey, block_number: block, block_hash: chain_hash(block), index: 0 }
}

fn ask(w: &World, chain: FakeChain, places: Vec<AnchorPlace>, epoch: Option<u64>) -> Report {
    let nodes = Nodes(vec![Box::new(Naming(w.node(), places))]);
    let question = Question { epoch, netuid: NETUID, chain_genesis: None, at: None };
    anchors::run(&w.anchor(), &nodes, &Nodes(vec![Box::new(chain)]), &question)
}

/// Epoch 2, closed by block 10, by two commitments; epoch 1, closed by block 7, by a remark.
fn honest(w: &World) -> (FakeChain, Vec<AnchorPlace>) {
    let mut chain = FakeChain::default();
    let hotkey = |v: usize| w.hotkeys[v].hotkey();
    chain.commit(&hotkey(0), 30, &fields(&anchor(w, 10)));
    chain.commit(&hotkey(3), 31, &fields(&anchor(w, 10)));
    chain.commit(&hotkey(4), 32, &[4, 4, 1, 2, 3]);
    chain.remark(&hotkey(4), 20, &anchor(w, 7));
    (chain, vec![place(hotkey(4), 1, 20)])
}

#[test]
fn commitments_and_remarks_of_the_certified_history_hold_and_cover_what_is_before_them() {
    let w = World::epochs();
    for (epoch, verdict) in
        [(None, Verdict::Ok), (Some(0), Verdict::Ok), (Some(2), Verdict::Ok), (Some(3), Verdict::Unavailable)]
    {
        let (chain, places) = honest(&w);
        let report = ask(&w, chain, places, epoch);
        assert_eq!(report.verdict, verdict, "{report}");
        assert_eq!(report.result["covered"], 2, "{report}");
        let said = report.to_string();
        assert!(said.contains("epoch 2, closed by block 10: 2 anchors"), "{said}");
        assert!(said.contains("a commitment about something else"), "{said}");
        assert_eq!(said.contains("by remark in chain block 20"), epoch.is_none_or(|e| e <= 1), "{said}");
    }
}

#[test]
fn who_anchors_another_history_is_named_and_a_third_of_the_power_makes_it_invalid() {
    let w = World::epochs();
    let (good, other) = (anchor(&w, 10), Digest([1; 32]));
    let wrong = [
        (Anchor { header: other, ..good }, "header"),
        (Anchor { state_root: other, ..good }, "state root"),
        (Anchor { certificate: other, ..good }, "certificate"),
        (Anchor { epoch: 1, ..good }, "not the end of epoch 1"),
    ];
    for (anchor, what) in wrong {
        // One of four of equal power can say what it likes; two cannot.
        for (liars, verdict) in [(&[3][..], Verdict::Ok), (&[3, 4], Verdict::Invalid)] {
            let (mut chain, places) = honest(&w);
            liars.iter().for_each(|v| chain.commit(&w.hotkeys[*v].hotkey(), 31, &fields(&anchor)));
            let report = ask(&w, chain, places, None);
            assert_eq!(report.verdict, verdict, "{what}: {report}");
            let said = report.to_string();
            assert!(said.contains(what) && said.contains("anchored another history"), "{said}");
            assert_eq!(report.result["contradicting"].as_array().unwrap().len(), liars.len());
        }
    }
    let mut chain = FakeChain::default();
    chain.remark(&w.hotkeys[4].hotkey(), 20, &Anchor { state_root: other, ..anchor(&w, 7) });
    let report = ask(&w, chain, vec![place(w.hotkeys[4].hotkey(), 1, 20)], None);
    assert_eq!(report.verdict, Verdict::Unavailable, "{report}");
    assert!(report.to_string().contains("anchored another history"), "{report}");
}

#[test]
fn an_anchor_that_cannot_be_compared_takes_nothing_from_those_that_can() {
    let w = World::epochs();
    let (mut chain, places) = honest(&w);
    // Of a block that is not there yet.
    chain.commit(&w.hotkeys[3].hotkey(), 31, &fields(&Anchor { height: 1 << 60, epoch: 9, ..anchor(&w, 10) }));
    // Of a kind that nobody here knows.
    chain.commit(&w.hotkeys[4].hotkey(), 31, &[4, 200]);
    let report = ask(&w, chain, places, Some(2));
    assert_eq!((report.verdict, &report.result["covered"]), (Verdict::Ok, &json!(2)), "{report}");
    let said = report.to_string();
    assert!(said.contains("it cannot be compared") && said.contains("unknown kind"), "{said}");

    // Of a block before the trusted header.
    let (chain, places) = honest(&w);
    let header = w.ledger.store().block(8).unwrap().0.header.clone();
    let trusted = TrustAnchor::Header { network: w.id(), height: 8, digest: header.digest(&w.id()) };
    let question = Question { epoch: None, netuid: NETUID, chain_genesis: None, at: None };
    let nodes = Nodes(vec![Box::new(Naming(w.node(), places))]);
    let report = anchors::run(&trusted, &nodes, &Nodes(vec![Box::new(chain)]), &question);
    assert_eq!((report.verdict, &report.result["covered"]), (Verdict::Ok, &json!(2)), "{report}");
    assert!(report.to_string().contains("it cannot be compared"), "{report}");
}

#[test]
fn what_a_node_says_of_places_is_a_claim() {
    let w = World::epochs();
    let hotkey = |v: usize| w.hotkeys[v].hotkey();
    let moved = AnchorPlace { block_hash: chain_hash(21), ..place(hotkey(4), 1, 20) };
    let claims = [
        (place(hotkey(3), 1, 20), "another account signed it"),
        (place(hotkey(4), 1, 19), "there is no extrinsic 0"),
        (place(hotkey(4), 1, HEAD + 1), "above block"),
        (moved, "its hash is not"),
    ];
    for (claim, why) in claims {
        let mut chain = FakeChain::default();
        chain.remark(&hotkey(4), 20, &anchor(&w, 7));
        let report = ask(&w, chain, vec![claim], None);
        assert_eq!(report.verdict, Verdict::Unavailable, "{report}");
        assert!(report.to_string().contains(why), "{why}: {report}");
    }
    // A stranger's anchor is nobody's word.
    let stranger = Hotkey([99; 32]);
    let mut chain = FakeChain::default();
    chain.remark(&stranger, 20, &anchor(&w, 7));
    assert_eq!(ask(&w, chain, vec![place(stranger, 1, 20)], None).verdict, Verdict::Unavailable);
}

/// A node that holds the header of an epoch's end, and not the one after it.
struct Thrifty(Local<MemoryStore>, u64);

impl Source for Thrifty {
    fn name(&self) -> &str {
        "thrifty"
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError> {
        if method == "perturb_header" && params[0] == self.1 {
            return Err(AuditError::Pruned { node: self.name().into(), what: method.into(), oldest: self.1 + 1 });
        }
        self.0.call(method, params)
    }
}

#[test]
fn where_the_next_header_is_pruned_the_rest_still_holds() {
    let w = World::epochs();
    let mut chain = FakeChain::default();
    chain.commit(&w.hotkeys[0].hotkey(), 30, &fields(&anchor(&w, 10)));
    let nodes = Nodes(vec![Box::new(Thrifty(w.node(), 11))]);
    let question = Question { epoch: Some(2), netuid: NETUID, chain_genesis: None, at: None };
    let report = anchors::run(&w.anchor(), &nodes, &Nodes(vec![Box::new(chain)]), &question);
    assert_eq!(report.verdict, Verdict::Ok, "{report}");
    assert!(report.to_string().contains("certificate's digest cannot be compared"), "{report}");
    assert_eq!(report.result["anchors"][0]["worth"], "holds_without_certificate");
    assert!(report.to_string().contains("names no anchors"), "the node is of an older version: {report}");
}
