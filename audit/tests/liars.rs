//! What a quorum of liars may certify, and what a node may forge: refused, and blamed on the right one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use perturb_audit::bundle::{Bundle, Claim};
use perturb_audit::history::Start;
use perturb_audit::replay::{self, Engine, Fast, Mode};
use perturb_audit::source::Ask;
use perturb_audit::{AuditError, History, Nodes, TrustAnchor, Verdict, root, round};
use perturb_ledger::archive::Archive;
use perturb_ledger::images::MAX_SKIPS;
use perturb_ledger::tx::Order;
use perturb_ledger::{Block, Certificate, Commit, Effect, Pulse, Receipt, Transaction};
use perturb_types::round::TransformSecret;
use perturb_types::{
    ConsensusPair, Digest, Hotkey, Millionths, NetworkId, RoundCommits, RoundId, RoundResult, Signed, encode,
};
use serde_json::{Value, json};
use support::{CHALLENGE, Twisted, World, sign_as};

fn result(transaction: &Transaction) -> RoundResult {
    let Transaction::RoundResult(e) = transaction else { panic!("no result") };
    borsh::from_slice(&e.payload).unwrap()
}

/// A block of an opening and a result of the first two validators each, changed by a quorum; the
/// epoch is closed after it. Returns the report on the first one's round, and what a fast replay says.
fn lied(change: impl FnOnce(&NetworkId, &mut Commit)) -> (String, Option<String>) {
    let mut w = World::new();
    let network = w.id();
    w.lie(false, |commit| change(&network, commit));
    w.close(vec![]);
    let id = RoundId { validator: w.hotkeys[0].hotkey(), challenge: CHALLENGE, seq: 0 };
    let (report, bundle) = round::run(&w.anchor(), &w.nodes(), &id);
    assert_eq!((report.verdict, bundle.is_none()), (Verdict::Invalid, true), "{report}");
    let history = History::load(&w.anchor(), Ask(&w.node())).unwrap();
    let exact = replay::replay(&history, &w.genesis, Ask(&w.node()), 0, Mode::Exact).unwrap();
    assert_eq!(exact.difference.unwrap().height, 1);
    let fast = replay::replay(&history, &w.genesis, Ask(&w.node()), 0, Mode::Fast).unwrap();
    (report.to_string(), fast.difference.map(|d| d.recomputed))
}

/// [`lied`] with another first result, signed by validator `v`.
fn other_result(v: usize, change: impl FnOnce(&mut RoundResult)) -> (String, Option<String>) {
    lied(|network, commit| {
        let transactions = &mut commit.block.body.transactions;
        let mut changed = result(&transactions[2]);
        change(&mut changed);
        transactions[2] = sign_as(network, v, changed);
    })
}

#[test]
fn a_pulse_that_nothing_waits_for_shows_in_both_replays() {
    let mut w = World::new();
    w.lie(false, |commit| {
        commit.block.body.transactions.push(Transaction::Pulse(Pulse::of_development(7).unwrap()));
        let receipt = Receipt { transaction: Digest([0; 32]), effect: Effect::Applied };
        commit.receipts.push(receipt);
    });
    w.close(vec![]);
    let history = History::load(&w.anchor(), Ask(&w.node())).unwrap();
    for mode in [Mode::Exact, Mode::Fast] {
        let replayed = replay::replay(&history, &w.genesis, Ask(&w.node()), 0, mode).unwrap();
        let difference = replayed.difference.unwrap();
        assert_eq!(difference.height, 1);
        assert!(difference.recomputed.contains("nothing waits"), "{}", difference.recomputed);
    }
}

/// What both replays say of a block to which a quorum added transactions that execute no more.
fn added(mut w: World, more: Vec<Transaction>) -> [String; 2] {
    w.lie(false, |commit| {
        let receipts = more.iter().map(|_| Receipt { transaction: Digest([0; 32]), effect: Effect::Applied });
        commit.receipts.extend(receipts);
        commit.block.body.transactions.extend(more);
    });
    w.close(vec![]);
    let history = History::load(&w.anchor(), Ask(&w.node())).unwrap();
    [Mode::Exact, Mode::Fast].map(|mode| {
        let replayed = replay::replay(&history, &w.genesis, Ask(&w.node()), 0, mode).unwrap();
        replayed.difference.unwrap().recomputed
    })
}

