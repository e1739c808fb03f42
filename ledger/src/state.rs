//! The state: its keys, its rows, and an overlay that collects what a block changes.
//!
//! | key | row |
//! |---|---|
//! | `meta` | [`Meta`] |
//! | `set` | [`ValidatorSet`] of the next height |
//! | `snapshot` | [`Snapshot`] that was agreed last |
//! | `challenge/{id}` | [`ChallengeSpec`] |
//! | `key/{hotkey}` | [`KeyRow`] |
//! | `ready/{epoch}/{hotkey}` | empty |
//! | `seq/{challenge}/{validator}` | [`SeqRow`] |
//! | `open/{challenge}/{validator}/{seq}` | [`OpenRow`] |
//! | `history/{challenge}/{miner}/{validator}` | [`HistoryRow`] |
//! | `reputation/{validator}` | [`crate::reputation::Reputation`] |
//! | `parameters` | [`Parameters`] |
//! | `set/parent` | [`ValidatorSet`] that certified the newest block |
//! | `order/{height}/{nonce}` | [`crate::tx::Order`] that waits for its height |
//! | `fresh/{height}/{challenge}/{validator}/{seq}` | [`crate::spot::FreshRow`] |
//! | `check/{challenge}/{validator}/{seq}` | [`crate::verdict::CheckRow`] |
//! | `fault/{challenge}/{validator}/{seq}` | [`crate::verdict::CheckRow`] for which its validator was struck |
//! | `struck/{challenge}/{validator}` | the epoch whose aggregation leaves the validator out |
//! | `epoch/{n}/{challenge}` | [`crate::epoch::EpochRecord`] |
//! | `evidence/{key}{height}{round}{step}` | [`crate::evidence::Equivocation`] |
//! | `outlier/{challenge}/{validator}` | [`crate::outliers::OutlierRow`] of the last close |
//! | `work/{validator}` | [`crate::work::WorkRow`] of the open epoch |
//! | `idle/{validator}` | the first epoch of which it may be a member again |
//! | `pulse/{round}` | [`crate::draw::PulseRow`]: what waits for that round of the beacon |
//! | `draws` | [`crate::draw::DrawRow`] |
//! | `seeds` | [`crate::seeds::SeedsRow`] |
//! | `round-key/{epoch}/{hotkey}` | the round key with which a member draws |
//! | `asked/{challenge}/{miner}` | [`AskedRow`] |
//! | `used/{challenge}/{validator}` | [`perturb_challenge::used::Used`] |
//! | `page/{challenge}/{validator}/{page}` | [`perturb_challenge::used::Page`] |
//! | `unrevealed/{challenge}/{validator}` | [`crate::images::UnrevealedRow`] |
//!
//! Numbers in keys are big endian, so that they sort; hotkeys are their 32 bytes.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_challenge::history::RingHistory;
use perturb_types::encode;
use perturb_types::{ChallengeId, ConsensusKey, Digest, Hotkey, RoundId, RoundKey};

use crate::block::ChainReference;
use crate::genesis::{ChallengeSpec, Parameters};
use crate::store::{Change, Row, StateStore, StoreError};
use crate::tx::Snapshot;
use crate::validators::ValidatorSet;

/// What there is one of.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Meta {
    /// The epoch in the making.
    pub epoch: u64,
    /// The last chain reference.
    pub reference: ChainReference,
    /// The height whose block began the epoch in the making.
    pub epoch_start: u64,
    /// Whose orders are obeyed.
    pub owner: Hotkey,
    /// The owner's next nonce.
    pub owner_nonce: u64,
    /// Lowest program version.
    pub required_version: (u16, u16, u16),
    /// Answers that entered histories in this epoch.
    pub results: u64,
}

/// A hotkey's consensus key.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeyRow {
    /// The key.
    pub key: ConsensusKey,
    /// The round key that goes with it.
    pub round_key: RoundKey,
    /// The delegation's sequence number.
    pub sequence: u64,
}

/// A validator's round numbers in a challenge.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SeqRow {
    /// The next round's number.
    pub next: u64,
    /// The epoch that `opened` and `skipped` count for.
    pub epoch: u64,
    /// Rounds opened in it.
    pub opened: u32,
    /// Rounds skipped in it.
    pub skipped: u32,
    /// Whether the last one is open.
    pub open: bool,
    /// Rounds skipped since the last opening.
    pub passed: u32,
}

