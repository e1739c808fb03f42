//! The chain: recent blocks with their states, and making the next one.
//!
//! Every block is final when it is made. The last [`BLOCKS_KEPT`] blocks can be read whole, state included; of the
//! [`HASHES_KEPT`] before them the hashes are known.

use crate::beacon::{Beacon, BeaconSource};
use crate::error::{ChainError, StartError, StoreError};
use crate::genesis::Genesis;
use crate::runtime::admin::{self, DevError, DevOp};
use crate::runtime::apis::{api, check_call};
use crate::runtime::install::install;
use crate::runtime::{
    Drand, Executive, Header, METADATA_VERSIONS, Runtime, RuntimeCall, UncheckedExtrinsic, genesis_storage,
    set_slot_duration, version,
};
use crate::state::{Changes, NodeChanges, NodeDb, Released};
use crate::store::{Base, BlockRecord, Loaded, Store};
use frame_support::storage::{TransactionOutcome, with_transaction_unchecked};
use scale::{Decode, Encode};
use sp_consensus_aura::{AURA_ENGINE_ID, Slot};
use sp_core::{H256, OpaqueMetadata};
use sp_runtime::traits::Header as _;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};
use sp_runtime::{Digest, DigestItem};
use sp_version::RuntimeVersion;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks whose state is kept: at one block a second, eight minutes for a client to read a snapshot.
pub const BLOCKS_KEPT: usize = 512;

/// Block hashes that are kept: 2 MiB of them.
pub const HASHES_KEPT: usize = 65_536;

/// Runtime versions whose metadata is kept, half a megabyte each.
const METADATA_KEPT: usize = 4;

/// Metadata of one runtime, by its own version.
pub(crate) type Metadata = Arc<BTreeMap<u32, OpaqueMetadata>>;

/// A block in the window.
pub(crate) struct StoredBlock {
    pub header: Header,
    pub hash: H256,
    pub extrinsics: Vec<Vec<u8>>,
    /// Nodes that the parent's state has and this one's has not.
    released: Released,
    /// The encoded [`BlockRecord`]; empty for the first block of the log.
    record: Vec<u8>,
}

/// A block that has been made but not yet taken up.
pub(crate) struct Built {
    header: Header,
    extrinsics: Vec<Vec<u8>>,
    changes: Changes,
    nodes: NodeChanges,
    /// What became of each transaction, in the order given.
    pub outcomes: Vec<Outcome>,
    /// What became of each development change, in the order given.
    pub ops: Vec<Result<Option<u16>, DevError>>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the block (and may have failed there).
    Included,
    /// Its nonce is not up yet, or the block is full.
    Later,
    /// It can never be included.
    Invalid(TransactionValidityError),
}

/// The chain.
pub(crate) struct Chain {
    db: NodeDb,
    window: VecDeque<StoredBlock>,
    numbers: HashMap<H256, u32>,
    first_hash: u32,
    hashes: VecDeque<H256>,
    genesis_hash: H256,
    slot_millis: u64,
    beacon: Beacon,
    metadata: Mutex<VecDeque<(u32, Metadata)>>,
    store: Option<Store>,
}

impl Chain {
    /// Continue the chain stored in `folder`, or begin one.
    pub(crate) fn open(genesis: &Genesis, folder: Option<&Path>, slot_millis: u64) -> Result<Self, StartError> {
        genesis.check()?;
        let mut fresh = Self::begin(genesis, slot_millis)?;
        if let Some(folder) = folder {
            let (mut store, loaded) = Store::open(folder)?;
            if let Some(loaded) = loaded {
                let expected = fresh.genesis_hash;
                if loaded.base.genesis_hash != expected {
                    let (path, found) = (store.path(), loaded.base.genesis_hash);
                    return Err(StoreError::OtherGenesis { path, found, expected }.into());
                }
                fresh = Self::resume(loaded, &store, slot_millis)?;
            } else {
                store.rewrite(&fresh.base_record()?, std::iter::empty())?;
            }
            fresh.store = Some(store);
        }
        fresh.beacon = Beacon::new(&genesis.beacon);
        fresh.metadata(None)?;
        Ok(fresh)
    }

