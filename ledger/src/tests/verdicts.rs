//! Verdicts on drawn rounds: who is struck, by whom, and what a strike does.

use proptest::prelude::*;

use super::checks::say;
use super::*;
use crate::genesis::SpotChecks;
use crate::store::StateStore;
use crate::verdict::{CheckVerdict, Checked, Finding, Tally};

const FAILS: Checked = Checked::Fails(Finding::Measurement);

/// A network of so many founders in which every round is checked, for six blocks.
fn of(founders: usize) -> Net {
    let mut net = Net::of(founders);
    net.genesis.parameters.spot_checks = SpotChecks { rate: 1_000_000, window_blocks: 6, margin_tolerance: 50_000 };
    net
}

/// Two whole rounds of every founder, drawn: the last transaction is the first founder's first result.
fn drawn(net: &Net, founders: usize) -> ([Ledger<MemoryStore>; 2], Transaction) {
    let mut ls = pair(net);
    let mut first = None;
    for seq in 0..2 {
        let rounds: Vec<[Transaction; 3]> = (0..founders).map(|v| net.whole(v, seq, 0)).collect();
        first = first.or_else(|| rounds.first().map(|[.., result]| result.clone()));
        let input = net.input(&ls[0], rounds.into_iter().flatten().collect());
        net.step(&mut ls, input);
    }
    net.step_empty(&mut ls);
    net.draw(&mut ls, vec![]);
    (ls, first.unwrap())
}

/// How often a founder was struck in the epoch in the making.
fn strikes(net: &Net, l: &Ledger<MemoryStore>, v: usize) -> u64 {
    query::reputation(l.store(), &net.hotkeys[v].hotkey()).unwrap().epoch.failed_checks
}

/// Scores that a founder's histories hold.
fn histories(net: &Net, l: &Ledger<MemoryStore>, v: usize) -> usize {
    let keys = net.miners.iter().map(|m| state::history_key(ChallengeId(0), &m.hotkey(), &net.hotkeys[v].hotkey()));
    keys.filter(|key| l.store().value(key).unwrap().is_some()).count()
}

/// What becomes of the first founder's round when members say this and the window passes.
fn outcome(founders: usize, verdicts: &[(usize, Checked)]) -> (u64, usize) {
    let net = of(founders);
    let (mut ls, result) = drawn(&net, founders);
    let said = verdicts.iter().map(|(by, verdict)| say(&net, *by, net.round(0, 0), &result, *verdict)).collect();
    let input = net.input(&ls[0], said);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), verdicts.len());
    for _ in 0..6 {
        net.step_empty(&mut ls);
    }
    assert!(query::checks(ls[0].store()).unwrap().is_empty());
    (strikes(&net, &ls[0], 0), histories(&net, &ls[0], 0))
}

#[test]
fn absent_members_do_not_shield_a_liar() {
    // Of ten: the liar and a friend, three absent, five who checked.
    let mut said = vec![(1, Checked::Holds)];
    said.extend((2..7).map(|v| (v, FAILS)));
    assert_eq!(outcome(10, &said), (1, 0), "struck, and what it forged is gone");
}

#[test]
fn members_that_cannot_tell_do_not_shield_a_liar() {
    let mut said = vec![(1, Checked::Unknown), (7, Checked::Unknown), (8, Checked::Unknown)];
    said.extend((2..7).map(|v| (v, FAILS)));
    assert_eq!(outcome(10, &said), (1, 0));
}

#[test]
fn liars_under_a_third_strike_nobody_whatever_the_others_leave_unsaid() {
    let lies = [(1, FAILS), (2, FAILS), (3, FAILS)];
    assert_eq!(outcome(10, &lies), (0, 3), "all others are silent");
    let unknown: Vec<_> = lies.into_iter().chain((4..10).map(|v| (v, Checked::Unknown))).collect();
    assert_eq!(outcome(10, &unknown), (0, 3), "all others cannot tell");
}

#[test]
fn a_third_that_fails_needs_twice_as_much_as_says_that_it_holds() {
    let against = |fails: usize, holds: usize| {
        let said = (1..=fails).map(|v| (v, FAILS));
        let said = said.chain((fails + 1..=fails + holds).map(|v| (v, Checked::Holds)));
        outcome(10, &said.collect::<Vec<_>>()).0
    };
    assert_eq!(against(4, 2), 0, "exactly two thirds");
    assert_eq!(against(5, 2), 1);
    assert_eq!(against(4, 1), 1);
}

