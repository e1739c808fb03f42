//! An opening that no block took before its seed went.

use perturb_ledger::pulse::Pulse;
use perturb_ledger::{Ledger, Transaction, seeds};
use perturb_types::{ChallengeId, Digest, RoundId, RoundOpen, Signed, encode};

use super::world::{commit, genesis, history, miner_lot};
use crate::localnet::plan::Plan;
use crate::validator::pending;

#[test]
fn what_was_drawn_with_a_seed_that_has_gone_blocks_no_later_round() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(&dir.path().join("net"), 9, 4, 0, 2).unwrap();
    let genesis = genesis(&plan);
    let network = genesis.network_id();
    let db = history(&dir.path().join("node"), &plan, &genesis, 0);
    let mut ledger = Ledger::new(genesis.clone(), db.clone()).unwrap();
    let pairs: Vec<_> = plan.validators.iter().map(|v| plan.consensus(v)).collect();
    let me = plan.validators[0].hotkey.hotkey();
    let round = RoundId { validator: me, challenge: ChallengeId(0), seq: 0 };
    let miners = miner_lot(&genesis, &pairs[0], &round);
    let open = RoundOpen { round, epoch: 0, image: Digest([4; 32]), miners, opened_ms: 0 };
    let open = Transaction::RoundOpen(Signed::sign(&pairs[0], &network, open).into_envelope());
    pending::store(&db, round.challenge, round.seq, pending::OPEN, &encode::encode(&open)).unwrap();

    commit(&mut ledger, &pairs, vec![], true);
    assert_eq!(pending::settle(&db, &me, &network).unwrap().len(), 1, "its seed is the active one still");
    let waiting = seeds::seeds(&db).unwrap().unwrap().waiting[0];
    let pulse = Pulse::of_development(waiting.pulse).unwrap();
    commit(&mut ledger, &pairs, vec![Transaction::Pulse(pulse)], false);
    assert!(ledger.check_transaction(&open).is_err_and(|e| !e.is_early()), "no block takes it any more");
    assert!(pending::waits(&db, &round).unwrap());
    assert_eq!(pending::settle(&db, &me, &network).unwrap(), []);
    assert!(!pending::waits(&db, &round).unwrap());
}
