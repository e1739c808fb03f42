//! Timelocked commits: reading, opening and making them in the byte layout of the official core.
//!
//! ```text
//! U    96 bytes   compressed point of G2
//! V    8 + 32     length (little-endian), bytes
//! W    8 + 32     length, bytes
//! body 8 + n      length, {8 + m ciphertext, 8 + 12 nonce}
//! name 8 + 8      length, "AES_GCM_"
//! ```
//!
//! The encryption is Boneh and Franklin's identity-based scheme towards the round's number, around AES-256-GCM; both
//! are the `timelock` crate's, whose own layout has no lengths before V and W.

use crate::beacon::{PUBLIC_KEY_BYTES, PublicKeyGroup, identity, read_point, read_signature};
use ark_serialize::CanonicalSerialize;
use rand::{CryptoRng, Rng};
use timelock::block_ciphers::AESGCMBlockCipherProvider;
use timelock::engines::drand::TinyBLS381;
use timelock::ibe::fullident::Ciphertext;
use timelock::tlock::{TLECiphertext, tld, tle};

const NONCE_BYTES: usize = 12;

/// Open a commit with the signature of the round it was made for; `None` if it is not one, or not for that round.
///
/// What may follow after the layout's end is not looked at, as on the real chain.
#[must_use]
pub fn open(commit: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let ciphertext = read(commit)?;
    tld::<TinyBLS381, AESGCMBlockCipherProvider>(ciphertext, read_signature(signature)?).ok()
}

/// Make a commit that opens with the beacon's signature of `round`; `None` if the key is none.
///
/// The chain itself never does this; clients' tests do.
#[must_use]
pub fn seal<R: Rng + CryptoRng>(
    public_key: &[u8; PUBLIC_KEY_BYTES],
    round: u64,
    message: &[u8],
    mut rng: R,
) -> Option<Vec<u8>> {
    let key = read_point::<PublicKeyGroup>(public_key)?;
    let secret: [u8; 32] = rng.r#gen();
    let sealed = tle::<TinyBLS381, AESGCMBlockCipherProvider, R>(key, secret, message, identity(round), rng).ok()?;
    let mut commit = Vec::new();
    sealed.header.u.serialize_compressed(&mut commit).ok()?;
    for part in [&sealed.header.v[..], &sealed.header.w, &sealed.body, &sealed.cipher_suite] {
        commit.extend_from_slice(&(part.len() as u64).to_le_bytes());
        commit.extend_from_slice(part);
    }
    Some(commit)
}

fn read(mut commit: &[u8]) -> Option<TLECiphertext<TinyBLS381>> {
    let reader = &mut commit;
    let u = read_point(take(reader, PUBLIC_KEY_BYTES)?)?;
    let v = sized(reader)?.try_into().ok()?;
    let w = sized(reader)?.try_into().ok()?;
    let body = sized(reader)?;
    let cipher_suite = sized(reader)?.to_vec();
    // The crate makes room for whatever length the body announces, so it sees only lengths that are true.
    let inside = &mut &*body;
    sized(inside)?;
    if sized(inside)?.len() != NONCE_BYTES {
        return None;
    }
    Some(TLECiphertext { header: Ciphertext { u, v, w }, body: body.to_vec(), cipher_suite })
}

fn sized<'a>(reader: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u64::from_le_bytes(take(reader, 8)?.try_into().ok()?);
    take(reader, usize::try_from(length).ok()?)
}

fn take<'a>(reader: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = reader.split_at_checked(count)?;
    *reader = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::beacon::{Beacon, BeaconSource, QUICKNET_KEY};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn sealed(key: &[u8; PUBLIC_KEY_BYTES], round: u64, message: &[u8]) -> Vec<u8> {
        seal(key, round, message, StdRng::seed_from_u64(7)).unwrap()
    }

    #[test]
    fn a_commit_opens_with_its_rounds_signature_only() {
        let beacon = Beacon::new(&BeaconSource::default());
        let commit = sealed(&beacon.public_key(), 5, b"weights");
        assert_eq!(open(&commit, &beacon.sign(5).unwrap()).unwrap(), b"weights");
        assert_eq!(open(&commit, &beacon.sign(6).unwrap()), None);
        assert_eq!(open(&commit, b"no signature"), None);
        let followed = [&commit[..], &[1, 2, 3]].concat();
        assert_eq!(open(&followed, &beacon.sign(5).unwrap()).unwrap(), b"weights");
    }

    #[test]
    fn quicknets_published_round_1000_opens_a_commit_made_for_it() {
        let commit = sealed(&QUICKNET_KEY, 1000, b"weights");
        let signature =
            "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";
        assert_eq!(open(&commit, &hex::decode(signature).unwrap()).unwrap(), b"weights");
        assert_eq!(commit.len(), 96 + 40 + 40 + 8 + (8 + 7 + 16) + (8 + 12) + 8 + 8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_spoiled_commit_is_refused_without_harm(at in 0usize..260, value: u8, cut in 0usize..260) {
            let beacon = Beacon::new(&BeaconSource::default());
            let signature = beacon.sign(5).unwrap();
            let mut commit = sealed(&beacon.public_key(), 5, b"weights");
            prop_assert_eq!(open(&commit[..cut.min(commit.len() - 1)], &signature), None);
            let at = at % commit.len();
            let changed = commit[at] != value;
            commit[at] = value;
            // The cipher's name is not looked at.
            let whole = !changed || at >= commit.len() - 8;
            prop_assert_eq!(open(&commit, &signature).is_some(), whole);
        }
    }
}
