//! Key pairs: the sr25519 hotkey of the chain and the ed25519 consensus key.
//!
//! Three keys, never one for two jobs: the *hotkey* belongs to the chain and delegates; the
//! *consensus key* signs votes, blocks and rounds; the *network key* (in the network's own room)
//! makes the peer id. Secrets are wiped when dropped and have no text form.

use std::fmt;

use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use crate::encode::{self, Domain};
use crate::ids::{ConsensusKey, Hotkey, NetworkId};

/// Substrate's signing context for sr25519.
const SR25519_CONTEXT: &[u8] = b"substrate";

/// A secret that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a valid sr25519 secret")]
pub struct BadSeed;

/// A hotkey with its secret: a mini-secret, or an expanded secret from which no mini-secret follows.
#[derive(Clone)]
pub struct HotkeyPair {
    seed: Option<Zeroizing<[u8; 32]>>,
    pair: schnorrkel::Keypair,
}

impl HotkeyPair {
    /// The pair of a 32-byte mini-secret, expanded as Substrate does.
    ///
    /// # Errors
    /// The bytes are no mini-secret.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, BadSeed> {
        let mini = schnorrkel::MiniSecretKey::from_bytes(seed).map_err(|_| BadSeed)?;
        let pair = mini.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519);
        Ok(Self { seed: Some(Zeroizing::new(*seed)), pair })
    }

    /// The pair of a 64-byte expanded secret: scalar and nonce.
    ///
    /// The scalar comes in two forms: canonical, as Bittensor's wallets hold it, or multiplied by the
    /// cofactor, as ed25519 and the keyrings of other Substrate tools do. One is never the other: the
    /// second has bit 254 set, which no canonical scalar has.
    ///
    /// # Errors
    /// The bytes are neither.
    pub fn from_expanded(secret: &[u8; 64]) -> Result<Self, BadSeed> {
        let secret = schnorrkel::SecretKey::from_bytes(secret)
            .or_else(|_| schnorrkel::SecretKey::from_ed25519_bytes(secret))
            .map_err(|_| BadSeed)?;
        Ok(Self { seed: None, pair: secret.to_keypair() })
    }

    /// The pair that a derivation junction leads to; a hard one has a mini-secret, a soft one none.
    pub(crate) fn derive(&self, chain_code: [u8; 32], hard: bool) -> Self {
        let code = schnorrkel::derive::ChainCode(chain_code);
        if hard {
            let (mini, _) = self.pair.secret.hard_derive_mini_secret_key(Some(code), b"");
            let seed = Some(Zeroizing::new(mini.to_bytes()));
            return Self { seed, pair: mini.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519) };
        }
        use schnorrkel::derive::Derivation as _;
        Self { seed: None, pair: self.pair.derived_key_simple(code, b"").0 }
    }

    /// The public key.
    pub fn hotkey(&self) -> Hotkey {
        Hotkey(self.pair.public.to_bytes())
    }

    /// The mini-secret, where there is one: an expanded secret cannot be turned back.
    pub fn seed(&self) -> Option<&Zeroizing<[u8; 32]>> {
        self.seed.as_ref()
    }

    /// The expanded secret with a canonical scalar, as wallet files hold it.
    pub fn expanded(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.pair.secret.to_bytes())
    }

    /// An sr25519 signature over exactly these bytes, as the chain's extrinsics and Bittensor's own
    /// tools make it. What this network signs goes through [`HotkeyPair::sign`].
    pub fn sign_raw(&self, bytes: &[u8]) -> [u8; 64] {
        self.pair.sign_simple(SR25519_CONTEXT, bytes).to_bytes()
    }

    /// An sr25519 signature over [`encode::signing_bytes`].
    pub fn sign(&self, domain: Domain, network: &NetworkId, payload: &[u8]) -> [u8; 64] {
        self.sign_raw(&encode::signing_bytes(domain, network, payload))
    }
}

impl fmt::Debug for HotkeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HotkeyPair({})", self.hotkey())
    }
}

