//! Whatever numbers validate, and whatever orders a stolen owner key signs, blocks keep coming.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::RangeInclusive;

use perturb_ledger::bounds;
use perturb_ledger::tx::{Order, OwnerAction};
use proptest::prelude::*;

use super::*;

/// No timer is further away: the longest block interval.
const LONGEST_TIMER_MS: u64 = 60_000;

/// Milliseconds in which a small network must decide a height under any numbers.
const PATIENCE_MS: u64 = 60_000 + bounds::MAX_ROUNDS_MS;

/// A value of a range, its ends more often than chance would have them.
fn within(range: RangeInclusive<u64>) -> impl Strategy<Value = u64> {
    let (low, high) = (*range.start(), *range.end());
    prop_oneof![Just(low), Just(high), low..=high]
}

fn waits() -> impl Strategy<Value = Timeouts> {
    let (wait, delta) = (|| within(bounds::WAIT_MS), || within(bounds::WAIT_DELTA_MS));
    (wait(), delta(), wait(), delta(), wait(), delta()).prop_map(|t| Timeouts {
        propose_ms: t.0 as u32,
        propose_delta_ms: t.1 as u32,
        prevote_ms: t.2 as u32,
        prevote_delta_ms: t.3 as u32,
        precommit_ms: t.4 as u32,
        precommit_delta_ms: t.5 as u32,
    })
}

fn valid() -> impl Strategy<Value = Parameters> {
    let blocks = (within(bounds::BLOCK_INTERVAL_MS), within(bounds::BLOCK_TRANSACTIONS), within(bounds::BLOCK_BYTES));
    let rounds = (within(bounds::ROUNDS_PER_EPOCH), within(bounds::OPEN_ROUND_BLOCKS));
    let rest = (within(bounds::PROPOSAL_AGE_MS), within(bounds::MAX_SHARE), any::<bool>());
    let parameters = (blocks, rounds, rest, waits()).prop_map(|(blocks, rounds, (age, share, equal), timeouts)| {
        let power = if equal { PowerRule::Equal } else { PowerRule::Stake { max_share: share as u32 } };
        Parameters {
            power,
            block_interval_ms: blocks.0 as u32,
            max_block_transactions: blocks.1 as u32,
            max_block_bytes: blocks.2 as u32,
            max_rounds_per_epoch: rounds.0 as u32,
            open_round_blocks: rounds.1,
            timeouts,
            proposal_age_ms: age as u32,
            ..keys(1, 1).genesis.parameters
        }
    });
    parameters.prop_filter("the waits of ten rounds are bounded together", |p| p.validate().is_ok())
}

/// Four validators, one of which never speaks, come this many heights further.
fn goes_on(net: &mut Net, heights: u64) {
    let at = net.height(0);
    net.until("heights", heights * PATIENCE_MS, |n| (0..3).all(|i| n.height(i) >= at + heights));
    assert!(net.longest_timer_ms <= LONGEST_TIMER_MS, "a timer of {} ms", net.longest_timer_ms);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn under_any_numbers_that_validate_a_small_network_decides_and_no_timer_is_long(p in valid()) {
        let mut keys = keys(4, 4);
        keys.genesis.parameters = p;
        let mut net = Net::of(keys, 5);
        (0..3).for_each(|i| net.start(i));
        goes_on(&mut net, 3);
    }
}

