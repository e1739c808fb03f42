//! Which rounds are checked again: drawn by pulses that nobody knew when the results were signed.

use super::*;
use crate::draw::{DrawRow, MAX_AWAITED, MIN_DELAY_MS, PulseRow, drawing_round, is_drawn};
use crate::execute::TxError;
use crate::genesis::SpotChecks;
use crate::pulse::tests::published;

const ALL: SpotChecks = SpotChecks { rate: 1_000_000, window_blocks: 50, margin_tolerance: 50_000 };

/// A network on quicknet whose second block, if it is made at once, waits for round 1000.
fn on_quicknet() -> Net {
    let mut net = Net::new();
    net.genesis.beacon = Beacon::QUICKNET;
    net.genesis.parameters.spot_checks = ALL;
    net.genesis.parameters.draws = Draws { delay_ms: MIN_DELAY_MS, pulse_stride: 1, retention_blocks: 200 };
    net.genesis.time_ms = Beacon::QUICKNET.time_of(1000) - u64::from(MIN_DELAY_MS) - 6_000;
    net
}

/// A block three seconds after its parent.
fn step_3s(net: &Net, ls: &mut [Ledger<MemoryStore>; 2], txs: Vec<Transaction>) -> Block {
    let input = ProposalInput { time_ms: ls[0].head().time_ms + 3_000, ..net.input(&ls[0], txs) };
    net.step(ls, input)
}

fn awaited(ls: &[Ledger<MemoryStore>; 2]) -> Vec<u64> {
    query::awaited_pulses(ls[0].store()).unwrap()
}

fn checked(ls: &[Ledger<MemoryStore>; 2]) -> Vec<RoundId> {
    query::checks(ls[0].store()).unwrap().into_iter().map(|(round, _)| round).collect()
}

fn pulse(round: u64) -> Transaction {
    Transaction::Pulse(published(round))
}

#[test]
fn a_published_pulse_draws_what_was_closed_a_minute_before_it_and_nothing_else() {
    let net = on_quicknet();
    let mut ls = pair(&net);
    step_3s(&net, &mut ls, net.whole(0, 0, 0).into());
    assert!(awaited(&ls).is_empty(), "the next header's time counts");
    step_3s(&net, &mut ls, net.whole(1, 0, 0).into());
    assert_eq!(awaited(&ls), [1000]);
    step_3s(&net, &mut ls, vec![]);
    assert_eq!(awaited(&ls), [1000, 1001]);
    let refused = |round| ls[0].check_transaction(&pulse(round)).unwrap_err();
    assert!(matches!(refused(1002), TxError::Invalid(_)), "nothing waits for it");
    step_3s(&net, &mut ls, vec![pulse(1000), pulse(1002)]);
    assert_eq!((checked(&ls), awaited(&ls)), (vec![net.round(0, 0)], vec![1001]));
    let row = query::checks(ls[0].store()).unwrap().remove(0).1;
    assert_eq!((row.fresh.height, row.drawn), (1, 4));
    let again = ls[0].check_transaction(&pulse(1000)).unwrap_err();
    assert!(matches!(again, TxError::Invalid(_)) && !again.is_early(), "once: {again}");
}

#[test]
fn a_gap_holds_nothing_else_up_and_a_late_pulse_still_draws() {
    let net = on_quicknet();
    let mut ls = pair(&net);
    for v in 0..4 {
        step_3s(&net, &mut ls, net.whole(v, 0, 0).into());
    }
    step_3s(&net, &mut ls, vec![]);
    assert_eq!(awaited(&ls), [1000, 1001, 1002, 1003]);
    // 1001 was skipped on the chain; 1000 comes last.
    step_3s(&net, &mut ls, vec![pulse(1003)]);
    step_3s(&net, &mut ls, vec![pulse(1002), pulse(1000)]);
    assert_eq!(awaited(&ls), [1001]);
    assert_eq!(checked(&ls).len(), 3);
    let d = query::draws(ls[0].store()).unwrap();
    assert_eq!(d, DrawRow { scheduled: 1003, newest: 1003, drawn: 3, spared: 0, expired: 0 });
    step_3s(&net, &mut ls, vec![pulse(1001)]);
    assert_eq!((checked(&ls).len(), awaited(&ls)), (4, vec![]));
}