#[test]
fn a_quorum_lets_nobody_choose_among_rounds() {
    let w = World::new();
    let skips = (0..=u64::from(MAX_SKIPS)).map(|seq| w.skip(2, seq)).collect();
    for said in added(w, skips) {
        assert!(said.contains("transaction 10 (round skip)") && said.contains("skipped"), "{said}");
    }
    let w = World::with(|genesis| genesis.parameters.max_rounds_per_epoch = 1);
    // The block that is changed has the first validator's first round.
    let mut later = w.beside();
    let [_, second] = [(); 2].map(|()| later.open(0));
    for said in added(w, vec![Transaction::RoundOpen(second.into_envelope())]) {
        assert!(said.contains("transaction 6 (round opening)") && said.contains("rounds"), "{said}");
    }
}

#[test]
fn a_result_against_the_rules_is_refused_though_a_quorum_certified_it() {
    let refused = |(report, fast): (String, Option<String>), why: &str, fast_too: &str| {
        assert!(report.contains(why), "{report}");
        assert!(fast.is_some_and(|f| f.contains(fast_too)), "{fast_too}");
    };
    refused(other_result(0, |r| r.open = Digest([1; 32])), "another opening", "another opening");
    refused(other_result(0, |r| r.entries.swap(0, 1)), "in their order", "in their order");
    // Which images a round used follows from the state: whoever executes the block sees it.
    let other_image = |change: &dyn Fn(&mut RoundResult)| {
        let mut w = World::new();
        let network = w.id();
        w.lie(false, |commit| {
            let mut changed = result(&commit.block.body.transactions[2]);
            change(&mut changed);
            commit.block.body.transactions[2] = sign_as(&network, 0, changed);
        });
        w.close(vec![]);
        let history = History::load(&w.anchor(), Ask(&w.node())).unwrap();
        [Mode::Exact, Mode::Fast].map(|mode| {
            let replayed = replay::replay(&history, &w.genesis, Ask(&w.node()), 0, mode).unwrap();
            replayed.difference.unwrap().recomputed
        })
    };
    for said in other_image(&|r| r.source_index = (r.source_index + 1) % 100) {
        assert!(said.contains("not those that were drawn"), "{said}");
    }
    for said in other_image(&|r| r.transform = TransformSecret([8; 32])) {
        assert!(said.contains("drawn"), "{said}");
    }
    refused(other_result(2, |_| ()), "not the member", "not the member");
    refused(
        lied(|_, commit| {
            commit.block.body.transactions.swap(0, 2);
            commit.receipts.swap(0, 2);
        }),
        "stands before its opening",
        "is not open",
    );
    let wrong_score = |r: &mut RoundResult| r.entries[0].score = Millionths(999_999);
    let mut w = World::new();
    let network = w.id();
    w.lie(false, |commit| {
        let transactions = &mut commit.block.body.transactions;
        let mut changed = result(&transactions[2]);
        wrong_score(&mut changed);
        transactions[2] = sign_as(&network, 0, changed);
    });
    w.close(vec![]);
    for mode in [Mode::Exact, Mode::Fast] {
        let report = replay::run(&w.anchor(), &w.genesis, &w.nodes(), 0, mode);
        assert_eq!(report.verdict, Verdict::Invalid);
        assert!(report.to_string().contains("its fields give success"), "{report}");
    }
}

