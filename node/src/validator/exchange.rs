//! One miner's part of a round: the challenge, the digest that stops the clock, the image.

use std::time::{Duration, Instant};

use perturb_p2p::{NetworkHandle, Protocol, RequestError};
use perturb_types::round::{Answer, AnswerStatement};
use perturb_types::wire::{self, MinerRequest, MinerResponse};
use perturb_types::{Digest, Hotkey, NetworkId, RoundId};

/// After the deadline, how long the image behind an announced digest may take: the clock has
/// stopped, so a thin line costs nothing but this.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of asking one miner.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The miner.
    pub miner: Hotkey,
    /// Its bound answer; `None` where none came or the signature was bad.
    pub answer: Option<Answer>,
    /// The bytes behind the digest; `None` where they never came, were others, or more than an answer has.
    pub png: Option<Vec<u8>>,
    /// From sending to the digest's arrival, milliseconds; the time waited where none came.
    pub elapsed_ms: u32,
    /// Whether an announcement came with a signature that does not verify.
    pub forged: bool,
}

/// What all miners of a round are asked.
pub struct Question<'a> {
    /// The network.
    pub network: &'a NetworkHandle,
    /// Its id.
    pub id: &'a NetworkId,
    /// The round.
    pub round: RoundId,
    /// Digest of the image.
    pub image: Digest,
    /// The message with the image.
    pub challenge: &'a [u8],
    /// Time for the announcement.
    pub deadline: Duration,
    /// Bytes of an answer's PNG at most ([`perturb_types::limits::answer_bytes`]); of a longer one no more
    /// than its length is read.
    pub answer_bytes: usize,
}

/// Asks one miner. Never fails: what goes wrong is in the outcome.
pub async fn ask(question: &Question<'_>, miner: Hotkey) -> Exchange {
    let Question { network, id, round, image, challenge, deadline, answer_bytes } = *question;
    let mut outcome = Exchange { miner, answer: None, png: None, elapsed_ms: 0, forged: false };
    let Some(peer) = network.peer_of(&miner) else { return outcome };
    let sent = Instant::now();
    let (to, frame) = (peer.peer_id, wire::RESPONSE_FRAME_BYTES);
    let announced = network.request_at_most(to, Protocol::Challenge, challenge.to_vec(), frame, deadline).await;
    outcome.elapsed_ms = u32::try_from(sent.elapsed().as_millis()).unwrap_or(u32::MAX);
    let (answer, signature) = match read(announced) {
        Ok(MinerResponse::Announce { answer, signature }) => (answer, signature),
        Ok(other) => {
            tracing::debug!(miner = %miner.short(), response = kind(&other), "no announcement");
            return outcome;
        }
        Err(why) => {
            tracing::debug!(miner = %miner.short(), %why, "no announcement");
            return outcome;
        }
    };
    let (Ok(digest), Ok(signature)) = (wire::digest(&answer), wire::fixed::<64>("signature", &signature)) else {
        return outcome;
    };
    let statement = AnswerStatement { round, image, answer: digest };
    if !statement.verify(&miner, id, &signature) {
        tracing::info!(miner = %miner.short(), %round, "announcement with a bad signature");
        outcome.forged = true;
        return outcome;
    }
    outcome.answer = Some(Answer { digest, signature });
    let fetch = MinerRequest::Fetch { round: round.into(), answer };
    let Ok(fetch) = wire::to_cbor("fetch", &fetch) else { return outcome };
    let most = answer_bytes.saturating_add(frame);
    match read(network.request_at_most(to, Protocol::Challenge, fetch, most, FETCH_TIMEOUT).await) {
        Ok(MinerResponse::Image { png }) if png.len() > answer_bytes => {
            tracing::info!(miner = %miner.short(), bytes = png.len(), answer_bytes, "too long an answer");
        }
        Ok(MinerResponse::Image { png }) if Digest::of(&png) == digest => outcome.png = Some(png),
        Ok(other) => tracing::info!(miner = %miner.short(), response = kind(&other), "not the announced image"),
        Err(why) => tracing::info!(miner = %miner.short(), %why, "the announced image did not come"),
    }
    outcome
}

fn read(answer: Result<Vec<u8>, RequestError>) -> Result<MinerResponse, String> {
    let bytes = answer.map_err(|e| e.to_string())?;
    wire::from_cbor("response", &bytes, wire::MAX_MINER_RESPONSE_BYTES).map_err(|e| e.to_string())
}

fn kind(response: &MinerResponse) -> String {
    match response {
        MinerResponse::Announce { .. } => "announce".into(),
        MinerResponse::Image { .. } => "image".into(),
        MinerResponse::Declined { code, why } => {
            format!("declined {code:?}: {}", why.chars().take(wire::MAX_TEXT).collect::<String>())
        }
    }
}
