//! How a node answers those who check the past: JSON-RPC methods over an [`Archive`].
//!
//! | method | parameters | answer |
//! |---|---|---|
//! | `perturb_header` | height, or null for the newest | [`HeaderAnswer`] |
//! | `perturb_block` | height | [`BlockAnswer`] |
//! | `perturb_handovers` | first height | [`HandoversAnswer`] |
//! | `perturb_proof` | height, keys in hex | [`ProofAnswer`] |
//! | `perturb_state` | height, last key of the page before in hex or null | [`StateAnswer`] |
//! | `perturb_round` | validator (ss58), challenge, sequence number | [`RoundAnswer`] |
//!
//! An answer is null where the node does not hold what was asked for, and the error
//! [`RpcError::Pruned`] (code [`PRUNED`]) where it held it once: another node may keep more. Values are hex of their
//! canonical bytes ([`Hex`]); everything in them is checked by whoever asked, so that it does not
//! matter who answers.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::{ChallengeId, Hotkey, RoundId, encode, limits};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::archive::{Archive, Place, RoundPlaces};
use crate::block::{Block, Header};
use crate::certificate::Certificate;
use crate::inclusion::Inclusion;
use crate::light::Handover;
use crate::proofs::StateProof;
use crate::state::{self, SeqRow, seq_key};
use crate::store::{Row, StoreError};

/// The methods.
pub const METHODS: [&str; 6] =
    ["perturb_header", "perturb_block", "perturb_handovers", "perturb_proof", "perturb_state", "perturb_round"];

/// Handovers of one answer: with sets of [`limits::MAX_VALIDATORS`], under 2 MiB in hex.
pub const MAX_HANDOVERS: usize = 16;

/// Keys of one proof request: with the largest rows, an answer stays below [`MAX_ANSWER_BYTES`].
pub const MAX_PROOF_KEYS: usize = 64;

/// Bytes of a key in a request: the longest of the state is an open round's, under 100.
pub const MAX_KEY_BYTES: usize = 256;

/// Bytes of rows of one page; one row always fits.
pub const MAX_PAGE_BYTES: usize = 1 << 20;

/// Rows that the proofs of one answer may carry, bytes; the rest is left out and asked for again.
const MAX_PROOF_BYTES: usize = 4 << 20;

/// Bytes of any answer: a block of the largest kind in hex, with its certificate.
pub const MAX_ANSWER_BYTES: usize = 4 * limits::MAX_BLOCK_BYTES;

/// The data of an error with the code [`PRUNED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedAt {
    /// The lowest height that is held.
    pub oldest: u64,
}

/// JSON-RPC code of what was removed here.
pub const PRUNED: i32 = -32001;

/// A value as hex of its canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hex<T>(pub T);

impl<T: BorshSerialize> Serialize for Hex<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(encode::encode(&self.0)))
    }
}

impl<'de, T: BorshDeserialize> Deserialize<'de> for Hex<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <String as Deserialize>::deserialize(d)?;
        let bytes = hex::decode(text).map_err(D::Error::custom)?;
        encode::decode("answer", &bytes, MAX_ANSWER_BYTES).map(Self).map_err(D::Error::custom)
    }
}

/// A header with its certificate; genesis has none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeaderAnswer {
    /// The header.
    pub header: Hex<Header>,
    /// Its certificate.
    pub certificate: Option<Hex<Certificate>>,
}

/// A block with its certificate; genesis has none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlockAnswer {
    /// The block.
    pub block: Hex<Block>,
    /// Its certificate.
    pub certificate: Option<Hex<Certificate>>,
}

/// Handovers in order, at most [`MAX_HANDOVERS`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandoversAnswer {
    /// The handovers.
    pub handovers: Vec<Hex<Handover>>,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// Proofs of the first keys that were asked for, in their order; at least one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProofAnswer {
    /// The proofs.
    pub proofs: Vec<Hex<StateProof>>,
}

/// Rows of a state in order, about [`MAX_PAGE_BYTES`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateAnswer {
    /// The rows.
    pub rows: Hex<Vec<Row>>,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// A round's transactions, each with its block; null where there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundAnswer {
    /// The opening.
    pub opened: Option<Hex<Inclusion>>,
    /// What its miners are bound to.
    pub bound: Option<Hex<Inclusion>>,
    /// The result.
    pub closed: Option<Hex<Inclusion>>,
}

/// A request that is not answered, as JSON-RPC codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// No such method.
    #[error("no method `{0}`")]
    Method(String),
    /// Parameters of another shape.
    #[error("parameters: {0}")]
    Params(String),
    /// It was here and is no more.
    #[error("{what} {height} was pruned: this node keeps them from {oldest} on")]
    Pruned {
        /// What was asked for.
        what: &'static str,
        /// Its height; a round's number for a round.
        height: u64,
        /// The lowest height that is held.
        oldest: u64,
    },
    /// The node's own trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RpcError {
    /// What a program needs to know of it besides the text: where the past begins.
    pub fn data(&self) -> Option<PrunedAt> {
        match self {
            Self::Pruned { oldest, .. } => Some(PrunedAt { oldest: *oldest }),
            _ => None,
        }
    }

    /// The JSON-RPC code.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Method(_) => -32601,
            Self::Params(_) => -32602,
            Self::Pruned { .. } => PRUNED,
            Self::Store(_) => -32603,
        }
    }
}

