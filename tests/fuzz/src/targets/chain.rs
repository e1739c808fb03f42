//! Envelopes, transactions, blocks, headers, certificates, sets.

use perturb_consensus::wire::{Beacon, MAX_CERTIFICATE_BYTES};
use perturb_ledger::tx::Readiness;
use perturb_ledger::verdict::CheckVerdict;
use perturb_ledger::{Block, Certificate, Header, LightError, Transaction, Trust, ValidatorSet};
use perturb_types::envelope::Payload;
use perturb_types::{Envelope, RoundCommits, RoundOpen, RoundResult, encode, limits};

use super::canonical;
use crate::world::world;

fn opens<T: Payload>(envelope: &Envelope, bytes: &[u8]) {
    let network = world().network;
    if let Ok(signed) = envelope.clone().open::<T>(&network) {
        assert!(signed.envelope() == envelope && signed.signer() == envelope.signer);
        assert!(encode::encode(&*signed) == envelope.payload, "the value is not the bytes that were verified");
        assert!(signed.digest() == encode::digest(T::DOMAIN, &network, &envelope.payload));
    }
    // A hostile signer signs whatever it likes.
    let pair = &world().keys[3];
    let signature = pair.sign(&encode::signing_bytes(T::DOMAIN, &network, bytes));
    let own = Envelope { signer: pair.public(), signature, payload: bytes.to_vec() };
    if let Ok(signed) = own.open::<T>(&network) {
        assert!(bytes.len() <= T::MAX_BYTES && encode::encode(&*signed) == bytes);
    }
}

/// An envelope, and the same bytes as the payload of one that verifies.
pub fn envelope(bytes: &[u8]) {
    let read = canonical::<Envelope>(bytes, limits::MAX_TRANSACTION_BYTES);
    let none = Envelope { signer: Default::default(), signature: [0; 64], payload: Vec::new() };
    let envelope = read.unwrap_or(none);
    let payload = if envelope.payload.is_empty() { bytes } else { &envelope.payload };
    opens::<RoundOpen>(&envelope, payload);
    opens::<RoundCommits>(&envelope, payload);
    opens::<RoundResult>(&envelope, payload);
    opens::<Readiness>(&envelope, payload);
    opens::<CheckVerdict>(&envelope, payload);
    opens::<Beacon>(&envelope, payload);
}

/// A transaction, tried on a state.
pub fn transaction(bytes: &[u8]) {
    let Ok(transaction) = Transaction::decode(bytes) else { return };
    assert!(encode::encode(&transaction) == bytes, "one transaction has two byte strings");
    assert!(!transaction.name().is_empty());
    let world = world();
    for height in [0, 2, 3] {
        let ledger = world.ledger(height);
        if ledger.check_transaction(&transaction).is_ok() {
            // What is taken can be proposed.
            let input = world.input(&ledger, vec![transaction.clone()], None);
            let (block, _) = ledger.propose(input).unwrap();
            assert!(block.body.transactions == std::slice::from_ref(&transaction));
        }
    }
}

/// A block, checked on the height before its own.
pub fn block(bytes: &[u8]) {
    let Ok(block) = Block::decode(bytes) else { return };
    assert!(encode::encode(&block) == bytes, "one block has two byte strings");
    let world = world();
    let (reference, _) = block.chain_claims();
    assert!(*reference == block.header.reference);
    let whole = block.is_whole(&world.network);
    let digest = block.header.digest(&world.network);
    if let Some((known, _)) = world.blocks.iter().find(|(b, _)| b.header.digest(&world.network) == digest) {
        assert!(!whole || *known == block, "another body under a certified header");
    }
    let Some(parent) = block.header.height.checked_sub(1).filter(|p| *p < world.blocks.len() as u64) else { return };
    let ledger = world.ledger(parent as usize);
    if let Ok(executed) = ledger.check(&block) {
        assert!(whole && executed.digest() == digest && *executed.block() == block);
        assert!(executed.receipts().len() == block.body.transactions.len());
    }
    assert!(ledger.head().height == parent);
}

/// A header under the certificates of the world.
pub fn header(bytes: &[u8]) {
    let Some(header) = canonical::<Header>(bytes, 4096) else { return };
    let world = world();
    let trust = Trust::genesis(&world.genesis).unwrap();
    for (block, certificate) in &world.blocks[..3] {
        match trust.check(&header, certificate) {
            Ok(power) => assert!(power > 0 && header == block.header, "another header passes"),
            Err(e) => assert!(header != block.header, "{e}"),
        }
    }
    let next = ValidatorSet::new(trust.set().iter().cloned().collect()).unwrap();
    let point = (header.height, header.digest(&world.network));
    match Trust::header(world.network, point, &header, next) {
        Ok(trust) => assert!(trust.from() == header.height.saturating_add(1)),
        Err(LightError::Anchor { .. }) => panic!("the header is the trusted one"),
        Err(_) => {}
    }
}

/// A certificate, verified under every set.
pub fn certificate(bytes: &[u8]) {
    let Some(certificate) = canonical::<Certificate>(bytes, MAX_CERTIFICATE_BYTES) else { return };
    let world = world();
    for height in [0, 3, 5] {
        let ledger = world.ledger(height);
        let set = ledger.validators();
        let Ok(power) = certificate.verify(&world.network, set) else { continue };
        assert!(set.is_quorum(power) && power <= set.total());
        let known = world.blocks.iter().find(|(b, _)| b.header.height == certificate.height);
        let (block, true_one) = known.expect("no such height was certified");
        assert!(certificate.digest == block.header.digest(&world.network), "another block is certified");
        assert!(certificate.round == true_one.round);
    }
}

/// A validator set.
pub fn set(bytes: &[u8]) {
    let Some(set) = canonical::<ValidatorSet>(bytes, 1 << 20) else { return };
    let hash = set.hash(&world().network);
    if set.validate().is_ok() {
        let total = set.total();
        assert!(set.is_quorum(total) && !set.is_quorum(total / 3));
        assert!(set.iter().all(|v| set.by_key(&v.key) == Some(v) && set.by_hotkey(&v.hotkey) == Some(v)));
        let again = ValidatorSet::new(set.iter().rev().cloned().collect()).unwrap();
        assert!(again == set && again.hash(&world().network) == hash);
    }
}
