//! A ledger under hostile transactions, blocks and snapshots, signed by those who may sign.

use perturb_ledger::proofs::StateProof;
use perturb_ledger::state::META;
use perturb_ledger::tx::{Order, Snapshot};
use perturb_ledger::{Block, Ledger, MemoryStore, Pulse, StateStore, Transaction, receipt};
use perturb_types::{Digest, Envelope, RoundCommits, RoundResult, encode};

use crate::bytes::Reader;
use crate::world::{World, world};

/// Blocks of one input.
const BLOCKS: usize = 6;

/// A script: a start, then blocks, each proposed, checked elsewhere, attacked, and committed.
pub fn ledger(bytes: &[u8]) {
    let (world, mut r) = (world(), Reader::new(bytes));
    let mut height = r.below(world.stores.len());
    let mut ledger = world.ledger(height);
    for _ in 0..BLOCKS {
        if r.is_done() {
            return;
        }
        let transactions = (0..r.below(6)).filter_map(|_| transaction(world, &ledger, &mut r)).collect();
        let mut input = world.input(&ledger, transactions, None);
        input.time_ms = r.near(ledger.head().time_ms.saturating_add(10));
        if r.below(3) == 0 {
            let reference = &mut input.reference;
            reference.number = r.near(reference.number.saturating_add(1));
            let rises = u64::from(r.coin());
            reference.epoch_index = r.near(reference.epoch_index.saturating_add(rises));
            reference.hash = Digest([r.byte(); 32]);
            input.snapshot = snapshot(world, &input.reference, &mut r);
        }
        let before = ledger.head().clone();
        let Ok((block, executed)) = ledger.propose(input) else {
            assert!(*ledger.head() == before);
            continue;
        };
        let other = Ledger::new(world.genesis.clone(), ledger.store().clone()).unwrap();
        let checked = other.check(&block).unwrap_or_else(|e| panic!("an own proposal is refused: {e}"));
        assert!(checked.digest() == executed.digest() && checked.receipts() == executed.receipts());
        attack(world, &ledger, &block, &mut r);
        assert!(*ledger.head() == before, "a refused block changes the ledger");
        let certificate = world.certify(&ledger, &executed);
        let commit = ledger.commit(executed, certificate).unwrap();
        ledger.store_mut().commit(&commit);
        height += 1;
        settled(world, &ledger, height as u64);
    }
}

/// What holds after every commit: a restart stands where this ledger stands, and rows are proved.
fn settled(world: &World, ledger: &Ledger<MemoryStore>, height: u64) {
    assert!(ledger.head().height == height);
    let again = Ledger::new(world.genesis.clone(), ledger.store().clone()).unwrap();
    assert!(again.head() == ledger.head() && again.validators() == ledger.validators());
    assert!(again.parameters() == ledger.parameters());
    let proof = StateProof::make(ledger.store(), height, META).unwrap();
    assert!(proof.verify(&ledger.head().state_root) && proof.value == ledger.store().value(META).unwrap());
}

/// The block with something changed; its frame is made to fit, so that execution is reached.
fn attack(world: &World, ledger: &Ledger<MemoryStore>, block: &Block, r: &mut Reader<'_>) {
    for _ in 0..r.below(3) {
        let mut bytes = encode::encode(block);
        r.damage(&mut bytes);
        let Ok(mut bad) = Block::decode(&bytes) else { continue };
        for _ in 0..r.below(3) {
            bad.body.transactions.extend(transaction(world, ledger, r));
        }
        if r.coin() {
            bad.body.transactions.reverse();
        }
        bad.header.transactions = bad.body.transactions.len() as u32;
        bad.header.transactions_root = bad.body.root(&world.network);
        bad.header.parent_certificate = bad.body.certificate_digest();
        if r.coin()
            && let Ok(outcome) = ledger.recompute(&bad)
        {
            bad.header.state_root = outcome.state_root;
            bad.header.results_root = receipt::root(&world.network, &outcome.receipts);
            bad.header.next_validators = outcome.next.hash(&world.network);
            bad.header.epoch = outcome.epoch;
            assert!(ledger.check(&bad).is_ok(), "what was recomputed is not what is checked");
        }
        let _ = ledger.check(&bad);
    }
}

fn snapshot(world: &World, reference: &perturb_ledger::ChainReference, r: &mut Reader<'_>) -> Option<Snapshot> {
    let mut snapshot = world.snapshot(reference.clone());
    for neuron in &mut snapshot.neurons {
        match r.byte() {
            0..=199 => {}
            200..=219 => neuron.stake_rao = r.number(),
            220..=239 => neuron.permit ^= true,
            _ => neuron.uid = neuron.uid.saturating_add(u16::from(r.byte())),
        }
    }
    snapshot.neurons.truncate(snapshot.neurons.len() - r.below(3));
    if r.coin() {
        snapshot.min_allowed_weights = r.number() as u16;
        snapshot.max_weight_limit = r.number() as u16;
        snapshot.tempo = r.number() as u16;
    }
    if r.coin() {
        let mut bytes = encode::encode(&snapshot);
        r.damage(&mut bytes);
        snapshot = encode::decode("snapshot", &bytes, 1 << 20).unwrap_or(snapshot);
    }
    (r.byte() < 250).then_some(snapshot)
}

/// The seq of a validator's next round, roughly.
fn next_seq(ledger: &Ledger<MemoryStore>, world: &World, v: usize, r: &mut Reader<'_>) -> u64 {
    let hotkey = world.hotkeys[v].hotkey();
    let row = perturb_ledger::query::sequence(ledger.store(), crate::world::CHALLENGE, &hotkey).unwrap();
    r.near(row.next)
}

