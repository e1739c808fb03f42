//! A market's network: one proposer makes its blocks, and every member signs them.

use perturb_ledger::genesis::{Draws, Parameters};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::tx::{Readiness, Snapshot};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{
    Certificate, ChainReference, Executed, Ledger, MemoryStore, ProposalInput, Transaction, VoteKind, vote_sign_bytes,
};
use perturb_types::{ConsensusKey, Signed};

use super::{Fault, Setting};
use crate::cast::{self, Cast, Setup, reference};

/// Milliseconds from one block to the next.
const BLOCK_MS: u64 = 1000;

/// Blocks in which verdicts on a drawn round count.
pub(super) const WINDOW_BLOCKS: u64 = 10;

/// A network whose blocks are made at once.
pub(super) struct Stage {
    pub cast: Cast,
    pub ledger: Ledger<MemoryStore>,
    chain: ChainReference,
}

impl Stage {
    /// The stage of a setting, at genesis.
    pub fn new(setting: &Setting) -> Result<Self, Fault> {
        let stakes: Vec<u64> = setting.validators.iter().map(|v| v.stake).collect();
        let cast = Cast::of(Setup {
            founders: stakes.len(),
            stakes,
            miners: setting.miners.len(),
            leaver: None,
            history: setting.history,
            parameters: parameters(setting),
        });
        let mut store = MemoryStore::default();
        store.keep_newest_only();
        store.commit(&genesis_commit(&cast.genesis).map_err(Fault::new)?);
        let ledger = Ledger::new(cast.genesis.clone(), store).map_err(Fault::new)?;
        Ok(Self { cast, ledger, chain: reference(1, 0) })
    }

    /// One more block. Every transaction has to be taken: whoever is refused has no aim to be measured.
    pub fn block(&mut self, transactions: Vec<Transaction>) -> Result<(), Fault> {
        let wanted = transactions.len();
        all(wanted, self.offer(transactions)?.len())
    }

    /// One more block, of what is taken, which is returned.
    pub fn offer(&mut self, transactions: Vec<Transaction>) -> Result<Vec<Transaction>, Fault> {
        self.chain = reference(self.chain.number + 1, self.chain.epoch_index);
        self.make(transactions, None)
    }

    /// Everybody says that it is there, and the epoch closes with a block that begins with these: all
    /// have to be taken.
    pub fn close(&mut self, transactions: Vec<Transaction>) -> Result<(), Fault> {
        let epoch = self.ledger.head().epoch;
        let ready = self.cast.hotkeys.iter().zip(&self.cast.pairs).map(|(hotkey, pair)| {
            let ready = Signed::sign(pair, &self.cast.network, Readiness { hotkey: hotkey.hotkey(), epoch });
            Transaction::Readiness(ready.into_envelope())
        });
        self.block(ready.collect())?;
        self.chain = reference(self.chain.number + 1, self.chain.epoch_index + 1);
        let wanted = transactions.len() + 1;
        let snapshot = self.cast.snapshot(self.chain.clone());
        all(wanted, self.make(transactions, Some(snapshot))?.len())
    }

    fn make(&mut self, transactions: Vec<Transaction>, snapshot: Option<Snapshot>) -> Result<Vec<Transaction>, Fault> {
        let input = ProposalInput {
            time_ms: self.ledger.head().time_ms + BLOCK_MS,
            proposer: self.proposer()?,
            reference: self.chain.clone(),
            snapshot,
            transactions,
        };
        let (block, executed) = self.ledger.propose(input).map_err(Fault::new)?;
        let certificate = self.certify(&executed);
        let commit = self.ledger.commit(executed, certificate).map_err(Fault::new)?;
        self.ledger.store_mut().commit(&commit);
        Ok(block.body.transactions)
    }

    fn proposer(&self) -> Result<ConsensusKey, Fault> {
        self.ledger.validators().iter().next().map(|v| v.key).ok_or_else(|| Fault::new("the set is empty"))
    }

    fn certify(&self, executed: &Executed) -> Certificate {
        let height = executed.block().header.height;
        let bytes = vote_sign_bytes(&self.cast.network, VoteKind::Precommit, height, 0, Some(executed.digest()));
        let is_member = |key: &ConsensusKey| self.ledger.validators().by_key(key).is_some();
        let members = self.cast.pairs.iter().filter(|pair| is_member(&pair.public()));
        let signatures = members.map(|pair| (pair.public(), pair.sign(&bytes))).collect();
        Certificate::new(height, 0, executed.digest(), signatures)
    }
}

fn all(wanted: usize, taken: usize) -> Result<(), Fault> {
    if taken == wanted {
        return Ok(());
    }
    Err(Fault::new(format!("{taken} of {wanted} transactions were taken")))
}

/// Blocks with room for everything, draws at once, and no validator's power capped.
fn parameters(setting: &Setting) -> Parameters {
    let usual = cast::parameters(setting.check_rate);
    let mut spot_checks = usual.spot_checks;
    spot_checks.window_blocks = WINDOW_BLOCKS;
    Parameters {
        power: PowerRule::Stake { max_share: 333_333 },
        block_interval_ms: BLOCK_MS as u32,
        max_block_transactions: 4096,
        max_block_bytes: 2 << 20,
        max_rounds_per_epoch: 10_000,
        spot_checks,
        min_work: setting.min_work,
        draws: Draws { delay_ms: 1, pulse_stride: 1, retention_blocks: 100 },
        ..usual
    }
}