impl SeqRow {
    /// The number whose lot draws the miners of the next opening. A skip changes the images alone: it would else
    /// choose the miners as well.
    #[must_use]
    pub const fn miners_number(&self) -> u64 {
        self.next.saturating_sub(self.passed as u64)
    }
}

/// A miner in the draws of a challenge. Without a row it was there when the challenge or the network began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AskedRow {
    /// The epoch that began when a snapshot had it first.
    pub since: u64,
    /// Answers counted of it, the most of any validator.
    pub processed: u64,
}

/// An opened round.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OpenRow {
    /// Digest of the opening.
    pub open: Digest,
    /// The image's digest.
    pub image: Digest,
    /// The round key that drew it.
    pub key: RoundKey,
    /// The seed with which it was drawn.
    pub seed: Digest,
    /// The miners that were drawn, by rising uid.
    pub miners: Vec<Hotkey>,
    /// The height it was opened at.
    pub height: u64,
    /// What the miners are bound to, in their order; `None` until a block has it.
    pub commits: Option<Vec<Option<Digest>>>,
}

/// One validator's scores of one miner.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HistoryRow {
    /// The last scores.
    pub ring: RingHistory,
    /// The epoch of the newest.
    pub fresh: u64,
}

/// Key of [`Meta`].
pub const META: &[u8] = b"meta";
/// Key of the validator set.
pub const SET: &[u8] = b"set";
/// Key of the agreed snapshot.
pub const SNAPSHOT: &[u8] = b"snapshot";

/// Key of the parameters.
pub const PARAMETERS: &[u8] = b"parameters";
/// Key of the set that certified the newest block.
pub const PARENT_SET: &[u8] = b"set/parent";

fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Key of a challenge.
pub fn challenge_key(id: ChallengeId) -> Vec<u8> {
    key(&[b"challenge/", &id.0.to_be_bytes()])
}

/// Key of a hotkey's consensus key.
pub fn key_key(hotkey: &Hotkey) -> Vec<u8> {
    key(&[b"key/", &hotkey.0])
}

/// Key of a readiness.
pub fn ready_key(epoch: u64, hotkey: &Hotkey) -> Vec<u8> {
    key(&[&ready_prefix(epoch), &hotkey.0])
}

/// Prefix of an epoch's readinesses.
pub fn ready_prefix(epoch: u64) -> Vec<u8> {
    key(&[b"ready/", &epoch.to_be_bytes(), b"/"])
}

/// Key of a validator's round numbers.
pub fn seq_key(id: ChallengeId, validator: &Hotkey) -> Vec<u8> {
    key(&[b"seq/", &id.0.to_be_bytes(), b"/", &validator.0])
}

/// Prefix of all open rounds.
pub fn all_open_prefix() -> &'static [u8] {
    b"open/"
}

/// Prefix of a challenge's open rounds.
pub fn open_prefix(id: ChallengeId) -> Vec<u8> {
    key(&[b"open/", &id.0.to_be_bytes(), b"/"])
}

/// Key of an open round.
pub fn open_key(id: ChallengeId, validator: &Hotkey, seq: u64) -> Vec<u8> {
    key(&[&open_prefix(id), &validator.0, b"/", &seq.to_be_bytes()])
}

/// Prefix of a challenge's histories.
pub fn history_prefix(id: ChallengeId) -> Vec<u8> {
    key(&[b"history/", &id.0.to_be_bytes(), b"/"])
}

/// Key of a history.
pub fn history_key(id: ChallengeId, miner: &Hotkey, validator: &Hotkey) -> Vec<u8> {
    key(&[&history_prefix(id), &miner.0, b"/", &validator.0])
}

/// Miner and validator of a history's key.
pub fn history_parts(id: ChallengeId, history_key: &[u8]) -> Option<(Hotkey, Hotkey)> {
    let rest = history_key.strip_prefix(history_prefix(id).as_slice())?;
    let (miner, rest) = rest.split_at_checked(32)?;
    Some((Hotkey(miner.try_into().ok()?), Hotkey(rest.get(1..)?.try_into().ok()?)))
}

/// Prefix of all reputations.
pub fn reputation_prefix() -> &'static [u8] {
    b"reputation/"
}

/// Key of a validator's reputation.
pub fn reputation_key(validator: &Hotkey) -> Vec<u8> {
    key(&[reputation_prefix(), &validator.0])
}

