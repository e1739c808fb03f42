//! Replay by the ledger's own rules: every signature, every rule, every root.

use perturb_ledger::epoch::EpochRecord;
use perturb_ledger::store::{Change, Row};
use perturb_ledger::{
    Block, BlockError, Certificate, Effect, Genesis, Header, Ledger, MemoryStore, StateStore, epoch, query,
};
use perturb_types::ChallengeId;

use super::{Engine, Mismatch};
use crate::error::AuditError;

/// A ledger that goes through an epoch once.
pub struct Exact {
    ledger: Ledger<MemoryStore>,
    epoch: u64,
    results: u64,
}

impl Exact {
    /// A ledger with a state, as of the header it was proved under.
    ///
    /// # Errors
    /// The rows are no state of the network.
    pub fn new(
        genesis: &Genesis,
        header: &Header,
        certificate: Option<Certificate>,
        rows: &[Row],
    ) -> Result<Self, AuditError> {
        let (mut store, root) = MemoryStore::restored(header.height, rows)?;
        if root != header.state_root {
            let why = format!("its root is {root}, the header says {}", header.state_root);
            return Err(AuditError::invalid(format!("state at height {}", header.height), why));
        }
        store.set_base(header.clone(), certificate);
        store.keep_newest_only();
        let ledger = Ledger::new(genesis.clone(), store)?;
        Ok(Self { epoch: ledger.head().epoch, ledger, results: 0 })
    }

    /// What the rules make of a block that does not check: the changed rows, and all rows.
    fn differing(&self, block: &Block, error: &BlockError) -> Mismatch {
        let Ok(outcome) = self.ledger.recompute(block) else {
            return Mismatch { what: error.to_string(), changes: Vec::new(), rows: None };
        };
        let rows = self.ledger.store().scan(b"").ok().map(|rows| applied(rows, &outcome.values));
        Mismatch { what: error.to_string(), changes: outcome.values, rows }
    }
}

/// Rows with changes on top, in order.
fn applied(rows: Vec<Row>, changes: &[Change]) -> Vec<Row> {
    let mut all: std::collections::BTreeMap<Vec<u8>, Vec<u8>> = rows.into_iter().collect();
    for (key, value) in changes {
        match value {
            Some(value) => all.insert(key.clone(), value.clone()),
            None => all.remove(key),
        };
    }
    all.into_iter().collect()
}

impl Engine for Exact {
    fn apply(&mut self, block: &Block, certificate: &Certificate) -> Result<Option<Mismatch>, AuditError> {
        let executed = match self.ledger.check(block) {
            Ok(executed) => executed,
            Err(error) => return Ok(Some(self.differing(block, &error))),
        };
        for receipt in executed.receipts() {
            if let Effect::Scored { counted, .. } = &receipt.effect {
                self.results += counted.len() as u64;
            }
        }
        let commit = self.ledger.commit(executed, certificate.clone())?;
        self.ledger.store_mut().commit(&commit);
        Ok(None)
    }

    fn results(&self) -> u64 {
        self.results
    }

    fn records(&self) -> Result<Vec<(ChallengeId, EpochRecord)>, AuditError> {
        let store = self.ledger.store();
        let mut out = Vec::new();
        for spec in query::challenges(store)? {
            if let Some(record) = epoch::record(store, self.epoch, spec.id)? {
                out.push((spec.id, record));
            }
        }
        Ok(out)
    }
}
