//! Where a round's evidence comes from: here, its own validator, other validators. What is used is what a
//! digest of the agreed state names, whoever gave it.

use std::future::Future;
use std::time::Duration;

use color_eyre::eyre::Result;
use futures::StreamExt;
use futures::stream;
use perturb_consensus::wire::{MAX_RESPONSE_BYTES, Request, Response};
use perturb_ledger::verdict::CheckRow;
use perturb_ledger::{Block, Transaction};
use perturb_p2p::{PeerInfo, Protocol, Role};
use perturb_types::limits::MAX_BLOCK_BYTES;
use perturb_types::{Digest, Hotkey, RoundId, RoundResult, encode};

use crate::validator::challenges::Shared;

/// Other validators asked for an image that its own validator does not give.
const OTHERS: usize = 3;

/// Images of one round that are fetched at once: what a peer answers within its limit on requests.
const FETCHES: usize = 4;

/// Gives results and images.
pub trait Evidence: Send + Sync {
    /// The result of a drawn round as it stands in its block; `None` where nobody gives it now.
    fn result(&self, round: &RoundId, row: &CheckRow) -> impl Future<Output = Result<Option<RoundResult>>> + Send;

    /// An image of a round by its digest, of so many bytes at the most; `None` where nobody gives it now.
    fn image(
        &self,
        digest: Digest,
        round: &RoundId,
        most: usize,
    ) -> impl Future<Output = Result<Option<Vec<u8>>>> + Send;
}

/// Fetches images of a round side by side, each within the time and of so many bytes at the most; in their
/// order, `None` for those that did not come.
///
/// # Errors
/// The disk.
pub(super) async fn gather<E: Evidence>(
    evidence: &E,
    wanted: &[Digest],
    round: &RoundId,
    most: usize,
    each: Duration,
) -> Result<Vec<Option<Vec<u8>>>> {
    let one = |digest: Digest| async move {
        let came = tokio::time::timeout(each, evidence.image(digest, round, most)).await;
        came.unwrap_or(Ok(None))
    };
    let all: Vec<Result<Option<Vec<u8>>>> =
        stream::iter(wanted.iter().copied().map(one)).buffered(FETCHES).collect().await;
    all.into_iter().collect()
}

/// This node and its peers.
pub struct Peers {
    /// What every service has.
    pub shared: Shared,
    /// How long one peer may take.
    pub patience: Duration,
}

impl Peers {
    /// Whom to ask about a round: its validator, and some others.
    fn asked(&self, validator: &Hotkey) -> Vec<PeerInfo> {
        let network = &self.shared.network;
        let others = network.peers();
        let others = others.iter().filter(|p| p.role == Role::Validator && p.hotkey.as_ref() != Some(validator));
        network.peer_of(validator).into_iter().chain(others.take(OTHERS).cloned()).collect()
    }

    fn result_in(&self, block: &Block, row: &CheckRow) -> Result<Option<RoundResult>> {
        let found = block.body.transactions.iter().find(|t| t.digest(&self.shared.id) == row.fresh.result);
        let Some(Transaction::RoundResult(envelope)) = found else { return Ok(None) };
        Ok(Some(encode::decode("round result", &envelope.payload, envelope.payload.len())?))
    }
}

impl Evidence for Peers {
    async fn result(&self, round: &RoundId, row: &CheckRow) -> Result<Option<RoundResult>> {
        if let Some(block) = self.shared.agreed.database().block(row.fresh.height)? {
            return self.result_in(&block, row);
        }
        // A node that began with a snapshot has not seen the block: the row names what is asked for.
        let request = encode::encode(&Request::Blocks { from: row.fresh.height, count: 1 });
        for peer in self.asked(&round.validator) {
            let asked = self.shared.network.request(peer.peer_id, Protocol::Sync, request.clone(), self.patience).await;
            let Ok(Ok(Response::Blocks(blocks))) =
                asked.map(|bytes| encode::decode("response", &bytes, MAX_RESPONSE_BYTES))
            else {
                continue;
            };
            let block = blocks.first().and_then(|(block, _)| encode::decode("block", block, MAX_BLOCK_BYTES).ok());
            if let Some(found) = block.and_then(|block| self.result_in(&block, row).transpose()) {
                return found.map(Some);
            }
        }
        Ok(None)
    }

    async fn image(&self, digest: Digest, round: &RoundId, most: usize) -> Result<Option<Vec<u8>>> {
        if let Some(png) = self.shared.agreed.database().blob(&digest)? {
            return Ok(Some(png));
        }
        for peer in self.asked(&round.validator) {
            let (network, wanted) = (&self.shared.network, digest.0.to_vec());
            let asked = network.request_at_most(peer.peer_id, Protocol::Blob, wanted, most, self.patience).await;
            match asked {
                Ok(png) if Digest::of(&png) == digest => {
                    self.shared.evidence.copy(round, &png)?;
                    return Ok(Some(png));
                }
                Ok(_) => tracing::warn!(peer = %peer.peer_id, %digest, "another image than asked for"),
                Err(error) => tracing::debug!(peer = %peer.peer_id, %error, "an image was not found there"),
            }
        }
        Ok(None)
    }
}