impl Hotkey {
    /// Whether `signature` is this hotkey's over [`encode::signing_bytes`].
    #[must_use]
    pub fn verify(&self, domain: Domain, network: &NetworkId, payload: &[u8], signature: &[u8; 64]) -> bool {
        self.verify_raw(&encode::signing_bytes(domain, network, payload), signature)
    }

    /// Whether `signature` is this hotkey's over exactly these bytes.
    #[must_use]
    pub fn verify_raw(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(key) = schnorrkel::PublicKey::from_bytes(&self.0) else { return false };
        let Ok(signature) = schnorrkel::Signature::from_bytes(signature) else { return false };
        key.verify_simple(SR25519_CONTEXT, bytes, &signature).is_ok()
    }
}

/// A consensus key with its secret.
#[derive(Clone)]
pub struct ConsensusPair(ed25519_dalek::SigningKey);

impl ConsensusPair {
    /// The pair of a 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public key.
    pub fn public(&self) -> ConsensusKey {
        ConsensusKey(self.0.verifying_key().to_bytes())
    }

    /// An ed25519 signature over exactly these bytes: pass [`encode::signing_bytes`].
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }

    /// The seed, for the key file.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }
}

impl fmt::Debug for ConsensusPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConsensusPair({})", self.public())
    }
}

/// Whether `signature` is `key`'s over exactly these bytes. Strict: small-order keys and
/// non-canonical signatures are refused, so that everyone gives the same verdict.
#[must_use]
pub fn verify_ed25519(key: &ConsensusKey, bytes: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&key.0) else { return false };
    key.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const NET: NetworkId = NetworkId([3; 32]);

    #[test]
    fn a_hotkey_signature_verifies_for_its_domain_network_and_bytes_only() {
        let pair = HotkeyPair::from_seed(&[5; 32]).unwrap();
        let signature = pair.sign(Domain::Answer, &NET, b"answer");
        let key = pair.hotkey();
        assert!(key.verify(Domain::Answer, &NET, b"answer", &signature));
        assert!(!key.verify(Domain::Handshake, &NET, b"answer", &signature));
        assert!(!key.verify(Domain::Answer, &NetworkId([4; 32]), b"answer", &signature));
        assert!(!key.verify(Domain::Answer, &NET, b"answers", &signature));
        assert!(!Hotkey([0xff; 32]).verify(Domain::Answer, &NET, b"answer", &signature));
    }

    #[test]
    fn both_forms_of_an_expanded_secret_are_the_same_key_and_nonsense_is_none() {
        let pair = HotkeyPair::from_seed(&[5; 32]).unwrap();
        let canonical = pair.expanded();
        let again = HotkeyPair::from_expanded(&canonical).unwrap();
        assert_eq!((again.hotkey(), again.seed()), (pair.hotkey(), None));
        let signature = again.sign_raw(b"bytes");
        assert!(pair.hotkey().verify_raw(b"bytes", &signature) && !pair.hotkey().verify_raw(b"byte", &signature));
        // SHA-512 of the seed, clamped: what ed25519 and polkadot's keyring write down.
        let mut clamped: [u8; 64] = <sha2::Sha512 as sha2::Digest>::digest([5; 32]).into();
        clamped[0] &= 0xf8;
        clamped[31] = clamped[31] & 0x3f | 0x40;
        assert_ne!(clamped[..32], canonical[..32]);
        assert_eq!(HotkeyPair::from_expanded(&clamped).unwrap().hotkey(), pair.hotkey());
        assert!(HotkeyPair::from_expanded(&[0xff; 64]).is_err());
    }

    #[test]
    fn a_small_order_key_verifies_nothing() {
        // The identity point would accept crafted signatures under lax verification.
        let mut identity = [0u8; 32];
        identity[0] = 1;
        let mut signature = [0u8; 64];
        signature[0] = 1;
        assert!(!verify_ed25519(&ConsensusKey(identity), b"anything", &signature));
    }

    #[test]
    fn secrets_have_no_text_form() {
        let pair = ConsensusPair::from_seed(&[0xab; 32]);
        assert!(!format!("{pair:?}").contains("abab"));
        let hot = HotkeyPair::from_seed(&[0xab; 32]).unwrap();
        assert!(!format!("{hot:?}").contains("abab"));
    }
}
