//! What a node keeps of the past for those who check it: auditors, and nodes that begin.

use jmt::storage::NodeKey;
use perturb_types::{Digest, NetworkId, RoundCommits, RoundId, RoundOpen, RoundResult};

use crate::block::{Block, Header};
use crate::certificate::Certificate;
use crate::light::Handover;
use crate::proofs::{StateProof, Tree, key_hash};
use crate::receipt::Receipt;
use crate::store::{MemoryStore, Row, StoreError};
use crate::tx::Transaction;

/// A transaction's place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The block's height.
    pub height: u64,
    /// The transaction's index in it.
    pub index: usize,
}

/// Where a round stands in the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundPlaces {
    /// Its opening.
    pub opened: Option<Place>,
    /// What its miners are bound to.
    pub bound: Option<Place>,
    /// Its result.
    pub closed: Option<Place>,
}

/// A step in the life of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RoundStep {
    /// It was opened.
    Opened = 0,
    /// It was closed.
    Closed = 1,
    /// Its miners were bound.
    Bound = 2,
}

/// Rows of a state in the order of their keys, and whether there are more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowPage {
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether rows follow.
    pub more: bool,
}

/// From where on the past is held: a node removes what is older than its policy says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oldest {
    /// The lowest height above genesis whose block and receipts are held.
    pub block: u64,
    /// The lowest height whose state can be proved.
    pub state: u64,
}

/// The past, by height. `None` says "not held", never "proved absent".
pub trait Archive {
    /// The network.
    ///
    /// # Errors
    /// The store cannot be read.
    fn network(&self) -> Result<NetworkId, StoreError>;

    /// The newest committed height.
    ///
    /// # Errors
    /// The store cannot be read.
    fn tip(&self) -> Result<u64, StoreError>;

    /// What has been removed: `None` below these heights means that, above them that it never was.
    ///
    /// # Errors
    /// The store cannot be read.
    fn oldest(&self) -> Result<Oldest, StoreError> {
        Ok(Oldest::default())
    }

    /// A block with its certificate; genesis has none.
    ///
    /// # Errors
    /// The store cannot be read.
    fn block_at(&self, height: u64) -> Result<Option<(Block, Option<Certificate>)>, StoreError>;

    /// A header with its certificate.
    ///
    /// # Errors
    /// The store cannot be read.
    fn header_at(&self, height: u64) -> Result<Option<(Header, Option<Certificate>)>, StoreError> {
        Ok(self.block_at(height)?.map(|(block, certificate)| (block.header, certificate)))
    }

    /// What a block's transactions did.
    ///
    /// # Errors
    /// The store cannot be read.
    fn receipts_at(&self, height: u64) -> Result<Option<Vec<Receipt>>, StoreError>;

    /// The first `most` handovers whose headers stand at `from` or above, in order. All of them
    /// must be held: a reader cannot skip one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn handovers_from(&self, from: u64, most: usize) -> Result<Vec<Handover>, StoreError>;

    /// A key of the state after a height, with its proof.
    ///
    /// # Errors
    /// The store cannot be read.
    fn proof_at(&self, height: u64, key: &[u8]) -> Result<Option<StateProof>, StoreError>;

    /// Rows of the state after a height with keys above `after`: about `max_bytes`, at least one.
    /// A node may hold them for some heights only; the closing blocks of epochs are what replay needs.
    ///
    /// # Errors
    /// The store cannot be read.
    fn rows_at(&self, height: u64, after: Option<&[u8]>, max_bytes: usize) -> Result<Option<RowPage>, StoreError>;

    /// Where a round was opened and closed.
    ///
    /// # Errors
    /// The store cannot be read.
    fn round_places(&self, round: &RoundId) -> Result<RoundPlaces, StoreError>;
}

/// The root of the state that consists of exactly these rows. The tree's shape follows from the
/// keys alone, so it does not matter in which blocks they were written.
///
/// # Errors
/// Keys that do not rise: a list with two values of one key is no state.
pub fn state_root(rows: &[Row]) -> Result<Digest, StoreError> {
    MemoryStore::restored(0, rows).map(|(_, root)| root)
}

