//! Checks a whole database: every link of the history, every certificate, every row.
//!
//! What is checked, in this order, and reported up to the first fault:
//! 1. headers that outlived their blocks: each is certified by the set that genesis and the
//!    handovers before it lead to;
//! 2. each block's header names its parent, its body, its receipts and the set that certifies it;
//!    each certificate is a quorum of that set; each set follows by a handover; its digest and its
//!    rounds are found by their indexes;
//! 3. the rows of the newest state make exactly the root that the newest header names, and the
//!    Merkle tree on disk proves every one of them and has no other leaf;
//! 4. the copies of the state at epochs' ends make the roots of their headers;
//! 5. each image is the one that its digest names, and stands in the index of its round, and nothing
//!    else does;
//! 6. the consensus log and the signing guard read back.
//!
//! Faults of 1 to 4 name the height, and the row's key where it is a row.

use perturb_ledger::archive::{Archive, state_root};
use perturb_ledger::proofs::{StateProof, Tree};
use perturb_ledger::state::SET;
use perturb_ledger::{Genesis, Header, StateStore, ValidatorSet, receipt};
use perturb_types::{Digest, NetworkId};
use rocksdb::IteratorMode;

use crate::archive::round_of;
use crate::database::{Database, HEADERS, IMAGE_ROUNDS, IMAGES};
use crate::error::StorageError;
use crate::guard::{self, Mark};
use crate::images::image_key;

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blocks, genesis included.
    pub blocks: u64,
    /// Headers whose blocks are pruned.
    pub headers: u64,
    /// Signatures of certificates.
    pub signatures: u64,
    /// Transactions.
    pub transactions: u64,
    /// Rows of the newest state, each with its leaf.
    pub rows: u64,
    /// Kept copies of the state at epochs' ends.
    pub copies: u64,
    /// Images.
    pub images: u64,
    /// Records of the consensus log.
    pub log_records: u64,
    /// What the signing guard signed last.
    pub signed: Option<Mark>,
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
        let (network, oldest) = (genesis.network_id(), self.oldest()?.block.max(1));
        let founders = genesis.founders().map_err(|e| fault(0, e))?;
        let mut set = self.check_block(&network, 0, oldest, founders, &mut seen)?;
        for row in self.inner.db.iterator_cf(self.family(HEADERS)?, IteratorMode::Start) {
            let (_, bytes) = row.map_err(|e| self.failed(e))?;
            let header: Header = self.parse("header", &bytes)?;
            if header.height >= oldest {
                return Err(fault(header.height, "it is kept beside its block"));
            }
            set = self.check_header(&network, &header, set, &mut seen)?;
            seen.headers += 1;
        }
        for height in oldest..=tip {
            set = self.check_block(&network, height, oldest, set, &mut seen)?;
            progress(height);
        }
        self.check_state(tip, &mut seen)?;
        for height in self.epoch_heights()? {
            self.check_copy(height)?;
            seen.copies += 1;
        }
        self.check_images(&mut seen)?;
        seen.log_records = self.log_records()?.len() as u64;
        seen.signed = guard::last_in(self.data_dir())?;
        Ok(seen)
    }

    /// Gives the set of the next height.
    fn check_header(
        &self,
        network: &NetworkId,
        header: &Header,
        set: ValidatorSet,
        seen: &mut Checked,
    ) -> Result<ValidatorSet, Fault> {
        let height = header.height;
        if header.validators != set.hash(network) {
            return Err(fault(height, "its validator set does not follow from genesis"));
        }
        let digest = header.digest(network);
        if self.height_of(&digest)? != Some(height) {
            return Err(fault(height, "it is not found by its digest"));
        }
        if height == 0 {
            return Ok(set);
        }
        let certificate = self.certificate(height)?.ok_or_else(|| fault(height, "its certificate is missing"))?;
        if certificate.height != height || certificate.digest != digest {
            return Err(fault(height, "its certificate is for another block"));
        }
        certificate.verify(network, &set).map_err(|e| fault(height, e))?;
        seen.signatures += certificate.signatures.len() as u64;
        if header.next_validators == header.validators {
            return Ok(set);
        }
        let next = self.handovers_from(height, 1).map_err(|e| fault(height, e))?;
        match next.into_iter().next().filter(|h| h.header.height == height) {
            Some(handover) if handover.next.hash(network) == header.next_validators => Ok(handover.next),
            _ => Err(fault(height, "the validator set that follows is missing or another")),
        }
    }

    fn check_block(
        &self,
        network: &NetworkId,
        height: u64,
        oldest: u64,
        set: ValidatorSet,
        seen: &mut Checked,
    ) -> Result<ValidatorSet, Fault> {
        let block = self.block(height)?.ok_or_else(|| fault(height, "it is missing"))?;
        let header = &block.header;
        let wrong = |what: &str| Err(fault(height, what));
        if header.network != *network || header.height != height {
            return wrong("it is of another network or height");
        }
        if !block.is_whole(network) {
            return wrong("its body is not the one its header names");
        }
        let receipts = self.receipts(height)?.ok_or_else(|| fault(height, "its receipts are missing"))?;
        if receipt::root(network, &receipts) != header.results_root {
            return wrong("its receipts are not the ones its header names");
        }
        let next = self.check_header(network, header, set, seen)?;
        if let Some(before) = height.checked_sub(1) {
            match self.header(before)? {
                Some(parent) if header.parent == parent.digest(network) => {}
                Some(_) => return wrong("it does not follow the block before it"),
                None if height == oldest => {}
                None => return Err(fault(before, "it is missing")),
            }
        }
        for (index, transaction) in block.body.transactions.iter().enumerate() {
            let Some((kind, round)) = round_of(transaction) else { continue };
            if self.place(kind, &round)?.is_none_or(|place| (place.height, place.index) != (height, index)) {
                return Err(fault(height, format!("round {} of transaction {index} is not found", round.seq)));
            }
        }
        seen.blocks += 1;
        seen.transactions += block.body.transactions.len() as u64;
        Ok(next)
    }

    fn check_state(&self, tip: u64, seen: &mut Checked) -> Result<(), Fault> {
        let bad = |what: String| Fault::State { height: tip, what };
        let header = self.header(tip)?.ok_or_else(|| fault(tip, "it is missing"))?;
        let rows = self.scan(b"").map_err(|e| bad(e.to_string()))?;
        seen.rows = rows.len() as u64;
        let root = state_root(&rows).map_err(|e| bad(e.to_string()))?;
        // Which row it is, the tree knows.
        for (key, value) in &rows {
            let key_text = String::from_utf8_lossy(key);
            let proof =
                StateProof::make(self, tip, key).map_err(|e| bad(format!("the tree's leaf of row {key_text}: {e}")))?;
            if proof.value.as_ref() != Some(value) {
                return Err(bad(format!("row {key_text} is not the one that was agreed")));
            }
            if !proof.verify(&header.state_root) {
                return Err(bad(format!("the tree on disk does not prove row {key_text}")));
            }
        }
        let leaves = Tree::new(self).get_leaf_count(tip).map_err(|e| bad(e.to_string()))?;
        if root != header.state_root || leaves != rows.len() {
            let rows = rows.len();
            return Err(bad(format!(
                "{rows} rows make root {root}, the tree has {leaves} leaves, the header names {}: a row is missing",
                header.state_root
            )));
        }
        Ok(())
    }

    fn check_images(&self, seen: &mut Checked) -> Result<(), Fault> {
        let bad = |what: String, why: &str| Fault::Storage(StorageError::Damaged { what, why: why.into() });
        let mut indexed = 0;
        for row in self.inner.db.iterator_cf(self.family(IMAGE_ROUNDS)?, IteratorMode::Start) {
            let (key, len) = row.map_err(|e| self.failed(e))?;
            let (place, digest, len) = self.index_row(&key, &len)?;
            let png = self.get(IMAGES, &image_key(&digest, &place.key()))?;
            let what = format!("image {digest} of round {}", place.round());
            match png {
                None => return Err(bad(what, "it is missing")),
                Some(png) if png.len() != len || Digest::of(&png) != digest => {
                    return Err(bad(what, "its bytes have another digest"));
                }
                Some(_) => indexed += 1,
            }
        }
        for row in self.inner.db.iterator_cf(self.family(IMAGES)?, IteratorMode::Start) {
            row.map_err(|e| self.failed(e))?;
            seen.images += 1;
        }
        if seen.images != indexed {
            return Err(bad("image index".into(), &format!("{indexed} of {} images are in it", seen.images)));
        }
        Ok(())
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