/// The hotkey that ends a key after a prefix.
pub fn hotkey_after(prefix: &[u8], key: &[u8]) -> Option<Hotkey> {
    Some(Hotkey(key.strip_prefix(prefix)?.try_into().ok()?))
}

/// Prefix of the orders that wait.
pub fn order_prefix() -> &'static [u8] {
    b"order/"
}

/// Key of an order that waits.
pub fn order_key(height: u64, nonce: u64) -> Vec<u8> {
    key(&[order_prefix(), &height.to_be_bytes(), b"/", &nonce.to_be_bytes()])
}

/// The height of an order's key.
pub fn order_height(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.strip_prefix(order_prefix())?.first_chunk()?))
}

/// The nonce of an order's key.
pub fn order_nonce(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.strip_prefix(order_prefix())?.last_chunk()?))
}

/// Prefix of the rounds that may be drawn for a check.
pub fn fresh_prefix() -> &'static [u8] {
    b"fresh/"
}

/// Prefix of the rounds that are checked.
pub fn check_prefix() -> &'static [u8] {
    b"check/"
}

fn round_key(prefix: &[u8], round: &RoundId) -> Vec<u8> {
    key(&[prefix, &round.challenge.0.to_be_bytes(), b"/", &round.validator.0, b"/", &round.seq.to_be_bytes()])
}

/// Prefix of the rounds that were closed at a height and may be drawn.
pub fn fresh_at(height: u64) -> Vec<u8> {
    key(&[fresh_prefix(), &height.to_be_bytes(), b"/"])
}

/// Key of a round that was closed at a height and may be drawn.
pub fn fresh_key(height: u64, round: &RoundId) -> Vec<u8> {
    round_key(&fresh_at(height), round)
}

/// The round behind the key of one that may be drawn.
pub fn fresh_round(key: &[u8]) -> Option<RoundId> {
    let prefix = key.get(..fresh_prefix().len().checked_add(9)?)?;
    prefix.starts_with(fresh_prefix()).then(|| round_after(prefix, key)).flatten()
}

/// Prefix of the pulses that are waited for.
pub fn pulse_prefix() -> &'static [u8] {
    b"pulse/"
}

/// Key of what waits for a pulse.
pub fn pulse_key(round: u64) -> Vec<u8> {
    key(&[pulse_prefix(), &round.to_be_bytes()])
}

/// The round of the beacon behind the key of what waits for it.
pub fn pulse_round(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(pulse_prefix())?.try_into().ok()?))
}

/// Key of what is known of the draws so far.
pub const DRAWS: &[u8] = b"draws";

/// Key of the seeds.
pub const SEEDS: &[u8] = b"seeds";

/// Prefix of the round keys with which members draw.
pub fn round_keys_prefix() -> &'static [u8] {
    b"round-key/"
}

/// Key of the round key with which a member draws in an epoch.
pub fn round_key_key(epoch: u64, hotkey: &Hotkey) -> Vec<u8> {
    key(&[round_keys_prefix(), &epoch.to_be_bytes(), b"/", &hotkey.0])
}

/// The epoch of a round key's key.
pub fn round_key_epoch(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.strip_prefix(round_keys_prefix())?.first_chunk()?))
}

/// Prefix of the miners in the draws of a challenge.
pub fn asked_prefix(id: ChallengeId) -> Vec<u8> {
    key(&[b"asked/", &id.0.to_be_bytes(), b"/"])
}

/// Key of a miner in the draws of a challenge.
pub fn asked_key(id: ChallengeId, miner: &Hotkey) -> Vec<u8> {
    key(&[&asked_prefix(id), &miner.0])
}

/// Prefix of the passes over a challenge's set.
pub fn used_of(id: ChallengeId) -> Vec<u8> {
    key(&[b"used/", &id.0.to_be_bytes(), b"/"])
}

/// Key of a validator's pass over a challenge's set.
pub fn used_key(id: ChallengeId, validator: &Hotkey) -> Vec<u8> {
    key(&[&used_of(id), &validator.0])
}

/// Prefix of the pages of a challenge.
pub fn pages_prefix(id: ChallengeId) -> Vec<u8> {
    key(&[b"page/", &id.0.to_be_bytes(), b"/"])
}

/// Prefix of the pages of a validator's pass.
pub fn pages_of(id: ChallengeId, validator: &Hotkey) -> Vec<u8> {
    key(&[&pages_prefix(id), &validator.0, b"/"])
}

