//! Timelocked weights: encrypted to a future round of a drand beacon, opened by that round's signature.
//!
//! The payload is SCALE-encoded, encrypted by identity-based encryption on BLS12-381 to the identity SHA-256(round as
//! u64 big-endian), and compressed as Subtensor's drand pallet reads it. The beacon is drand's *quicknet*; a
//! development chain may have another, whose secret anyone may know. Whoever is given another public key can have its
//! weights read early, so it comes from the operator, never from the node that is asked.

use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
pub use perturb_types::Beacon;
use rand::TryRngCore as _;
use scale::{Decode, Encode};
use sha2::{Digest as _, Sha256};
use timelock::block_ciphers::AESGCMBlockCipherProvider as Aes;
use timelock::engines::EngineBLS;
use timelock::engines::drand::TinyBLS381 as Curve;
use timelock::ibe::fullident::Identity;
use timelock::tlock::{TLECiphertext, tld, tle};
use zeroize::Zeroizing;

/// Longest commit that Subtensor takes.
pub const MAX_COMMIT_BYTES: usize = 5_000;
/// Version of the commits that are made here.
pub const COMMIT_REVEAL_VERSION: u16 = 4;
/// Blocks after the reveal's first that a commit is timed for, so that the beacon's pulse is on the chain by then.
pub const INGEST_BLOCKS: u64 = 3;
/// Where a commit has the lengths of its two masked values, which the library leaves out: after the point U, and after
/// the first value.
const LENGTHS_AT: [usize; 2] = [96, 136];
/// Bytes of a masked value.
const MASKED: u64 = 32;
/// Where the body's length stands.
const BODY_AT: usize = 176;
/// What a commit ends with: the cipher's name after its length.
const SUITE: &[u8; 16] = b"\x08\0\0\0\0\0\0\0AES_GCM_";
/// Bytes of the cipher's nonce, which ends the body.
const NONCE: u64 = 12;

/// The round a commit is encrypted to whose reveal may begin in `blocks` blocks of `block_ms`, from `now_ms`
/// (milliseconds since 1970): ⌊(now + (blocks + 3) · block time − genesis) / period⌋, as the official SDK has it;
/// but never a round that is out already, which the chain would not take: on chains of fast blocks that is the
/// SDK's choice late in an epoch.
pub fn round_for(beacon: &Beacon, now_ms: u64, blocks: u64, block_ms: u64) -> u64 {
    let rounds = |ms: u64| ms.saturating_sub(beacon.genesis_ms).checked_div(beacon.period_ms).unwrap_or(0);
    let at = now_ms.saturating_add(blocks.saturating_add(INGEST_BLOCKS).saturating_mul(block_ms));
    // Round r is out at genesis + (r − 1) · period.
    let next = rounds(now_ms).saturating_add(2);
    rounds(at).max(next)
}

/// What a commit holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Payload {
    /// Public key of the hotkey that commits; the chain refuses another's.
    pub hotkey: Vec<u8>,
    /// The uids rated.
    pub uids: Vec<u16>,
    /// Their weights, in the same order.
    pub values: Vec<u16>,
    /// At least the subnet's `weights_version_key`.
    pub version_key: u64,
}

/// A commit that cannot be made or read. Never tells what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimelockError {
    /// Not a point of the curve's group.
    #[error("the beacon's public key is not a point of BLS12-381's G2")]
    BadKey,
    /// The system's random numbers failed.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The library could not encrypt.
    #[error("the weights could not be encrypted")]
    Encrypt,
    /// Longer than the chain takes.
    #[error("the commit has {0} bytes, the chain takes {MAX_COMMIT_BYTES}")]
    TooLong(usize),
    /// Not a commit.
    #[error("the bytes are not a timelocked commit")]
    Malformed,
    /// Not a signature.
    #[error("the signature is not a point of BLS12-381's G1")]
    BadSignature,
    /// The signature is another round's, or the commit was encrypted to another key.
    #[error("the signature does not open this commit")]
    WrongSignature,
}

