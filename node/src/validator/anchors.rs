//! From closed epochs to anchors on the chain, by the operator's policy.

use std::sync::Arc;

use color_eyre::eyre::Result;
use perturb_chain::{AnchorCall, AnchorState, Anchoring, Anchors};
use perturb_consensus::Status;
use perturb_ledger::{Anchor, AnchorKind, AnchorPlace, query};
use perturb_types::{Digest, Hotkey};
use tokio::sync::{mpsc, watch};

use super::agreed::Agreed;
use crate::config::AnchorPolicy;

/// Anchors that wait for the chain: a newer one covers them.
pub const QUEUE: usize = 4;

/// How and how often.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How.
    pub how: AnchorPolicy,
    /// Epochs from one anchor to the next, at least; 0 counts as 1.
    pub every: u64,
}

/// Watches the agreed state and hands the newest epoch's anchor on, once the block after the closing one, which names
/// the certificate, is there; members of the set only, for auditors ask about them, and not while blocks are fetched:
/// the epochs between are covered. What was anchored before, `anchored` says when the anchorer has begun.
///
/// # Errors
/// The state cannot be read.
pub async fn run(
    agreed: Arc<Agreed>,
    me: Hotkey,
    policy: Policy,
    mut machine: watch::Receiver<Status>,
    mut anchored: watch::Receiver<Anchors>,
    anchors: mpsc::Sender<Anchoring>,
) -> Result<()> {
    if policy.how == AnchorPolicy::None || anchored.changed().await.is_err() {
        return Ok(());
    }
    let mut last = anchored.borrow().keys().next_back().copied();
    loop {
        let behind = machine.borrow_and_update().is_behind();
        if !behind
            && let Some(anchor) = newest(&agreed, &me)?
            && last.is_none_or(|last| anchor.epoch >= last.saturating_add(policy.every.max(1)))
        {
            last = Some(anchor.epoch);
            if let Some(call) = call(policy.how, agreed.genesis().netuid, &anchor) {
                // The anchorer's end is the node's end.
                let _ = anchors.send(Anchoring::new(anchor.epoch, call)).await;
            }
        }
        if machine.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// The anchor of the epoch that was closed last, where `me` is of the set.
fn newest(agreed: &Agreed, me: &Hotkey) -> Result<Option<Anchor>> {
    let db = agreed.database();
    let meta = query::meta(db)?;
    if meta.epoch == 0 || query::validators(db)?.by_hotkey(me).is_none() {
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
    let how = kind(&anchor.call);
    let state = match &anchor.state {
        AnchorState::Due => "due".into(),
        AnchorState::Signed { .. } => "signed".into(),
        AnchorState::Anchored { submitted } => {
            format!("in chain block {}, extrinsic {}", submitted.block_number, submitted.index)
        }
        AnchorState::Failed => "given up".into(),
    };
    let error = anchor.last_error.as_ref().map(|e| format!(" (last: {e})")).unwrap_or_default();
    Some(format!("epoch {} as {how}: {state}{error}", anchor.epoch))
}
