//! Proofs: of rows, receipts, leaves, inclusions, handovers, and bundles of them.

use perturb_audit::anchors::posted;
use perturb_audit::bundle::{Bundle, Finding, Known, MAGIC, VERSION};
use perturb_audit::chain::Commitment;
use perturb_audit::{Verdict, verify};
use perturb_ledger::merkle::LeafProof;
use perturb_ledger::proofs::StateProof;
use perturb_ledger::{Anchor, AnchorKind, Handover, Inclusion, ReceiptProof, StateStore, Trust};
use perturb_types::{Digest, Hotkey};

use super::canonical;
use crate::world::{World, world};

/// A row's proof under the state of every height.
pub fn state_proof(bytes: &[u8]) {
    let Some(proof) = canonical::<StateProof>(bytes, 1 << 20) else { return };
    let world = world();
    for (height, store) in world.stores.iter().enumerate() {
        let root = store.block(height as u64).unwrap().0.header.state_root;
        if proof.verify(&root) {
            assert!(store.value(&proof.key).unwrap() == proof.value, "a proof of what height {height} does not have");
        }
    }
}

/// A receipt's proof under the results of every height.
pub fn receipt_proof(bytes: &[u8]) {
    let Some(proof) = canonical::<ReceiptProof>(bytes, 1 << 20) else { return };
    let (world, index) = (world(), proof.path.index as usize);
    for (height, store) in world.stores.iter().enumerate() {
        let root = store.block(height as u64).unwrap().0.header.results_root;
        if proof.verify(&world.network, &root) {
            assert!(store.receipts(height as u64).unwrap().get(index) == Some(&proof.receipt), "height {height}");
        }
    }
}

/// A leaf and its place under the transactions of every height.
pub fn leaf_proof(bytes: &[u8]) {
    let Some((proof, leaf)) = canonical::<(LeafProof, Digest)>(bytes, 1 << 20) else { return };
    let world = world();
    for (block, _) in &world.blocks {
        let transactions = &block.body.transactions;
        if proof.verify(&block.header.transactions_root, &leaf) {
            let found = transactions.get(proof.index as usize).map(|t| t.digest(&world.network));
            assert!(found == Some(leaf) && proof.count == transactions.len() as u64);
        }
    }
    assert!(!proof.verify(&leaf, &leaf));
}

fn trusts(world: &World) -> [Trust; 2] {
    let first = Trust::genesis(&world.genesis).unwrap();
    let mut second = first.clone();
    second.advance(&crate::seeds::handover(world, 3)).unwrap();
    [first, second]
}

/// A transaction in its block.
pub fn inclusion(bytes: &[u8]) {
    let Some(inclusion) = canonical::<Inclusion>(bytes, 1 << 22) else { return };
    let world = world();
    for trust in trusts(world) {
        if inclusion.verify(&trust).is_ok() {
            let (block, _) = &world.blocks[inclusion.header.height as usize - 1];
            let index = inclusion.path.index as usize;
            assert!(inclusion.header == block.header);
            assert!(block.body.transactions.get(index) == Some(&inclusion.transaction));
            let receipts = world.stores[inclusion.header.height as usize].receipts(inclusion.header.height).unwrap();
            assert!(receipts.get(index) == Some(&inclusion.receipt.receipt));
        }
    }
}

/// From one set to the next.
pub fn handover(bytes: &[u8]) {
    let Some(handover) = canonical::<Handover>(bytes, 1 << 20) else { return };
    let world = world();
    for mut trust in trusts(world) {
        let before = trust.clone();
        match trust.advance(&handover) {
            Ok(()) => {
                let height = handover.header.height as usize;
                assert!(handover.header == world.blocks[height - 1].0.header);
                assert!(trust.set() == world.ledger(height).validators() && trust.from() == height as u64 + 1);
            }
            Err(_) => assert!(trust == before, "a refused handover changes the trust"),
        }
    }
}

/// A bundle's file; and the same bytes as the body of one whose checksum fits.
pub fn bundle(bytes: &[u8]) {
    read(bytes);
    let body = bytes.strip_prefix(MAGIC.as_slice()).and_then(|b| b.get(2..b.len().checked_sub(32)?)).unwrap_or(bytes);
    let mut sealed = MAGIC.to_vec();
    sealed.extend_from_slice(&VERSION.to_le_bytes());
    sealed.extend_from_slice(body);
    let checksum = Digest::of(&sealed);
    sealed.extend_from_slice(&checksum.0);
    read(&sealed);
}

fn read(bytes: &[u8]) {
    let Ok(bundle) = Bundle::from_bytes(bytes) else { return };
    assert!(bundle.to_bytes() == bytes, "one bundle has two byte strings");
    let world = world();
    let point = (3, world.blocks[2].0.header.digest(&world.network));
    let known = Known { network: Some(world.network), point: Some(point) };
    let report = verify::run("input", bytes, &known);
    let Ok((history, finding)) = bundle.verify() else {
        assert!(report.verdict != Verdict::Ok);
        return;
    };
    if bundle.rests_on(&known, &history).is_err() {
        assert!(report.verdict != Verdict::Ok);
        return;
    }
    assert!(report.verdict == Verdict::Ok);
    let held = |header: &perturb_ledger::Header| world.blocks.iter().any(|(b, _)| b.header == *header);
    match finding {
        Finding::Root(checked) => assert!(held(&checked.header)),
        Finding::Score { header, .. } => assert!(held(&header.header)),
        Finding::Round(round) => {
            let (height, index) = round.opened;
            let block = &world.blocks[height as usize - 1].0;
            assert!(matches!(
                block.body.transactions.get(index as usize),
                Some(perturb_ledger::Transaction::RoundOpen(_))
            ));
        }
    }
}

/// The hotkey whose anchors are looked for.
pub const ANCHORING: Hotkey = Hotkey([6; 32]);

/// An anchor: whole, in a commitment, and in the extrinsic that made it. All that were found.
pub fn anchors(bytes: &[u8]) -> Vec<Anchor> {
    let whole = Anchor::from_bytes(bytes).ok();
    let commitment = Commitment::read(bytes).ok();
    let committed = commitment.as_ref().and_then(posted::in_commitment);
    let kinds = [AnchorKind::Commitment, AnchorKind::Remark];
    let extrinsics = kinds.iter().filter_map(|kind| posted::in_extrinsic(bytes, &ANCHORING, *kind, 2).ok());
    whole.into_iter().chain(committed).chain(extrinsics).collect()
}

/// What is found is there, and reads back.
pub fn anchor(bytes: &[u8]) {
    for anchor in anchors(bytes) {
        assert!(Anchor::from_bytes(&anchor.to_bytes()) == Ok(anchor), "an anchor does not read back");
        assert!(bytes.ends_with(&anchor.certificate.0), "each of the forms ends with the certificate");
    }
}