/// Key of a page of a validator's pass.
pub fn page_key(id: ChallengeId, validator: &Hotkey, page: u32) -> Vec<u8> {
    key(&[&pages_of(id, validator), &page.to_be_bytes()])
}

/// Prefix of what rounds that ran out owe.
pub fn unrevealed_prefix() -> &'static [u8] {
    b"unrevealed/"
}

/// Prefix of what rounds of a challenge owe.
pub fn unrevealed_of(id: ChallengeId) -> Vec<u8> {
    key(&[unrevealed_prefix(), &id.0.to_be_bytes(), b"/"])
}

/// Key of what a validator's last round owes.
pub fn unrevealed_key(id: ChallengeId, validator: &Hotkey) -> Vec<u8> {
    key(&[&unrevealed_of(id), &validator.0])
}

/// Challenge and validator of such a key.
pub fn unrevealed_parts(key: &[u8]) -> Option<(ChallengeId, Hotkey)> {
    let (challenge, rest) = key.strip_prefix(unrevealed_prefix())?.split_first_chunk()?;
    Some((ChallengeId(u16::from_be_bytes(*challenge)), Hotkey(rest.get(1..)?.try_into().ok()?)))
}

/// Key of a round that is checked.
pub fn check_key(round: &RoundId) -> Vec<u8> {
    round_key(check_prefix(), round)
}

/// Key of a round for which its validator was struck.
pub fn fault_key(round: &RoundId) -> Vec<u8> {
    round_key(b"fault/", round)
}

/// The round behind a key with this prefix.
pub fn round_after(prefix: &[u8], key: &[u8]) -> Option<RoundId> {
    let rest = key.strip_prefix(prefix)?;
    let (challenge, rest) = rest.split_at_checked(2)?;
    let (validator, rest) = rest.get(1..)?.split_at_checked(32)?;
    Some(RoundId {
        validator: Hotkey(validator.try_into().ok()?),
        challenge: ChallengeId(u16::from_be_bytes(challenge.try_into().ok()?)),
        seq: u64::from_be_bytes(rest.get(1..)?.try_into().ok()?),
    })
}

/// Key of the epoch from whose aggregation a validator is left out.
pub fn struck_key(id: ChallengeId, validator: &Hotkey) -> Vec<u8> {
    key(&[b"struck/", &id.0.to_be_bytes(), b"/", &validator.0])
}

/// Key of a recorded fault: who, and the height, round and step of [`crate::Equivocation::place`].
pub fn evidence_key(signer: &ConsensusKey, height: u64, round: u32, step: u8) -> Vec<u8> {
    key(&[b"evidence/", &signer.0, &height.to_be_bytes(), &round.to_be_bytes(), &[step]])
}

/// Prefix of a challenge's outliers.
pub fn outlier_prefix(id: ChallengeId) -> Vec<u8> {
    key(&[b"outlier/", &id.0.to_be_bytes(), b"/"])
}

/// Key of how often a validator was an outlier.
pub fn outlier_key(id: ChallengeId, validator: &Hotkey) -> Vec<u8> {
    key(&[&outlier_prefix(id), &validator.0])
}

/// Prefix of what validators did in the open epoch.
pub fn work_prefix() -> &'static [u8] {
    b"work/"
}

/// Key of what a validator did in the open epoch.
pub fn work_key(validator: &Hotkey) -> Vec<u8> {
    key(&[work_prefix(), &validator.0])
}

/// Prefix of those who wait because they were idle.
pub fn idle_prefix() -> &'static [u8] {
    b"idle/"
}

/// Key of one who waits because it was idle.
pub fn idle_key(validator: &Hotkey) -> Vec<u8> {
    key(&[idle_prefix(), &validator.0])
}

/// Key of an epoch's record.
pub fn epoch_key(epoch: u64, id: ChallengeId) -> Vec<u8> {
    key(&[b"epoch/", &epoch.to_be_bytes(), b"/", &id.0.to_be_bytes()])
}

/// Reads a row.
///
/// # Errors
/// The store cannot be read, or holds something else: it is damaged.
pub fn read<T: BorshDeserialize>(store: &(impl StateStore + ?Sized), key: &[u8]) -> Result<Option<T>, StoreError> {
    store.value(key)?.map(|bytes| parse(key, &bytes)).transpose()
}

/// Decodes a row.
///
/// # Errors
/// The bytes are none of this type: the store is damaged.
pub fn parse<T: BorshDeserialize>(key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    borsh::from_slice(bytes).map_err(|e| StoreError(format!("row {}: {e}", hex::encode(key))))
}

