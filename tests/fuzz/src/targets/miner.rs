//! The protocol between validators and miners, in CBOR.

use perturb_challenge::Rules;
use perturb_types::wire::{
    self, MAX_MINER_REQUEST_BYTES, MAX_MINER_RESPONSE_BYTES, MinerRequest, MinerResponse, WireRound,
};
use perturb_types::{Envelope, RoundId, RoundOpen, encode, limits};

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

/// What a miner reads.
pub fn request(bytes: &[u8]) {
    match again::<MinerRequest>(bytes, MAX_MINER_REQUEST_BYTES) {
        Some(MinerRequest::Challenge(challenge)) => {
            round(&challenge.round);
            let _ = wire::digest(&challenge.model_digest);
            if let Some(rules) = Rules::from_wire(&challenge.rules)
                && rules.validate().is_ok()
            {
                let _ = rules.to_wire(7);
            }
            let envelope = encode::decode::<Envelope>("opening", &challenge.open, limits::MAX_ROUND_OPEN_BYTES + 128);
            if let Ok(envelope) = envelope {
                let _ = envelope.open::<RoundOpen>(&world().network);
            }
        }
        Some(MinerRequest::Fetch { round: id, answer }) => {
            round(&id);
            assert!(wire::digest(&answer).is_ok() == (answer.len() == 32));
        }
        None => {}
    }
}

/// What a validator reads.
pub fn response(bytes: &[u8]) {
    match again::<MinerResponse>(bytes, MAX_MINER_RESPONSE_BYTES) {
        Some(MinerResponse::Announce { answer, signature }) => {
            assert!(wire::digest(&answer).is_ok() == (answer.len() == 32));
            assert!(wire::fixed::<64>("signature", &signature).is_ok() == (signature.len() == 64));
        }
        Some(MinerResponse::Image { png }) => assert!(png.len() <= MAX_MINER_RESPONSE_BYTES),
        Some(MinerResponse::Declined { .. }) | None => {}
    }
}