/// Found by the simulator: a flipped bit in a row that names heights let its node run through 2⁶² of them.
#[test]
fn a_damaged_row_that_names_all_heights_holds_nobody_up() {
    let net = on_quicknet();
    let mut ls = pair(&net);
    step_3s(&net, &mut ls, net.whole(0, 0, 0).into());
    step_3s(&net, &mut ls, vec![]);
    let all = encode::encode(&PulseRow { first: 0, last: u64::MAX });
    ls[0].store_mut().apply(&[(state::pulse_key(1000), Some(all))], &Default::default());
    let executed = ls[0].check_transaction(&pulse(1000));
    assert_eq!(executed, Ok(()), "in no more time than it has rows");
}

#[test]
fn a_forged_pulse_is_in_no_block_and_costs_its_bearer_not_the_draw() {
    let net = on_quicknet();
    let mut ls = pair(&net);
    step_3s(&net, &mut ls, net.whole(0, 0, 0).into());
    step_3s(&net, &mut ls, vec![]);
    let mut turned = published(1000);
    turned.signature[20] ^= 4;
    let other = Pulse { round: 1000, ..published(1001) };
    let foreign = Pulse::of_development(1000).unwrap();
    for forged in [turned, other, foreign].map(Transaction::Pulse) {
        assert_eq!(ls[0].check_transaction(&forged).unwrap_err(), TxError::ForgedPulse(1000));
        let block = step_3s(&net, &mut ls, vec![forged]);
        assert!(block.body.transactions.is_empty());
    }
    // A proposer that puts one in all the same gets nobody's vote.
    let (mut block, _) = ls[0].propose(net.input(&ls[0], vec![pulse(1000)])).unwrap();
    block.body.transactions = vec![Transaction::Pulse(turned)];
    block.header.transactions_root = block.body.root(&net.id());
    assert!(matches!(ls[1].check(&block), Err(BlockError::Transaction { error: TxError::ForgedPulse(1000), .. })));
    step_3s(&net, &mut ls, vec![pulse(1000)]);
    assert_eq!(checked(&ls).len(), 1);
}

/// H1. A liar knows every pulse until now, all chain blocks, its round's number, and can sign as many
/// results of it as it likes; it sends the one that it likes best.
#[test]
fn who_signs_a_result_cannot_know_whether_it_is_drawn() {
    let net = on_quicknet();
    let (id, rate) = (net.id(), 200_000);
    let known: Vec<Pulse> = (1000..=1002).map(published).collect();
    let later = published(1003);
    let mut found = 0u32;
    for seq in 0..2_000u64 {
        let round = net.round(0, seq);
        let drawn = |p: &Pulse, result: &Digest| is_drawn(rate, &id, &p.signature, &round, result);
        // It signs other results until none of the pulses it knows would draw the one it sends.
        let mut results = (0u64..).map(|tries| Digest::of(&[seq.to_le_bytes(), tries.to_le_bytes()].concat()));
        let result = results.find(|result| known.iter().all(|p| !drawn(p, result))).unwrap();
        found += u32::from(drawn(&later, &result));
    }
    assert!((340..460).contains(&found), "a fifth of 2000 is about 400, not {found}");
}

/// What the rule above replaces: the hash of a chain block that can be seen before a result is signed
/// drew by the round's number alone. Whoever forged only what none of the next hashes drew was never found.
#[test]
fn with_lots_that_can_be_seen_nothing_forged_was_ever_drawn() {
    let id = on_quicknet().id();
    let lot = |hash: &Digest, seq: u64| {
        let round = RoundId { validator: Hotkey([1; 32]), challenge: ChallengeId(0), seq };
        encode::digest_of(encode::Domain::SpotCheck, &id, &(hash, round)).0[0] < 51
    };
    let visible: Vec<Digest> = (0..3).map(|i| Digest([i; 32])).collect();
    let forged = (0..2_000).filter(|seq| visible.iter().all(|hash| !lot(hash, *seq)));
    let found = forged.filter(|seq| visible.iter().any(|hash| lot(hash, *seq))).count();
    assert_eq!(found, 0);
    assert!((0..2_000).filter(|seq| lot(&visible[0], *seq)).count() > 300, "an honest fifth was drawn");
}

