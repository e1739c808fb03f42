//! What the state still asks of a validator: the images of rounds, and the blocks that they rest on.

use super::*;
use crate::genesis::SpotChecks;

#[test]
fn a_round_is_owed_while_it_is_open_waits_for_its_draw_or_is_checked() {
    for (rate, drawn) in [(1_000_000, true), (1, false)] {
        let mut net = Net::new();
        net.genesis.parameters.spot_checks = SpotChecks { rate, window_blocks: 3, margin_tolerance: 0 };
        let mut ls = pair(&net);
        let [open, commits, result] = net.whole(0, 0, 0);
        let round = net.round(0, 0);
        let owed =
            |l: &Ledger<MemoryStore>| (query::owed(l.store()).unwrap(), query::unchecked_from(l.store()).unwrap());
        assert_eq!(owed(&ls[0]), ([].into(), None));
        let step = |ls: &mut [_; 2], txs| {
            let input = net.input(&ls[0], txs);
            net.step(ls, input);
        };
        step(&mut ls, vec![]);
        step(&mut ls, vec![open]);
        assert_eq!(owed(&ls[0]), ([round].into(), Some(2)), "open since height 2");
        (0..3).for_each(|_| step(&mut ls, vec![]));
        step(&mut ls, vec![commits, result]);
        let longest = net.genesis.parameters.open_round_blocks;
        assert_eq!(owed(&ls[0]), ([round].into(), Some(6 - longest)), "its opening is at or after that height");
        step(&mut ls, vec![]);
        net.draw(&mut ls, vec![]);
        assert_eq!(query::checks(ls[0].store()).unwrap().len(), usize::from(drawn));
        assert_eq!(owed(&ls[0]).0, if drawn { [round].into() } else { [].into() });
        (0..3).for_each(|_| step(&mut ls, vec![]));
        assert_eq!(owed(&ls[0]), ([].into(), None), "the window is over");
    }
}

#[test]
fn a_round_that_is_never_closed_is_owed_until_the_state_gives_it_up() {
    let net = Net::new();
    let mut ls = pair(&net);
    let open = Transaction::RoundOpen(net.open(0, 0, 0).into_envelope());
    let input = net.input(&ls[0], vec![open]);
    net.step(&mut ls, input);
    for left in (0..net.genesis.parameters.open_round_blocks).rev() {
        assert_eq!(query::owed(ls[0].store()).unwrap().len(), 1);
        let input = net.input(&ls[0], vec![]);
        net.step(&mut ls, input);
        assert_eq!(query::owed(ls[0].store()).unwrap().is_empty(), left == 0);
    }
}