fn params<T: for<'de> Deserialize<'de>>(params: &Value) -> Result<T, RpcError> {
    T::deserialize(params).map_err(|e| RpcError::Params(e.to_string()))
}

fn key(text: &str) -> Result<Vec<u8>, RpcError> {
    if text.len() > 2 * MAX_KEY_BYTES {
        return Err(RpcError::Params(format!("a key of {} digits", text.len())));
    }
    hex::decode(text).map_err(|e| RpcError::Params(format!("key: {e}")))
}

fn value<T: Serialize>(answer: T) -> Result<Value, RpcError> {
    serde_json::to_value(answer).map_err(|e| StoreError(e.to_string()).into())
}

/// Answers one request; `params` is the request's array.
///
/// # Errors
/// See [`RpcError`].
pub fn answer(archive: &impl Archive, method: &str, given: &Value) -> Result<Value, RpcError> {
    match method {
        "perturb_header" => {
            let (height,): (Option<u64>,) = params(given)?;
            let height = height.map_or_else(|| archive.tip(), Ok)?;
            let Some((header, certificate)) = archive.header_at(height)? else {
                return gone("header", height, archive.oldest()?.block);
            };
            value(HeaderAnswer { header: Hex(header), certificate: certificate.map(Hex) })
        }
        "perturb_block" => {
            let (height,): (u64,) = params(given)?;
            let Some((block, certificate)) = archive.block_at(height)? else {
                return gone("block", height, archive.oldest()?.block);
            };
            value(BlockAnswer { block: Hex(block), certificate: certificate.map(Hex) })
        }
        "perturb_handovers" => {
            let (from,): (u64,) = params(given)?;
            let mut handovers = archive.handovers_from(from, MAX_HANDOVERS + 1)?;
            let more = handovers.len() > MAX_HANDOVERS;
            handovers.truncate(MAX_HANDOVERS);
            value(HandoversAnswer { handovers: handovers.into_iter().map(Hex).collect(), more })
        }
        "perturb_proof" => {
            let (height, keys): (u64, Vec<String>) = params(given)?;
            proofs(archive, height, &keys)
        }
        "perturb_state" => {
            let (height, after): (u64, Option<String>) = params(given)?;
            let after = after.as_deref().map(key).transpose()?;
            let Some(page) = archive.rows_at(height, after.as_deref(), MAX_PAGE_BYTES)? else {
                return gone("state after block", height, archive.oldest()?.state);
            };
            value(StateAnswer { rows: Hex(page.rows), more: page.more })
        }
        "perturb_round" => {
            let (validator, challenge, seq): (Hotkey, ChallengeId, u64) = params(given)?;
            let places = archive.round_places(&RoundId { validator, challenge, seq })?;
            if places == RoundPlaces::default() {
                return no_round(archive, &RoundId { validator, challenge, seq });
            }
            let show = |place: Option<Place>| place.map(|p| included(archive, p)).transpose().map(Option::flatten);
            let [opened, bound, closed] = [places.opened, places.bound, places.closed].map(show);
            value(RoundAnswer { opened: opened?.map(Hex), bound: bound?.map(Hex), closed: closed?.map(Hex) })
        }
        other => Err(RpcError::Method(other.chars().take(64).collect())),
    }
}

/// What is not held: null, or pruned.
fn gone(what: &'static str, height: u64, oldest: u64) -> Result<Value, RpcError> {
    if height < oldest { Err(RpcError::Pruned { what, height, oldest }) } else { Ok(Value::Null) }
}

/// A round without a place: one that the newest state has counted was pruned.
fn no_round(archive: &impl Archive, round: &RoundId) -> Result<Value, RpcError> {
    let oldest = archive.oldest()?.block;
    if oldest > 1 {
        let proof = archive.proof_at(archive.tip()?, &seq_key(round.challenge, &round.validator))?;
        let row = proof.and_then(|p| p.value).map(|row| state::parse::<SeqRow>(b"seq", &row)).transpose()?;
        if row.is_some_and(|row| round.seq < row.next) {
            return Err(RpcError::Pruned { what: "round", height: round.seq, oldest });
        }
    }
    Ok(Value::Null)
}

fn proofs(archive: &impl Archive, height: u64, keys: &[String]) -> Result<Value, RpcError> {
    if keys.is_empty() || keys.len() > MAX_PROOF_KEYS {
        return Err(RpcError::Params(format!("{} keys, 1 to {MAX_PROOF_KEYS} are allowed", keys.len())));
    }
    let (mut proofs, mut bytes) = (Vec::new(), 0);
    for text in keys {
        let Some(proof) = archive.proof_at(height, &key(text)?)? else {
            return gone("state after block", height, archive.oldest()?.state);
        };
        bytes += proof.value.as_ref().map_or(0, Vec::len);
        if bytes > MAX_PROOF_BYTES && !proofs.is_empty() {
            break;
        }
        proofs.push(Hex(proof));
    }
    value(json!(ProofAnswer { proofs }))
}

fn included(archive: &impl Archive, place: Place) -> Result<Option<Inclusion>, StoreError> {
    let network = archive.network()?;
    let Some((block, Some(certificate))) = archive.block_at(place.height)? else { return Ok(None) };
    let Some(receipts) = archive.receipts_at(place.height)? else { return Ok(None) };
    Ok(Inclusion::make(&network, &block, &certificate, &receipts, place.index))
}