    fn begin(genesis: &Genesis, slot_millis: u64) -> Result<Self, StartError> {
        let mut db = NodeDb::default();
        let storage = genesis_storage().map_err(ChainError::State)?;
        let pairs: Changes = storage.top.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let (root, nodes) = db.root_after(NodeDb::empty_root(), &pairs);
        drop(db.add(nodes));
        let (installed, root, _, nodes) = db.change(root, || install(genesis))?;
        installed?;
        // Nothing else refers to the states before this one, so what they alone need can go at once.
        let released = db.add(nodes);
        db.release(released);
        let header = Header::new(0, no_extrinsics_root(), root, H256::zero(), Digest::default());
        Ok(Self::with_first(db, header, Vec::new(), slot_millis))
    }

    fn with_first(db: NodeDb, header: Header, extrinsics: Vec<Vec<u8>>, slot_millis: u64) -> Self {
        let hash = header.hash();
        let number = *header.number();
        let first = StoredBlock { header, hash, extrinsics, released: Released::new(), record: Vec::new() };
        Self {
            db,
            window: VecDeque::from([first]),
            numbers: HashMap::from([(hash, number)]),
            first_hash: number,
            hashes: VecDeque::from([hash]),
            genesis_hash: hash,
            slot_millis,
            beacon: Beacon::new(&BeaconSource::default()),
            metadata: Mutex::default(),
            store: None,
        }
    }

    fn resume(loaded: Loaded, store: &Store, slot_millis: u64) -> Result<Self, StartError> {
        let corrupt = |what: &str| StoreError::Corrupt { path: store.path(), offset: 0, what: what.to_owned() };
        let Base { genesis_hash, first_hash, hashes, header, extrinsics, state, .. } = loaded.base;
        let mut db = NodeDb::default();
        let pairs: Changes = state.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let (root, nodes) = db.root_after(NodeDb::empty_root(), &pairs);
        if root != *header.state_root() {
            return Err(corrupt("the first block's state does not match its header").into());
        }
        let released = db.add(nodes);
        db.release(released);
        let mut chain = Self::with_first(db, header, extrinsics, slot_millis);
        if hashes.last() != Some(&chain.head().hash) {
            return Err(corrupt("the list of hashes does not end with the first block").into());
        }
        (chain.genesis_hash, chain.first_hash, chain.hashes) = (genesis_hash, first_hash, hashes.into());
        for (block, record) in loaded.blocks {
            let head = chain.head();
            let follows = *block.header.parent_hash() == head.hash
                && Some(*block.header.number()) == head.header.number().checked_add(1);
            let (root, nodes) = chain.db.root_after(*head.header.state_root(), &block.changes);
            if !follows || root != *block.header.state_root() {
                return Err(corrupt("a block does not follow from the one before it").into());
            }
            chain.push(block.header, block.extrinsics, nodes, record);
        }
        Ok(chain)
    }

    /// The runtime's version at a block.
    pub(crate) fn version(&self, at: Option<H256>) -> Result<RuntimeVersion, ChainError> {
        self.db.read(self.root(at)?, version)
    }

