//! Checks a whole database: every link of the history, every certificate, every row.
//!
//! What is checked, in this order, and reported up to the first fault:
//! 1. each block's header names its parent, its body, its receipts and the set that certifies it;
//! 2. each certificate is a quorum of that set; the sets follow from genesis by the handovers;
//! 3. the rows of the newest state make exactly the root that the newest header names;
//! 4. the copies of the state at epochs' ends make the roots of their headers;
//! 5. the consensus log reads back.

use perturb_ledger::archive::{Archive, state_root};
use perturb_ledger::state::SET;
use perturb_ledger::{Genesis, StateStore, ValidatorSet, receipt};

use crate::database::Database;
use crate::error::StorageError;

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blocks, genesis included.
    pub blocks: u64,
    /// Signatures of certificates.
    pub signatures: u64,
    /// Transactions.
    pub transactions: u64,
    /// Rows of the newest state.
    pub rows: u64,
    /// Kept copies of the state at epochs' ends.
    pub copies: u64,
    /// Records of the consensus log.
    pub log_records: u64,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A block or what belongs to it.
    #[error("block {height}: {what}")]
    Block {
        /// Its height.
        height: u64,
        /// What is wrong.
        what: String,
    },
    /// The newest state, or the copy of an older one.
    #[error("the state after block {height}: {what}")]
    State {
        /// The height.
        height: u64,
        /// What is wrong.
        what: String,
    },
}

impl Database {
    /// Checks everything that can be checked without a network; `progress` is told each height.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self, genesis: &Genesis, mut progress: impl FnMut(u64)) -> Result<Checked, Fault> {
        let mut seen = Checked::default();
        let tip = self.height()?.ok_or_else(|| fault(0, "the database is empty"))?;
        let mut set = genesis.founders().map_err(|e| fault(0, e))?;
        for height in 0..=tip {
            set = self.check_block(genesis, height, set, &mut seen)?;
            progress(height);
        }
        self.check_state(tip, &mut seen)?;
        for height in self.epoch_heights()? {
            self.check_copy(height)?;
            seen.copies += 1;
        }
        seen.log_records = self.log_records()?.len() as u64;
        Ok(seen)
    }

    /// Gives the set of the next height.
    fn check_block(
        &self,
        genesis: &Genesis,
        height: u64,
        set: ValidatorSet,
        seen: &mut Checked,
    ) -> Result<ValidatorSet, Fault> {
        let network = genesis.network_id();
        let block = self.block(height)?.ok_or_else(|| fault(height, "it is missing"))?;
        let header = &block.header;
        let wrong = |what: &str| Err(fault(height, what));
        if header.network != network || header.height != height {
            return wrong("it is of another network or height");
        }
        if !block.is_whole(&network) {
            return wrong("its body is not the one its header names");
        }
        if header.validators != set.hash(&network) {
            return wrong("its validator set does not follow from genesis");
        }
        let receipts = self.receipts(height)?.ok_or_else(|| fault(height, "its receipts are missing"))?;
        if receipt::root(&network, &receipts) != header.results_root {
            return wrong("its receipts are not the ones its header names");
        }
        seen.blocks += 1;
        seen.transactions += block.body.transactions.len() as u64;
        if height == 0 {
            return Ok(set);
        }
        let parent = self.header(height - 1)?.ok_or_else(|| fault(height - 1, "it is missing"))?;
        if header.parent != parent.digest(&network) {
            return wrong("it does not follow the block before it");
        }
        let certificate = self.certificate(height)?.ok_or_else(|| fault(height, "its certificate is missing"))?;
        if certificate.height != height || certificate.digest != header.digest(&network) {
            return wrong("its certificate is for another block");
        }
        certificate.verify(&network, &set).map_err(|e| fault(height, e))?;
        seen.signatures += certificate.signatures.len() as u64;
        if header.next_validators == header.validators {
            return Ok(set);
        }
        let next = self.handovers_from(height, 1).map_err(|e| fault(height, e))?;
        match next.into_iter().next().filter(|h| h.header.height == height) {
            Some(handover) if handover.next.hash(&network) == header.next_validators => Ok(handover.next),
            _ => Err(fault(height, "the validator set that follows is missing or another")),
        }
    }

    fn check_state(&self, tip: u64, seen: &mut Checked) -> Result<(), Fault> {
        let bad = |what: String| Fault::State { height: tip, what };
        let header = self.header(tip)?.ok_or_else(|| fault(tip, "it is missing"))?;
        let rows = self.scan(b"").map_err(|e| bad(e.to_string()))?;
        seen.rows = rows.len() as u64;
        let root = state_root(&rows).map_err(|e| bad(e.to_string()))?;
        if root == header.state_root {
            return Ok(());
        }
        // Which row it is, the tree knows.
        for (key, value) in &rows {
            let proof = perturb_ledger::proofs::StateProof::make(self, tip, key).map_err(|e| bad(e.to_string()))?;
            if proof.value.as_ref() != Some(value) {
                return Err(bad(format!("row {} is not the one that was agreed", String::from_utf8_lossy(key))));
            }
        }
        Err(bad(format!("its rows make root {root}, the header names {}", header.state_root)))
    }

    fn check_copy(&self, height: u64) -> Result<(), Fault> {
        let bad = |what: String| Fault::State { height, what };
        let header = self.header(height)?.ok_or_else(|| fault(height, "it is missing"))?;
        let page = self.rows_at(height, None, usize::MAX).map_err(|e| bad(e.to_string()))?.unwrap_or_default();
        let root = state_root(&page.rows).map_err(|e| bad(e.to_string()))?;
        let has_set = page.rows.iter().any(|(key, _)| key == SET);
        if root != header.state_root || !has_set {
            return Err(bad("its kept copy is not the one that was agreed".into()));
        }
        Ok(())
    }
}

fn fault(height: u64, what: impl ToString) -> Fault {
    Fault::Block { height, what: what.to_string() }
}