/// A transaction: honest, of a liar with a key, of the owner, or garbage.
pub(crate) fn transaction(world: &World, ledger: &Ledger<MemoryStore>, r: &mut Reader<'_>) -> Option<Transaction> {
    let (network, v) = (world.network, r.below(world.keys.len()));
    let epoch = r.near(ledger.head().epoch);
    Some(match r.below(10) {
        0 => {
            let all: Vec<_> = world.blocks.iter().flat_map(|(b, _)| &b.body.transactions).collect();
            (*r.pick(&all)?).clone()
        }
        1 => Transaction::RoundOpen(world.open(v, next_seq(ledger, world, v, r), epoch).into_envelope()),
        2 => {
            // The result of the round opened last, honest or with some bytes changed and signed all the same.
            let seq = next_seq(ledger, world, v, r).saturating_sub(1);
            let result = world.result(v, &world.open(v, seq, epoch));
            let mut bytes = encode::encode(&result);
            r.damage(&mut bytes);
            world.sign_result(v, encode::decode::<RoundResult>("result", &bytes, 1 << 16).unwrap_or(result))
        }
        3 => world.ready(v, epoch),
        4 => {
            let d = world.hotkeys[v].delegate(&network, &world.keys[r.below(5)], r.number());
            Transaction::KeyDelegation(Box::new(d))
        }
        5 => order(world, ledger, r)?,
        6 => world.evidence(),
        7 => {
            // Any payload, signed.
            let pair = &world.keys[v];
            let payload = r.piece().to_vec();
            let domain = [
                encode::Domain::RoundOpen,
                encode::Domain::RoundResult,
                encode::Domain::RoundCommits,
                encode::Domain::RoundReveal,
                encode::Domain::RoundSkip,
                encode::Domain::CheckVerdict,
            ];
            let kind = r.below(6);
            let signature = pair.sign(&encode::signing_bytes(domain[kind], &network, &payload));
            let envelope = Envelope { signer: pair.public(), signature, payload };
            match kind {
                0 => Transaction::RoundOpen(envelope),
                1 => Transaction::RoundResult(envelope),
                2 => Transaction::RoundCommits(envelope),
                3 => Transaction::RoundReveal(envelope),
                4 => Transaction::RoundSkip(envelope),
                _ => Transaction::CheckVerdict(envelope),
            }
        }
        8 => {
            // What is waited for, a round beside it, and the true signature or a damaged one.
            let awaited = perturb_ledger::query::awaited_pulses(ledger.store()).unwrap();
            let round = r.near(awaited.first().copied().unwrap_or(1));
            let mut bytes = encode::encode(&Pulse::of_development(round).unwrap());
            r.damage(&mut bytes);
            Transaction::Pulse(encode::decode("pulse", &bytes, 64).ok()?)
        }
        9 => {
            // The commitments of the round opened last, honest or with some bytes changed.
            let open = world.open(v, next_seq(ledger, world, v, r).saturating_sub(1), epoch);
            let commits = world.commits(&open, &world.result(v, &open));
            let mut bytes = encode::encode(&commits);
            r.damage(&mut bytes);
            world.sign_commits(v, encode::decode::<RoundCommits>("commits", &bytes, 1 << 16).unwrap_or(commits))
        }
        _ => verdict(world, v, r)?,
    })
}

/// The owner's order, with some bytes changed before it is signed.
fn order(world: &World, ledger: &Ledger<MemoryStore>, r: &mut Reader<'_>) -> Option<Transaction> {
    let spec = || Box::new(world.genesis.challenges[0].clone());
    let mut added = spec();
    added.id.0 = u16::from(r.byte());
    let order = match r.below(7) {
        0 => Order::AddChallenge(added),
        1 => Order::UpdateChallenge(spec()),
        2 => Order::RemoveChallenge(added.id),
        3 => Order::SetRequiredVersion(1, 2, 3),
        4 => Order::SetParameters(Box::new(world.genesis.parameters.clone())),
        5 => Order::Revoke(r.number()),
        _ => Order::SetOwner(world.owner.hotkey()),
    };
    let mut bytes = encode::encode(&order);
    r.damage(&mut bytes);
    let order = encode::decode("order", &bytes, 1 << 16).unwrap_or(order);
    let nonce = perturb_ledger::query::meta(ledger.store()).unwrap().owner_nonce;
    let (nonce, effective) = (r.near(nonce), r.near(ledger.head().height.saturating_add(2)));
    let action = world.owner.order(&world.network, order, nonce, effective, r.near(100));
    Some(Transaction::OwnerAction(Box::new(action)))
}

/// A validator's verdict on a round of the world.
fn verdict(world: &World, v: usize, r: &mut Reader<'_>) -> Option<Transaction> {
    use perturb_ledger::verdict::{Checked, Finding};
    let all: Vec<_> = world.blocks.iter().flat_map(|(b, _)| &b.body.transactions).collect();
    let results: Vec<_> = all.iter().filter(|t| matches!(t, Transaction::RoundResult(_))).collect();
    let about = r.pick(&results)?;
    let Transaction::RoundResult(envelope) = about else { return None };
    let round = encode::decode::<RoundResult>("result", &envelope.payload, 1 << 20).ok()?.round;
    let verdict = match r.below(3) {
        0 => Checked::Holds,
        1 => Checked::Unknown,
        _ => Checked::Fails(Finding::ImageMissing),
    };
    Some(world.say(v, round, about.digest(&world.network), verdict))
}