/// The same, with the ledger: whatever time a proposer writes, what a block closes is drawn by no pulse
/// that a block has already.
#[test]
fn a_block_dated_back_is_drawn_by_no_pulse_that_a_block_has() {
    let net = on_quicknet();
    let mut ls = pair(&net);
    step_3s(&net, &mut ls, net.whole(0, 0, 0).into());
    step_3s(&net, &mut ls, vec![]);
    step_3s(&net, &mut ls, vec![pulse(1000)]);
    // A stall: round 1000 is out for long. The liar closes its round in a block that pretends to be old,
    // and its friend the next one.
    for _ in 0..2 {
        let time_ms = ls[0].head().time_ms + 1;
        let txs = net.whole(1, 0, 0).into();
        let input = ProposalInput { time_ms, ..net.input(&ls[0], txs) };
        net.step(&mut ls, input);
    }
    assert_eq!(awaited(&ls), [1002], "by its time alone it would be 1002 too: later than what is known");
    let (beacon, rule) = (&net.genesis.beacon, &net.genesis.parameters.draws);
    let so_far = DrawRow { newest: 1_010, scheduled: 1_010, ..DrawRow::default() };
    let old = beacon.time_of(1000) - u64::from(rule.delay_ms);
    assert_eq!(drawing_round(beacon, rule, &DrawRow::default(), old), 1000);
    assert_eq!(drawing_round(beacon, rule, &so_far, old), 1_011);
}

/// A proposer of the block after a result may choose its time within what voters accept: it moves the
/// draw among pulses of which none is known.
#[test]
fn the_proposer_of_the_next_block_chooses_among_pulses_that_nobody_knows() {
    let beacon = Beacon::QUICKNET;
    let rule = Draws::default();
    let now = beacon.genesis_ms + 1_000_000_007;
    // Ten seconds behind and ahead of the honest clocks: CometBFT's bounds.
    for time_ms in (now - 10_000..=now + 10_000).step_by(250) {
        let round = drawing_round(&beacon, &rule, &DrawRow::default(), time_ms);
        assert!(beacon.time_of(round) >= now + 50_000, "signed 50 s from now at the earliest");
    }
}

#[test]
fn an_orders_shorter_delay_never_puts_a_later_height_before_an_earlier_one() {
    let beacon = Beacon::QUICKNET;
    let mut so_far = DrawRow::default();
    let mut last = 0;
    for i in 0..200u64 {
        // Delay and stride change as the owner likes; some pulses come, the newest first.
        let rule = Draws {
            delay_ms: 60_000 + (i as u32 * 7919) % 120_000,
            pulse_stride: 1 + (i as u32 % 13),
            ..Draws::default()
        };
        let round = drawing_round(&beacon, &rule, &so_far, beacon.genesis_ms + i * 1000);
        assert!(round >= last && round > so_far.newest);
        (so_far.scheduled, last) = (round, round);
        if i % 5 == 0 {
            so_far.newest = round;
        }
    }
}

#[test]
fn what_waits_for_a_pulse_that_never_comes_expires_blameless_and_counted() {
    let mut net = Net::new();
    net.genesis.parameters.spot_checks = ALL;
    net.genesis.parameters.draws.retention_blocks = 5;
    // It may have been opened so many blocks before.
    let opened = 1u64.saturating_sub(net.genesis.parameters.open_round_blocks);
    let mut ls = pair(&net);
    let input = net.input(&ls[0], net.whole(0, 0, 0).into());
    net.step(&mut ls, input);
    for _ in 0..4 {
        net.step_empty(&mut ls);
        assert_eq!(awaited(&ls).len(), 1);
        assert_eq!(query::unchecked_from(ls[0].store()).unwrap(), Some(opened), "its blocks are kept until then");
    }
    let missed = awaited(&ls)[0];
    net.step_empty(&mut ls);
    assert!(awaited(&ls).is_empty() && checked(&ls).is_empty());
    assert_eq!(query::unchecked_from(ls[0].store()).unwrap(), None);
    assert_eq!(query::draws(ls[0].store()).unwrap().expired, 1);
    let r = query::reputation(ls[0].store(), &net.hotkeys[0].hotkey()).unwrap();
    assert_eq!(r, crate::reputation::Reputation::default());
    let late = Transaction::Pulse(Pulse::of_development(missed).unwrap());
    assert!(ls[0].check_transaction(&late).is_err(), "and its pulse does nothing any more");
}