impl MemoryStore {
    /// A store that holds a state whole, as of a height, and its root; headers and blocks come after.
    ///
    /// # Errors
    /// Keys that do not rise.
    pub fn restored(height: u64, rows: &[Row]) -> Result<(Self, Digest), StoreError> {
        if let Some(w) = rows.windows(2).find(|w| w[0].0 >= w[1].0) {
            return Err(StoreError(format!("row {} is out of order or there twice", hex::encode(&w[1].0))));
        }
        let mut store = Self::default();
        if let Some(before) = height.checked_sub(1) {
            // The tree writes a version on top of the one before: here, on an empty tree.
            store.plant(NodeKey::new(before, std::iter::empty().collect()));
        }
        let leaves = rows.iter().map(|(k, v)| (key_hash(k), Some(v.clone())));
        let (root, tree) =
            Tree::new(&store).put_value_set(leaves, height).map_err(|e| StoreError(format!("state tree: {e}")))?;
        let changes: Vec<_> = rows.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect();
        store.apply(&changes, &tree);
        Ok((store, Digest(root.0)))
    }
}

/// The round that a transaction is a step of, by what it says; nothing is verified.
pub fn round_of(transaction: &Transaction) -> Option<(RoundStep, RoundId)> {
    match transaction {
        Transaction::RoundOpen(e) => Some((RoundStep::Opened, borsh::from_slice::<RoundOpen>(&e.payload).ok()?.round)),
        Transaction::RoundCommits(e) => {
            Some((RoundStep::Bound, borsh::from_slice::<RoundCommits>(&e.payload).ok()?.round))
        }
        Transaction::RoundResult(e) => {
            Some((RoundStep::Closed, borsh::from_slice::<RoundResult>(&e.payload).ok()?.round))
        }
        _ => None,
    }
}

/// For tests and simulations: everything is scanned, nothing indexed.
impl Archive for MemoryStore {
    fn network(&self) -> Result<NetworkId, StoreError> {
        let first = self.blocks().next().ok_or_else(|| StoreError("the store is empty".into()))?;
        Ok(first.0.header.network)
    }

    fn tip(&self) -> Result<u64, StoreError> {
        let last = self.blocks().next_back().ok_or_else(|| StoreError("the store is empty".into()))?;
        Ok(last.0.header.height)
    }

    fn block_at(&self, height: u64) -> Result<Option<(Block, Option<Certificate>)>, StoreError> {
        Ok(self.block(height).cloned())
    }

    fn receipts_at(&self, height: u64) -> Result<Option<Vec<Receipt>>, StoreError> {
        Ok(self.receipts(height).map(<[Receipt]>::to_vec))
    }

    fn handovers_from(&self, from: u64, most: usize) -> Result<Vec<Handover>, StoreError> {
        let mut out = Vec::new();
        for (block, certificate) in self.blocks() {
            let header = &block.header;
            if out.len() >= most {
                break;
            }
            let (true, Some(certificate)) =
                (header.height >= from && header.validators != header.next_validators, certificate)
            else {
                continue;
            };
            let set = self.value_at(header.height, crate::state::SET);
            let set = set.ok_or_else(|| StoreError(format!("no set at height {}", header.height)))?;
            let next = crate::state::parse(crate::state::SET, &set)?;
            out.push(Handover { header: header.clone(), certificate: certificate.clone(), next });
        }
        Ok(out)
    }

    fn proof_at(&self, height: u64, key: &[u8]) -> Result<Option<StateProof>, StoreError> {
        if self.block(height).is_none() {
            return Ok(None);
        }
        StateProof::make(self, height, key).map(Some)
    }

    fn rows_at(&self, height: u64, after: Option<&[u8]>, max_bytes: usize) -> Result<Option<RowPage>, StoreError> {
        if self.block(height).is_none() {
            return Ok(None);
        }
        let (mut page, mut bytes) = (RowPage::default(), 0);
        for key in self.keys_after(after) {
            let Some(value) = self.value_at(height, key) else { continue };
            bytes += key.len() + value.len();
            if bytes > max_bytes && !page.rows.is_empty() {
                page.more = true;
                break;
            }
            page.rows.push((key.clone(), value));
        }
        Ok(Some(page))
    }

    fn round_places(&self, round: &RoundId) -> Result<RoundPlaces, StoreError> {
        let mut places = RoundPlaces::default();
        for (block, _) in self.blocks() {
            for (index, transaction) in block.body.transactions.iter().enumerate() {
                let place = Place { height: block.header.height, index };
                let Some((step, _)) = round_of(transaction).filter(|(_, found)| found == round) else { continue };
                match step {
                    RoundStep::Opened => places.opened = Some(place),
                    RoundStep::Bound => places.bound = Some(place),
                    RoundStep::Closed => places.closed = Some(place),
                }
            }
        }
        Ok(places)
    }
}
