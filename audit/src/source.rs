//! Nodes as an auditor sees them: somebody who answers requests, truthfully or not.

use perturb_ledger::archive::Archive;
use perturb_ledger::proofs::StateProof;
use perturb_ledger::serve::{
    self, BlockAnswer, HandoversAnswer, HeaderAnswer, MAX_PROOF_KEYS, ProofAnswer, PrunedAt, RoundAnswer, StateAnswer,
};
use perturb_ledger::store::Row;
use perturb_ledger::{Block, Certificate, Handover, Header};
use perturb_types::{Digest, RoundId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::AuditError;

/// Bytes of all rows of a state that are read: a thousand epochs' records of a full subnet fit.
const MAX_STATE_BYTES: usize = 1 << 30;

/// Pages of a state that are read: a node may fill them less than to the brim.
const MAX_PAGES: usize = 4 * MAX_STATE_BYTES / serve::MAX_PAGE_BYTES;

/// Somebody who answers JSON-RPC requests.
pub trait Source {
    /// Its name in reports.
    fn name(&self) -> &str;

    /// Asks for a method's answer.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError>;
}

/// A source in this process: an archive behind the same answers that a node gives.
#[derive(Clone, Debug)]
pub struct Local<A> {
    /// Its name in reports.
    pub name: String,
    /// What it serves.
    pub archive: A,
}

impl<A: Archive> Source for Local<A> {
    fn name(&self) -> &str {
        &self.name
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError> {
        serve::answer(&self.archive, method, &params).map_err(|e| match e.data() {
            Some(PrunedAt { oldest }) => AuditError::Pruned { node: self.name.clone(), what: method.into(), oldest },
            None => AuditError::Unavailable { node: self.name.clone(), why: e.to_string() },
        })
    }
}

/// Typed questions to a source. Answers are decoded and fit the question; nothing is proved yet.
#[derive(Clone, Copy)]
pub struct Ask<'a>(pub &'a dyn Source);

impl Ask<'_> {
    fn held<T: DeserializeOwned>(&self, method: &str, params: Value, what: &str) -> Result<T, AuditError> {
        let answer = self.0.call(method, params)?;
        if answer.is_null() {
            return Err(AuditError::NotHeld { node: self.0.name().into(), what: what.into() });
        }
        serde_json::from_value(answer).map_err(|e| self.wrong(what, e))
    }

    fn wrong(&self, what: &str, why: impl ToString) -> AuditError {
        AuditError::invalid(format!("{what} of {}", self.0.name()), why)
    }

    /// A header with its certificate; `None` for the newest.
    ///
    /// # Errors
    /// No answer, none held, or another height.
    pub fn header(&self, height: Option<u64>) -> Result<(Header, Option<Certificate>), AuditError> {
        let what = height.map_or_else(|| "the newest header".into(), |h| format!("header {h}"));
        let answer: HeaderAnswer = self.held("perturb_header", json!([height]), &what)?;
        let header = answer.header.0;
        if height.is_some_and(|h| h != header.height) {
            return Err(self.wrong(&what, format!("it is header {}", header.height)));
        }
        Ok((header, answer.certificate.map(|c| c.0)))
    }

    /// A block with its certificate.
    ///
    /// # Errors
    /// No answer, none held, or another height.
    pub fn block(&self, height: u64) -> Result<(Block, Option<Certificate>), AuditError> {
        let what = format!("block {height}");
        let answer: BlockAnswer = self.held("perturb_block", json!([height]), &what)?;
        let block = answer.block.0;
        if block.header.height != height {
            return Err(self.wrong(&what, format!("it is block {}", block.header.height)));
        }
        Ok((block, answer.certificate.map(|c| c.0)))
    }

    /// The next handovers from a height on, and whether there are more.
    ///
    /// # Errors
    /// No answer.
    pub fn handovers(&self, from: u64) -> Result<(Vec<Handover>, bool), AuditError> {
        let answer: HandoversAnswer = self.held("perturb_handovers", json!([from]), "handovers")?;
        Ok((answer.handovers.into_iter().map(|h| h.0).collect(), answer.more))
    }

    /// The proofs of keys after a height, checked against the height's state root.
    ///
    /// # Errors
    /// No answer, none held, or a proof that does not hold.
    pub fn rows(&self, height: u64, root: &Digest, keys: &[Vec<u8>]) -> Result<Vec<StateProof>, AuditError> {
        let what = format!("the state's proofs at height {height}");
        let mut out: Vec<StateProof> = Vec::with_capacity(keys.len());
        while out.len() < keys.len() {
            let wanted: Vec<&Vec<u8>> = keys.iter().skip(out.len()).take(MAX_PROOF_KEYS).collect();
            let hexed: Vec<String> = wanted.iter().map(hex::encode).collect();
            let answer: ProofAnswer = self.held("perturb_proof", json!([height, hexed]), &what)?;
            if answer.proofs.is_empty() || answer.proofs.len() > wanted.len() {
                return Err(self.wrong(&what, format!("{} proofs for {} keys", answer.proofs.len(), wanted.len())));
            }
            for (proof, key) in answer.proofs.into_iter().map(|p| p.0).zip(wanted) {
                if proof.key != *key || !proof.verify(root) {
                    return Err(self.wrong(&what, format!("the proof of row {} does not hold", hex::encode(key))));
                }
                out.push(proof);
            }
        }
        Ok(out)
    }

    /// All rows of the state after a height, in order. Compare their root with a certified header's.
    ///
    /// # Errors
    /// No answer, none held, keys that do not rise, or more than 1 GiB.
    pub fn state(&self, height: u64) -> Result<Vec<Row>, AuditError> {
        let what = format!("the state at height {height}");
        let (mut rows, mut bytes) = (Vec::<Row>::new(), 0usize);
        for _ in 0..MAX_PAGES {
            let after = rows.last().map(|(key, _)| hex::encode(key));
            let page: StateAnswer = self.held("perturb_state", json!([height, after]), &what)?;
            for row in page.rows.0 {
                if rows.last().is_some_and(|last| last.0 >= row.0) {
                    return Err(self.wrong(&what, "its keys do not rise"));
                }
                bytes = bytes.saturating_add(row.0.len()).saturating_add(row.1.len());
                rows.push(row);
            }
            if bytes > MAX_STATE_BYTES {
                return Err(self.wrong(&what, format!("more than {MAX_STATE_BYTES} bytes")));
            }
            if !page.more {
                return Ok(rows);
            }
            if rows.last().map(|(key, _)| hex::encode(key)) == after {
                return Err(self.wrong(&what, "a page without rows that promises more"));
            }
        }
        Err(self.wrong(&what, format!("more than {MAX_PAGES} pages")))
    }

    /// A round's transactions with their blocks.
    ///
    /// # Errors
    /// No answer, or none held.
    pub fn round(&self, round: &RoundId) -> Result<RoundAnswer, AuditError> {
        self.held("perturb_round", json!([round.validator, round.challenge, round.seq]), &format!("round {round}"))
    }
}
