//! Topics and protocols: names, directions, sizes, times, and the frame around every message.
//!
//! A gossip topic is called `/perturb/<network id in hex>/<topic>/1`: two networks never share
//! one. A protocol id carries its version, the network is checked in the handshake.
//!
//! A request is `length (u32, big endian) ‖ bytes`; a response is
//! `status (u8) ‖ length (u32, big endian) ‖ bytes`. A status other than 0 is a [`Decline`] and
//! comes with length 0. After its one message the sender closes its half of the stream.

use std::fmt;
use std::time::Duration;

use libp2p::StreamProtocol;
use libp2p::gossipsub::{IdentTopic, TopicHash};
use perturb_types::{NetworkId, limits, wire};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bytes around a payload that its own limit does not count: keys, signatures, digests.
const ENVELOPE_BYTES: usize = 4 * KIB;

/// A gossip topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Votes and proposals.
    Consensus,
    /// Block bodies.
    Blocks,
    /// Round openings, round results and other transactions.
    Rounds,
    /// Beacons of liveness and height.
    Status,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 4] = [Self::Consensus, Self::Blocks, Self::Rounds, Self::Status];

    /// The topic's part of the name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Blocks => "blocks",
            Self::Rounds => "rounds",
            Self::Status => "status",
        }
    }

    /// The full name on a network.
    pub fn name(self, network: &NetworkId) -> String {
        format!("/perturb/{network}/{}/1", self.label())
    }

    /// Bytes of one message.
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Consensus => limits::MAX_CONSENSUS_MESSAGE_BYTES + ENVELOPE_BYTES,
            Self::Blocks => limits::MAX_BLOCK_BYTES + 64 * KIB,
            Self::Rounds => limits::MAX_TRANSACTION_BYTES + ENVELOPE_BYTES,
            // A beacon is a height, a few digests and a version.
            Self::Status => 8 * KIB,
        }
    }

    /// Whether only authenticated validators may author messages here.
    pub const fn validators_only(self) -> bool {
        !matches!(self, Self::Status)
    }

    pub(crate) fn ident(self, network: &NetworkId) -> IdentTopic {
        IdentTopic::new(self.name(network))
    }

    pub(crate) fn of_hash(hash: &TopicHash, network: &NetworkId) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.ident(network).hash() == *hash)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A request-response protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Proof of the hotkey; spoken by this crate alone.
    Handshake,
    /// A validator challenges a miner.
    Challenge,
    /// Blocks: by range, and the body of one in progress.
    Sync,
    /// Images of a round.
    Blob,
    /// Snapshots of the state, part by part.
    Snapshot,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 5] = [Self::Handshake, Self::Challenge, Self::Sync, Self::Blob, Self::Snapshot];

    /// The protocol id on the wire.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Handshake => "/perturb/handshake/1",
            Self::Challenge => "/perturb/challenge/1",
            Self::Sync => "/perturb/sync/1",
            Self::Blob => "/perturb/blob/1",
            Self::Snapshot => "/perturb/snapshot/1",
        }
    }

    /// Bytes of a request.
    pub const fn max_request_bytes(self) -> usize {
        match self {
            Self::Handshake => crate::handshake::MAX_MESSAGE_BYTES,
            Self::Challenge => wire::MAX_MINER_REQUEST_BYTES,
            // Heights, digests and chunk indices: never payload.
            Self::Sync | Self::Blob | Self::Snapshot => 4 * KIB,
        }
    }

    /// Bytes of a response.
    pub const fn max_response_bytes(self) -> usize {
        match self {
            Self::Handshake => crate::handshake::MAX_MESSAGE_BYTES,
            Self::Challenge => wire::MAX_MINER_RESPONSE_BYTES,
            // One full block with its certificate always fits, and as many small ones as fit.
            Self::Sync => limits::MAX_BLOCK_BYTES + 2 * MIB,
            Self::Blob => limits::MAX_PNG_BYTES + 64 * KIB,
            // A block with its receipts, the largest part.
            Self::Snapshot => 2 * limits::MAX_BLOCK_BYTES + 64 * KIB,
        }
    }

    /// The longest a request may stay unanswered. A miner computes; the others only look up.
    pub const fn timeout(self) -> Duration {
        match self {
            Self::Handshake => Duration::from_secs(10),
            Self::Challenge => Duration::from_secs(120),
            Self::Sync | Self::Blob | Self::Snapshot => Duration::from_secs(30),
        }
    }

    /// Streams open at once on one connection: bounds the memory one peer can hold, streams
    /// times the larger of the two limits.
    pub const fn max_streams(self) -> usize {
        match self {
            Self::Handshake => 4,
            Self::Challenge | Self::Blob => 8,
            Self::Sync | Self::Snapshot => 4,
        }
    }

    /// Requests per second that one peer may make, and the burst on top; the same limit holds
    /// for what this node sends.
    pub const fn rate(self) -> (u32, u32) {
        match self {
            // Two requests make a handshake.
            Self::Handshake => (2, 8),
            // Three requests make an exchange, some more where sets are followed; several rounds may run at once.
            Self::Challenge => (20, 40),
            Self::Sync => (10, 20),
            Self::Blob => (10, 40),
            Self::Snapshot => (20, 40),
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Handshake => 0,
            Self::Challenge => 1,
            Self::Sync => 2,
            Self::Blob => 3,
            Self::Snapshot => 4,
        }
    }

    pub(crate) const fn stream(self) -> StreamProtocol {
        StreamProtocol::new(self.id())
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// Why a peer gives no answer; the number is the status byte of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Decline {
    /// No session, or a role that may not ask this.
    #[error("not authorised to ask this")]
    NotAuthorised = 1,
    /// Too many requests in too short a time.
    #[error("rate limited")]
    RateLimited = 2,
    /// The answering node has too much to do.
    #[error("busy")]
    Busy = 3,
    /// It does not have what was asked for.
    #[error("not found")]
    NotFound = 4,
    /// The request cannot be read.
    #[error("malformed request")]
    Malformed = 5,
    /// The answer would be over the protocol's limit.
    #[error("the answer is too large")]
    TooLarge = 6,
    /// Its own failure.
    #[error("internal failure")]
    Internal = 7,
    /// A code this version does not know.
    #[error("declined for a reason this version does not know")]
    Unknown = 255,
}

impl Decline {
    /// The code of a status byte; `None` for 0, which is success.
    pub const fn from_status(status: u8) -> Option<Self> {
        Some(match status {
            0 => return None,
            1 => Self::NotAuthorised,
            2 => Self::RateLimited,
            3 => Self::Busy,
            4 => Self::NotFound,
            5 => Self::Malformed,
            6 => Self::TooLarge,
            7 => Self::Internal,
            _ => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn topics_of_two_networks_never_meet() {
        let (a, b) = (NetworkId([1; 32]), NetworkId([2; 32]));
        for topic in Topic::ALL {
            assert_eq!(Topic::of_hash(&topic.ident(&a).hash(), &a), Some(topic));
            assert_eq!(Topic::of_hash(&topic.ident(&a).hash(), &b), None);
        }
        assert_eq!(
            Topic::Rounds.name(&a),
            "/perturb/0101010101010101010101010101010101010101010101010101010101010101/rounds/1"
        );
    }

    #[test]
    fn every_status_byte_is_success_or_a_named_reason() {
        assert_eq!(Decline::from_status(0), None);
        for status in 1..=7u8 {
            assert_eq!(Decline::from_status(status).unwrap() as u8, status);
        }
        assert_eq!(Decline::from_status(99), Some(Decline::Unknown));
    }
}