#[test]
fn results_of_a_removed_challenge_are_not_drawn() {
    let mut net = Net::new();
    net.genesis.parameters.spot_checks = ALL;
    let mut ls = pair(&net);
    let order = OwnerAction::sign(&net.id(), &net.owner, Order::RemoveChallenge(ChallengeId(0)), 0, 3, 10);
    let mut txs: Vec<_> = net.whole(0, 0, 0).into();
    txs.push(Transaction::OwnerAction(Box::new(order)));
    let input = net.input(&ls[0], txs);
    net.step(&mut ls, input);
    net.step_empty(&mut ls);
    net.step_empty(&mut ls);
    net.draw(&mut ls, vec![]);
    assert!(checked(&ls).is_empty() && awaited(&ls).is_empty());
}

#[test]
fn the_draw_takes_the_agreed_part_and_depends_on_pulse_round_and_result() {
    let net = Net::new();
    let drawn = |rate: u32, p: u64, r: u8| -> Vec<bool> {
        let signature = published(p).signature;
        (0..20_000).map(|s| is_drawn(rate, &net.id(), &signature, &net.round(0, s), &Digest([r; 32]))).collect()
    };
    let one = drawn(20_000, 1000, 1);
    let count = one.iter().filter(|d| **d).count();
    assert!((300..500).contains(&count), "2 % of 20000 are about 400, not {count}");
    assert_ne!(one, drawn(20_000, 1001, 1));
    assert_ne!(one, drawn(20_000, 1000, 2));
    assert!(!drawn(0, 1000, 1).contains(&true));
    assert!(!drawn(1_000_000, 1000, 1).contains(&false));
}

#[test]
fn a_public_network_cannot_shorten_the_delay_and_no_network_can_put_draws_off_for_ever() {
    let validate = |beacon: &Beacon, draws: Draws| draws.validate(beacon, 12_000);
    let (real, toy) = (Beacon::QUICKNET, Beacon::DEVELOPMENT);
    let usual = Draws::default();
    validate(&real, usual).unwrap();
    let hasty = Draws { delay_ms: MIN_DELAY_MS - 1, ..usual };
    assert!(validate(&real, hasty).is_err());
    validate(&toy, hasty).unwrap();
    for bad in [
        Draws { delay_ms: 0, ..usual },
        Draws { delay_ms: u32::MAX, ..usual },
        Draws { pulse_stride: 0, ..usual },
        Draws { pulse_stride: 100_000, ..usual },
        Draws { retention_blocks: 1, ..usual },
        Draws { retention_blocks: u64::MAX, ..usual },
    ] {
        assert!(validate(&real, bad).is_err() && validate(&toy, bad).is_err(), "{bad:?}");
    }
    let net = on_quicknet();
    let ledger = net.ledger();
    let parameters = Parameters { draws: hasty, ..net.genesis.parameters.clone() };
    let order = Order::SetParameters(Box::new(parameters));
    let order = OwnerAction::sign(&net.id(), &net.owner, order, 0, 5, 10);
    assert!(ledger.check_transaction(&Transaction::OwnerAction(Box::new(order))).is_err());
}

#[test]
fn only_so_many_pulses_are_waited_for() {
    let mut net = Net::new();
    net.genesis.parameters.spot_checks = ALL;
    net.genesis.parameters.draws = Draws { delay_ms: 50, pulse_stride: 1, retention_blocks: 100_000 };
    net.genesis.parameters.max_rounds_per_epoch = 10_000;
    let mut ledger = net.ledger();
    for seq in 0..MAX_AWAITED as u64 + 20 {
        let txs: Vec<_> = net.whole(0, seq, 0).into();
        let input = ProposalInput { time_ms: ledger.head().time_ms + 100, ..net.input(&ledger, txs) };
        let (_, executed) = ledger.propose(input).unwrap();
        let certificate = net.certify(&ledger, &executed);
        let commit = ledger.commit(executed, certificate).unwrap();
        ledger.store_mut().commit(&commit);
    }
    assert_eq!(query::awaited_pulses(ledger.store()).unwrap().len(), MAX_AWAITED);
    assert_eq!(query::draws(ledger.store()).unwrap().expired, 19);
}