#[test]
fn the_accused_has_no_voice_and_each_member_one() {
    let net = of(4);
    let (mut ls, result) = drawn(&net, 4);
    let round = net.round(0, 0);
    let own = say(&net, 0, round, &result, Checked::Holds);
    assert!(ls[0].check_transaction(&own).is_err(), "not of itself");
    let other = say(&net, 1, round, &own, FAILS);
    assert!(ls[0].check_transaction(&other).is_err(), "another result");
    let twice = vec![say(&net, 1, round, &result, FAILS), say(&net, 1, round, &result, Checked::Holds)];
    let input = net.input(&ls[0], twice);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 1, "the same member twice");
    let stranger = say(&net, 4, round, &result, FAILS);
    assert!(ls[0].check_transaction(&stranger).is_err(), "no member");
    let forged = CheckVerdict {
        hotkey: net.hotkeys[2].hotkey(),
        round,
        result: result.digest(&net.id()),
        verdict: Checked::Fails(Finding::Label),
    };
    let forged = Transaction::CheckVerdict(Signed::sign(&net.keys[1], &net.id(), forged).into_envelope());
    assert!(ls[0].check_transaction(&forged).is_err(), "in another's name");
}

/// What a member posts on drawn rounds is work; what no pulse has drawn takes no verdict.
#[test]
fn a_verdict_counts_as_work_once_a_pulse_has_drawn_its_round() {
    let net = of(4);
    let mut ls = pair(&net);
    let [open, commits, result] = net.whole(0, 0, 0);
    let input = net.input(&ls[0], vec![open, commits, result.clone()]);
    net.step(&mut ls, input);
    let (round, by) = (net.round(0, 0), net.hotkeys[1].hotkey());
    let worked = |l: &Ledger<MemoryStore>| query::work(l.store(), &by).unwrap().verdicts;
    let verdict = say(&net, 1, round, &result, Checked::Unknown);
    for _ in 0..2 {
        assert!(ls[0].check_transaction(&verdict).is_err(), "it waits for its pulse");
        net.step_empty(&mut ls);
    }
    net.draw(&mut ls, vec![]);
    assert_eq!(worked(&ls[0]), 0);
    let input = net.input(&ls[0], vec![verdict.clone(), verdict]);
    net.step(&mut ls, input);
    assert_eq!(worked(&ls[0]), 1, "once for each round");
}

#[test]
fn a_strike_is_decided_early_leaves_evidence_and_takes_verdicts_still() {
    let net = of(4);
    let (mut ls, result) = drawn(&net, 4);
    let (round, liar) = (net.round(0, 0), net.hotkeys[0].hotkey());
    let input = net.input(&ls[0], (1..3).map(|v| say(&net, v, round, &result, FAILS)).collect());
    net.step(&mut ls, input);
    assert_eq!(strikes(&net, &ls[0], 0), 0, "the third could still say that it holds");
    let input = net.input(&ls[0], vec![say(&net, 3, round, &result, FAILS)]);
    net.step(&mut ls, input);
    assert_eq!(strikes(&net, &ls[0], 0), 0, "between blocks, not within one");
    net.step_empty(&mut ls);
    assert_eq!((strikes(&net, &ls[0], 0), histories(&net, &ls[0], 0)), (1, 0));
    let proof = StateProof::make(ls[0].store(), ls[0].head().height, &state::fault_key(&round)).unwrap();
    assert!(proof.value.is_some() && proof.verify(&ls[0].head().state_root), "evidence that anyone can check");
    net.close(&mut ls, 9, 1, (0..4).map(|v| net.ready(v, 0)).collect());
    assert_eq!(query::reputation(ls[0].store(), &liar).unwrap().past.failed_checks, 1, "once");
    let standing = query::reputation(ls[0].store(), &liar).unwrap().standing;
    assert_eq!(standing, 1_000_000 - net.genesis.parameters.reputation.failed_check);
    let record = crate::epoch::record(ls[0].store(), 0, ChallengeId(0)).unwrap().unwrap();
    for miner in &record.miners {
        assert_eq!(miner.contributions.len(), 3);
        assert!(miner.contributions.iter().all(|c| c.validator != liar));
    }
}