/// The worst that each kind of order can say and still be valid.
fn worst(net: &Net) -> Vec<Order> {
    let now = net.keys.genesis.parameters.clone();
    let set = |p: Parameters| Order::SetParameters(Box::new(p));
    let waits = |wait: u64, delta: u64| {
        let (wait, delta) = (wait as u32, delta as u32);
        Timeouts {
            propose_ms: wait,
            propose_delta_ms: delta,
            prevote_ms: wait,
            prevote_delta_ms: delta,
            precommit_ms: wait,
            precommit_delta_ms: delta,
        }
    };
    let spec = net.keys.genesis.challenges[0].clone();
    let many = (1..16).map(|id| Order::AddChallenge(Box::new(ChallengeSpec { id: ChallengeId(id), ..spec.clone() })));
    let mut all: Vec<Order> = many.collect();
    all.extend([
        set(Parameters { min_stake_rao: *bounds::MIN_STAKE_RAO.end(), ..now.clone() }),
        set(Parameters { power: PowerRule::Stake { max_share: 1 }, ..now.clone() }),
        set(Parameters { block_interval_ms: *bounds::BLOCK_INTERVAL_MS.end() as u32, ..now.clone() }),
        set(Parameters { open_round_blocks: *bounds::OPEN_ROUND_BLOCKS.end(), ..now.clone() }),
        set(Parameters { max_block_transactions: *bounds::BLOCK_TRANSACTIONS.start() as u32, ..now.clone() }),
        set(Parameters { max_block_bytes: *bounds::BLOCK_BYTES.start() as u32, ..now.clone() }),
        set(Parameters { burn_uid: *bounds::BURN_UID.end() as u16, ..now.clone() }),
        set(Parameters { timeouts: waits(100, 100), ..now.clone() }),
        set(Parameters { timeouts: waits(6_000, 100), ..now.clone() }),
        set(Parameters { proposal_age_ms: *bounds::PROPOSAL_AGE_MS.start() as u32, ..now.clone() }),
        set(Parameters { proposal_age_ms: *bounds::PROPOSAL_AGE_MS.end() as u32, ..now }),
        Order::SetRequiredVersion(u16::MAX, u16::MAX, u16::MAX),
    ]);
    all.extend((0..16).map(|id| Order::RemoveChallenge(ChallengeId(id))));
    all.push(Order::SetOwner(perturb_types::Hotkey([0; 32])));
    all
}

/// The chain comes to the next epoch and makes a block every 12 s; all close it.
fn close_an_epoch(net: &mut Net) {
    let (epoch, end) = (net.tip.epoch_index + 1, net.now + 8 * PATIENCE_MS);
    let open = |n: &Net| (0..4).any(|i| n.nodes[i].machine.as_ref().unwrap().ledger().head().epoch < epoch);
    while open(net) {
        assert!(net.now < end, "epoch {epoch} does not close; heights {:?}", net.heights());
        let tip = reference(net.tip.number + 1, epoch);
        net.set_tip(tip);
        let next = net.now + 12_000;
        net.until("the chain's next block", 60_000, |n| n.now >= next || !open(n));
    }
}

#[test]
fn a_stolen_owner_key_that_gives_the_worst_order_of_every_kind_does_not_stop_the_network() {
    let mut keys = keys(4, 4);
    // Longer than an answer takes: no order makes it less.
    keys.genesis.parameters.open_round_blocks = 100;
    let mut net = Net::of(keys, 6);
    (0..4).for_each(|i| net.start(i));
    goes_on(&mut net, 2);
    let id = net.keys.genesis.network_id();
    let set: Vec<_> = net.nodes[0].machine.as_ref().unwrap().ledger().validators().iter().map(|v| v.hotkey).collect();
    for (nonce, order) in worst(&net).into_iter().enumerate() {
        let effective = net.height(0) + 4;
        let action = OwnerAction::sign(&id, &net.keys.hotkeys[0], order.clone(), nonce as u64, effective, effective);
        net.submit(0, &Transaction::OwnerAction(Box::new(action)));
        net.until("the order holds", 8 * PATIENCE_MS, |n| n.height(0) > effective);
        let meta = perturb_ledger::query::meta(net.nodes[0].machine.as_ref().unwrap().ledger().store()).unwrap();
        assert_eq!(meta.owner_nonce, nonce as u64 + 1, "no block took {order:?}");
        // An epoch closes under it.
        close_an_epoch(&mut net);
        let now = net.nodes[0].machine.as_ref().unwrap().ledger().validators().clone();
        assert!(set.iter().all(|hotkey| now.by_hotkey(hotkey).is_some()), "{order:?} took a member away");
    }
    goes_on(&mut net, 2);
}
