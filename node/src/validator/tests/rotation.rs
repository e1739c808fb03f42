//! A validator from one consensus key to the next, step by step over agreed blocks.

use std::sync::Arc;

use perturb_ledger::{Ledger, Transaction};
use perturb_types::{ChallengeId, ConsensusPair, Digest, Hotkey, RoundId, RoundOpen, Signed, encode};

use super::world::{commit, genesis, history, miner_lot};
use crate::keys::consensus::make_next;
use crate::keys::delegation::{DelegationFile, waiting};
use crate::keys::{Keyring, Signer};
use crate::localnet::plan::Plan;
use crate::validator::agreed::Agreed;
use crate::validator::membership::Member;
use crate::validator::pending::signed_now;

#[test]
fn a_validator_goes_from_one_key_to_the_next_with_the_epoch_and_signs_anew_what_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(&dir.path().join("net"), 9, 4, 0, 2).unwrap();
    let genesis = genesis(&plan);
    let network = genesis.network_id();
    let db = history(&dir.path().join("node"), &plan, &genesis, 0);
    let mut ledger = Ledger::new(genesis.clone(), db.clone()).unwrap();
    let (me, folder) = (&plan.validators[0], &plan.validators[0].dir);
    let hotkey = me.hotkey.hotkey();
    let old = plan.consensus(me);

    // As `perturb keys rotate` without the hotkey's secret.
    let next = make_next(folder).unwrap();
    let request = DelegationFile::accept(network, hotkey, &next, 7, Some(1));
    request.create(&waiting(folder)).unwrap();
    let keys = Arc::new(Keyring::open(folder).unwrap());
    let signer = Signer::new(keys.clone(), hotkey, db.clone());
    let member = Member {
        agreed: Arc::new(Agreed::new(db.clone(), genesis.clone())),
        hotkey: me.hotkey.clone(),
        signer: signer.clone(),
        delegation: waiting(folder),
    };
    let mut pairs: Vec<_> = plan.validators.iter().map(|v| plan.consensus(v)).collect();
    pairs.push(next.clone());
    let say = || member.next(member.waiting().unwrap()).unwrap();

    let delegation = say().expect("the delegation is due");
    let Transaction::KeyDelegation(d) = &delegation else { panic!("{}", delegation.name()) };
    assert!(d.verify(&network) && d.key == next.public() && d.sequence == 7);
    commit(&mut ledger, &pairs, vec![delegation], false);
    assert!(waiting(folder).exists());
    let ready = say().expect("the next key says that it is there");
    assert!(matches!(&ready, Transaction::Readiness(e) if e.signer == next.public()));
    assert!(!waiting(folder).exists(), "the state has it");
    assert_eq!(signer.pair().unwrap().public(), old.public(), "this epoch is the old key's");

    let round = RoundId { validator: hotkey, challenge: ChallengeId(0), seq: 0 };
    let open =
        RoundOpen { round, epoch: 0, image: Digest([1; 32]), miners: miner_lot(&genesis, &old, &round), opened_ms: 0 };
    let opened = Signed::sign(&signer.pair().unwrap(), &network, open);
    let stored = encode::encode(&Transaction::RoundOpen(opened.envelope().clone()));
    assert_eq!(signed_now(stored.clone(), &old, &network), stored, "nothing new is needed yet");

    let quorum = |i: usize| {
        let ready = perturb_ledger::tx::Readiness { hotkey: plan.validators[i].hotkey.hotkey(), epoch: 0 };
        Transaction::Readiness(Signed::sign(&pairs[i], &network, ready).into_envelope())
    };
    let all = [ready, quorum(1), quorum(2), quorum(3)];
    commit(&mut ledger, &pairs, all.to_vec(), false);
    assert!(say().is_none(), "all is said");
    commit(&mut ledger, &pairs, vec![], true);
    assert_eq!(signer.pair().unwrap().public(), next.public());
    // A node that starts now takes the same one, from the same folder.
    assert_eq!(Keyring::open(folder).unwrap().signer(&db, &hotkey).unwrap().public(), next.public());

    // The opening did not get into a block in time: the next key signs it, and it says the same.
    let renewed = signed_now(stored, &signer.pair().unwrap(), &network);
    let Transaction::RoundOpen(envelope) = Transaction::decode(&renewed).unwrap() else { panic!("another kind") };
    let again = envelope.open::<RoundOpen>(&network).unwrap();
    assert_eq!((again.signer(), again.digest()), (next.public(), opened.digest()));
    commit(&mut ledger, &pairs, vec![Transaction::decode(&renewed).unwrap()], false);
}

#[test]
fn a_delegation_that_fits_nothing_here_is_told_and_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(&dir.path().join("net"), 9, 4, 0, 2).unwrap();
    let genesis = genesis(&plan);
    let network = genesis.network_id();
    let db = history(&dir.path().join("node"), &plan, &genesis, 0);
    let (me, folder) = (&plan.validators[0], &plan.validators[0].dir);
    let hotkey = me.hotkey.hotkey();
    let next = make_next(folder).unwrap();
    let member = Member {
        agreed: Arc::new(Agreed::new(db.clone(), genesis)),
        hotkey: me.hotkey.clone(),
        signer: Signer::new(Arc::new(Keyring::open(folder).unwrap()), hotkey, db),
        delegation: waiting(folder),
    };
    let with = |file: DelegationFile| {
        let _ = std::fs::remove_file(waiting(folder));
        file.create(&waiting(folder)).unwrap();
        member.waiting()
    };
    let of = |network, hotkey, key: &ConsensusPair, from| DelegationFile::accept(network, hotkey, key, 7, from);
    let stranger = ConsensusPair::from_seed(&[77; 32]);
    assert!(with(of(network, hotkey, &next, Some(2))).unwrap().is_none(), "not due before the epoch ahead of it");
    assert!(with(of(perturb_types::NetworkId([1; 32]), hotkey, &next, None)).is_err());
    let mut foreign = of(network, Hotkey([1; 32]), &next, None);
    foreign.sequence = 0;
    assert!(with(foreign).is_err() && waiting(folder).exists(), "another's file is not ours to remove, however old");
    assert!(with(of(network, hotkey, &stranger, None)).unwrap_err().to_string().contains("start it again"));
    let mut late = of(network, hotkey, &next, None);
    late.sequence = 0;
    assert!(with(late).is_err() && !waiting(folder).exists(), "the state knows a later one");
    assert!(with(of(network, hotkey, &next, None)).unwrap().is_some());
}