#[test]
fn an_answer_that_no_miner_signed_and_a_foreign_receipt_are_refused() {
    let (report, fast) = other_result(0, |r| r.entries[0].answer.as_mut().unwrap().0[9] ^= 1);
    assert!(report.contains("never bound to that answer"), "{report}");
    assert!(fast.is_some_and(|f| f.contains("never bound to that answer")));
    let (report, fast) = lied(|network, commit| {
        let Transaction::RoundCommits(e) = &commit.block.body.transactions[1] else { panic!("no commitments") };
        let mut commits: RoundCommits = borsh::from_slice(&e.payload).unwrap();
        commits.commits[0].as_mut().unwrap().signature[9] ^= 1;
        let key = ConsensusPair::from_seed(&[11; 32]);
        let forged = Signed::sign(&key, network, commits).into_envelope();
        commit.block.body.transactions[1] = Transaction::RoundCommits(forged);
    });
    assert!(report.contains("never signed that commitment"), "{report}");
    assert_eq!(fast, None, "signatures are left to the quorum there");
    let (report, fast) = lied(|_, commit| {
        let (first, second) = (commit.receipts[2].effect.clone(), commit.receipts[5].effect.clone());
        (commit.receipts[2].effect, commit.receipts[5].effect) = (second, first);
    });
    assert!(report.contains("receipt is that of another round"), "{report}");
    assert!(fast.is_some());
    let (report, _) = lied(|_, commit| commit.receipts[2].effect = Effect::Applied);
    assert!(report.contains("none of a scored round"), "{report}");
}

/// The arithmetic engine at the head of a world, and a block that it is given next.
fn next(w: &World, transactions: Vec<Transaction>) -> Result<(), String> {
    let store = w.ledger.store();
    let (block, certificate) = store.block(w.ledger.head().height).unwrap().clone();
    let rows = store.rows_at(block.header.height, None, usize::MAX).unwrap().unwrap().rows;
    let mut engine = Fast::new(&w.genesis, &block.header, &rows).unwrap();
    let mut next: Block = block;
    next.header.height += 1;
    next.body.transactions = transactions;
    let mismatch = engine.apply(&next, &certificate.unwrap()).unwrap().unwrap();
    if mismatch.what.starts_with("results root") { Ok(()) } else { Err(mismatch.what) }
}

#[test]
fn the_restated_rules_know_late_and_voided_rounds_and_strangers() {
    let mut w = World::new();
    let open = w.open(0);
    let bound = w.bind(0, &open, &w.result(0, &open));
    w.step(vec![Transaction::RoundOpen(open.envelope().clone()), bound.clone()]);
    let late = sign_as(&w.id(), 0, w.result(0, &open));
    assert!(next(&w, vec![bound]).unwrap_err().contains("bound once"));
    assert_eq!(next(&w, vec![late.clone()]), Ok(()), "it executes; only the made up header's root differs");
    let again = next(&w, vec![late.clone(), late.clone()]).unwrap_err();
    assert!(again.contains("is not open"), "{again}");
    for (order, why) in [
        (Order::UpdateChallenge(Box::new(w.genesis.challenges[0].clone())), "is not open"),
        (Order::RemoveChallenge(CHALLENGE), "no challenge"),
    ] {
        let mut w = World::new();
        let open = w.open(0);
        let bound = w.bind(0, &open, &w.result(0, &open));
        w.step(vec![Transaction::RoundOpen(open.envelope().clone()), bound]);
        let late = sign_as(&w.id(), 0, w.result(0, &open));
        let order = w.order(0, order);
        assert_eq!(next(&w, vec![order.clone(), late.clone()]), Ok(()), "the order waits for its height");
        w.step(vec![order]);
        assert!(next(&w, vec![late]).unwrap_err().contains(why));
    }
    let second = Transaction::RoundOpen(w.open(0).into_envelope());
    assert!(next(&w, vec![second]).unwrap_err().contains("the one before is open"));
    let early = Transaction::RoundOpen(w.open(1).into_envelope());
    assert_eq!(next(&w, vec![early.clone()]), Ok(()));
    assert!(next(&w, vec![early.clone(), early]).unwrap_err().contains("the one before is open"));
    let stranger = Transaction::RoundOpen(w.open(4).into_envelope());
    assert!(next(&w, vec![stranger]).unwrap_err().contains("not the member"));
    w.step(vec![]);
    assert_eq!(next(&w, vec![late.clone()]), Ok(()));
    w.step(vec![]);
    assert!(next(&w, vec![late]).unwrap_err().contains("is not open"), "three blocks after its opening");
}

