//! Reading the chain's storage at one block, by name and by that block's own metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use perturb_types::Hotkey;
use subxt::dynamic;
use subxt::ext::frame_decode::storage::{IntoDecodableValues, IntoEncodableValues};
use subxt::ext::scale_decode::DecodeAsType;
use subxt::ext::scale_value::{Value, ValueDef};

use crate::link::{At, Link};
use crate::{BlockHash, ChainClient, ChainError, PALLET, storage_index};

/// Entries one storage map may yield for one subnet: uids are u16 and subnets hold at most a
/// few hundred; a node that sends more is not telling the truth.
pub(crate) const MAX_NEURONS: usize = 4096;

/// One block of one node, for reading.
pub(crate) struct Reader {
    pub(crate) link: Arc<Link>,
    pub(crate) at: At,
    pub(crate) number: u64,
    pub(crate) hash: BlockHash,
}

impl Reader {
    /// The block's number and hash must belong together and come from this link.
    pub(crate) async fn at(link: Arc<Link>, number: u64, hash: BlockHash) -> Result<Self, ChainError> {
        let at = link.at(number, hash).await?;
        Ok(Self { link, at, number, hash })
    }

    fn entry_keys(&self, pallet: &str, entry: &str) -> Option<usize> {
        let pallet = self.at.metadata_ref().pallet_by_name(pallet)?;
        let entry = pallet.storage()?.entry_by_name(entry)?;
        Some(entry.keys().len())
    }

    /// A value of a pallet's storage; `None` if the runtime has no such entry with so many
    /// keys, or if it has no value there and no default.
    pub(crate) async fn of_pallet<K, V>(
        &self,
        pallet: &'static str,
        entry: &'static str,
        keys: K,
    ) -> Result<Option<V>, ChainError>
    where
        K: IntoEncodableValues + IntoDecodableValues + Send + Sync,
        V: DecodeAsType + Send + Sync,
    {
        if self.entry_keys(pallet, entry) != Some(keys.num_encodable_values()) {
            return Ok(None);
        }
        let what = format!("storage {entry}");
        let storage = self.at.storage();
        let address = dynamic::storage::<K, V>(pallet, entry);
        let found = self.link.ask(&what, storage.try_fetch(address, keys)).await?;
        found.map(|value| value.decode().map_err(|e| self.link.decode_error(&what, e))).transpose()
    }

