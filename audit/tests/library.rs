//! Every command through the library, over honest and dishonest nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use perturb_audit::bundle::Known;
use perturb_audit::replay::{self, Mode};
use perturb_audit::source::{Ask, Local, Source};
use perturb_audit::{AuditError, History, Nodes, TrustAnchor, Verdict, cert, root, round, score, verify};
use perturb_ledger::epoch::EpochRecord;
use perturb_ledger::state::{HistoryRow, epoch_key, history_key};
use perturb_ledger::{Certificate, Effect, MemoryStore};
use perturb_types::{Digest, Hotkey, RoundId, encode};
use serde_json::{Value, json};
use support::{CHALLENGE, FAULT, Twisted, World, flip};

/// A node without the states before a height.
struct Pruned(Local<MemoryStore>, u64);

impl Source for Pruned {
    fn name(&self) -> &str {
        "pruned"
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError> {
        let old = params[0].as_u64().is_some_and(|height| height < self.1);
        match method {
            "perturb_proof" | "perturb_state" if old => Ok(Value::Null),
            _ => self.0.call(method, params),
        }
    }
}

/// A node whose blocks and headers begin at a height.
struct Forgetful(Local<MemoryStore>, u64);

impl Source for Forgetful {
    fn name(&self) -> &str {
        "forgetful"
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError> {
        let (height, oldest) = (params[0].as_u64(), self.1);
        match method {
            "perturb_header" | "perturb_block" if height.is_some_and(|h| (1..oldest).contains(&h)) => {
                Err(AuditError::Pruned { node: self.name().into(), what: method.into(), oldest })
            }
            _ => self.0.call(method, params),
        }
    }
}

fn texts(steps: &[perturb_audit::report::Step]) -> String {
    steps.iter().map(|s| format!("{}\n{}", s.text, texts(&s.steps))).collect()
}

#[test]
fn every_height_is_proved_from_genesis_and_from_a_trusted_header() {
    let w = World::epochs();
    for height in 0..=12 {
        let (report, bundle) = root::run(&w.anchor(), &w.nodes(), Some(height));
        assert_eq!(report.verdict, Verdict::Ok, "{report}");
        assert_eq!(report.result["digest"], json!(w.digest(height)));
        assert_eq!(bundle.is_some(), height > 0, "the beginning needs no proof");
    }
    for at in [3, 5, 7, 12] {
        let anchor = TrustAnchor::Header { network: w.id(), height: at, digest: w.digest(at) };
        let (report, _) = root::run(&anchor, &w.nodes(), None);
        assert_eq!(report.verdict, Verdict::Ok, "{report}");
        assert_eq!(report.result["height"], 12);
        let (before, _) = root::run(&anchor, &w.nodes(), Some(2));
        assert_eq!(before.verdict, Verdict::Untrusted, "{before}");
    }
    // A node that no longer has the old states: the set comes from a handover, or from the newest state.
    for at in [3, 5, 7, 12] {
        let anchor = TrustAnchor::Header { network: w.id(), height: at, digest: w.digest(at) };
        let pruned = Pruned(w.node(), 12);
        assert_eq!(root::run(&anchor, &Nodes(vec![Box::new(pruned)]), None).0.verdict, Verdict::Ok, "from {at}");
    }
    assert_eq!(cert::run(&w.anchor(), &w.nodes(), 0).verdict, Verdict::Untrusted);
    let wrong = TrustAnchor::Header { network: w.id(), height: 3, digest: w.digest(4) };
    assert_eq!(root::run(&wrong, &w.nodes(), None).0.verdict, Verdict::Untrusted);
    let other = TrustAnchor::Header { network: perturb_types::NetworkId([9; 32]), height: 3, digest: w.digest(3) };
    assert_eq!(root::run(&other, &w.nodes(), None).0.verdict, Verdict::Untrusted);
}

#[test]
fn one_honest_node_suffices_and_the_others_are_named() {
    let w = World::epochs();
    let twisted = |method: &'static str, pointer: &'static str, at: usize| {
        let twist = move |asked: &str, mut answer: Value| {
            if asked == method
                && let Some(value) = answer.pointer_mut(pointer).filter(|v| v.is_string())
            {
                flip(value, at);
            }
            answer
        };
        Box::new(Twisted { inner: w.node(), twist })
    };
    for (method, pointer, at) in [
        ("perturb_header", "/header", 60),
        ("perturb_header", "/certificate", 90),
        ("perturb_handovers", "/handovers/0", 100),
        ("perturb_handovers", "/handovers/1", 900),
    ] {
        let nodes = Nodes(vec![twisted(method, pointer, at), Box::new(w.node())]);
        let (report, _) = root::run(&w.anchor(), &nodes, Some(12));
        assert_eq!(report.verdict, Verdict::Ok, "{report}");
        assert!(report.to_string().contains("✗ twisted") && report.to_string().contains("1 of 2 nodes agree"));
        let alone = Nodes(vec![twisted(method, pointer, at)]);
        let (report, _) = root::run(&w.anchor(), &alone, Some(12));
        assert_ne!(report.verdict, Verdict::Ok, "{method} {pointer}: {report}");
    }
    let silent = twisted("perturb_handovers", "", 0);
    let nodes = Nodes(vec![silent]);
    assert_eq!(root::run(&w.anchor(), &nodes, Some(99)).0.verdict, Verdict::Unavailable);
}

#[test]
fn handovers_that_are_kept_back_are_untrusted_not_believed() {
    let w = World::epochs();
    let twist = |method: &str, answer: Value| match method {
        "perturb_handovers" => json!({ "handovers": [], "more": false }),
        _ => answer,
    };
    let nodes = Nodes(vec![Box::new(Twisted { inner: w.node(), twist })]);
    let (report, _) = root::run(&w.anchor(), &nodes, Some(12));
    assert_eq!(report.verdict, Verdict::Untrusted, "{report}");
}

#[test]
fn a_certificate_is_taken_apart() {
    let w = World::epochs();
    let report = cert::run(&w.anchor(), &w.nodes(), FAULT.0);
    assert_eq!(report.verdict, Verdict::Ok, "{report}");
    let members = report.result["members"].as_array().unwrap();
    assert_eq!(members.len(), 5);
    let missing: Vec<_> = members.iter().filter(|m| m["signature"] == "missing").collect();
    assert_eq!((missing.len(), &missing[0]["hotkey"]), (1, &json!(w.hotkeys[0].hotkey())));
    let recorded = &report.result["recorded"];
    let fault = json!({ "key": w.keys[FAULT.1].public(), "round": 0, "step": 1 });
    assert_eq!(*recorded, json!([fault]), "a double prevote in round 0");
    assert_eq!(cert::run(&w.anchor(), &w.nodes(), 6).result["recorded"], json!([]));
    assert!(report.to_string().contains("1 equivocations, 0 rounds never closed"), "{report}");
}

#[test]
fn two_certified_histories_of_one_height_show_who_signed_both() {
    let mut a = World::new();
    let mut b = a.beside();
    a.step(vec![]);
    b.lie(false, |commit| commit.block.header.time_ms += 1);
    assert_ne!(a.digest(1), b.digest(1));
    let nodes = Nodes(vec![Box::new(a.node()), Box::new(b.node())]);
    let report = cert::run(&a.anchor(), &nodes, 1);
    assert_eq!(report.verdict, Verdict::Invalid);
    let both = report.result["equivocations"].as_array().unwrap();
    assert_eq!(both.len(), 3, "the three that signed the first: {report}");
    assert_eq!(root::run(&a.anchor(), &nodes, Some(1)).0.verdict, Verdict::Invalid);
    let (report, _) = score::run(&a.anchor(), &nodes, 0, CHALLENGE, &a.miner(0));
    assert!(report.verdict == Verdict::Invalid && report.to_string().contains("another certified history"), "{report}");
}

#[test]
fn a_certificate_without_a_quorum_or_with_a_bad_signature_is_invalid() {
    let w = World::epochs();
    let changed = |change: &'static dyn Fn(&mut Certificate)| {
        let twist = move |method: &str, mut answer: Value| {
            if method == "perturb_header" && answer["certificate"].is_string() {
                let bytes = hex::decode(answer["certificate"].as_str().unwrap()).unwrap();
                let mut certificate: Certificate = borsh::from_slice(&bytes).unwrap();
                change(&mut certificate);
                answer["certificate"] = json!(hex::encode(encode::encode(&certificate)));
            }
            answer
        };
        cert::run(&w.anchor(), &Nodes(vec![Box::new(Twisted { inner: w.node(), twist })]), 5)
    };
    let few = changed(&|c| c.signatures.truncate(2));
    assert_eq!(few.verdict, Verdict::Invalid);
    assert!(few.to_string().contains("no quorum"), "{few}");
    let forged = changed(&|c| c.signatures[1].1[9] ^= 1);
    assert_eq!(forged.verdict, Verdict::Invalid);
    assert!(forged.to_string().contains("signature does not verify"), "{forged}");
}

#[test]
fn a_score_and_its_absence_are_proved_and_outlive_the_network() {
    let w = World::epochs();
    let known = Known { network: Some(w.id()), point: None };
    let ask = |epoch, challenge: u16, miner: &Hotkey| {
        let challenge = perturb_types::ChallengeId(challenge);
        let (report, bundle) = score::run(&w.anchor(), &w.nodes(), epoch, challenge, miner);
        assert_eq!(report.verdict, Verdict::Ok, "{report}");
        let bytes = bundle.unwrap().to_bytes();
        let offline = verify::run("b", &bytes, &known);
        assert_eq!(offline.verdict, Verdict::Ok, "{offline}");
        assert_eq!(offline.result, report.result);
        assert_eq!(verify::run("b", &bytes, &Known::default()).verdict, Verdict::Untrusted);
        report.result["standing"].clone()
    };
    let first = ask(0, 0, &w.miner(0));
    assert_eq!((&first["present"], &first["weight"]), (&json!(true), &json!(65_535)));
    assert_eq!(first["rejected"], json!([w.hotkeys[3].hotkey()]), "the slow validator is an outlier");
    assert_eq!(first["contributions"].as_array().unwrap().len(), 4);
    let stranger = Hotkey([77; 32]);
    assert_eq!(ask(1, 0, &stranger), json!({ "present": false, "why": "not_named" }));
    assert_eq!(ask(1, 5, &w.miner(0)), json!({ "present": false, "why": "no_record" }));
    assert_eq!(ask(3, 0, &w.miner(0)), json!({ "present": false, "why": "not_closed" }));
}

#[test]
fn a_tampered_record_is_no_proof() {
    let w = World::epochs();
    let twist = |method: &str, mut answer: Value| {
        if method == "perturb_proof" {
            let value = answer.pointer_mut("/proofs/0").unwrap();
            let middle = value.as_str().unwrap().len() / 4;
            flip(value, middle);
        }
        answer
    };
    let nodes = Nodes(vec![Box::new(Twisted { inner: w.node(), twist })]);
    let (report, bundle) = score::run(&w.anchor(), &nodes, 0, CHALLENGE, &w.miner(0));
    assert!(bundle.is_none());
    assert_eq!(report.verdict, Verdict::Invalid, "{report}");
}

#[test]
fn a_round_is_shown_in_its_blocks_with_what_counted() {
    let w = World::epochs();
    let id = |v: usize, seq| RoundId { validator: w.hotkeys[v].hotkey(), challenge: CHALLENGE, seq };
    let (report, bundle) = round::run(&w.anchor(), &w.nodes(), &id(4, 1));
    assert_eq!(report.verdict, Verdict::Ok, "{report}");
    assert_eq!(report.result["opened"]["height"], 6);
    assert_eq!(report.result["bound"]["height"], 6);
    assert!(texts(&report.steps).contains("2 of 3 miners signed a commitment"), "{report}");
    let entries = report.result["entries"].as_array().unwrap();
    assert!(entries.len() == 3 && entries.iter().all(|e| e["counted"] == true));
    let known = Known { network: Some(w.id()), point: None };
    assert_eq!(verify::run("b", &bundle.unwrap().to_bytes(), &known).result, report.result);

    let (unclosed, _) = round::run(&w.anchor(), &w.nodes(), &id(2, 2));
    assert_eq!((unclosed.verdict, &unclosed.result["closed"]), (Verdict::Ok, &Value::Null));
    assert!(texts(&unclosed.steps).contains("does not prove"));
    assert_eq!(round::run(&w.anchor(), &w.nodes(), &id(2, 3)).0.verdict, Verdict::Unavailable);

    // Another round's proof does not pass for this one.
    let (store, other) = (w.ledger.store().clone(), json!([w.hotkeys[4].hotkey(), 0, 0]));
    let twist = move |method: &str, answer: Value| match method {
        "perturb_round" => perturb_ledger::serve::answer(&store, "perturb_round", &other).unwrap(),
        _ => answer,
    };
    let nodes = Nodes(vec![Box::new(Twisted { inner: w.node(), twist })]);
    assert_eq!(round::run(&w.anchor(), &nodes, &id(4, 1)).0.verdict, Verdict::Invalid);
}

#[test]
fn every_epoch_replays_bit_for_bit_in_both_modes() {
    let w = World::epochs();
    for epoch in 0..3 {
        let row = perturb_ledger::epoch::record(w.ledger.store(), epoch, CHALLENGE).unwrap().unwrap();
        for mode in [Mode::Exact, Mode::Fast] {
            let report = replay::run(&w.anchor(), &w.genesis, &w.nodes(), epoch, mode);
            assert_eq!(report.verdict, Verdict::Ok, "{report}");
            let vector: Vec<(u16, u16)> = row.weights.iter().map(|(uid, _, w)| (*uid, *w)).collect();
            assert_eq!(report.result["weights"]["0"], json!(vector));
            assert_eq!(report.result["results"], json!(row.results));
            // In the last of them the one that contradicted itself has no standing any more, and the slow
            // one holds a third of what there is.
            assert_eq!(texts(&report.steps).contains("outlier"), epoch < 2, "{report}");
        }
    }
    let pruned = Nodes(vec![Box::new(Pruned(w.node(), 12))]);
    let late = replay::run(&w.anchor(), &w.genesis, &pruned, 0, Mode::Fast);
    assert_eq!(late.verdict, Verdict::Ok, "the first epoch begins with the genesis file: {late}");
    assert_eq!(replay::run(&w.anchor(), &w.genesis, &pruned, 1, Mode::Fast).verdict, Verdict::Unavailable);
    // A node that keeps the last closed epoch, from the block on that closed the one before.
    let closes = perturb_ledger::epoch::record(w.ledger.store(), 1, CHALLENGE).unwrap().unwrap().height;
    let forgetful = |oldest| Nodes(vec![Box::new(Forgetful(w.node(), oldest))]);
    let kept = replay::run(&w.anchor(), &w.genesis, &forgetful(closes), 2, Mode::Exact);
    assert_eq!(kept.verdict, Verdict::Ok, "{kept}");
    for (oldest, epoch) in [(closes, 1), (closes + 1, 2)] {
        let gone = replay::run(&w.anchor(), &w.genesis, &forgetful(oldest), epoch, Mode::Exact);
        assert_eq!(gone.verdict, Verdict::Unavailable, "{gone}");
    }
    let early = replay::run(&w.anchor(), &w.genesis, &w.nodes(), 3, Mode::Exact);
    assert_eq!(early.verdict, Verdict::Unavailable);
    // From a trusted header that closed an epoch, and from one in the middle.
    let anchor = |height| TrustAnchor::Header { network: w.id(), height, digest: w.digest(height) };
    let from_close = replay::run(&anchor(3), &w.genesis, &w.nodes(), 1, Mode::Exact);
    assert_eq!(from_close.verdict, Verdict::Ok, "{from_close}");
    assert_eq!(replay::run(&anchor(3), &w.genesis, &w.nodes(), 2, Mode::Fast).verdict, Verdict::Ok);
    assert_eq!(replay::run(&anchor(5), &w.genesis, &w.nodes(), 1, Mode::Exact).verdict, Verdict::Untrusted);
    assert_eq!(replay::run(&anchor(5), &w.genesis, &w.nodes(), 2, Mode::Exact).verdict, Verdict::Ok);
}

/// An epoch whose closing block a quorum agreed to change, replayed.
fn replayed(w: &World, mode: Mode) -> replay::Difference {
    let node = w.node();
    let history = History::load(&w.anchor(), Ask(&node)).unwrap();
    let done = replay::replay(&history, &w.genesis, Ask(&node), 0, mode).unwrap();
    let report = replay::run(&w.anchor(), &w.genesis, &w.nodes(), 0, mode);
    assert_eq!(report.verdict, Verdict::Invalid, "{report}");
    done.difference.unwrap()
}

#[test]
fn weights_that_a_quorum_invented_are_named() {
    let mut w = World::new();
    w.step(vec![]);
    w.lie(true, |commit| {
        let key = epoch_key(0, CHALLENGE);
        let value = commit.values.iter_mut().find(|(k, _)| *k == key).unwrap();
        let mut record: EpochRecord = borsh::from_slice(value.1.as_ref().unwrap()).unwrap();
        record.weights[0].2 -= 1;
        value.1 = Some(encode::encode(&record));
        let Some(Effect::Closed { weights, .. }) = commit.receipts.last_mut().map(|r| &mut r.effect) else { panic!() };
        weights[0].1 = record.weights;
    });
    for mode in [Mode::Exact, Mode::Fast] {
        let d = replayed(&w, mode);
        assert_eq!(d.height, 2);
        assert!(d.leaf.starts_with("epoch/0/0: weight of uid"), "{d:?}");
        assert!(d.agreed.starts_with("65534") && d.recomputed.starts_with("65535"), "{d:?}");
    }
}

#[test]
fn an_outlier_that_a_quorum_let_pass_is_named() {
    let mut w = World::new();
    for _ in 0..2 {
        let rounds = w.rounds(&[0, 1, 2, 3]);
        w.step(rounds);
    }
    w.lie(true, |commit| {
        let key = epoch_key(0, CHALLENGE);
        let value = commit.values.iter_mut().find(|(k, _)| *k == key).unwrap();
        let mut record: EpochRecord = borsh::from_slice(value.1.as_ref().unwrap()).unwrap();
        record.miners[0].aggregate.as_mut().unwrap().rejected.clear();
        value.1 = Some(encode::encode(&record));
    });
    for mode in [Mode::Exact, Mode::Fast] {
        let d = replayed(&w, mode);
        let leaf = format!("epoch/0/0: miner {} outlier {}", w.miner(0), w.hotkeys[3].hotkey());
        assert_eq!((d.height, d.leaf), (3, leaf));
    }
}

#[test]
fn a_kept_score_says_how_old_it_is_and_a_younger_age_is_a_difference() {
    let mut w = World::new();
    for _ in 0..2 {
        let rounds = w.rounds(&[0, 1, 2, 3]);
        w.step(rounds);
    }
    w.close(vec![]);
    // Two of four contribute in the next epoch.
    let rounds = w.rounds(&[0, 1]);
    w.step(rounds);
    let mut lied = w.beside();
    for _ in 0..2 {
        let rounds = lied.rounds(&[0, 1, 2, 3]);
        lied.step(rounds);
    }
    lied.close(vec![]);
    w.close(vec![]);
    let shown = score::run(&w.anchor(), &w.nodes(), 1, CHALLENGE, &w.miner(0)).0;
    assert_eq!(shown.result["standing"]["kept_from"], json!(0), "{shown}");
    lied.lie(true, |commit| {
        let key = epoch_key(1, CHALLENGE);
        let value = commit.values.iter_mut().find(|(k, _)| *k == key).unwrap();
        let mut record: EpochRecord = borsh::from_slice(value.1.as_ref().unwrap()).unwrap();
        record.miners[0].kept = None;
        value.1 = Some(encode::encode(&record));
    });
    for mode in [Mode::Exact, Mode::Fast] {
        let report = replay::run(&w.anchor(), &w.genesis, &w.nodes(), 1, mode);
        assert_eq!(report.verdict, Verdict::Ok, "{report}");
        assert!(texts(&report.steps).contains("keeps its score of epoch 0"), "{report}");
        let report = replay::run(&lied.anchor(), &lied.genesis, &lied.nodes(), 1, mode);
        assert_eq!(report.verdict, Verdict::Invalid, "{report}");
        assert!(report.to_string().contains("score kept from epoch"), "{report}");
    }
}

#[test]
fn a_score_that_a_quorum_invented_is_named_in_the_block_it_entered() {
    let mut w = World::new();
    let (miner, validator) = (w.miner(1), w.hotkeys[1].hotkey());
    w.lie(false, |commit| {
        let key = history_key(CHALLENGE, &miner, &validator);
        let value = commit.values.iter_mut().find(|(k, _)| *k == key).unwrap();
        let mut row: HistoryRow = borsh::from_slice(value.1.as_ref().unwrap()).unwrap();
        row.ring.scores[0] += 1;
        value.1 = Some(encode::encode(&row));
        for receipt in &mut commit.receipts {
            if let Effect::Scored { round, counted } = &mut receipt.effect
                && round.validator == validator
            {
                counted.iter_mut().find(|(m, _)| *m == miner).unwrap().1.0 += 1;
            }
        }
    });
    w.close(vec![]);
    for mode in [Mode::Exact, Mode::Fast] {
        let d = replayed(&w, mode);
        assert_eq!((d.height, d.leaf), (1, format!("history/0/{miner}/{validator}: scores[0]")));
    }
}

#[test]
fn a_row_that_the_rules_do_not_touch_is_found_by_the_whole_state() {
    let mut w = World::new();
    let stranger = Hotkey([66; 32]);
    w.lie(false, |commit| commit.values.push((b"zzz".to_vec(), Some(stranger.0.to_vec()))));
    w.close(vec![]);
    let d = replayed(&w, Mode::Exact);
    assert_eq!((d.height, d.leaf.as_str(), d.recomputed.as_str()), (1, "zzz", "no row"));
}

#[test]
fn certificates_that_a_node_adds_or_keeps_back_accuse_nobody() {
    let w = World::epochs();
    let with = |height: u64, certificate: Value| {
        let (digest, network) = (w.digest(height), w.id());
        let twist = move |method: &str, mut answer: Value| {
            let header = answer["header"].as_str().and_then(|h| hex::decode(h).ok());
            let header: Option<perturb_ledger::Header> = header.and_then(|h| borsh::from_slice(&h).ok());
            if method == "perturb_header" && header.is_some_and(|h| h.digest(&network) == digest) {
                answer["certificate"] = certificate.clone();
            }
            answer
        };
        Twisted { inner: w.node(), twist }
    };
    let other = w.ledger.store().block(5).unwrap().1.clone().unwrap();
    let surplus = Nodes(vec![Box::new(with(0, json!(hex::encode(encode::encode(&other)))))]);
    assert_eq!(replay::run(&w.anchor(), &w.genesis, &surplus, 0, Mode::Exact).verdict, Verdict::Ok);
    let trusted = TrustAnchor::Header { network: w.id(), height: 3, digest: w.digest(3) };
    for (certificate, expected) in
        [(Value::Null, Verdict::Invalid), (json!(hex::encode(encode::encode(&other))), Verdict::Ok)]
    {
        let nodes = Nodes(vec![Box::new(with(3, certificate))]);
        let report = replay::run(&trusted, &w.genesis, &nodes, 1, Mode::Exact);
        assert_eq!(report.verdict, expected, "{report}");
        assert!(report.result["difference"].is_null(), "the network did nothing wrong: {report}");
    }
}

#[test]
fn a_second_history_with_other_sets_is_noticed_by_every_command() {
    let w = World::epochs();
    let mut other = w.beside();
    (0..12).for_each(|_| other.step(vec![]));
    let nodes = Nodes(vec![Box::new(w.node()), Box::new(other.node())]);
    let (report, _) = score::run(&w.anchor(), &nodes, 0, CHALLENGE, &w.miner(0));
    assert_eq!(report.verdict, Verdict::Invalid);
    assert!(report.to_string().contains("honest has another certified history"), "{report}");
}

#[test]
fn absence_from_a_state_that_forgot_the_epoch_shows_nothing() {
    let w = World::epochs();
    let (mut header, _) = Ask(&w.node()).header(Some(12)).unwrap();
    let challenge = perturb_types::ChallengeId(9);
    let proof = Ask(&w.node()).rows(12, &header.state_root, &[epoch_key(1, challenge)]).unwrap().remove(0);
    for (epoch, verdict) in [(3, Ok(())), (1001, Ok(())), (1002, Err(Verdict::Unavailable))] {
        header.epoch = epoch;
        let found = score::standing(&header, 1, challenge, &w.miner(0), &proof);
        assert_eq!(found.map(|_| ()).map_err(|e| e.verdict()), verdict, "in epoch {epoch}");
    }
}

#[test]
fn blocks_and_rows_that_a_node_forges_are_its_own_fault() {
    let w = World::epochs();
    let forge = |method: &'static str, pointer: &'static str, at: usize| {
        let twist = move |asked: &str, mut answer: Value| {
            if asked == method {
                flip(answer.pointer_mut(pointer).unwrap(), at);
            }
            answer
        };
        let node = Twisted { inner: w.node(), twist };
        let history = History::load(&w.anchor(), Ask(&w.node())).unwrap();
        for mode in [Mode::Exact, Mode::Fast] {
            let error = replay::replay(&history, &w.genesis, Ask(&node), 1, mode).unwrap_err();
            assert!(matches!(error, AuditError::Invalid { .. } | AuditError::Light(_)), "{method} {at}: {error}");
        }
    };
    // Header: parent, time, state root, results root; body: the first transaction.
    for at in [50, 110, 190, 220, 420] {
        forge("perturb_block", "/block", at);
    }
    forge("perturb_state", "/rows", 400);
    let wrong = TrustAnchor::Header { network: w.id(), height: 3, digest: Digest([0; 32]) };
    let report = replay::run(&wrong, &w.genesis, &w.nodes(), 1, Mode::Fast);
    assert_eq!(report.verdict, Verdict::Untrusted);
}
