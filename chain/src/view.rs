//! The finalized head as a watch: what the network's clock of epochs is read from.
//!
//! The follower publishes every new finalized head with the subnet's epoch index at that block.
//! Heights never go back: a node that is behind the last one is waited for. Three block times
//! without a new head count as an outage: the view says so and another connection is opened.

use std::sync::Arc;

use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::backoff;
use crate::link::Link;
use crate::read::Reader;
use crate::{BlockHash, ChainClient, ChainError};

/// The finalized head of the chain as last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainView {
    /// Height of the finalized head; 0 before the first one is seen.
    pub number: u64,
    /// Its hash.
    pub hash: BlockHash,
    /// The subnet's epoch index at that block.
    pub epoch_index: u64,
    /// Whether heads are arriving. While `false`, the other fields are the last known ones.
    pub connected: bool,
}

impl ChainView {
    /// The view after a head at `number`: heights never go back.
    fn advanced(self, number: u64, hash: BlockHash, epoch_index: u64) -> Self {
        if number < self.number {
            return self;
        }
        Self { number, hash, epoch_index, connected: true }
    }
}

/// Keeps `tx` up to date until all receivers are gone.
pub(crate) async fn follow(client: ChainClient, netuid: u16, tx: watch::Sender<ChainView>) {
    // Links that opened and then served nothing: without a wait of their own, a node that answers
    // nonsense would be connected to without end.
    let mut in_vain = 0u32;
    loop {
        let before = tx.borrow().number;
        let error = tokio::select! {
            () = tx.closed() => return,
            error = follow_link(&client, netuid, &tx) => error,
        };
        in_vain = if tx.borrow().number > before { 0 } else { in_vain.saturating_add(1) };
        let was_connected = tx.send_if_modified(|view| std::mem::replace(&mut view.connected, false));
        if was_connected {
            tracing::warn!(error = %error, "the chain is away");
        } else {
            tracing::debug!(error = %error, "the chain is still away");
        }
        let wait = client.retry_in().await.max(backoff(in_vain, rand::random()));
        tokio::select! {
            () = tx.closed() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Follows one link until it fails, and says why.
async fn follow_link(client: &ChainClient, netuid: u16, tx: &watch::Sender<ChainView>) -> ChainError {
    let link = match client.link().await {
        Ok(link) => link,
        Err(e) => return e,
    };
    let error = match follow_heads(client, &link, netuid, tx).await {
        Ok(never) => match never {},
        Err(e) => e,
    };
    // A link that is open but does not serve is not kept: the next endpoint may do better.
    if link.is_open() && error.is_retryable() {
        client.discard(&link).await;
    }
    error
}

async fn follow_heads(
    client: &ChainClient,
    link: &Arc<Link>,
    netuid: u16,
    tx: &watch::Sender<ChainView>,
) -> Result<std::convert::Infallible, ChainError> {
    let mut heads = link.ask("chain_subscribeFinalizedHeads", link.legacy().chain_subscribe_finalized_heads()).await?;
    let slot_duration_ms = publish(link, netuid, tx).await?;
    let stale_after = client.options().stale_after(slot_duration_ms);
    let mut last_new = Instant::now();
    let mut checked = None;
    loop {
        // The checkpoint moves on while a link is open.
        if let Some(checkpoint) = client.known_checkpoint().filter(|checkpoint| Some(*checkpoint) != checked) {
            link.hold_to(checkpoint).await?;
            checked = Some(checkpoint);
        }
        let stale = || ChainError::Stale {
            endpoint: link.endpoint(),
            after_ms: u64::try_from(stale_after.as_millis()).unwrap_or(u64::MAX),
        };
        let next = tokio::select! {
            next = tokio::time::timeout_at(last_new + stale_after, heads.next()) => next,
            () = link.retired() => return Err(link.classify("chain_subscribeFinalizedHeads", "another endpoint is used")),
        };
        match next {
            Err(_) => return Err(stale()),
            Ok(None) => return Err(link.classify("chain_subscribeFinalizedHeads", "the subscription ended")),
            Ok(Some(Err(e))) => return Err(link.classify("chain_subscribeFinalizedHeads", e)),
            Ok(Some(Ok(_))) => {}
        }
        // Only the newest of several waiting heads matters.
        while let Some(Some(Ok(_))) = heads.next().now_or_never() {}
        let before = tx.borrow().number;
        publish(link, netuid, tx).await?;
        if tx.borrow().number > before {
            last_new = Instant::now();
        }
    }
}

/// Reads the finalized head and publishes it. Returns the runtime's slot duration.
async fn publish(link: &Arc<Link>, netuid: u16, tx: &watch::Sender<ChainView>) -> Result<Option<u64>, ChainError> {
    let (number, hash) = link.finalized().await?;
    let reader = Reader::at(Arc::clone(link), number, hash).await?;
    let epoch_index = reader.epoch_index(netuid).await?;
    let slot_duration_ms = reader.slot_duration_ms();
    tx.send_if_modified(|view| {
        let next = view.advanced(number, hash, epoch_index);
        let changed = next != *view;
        *view = next;
        changed
    });
    Ok(slot_duration_ms)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_view_never_goes_back() {
        let view = ChainView::default().advanced(7, BlockHash([7; 32]), 2);
        assert!(view.connected);
        assert_eq!(view.advanced(6, BlockHash([6; 32]), 1), view);
        let newer = view.advanced(8, BlockHash([8; 32]), 3);
        assert_eq!((newer.number, newer.epoch_index), (8, 3));
    }
}
