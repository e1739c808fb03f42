//! The owner's orders: who may, when they hold, and how they are taken back.

use super::*;
use crate::genesis::Parameters;

fn order(net: &Net, order: Order, nonce: u64, effective: u64) -> Transaction {
    Transaction::OwnerAction(Box::new(OwnerAction::sign(&net.id(), &net.owner, order, nonce, effective, 100)))
}

fn empty(net: &Net, ls: &mut [Ledger<MemoryStore>; 2]) {
    let input = net.input(&ls[0], vec![]);
    net.step(ls, input);
}

#[test]
fn the_owner_orders_and_nobody_else() {
    let net = Net::new();
    let ls = pair(&net);
    let what = Order::SetRequiredVersion(1, 2, 3);
    let signed = |by: &HotkeyPair, id: &NetworkId, nonce, effective, expires| {
        OwnerAction::sign(id, by, what.clone(), nonce, effective, expires)
    };
    let good = signed(&net.owner, &net.id(), 0, 2, 100);
    ls[0].check_transaction(&Transaction::OwnerAction(Box::new(good.clone()))).unwrap();
    for (why, bad) in [
        ("another's", signed(&net.hotkeys[0], &net.id(), 0, 2, 100)),
        ("expired", signed(&net.owner, &net.id(), 0, 2, 0)),
        ("of another network", signed(&net.owner, &ZERO, 0, 2, 100)),
        ("of a height that is over", signed(&net.owner, &net.id(), 0, 1, 100)),
        ("of a height too far", signed(&net.owner, &net.id(), 0, u64::MAX, 100)),
        ("another nonce under an old signature", OwnerAction { nonce: 1, ..good.clone() }),
        ("another height under an old signature", OwnerAction { effective: 3, ..good.clone() }),
        ("another order under an old signature", OwnerAction { order: Order::Revoke(0), ..good }),
    ] {
        assert!(ls[0].check_transaction(&Transaction::OwnerAction(Box::new(bad))).is_err(), "{why}");
    }
}

#[test]
fn an_order_holds_from_its_height_on_and_not_before() {
    let net = Net::new();
    let mut ls = pair(&net);
    let slower = Parameters { block_interval_ms: 9_000, ..net.genesis.parameters.clone() };
    let txs = vec![
        order(&net, Order::SetRequiredVersion(1, 2, 3), 0, 3),
        order(&net, Order::SetParameters(Box::new(slower)), 1, 3),
    ];
    let input = net.input(&ls[0], txs.clone());
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 2);
    assert_eq!(query::orders(ls[0].store()).unwrap().len(), 2);
    empty(&net, &mut ls);
    assert_eq!(ls[0].parameters().block_interval_ms, 1_000, "height 2 is not yet the one");
    assert_eq!(query::meta(ls[0].store()).unwrap().required_version, (0, 0, 0));
    empty(&net, &mut ls);
    assert_eq!((ls[0].parameters().block_interval_ms, ls[1].parameters().block_interval_ms), (9_000, 9_000));
    assert_eq!(query::meta(ls[0].store()).unwrap().required_version, (1, 2, 3));
    assert!(query::orders(ls[0].store()).unwrap().is_empty());
    // Replayed, they do nothing.
    assert!(txs.iter().all(|t| ls[0].check_transaction(t).is_err()));
    // A ledger that is opened anew knows the numbers too.
    let opened = Ledger::new(net.genesis.clone(), ls[0].store().clone()).unwrap();
    assert_eq!(opened.parameters().block_interval_ms, 9_000);
}

#[test]
fn an_order_that_is_revoked_never_holds_and_numbers_that_make_no_sense_are_no_order() {
    let net = Net::new();
    let mut ls = pair(&net);
    let bad = Parameters { block_interval_ms: 0, ..net.genesis.parameters.clone() };
    assert!(ls[0].check_transaction(&order(&net, Order::SetParameters(Box::new(bad)), 0, 3)).is_err());
    let input = net.input(&ls[0], vec![order(&net, Order::RemoveChallenge(ChallengeId(0)), 0, 4)]);
    net.step(&mut ls, input);
    assert!(ls[0].check_transaction(&order(&net, Order::Revoke(7), 1, 9)).is_err(), "there is none");
    let input = net.input(&ls[0], vec![order(&net, Order::Revoke(0), 1, 9)]);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 1);
    (0..4).for_each(|_| empty(&net, &mut ls));
    assert_eq!(query::challenges(ls[0].store()).unwrap().len(), 1);
}

#[test]
fn a_new_owner_is_obeyed_and_the_old_one_no_longer_also_for_what_was_seen_before() {
    let net = Net::new();
    let mut ls = pair(&net);
    let heir = &net.hotkeys[4];
    let late = order(&net, Order::SetRequiredVersion(9, 9, 9), 1, 50);
    let input = net.input(&ls[0], vec![order(&net, Order::SetOwner(heir.hotkey()), 0, 2)]);
    net.step(&mut ls, input);
    // Good while the old owner is obeyed: its signature was verified and remembered.
    ls[0].check_transaction(&late).unwrap();
    empty(&net, &mut ls);
    assert!(ls[0].check_transaction(&late).is_err());
    let new = OwnerAction::sign(&net.id(), heir, Order::SetRequiredVersion(2, 0, 0), 1, 50, 100);
    ls[0].check_transaction(&Transaction::OwnerAction(Box::new(new))).unwrap();
}
