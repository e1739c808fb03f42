//! One miner's part of a round: the offer, the challenge, the commitment that stops the clock, and the
//! image on proof that the commitment is agreed.

use std::time::{Duration, Instant};

use perturb_ledger::agreed::offer_keys;
use perturb_ledger::archive::Archive;
use perturb_ledger::{AgreedRows, Handover};
use perturb_p2p::{NetworkHandle, PeerInfo, Protocol, RequestError};
use perturb_storage::Database;
use perturb_types::round::{AnswerCommit, AnswerStatement, commitment};
use perturb_types::wire::{self, Decline, MinerRequest, MinerResponse};
use perturb_types::{Digest, Hotkey, NetworkId, RoundId, encode};

/// Time for a miner to say that it is ready, with all handovers that it lacks; one that needs longer has
/// got further by the next round.
const READY_TIME: Duration = Duration::from_secs(2);

/// How long the image behind a commitment may take: the clock has stopped, so a thin line costs nothing
/// but this.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause before an image is asked for again that its miner does not show yet.
const FETCH_AGAIN: Duration = Duration::from_millis(300);

/// What came of asking one miner.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The miner.
    pub miner: Hotkey,
    /// What it is bound to; `None` where nothing came in time or the signature was bad.
    pub bound: Option<AnswerCommit>,
    /// The answer that it is bound to; `None` where it never came, was another, or more than an answer has.
    pub png: Option<Vec<u8>>,
    /// From sending to the commitment's arrival, milliseconds; the time waited where none came.
    pub elapsed_ms: u32,
    /// Whether an announcement came with a signature that does not verify.
    pub forged: bool,
}

/// What every exchange of a round has in common.
pub struct Asking<'a> {
    /// The network.
    pub network: &'a NetworkHandle,
    /// The agreed state and its past.
    pub database: &'a Database,
    /// The network's id.
    pub id: &'a NetworkId,
    /// The round.
    pub round: RoundId,
    /// The digest of its image.
    pub image: Digest,
    /// Bytes of an answer's PNG at most ([`perturb_types::limits::answer_bytes`]); of a longer one no more
    /// than its length is read.
    pub answer_bytes: usize,
}

