//! The node around the chain: it takes transactions and development changes, makes a block at every tick, and tells
//! everybody who listens.

use crate::chain::Chain;
use crate::error::{ChainError, StartError};
use crate::faults::Faults;
use crate::genesis::Genesis;
use crate::pool::{Pool, PoolError, Status};
use crate::runtime::admin::{DevError, DevOp};
use crate::runtime::{Executive, System, UncheckedExtrinsic};
use scale::{DecodeLimit, Encode};
use sp_core::H256;
use sp_runtime::AccountId32;
use sp_runtime::traits::{BlakeTwo256, Hash};
use sp_runtime::transaction_validity::{TransactionSource, TransactionValidityError};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};

/// Development changes that wait for a block; a person makes a few at a time.
const MAX_WAITING_OPS: usize = 1024;

/// No call of this runtime comes near this size.
pub(crate) const MAX_EXTRINSIC_BYTES: usize = 256 * 1024;

/// Calls nest inside calls no deeper than this.
const MAX_CALL_DEPTH: u32 = 64;

/// Why a transaction was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The bytes are no extrinsic of this runtime.
    #[error("Extrinsic has invalid format: {0}")]
    Format(String),
    /// The runtime does not accept it.
    #[error("Invalid Transaction")]
    Invalid(TransactionValidityError),
    /// The pool does not accept it.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A fault was asked for.
    #[error("refused on request (dev_setFault)")]
    Fault,
    /// The runtime failed on it.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Why a development change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    /// The chain refuses it.
    #[error(transparent)]
    Refused(#[from] DevError),
    /// Too many wait.
    #[error("too many development changes are waiting for a block")]
    Busy,
    /// The block with it could not be made, or the node stops.
    #[error("no block could be made with this change")]
    NoBlock,
}

/// Where a development change ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpDone {
    /// The block that holds it.
    pub block: H256,
    /// The uid it concerns, if any.
    pub uid: Option<u16>,
}

type WaitingOp = (DevOp, oneshot::Sender<Result<OpDone, OpError>>);

/// The node.
pub(crate) struct Node {
    chain: RwLock<Chain>,
    pool: Mutex<Pool>,
    ops: Mutex<Vec<WaitingOp>>,
    head: watch::Sender<u32>,
    /// Failures on purpose.
    pub faults: Faults,
}

impl Node {
    /// Open the chain.
    pub(crate) fn open(genesis: &Genesis, folder: Option<&Path>, slot_millis: u64) -> Result<Self, StartError> {
        let chain = Chain::open(genesis, folder, slot_millis)?;
        let head = watch::Sender::new(*chain_number(&chain));
        Ok(Self {
            chain: RwLock::new(chain),
            pool: Mutex::default(),
            ops: Mutex::default(),
            head,
            faults: Faults::default(),
        })
    }

    /// The chain, to read.
    pub(crate) fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        // A poisoned lock means a panic between two consistent states; the chain itself is only changed at the end.
        self.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool.
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ops(&self) -> MutexGuard<'_, Vec<WaitingOp>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of the newest block, and every newer one as it is made.
    pub(crate) fn heads(&self) -> watch::Receiver<u32> {
        self.head.subscribe()
    }

    /// Check a transaction and let it wait for a block. Returns its hash.
    pub(crate) fn submit(&self, bytes: Vec<u8>, watcher: Option<mpsc::Sender<Status>>) -> Result<H256, SubmitError> {
        if self.faults.current().refuse_extrinsics {
            return Err(SubmitError::Fault);
        }
        let extrinsic = decode_extrinsic(&bytes)?;
        let validity = {
            let chain = self.chain();
            let at = chain.head().hash;
            let checked = extrinsic.clone();
            chain.read(|| Executive::validate_transaction(TransactionSource::External, checked, at))?
        };
        let hash = BlakeTwo256::hash(&bytes);
        self.pool().add(hash, (extrinsic, bytes), validity.map_err(SubmitError::Invalid)?, watcher)?;
        Ok(hash)
    }

    /// The account's next nonce, waiting transactions counted.
    pub(crate) fn next_nonce(&self, who: &AccountId32) -> Result<u32, ChainError> {
        let nonce = self.chain().read(|| System::account_nonce(who.clone()))?;
        Ok(self.pool().next_nonce(who, nonce))
    }

    /// Make a development change in the next block, and wait for it.
    pub(crate) async fn change(&self, op: DevOp) -> Result<OpDone, OpError> {
        let (sender, done) = oneshot::channel();
        {
            let mut ops = self.ops();
            if ops.len() >= MAX_WAITING_OPS {
                return Err(OpError::Busy);
            }
            ops.push((op, sender));
        }
        done.await.unwrap_or(Err(OpError::NoBlock))
    }

    /// Make the next block out of what waits.
    ///
    /// If the runtime fails on what waits, all of it is dropped and an empty block is made: a development chain that
    /// stands still helps nobody.
    pub(crate) fn make_block(&self) -> Result<H256, ChainError> {
        let (places, transactions) = self.pool().next_block();
        let (ops, senders): (Vec<DevOp>, Vec<_>) = std::mem::take(&mut *self.ops()).into_iter().unzip();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let mut built = self.chain().build(now, &ops, &transactions);
        if let Err(error) = &built
            && !(places.is_empty() && ops.is_empty())
        {
            tracing::error!(%error, transactions = places.len(), changes = ops.len(), "dropped what the runtime failed on");
            self.pool().reject(&places);
            built = self.chain().build(now, &[], &[]);
        }
        let built = built?;
        let (outcomes, results) = (built.outcomes.clone(), built.ops.clone());
        let (hash, number) = {
            let mut chain = self.chain.write().unwrap_or_else(PoisonError::into_inner);
            let hash = chain.commit(built)?;
            (hash, *chain_number(&chain))
        };
        self.pool().settle(&places, &outcomes, hash);
        for (sender, result) in senders.into_iter().zip(results) {
            // Nobody waits for the answer any more if the caller went away.
            drop(sender.send(result.map(|uid| OpDone { block: hash, uid }).map_err(OpError::from)));
        }
        self.head.send_replace(number);
        tracing::debug!(number, ?hash, transactions = outcomes.len(), "block");
        Ok(hash)
    }

    /// Bring everything to the disk and let go of the folder. The last answers may still be on their way.
    pub(crate) fn close(&self) {
        let mut chain = self.chain.write().unwrap_or_else(PoisonError::into_inner);
        tracing::debug!(number = chain_number(&chain), nodes = chain.nodes(), "stopping");
        if let Err(error) = chain.close() {
            tracing::warn!(%error, "the log could not be synced");
        }
    }
}

fn chain_number(chain: &Chain) -> &u32 {
    use sp_runtime::traits::Header as _;
    chain.head().header.number()
}

/// Decode an extrinsic whole. Bytes that would encode otherwise are refused: its hash is that of the bytes.
pub(crate) fn decode_extrinsic(bytes: &[u8]) -> Result<UncheckedExtrinsic, SubmitError> {
    if bytes.len() > MAX_EXTRINSIC_BYTES {
        return Err(SubmitError::Format(format!("{} bytes; at most {MAX_EXTRINSIC_BYTES} are taken", bytes.len())));
    }
    let extrinsic = UncheckedExtrinsic::decode_all_with_depth_limit(MAX_CALL_DEPTH, &mut &*bytes)
        .map_err(|error| SubmitError::Format(error.to_string()))?;
    if extrinsic.encode() != bytes {
        return Err(SubmitError::Format("not the canonical encoding".to_owned()));
    }
    Ok(extrinsic)
}