impl From<timelock::tlock::Error> for TimelockError {
    fn from(error: timelock::tlock::Error) -> Self {
        use timelock::tlock::Error as E;
        match error {
            E::MessageEncryptionError => Self::Encrypt,
            E::InvalidSignature | E::DecryptionError => Self::WrongSignature,
            _ => Self::Malformed,
        }
    }
}

/// Encrypts `payload` so that the beacon's signature of `round` opens it.
///
/// # Errors
/// The beacon's key is none, the system has no randomness, or the commit is longer than the chain takes.
pub fn seal(beacon: &Beacon, round: u64, payload: &Payload) -> Result<Vec<u8>, TimelockError> {
    type Key = <Curve as EngineBLS>::PublicKeyGroup;
    let key = Key::deserialize_compressed(&beacon.public_key[..]).map_err(|_| TimelockError::BadKey)?;
    let identity = Identity::new(b"", &Sha256::digest(round.to_be_bytes()));
    let mut secret = Zeroizing::new([0u8; 32]);
    rand::rngs::OsRng.try_fill_bytes(&mut secret[..]).map_err(|_| TimelockError::NoRandomness)?;
    let plain = Zeroizing::new(payload.encode());
    let sealed = tle::<Curve, Aes, _>(key, *secret, &plain, identity, rand_core_06::OsRng)?;
    let mut bytes = Vec::new();
    sealed.serialize_compressed(&mut bytes).map_err(|_| TimelockError::Encrypt)?;
    for at in LENGTHS_AT {
        bytes.splice(at..at, MASKED.to_le_bytes());
    }
    if bytes.len() > MAX_COMMIT_BYTES {
        return Err(TimelockError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Whether every length within a commit is what its place demands. The library takes memory by what they announce.
fn is_laid_out(commit: &[u8]) -> bool {
    let length = |at: usize| commit.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let Some(body) = commit.len().checked_sub(BODY_AT + 8 + SUITE.len()) else { return false };
    let nonce_at = commit.len() - SUITE.len() - NONCE as usize - 8;
    let expected = (body as u64).checked_sub(8 + 8 + NONCE);
    LENGTHS_AT.into_iter().all(|at| length(at) == Some(MASKED))
        && length(BODY_AT) == Some(body as u64)
        && expected.is_some()
        && length(BODY_AT + 8) == expected
        && length(nonce_at) == Some(NONCE)
        && commit.ends_with(SUITE)
}

/// Opens a commit with its round's signature (compressed G1, 48 bytes).
///
/// # Errors
/// The bytes are no commit, or the signature is not the one it was encrypted to.
pub fn open(commit: &[u8], signature: &[u8]) -> Result<Payload, TimelockError> {
    type Signature = <Curve as EngineBLS>::SignatureGroup;
    if commit.len() > MAX_COMMIT_BYTES {
        return Err(TimelockError::TooLong(commit.len()));
    }
    let mut bytes = commit.to_vec();
    if !is_laid_out(&bytes) {
        return Err(TimelockError::Malformed);
    }
    for at in LENGTHS_AT.into_iter().rev() {
        bytes.drain(at..at + MASKED.to_le_bytes().len());
    }
    let mut rest = &bytes[..];
    let sealed = TLECiphertext::<Curve>::deserialize_compressed(&mut rest).map_err(|_| TimelockError::Malformed)?;
    if !rest.is_empty() {
        return Err(TimelockError::Malformed);
    }
    let signature = Signature::deserialize_compressed(signature).map_err(|_| TimelockError::BadSignature)?;
    let plain = Zeroizing::new(tld::<Curve, Aes>(sealed, signature)?);
    let mut rest = &plain[..];
    let payload = Payload::decode(&mut rest).map_err(|_| TimelockError::Malformed)?;
    if rest.is_empty() { Ok(payload) } else { Err(TimelockError::Malformed) }
}

#[cfg(test)]
#[path = "timelock_tests.rs"]
mod tests;
