//! What validators and miners say to each other on `/perturb/challenge/1`, in CBOR.
//!
//! One exchange takes three requests on the same connection, always from the validator:
//!
//! 1. [`MinerRequest::Offer`] → [`MinerResponse::Ready`]: the round and the challenge's specification,
//!    proved as agreed. A miner that does not know the set yet says from where on it needs handovers
//!    ([`MinerResponse::Need`]), gets them ([`MinerRequest::Handovers`]), and is offered the round again.
//! 2. [`MinerRequest::Challenge`] → [`MinerResponse::Announce`]: the miner binds itself to an answer
//!    that it does not show. The clock stops when this arrives, so a big image or a thin line costs no
//!    score.
//! 3. [`MinerRequest::Fetch`] → [`MinerResponse::Image`]: the answer, on proof that the agreed state has
//!    the miner's commitment.
//!
//! Messages are CBOR maps with the field names below; enums are externally tagged; digests, keys
//! and signatures are byte strings.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::encode::DecodeError;
use crate::ids::{ChallengeId, Digest, Hotkey};
use crate::limits;
use crate::round::RoundId;

/// Encoded bytes of a request: a PNG and its frame, or proofs and handovers, which are smaller.
pub const MAX_MINER_REQUEST_BYTES: usize = limits::MAX_PNG_BYTES + 32 * 1024;

/// Encoded bytes of a response: a PNG and its frame.
pub const MAX_MINER_RESPONSE_BYTES: usize = limits::MAX_PNG_BYTES + RESPONSE_FRAME_BYTES;

/// Encoded bytes of a response besides its PNG: an announcement has a digest and a signature, a refusal
/// a text.
pub const RESPONSE_FRAME_BYTES: usize = 4096;

/// Characters of a text field (model name, reason) that are read.
pub const MAX_TEXT: usize = 256;

/// Handovers of one request: of 256 validators, each is some 40 kB.
pub const MAX_HANDOVERS: usize = 16;

/// Names a round on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireRound {
    /// The validator's hotkey, 32 bytes.
    #[serde(with = "serde_bytes")]
    pub validator: Vec<u8>,
    /// The challenge id.
    pub challenge: u16,
    /// The validator's running number.
    pub seq: u64,
}

impl From<RoundId> for WireRound {
    fn from(id: RoundId) -> Self {
        Self { validator: id.validator.0.to_vec(), challenge: id.challenge.0, seq: id.seq }
    }
}

impl TryFrom<&WireRound> for RoundId {
    type Error = DecodeError;
    fn try_from(w: &WireRound) -> Result<Self, DecodeError> {
        Ok(Self { validator: Hotkey(fixed("round", &w.validator)?), challenge: ChallengeId(w.challenge), seq: w.seq })
    }
}

/// A challenge: make this image fool the model. Model, rules and deadline are those of the specification
/// that the offer proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The round, which was offered before.
    pub round: WireRound,
    /// The clean image, 8-bit RGB PNG, with the digest that the opening names.
    #[serde(with = "serde_bytes")]
    pub image: Vec<u8>,
    /// The model's own label for it.
    pub label: u16,
}

/// What a validator asks of a miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinerRequest {
    /// Will you work for this round?
    Offer {
        /// The round.
        round: WireRound,
        /// borsh of `perturb_ledger::AgreedRows`: the open round's row and the challenge's.
        #[serde(with = "serde_bytes")]
        agreed: Vec<u8>,
    },
    /// Sets that followed one another: at most [`MAX_HANDOVERS`], borsh of `perturb_ledger::Handover`.
    Handovers {
        /// By rising height.
        handovers: Vec<ByteBuf>,
    },
    /// Attack an image, answer with a commitment.
    Challenge(Box<Challenge>),
    /// Show the answer.
    Fetch {
        /// The round.
        round: WireRound,
        /// borsh of `perturb_ledger::AgreedRows`: the open round's row, with the miner's commitment.
        #[serde(with = "serde_bytes")]
        agreed: Vec<u8>,
    },
}

