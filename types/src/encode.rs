//! Canonical encoding and domain-separated digests.
//!
//! `digest(domain, network, payload) = SHA-256( len(tag) as u8 ‖ tag ‖ network (32 bytes) ‖ payload )`
//! where `tag` is the domain's ASCII name. The same bytes before hashing, without the hash, are
//! what a signature covers ([`signing_bytes`]).

use borsh::{BorshDeserialize, BorshSerialize};
use sha2::{Digest as _, Sha256};

use crate::ids::{Digest, NetworkId};

/// What a digest or signature is for. The tag enters every hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A [`crate::round::RoundOpen`].
    RoundOpen,
    /// A [`crate::round::RoundResult`].
    RoundResult,
    /// A miner's signature over (round, clean digest, answer digest).
    Answer,
    /// The commitment to a round's secret transform.
    Transform,
    /// A hotkey's delegation to a consensus key.
    Delegation,
    /// A consensus key's acceptance of a delegation.
    DelegationAccept,
    /// A validator's statement that it is ready for the next epoch.
    Readiness,
    /// The owner's actions.
    OwnerAction,
    /// A transaction's digest.
    Transaction,
    /// A block header's digest.
    Header,
    /// What a transaction did.
    Receipt,
    /// A consensus vote.
    Vote,
    /// A consensus proposal.
    Proposal,
    /// A validator set's hash.
    ValidatorSet,
    /// A peer's handshake statement.
    Handshake,
    /// The genesis file.
    Genesis,
    /// Anything a validator tells the others outside blocks (status beacons).
    Status,
    /// The draw of the rounds that everybody checks again.
    SpotCheck,
    /// A validator's verdict on a drawn round.
    CheckVerdict,
    /// What a miner binds itself to before it shows its answer.
    AnswerCommit,
    /// A [`crate::round::RoundCommits`].
    RoundCommits,
    /// What a round key draws ([`crate::vrf::Draw`]).
    Lot,
    /// What follows from a drawn value: the numbers of a round's images.
    Drawn,
    /// What all draw with in an epoch.
    Seed,
    /// A [`crate::round::RoundReveal`].
    RoundReveal,
    /// A [`crate::round::RoundSkip`].
    RoundSkip,
}

impl Domain {
    /// Every domain.
    pub const ALL: [Self; 26] = [
        Self::RoundOpen,
        Self::RoundResult,
        Self::Answer,
        Self::Transform,
        Self::Delegation,
        Self::DelegationAccept,
        Self::Readiness,
        Self::OwnerAction,
        Self::Transaction,
        Self::Header,
        Self::Receipt,
        Self::Vote,
        Self::Proposal,
        Self::ValidatorSet,
        Self::Handshake,
        Self::Genesis,
        Self::Status,
        Self::SpotCheck,
        Self::CheckVerdict,
        Self::AnswerCommit,
        Self::RoundCommits,
        Self::Lot,
        Self::Drawn,
        Self::Seed,
        Self::RoundReveal,
        Self::RoundSkip,
    ];

    /// The ASCII tag that enters the hash.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::RoundOpen => "perturb/round-open/1",
            Self::RoundResult => "perturb/round-result/1",
            Self::Answer => "perturb/answer/1",
            Self::Transform => "perturb/transform/1",
            Self::Delegation => "perturb/delegation/1",
            Self::DelegationAccept => "perturb/delegation-accept/1",
            Self::Readiness => "perturb/readiness/1",
            Self::OwnerAction => "perturb/owner-action/1",
            Self::Transaction => "perturb/transaction/1",
            Self::Header => "perturb/header/1",
            Self::Receipt => "perturb/receipt/1",
            Self::Vote => "perturb/vote/1",
            Self::Proposal => "perturb/proposal/1",
            Self::ValidatorSet => "perturb/validator-set/1",
            Self::Handshake => "perturb/handshake/1",
            Self::Genesis => "perturb/genesis/1",
            Self::Status => "perturb/status/1",
            Self::SpotCheck => "perturb/spot-check/1",
            Self::CheckVerdict => "perturb/check-verdict/1",
            Self::AnswerCommit => "perturb/answer-commit/1",
            Self::RoundCommits => "perturb/round-commits/1",
            Self::Lot => "perturb/lot/1",
            Self::Drawn => "perturb/drawn/1",
            Self::Seed => "perturb/seed/1",
            Self::RoundReveal => "perturb/round-reveal/1",
            Self::RoundSkip => "perturb/round-skip/1",
        }
    }
}

