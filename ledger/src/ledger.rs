//! A ledger proposes blocks, checks those of others, and commits what was certified.

use std::collections::HashSet;

use perturb_types::encode;
use perturb_types::{ConsensusKey, Digest, NetworkId, limits};

use crate::block::{Block, Body, ChainReference, Header, PROTOCOL};
use crate::certificate::{Certificate, CertificateError};
use crate::epoch;
use crate::execute::{Executor, TxError};
use crate::genesis::{Genesis, GenesisError, Parameters};
use crate::proofs::{StateProof, Tree, key_hash};
use crate::receipt::{self, Receipt};
use crate::seeds::SeedsRow;
use crate::state::{
    self, KeyRow, META, Meta, PARAMETERS, PARENT_SET, SEEDS, SET, SNAPSHOT, challenge_key, key_key, round_key_key,
};
use crate::store::{Change, Commit, StateStore, StoreError};
use crate::tx::{Snapshot, Transaction};
use crate::validators::ValidatorSet;
use crate::verified::Verified;

/// The newest committed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its height; 0 is genesis.
    pub height: u64,
    /// Its header's digest.
    pub digest: Digest,
    /// Its time, Unix milliseconds.
    pub time_ms: u64,
    /// The epoch in the making after it.
    pub epoch: u64,
    /// Its chain reference.
    pub reference: ChainReference,
    /// The state root after it.
    pub state_root: Digest,
    /// Its certificate; none for genesis.
    pub certificate: Option<Certificate>,
}

/// What a proposer puts in.
#[derive(Clone, Debug)]
pub struct ProposalInput {
    /// Its clock, Unix milliseconds; must be after the parent's time.
    pub time_ms: u64,
    /// Its consensus key.
    pub proposer: ConsensusKey,
    /// Its chain reference; the parent's may be repeated.
    pub reference: ChainReference,
    /// The snapshot at the reference, where its epoch index is above the parent's.
    pub snapshot: Option<Snapshot>,
    /// Candidates, oldest first; those that do not execute are left out.
    pub transactions: Vec<Transaction>,
}

/// A block with what it does.
#[derive(Clone, Debug)]
pub struct Executed {
    block: Block,
    digest: Digest,
    receipts: Vec<Receipt>,
    tree: jmt::storage::TreeUpdateBatch,
    values: Vec<Change>,
    next: ValidatorSet,
    parameters: Parameters,
}

impl Executed {
    /// The block.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Its header's digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What its transactions did, in their order.
    pub fn receipts(&self) -> &[Receipt] {
        &self.receipts
    }
}

/// What a block's execution comes to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What its transactions did, in their order.
    pub receipts: Vec<Receipt>,
    /// The set of the next height.
    pub next: ValidatorSet,
    /// Root of the state after it.
    pub state_root: Digest,
    /// The epoch in the making after it.
    pub epoch: u64,
    /// Changed keys, in order.
    pub values: Vec<Change>,
    parameters: Parameters,
    tree: jmt::storage::TreeUpdateBatch,
}

