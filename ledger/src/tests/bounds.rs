//! What the owner's key can do at most: the numbers' bounds, the orders' delay, and orders that would
//! leave nobody in the set.

use perturb_types::limits;

use super::*;

fn refused(change: impl FnOnce(&mut Parameters)) -> String {
    let mut parameters = Net::new().genesis.parameters;
    parameters.validate().unwrap();
    change(&mut parameters);
    parameters.validate().unwrap_err().to_string()
}

#[test]
fn numbers_that_would_stop_a_network_are_no_parameters() {
    let most = u32::MAX;
    assert!(refused(|p| p.block_interval_ms = most).contains("block_interval_ms"), "49 days");
    let sums = [
        |t: &mut Timeouts| t.propose_ms = u32::MAX,
        |t: &mut Timeouts| (t.prevote_ms, t.precommit_ms) = (u32::MAX / 2, u32::MAX / 2 + 2),
        |t: &mut Timeouts| t.precommit_delta_ms = u32::MAX,
        |t: &mut Timeouts| t.propose_delta_ms = 0,
        |t: &mut Timeouts| t.prevote_ms = 1,
        // Each within its bounds, all together not.
        |t: &mut Timeouts| {
            (t.propose_ms, t.prevote_ms, t.precommit_ms, t.propose_delta_ms) = (9_999, 9_999, 9_999, 4_999)
        },
    ];
    for change in sums {
        assert!(refused(|p| change(&mut p.timeouts)).contains("timeouts"));
    }
    for (what, change) in [
        ("open_round_blocks", (|p| p.open_round_blocks = u64::MAX) as fn(&mut Parameters)),
        ("window_blocks", |p| p.spot_checks.window_blocks = u64::MAX),
        ("margin_tolerance", |p| p.spot_checks.margin_tolerance = 0),
        ("rate", |p| p.spot_checks.rate = 1_000_001),
        ("max_rounds_per_epoch", |p| p.max_rounds_per_epoch = u32::MAX),
        ("max_block_transactions", |p| p.max_block_transactions = 1),
        ("max_block_bytes", |p| p.max_block_bytes = 1),
        ("max_block_bytes", |p| p.max_block_bytes = u32::MAX),
        ("max_share", |p| p.power = PowerRule::Stake { max_share: 500_000 }),
        ("min_stake_rao", |p| p.min_stake_rao = u64::MAX),
        ("burn_uid", |p| p.burn_uid = u16::MAX),
        ("missed_tolerance", |p| p.reputation.missed_tolerance = 0),
        ("recovery", |p| p.reputation.recovery = 0),
        ("proposal_age_ms", |p| p.proposal_age_ms = 0),
        ("order_delay_blocks", |p| p.order_delay_blocks = 0),
    ] {
        assert!(refused(change).contains(what), "{what}");
    }
}

#[test]
fn numbers_that_would_stop_a_challenge_are_no_specification() {
    let spec = Net::new().genesis.challenges[0].clone();
    spec.validate().unwrap();
    for change in [
        |s: &mut ChallengeSpec| s.interval_ms = u32::MAX,
        |s: &mut ChallengeSpec| s.interval_ms = 1,
        |s: &mut ChallengeSpec| (s.rules.deadline_ms, s.rules.time_bucket_ms) = (u32::MAX - 1, 2),
        |s: &mut ChallengeSpec| s.rules.timeout_ms = 1,
        |s: &mut ChallengeSpec| s.rules.min_processed = u32::MAX,
        |s: &mut ChallengeSpec| s.rules.history_len = 1_001,
        |s: &mut ChallengeSpec| s.miners_per_round = 0,
    ] {
        let mut bad = spec.clone();
        change(&mut bad);
        assert!(bad.validate().is_err(), "{bad:?}");
    }
}

fn signed(net: &Net, order: Order, nonce: u64, effective: u64) -> Transaction {
    Transaction::OwnerAction(Box::new(OwnerAction::sign(&net.id(), &net.owner, order, nonce, effective, 1_000)))
}

fn blocks(net: &Net, ls: &mut [Ledger<MemoryStore>; 2], count: usize) {
    for _ in 0..count {
        let input = net.input(&ls[0], vec![]);
        net.step(ls, input);
    }
}

#[test]
fn every_order_waits_and_can_be_revoked_as_long_as_it_waits() {
    let mut net = Net::new();
    net.genesis.parameters.order_delay_blocks = 10;
    let mut ls = pair(&net);
    let slower = Parameters { block_interval_ms: 2_000, ..net.genesis.parameters.clone() };
    let change = || Order::SetParameters(Box::new(slower.clone()));
    // The next block is 1.
    for order in [change(), Order::RemoveChallenge(ChallengeId(0)), Order::SetOwner(net.hotkeys[0].hotkey())] {
        assert!(ls[0].check_transaction(&signed(&net, order.clone(), 0, 10)).is_err(), "{order:?}");
        ls[0].check_transaction(&signed(&net, order, 0, 11)).unwrap();
    }
    let input = net.input(&ls[0], vec![signed(&net, change(), 0, 11)]);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 1);
    blocks(&net, &mut ls, 8);
    // At the last moment: block 10.
    let input = net.input(&ls[0], vec![signed(&net, Order::Revoke(0), 1, 11)]);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 1);
    blocks(&net, &mut ls, 2);
    assert_eq!(ls[0].parameters().block_interval_ms, 1_000);
}