    /// Metadata at a block, in each version on offer. It is slow to make and follows from the runtime's version, so it
    /// is kept for the last few of them.
    pub(crate) fn metadata(&self, at: Option<H256>) -> Result<Metadata, ChainError> {
        let spec = self.version(at)?.spec_version;
        let mut kept = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metadata)) = kept.iter().find(|(of, _)| *of == spec) {
            return Ok(Arc::clone(metadata));
        }
        let (root, slot_millis) = (self.root(at)?, self.slot_millis);
        let make = |version: u32| {
            let bytes = self.db.read(root, || {
                set_slot_duration(slot_millis);
                api::dispatch("Metadata_metadata_at_version", &version.encode())
            })?;
            let found = bytes.and_then(|bytes| Option::<OpaqueMetadata>::decode(&mut &bytes[..]).ok().flatten());
            found.map(|metadata| (version, metadata)).ok_or_else(|| ChainError::State("no metadata".to_owned()))
        };
        let made: Metadata = Arc::new(METADATA_VERSIONS.into_iter().map(make).collect::<Result<_, _>>()?);
        kept.truncate(METADATA_KEPT - 1);
        kept.push_front((spec, Arc::clone(&made)));
        Ok(made)
    }

    /// The newest block.
    #[allow(clippy::expect_used)]
    pub(crate) fn head(&self) -> &StoredBlock {
        self.window.back().expect("the window is made with one block and never emptied")
    }

    /// Hash of block 0.
    pub(crate) fn genesis_hash(&self) -> H256 {
        self.genesis_hash
    }

    /// The beacon whose rounds open timelocked commits.
    pub(crate) fn beacon(&self) -> &Beacon {
        &self.beacon
    }

    /// A block in the window; the newest for `None`.
    pub(crate) fn block(&self, hash: Option<H256>) -> Option<&StoredBlock> {
        let Some(hash) = hash else { return Some(self.head()) };
        let first = *self.window.front()?.header.number();
        self.window.get(self.numbers.get(&hash)?.checked_sub(first)? as usize)
    }

    /// Hash of the block with this number, if it is still known.
    pub(crate) fn hash_of(&self, number: u32) -> Option<H256> {
        if number == 0 {
            return Some(self.genesis_hash);
        }
        self.hashes.get(number.checked_sub(self.first_hash)? as usize).copied()
    }

    fn root(&self, at: Option<H256>) -> Result<H256, ChainError> {
        let block = self.block(at).ok_or_else(|| ChainError::UnknownBlock(at.unwrap_or_default()))?;
        Ok(*block.header.state_root())
    }

    /// Value of a storage key at a block.
    pub(crate) fn value(&self, at: Option<H256>, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        self.db.value(self.root(at)?, key)
    }

    /// At most `count` keys at a block that begin with `prefix` and come after `start`.
    pub(crate) fn keys(
        &self,
        at: Option<H256>,
        prefix: &[u8],
        start: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<Vec<u8>>, ChainError> {
        self.db.keys(self.root(at)?, prefix, start, count)
    }

    /// Call a runtime function at a block, with arguments from outside.
    pub(crate) fn call(&self, at: Option<H256>, function: &str, arguments: &[u8]) -> Result<Vec<u8>, ChainError> {
        let root = self.root(at)?;
        match check_call(function, arguments) {
            None => return Err(ChainError::UnknownFunction(function.to_owned())),
            Some(false) => return Err(ChainError::Arguments(function.to_owned())),
            Some(true) => {}
        }
        match function {
            "Metadata_metadata" => return Ok(self.metadata(at)?.get(&METADATA_VERSIONS[0]).encode().split_off(1)),
            "Metadata_metadata_at_version" => {
                let version = u32::decode(&mut &*arguments).unwrap_or_default();
                return Ok(self.metadata(at)?.get(&version).encode());
            }
            _ => {}
        }
        let answer = self.db.read(root, || api::dispatch(function, arguments))?;
        answer.ok_or_else(|| ChainError::UnknownFunction(function.to_owned()))
    }

    /// Run `action` on the newest state and forget what it changes.
    pub(crate) fn read<R>(&self, action: impl FnOnce() -> R) -> Result<R, ChainError> {
        self.db.read(*self.head().header.state_root(), action)
    }

    /// Make the next block, at `now_millis` since the epoch or just after the block before.
    pub(crate) fn build(
        &self,
        now_millis: u64,
        ops: &[DevOp],
        transactions: &[UncheckedExtrinsic],
    ) -> Result<Built, ChainError> {
        let head = self.head();
        let number =
            head.header.number().checked_add(1).ok_or_else(|| ChainError::State("block numbers used up".to_owned()))?;
        let slot_millis = self.slot_millis;
        let action = || {
            set_slot_duration(slot_millis);
            let now = now_millis.max(pallet_timestamp::Now::<Runtime>::get().saturating_add(1));
            let slot = Slot::from(now.checked_div(slot_millis).unwrap_or(now));
            let digest = Digest { logs: vec![DigestItem::PreRuntime(AURA_ENGINE_ID, slot.encode())] };
            Executive::initialize_block(&Header::new(number, H256::zero(), H256::zero(), head.hash, digest));
            let inherent = UncheckedExtrinsic::new_bare(RuntimeCall::Timestamp(pallet_timestamp::Call::set { now }));
            let mut extrinsics = Vec::with_capacity(transactions.len() + 1);
            apply(&inherent, &mut extrinsics)?;
            Drand::follow(&self.beacon, now);
            let ops = ops.iter().map(admin::apply).collect::<Vec<_>>();
            let outcomes = apply_all(transactions, &mut extrinsics);
            Ok::<_, TransactionValidityError>((Executive::finalize_block(), extrinsics, ops, outcomes))
        };
        let (result, root, changes, nodes) = self.db.change(*head.header.state_root(), action)?;
        let (header, extrinsics, ops, outcomes) =
            result.map_err(|error| ChainError::Runtime(format!("the timestamp was refused: {error:?}")))?;
        if root != *header.state_root() {
            return Err(ChainError::State("the state changed after the block was finished".to_owned()));
        }
        Ok(Built { header, extrinsics, changes, nodes, outcomes, ops })
    }

    /// Store a block and take it up as the newest. Returns its hash.
    pub(crate) fn commit(&mut self, built: Built) -> Result<H256, ChainError> {
        let Built { header, extrinsics, changes, nodes, .. } = built;
        let mut record = Vec::new();
        if let Some(store) = &mut self.store {
            let block = BlockRecord { header: header.clone(), extrinsics: extrinsics.clone(), changes };
            record = block.encode();
            store.append(&record)?;
        }
        let hash = self.push(header, extrinsics, nodes, record);
        self.compact();
        Ok(hash)
    }

    fn push(&mut self, header: Header, extrinsics: Vec<Vec<u8>>, nodes: NodeChanges, record: Vec<u8>) -> H256 {
        let (hash, number) = (header.hash(), *header.number());
        let released = self.db.add(nodes);
        self.numbers.insert(hash, number);
        self.hashes.push_back(hash);
        self.window.push_back(StoredBlock { header, hash, extrinsics, released, record });
        while self.hashes.len() > HASHES_KEPT {
            self.hashes.pop_front();
            self.first_hash += 1;
        }
        while self.window.len() > BLOCKS_KEPT {
            if let Some(old) = self.window.pop_front() {
                self.numbers.remove(&old.hash);
            }
            if let Some(first) = self.window.front_mut() {
                let released = std::mem::take(&mut first.released);
                self.db.release(released);
            }
        }
        hash
    }

    /// Rewrite the log if it has grown long. A failure is no harm: the long log goes on.
    fn compact(&mut self) {
        if !self.store.as_ref().is_some_and(Store::wants_compaction) {
            return;
        }
        let base = self.base_record();
        if let Some(store) = &mut self.store {
            let blocks = self.window.iter().skip(1).map(|block| block.record.as_slice());
            let rewritten = base.and_then(|base| store.rewrite(&base, blocks).map_err(ChainError::from));
            if let Err(error) = rewritten {
                tracing::warn!(%error, "the log could not be rewritten");
            }
        }
    }

    /// The oldest block of the window as the first record of a log.
    fn base_record(&self) -> Result<Base, ChainError> {
        let first = self.window.front().ok_or_else(|| ChainError::State("no block".to_owned()))?;
        let count = first.header.number().saturating_sub(self.first_hash) as usize + 1;
        let hashes = self.hashes.iter().take(count).copied().collect();
        let state = self.db.pairs(*first.header.state_root())?;
        Ok(Base::new(
            self.genesis_hash,
            (self.first_hash, hashes),
            first.header.clone(),
            first.extrinsics.clone(),
            state,
        ))
    }

    /// Bring the log to the disk and let go of its folder, whoever still holds the chain for reading.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.store.take().map_or(Ok(()), |store| store.sync())
    }

    /// Number of trie nodes kept for all states of the window.
    pub(crate) fn nodes(&self) -> usize {
        self.db.len()
    }
}

