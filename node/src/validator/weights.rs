//! From closed epochs to weights on chain: hands each agreed vector to the submitter, once.

use std::sync::Arc;

use color_eyre::eyre::Result;
use perturb_chain::{AgreedVector, BlockHash, ChainClient, WeightsCall};
use perturb_consensus::Status;
use perturb_ledger::{epoch, query};
use perturb_types::Hotkey;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::agreed::Agreed;

/// Epochs of the chain after which a vector is too old to begin with.
const EXPIRES_AFTER: u64 = 2;

/// Watches the agreed state and sends the newest closed epoch's vectors. After a restart it sends
/// the last one again: the submitter knows what it has done. The chain's client is held to the block
/// that the network agreed on: an endpoint that has another one there is on another chain.
///
/// # Errors
/// The state cannot be read.
pub async fn run(
    agreed: Arc<Agreed>,
    me: Hotkey,
    chain: ChainClient,
    mut machine: watch::Receiver<Status>,
    vectors: mpsc::Sender<AgreedVector>,
    stop: CancellationToken,
) -> Result<()> {
    let mut sent: Option<u64> = None;
    loop {
        let meta = query::meta(agreed.database())?;
        chain.hold_to(meta.reference.number, BlockHash(meta.reference.hash.0));
        if let Some(closed) = meta.epoch.checked_sub(1)
            && sent.is_none_or(|s| closed > s)
        {
            // Only who is on the subnet with a permit can set weights.
            let snapshot = query::snapshot(agreed.database())?;
            if snapshot.neuron(&me).is_some_and(|n| n.permit) {
                send(&agreed, closed, meta.reference.epoch_index, &vectors).await?;
            }
            sent = Some(closed);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = machine.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

async fn send(agreed: &Agreed, closed: u64, index: u64, vectors: &mpsc::Sender<AgreedVector>) -> Result<()> {
    let netuid = agreed.genesis().netuid;
    for spec in query::challenges(agreed.database())? {
        let Some(record) = epoch::record(agreed.database(), closed, spec.id)? else { continue };
        let vector = AgreedVector {
            call: WeightsCall {
                netuid,
                mecid: record.mechanism,
                weights: record.weights.iter().map(|(uid, _, w)| (*uid, *w)).collect(),
                version_key: record.version_key,
            },
            epoch: closed,
            reference_block: record.snapshot_block,
            expires_after_epoch: Some(index + EXPIRES_AFTER),
        };
        tracing::info!(
            epoch = closed,
            mechanism = record.mechanism,
            entries = vector.call.weights.len(),
            "weights agreed"
        );
        // The submitter's end is the node's end.
        let _ = vectors.send(vector).await;
    }
    Ok(())
}
