//! The protocol between validators and miners, in CBOR.

use perturb_ledger::{AgreedRows, Handover, StateStore, Trust, agreed};
use perturb_types::wire::{
    self, MAX_MINER_REQUEST_BYTES, MAX_MINER_RESPONSE_BYTES, MinerRequest, MinerResponse, WireRound,
};
use perturb_types::{RoundId, encode};

use crate::world::world;

/// CBOR has many byte strings for one value: what is read is read again from what is written.
fn again<T>(bytes: &[u8], limit: usize) -> Option<T>
where
    T: serde::Serialize + for<'de> serde::Deserialize<'de> + PartialEq,
{
    let value: T = wire::from_cbor("input", bytes, limit).ok()?;
    let written = wire::to_cbor("input", &value).unwrap();
    assert!(wire::from_cbor::<T>("input", &written, limit).unwrap() == value);
    Some(value)
}

fn round(round: &WireRound) {
    if let Ok(id) = RoundId::try_from(round) {
        assert!(WireRound::from(id) == *round);
    }
}

/// What is proved to a miner: nothing but what the state of a certified header has.
fn rows(id: &WireRound, bytes: &[u8], keys: impl Fn(&RoundId) -> [Vec<u8>; 2]) {
    round(id);
    let world = world();
    let trust = Trust::genesis(&world.genesis).unwrap();
    let Ok(rows) = encode::decode::<AgreedRows>("agreed rows", bytes, MAX_MINER_REQUEST_BYTES) else { return };
    let Ok(id) = RoundId::try_from(id) else { return };
    let keys: Vec<Vec<u8>> = keys(&id).into_iter().filter(|key| !key.is_empty()).collect();
    if rows.check(&keys, &trust).is_err() {
        return;
    }
    let height = usize::try_from(rows.header.height).unwrap();
    assert!(rows.header == world.blocks[height - 1].0.header, "a header that no quorum certified");
    for (proof, key) in rows.rows.iter().zip(&keys) {
        let store = &world.stores[height];
        assert!(proof.key == *key && proof.value == store.value(key).unwrap(), "a row that is not the state's");
    }
}

/// What a miner reads.
pub fn request(bytes: &[u8]) {
    match again::<MinerRequest>(bytes, MAX_MINER_REQUEST_BYTES) {
        Some(MinerRequest::Offer { round: id, agreed }) => rows(&id, &agreed, agreed::offer_keys),
        Some(MinerRequest::Handovers { handovers }) => {
            for bytes in &handovers {
                let _ = encode::decode::<Handover>("handover", bytes, bytes.len());
            }
        }
        Some(MinerRequest::Challenge(challenge)) => round(&challenge.round),
        Some(MinerRequest::Fetch { round: id, agreed }) => {
            rows(&id, &agreed, |round| [agreed::offer_keys(round)[0].clone(), Vec::new()]);
        }
        None => {}
    }
}

/// What a validator reads.
pub fn response(bytes: &[u8]) {
    match again::<MinerResponse>(bytes, MAX_MINER_RESPONSE_BYTES) {
        Some(MinerResponse::Announce { commit, signature }) => {
            assert!(wire::digest(&commit).is_ok() == (commit.len() == 32));
            assert!(wire::fixed::<64>("signature", &signature).is_ok() == (signature.len() == 64));
        }
        Some(MinerResponse::Image { png }) => assert!(png.len() <= MAX_MINER_RESPONSE_BYTES),
        Some(MinerResponse::Ready | MinerResponse::Need { .. } | MinerResponse::Declined { .. }) | None => {}
    }
}