/// Root of a block body without extrinsics.
fn no_extrinsics_root() -> H256 {
    NodeDb::empty_root()
}

/// Apply one extrinsic; where it is refused, nothing of it stays.
fn apply(extrinsic: &UncheckedExtrinsic, applied: &mut Vec<Vec<u8>>) -> Result<(), TransactionValidityError> {
    let result = with_transaction_unchecked(|| match Executive::apply_extrinsic(extrinsic.clone()) {
        Ok(outcome) => TransactionOutcome::Commit(Ok(outcome)),
        Err(error) => TransactionOutcome::Rollback(Err(error)),
    });
    // A failed dispatch is part of the block and shows in its events.
    result.map(|_dispatched| applied.push(extrinsic.encode()))
}

/// Apply what can be applied, going over the rest again as long as that lets one more in: a sender's transactions may
/// have arrived out of order.
fn apply_all(transactions: &[UncheckedExtrinsic], applied: &mut Vec<Vec<u8>>) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Later; transactions.len()];
    let mut progress = true;
    while progress {
        progress = false;
        for (transaction, outcome) in transactions.iter().zip(&mut outcomes).filter(|(_, out)| **out == Outcome::Later)
        {
            match apply(transaction, applied) {
                Ok(()) => {
                    *outcome = Outcome::Included;
                    progress = true;
                }
                Err(TransactionValidityError::Invalid(
                    InvalidTransaction::Future | InvalidTransaction::ExhaustsResources,
                )) => {}
                Err(error) => *outcome = Outcome::Invalid(error),
            }
        }
    }
    outcomes
}