#[test]
fn two_of_three_decide_once_the_last_one_cannot_change_it() {
    let net = of(4);
    let (mut ls, result) = drawn(&net, 4);
    let round = net.round(0, 0);
    let mut said: Vec<_> = (1..3).map(|v| say(&net, v, round, &result, FAILS)).collect();
    said.push(say(&net, 3, round, &result, Checked::Unknown));
    let input = net.input(&ls[0], said);
    net.step(&mut ls, input);
    net.step_empty(&mut ls);
    assert_eq!(strikes(&net, &ls[0], 0), 1);
    assert!(!query::checks(ls[0].store()).unwrap().is_empty(), "long before the window is over");
}

/// Scores that were forged in an epoch do not come back in the next one with fresh ones on top.
#[test]
fn forged_scores_do_not_count_in_the_next_epoch() {
    let net = of(4);
    let (mut ls, result) = drawn(&net, 4);
    let mut txs: Vec<_> = (1..4).map(|v| say(&net, v, net.round(0, 0), &result, FAILS)).collect();
    txs.extend((0..4).map(|v| net.ready(v, 0)));
    net.close(&mut ls, 9, 1, txs);
    assert_eq!(histories(&net, &ls[0], 0), 0, "decided before the close of the same block");
    // One round more would complete a history of two, were the old one still there.
    let txs: Vec<_> = (0..4).flat_map(|v| net.whole(v, 2, 1)).collect();
    let input = net.input(&ls[0], txs);
    net.step(&mut ls, input);
    net.close(&mut ls, 12, 2, (0..4).map(|v| net.ready(v, 1)).collect());
    let record = crate::epoch::record(ls[0].store(), 1, ChallengeId(0)).unwrap().unwrap();
    let liar = net.hotkeys[0].hotkey();
    assert!(record.miners.iter().all(|m| m.contributions.iter().all(|c| c.validator != liar)));
    assert!(record.miners.iter().all(|m| m.contributions.len() == 3), "the others' histories went on");
}

#[test]
fn a_check_that_is_open_when_an_epoch_closes_strikes_the_next() {
    let net = of(4);
    let (mut ls, result) = drawn(&net, 4);
    net.close(&mut ls, 9, 1, (0..4).map(|v| net.ready(v, 0)).collect());
    assert_eq!(histories(&net, &ls[0], 0), 3);
    let said = (1..4).map(|v| say(&net, v, net.round(0, 0), &result, FAILS)).collect();
    let mut txs: Vec<_> = (0..4).flat_map(|v| net.whole(v, 2, 1)).collect();
    txs.extend::<Vec<_>>(said);
    let input = net.input(&ls[0], txs);
    net.step(&mut ls, input);
    net.close(&mut ls, 12, 2, (0..4).map(|v| net.ready(v, 1)).collect());
    let record = crate::epoch::record(ls[0].store(), 1, ChallengeId(0)).unwrap().unwrap();
    let liar = net.hotkeys[0].hotkey();
    assert!(record.miners.iter().all(|m| m.contributions.iter().all(|c| c.validator != liar)));
    assert_eq!(query::reputation(ls[0].store(), &liar).unwrap().past.failed_checks, 1);
}

#[test]
fn the_set_of_the_deciding_block_counts_and_who_left_it_does_not() {
    let net = of(4);
    let (mut ls, result) = drawn(&net, 4);
    let round = net.round(0, 0);
    let input = net.input(&ls[0], vec![say(&net, 2, round, &result, FAILS), say(&net, 3, round, &result, FAILS)]);
    net.step(&mut ls, input);
    // The last founder is silent: the others are a quorum, it leaves; the fifth joins.
    let join = Delegation::sign(&net.id(), &net.hotkeys[4], &net.keys[4], 0);
    let mut txs = vec![Transaction::KeyDelegation(Box::new(join))];
    txs.extend([0, 1, 2, 4].map(|v| net.ready(v, 0)));
    net.close(&mut ls, 9, 1, txs);
    assert!(ls[0].validators().by_hotkey(&net.hotkeys[3].hotkey()).is_none());
    let row = &query::checks(ls[0].store()).unwrap().into_iter().find(|(r, _)| *r == round).unwrap().1;
    let tally = row.tally(&round.validator, ls[0].validators());
    assert_eq!((tally.fails, tally.outstanding, tally.total), (1, 2, 4));
    net.step_empty(&mut ls);
    assert_eq!(strikes(&net, &ls[0], 0), 0, "one of four");
}