/// Why a block is not valid here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A header field that is not what it must be.
    #[error("block of height {height}: {field} is {found}, expected {expected}")]
    Field {
        /// The block's height.
        height: u64,
        /// The field.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// The parent's certificate.
    #[error("block of height {height}: its parent's certificate: {error}")]
    Parent {
        /// The block's height.
        height: u64,
        /// What is wrong.
        error: CertificateError,
    },
    /// A transaction that does not execute.
    #[error("block of height {height}: transaction {index} ({name}): {error}")]
    Transaction {
        /// The block's height.
        height: u64,
        /// Its index.
        index: usize,
        /// Its kind.
        name: &'static str,
        /// Why.
        error: TxError,
    },
    /// A rule on the whole block.
    #[error("block of height {height}: {why}")]
    Rule {
        /// The block's height.
        height: u64,
        /// Which.
        why: String,
    },
    /// The state cannot be read: nothing to do with the block.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A ledger that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The genesis file.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The store has no genesis block.
    #[error("the store is empty: commit genesis first")]
    Empty,
    /// The store belongs to another network.
    #[error("the store belongs to network {found}, the genesis file makes network {expected}")]
    OtherNetwork {
        /// The store's.
        found: NetworkId,
        /// The file's.
        expected: NetworkId,
    },
    /// A row is not what the newest header says of it.
    #[error("row {row} is not the one that was agreed: the store is damaged")]
    Damaged {
        /// The row's key.
        row: String,
    },
    /// A certificate that does not belong to the block.
    #[error("the certificate is for {certificate}, the block is {block}")]
    Mismatch {
        /// What the certificate names.
        certificate: Digest,
        /// The block.
        block: Digest,
    },
    /// An own proposal that is not valid.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// The commit of height 0: the state that the genesis file describes.
///
/// # Errors
/// The file makes no network.
pub fn genesis_commit(genesis: &Genesis) -> Result<Commit, LedgerError> {
    let set = genesis.founders()?;
    let network = genesis.network_id();
    let mut values: Vec<Change> = Vec::new();
    let mut put = |key: Vec<u8>, row: Vec<u8>| values.push((key, Some(row)));
    put(
        META.to_vec(),
        encode::encode(&Meta {
            epoch: 0,
            reference: genesis.snapshot.reference.clone(),
            epoch_start: 0,
            owner: genesis.owner,
            owner_nonce: 0,
            required_version: (0, 0, 0),
            results: 0,
        }),
    );
    put(SET.to_vec(), encode::encode(&set));
    put(SNAPSHOT.to_vec(), encode::encode(&genesis.snapshot));
    put(PARAMETERS.to_vec(), encode::encode(&genesis.parameters));
    for spec in &genesis.challenges {
        put(challenge_key(spec.id), encode::encode(spec));
    }
    for d in &genesis.delegations {
        put(key_key(&d.hotkey), encode::encode(&KeyRow { key: d.key, round_key: d.round_key, sequence: 0 }));
        put(round_key_key(0, &d.hotkey), encode::encode(&d.round_key));
    }
    put(SEEDS.to_vec(), encode::encode(&SeedsRow::first(&network)));
    values.sort();
    let empty = crate::store::MemoryStore::default();
    let (root, tree) = Tree::new(&empty)
        .put_value_set(values.iter().map(|(k, v)| (key_hash(k), v.clone())), 0)
        .map_err(|e| StoreError(e.to_string()))?;
    let body = Body { transactions: Vec::new(), parent_certificate: None };
    let hash = set.hash(&network);
    let header = Header {
        protocol: PROTOCOL,
        network,
        height: 0,
        parent: Digest([0; 32]),
        parent_certificate: body.certificate_digest(),
        time_ms: genesis.time_ms,
        proposer: ConsensusKey([0; 32]),
        transactions_root: body.root(&network),
        transactions: 0,
        state_root: Digest(root.0),
        results_root: receipt::root(&network, &[]),
        validators: hash,
        next_validators: hash,
        epoch: 0,
        reference: genesis.snapshot.reference.clone(),
    };
    let digest = header.digest(&network);
    Ok(Commit {
        height: 0,
        digest,
        block: Block { header, body },
        certificate: None,
        receipts: Vec::new(),
        tree,
        values,
    })
}

/// The agreed history over a store.
pub struct Ledger<S> {
    genesis: Genesis,
    network: NetworkId,
    store: S,
    head: Head,
    set: ValidatorSet,
    parameters: Parameters,
    verified: Verified,
}

impl<S: StateStore> Ledger<S> {
    /// The ledger of a store that holds at least genesis.
    ///
    /// # Errors
    /// The store is empty, damaged, or of another network.
    pub fn new(genesis: Genesis, store: S) -> Result<Self, LedgerError> {
        let network = genesis.network_id();
        let (header, certificate) = store.newest()?.ok_or(LedgerError::Empty)?;
        if header.network != network {
            return Err(LedgerError::OtherNetwork { found: header.network, expected: network });
        }
        check_rows(&store, &header)?;
        let set = crate::query::validators(&store)?;
        if set.hash(&network) != header.next_validators {
            return Err(LedgerError::Damaged { row: "set".into() });
        }
        let parameters = crate::query::parameters(&store)?;
        let head = head_of(&network, &header, certificate);
        Ok(Self { genesis, network, store, head, set, parameters, verified: Verified::default() })
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The genesis file.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The newest committed block.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The set that certifies the next height.
    pub fn validators(&self) -> &ValidatorSet {
        &self.set
    }

    /// The numbers that hold for the next height.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for a driver that keeps it in memory.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// An executor for the next height.
    fn executor(&self) -> Result<Executor<'_, S>, StoreError> {
        let height = self.head.height + 1;
        let executor = Executor::new(self.network, &self.genesis.beacon, &self.store, height)?;
        Ok(executor.remembering(&self.verified))
    }

    /// Whether a transaction would execute on the newest state.
    ///
    /// # Errors
    /// Why not; [`TxError::is_early`] tells what may become valid.
    pub fn check_transaction(&self, transaction: &Transaction) -> Result<(), TxError> {
        self.executor()?.execute(transaction).map(|_| ())
    }

    /// Builds the next block from candidates; those that do not execute, or do not fit, are left out.
    ///
    /// # Errors
    /// The input contradicts the parent, or the store fails.
    pub fn propose(&self, input: ProposalInput) -> Result<(Block, Executed), LedgerError> {
        let height = self.head.height + 1;
        let parameters = &self.parameters;
        let mut x = self.executor()?;
        x.begin(input.time_ms, self.head.certificate.as_ref())
            .map_err(|error| tx_error(height, 0, "beginning", error))?;
        let (mut bytes, mut transactions, mut receipts) = (0usize, Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for candidate in input.transactions {
            let size = encode::encode(&candidate).len();
            if transactions.len() as u32 >= parameters.max_block_transactions {
                break;
            }
            if bytes + size > parameters.max_block_bytes as usize || !seen.insert(candidate.digest(&self.network)) {
                continue;
            }
            if let Ok(receipt) = x.execute(&candidate) {
                bytes += size;
                receipts.push(receipt);
                transactions.push(candidate);
            }
        }
        let mut next = self.set.clone();
        if input.reference.epoch_index > self.head.reference.epoch_index {
            let Some(snapshot) = input.snapshot else {
                return Err(BlockError::Rule { height, why: "an epoch closes, but there is no snapshot".into() }.into());
            };
            check_snapshot(height, &snapshot, &input.reference)?;
            let close = Transaction::EpochClose { epoch: self.head.epoch, snapshot: Box::new(snapshot.clone()) };
            let closed =
                epoch::close(&mut x, &snapshot).map_err(|e| tx_error(height, transactions.len(), close.name(), e))?;
            next = closed.set;
            receipts.push(Receipt { transaction: close.digest(&self.network), effect: closed.effect });
            transactions.push(close);
        }
        let body = Body { transactions, parent_certificate: self.head.certificate.clone() };
        let Outcome { receipts, next, parameters, state_root, epoch, values, tree } =
            finish(x, input.reference.clone(), next, receipts)?;
        let header = Header {
            protocol: PROTOCOL,
            network: self.network,
            height,
            parent: self.head.digest,
            parent_certificate: body.certificate_digest(),
            time_ms: input.time_ms,
            proposer: input.proposer,
            transactions_root: body.root(&self.network),
            transactions: body.transactions.len() as u32,
            state_root,
            results_root: receipt::root(&self.network, &receipts),
            validators: self.set.hash(&self.network),
            next_validators: next.hash(&self.network),
            epoch,
            reference: input.reference,
        };
        let block = Block { header, body };
        self.check_frame(&block)?;
        let digest = block.header.digest(&self.network);
        let executed = Executed { block: block.clone(), digest, receipts, tree, values, next, parameters };
        Ok((block, executed))
    }

    /// Executes a block and compares every root.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn check(&self, block: &Block) -> Result<Executed, BlockError> {
        let h = &block.header;
        let height = h.height;
        let outcome = self.recompute(block)?;
        expect(height, "state root", &h.state_root, &outcome.state_root)?;
        expect(height, "results root", &h.results_root, &receipt::root(&self.network, &outcome.receipts))?;
        expect(height, "next validators", &h.next_validators, &outcome.next.hash(&self.network))?;
        expect(height, "epoch", &h.epoch, &outcome.epoch)?;
        let digest = h.digest(&self.network);
        let Outcome { receipts, next, parameters, tree, values, .. } = outcome;
        Ok(Executed { block: block.clone(), digest, receipts, tree, values, next, parameters })
    }

    /// Executes a block, whatever its header says came of it: an auditor compares then, and names
    /// the leaf that differs. Nothing is committed from here.
    ///
    /// # Errors
    /// A transaction does not execute, or the block does not follow the newest one.
    pub fn recompute(&self, block: &Block) -> Result<Outcome, BlockError> {
        self.check_frame(block)?;
        let h = &block.header;
        let height = h.height;
        let mut x = self.executor()?;
        x.begin(h.time_ms, block.body.parent_certificate.as_ref())
            .map_err(|error| tx_error(height, 0, "beginning", error))?;
        let closes = h.reference.epoch_index > self.head.reference.epoch_index;
        let (mut receipts, mut next, mut closed) = (Vec::new(), self.set.clone(), false);
        for (index, transaction) in block.body.transactions.iter().enumerate() {
            let name = transaction.name();
            let Transaction::EpochClose { epoch, snapshot } = transaction else {
                receipts.push(x.execute(transaction).map_err(|e| tx_error(height, index, name, e))?);
                continue;
            };
            if !closes || index + 1 != block.body.transactions.len() || *epoch != self.head.epoch {
                return Err(BlockError::Rule { height, why: "an epoch close where none belongs".into() });
            }
            check_snapshot(height, snapshot, &h.reference)?;
            let outcome = epoch::close(&mut x, snapshot).map_err(|e| tx_error(height, index, name, e))?;
            next = outcome.set;
            receipts.push(Receipt { transaction: transaction.digest(&self.network), effect: outcome.effect });
            closed = true;
        }
        if closes != closed {
            return Err(BlockError::Rule { height, why: "the epoch index rises and nothing closes the epoch".into() });
        }
        Ok(finish(x, h.reference.clone(), next, receipts)?)
    }

    /// What can be checked without executing.
    fn check_frame(&self, block: &Block) -> Result<(), BlockError> {
        let (h, body) = (&block.header, &block.body);
        let height = h.height;
        expect(height, "protocol", &h.protocol, &PROTOCOL)?;
        expect(height, "network", &h.network, &self.network)?;
        expect(height, "height", &h.height, &(self.head.height + 1))?;
        expect(height, "parent", &h.parent, &self.head.digest)?;
        expect(height, "validators", &h.validators, &self.set.hash(&self.network))?;
        if h.time_ms <= self.head.time_ms {
            return rule(height, format!("its time {} is not after its parent's {}", h.time_ms, self.head.time_ms));
        }
        if self.set.by_key(&h.proposer).is_none() {
            return rule(height, format!("its proposer {} is no member", h.proposer));
        }
        let parameters = &self.parameters;
        let closing = usize::from(matches!(body.transactions.last(), Some(Transaction::EpochClose { .. })));
        if body.transactions.len() > parameters.max_block_transactions as usize + closing {
            return rule(height, format!("{} transactions", body.transactions.len()));
        }
        let bytes: usize = body.transactions.iter().map(|t| encode::encode(t).len()).sum();
        if bytes > parameters.max_block_bytes as usize + limits::MAX_EPOCH_CLOSE_BYTES {
            return rule(height, format!("{bytes} bytes of transactions"));
        }
        expect(height, "transaction count", &(h.transactions as usize), &body.transactions.len())?;
        expect(height, "transactions root", &h.transactions_root, &body.root(&self.network))?;
        expect(height, "parent certificate", &h.parent_certificate, &body.certificate_digest())?;
        let old = &self.head.reference;
        let repeats = h.reference == *old;
        if !repeats && (h.reference.number <= old.number || h.reference.epoch_index < old.epoch_index) {
            return rule(height, format!("its chain reference {} goes back behind {}", h.reference.number, old.number));
        }
        self.check_parent_certificate(height, body)
    }

    /// The body's certificate must certify the parent: any quorum will do, it need not be mine.
    fn check_parent_certificate(&self, height: u64, body: &Body) -> Result<(), BlockError> {
        match (&body.parent_certificate, &self.head.certificate) {
            (None, None) => Ok(()),
            (Some(theirs), Some(mine)) if theirs == mine => Ok(()),
            (Some(theirs), Some(_)) => {
                expect(height, "certified parent", &theirs.digest, &self.head.digest)?;
                expect(height, "certified height", &theirs.height, &self.head.height)?;
                let set = self.parent_set()?;
                theirs.verify(&self.network, &set).map_err(|error| BlockError::Parent { height, error })?;
                Ok(())
            }
            _ => rule(height, "its parent's certificate is missing or surplus".into()),
        }
    }

    /// The set that certified the newest block.
    fn parent_set(&self) -> Result<ValidatorSet, StoreError> {
        Ok(state::read(&self.store, PARENT_SET)?.unwrap_or_else(|| self.set.clone()))
    }

    /// Takes a certified block as the new head; the caller stores the commit.
    ///
    /// # Errors
    /// The certificate is for another block.
    pub fn commit(&mut self, executed: Executed, certificate: Certificate) -> Result<Commit, LedgerError> {
        if certificate.digest != executed.digest || certificate.height != executed.block.header.height {
            return Err(LedgerError::Mismatch { certificate: certificate.digest, block: executed.digest });
        }
        self.head = head_of(&self.network, &executed.block.header, Some(certificate.clone()));
        self.set = executed.next;
        self.parameters = executed.parameters;
        Ok(Commit {
            height: self.head.height,
            digest: executed.digest,
            block: executed.block,
            certificate: Some(certificate),
            receipts: executed.receipts,
            tree: executed.tree,
            values: executed.values,
        })
    }
}

/// The rows that every block reads must be those that the newest header's state root names: a node
/// with others would follow another network.
fn check_rows<S: StateStore>(store: &S, header: &Header) -> Result<(), LedgerError> {
    let mut keys: Vec<Vec<u8>> = [META, SET, SNAPSHOT, PARAMETERS].map(<[u8]>::to_vec).to_vec();
    keys.extend(store.scan(b"challenge/")?.into_iter().map(|(key, _)| key));
    for key in keys {
        let proof = StateProof::make(store, header.height, &key)?;
        if !proof.verify(&header.state_root) || proof.value != store.value(&key)? {
            return Err(LedgerError::Damaged { row: String::from_utf8_lossy(&key).into_owned() });
        }
    }
    Ok(())
}

fn head_of(network: &NetworkId, header: &Header, certificate: Option<Certificate>) -> Head {
    Head {
        height: header.height,
        digest: header.digest(network),
        time_ms: header.time_ms,
        epoch: header.epoch,
        reference: header.reference.clone(),
        state_root: header.state_root,
        certificate,
    }
}

fn rule(height: u64, why: String) -> Result<(), BlockError> {
    Err(BlockError::Rule { height, why })
}

fn tx_error(height: u64, index: usize, name: &'static str, error: TxError) -> BlockError {
    match error {
        TxError::Store(e) => BlockError::Store(e),
        error => BlockError::Transaction { height, index, name, error },
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(
    height: u64,
    field: &'static str,
    found: &T,
    expected: &T,
) -> Result<(), BlockError> {
    if found == expected {
        return Ok(());
    }
    Err(BlockError::Field { height, field, found: format!("{found:?}"), expected: format!("{expected:?}") })
}

fn check_snapshot(height: u64, snapshot: &Snapshot, reference: &ChainReference) -> Result<(), BlockError> {
    expect(height, "snapshot's reference", &snapshot.reference, reference)?;
    if !snapshot.is_ordered() {
        return rule(height, "its snapshot is out of order".into());
    }
    Ok(())
}

/// Writes what every block writes and computes the state root.
fn finish<S: StateStore>(
    mut x: Executor<'_, S>,
    reference: ChainReference,
    next: ValidatorSet,
    receipts: Vec<Receipt>,
) -> Result<Outcome, StoreError> {
    let old: ValidatorSet = x.state.must(SET)?;
    x.frame.meta.reference = reference;
    let (meta, height) = (x.frame.meta.clone(), x.height());
    x.state.put(META.to_vec(), &meta);
    x.state.put(PARENT_SET.to_vec(), &old);
    if next != old {
        x.state.put(SET.to_vec(), &next);
    }
    let parameters = x.frame.parameters.clone();
    let snapshot = x.frame.snapshot.clone();
    x.state.put(SNAPSHOT.to_vec(), &snapshot);
    x.state.accept();
    let store = x.state.store();
    let values = x.state.into_changes()?;
    let (root, tree) = Tree::new(store)
        .put_value_set(values.iter().map(|(k, v)| (key_hash(k), v.clone())), height)
        .map_err(|e| StoreError(format!("state tree at height {height}: {e}")))?;
    Ok(Outcome { receipts, next, parameters, state_root: Digest(root.0), epoch: meta.epoch, values, tree })
}
