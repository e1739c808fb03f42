//! Own transactions that the agreed state does not show yet.
//!
//! They are stored before they are told, and submitted again after a restart or when a block went
//! by without them, until their round's number has passed and the round is closed. What a key signed
//! that is not in use any more is signed anew: the state takes a round from the key that its set names,
//! and what an opening and its result say, and so their digests, stay the same.
//!
//! What was drawn with a seed that has gone is void: no block takes it any more, its number is still free,
//! and nobody has seen its images.

use std::time::Duration;

use perturb_consensus::Verdict;
use perturb_ledger::{StoreError, Transaction, query, seeds};
use perturb_storage::{Database, StorageError};
use perturb_types::envelope::Payload;
use perturb_types::{
    ChallengeId, ConsensusPair, Envelope, Hotkey, NetworkId, RoundCommits, RoundId, RoundOpen, RoundResult,
    RoundReveal, RoundSkip, Signed, encode,
};
use tokio_util::sync::CancellationToken;

use super::driver::DriverHandle;
use crate::keys::Signer;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(3);

/// Rows looked at in one go: rounds of an epoch that could not be told, at the most.
const MOST: usize = 512;

/// What the names of the rows begin with.
const PENDING: &str = "pending/";

/// What a round's transactions are stored as: they are submitted again in the order of these names.
pub const OPEN: &str = "1-open";
/// What its miners are bound to.
pub const COMMITS: &str = "2-commits";
/// Its result.
pub const RESULT: &str = "3-result";
/// That it is not opened at all.
pub const SKIP: &str = "1-skip";
/// What images it used, where it ran out.
pub const REVEAL: &str = "4-reveal";

fn key(challenge: ChallengeId, seq: u64, what: &str) -> String {
    format!("{PENDING}{:05}/{seq:020}/{what}", challenge.0)
}

/// Stores an own transaction.
///
/// # Errors
/// The disk.
pub fn store(db: &Database, challenge: ChallengeId, seq: u64, what: &str, bytes: &[u8]) -> Result<(), StorageError> {
    db.put_row(&key(challenge, seq, what), &bytes.to_vec())
}

/// Forgets an own transaction that was refused.
///
/// # Errors
/// The disk.
pub fn forget(db: &Database, challenge: ChallengeId, seq: u64, what: &str) -> Result<(), StorageError> {
    db.delete_row(&key(challenge, seq, what))
}

/// The round that a stored transaction is of.
fn round_of(name: &str, me: Hotkey) -> Option<RoundId> {
    let mut parts = name.split('/').skip(1);
    let challenge = parts.next()?.parse().ok().map(ChallengeId)?;
    Some(RoundId { validator: me, challenge, seq: parts.next()?.parse().ok()? })
}

/// The own rounds of which something is on its way into a block.
///
/// # Errors
/// The disk.
pub fn rounds(db: &Database, me: Hotkey) -> Result<Vec<RoundId>, StorageError> {
    let rows = db.rows_from::<Vec<u8>>(PENDING, MOST)?;
    Ok(rows.iter().filter_map(|(name, _)| round_of(name, me)).collect())
}

/// Whether something of a round is on its way into a block.
///
/// # Errors
/// The disk.
pub fn waits(db: &Database, round: &RoundId) -> Result<bool, StorageError> {
    let name = key(round.challenge, round.seq, "");
    Ok(db.rows_from::<Vec<u8>>(&name, 1)?.iter().any(|(found, _)| found.starts_with(&name)))
}

/// The epoch whose seed drew an opening or a skip.
fn drawn_in(bytes: &[u8], network: &NetworkId) -> Option<u64> {
    match Transaction::decode(bytes).ok()? {
        Transaction::RoundOpen(e) => e.open_again::<RoundOpen>(network).ok().map(|open| open.epoch),
        Transaction::RoundSkip(e) => e.open_again::<RoundSkip>(network).ok().map(|skip| skip.epoch),
        _ => None,
    }
}

/// Whether the agreed state shows that a stored transaction has done its work, or never will.
fn is_done(db: &Database, me: &Hotkey, network: &NetworkId, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
    let Some(RoundId { challenge, seq, .. }) = round_of(name, *me) else { return Ok(true) };
    let row = query::sequence(db, challenge, me)?;
    let opened = seq < row.next;
    let what = name.rsplit('/').next();
    if !opened {
        let active = seeds::seeds(db)?.map(|seeds| seeds.epoch);
        return Ok(drawn_in(bytes, network).is_some_and(|epoch| Some(epoch) < active));
    }
    if [Some(OPEN), Some(SKIP)].contains(&what) {
        return Ok(true);
    }
    if what == Some(REVEAL) {
        return Ok(query::unrevealed(db, challenge, me)?.is_none_or(|owed| owed.seq != seq));
    }
    let row = query::open_round(db, challenge, me, seq)?;
    Ok(row.is_none_or(|row| what == Some(COMMITS) && row.commits.is_some()))
}

/// The transaction of a round as the key in use signs it; as it is where that needs nothing new.
pub(super) fn signed_now(bytes: Vec<u8>, pair: &ConsensusPair, network: &NetworkId) -> Vec<u8> {
    fn again<T: Payload>(envelope: Envelope, pair: &ConsensusPair, network: &NetworkId) -> Option<Envelope> {
        let old = envelope.open_again::<T>(network).ok().filter(|old| old.signer() != pair.public())?;
        Some(Signed::sign(pair, network, old.into_value()).into_envelope())
    }
    let renewed = match Transaction::decode(&bytes) {
        Ok(Transaction::RoundOpen(e)) => again::<RoundOpen>(e, pair, network).map(Transaction::RoundOpen),
        Ok(Transaction::RoundCommits(e)) => again::<RoundCommits>(e, pair, network).map(Transaction::RoundCommits),
        Ok(Transaction::RoundResult(e)) => again::<RoundResult>(e, pair, network).map(Transaction::RoundResult),
        Ok(Transaction::RoundReveal(e)) => again::<RoundReveal>(e, pair, network).map(Transaction::RoundReveal),
        Ok(Transaction::RoundSkip(e)) => again::<RoundSkip>(e, pair, network).map(Transaction::RoundSkip),
        _ => None,
    };
    renewed.map_or(bytes, |transaction| encode::encode(&transaction))
}

/// Forgets what is done or void; what is left, by name.
///
/// # Errors
/// The disk.
pub(super) fn settle(db: &Database, me: &Hotkey, network: &NetworkId) -> color_eyre::Result<Vec<(String, Vec<u8>)>> {
    let mut left = db.rows_from::<Vec<u8>>(PENDING, MOST)?;
    for (name, bytes) in std::mem::take(&mut left) {
        if is_done(db, me, network, &name, &bytes)? {
            db.delete_row(&name)?;
        } else {
            left.push((name, bytes));
        }
    }
    Ok(left)
}

/// Submits stored transactions again until they are done.
///
/// # Errors
/// The disk.
pub async fn run(
    db: Database,
    me: Hotkey,
    signer: Signer,
    network: NetworkId,
    driver: DriverHandle,
    stop: CancellationToken,
) -> Result<(), color_eyre::eyre::Report> {
    loop {
        let pair = signer.pair()?;
        for (name, bytes) in settle(&db, &me, &network)? {
            let bytes = signed_now(bytes, &pair, &network);
            if let Verdict::Reject(why) = driver.submit(bytes).await {
                tracing::warn!(%name, %why, "an own transaction is void");
                db.delete_row(&name)?;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