/// Changed keys; `None` deletes.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A committed state with changes on top: those of the transactions so far, and those of the
/// one in progress, which are [accepted](Self::accept) or [discarded](Self::discard) as a whole.
pub struct Overlay<'a, S: ?Sized> {
    store: &'a S,
    changes: Changes,
    current: Changes,
}

impl<'a, S: StateStore + ?Sized> Overlay<'a, S> {
    /// Nothing on top.
    pub fn new(store: &'a S) -> Self {
        Self { store, changes: Changes::new(), current: Changes::new() }
    }

    /// The committed state below.
    pub fn store(&self) -> &'a S {
        self.store
    }

    fn change(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.current.get(key).or_else(|| self.changes.get(key))
    }

    /// A row.
    ///
    /// # Errors
    /// See [`read`].
    pub fn get<T: BorshDeserialize>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.change(key) {
            Some(change) => change.as_ref().map(|bytes| parse(key, bytes)).transpose(),
            None => read(self.store, key),
        }
    }

    /// A row that has to be there.
    ///
    /// # Errors
    /// See [`read`]; or it is not there.
    pub fn must<T: BorshDeserialize>(&self, key: &[u8]) -> Result<T, StoreError> {
        self.get(key)?.ok_or_else(|| StoreError(format!("row {} is missing", hex::encode(key))))
    }

    /// Whether there is a row.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        match self.change(key) {
            Some(change) => Ok(change.is_some()),
            None => Ok(self.store.value(key)?.is_some()),
        }
    }

    /// Sets a row.
    pub fn put<T: BorshSerialize>(&mut self, key: Vec<u8>, row: &T) {
        self.current.insert(key, Some(encode::encode(row)));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.current.insert(key, None);
    }

    /// Deletes all rows under a prefix.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn delete_all(&mut self, prefix: &[u8]) -> Result<(), StoreError> {
        self.retain(prefix, |_| false)
    }

    /// Deletes the rows under a prefix whose keys are not to be kept.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn retain(&mut self, prefix: &[u8], keep: impl Fn(&[u8]) -> bool) -> Result<(), StoreError> {
        for (key, _) in self.scan(prefix)? {
            if !keep(&key) {
                self.delete(key);
            }
        }
        Ok(())
    }

    /// All rows under a prefix, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = self.store.scan(prefix)?.into_iter().collect();
        for layer in [&self.changes, &self.current] {
            for (key, change) in layer.range(prefix.to_vec()..).take_while(|(k, _)| k.starts_with(prefix)) {
                match change {
                    Some(bytes) => rows.insert(key.clone(), bytes.clone()),
                    None => rows.remove(key),
                };
            }
        }
        Ok(rows.into_iter().collect())
    }

    /// What was accepted and differs from the store, in order of the keys.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn into_changes(self) -> Result<Vec<Change>, StoreError> {
        let mut out = Vec::with_capacity(self.changes.len());
        for (key, change) in self.changes {
            if self.store.value(&key)? != change {
                out.push((key, change));
            }
        }
        Ok(out)
    }

    /// Keeps what the transaction in progress changed.
    pub fn accept(&mut self) {
        self.changes.append(&mut self.current);
    }

    /// Forgets what the transaction in progress changed.
    pub fn discard(&mut self) {
        self.current.clear();
    }
}

/// All challenges, by rising id.
///
/// # Errors
/// See [`read`].
pub fn challenges<S: StateStore + ?Sized>(state: &Overlay<'_, S>) -> Result<Vec<ChallengeSpec>, StoreError> {
    state.scan(b"challenge/")?.iter().map(|(k, v)| parse(k, v)).collect()
}

/// The rows that every block reads.
pub struct Frame {
    /// [`Meta`].
    pub meta: Meta,
    /// The set that certifies this block.
    pub set: ValidatorSet,
    /// The agreed snapshot.
    pub snapshot: Snapshot,
    /// The numbers.
    pub parameters: Parameters,
}

impl Frame {
    /// Reads them.
    ///
    /// # Errors
    /// See [`read`].
    pub fn load<S: StateStore + ?Sized>(state: &Overlay<'_, S>) -> Result<Self, StoreError> {
        Ok(Self {
            meta: state.must(META)?,
            set: state.must(SET)?,
            snapshot: state.must(SNAPSHOT)?,
            parameters: state.must(PARAMETERS)?,
        })
    }
}
