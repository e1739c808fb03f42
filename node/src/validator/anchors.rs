//! From closed epochs to anchors on the chain, by the operator's policy.

use std::sync::Arc;

use color_eyre::eyre::Result;
use perturb_chain::{AnchorCall, AnchorState, Anchoring, Anchors};
use perturb_consensus::Status;
use perturb_ledger::{Anchor, AnchorKind, AnchorPlace, query};
use perturb_types::{Digest, Hotkey};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::agreed::Agreed;
use crate::config::AnchorPolicy;

/// Anchors that wait for the chain: a newer one covers them.
pub const QUEUE: usize = 4;

/// How and how often.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How.
    pub how: AnchorPolicy,
    /// Every how many epochs; 0 counts as 1.
    pub every: u64,
}

/// Watches the agreed state and hands the newest epoch's anchor on, once the block after the closing one, which names
/// the certificate, is there. After a restart it hands the last one on again: the anchorer knows what it has done.
///
/// # Errors
/// The state cannot be read.
pub async fn run(
    agreed: Arc<Agreed>,
    policy: Policy,
    mut machine: watch::Receiver<Status>,
    anchors: mpsc::Sender<Anchoring>,
    stop: CancellationToken,
) -> Result<()> {
    let mut sent = None;
    loop {
        if let Some(anchor) = newest(&agreed)?
            && sent.is_none_or(|epoch| anchor.epoch > epoch)
            && anchor.epoch.checked_rem(policy.every).unwrap_or(0) == 0
        {
            if let Some(call) = call(policy.how, agreed.genesis().netuid, &anchor) {
                // The anchorer's end is the node's end.
                let _ = anchors.send(Anchoring::new(anchor.epoch, call)).await;
            }
            sent = Some(anchor.epoch);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = machine.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// The anchor of the epoch that was closed last.
fn newest(agreed: &Agreed) -> Result<Option<Anchor>> {
    let db = agreed.database();
    let meta = query::meta(db)?;
    if meta.epoch == 0 {
        return Ok(None);
    }
    let (closing, next) = (db.header(meta.epoch_start)?, db.header(meta.epoch_start.saturating_add(1))?);
    let both = closing.as_ref().zip(next.as_ref());
    Ok(both.and_then(|(closing, next)| Anchor::of(&agreed.genesis().network_id(), closing, next)))
}

fn call(how: AnchorPolicy, netuid: u16, anchor: &Anchor) -> Option<AnchorCall> {
    match how {
        AnchorPolicy::None => None,
        AnchorPolicy::Commitment => {
            let digests = [anchor.state_root, anchor.certificate];
            Some(AnchorCall::Commitment { netuid, text: anchor.label().to_vec(), digests })
        }
        AnchorPolicy::Remark => Some(AnchorCall::Remark { bytes: anchor.to_bytes().to_vec() }),
    }
}

fn kind(call: &AnchorCall) -> AnchorKind {
    match call {
        AnchorCall::Commitment { .. } => AnchorKind::Commitment,
        AnchorCall::Remark { .. } => AnchorKind::Remark,
    }
}

/// Where the anchors of `me` are that have landed, by rising epoch.
pub fn places(anchors: &Anchors, me: Hotkey) -> Vec<AnchorPlace> {
    let place = |anchor: &Anchoring| match &anchor.state {
        AnchorState::Anchored { submitted } => Some(AnchorPlace {
            epoch: anchor.epoch,
            kind: kind(&anchor.call),
            hotkey: me,
            block_number: submitted.block_number,
            block_hash: Digest(submitted.block_hash.0),
            index: submitted.index,
        }),
        _ => None,
    };
    anchors.values().filter_map(place).collect()
}

/// The newest anchor and how far it has come, for people.
pub fn newest_in_words(anchors: &Anchors) -> Option<String> {
    let anchor = anchors.values().next_back()?;
    let how = match kind(&anchor.call) {
        AnchorKind::Commitment => "commitment",
        AnchorKind::Remark => "remark",
    };
    let state = match &anchor.state {
        AnchorState::Due => "due".into(),
        AnchorState::Signed { .. } => "signed".into(),
        AnchorState::Anchored { submitted } => {
            format!("in chain block {}, extrinsic {}", submitted.block_number, submitted.index)
        }
        AnchorState::Failed { reason } => format!("given up: {reason}"),
    };
    let error = anchor.last_error.as_ref().filter(|_| !anchor.is_over());
    let error = error.map(|e| format!(" (last: {e})")).unwrap_or_default();
    Some(format!("epoch {} as {how}: {state}{error}", anchor.epoch))
}
