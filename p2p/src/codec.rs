//! The length-limited frame of requests and responses; see [`crate::protocols`] for its bytes.
//!
//! A length over the protocol's limit is refused before anything is read, and memory grows only
//! with the bytes that really arrive, so that a claimed length costs the reader nothing.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

use crate::protocols::{Decline, Protocol};

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// An answer: bytes, or the reason why there are none.
pub(crate) type Answer = Result<Vec<u8>, Decline>;

/// A request, and the most bytes that its asker takes as an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) data: Vec<u8>,
    pub(crate) answer_bytes: usize,
}

impl Ask {
    /// A request for anything that the protocol allows.
    pub(crate) const fn any(protocol: Protocol, data: Vec<u8>) -> Self {
        Self { data, answer_bytes: protocol.max_response_bytes() }
    }
}

/// Frames bytes of one protocol. The engine writes a request and reads its answer with one clone of it,
/// which is how the asker's own bound gets to the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BytesCodec {
    protocol: Protocol,
    answer_bytes: usize,
}

impl BytesCodec {
    pub(crate) const fn new(protocol: Protocol) -> Self {
        Self { protocol, answer_bytes: protocol.max_response_bytes() }
    }
}

fn too_large(what: &str, size: usize, limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {size} bytes, at most {limit} are allowed"))
}

async fn read_frame<T: AsyncRead + Unpin + Send>(io: &mut T, what: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut length = [0u8; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(too_large(what, length, limit));
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let start = bytes.len();
        bytes.resize(start + CHUNK.min(length - start), 0);
        io.read_exact(&mut bytes[start..]).await?;
    }
    Ok(bytes)
}

async fn write_frame<T: AsyncWrite + Unpin + Send>(
    io: &mut T,
    what: &str,
    limit: usize,
    bytes: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= limit);
    let Some(length) = length else { return Err(too_large(what, bytes.len(), limit)) };
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(bytes).await?;
    io.close().await
}

impl Codec for BytesCodec {
    type Protocol = StreamProtocol;
    type Request = Ask;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Ask>
    where
        T: AsyncRead + Unpin + Send,
    {
        let data = read_frame(io, self.protocol.id(), self.protocol.max_request_bytes()).await?;
        Ok(Ask::any(self.protocol, data))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut status = [0u8; 1];
        io.read_exact(&mut status).await?;
        match Decline::from_status(status[0]) {
            None => read_frame(io, self.protocol.id(), self.answer_bytes).await.map(Ok),
            Some(decline) => Ok(Err(decline)),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Ask) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.answer_bytes = request.answer_bytes.min(self.protocol.max_response_bytes());
        write_frame(io, self.protocol.id(), self.protocol.max_request_bytes(), &request.data).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Answer) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let (status, bytes) = match answer {
            Ok(bytes) => (0, bytes),
            Err(decline) => (decline as u8, Vec::new()),
        };
        io.write_all(&[status]).await?;
        write_frame(io, self.protocol.id(), self.protocol.max_response_bytes(), &bytes).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;
    use proptest::prelude::*;

    const CODEC: BytesCodec = BytesCodec::new(Protocol::Snapshot);

    fn ask(data: Vec<u8>) -> Ask {
        Ask { data, answer_bytes: usize::MAX }
    }

    fn stream() -> StreamProtocol {
        Protocol::Snapshot.stream()
    }

    #[test]
    fn the_frames_are_pinned() {
        let mut out = Cursor::new(Vec::new());
        block_on(CODEC.clone().write_request(&stream(), &mut out, ask(b"abc".to_vec()))).unwrap();
        assert_eq!(hex::encode(out.into_inner()), "00000003616263");
        let mut out = Cursor::new(Vec::new());
        block_on(CODEC.clone().write_response(&stream(), &mut out, Ok(b"abc".to_vec()))).unwrap();
        assert_eq!(hex::encode(out.into_inner()), "0000000003616263");
        let mut out = Cursor::new(Vec::new());
        block_on(CODEC.clone().write_response(&stream(), &mut out, Err(Decline::NotFound))).unwrap();
        assert_eq!(hex::encode(out.into_inner()), "0400000000");
    }

    #[test]
    fn an_oversize_length_is_refused_before_its_bytes_are_read() {
        let claimed = (Protocol::Snapshot.max_request_bytes() as u32 + 1).to_be_bytes().to_vec();
        let e = block_on(CODEC.clone().read_request(&stream(), &mut Cursor::new(claimed))).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        let big = vec![0; Protocol::Snapshot.max_request_bytes() + 1];
        let e = block_on(CODEC.clone().write_request(&stream(), &mut Cursor::new(Vec::new()), ask(big))).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_answer_over_the_askers_bound_is_refused_before_its_bytes_are_read() {
        let read = |answer_bytes, answer: Vec<u8>| {
            let (mut codec, mut sent) = (CODEC, Cursor::new(Vec::new()));
            let request = Ask { data: vec![1], answer_bytes };
            block_on(codec.write_request(&stream(), &mut Cursor::new(Vec::new()), request)).unwrap();
            block_on(CODEC.clone().write_response(&stream(), &mut sent, Ok(answer))).unwrap();
            let mut sent = Cursor::new(sent.into_inner());
            let read = block_on(codec.read_response(&stream(), &mut sent));
            (read.map_err(|e| e.kind()), sent.position())
        };
        assert_eq!(read(100, vec![7; 100]), (Ok(Ok(vec![7; 100])), 105));
        assert_eq!(read(99, vec![7; 100]), (Err(io::ErrorKind::InvalidData), 5), "status and length alone");
        let limit = Protocol::Snapshot.max_response_bytes();
        assert!(read(usize::MAX, vec![7; limit]).0.is_ok(), "never more than the protocol's");
    }

    #[test]
    fn a_truncated_message_is_an_error() {
        let short = vec![0, 0, 0, 9, 1, 2];
        let e = block_on(CODEC.clone().read_request(&stream(), &mut Cursor::new(short))).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_as_written(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut out = Cursor::new(Vec::new());
            block_on(CODEC.clone().write_response(&stream(), &mut out, Ok(bytes.clone()))).unwrap();
            let back = block_on(CODEC.clone().read_response(&stream(), &mut Cursor::new(out.into_inner()))).unwrap();
            prop_assert_eq!(back, Ok(bytes));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = block_on(CODEC.clone().read_request(&stream(), &mut Cursor::new(bytes.clone())));
            let _ = block_on(CODEC.clone().read_response(&stream(), &mut Cursor::new(bytes)));
        }
    }
}
