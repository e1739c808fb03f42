//! The frames of requests and responses in memory: what the codec reads from and writes to a stream,
//! for tools and tests that have no stream.

use std::io;

use futures::executor::block_on;
use futures::io::Cursor;
use libp2p::request_response::Codec;

use crate::codec::{Ask, BytesCodec};
use crate::protocols::{Decline, Protocol};

/// Reads a request from the beginning of `bytes`.
///
/// # Errors
/// Cut short, or over the protocol's limit.
pub fn read_request(protocol: Protocol, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let read = block_on(BytesCodec::new(protocol).read_request(&protocol.stream(), &mut Cursor::new(bytes)));
    read.map(|request| request.data)
}

/// Reads a response from the beginning of `bytes`.
///
/// # Errors
/// Cut short, or over the protocol's limit.
pub fn read_response(protocol: Protocol, bytes: &[u8]) -> io::Result<Result<Vec<u8>, Decline>> {
    block_on(BytesCodec::new(protocol).read_response(&protocol.stream(), &mut Cursor::new(bytes)))
}

/// The bytes of a request.
///
/// # Errors
/// Over the protocol's limit.
pub fn write_request(protocol: Protocol, request: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut out = Cursor::new(Vec::new());
    let request = Ask::any(protocol, request);
    block_on(BytesCodec::new(protocol).write_request(&protocol.stream(), &mut out, request))?;
    Ok(out.into_inner())
}

/// The bytes of a response.
///
/// # Errors
/// Over the protocol's limit.
pub fn write_response(protocol: Protocol, answer: Result<Vec<u8>, Decline>) -> io::Result<Vec<u8>> {
    let mut out = Cursor::new(Vec::new());
    block_on(BytesCodec::new(protocol).write_response(&protocol.stream(), &mut out, answer))?;
    Ok(out.into_inner())
}
