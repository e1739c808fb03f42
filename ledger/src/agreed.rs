//! Rows of the agreed state, shown to somebody who keeps none of it: a miner.
//!
//! A header, its certificate, and one proof per row under the header's state root. Who follows the
//! validator sets ([`Trust`]) needs nothing else to know that a quorum holds these rows. Old rows prove
//! what *was* agreed: the reader bounds the header's age by its own clock.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::RoundId;

use crate::archive::Archive;
use crate::block::Header;
use crate::certificate::Certificate;
use crate::genesis::ChallengeSpec;
use crate::light::{LightError, Trust};
use crate::proofs::StateProof;
use crate::state::{self, OpenRow, challenge_key, open_key};
use crate::store::StoreError;

/// Rows with what proves them.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct AgreedRows {
    /// A certified header.
    pub header: Header,
    /// Its certificate.
    pub certificate: Certificate,
    /// Proofs of rows of the state after it, in the order in which they are asked for.
    pub rows: Vec<StateProof>,
}

/// Why rows are not taken as agreed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgreedError {
    /// Another number of rows, or rows of other keys.
    #[error("the rows are not those that belong here")]
    Keys,
    /// A row that the state does not have.
    #[error("the agreed state has no row {}", String::from_utf8_lossy(.0))]
    Absent(Vec<u8>),
    /// A proof that does not lead to the header's state root.
    #[error("a row is not that of the header's state")]
    Proof,
    /// A row that is none of its kind.
    #[error(transparent)]
    Row(#[from] StoreError),
    /// The header is not certified by the known set.
    #[error(transparent)]
    Light(#[from] LightError),
}

impl AgreedRows {
    /// The rows of these keys in the newest state of an archive; `None` where it no longer holds that.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn collect(archive: &impl Archive, keys: &[Vec<u8>]) -> Result<Option<Self>, StoreError> {
        let height = archive.tip()?;
        let Some((header, Some(certificate))) = archive.header_at(height)? else { return Ok(None) };
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(proof) = archive.proof_at(height, key)? else { return Ok(None) };
            rows.push(proof);
        }
        Ok(Some(Self { header, certificate, rows }))
    }

    /// Checks everything, the cheap first: keys, proofs, and last the certificate.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self, keys: &[Vec<u8>], trust: &Trust) -> Result<(), AgreedError> {
        if !self.rows.iter().map(|proof| &proof.key).eq(keys) {
            return Err(AgreedError::Keys);
        }
        for proof in &self.rows {
            if !proof.verify(&self.header.state_root) {
                return Err(AgreedError::Proof);
            }
            if proof.value.is_none() {
                return Err(AgreedError::Absent(proof.key.clone()));
            }
        }
        trust.check(&self.header, &self.certificate)?;
        Ok(())
    }

    fn row<T: BorshDeserialize>(&self, index: usize) -> Result<T, AgreedError> {
        let proof = self.rows.get(index).ok_or(AgreedError::Keys)?;
        let value = proof.value.as_ref().ok_or_else(|| AgreedError::Absent(proof.key.clone()))?;
        Ok(state::parse(&proof.key, value)?)
    }
}

/// The keys of an offer's rows: the open round, and its challenge's specification.
pub fn offer_keys(round: &RoundId) -> [Vec<u8>; 2] {
    [open_key(round.challenge, &round.validator, round.seq), challenge_key(round.challenge)]
}

/// The rows of an offer.
///
/// # Errors
/// They are not agreed.
pub fn offered(rows: &AgreedRows, round: &RoundId, trust: &Trust) -> Result<(OpenRow, ChallengeSpec), AgreedError> {
    rows.check(&offer_keys(round), trust)?;
    Ok((rows.row(0)?, rows.row(1)?))
}

/// The row of an open round.
///
/// # Errors
/// It is not agreed.
pub fn opened(rows: &AgreedRows, round: &RoundId, trust: &Trust) -> Result<OpenRow, AgreedError> {
    let [open, _] = offer_keys(round);
    rows.check(&[open], trust)?;
    rows.row(0)
}