    /// As [`Reader::of_pallet`], of the subnets' pallet.
    pub(crate) async fn value<K, V>(&self, entry: &'static str, keys: K) -> Result<Option<V>, ChainError>
    where
        K: IntoEncodableValues + IntoDecodableValues + Send + Sync,
        V: DecodeAsType + Send + Sync,
    {
        self.of_pallet(PALLET, entry, keys).await
    }

    /// As [`Reader::value`], for what every Subtensor runtime has.
    pub(crate) async fn required<K, V>(&self, entry: &'static str, keys: K) -> Result<V, ChainError>
    where
        K: IntoEncodableValues + IntoDecodableValues + Send + Sync,
        V: DecodeAsType + Send + Sync,
    {
        self.value(entry, keys)
            .await?
            .ok_or_else(|| self.link.not_in_metadata(format_args!("storage {PALLET}.{entry}")))
    }

    /// All values of a double map under its first key, by the second.
    pub(crate) async fn by_uid<V>(&self, entry: &'static str, first: u16) -> Result<BTreeMap<u16, V>, ChainError>
    where
        V: DecodeAsType + Send + Sync,
    {
        if self.entry_keys(PALLET, entry) != Some(2) {
            return Err(self.link.not_in_metadata(format_args!("storage {PALLET}.{entry} by two keys")));
        }
        let what = format!("storage {entry} of {first}");
        let storage = self.at.storage();
        let address = dynamic::storage::<(u16, u16), V>(PALLET, entry);
        let mut entries = self.link.ask(&what, storage.iter(address, (first,))).await?;
        let mut out = BTreeMap::new();
        loop {
            // The timeout holds for each entry; the count bounds the whole.
            let next = self.link.ask(&what, async { entries.next().await.transpose() }).await?;
            let Some(pair) = next else { return Ok(out) };
            let key = pair.key().map_err(|e| self.link.decode_error(&what, e))?;
            let (_, uid) = key.decode().map_err(|e| self.link.decode_error(&what, e))?;
            let value = pair.value().decode().map_err(|e| self.link.decode_error(&what, e))?;
            out.insert(uid, value);
            if out.len() > MAX_NEURONS {
                return Err(self.link.inconsistent(format_args!("{what}: more than {MAX_NEURONS} entries")));
            }
        }
    }

    /// The subnet's epoch index: the runtime's own count, or on runtimes without one the
    /// count that their fixed schedule gives, ⌊(block + netuid + 1) / (tempo + 1)⌋.
    pub(crate) async fn epoch_index(&self, netuid: u16) -> Result<u64, ChainError> {
        if let Some(index) = self.value::<_, u64>("SubnetEpochIndex", (netuid,)).await? {
            return Ok(index);
        }
        let tempo: u16 = self.required("Tempo", (netuid,)).await?;
        Ok(fixed_schedule_epoch(self.number, netuid, tempo))
    }

    /// The runtime's slot duration in milliseconds, if it names one.
    pub(crate) fn slot_duration_ms(&self) -> Option<u64> {
        self.at.constants().entry(dynamic::constant::<u64>("Aura", "SlotDuration")).ok()
    }

    /// Whether consensus on this subnet is switched off (`SubnetEpochConsensus::Null`), so
    /// that one validator's weights alone count.
    pub(crate) async fn null_consensus(&self, netuid: u16) -> Result<bool, ChainError> {
        let value: Option<Value> = self.value("SubnetEpochConsensus", (netuid,)).await?;
        Ok(matches!(value, Some(Value { value: ValueDef::Variant(v), .. }) if v.name == "Null"))
    }

    pub(crate) fn index(&self, netuid: u16, mecid: u8) -> Result<u16, ChainError> {
        storage_index(netuid, mecid).ok_or(ChainError::BadMechanism { netuid, mecid })
    }

    pub(crate) async fn weights(&self, netuid: u16, mecid: u8, uid: u16) -> Result<Vec<(u16, u16)>, ChainError> {
        let index = self.index(netuid, mecid)?;
        self.required("Weights", (index, uid)).await
    }

    pub(crate) async fn last_update(&self, netuid: u16, mecid: u8) -> Result<Vec<u64>, ChainError> {
        let index = self.index(netuid, mecid)?;
        self.required("LastUpdate", (index,)).await
    }

    pub(crate) async fn uid_of(&self, netuid: u16, hotkey: Hotkey) -> Result<Option<u16>, ChainError> {
        self.value("Uids", (netuid, hotkey.0)).await
    }
}

/// The epoch count of runtimes before stateful epochs.
fn fixed_schedule_epoch(block: u64, netuid: u16, tempo: u16) -> u64 {
    block.saturating_add(u64::from(netuid)).saturating_add(1) / (u64::from(tempo) + 1)
}

impl ChainClient {
    /// A reader at `at`, which must be on the finalized chain; at the head if `None`.
    pub(crate) async fn reader(&self, at: Option<BlockHash>) -> Result<Reader, ChainError> {
        let link = self.link().await?;
        let (number, hash) = match at {
            None => link.finalized().await?,
            Some(hash) => (link.finalized_number_of(hash).await?, hash),
        };
        Reader::at(link, number, hash).await
    }

    /// The subnet's epoch index at a finalized block (`None`: the head).
    ///
    /// # Errors
    /// The chain is away, the block is not finalized, or the runtime is not Subtensor's.
    pub async fn epoch_index(&self, netuid: u16, at: Option<BlockHash>) -> Result<u64, ChainError> {
        self.reader(at).await?.epoch_index(netuid).await
    }

    /// The weights that `uid` has set for a mechanism, as the chain stores them: (uid, u16).
    ///
    /// # Errors
    /// As [`ChainClient::epoch_index`], or numbers outside the chain's scheme.
    pub async fn read_weights(
        &self,
        netuid: u16,
        mecid: u8,
        uid: u16,
        at: Option<BlockHash>,
    ) -> Result<Vec<(u16, u16)>, ChainError> {
        self.reader(at).await?.weights(netuid, mecid, uid).await
    }

    /// The weights of every validator of a mechanism, by the validator's uid.
    ///
    /// # Errors
    /// As [`ChainClient::read_weights`].
    pub async fn all_weights(
        &self,
        netuid: u16,
        mecid: u8,
        at: Option<BlockHash>,
    ) -> Result<BTreeMap<u16, Vec<(u16, u16)>>, ChainError> {
        let reader = self.reader(at).await?;
        let index = reader.index(netuid, mecid)?;
        reader.by_uid("Weights", index).await
    }

    /// The block of each uid's last update of a mechanism, by uid. Registration and commits
    /// move it too.
    ///
    /// # Errors
    /// As [`ChainClient::read_weights`].
    pub async fn last_update(&self, netuid: u16, mecid: u8, at: Option<BlockHash>) -> Result<Vec<u64>, ChainError> {
        self.reader(at).await?.last_update(netuid, mecid).await
    }

    /// The uid of a hotkey on a subnet, if it is registered.
    ///
    /// # Errors
    /// As [`ChainClient::epoch_index`].
    pub async fn uid_of(&self, netuid: u16, hotkey: Hotkey, at: Option<BlockHash>) -> Result<Option<u16>, ChainError> {
        self.reader(at).await?.uid_of(netuid, hotkey).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_fixed_schedule_counts_an_epoch_every_tempo_plus_one_blocks() {
        // tempo 9, netuid 2: the index rises where (block + 3) is a multiple of 10.
        assert_eq!(fixed_schedule_epoch(6, 2, 9), 0);
        assert_eq!(fixed_schedule_epoch(7, 2, 9), 1);
        assert_eq!(fixed_schedule_epoch(16, 2, 9), 1);
        assert_eq!(fixed_schedule_epoch(17, 2, 9), 2);
        assert_eq!(fixed_schedule_epoch(u64::MAX, 1, 0), u64::MAX);
    }
}