#[test]
fn no_order_shortens_the_orders_delay_or_ends_rounds_before_their_answers_are_due() {
    let mut net = Net::new();
    // 25 s for answers that take 20.
    net.genesis.parameters.open_round_blocks = 25;
    let mut ls = pair(&net);
    let now = net.genesis.parameters.clone();
    let of = |p: Parameters| signed(&net, Order::SetParameters(Box::new(p)), 0, 3);
    assert!(ls[0].check_transaction(&of(Parameters { order_delay_blocks: 2, ..now.clone() })).is_err());
    assert!(ls[0].check_transaction(&of(Parameters { open_round_blocks: 2, ..now.clone() })).is_err());
    assert!(ls[0].check_transaction(&of(Parameters { block_interval_ms: 20, ..now.clone() })).is_err());
    ls[0].check_transaction(&of(Parameters { block_interval_ms: 800, ..now.clone() })).unwrap();
    // Two orders that were each all right when they were given: the second does nothing.
    let mut slow = net.genesis.challenges[0].clone();
    slow.rules.deadline_ms = 25_000;
    let orders = vec![
        signed(&net, Order::SetParameters(Box::new(Parameters { block_interval_ms: 800, ..now })), 0, 3),
        signed(&net, Order::UpdateChallenge(Box::new(slow)), 1, 3),
    ];
    let input = net.input(&ls[0], orders);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 2);
    blocks(&net, &mut ls, 3);
    assert_eq!(ls[0].parameters().block_interval_ms, 800);
    assert_eq!(query::challenges(ls[0].store()).unwrap()[0].rules.deadline_ms, 20_000);
}

/// The members after an epoch that closes under a least stake, with these stakes of the five hotkeys.
fn members_under(min_stake_rao: u64, stakes: [u64; 5]) -> Vec<usize> {
    let mut net = Net::new();
    net.genesis.parameters.min_stake_rao = 1_000;
    let mut ls = pair(&net);
    let raised = Parameters { min_stake_rao, ..net.genesis.parameters.clone() };
    let txs = vec![signed(&net, Order::SetParameters(Box::new(raised)), 0, 2)];
    let input = net.input(&ls[0], txs);
    net.step(&mut ls, input);
    let ready = (0..4).map(|v| net.ready(v, 0)).collect();
    let reference = reference(9, 1);
    let mut snapshot: Snapshot = net.snapshot(reference.clone());
    snapshot.neurons.iter_mut().zip(stakes).for_each(|(n, stake)| n.stake_rao = stake);
    let input = ProposalInput { snapshot: Some(snapshot), reference, ..net.input(&ls[0], ready) };
    net.step(&mut ls, input);
    let set = ls[0].validators();
    (0..5).filter(|i| set.by_hotkey(&net.hotkeys[*i].hotkey()).is_some()).collect()
}

#[test]
fn a_least_stake_that_nobody_or_only_a_few_have_takes_nobody_out_of_the_set() {
    let top = 10_000 * 1_000_000_000;
    assert_eq!(members_under(top, [5_000; 5]), [0, 1, 2, 3], "nobody has it");
    // One that is richest and stole the owner's key would be alone.
    assert_eq!(members_under(top, [5_000, 5_000, 5_000, top, 0]), [0, 1, 2, 3]);
    assert_eq!(members_under(top, [top, top, 5_000, 5_000, 0]), [0, 1, 2, 3], "half is no quorum");
    // Three of four are: the minimum holds.
    assert_eq!(members_under(top, [top, top, top, 5_000, 0]), [0, 1, 2]);
}

#[test]
fn a_burn_uid_that_nobody_holds_is_replaced_by_one_that_the_chain_knows() {
    let mut net = Net::new();
    net.genesis.parameters.burn_uid = 4_095;
    let mut ls = pair(&net);
    net.close(&mut ls, 9, 1, vec![]);
    let record = crate::epoch::record(ls[0].store(), 0, ChallengeId(0)).unwrap().unwrap();
    assert_eq!(record.weights, [(0, Some(net.hotkeys[0].hotkey()), u16::MAX)]);
}

#[test]
fn the_largest_snapshot_closes_an_epoch_beside_a_full_block() {
    let net = Net::new();
    let ls = pair(&net);
    let reference = reference(9, 1);
    let mut snapshot = net.snapshot(reference.clone());
    let from = snapshot.neurons.len();
    for uid in from..limits::MAX_NEURONS {
        let mut hotkey = [0xee; 32];
        hotkey[..8].copy_from_slice(&(uid as u64).to_le_bytes());
        let neuron =
            crate::tx::Neuron { uid: uid as u16, hotkey: perturb_types::Hotkey(hotkey), ..snapshot.neurons[0].clone() };
        snapshot.neurons.push(neuron);
    }
    let close = Transaction::EpochClose { epoch: 0, snapshot: Box::new(snapshot.clone()) };
    let bytes = encode::encode(&close).len();
    assert!(bytes > limits::MAX_TRANSACTION_BYTES && bytes <= limits::MAX_EPOCH_CLOSE_BYTES, "{bytes}");
    let input = ProposalInput { snapshot: Some(snapshot), reference, ..net.input(&ls[0], vec![]) };
    let (block, _) = ls[0].propose(input).unwrap();
    ls[1].check(&block).unwrap();
    let all = *crate::bounds::BLOCK_BYTES.end() as usize + limits::MAX_EPOCH_CLOSE_BYTES;
    assert!(all + limits::MAX_VALIDATORS * 128 <= limits::MAX_BLOCK_BYTES);
}
