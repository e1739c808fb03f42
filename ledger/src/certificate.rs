//! Commit certificates: the precommits that decided a height.
//!
//! A vote signs `signing_bytes(Vote, network, borsh(kind u8, height u64, round u32, option digest))`;
//! so anyone with the set can check a certificate without the engine.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode::{self, Domain};
use perturb_types::keys::verify_ed25519;
use perturb_types::{ConsensusKey, Digest, NetworkId, limits};

use crate::validators::ValidatorSet;

/// The two votes of a round; the wire value is the discriminant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum VoteKind {
    /// "I saw a valid proposal."
    Prevote = 1,
    /// "I saw a quorum of prevotes."
    Precommit = 2,
}

/// The bytes that a vote's ed25519 signature covers.
pub fn vote_sign_bytes(
    network: &NetworkId,
    kind: VoteKind,
    height: u64,
    round: u32,
    digest: Option<Digest>,
) -> Vec<u8> {
    encode::signing_bytes(Domain::Vote, network, &encode::encode(&(kind, height, round, digest)))
}

/// The bytes that a proposal's ed25519 signature covers; `pol_round` is the round of the quorum of
/// prevotes that justifies proposing an old value again.
pub fn proposal_sign_bytes(
    network: &NetworkId,
    height: u64,
    round: u32,
    digest: Digest,
    pol_round: Option<u32>,
) -> Vec<u8> {
    encode::signing_bytes(Domain::Proposal, network, &encode::encode(&(height, round, digest, pol_round)))
}

/// Precommits of more than two thirds of the power for one block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// The height.
    pub height: u64,
    /// The round it was decided in.
    pub round: u32,
    /// The header's digest.
    pub digest: Digest,
    /// Signers and signatures, by rising key.
    pub signatures: Vec<(ConsensusKey, [u8; 64])>,
}

/// Why a certificate certifies nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// More signatures than a set has members.
    #[error("certificate of height {height}: {count} signatures, at most {limit} are allowed", limit = limits::MAX_VALIDATORS)]
    TooMany {
        /// The height.
        height: u64,
        /// How many.
        count: usize,
    },
    /// Signers out of order or twice.
    #[error("certificate of height {height}: signer {signer} is out of order or there twice")]
    Order {
        /// The height.
        height: u64,
        /// The signer.
        signer: ConsensusKey,
    },
    /// A signer that is no member.
    #[error("certificate of height {height}: {signer} is not in the set")]
    Stranger {
        /// The height.
        height: u64,
        /// The signer.
        signer: ConsensusKey,
    },
    /// A signature that does not verify.
    #[error("certificate of height {height}: the signature of {signer} does not verify")]
    BadSignature {
        /// The height.
        height: u64,
        /// The signer.
        signer: ConsensusKey,
    },
    /// Too little power.
    #[error("certificate of height {height}: power {signed} of {total} is no quorum")]
    NoQuorum {
        /// The height.
        height: u64,
        /// Power that signed.
        signed: u64,
        /// The set's power.
        total: u64,
    },
}

impl Certificate {
    /// A certificate; the signatures are put into order.
    pub fn new(height: u64, round: u32, digest: Digest, mut signatures: Vec<(ConsensusKey, [u8; 64])>) -> Self {
        signatures.sort_unstable();
        signatures.dedup_by_key(|s| s.0);
        Self { height, round, digest, signatures }
    }

    /// Checks every signature and the quorum; returns the power that signed.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn verify(&self, network: &NetworkId, set: &ValidatorSet) -> Result<u64, CertificateError> {
        let height = self.height;
        if self.signatures.len() > limits::MAX_VALIDATORS {
            return Err(CertificateError::TooMany { height, count: self.signatures.len() });
        }
        if let Some(w) = self.signatures.windows(2).find(|w| w[0].0 >= w[1].0) {
            return Err(CertificateError::Order { height, signer: w[1].0 });
        }
        let bytes = vote_sign_bytes(network, VoteKind::Precommit, height, self.round, Some(self.digest));
        let mut signed = 0u64;
        for (signer, signature) in &self.signatures {
            let power = set.power(signer).ok_or(CertificateError::Stranger { height, signer: *signer })?;
            if !verify_ed25519(signer, &bytes, signature) {
                return Err(CertificateError::BadSignature { height, signer: *signer });
            }
            signed = signed.saturating_add(power);
        }
        let total = set.total();
        if !set.is_quorum(signed) {
            return Err(CertificateError::NoQuorum { height, signed, total });
        }
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::validators::Validator;
    use perturb_types::{ConsensusPair, Hotkey};

    const NET: NetworkId = NetworkId([4; 32]);

    fn pairs() -> Vec<ConsensusPair> {
        (1..=4).map(|i| ConsensusPair::from_seed(&[i; 32])).collect()
    }

    fn set() -> ValidatorSet {
        let member =
            |(i, p): (usize, &ConsensusPair)| Validator { hotkey: Hotkey([i as u8; 32]), key: p.public(), power: 1 };
        ValidatorSet::new(pairs().iter().enumerate().map(member).collect()).unwrap()
    }

    fn certificate(signers: &[usize]) -> Certificate {
        let digest = Digest([7; 32]);
        let bytes = vote_sign_bytes(&NET, VoteKind::Precommit, 5, 1, Some(digest));
        let all = pairs();
        Certificate::new(5, 1, digest, signers.iter().map(|i| (all[*i].public(), all[*i].sign(&bytes))).collect())
    }

    #[test]
    fn three_of_four_certify_and_two_do_not() {
        assert_eq!(certificate(&[0, 1, 2]).verify(&NET, &set()), Ok(3));
        assert!(matches!(
            certificate(&[0, 1]).verify(&NET, &set()),
            Err(CertificateError::NoQuorum { signed: 2, total: 4, .. })
        ));
    }

    #[test]
    fn a_repeated_strange_or_forged_signature_is_refused() {
        let mut twice = certificate(&[0, 1, 2]);
        twice.signatures.push(twice.signatures[2]);
        assert!(matches!(twice.verify(&NET, &set()), Err(CertificateError::Order { .. })));
        let mut forged = certificate(&[0, 1, 2]);
        forged.signatures[1].1[3] ^= 1;
        assert!(matches!(forged.verify(&NET, &set()), Err(CertificateError::BadSignature { .. })));
        let mut stranger = certificate(&[0, 1, 2]);
        stranger.signatures[0].0 = ConsensusKey([0; 32]);
        assert!(matches!(stranger.verify(&NET, &set()), Err(CertificateError::Stranger { .. })));
        let mut other = certificate(&[0, 1, 2]);
        other.round = 2;
        assert!(matches!(other.verify(&NET, &set()), Err(CertificateError::BadSignature { .. })));
        assert!(certificate(&[0, 1, 2]).verify(&NetworkId([5; 32]), &set()).is_err());
    }

    #[test]
    fn the_bytes_a_vote_signs_are_pinned() {
        let bytes = vote_sign_bytes(&NetworkId([1; 32]), VoteKind::Precommit, 2, 3, Some(Digest([4; 32])));
        let expected = [
            "0e".to_owned(),
            hex::encode("perturb/vote/1"),
            "01".repeat(32),
            "02".into(),
            "0200000000000000".into(),
            "03000000".into(),
            "01".into(),
            "04".repeat(32),
        ];
        assert_eq!(hex::encode(bytes), expected.concat());
    }
}
