//! Staying a member: registers the consensus key where none is, delegates to the next one where a
//! delegation waits, and says in each epoch that this validator will be there in the next one.
//!
//! A delegation holds from the next epoch's set on: the state registers the new key at once, the set of
//! the epoch keeps the old one. A readiness is the registered key's word, so that the new key says itself
//! that somebody has it; one given before by the old key does not count for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::{Result, bail};
use perturb_consensus::Verdict;
use perturb_ledger::tx::{Delegation, Readiness};
use perturb_ledger::{Transaction, query};
use perturb_types::{HotkeyPair, NetworkId, Signed};
use tokio_util::sync::CancellationToken;

use super::agreed::Agreed;
use super::bytes_of;
use super::driver::DriverHandle;
use crate::keys::Signer;
use crate::keys::delegation::DelegationFile;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// What a member needs.
pub struct Member {
    /// The agreed state.
    pub agreed: Arc<Agreed>,
    /// The hotkey that delegates.
    pub hotkey: HotkeyPair,
    /// The consensus keys.
    pub signer: Signer,
    /// Where the delegation to the next key waits, if there is one.
    pub delegation: PathBuf,
}

/// Runs until `stop`.
///
/// # Errors
/// The state cannot be read.
pub async fn run(member: Member, driver: DriverHandle, stop: CancellationToken) -> Result<()> {
    let machine = driver.status();
    let mut complaint = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        // A node that has not caught up would speak about an old epoch.
        if machine.borrow().is_behind() {
            continue;
        }
        let waiting = member.waiting();
        let waiting = waiting.unwrap_or_else(|error| {
            // Once, not every two seconds: a file that people have to look at.
            let text = format!("{}: {error:#}", member.delegation.display());
            if text != complaint {
                tracing::warn!("{text}");
                complaint = text;
            }
            None
        });
        let Some(transaction) = member.next(waiting)? else { continue };
        let name = transaction.name();
        if let Verdict::Reject(why) = driver.submit(bytes_of(&transaction)).await {
            tracing::warn!(transaction = name, %why, "refused");
        }
    }
}

impl Member {
    fn network(&self) -> NetworkId {
        self.agreed.genesis().network_id()
    }

    fn is_permitted(&self) -> Result<bool> {
        let snapshot = query::snapshot(self.agreed.database())?;
        Ok(snapshot.neuron(&self.hotkey.hotkey()).is_some_and(|n| n.permit))
    }

    /// What is to be said now, if anything.
    pub(super) fn next(&self, waiting: Option<Delegation>) -> Result<Option<Transaction>> {
        let (db, me) = (self.agreed.database(), self.hotkey.hotkey());
        if let Some(delegation) = waiting {
            return Ok(Some(Transaction::KeyDelegation(Box::new(delegation))));
        }
        let registered = query::registered_key(db, &me)?;
        let own = registered.as_ref().and_then(|row| self.signer.keys().get(&row.key));
        if let Some(pair) = own {
            let epoch = query::meta(db)?.epoch;
            if query::is_ready(db, epoch, &me)? {
                return Ok(None);
            }
            let ready = Signed::sign(pair, &self.network(), Readiness { hotkey: me, epoch });
            return Ok(Some(Transaction::Readiness(ready.into_envelope())));
        }
        if !self.is_permitted()? {
            return Ok(None);
        }
        let sequence = registered.as_ref().map_or(0, |row| row.sequence.saturating_add(1));
        let delegation = Delegation::sign(&self.network(), &self.hotkey, &self.signer.pair()?, sequence);
        Ok(Some(Transaction::KeyDelegation(Box::new(delegation))))
    }

    /// The delegation that waits and is due. The file goes when the state has what it says, or more.
    pub(super) fn waiting(&self) -> Result<Option<Delegation>> {
        if !self.delegation.exists() {
            return Ok(None);
        }
        let mut file = DelegationFile::read(&self.delegation)?;
        let (db, me) = (self.agreed.database(), self.hotkey.hotkey());
        // Before anything is done with it: the file of another hotkey or network is not ours to remove.
        if file.hotkey != me {
            bail!("it is for hotkey {}, and this validator's is {me}", file.hotkey);
        }
        if file.network != self.network() {
            bail!("it is for network {}, and this is {}", file.network, self.network());
        }
        let registered = query::registered_key(db, &me)?;
        if registered.as_ref().is_some_and(|row| row.sequence >= file.sequence) {
            std::fs::remove_file(&self.delegation)?;
            let done = registered.is_some_and(|row| row.key == file.key);
            if !done {
                bail!("a later delegation is registered: this one came too late and was removed");
            }
            tracing::info!(key = %file.key, "the next consensus key is registered");
            return Ok(None);
        }
        let due = file.from_epoch.is_none_or(|epoch| query::meta(db).is_ok_and(|m| m.epoch.saturating_add(1) >= epoch));
        // Without a permit the ledger would refuse it.
        if !due || !self.is_permitted()? {
            return Ok(None);
        }
        if self.signer.keys().get(&file.key).is_none() {
            bail!(
                "consensus key {} is not in this data folder, or came after the node's start: start it again",
                file.key
            );
        }
        if registered.is_some_and(|row| row.key == file.key) {
            bail!("it delegates to the key that is registered already");
        }
        if file.signature.is_none() {
            file.endorse(&self.hotkey)?;
        }
        file.verified()
    }
}
