//! What validators say to each other, and their logs.

use perturb_consensus::record::{MAX_RECORD_BYTES, Record};
use perturb_consensus::wire::{Beacon, Gossip, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Request, Response, Topic};
use perturb_ledger::snapshot;
use perturb_types::{Envelope, encode};

use super::canonical;
use crate::seeds;
use crate::world::world;

/// Votes, proposals and the engine's certificates.
pub fn gossip(bytes: &[u8]) {
    let Ok(message) = Gossip::decode(bytes) else { return };
    assert!(encode::encode(&message) == bytes, "one message has two byte strings");
    let network = world().network;
    let verified = match &message {
        Gossip::Vote(vote) => vote.verify(&network).then_some((vote.height, vote.voter)),
        Gossip::Proposal(proposal) => proposal.verify(&network).then_some((proposal.height, proposal.proposer)),
        Gossip::Polka(_) | Gossip::Round(_) => None,
    };
    let Some((height, key)) = verified else { return };
    assert!(height == message.height());
    // Nobody of the world signed anything else.
    let ours = world().keys.iter().any(|k| k.public() == key);
    assert!(!ours || seeds::gossip().contains(&message), "a message that nobody signed verifies");
}

/// Requests for blocks, and their answers.
pub fn sync(bytes: &[u8]) {
    canonical::<Request>(bytes, MAX_REQUEST_BYTES);
    canonical::<snapshot::Request>(bytes, snapshot::MAX_REQUEST_BYTES);
    canonical::<snapshot::Offer>(bytes, snapshot::MAX_OFFER_BYTES);
    if let Some(Response::Blocks(blocks)) = canonical::<Response>(bytes, MAX_RESPONSE_BYTES) {
        let Response::Blocks(range) = Response::range(blocks.clone()) else { panic!("a range is a range") };
        assert!(blocks.starts_with(&range));
        assert!(encode::encode(&Response::Blocks(range)).len() <= MAX_RESPONSE_BYTES);
    }
}

/// How far a node is.
pub fn beacon(bytes: &[u8]) {
    let Some(envelope) = canonical::<Envelope>(bytes, Topic::Status.max_bytes()) else { return };
    if let Ok(signed) = envelope.open::<Beacon>(&world().network)
        && world().keys.iter().any(|k| k.public() == signed.signer())
    {
        assert!(seeds::beacons().contains(&signed), "a beacon that nobody signed verifies");
    }
}

/// A record of the consensus log.
pub fn log_record(bytes: &[u8]) {
    let Ok(record) = Record::decode(bytes) else { return };
    assert!(bytes.len() <= MAX_RECORD_BYTES && record.encode() == bytes, "one record has two byte strings");
}
