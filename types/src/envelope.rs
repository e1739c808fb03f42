//! Signed envelopes: what is verified is what is used.
//!
//! On the wire an envelope is `signer (32) ‖ signature (64) ‖ payload (u32 length, bytes)`. The
//! ed25519 signature covers [`encode::signing_bytes`] of the payload's domain, the network and
//! the payload bytes as they came. [`Signed`] can be had in two ways only, by signing or by
//! [`Envelope::open`], and its value is decoded from the bytes that were verified.

use std::ops::Deref;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::encode::{self, DecodeError, Domain};
use crate::ids::{ConsensusKey, Digest, NetworkId};
use crate::keys::{ConsensusPair, verify_ed25519};

/// A type that travels signed.
pub trait Payload: BorshSerialize + BorshDeserialize {
    /// What the signature is for.
    const DOMAIN: Domain;
    /// Its name in errors.
    const NAME: &'static str;
    /// The most bytes its canonical form may have.
    const MAX_BYTES: usize;
}

/// Why an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The payload is not a canonical value of the type.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The signature does not belong to these bytes, this key, this purpose and this network.
    #[error("{what}: signature of {signer} does not verify")]
    BadSignature {
        /// The type's name.
        what: &'static str,
        /// The key it claims.
        signer: ConsensusKey,
    },
}

/// Unverified signed bytes as they travel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Envelope {
    /// The ed25519 key that claims to have signed.
    pub signer: ConsensusKey,
    /// Its signature.
    pub signature: [u8; 64],
    /// The canonical bytes of the value.
    pub payload: Vec<u8>,
}

impl Envelope {
    /// Verifies the signature over the bytes as they came, then decodes those bytes.
    ///
    /// # Errors
    /// Too large, a signature that does not verify, or bytes that are not the canonical form.
    pub fn open<T: Payload>(self, network: &NetworkId) -> Result<Signed<T>, EnvelopeError> {
        if self.payload.len() > T::MAX_BYTES {
            return Err(DecodeError::TooLarge { what: T::NAME, size: self.payload.len(), limit: T::MAX_BYTES }.into());
        }
        let bytes = encode::signing_bytes(T::DOMAIN, network, &self.payload);
        if !verify_ed25519(&self.signer, &bytes, &self.signature) {
            return Err(EnvelopeError::BadSignature { what: T::NAME, signer: self.signer });
        }
        self.open_again(network)
    }

    /// Decodes an envelope whose very bytes this process has opened before; the signature is not
    /// verified again.
    ///
    /// # Errors
    /// Too large, or bytes that are not the canonical form.
    pub fn open_again<T: Payload>(self, network: &NetworkId) -> Result<Signed<T>, EnvelopeError> {
        let value: T = encode::decode(T::NAME, &self.payload, T::MAX_BYTES)?;
        let digest = encode::digest(T::DOMAIN, network, &self.payload);
        Ok(Signed { value, digest, envelope: self })
    }
}

/// A value whose signature was verified over the bytes it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    value: T,
    digest: Digest,
    envelope: Envelope,
}

impl<T: Payload> Signed<T> {
    /// Signs a value.
    pub fn sign(pair: &ConsensusPair, network: &NetworkId, value: T) -> Self {
        let payload = encode::encode(&value);
        let signature = pair.sign(&encode::signing_bytes(T::DOMAIN, network, &payload));
        let digest = encode::digest(T::DOMAIN, network, &payload);
        Self { value, digest, envelope: Envelope { signer: pair.public(), signature, payload } }
    }
}

impl<T> Signed<T> {
    /// The key that signed.
    pub fn signer(&self) -> ConsensusKey {
        self.envelope.signer
    }

    /// The payload's domain-separated digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes as they travel.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The value, without its proof.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The envelope, without the decoded value.
    pub fn into_envelope(self) -> Envelope {
        self.envelope
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
    struct Note(String);
    impl Payload for Note {
        const DOMAIN: Domain = Domain::Status;
        const NAME: &'static str = "note";
        const MAX_BYTES: usize = 64;
    }

    const NET: NetworkId = NetworkId([9; 32]);

    fn pair(n: u8) -> ConsensusPair {
        ConsensusPair::from_seed(&[n; 32])
    }

    #[test]
    fn an_opened_envelope_holds_the_signed_value() {
        let signed = Signed::sign(&pair(1), &NET, Note("hi".into()));
        let opened = signed.envelope().clone().open::<Note>(&NET).unwrap();
        assert_eq!(opened, signed);
        assert_eq!(opened.signer(), pair(1).public());
    }

    #[test]
    fn another_network_key_or_purpose_does_not_verify() {
        #[derive(Debug, BorshSerialize, BorshDeserialize)]
        struct Other(String);
        impl Payload for Other {
            const DOMAIN: Domain = Domain::Vote;
            const NAME: &'static str = "other";
            const MAX_BYTES: usize = 64;
        }
        let e = Signed::sign(&pair(1), &NET, Note("hi".into())).into_envelope();
        assert!(matches!(e.clone().open::<Note>(&NetworkId([8; 32])), Err(EnvelopeError::BadSignature { .. })));
        assert!(matches!(e.clone().open::<Other>(&NET), Err(EnvelopeError::BadSignature { .. })));
        let stolen = Envelope { signer: pair(2).public(), ..e };
        assert!(matches!(stolen.open::<Note>(&NET), Err(EnvelopeError::BadSignature { .. })));
    }

    #[test]
    fn a_correctly_signed_non_canonical_payload_is_refused() {
        let mut payload = encode::encode(&Note("hi".into()));
        payload.push(0);
        let signature = pair(1).sign(&encode::signing_bytes(Domain::Status, &NET, &payload));
        let e = Envelope { signer: pair(1).public(), signature, payload };
        assert!(matches!(e.open::<Note>(&NET), Err(EnvelopeError::Decode(DecodeError::Malformed { .. }))));
        let long = Signed::sign(&pair(1), &NET, Note("x".repeat(99))).into_envelope();
        assert!(matches!(long.open::<Note>(&NET), Err(EnvelopeError::Decode(DecodeError::TooLarge { .. }))));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_survives(bit in 0usize..(32 + 64 + 4 + 2) * 8) {
            let mut bytes = encode::encode(Signed::sign(&pair(1), &NET, Note("hi".into())).envelope());
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(e) = encode::decode::<Envelope>("envelope", &bytes, 1024) {
                prop_assert!(e.open::<Note>(&NET).is_err());
            }
        }
    }
}