/// Bytes that are not the canonical form of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the type may ever be.
    #[error("{what}: {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The type's name.
        what: &'static str,
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not a value of the type, or bytes left over.
    #[error("{what}: malformed: {why}")]
    Malformed {
        /// The type's name.
        what: &'static str,
        /// The decoder's complaint.
        why: String,
    },
}

/// The canonical bytes of a value.
///
/// Writing borsh into memory fails only for collections of over `u32::MAX` items, which the
/// limits of this crate exclude; such a value encodes as the empty string, which decodes as nothing.
pub fn encode<T: BorshSerialize + ?Sized>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).unwrap_or_default()
}

/// Reads the one value that `bytes` is the canonical form of.
///
/// # Errors
/// Too long, malformed, or surplus bytes.
pub fn decode<T: BorshDeserialize>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { what, size: bytes.len(), limit });
    }
    borsh::from_slice(bytes).map_err(|e| DecodeError::Malformed { what, why: e.to_string() })
}

/// The bytes that a signature in `domain` on `network` covers.
pub fn signing_bytes(domain: Domain, network: &NetworkId, payload: &[u8]) -> Vec<u8> {
    let tag = domain.tag().as_bytes();
    let mut out = Vec::with_capacity(1 + tag.len() + 32 + payload.len());
    out.push(tag.len() as u8);
    out.extend_from_slice(tag);
    out.extend_from_slice(&network.0);
    out.extend_from_slice(payload);
    out
}

/// SHA-256 of [`signing_bytes`], without building them.
pub fn digest(domain: Domain, network: &NetworkId, payload: &[u8]) -> Digest {
    let tag = domain.tag().as_bytes();
    let mut h = Sha256::new();
    h.update([tag.len() as u8]);
    h.update(tag);
    h.update(network.0);
    h.update(payload);
    Digest(h.finalize().into())
}

/// [`digest`] of a value's canonical bytes.
pub fn digest_of<T: BorshSerialize + ?Sized>(domain: Domain, network: &NetworkId, value: &T) -> Digest {
    digest(domain, network, &encode(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_digest_depends_on_domain_network_and_payload() {
        let (a, b) = (NetworkId([1; 32]), NetworkId([2; 32]));
        let d = digest(Domain::Vote, &a, b"x");
        assert_ne!(d, digest(Domain::Proposal, &a, b"x"));
        assert_ne!(d, digest(Domain::Vote, &b, b"x"));
        assert_ne!(d, digest(Domain::Vote, &a, b"y"));
        assert_eq!(d, Digest::of(&signing_bytes(Domain::Vote, &a, b"x")));
    }

    #[test]
    fn surplus_bytes_and_oversize_are_refused() {
        let mut bytes = encode(&7u32);
        assert_eq!(decode::<u32>("n", &bytes, 4), Ok(7));
        bytes.push(0);
        assert!(matches!(decode::<u32>("n", &bytes, 8), Err(DecodeError::Malformed { .. })));
        assert!(matches!(decode::<u32>("n", &bytes, 4), Err(DecodeError::TooLarge { size: 5, limit: 4, .. })));
    }

    proptest! {
        #[test]
        fn one_byte_string_per_value(v: (u8, u64, Vec<u8>, Option<u32>, String)) {
            let bytes = encode(&v);
            let back: (u8, u64, Vec<u8>, Option<u32>, String) = decode("v", &bytes, 1 << 20).unwrap();
            prop_assert_eq!(encode(&back), bytes);
        }
    }
}
