//! The handshake and the frames below everything.

use perturb_p2p::handshake::{MAX_MESSAGE_BYTES, Request, Response, Statement};
use perturb_p2p::{Protocol, frames};
use perturb_types::encode::Domain;

use super::canonical;
use crate::world::world;

/// Both sides' messages, and the statement that is signed.
pub fn handshake(bytes: &[u8]) {
    if let Some(Request::Prove(Some(proof))) = canonical::<Request>(bytes, MAX_MESSAGE_BYTES) {
        assert!(!proof.hotkey.verify(Domain::Handshake, &world().network, bytes, &proof.signature));
    }
    if let Some(Response::Refused { text, .. }) = canonical::<Response>(bytes, MAX_MESSAGE_BYTES) {
        assert!(text.len() <= MAX_MESSAGE_BYTES);
    }
    canonical::<Statement>(bytes, MAX_MESSAGE_BYTES);
}

/// The frame around a request and a response of each protocol.
pub fn frame(bytes: &[u8]) {
    for protocol in Protocol::ALL {
        if let Ok(request) = frames::read_request(protocol, bytes) {
            assert!(request.len() <= protocol.max_request_bytes());
            let written = frames::write_request(protocol, request).unwrap();
            assert!(bytes.starts_with(&written));
        }
        match frames::read_response(protocol, bytes) {
            Ok(Ok(response)) => {
                assert!(response.len() <= protocol.max_response_bytes());
                let written = frames::write_response(protocol, Ok(response)).unwrap();
                assert!(bytes.starts_with(&written));
            }
            Ok(Err(decline)) => assert!(bytes[0] != 0 && (decline as u8 == bytes[0] || bytes[0] > 7)),
            Err(_) => {}
        }
    }
}
