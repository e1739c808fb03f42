//! Epochs with strikes, replayed: by the ledger's executor, and by the arithmetic written down twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use perturb_audit::Verdict;
use perturb_audit::replay::{self, Mode};
use perturb_ledger::verdict::{Checked, Finding};
use perturb_ledger::{epoch, query};
use support::{CHALLENGE, World};

const FAILS: Checked = Checked::Fails(Finding::Label);

/// Who contributed to the first miner in an epoch, by index.
fn contributors(w: &World, n: u64) -> Vec<usize> {
    let record = epoch::record(w.ledger.store(), n, CHALLENGE).unwrap().unwrap();
    let contributions = &record.miners.first().unwrap().contributions;
    let index =
        |c: &perturb_ledger::aggregate::Contribution| w.hotkeys.iter().position(|h| h.hotkey() == c.validator).unwrap();
    let mut out: Vec<usize> = contributions.iter().map(index).collect();
    out.sort_unstable();
    out
}

fn failed(w: &World, v: usize) -> u64 {
    query::reputation(w.ledger.store(), &w.hotkeys[v].hotkey()).unwrap().past.failed_checks
}

#[test]
fn epochs_with_strikes_replay_bit_for_bit_in_both_modes() {
    let all = [0, 1, 2, 3];
    // Two scores make a history; every round is drawn by a pulse in the second block after its own.
    let mut w = World::with(|genesis| {
        (genesis.parameters.spot_checks.rate, genesis.parameters.spot_checks.window_blocks) = (1_000_000, 5);
    });
    let ready = |w: &World| all.map(|v| w.ready(v)).to_vec();
    for _ in 0..2 {
        let rounds = w.rounds(&all);
        w.step(rounds);
    }
    w.close(ready(&w));
    w.step(vec![]);

    // Settled early: all that can tell say that validator 0 lied; of validator 1 one of four says so.
    let mut txs = w.verdicts(|by, accused| match (by, accused) {
        (4, _) => None,
        (by, accused) if by == accused => None,
        (3, 0) => Some(Checked::Unknown),
        (_, 0) | (2, 1) => Some(FAILS),
        _ => Some(Checked::Holds),
    });
    txs.extend(w.rounds(&all));
    w.step(txs);
    let rounds = w.rounds(&all);
    w.step(rounds);
    w.close(ready(&w));
    assert_eq!((contributors(&w, 0), contributors(&w, 1)), (vec![0, 1, 2, 3], vec![1, 2, 3]));
    assert_eq!(all.map(|v| failed(&w, v)), [2, 0, 0, 0]);
    w.step(vec![]);

    // Two of four say that validator 3 lied, and validator 0 does not speak: its window has to pass. In the
    // block that closes the epoch three say it of validator 1.
    let mut txs = w.verdicts(|by, accused| (matches!(by, 1 | 2) && accused == 3).then_some(FAILS));
    txs.extend(w.rounds(&all));
    w.step(txs);
    let rounds = w.rounds(&all);
    w.step(rounds);
    let mut txs = w.verdicts(|by, accused| (matches!(by, 0 | 2 | 3) && accused == 1).then_some(FAILS));
    txs.extend(ready(&w));
    w.close(txs);
    assert_eq!(all.map(|v| failed(&w, v)), [2, 2, 0, 0], "the window of validator 3's rounds goes on");
    assert_eq!(contributors(&w, 2), [0, 2, 3]);
    w.step(vec![]);
    let rounds = w.rounds(&all);
    w.step(rounds);
    let rounds = w.rounds(&all);
    w.step(rounds);
    w.close(ready(&w));
    assert_eq!(all.map(|v| failed(&w, v)), [2, 2, 0, 2], "struck in the next epoch, when it was over");
    assert_eq!(contributors(&w, 3), [0, 1, 2]);

    for epoch in 0..4 {
        for mode in [Mode::Exact, Mode::Fast] {
            let report = replay::run(&w.anchor(), &w.genesis, &w.nodes(), epoch, mode);
            assert_eq!(report.verdict, Verdict::Ok, "epoch {epoch}: {report}");
        }
    }
}