/// What a miner says to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinerResponse {
    /// The round is agreed and will be worked for.
    Ready,
    /// The set that certifies it is not known here.
    Need {
        /// The height from which on handovers are needed.
        from: u64,
    },
    /// What the answer is bound to, signed by the miner's hotkey.
    Announce {
        /// [`crate::round::commitment`], 32 bytes.
        #[serde(with = "serde_bytes")]
        commit: Vec<u8>,
        /// sr25519 over [`crate::round::AnswerStatement`], 64 bytes.
        #[serde(with = "serde_bytes")]
        signature: Vec<u8>,
    },
    /// The image.
    Image {
        /// The PNG that the miner is bound to.
        #[serde(with = "serde_bytes")]
        png: Vec<u8>,
    },
    /// No answer, and why.
    Declined {
        /// One of [`Decline`].
        code: Decline,
        /// For people, at most [`MAX_TEXT`] characters are read.
        why: String,
    },
}

/// Why a miner gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    /// It does not have the model.
    UnknownModel,
    /// The image is not the agreed one, or the round is not this miner's.
    BadChallenge,
    /// Too many challenges at once.
    Busy,
    /// The attack found nothing in time.
    NotFound,
    /// It no longer holds (or never had) that answer.
    UnknownAnswer,
    /// Its own failure.
    Internal,
    /// The agreed state was not shown to have it, or too long ago.
    NotAgreed,
    /// Others could still hand the answer in: ask again when the round's deadline has passed.
    Early,
}

/// The fixed-length field behind a byte string.
///
/// # Errors
/// Another length.
pub fn fixed<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes
        .try_into()
        .map_err(|_| DecodeError::Malformed { what, why: format!("{} bytes where {N} belong", bytes.len()) })
}

/// The digest behind a byte string.
///
/// # Errors
/// Not 32 bytes.
pub fn digest(bytes: &[u8]) -> Result<Digest, DecodeError> {
    fixed("digest", bytes).map(Digest)
}

/// CBOR of a message.
///
/// # Errors
/// Never for the messages of this module; the encoder's word is passed on all the same.
pub fn to_cbor<T: Serialize>(what: &'static str, message: &T) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    ciborium::into_writer(message, &mut out).map_err(|e| DecodeError::Malformed { what, why: e.to_string() })?;
    Ok(out)
}

/// Reads a message of at most `limit` bytes; surplus bytes are refused.
///
/// # Errors
/// Too long, malformed, or bytes left over.
pub fn from_cbor<T: for<'de> Deserialize<'de>>(
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { what, size: bytes.len(), limit });
    }
    let mut rest = bytes;
    // Nesting is bounded: no message of ours is deeper than a handful of levels.
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 16)
        .map_err(|e| DecodeError::Malformed { what, why: e.to_string() })?;
    if !rest.is_empty() {
        return Err(DecodeError::Malformed { what, why: format!("{} surplus bytes", rest.len()) });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn challenge() -> MinerRequest {
        MinerRequest::Challenge(Box::new(Challenge {
            round: WireRound { validator: vec![1; 32], challenge: 0, seq: 7 },
            image: vec![3; 4],
            label: 5,
        }))
    }

    #[test]
    fn the_wire_form_of_a_challenge_is_pinned() {
        let bytes = to_cbor("challenge", &challenge()).unwrap();
        assert_eq!(hex::encode(&bytes), include_str!("../../fixtures/challenge.hex").trim());
        assert_eq!(from_cbor::<MinerRequest>("challenge", &bytes, 4096).unwrap(), challenge());
    }

    #[test]
    fn surplus_and_oversize_are_refused() {
        let mut bytes = to_cbor("challenge", &challenge()).unwrap();
        assert!(from_cbor::<MinerRequest>("challenge", &bytes, 10).is_err());
        bytes.push(0);
        assert!(from_cbor::<MinerRequest>("challenge", &bytes, 4096).is_err());
        assert!(from_cbor::<MinerRequest>("challenge", &[0x9f; 4000], 4096).is_err(), "deep nesting");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = from_cbor::<MinerRequest>("request", &bytes, 4096);
            let _ = from_cbor::<MinerResponse>("response", &bytes, 4096);
        }
    }
}