#[test]
fn epochs_without_a_quorum_and_with_miners_that_left_replay() {
    let mut w = World::new();
    for _ in 0..2 {
        let rounds = w.rounds(&[0, 1]);
        w.step(rounds);
    }
    let open = w.open(0);
    let bound = w.bind(0, &open, &w.result(0, &open));
    w.step(vec![Transaction::RoundOpen(open.envelope().clone()), bound]);
    w.gone = vec![w.miner(1)];
    w.close(vec![]);
    let result = sign_as(&w.id(), 0, w.result(0, &open));
    w.step(vec![result]);
    w.close(vec![]);
    for (epoch, results) in [(0, 12), (1, 2)] {
        for mode in [Mode::Exact, Mode::Fast] {
            let report = replay::run(&w.anchor(), &w.genesis, &w.nodes(), epoch, mode);
            assert_eq!(report.verdict, Verdict::Ok, "{report}");
            assert_eq!(report.result["results"], results);
            assert_eq!(report.result["weights"]["0"], json!([[0, 65_535]]), "two of four are no quorum: all is burned");
        }
    }
}

/// A node that serves another block at a height, with a certificate that names it.
fn forged(w: &World, height: u64, change: impl Fn(&mut Block)) -> impl perturb_audit::source::Source {
    let network = w.id();
    let (mut block, certificate) = w.ledger.store().block(height).unwrap().clone();
    change(&mut block);
    block.header.transactions = block.body.transactions.len() as u32;
    block.header.transactions_root = block.body.root(&network);
    let digest = block.header.digest(&network);
    let certificate = Certificate { digest, ..certificate.unwrap() };
    let answer = json!({
        "block": hex::encode(encode::encode(&block)), "certificate": hex::encode(encode::encode(&certificate)),
    });
    let twist = move |method: &str, honest: Value| {
        let asked = honest["block"].as_str().map(|b| hex::decode(b).unwrap());
        let asked = asked.map(|b| Block::decode(&b).unwrap().header.height);
        if method == "perturb_block" && asked == Some(height) { answer.clone() } else { honest }
    };
    Twisted { inner: w.node(), twist }
}

#[test]
fn a_forged_block_is_the_nodes_fault_wherever_it_stands() {
    let w = World::epochs();
    let history = History::load(&w.anchor(), Ask(&w.node())).unwrap();
    let empty = |block: &mut Block| {
        block.body.transactions.clear();
        block.header.results_root = perturb_ledger::receipt::root(&w.id(), &[]);
    };
    let wrong = |block: &mut Block| block.header.results_root = Digest([1; 32]);
    for mode in [Mode::Exact, Mode::Fast] {
        for height in 4..=7 {
            for node in [&forged(&w, height, empty) as &dyn perturb_audit::source::Source, &forged(&w, height, wrong)] {
                let error = replay::replay(&history, &w.genesis, Ask(node), 1, mode).unwrap_err();
                assert!(matches!(error, AuditError::Invalid { .. } | AuditError::Light(_)), "{height}: {error}");
            }
        }
    }
}

#[test]
fn the_beginning_of_a_bundle_proves_nothing_by_itself() {
    let w = World::epochs();
    let trusted = TrustAnchor::Header { network: w.id(), height: 3, digest: w.digest(3) };
    let bundle = root::run(&trusted, &w.nodes(), Some(5)).1.unwrap();
    let Start::Header { header, .. } = bundle.start.clone() else { panic!("begins with a header") };
    let certificate = w.ledger.store().block(5).unwrap().1.clone().unwrap();
    let claim = Claim::Root { header, certificate };
    let error = Bundle { claim, handovers: vec![], ..bundle }.verify().unwrap_err();
    assert!(error.to_string().contains("nothing certifies it"), "{error}");

    // A trusted height with another header than the trusted one.
    let (mut header, certificate) = Ask(&w.node()).header(Some(5)).unwrap();
    header.height = 3;
    let history = History::load(&trusted, Ask(&w.node())).unwrap();
    let error = history.check(header, certificate).unwrap_err();
    assert!(error.to_string().contains("the trusted one is"), "{error}");
    let nobody = Nodes(vec![]);
    assert_eq!(
        round::run(&trusted, &nobody, &RoundId { validator: Hotkey([1; 32]), challenge: CHALLENGE, seq: 0 }).0.verdict,
        Verdict::Usage
    );
}