/// All orders of these.
fn orders(of: &[Transaction]) -> Vec<Vec<Transaction>> {
    let Some((last, rest)) = of.split_last() else { return vec![vec![]] };
    let mut out = Vec::new();
    for order in orders(rest) {
        for at in 0..=order.len() {
            let mut order = order.clone();
            order.insert(at, last.clone());
            out.push(order);
        }
    }
    out
}

/// Where verdicts decide and the accused closes another round in the same block: every order of the
/// transactions comes to one state.
#[test]
fn the_order_of_transactions_decides_nothing() {
    let net = of(4);
    let (mut ls, result) = drawn(&net, 4);
    let open = net.open(0, 2, 0);
    let late = net.result(0, &open);
    let (bound, late) = (net.bind(0, net.commits(&open, &late)), net.sign(0, late));
    let input = net.input(&ls[0], vec![Transaction::RoundOpen(open.into_envelope()), bound]);
    net.step(&mut ls, input);
    let round = net.round(0, 0);
    let mut txs: Vec<_> = (1..4).map(|v| say(&net, v, round, &result, FAILS)).collect();
    txs.push(late);
    let mut roots = Vec::new();
    for order in orders(&txs) {
        let mut again = pair(&net);
        for (l, old) in again.iter_mut().zip(&ls) {
            *l = Ledger::new(net.genesis.clone(), old.store().clone()).unwrap();
        }
        let input = net.input(&again[0], order);
        assert_eq!(net.step(&mut again, input).body.transactions.len(), 4);
        roots.push(again[0].head().state_root);
        net.step_empty(&mut again);
        assert_eq!(strikes(&net, &again[0], 0), 1);
        assert_eq!(histories(&net, &again[0], 0), 0, "also what was closed in the same block");
    }
    assert_eq!(roots.len(), 24);
    assert!(roots.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn a_changed_challenge_ends_its_checks_and_blames_nobody() {
    let net = of(4);
    let (mut ls, result) = drawn(&net, 4);
    let spec = net.genesis.challenges[0].clone();
    let burning = ChallengeSpec { rules: Rules { burn: 100_000, ..spec.rules.clone() }, ..spec };
    let height = ls[0].head().height;
    let order = Order::UpdateChallenge(Box::new(burning));
    let action = OwnerAction::sign(&net.id(), &net.owner, order, 0, height + 2, 100);
    let input = net.input(&ls[0], vec![Transaction::OwnerAction(Box::new(action))]);
    net.step(&mut ls, input);
    net.step_empty(&mut ls);
    assert!(query::checks(ls[0].store()).unwrap().is_empty(), "the new rules judge no old round");
    let late = say(&net, 1, net.round(0, 0), &result, FAILS);
    assert!(!ls[0].check_transaction(&late).unwrap_err().is_early());
    assert_eq!(strikes(&net, &ls[0], 0), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What is called settled stays so, whatever those say that have not spoken, or if they never do.
    #[test]
    fn what_is_settled_no_verdict_can_change(
        said in prop::collection::vec((1u64..1000, 0u8..4), 1..12),
        rest in prop::collection::vec(0u8..4, 12),
        accused in 0u64..500,
    ) {
        let total: u128 = said.iter().map(|(p, _)| u128::from(*p)).sum::<u128>() + u128::from(accused);
        let tally = |verdict: &dyn Fn(usize, u8) -> u8| {
            let mut t = Tally { total, ..Tally::default() };
            for (i, (power, v)) in said.iter().enumerate() {
                *match verdict(i, *v) {
                    0 => &mut t.fails,
                    1 => &mut t.holds,
                    2 => &mut t.unknown,
                    _ => &mut t.outstanding,
                } += u128::from(*power);
            }
            t
        };
        let now = tally(&|_, v| v);
        let later = tally(&|i, v| if v == 3 { rest[i] } else { v });
        if let Some(settled) = now.settled() {
            prop_assert_eq!(later.strikes(), settled);
            prop_assert_eq!(later.settled(), Some(settled));
        }
        let spoken = tally(&|i, v| if v == 3 { rest[i] % 3 } else { v });
        prop_assert!(spoken.settled() == Some(spoken.strikes()), "with every verdict all is settled");
    }
}