impl Asking<'_> {
    async fn send(&self, peer: &PeerInfo, message: &MinerRequest, time: Duration) -> Result<MinerResponse, String> {
        let bytes = wire::to_cbor("request", message).map_err(|e| e.to_string())?;
        self.raw(peer, bytes, wire::RESPONSE_FRAME_BYTES, time).await
    }

    /// Sends a message, and reads an answer of at most so many bytes.
    async fn raw(&self, peer: &PeerInfo, bytes: Vec<u8>, most: usize, time: Duration) -> Result<MinerResponse, String> {
        read(self.network.request_at_most(peer.peer_id, Protocol::Challenge, bytes, most, time).await)
    }

    /// The rows of these keys in the newest state, with their proofs.
    fn agreed(&self, keys: &[Vec<u8>]) -> Result<Vec<u8>, String> {
        let rows = AgreedRows::collect(self.database, keys).map_err(|e| e.to_string())?;
        rows.map(|rows| encode::encode(&rows)).ok_or_else(|| "the newest state is not held".to_owned())
    }

    /// The next handovers from a height on.
    fn handovers(&self, from: u64) -> Result<Option<MinerRequest>, String> {
        let next = self.database.handovers_from(from, wire::MAX_HANDOVERS).map_err(|e| e.to_string())?;
        let handovers: Vec<_> = next.iter().map(|h: &Handover| encode::encode(h).into()).collect();
        Ok((!handovers.is_empty()).then_some(MinerRequest::Handovers { handovers }))
    }

    /// Offers the round until the miner is ready for it, or will not be.
    async fn offer(&self, peer: &PeerInfo) -> Result<(), String> {
        let offer = MinerRequest::Offer { round: self.round.into(), agreed: self.agreed(&offer_keys(&self.round))? };
        let mut needed = None;
        let mut response = self.send(peer, &offer, READY_TIME).await?;
        loop {
            response = match response {
                MinerResponse::Ready => return Ok(()),
                // Led on as long as it gets on; then the round is offered again.
                MinerResponse::Need { from } if needed.is_none_or(|before| before < from) => {
                    needed = Some(from);
                    match self.handovers(from)? {
                        Some(handovers) => self.send(peer, &handovers, READY_TIME).await?,
                        None => self.send(peer, &offer, READY_TIME).await?,
                    }
                }
                MinerResponse::Need { from } => return Err(format!("it follows no handover from {from} on")),
                other => return Err(kind(&other)),
            };
        }
    }

    /// Whether a miner is ready for the round, and by which connection.
    pub async fn ready(&self, miner: &Hotkey) -> Option<PeerInfo> {
        let peer = self.network.peer_of(miner)?;
        match tokio::time::timeout(READY_TIME, self.offer(&peer)).await {
            Ok(Ok(())) => Some(peer),
            Ok(Err(why)) => {
                tracing::debug!(miner = %miner.short(), %why, "not ready");
                None
            }
            Err(_) => {
                tracing::debug!(miner = %miner.short(), "not ready in time");
                None
            }
        }
    }

    /// Challenges one miner. Never fails: what goes wrong is in the outcome.
    pub async fn challenge(
        &self,
        miner: Hotkey,
        peer: Option<PeerInfo>,
        challenge: &[u8],
        deadline: Duration,
    ) -> Exchange {
        let mut outcome = Exchange { miner, bound: None, png: None, elapsed_ms: 0, forged: false };
        let Some(peer) = peer else { return outcome };
        let sent = Instant::now();
        let announced = self.raw(&peer, challenge.to_vec(), wire::RESPONSE_FRAME_BYTES, deadline).await;
        outcome.elapsed_ms = u32::try_from(sent.elapsed().as_millis()).unwrap_or(u32::MAX);
        let (commit, signature) = match announced {
            Ok(MinerResponse::Announce { commit, signature }) => (commit, signature),
            other => {
                let why = other.map_or_else(|why| why, |other| kind(&other));
                tracing::debug!(miner = %miner.short(), %why, "no announcement");
                return outcome;
            }
        };
        let (Ok(commit), Ok(signature)) = (wire::digest(&commit), wire::fixed::<64>("signature", &signature)) else {
            return outcome;
        };
        let statement = AnswerStatement { round: self.round, image: self.image, commit };
        if statement.verify(&miner, self.id, &signature) {
            outcome.bound = Some(AnswerCommit { commit, signature });
        } else {
            tracing::info!(miner = %miner.short(), round = %self.round, "announcement with a bad signature");
            outcome.forged = true;
        }
        outcome
    }

    /// Fetches the answer that a miner is bound to, where the agreed state has its commitment.
    pub async fn fetch(&self, outcome: &mut Exchange) {
        let (Some(bound), Some(peer)) = (outcome.bound, self.network.peer_of(&outcome.miner)) else { return };
        match tokio::time::timeout(FETCH_TIMEOUT, self.image(&peer)).await {
            Ok(Ok(png)) if commitment(self.id, &self.round, &outcome.miner, &Digest::of(&png)) == bound.commit => {
                outcome.png = Some(png);
            }
            Ok(Ok(_)) => tracing::info!(miner = %outcome.miner.short(), "not the image it is bound to"),
            Ok(Err(why)) => tracing::info!(miner = %outcome.miner.short(), %why, "the image did not come"),
            Err(_) => tracing::info!(miner = %outcome.miner.short(), "the image did not come in time"),
        }
    }

    async fn image(&self, peer: &PeerInfo) -> Result<Vec<u8>, String> {
        let [open, _] = offer_keys(&self.round);
        let mut needed = None;
        loop {
            let fetch =
                MinerRequest::Fetch { round: self.round.into(), agreed: self.agreed(std::slice::from_ref(&open))? };
            let fetch = wire::to_cbor("request", &fetch).map_err(|e| e.to_string())?;
            let most = self.answer_bytes.saturating_add(wire::RESPONSE_FRAME_BYTES);
            match self.raw(peer, fetch, most, FETCH_TIMEOUT).await? {
                MinerResponse::Image { png } if png.len() > self.answer_bytes => {
                    return Err(format!("{} bytes are more than the {} of an answer", png.len(), self.answer_bytes));
                }
                MinerResponse::Image { png } => return Ok(png),
                // Its clock began a little later than this one.
                MinerResponse::Declined { code: Decline::Early, .. } => tokio::time::sleep(FETCH_AGAIN).await,
                // The set changed since the offer.
                MinerResponse::Need { from } if needed.is_none_or(|before| before < from) => {
                    needed = Some(from);
                    if let Some(handovers) = self.handovers(from)? {
                        self.send(peer, &handovers, FETCH_TIMEOUT).await?;
                    }
                }
                other => return Err(kind(&other)),
            }
        }
    }
}

fn read(answer: Result<Vec<u8>, RequestError>) -> Result<MinerResponse, String> {
    let bytes = answer.map_err(|e| e.to_string())?;
    wire::from_cbor("response", &bytes, wire::MAX_MINER_RESPONSE_BYTES).map_err(|e| e.to_string())
}

fn kind(response: &MinerResponse) -> String {
    match response {
        MinerResponse::Ready => "ready".into(),
        MinerResponse::Need { from } => format!("need handovers from {from} on"),
        MinerResponse::Announce { .. } => "announce".into(),
        MinerResponse::Image { .. } => "image".into(),
        MinerResponse::Declined { code, why } => {
            format!("declined {code:?}: {}", why.chars().take(wire::MAX_TEXT).collect::<String>())
        }
    }
}
