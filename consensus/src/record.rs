//! The write-ahead log's records.
//!
//! The log holds what the height in progress was decided *from*: every input that the engine asked
//! to keep, and the bodies this node validated or proposed. It is cleared by the commit of the
//! height. Replaying it must re-derive exactly what was signed.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode::{self, DecodeError};
use perturb_types::{ConsensusKey, Digest, limits};

use crate::wire::{Polka, SignedProposal, SignedVote};

/// Bytes of a record: a block and its frame.
pub const MAX_RECORD_BYTES: usize = limits::MAX_BLOCK_BYTES + 1024;

/// Which of the engine's waits a timeout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Wait {
    /// For a proposal.
    Propose = 0,
    /// For more prevotes.
    Prevote = 1,
    /// For more precommits.
    Precommit = 2,
    /// Until the last votes are sent again.
    Rebroadcast = 3,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A vote, this node's own or another's.
    Vote(SignedVote),
    /// A proposal.
    Proposal(SignedProposal),
    /// A timeout that elapsed.
    Timeout {
        /// Which.
        wait: Wait,
        /// Of which round.
        round: u32,
    },
    /// The verdict on a proposed value.
    Value {
        /// The round it was proposed in.
        round: u32,
        /// Who proposed it.
        proposer: ConsensusKey,
        /// The header's digest.
        digest: Digest,
        /// Whether it may be voted for.
        valid: bool,
    },
    /// A quorum of prevotes that came as one message.
    Polka(Polka),
    /// A block that was validated or proposed, as it was executed.
    Body(Vec<u8>),
    /// The first record of a height that is followed without voting, because signatures were lost.
    /// This node's own votes of that height may come back from the others and be logged: they do not
    /// make the log whole again.
    Following,
    /// When a proposal's first copy came; the proposal itself follows. Whether it was in time is decided
    /// by this, also after a restart.
    Arrived {
        /// Its round.
        round: u32,
        /// The header's digest.
        digest: Digest,
        /// Whether it names no valid round.
        fresh: bool,
        /// Unix milliseconds of this node's clock.
        at_ms: u64,
    },
}

impl Record {
    /// The bytes that are logged.
    pub fn encode(&self) -> Vec<u8> {
        encode::encode(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Too long or malformed: the log is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::decode("log record", bytes, MAX_RECORD_BYTES)
    }
}
