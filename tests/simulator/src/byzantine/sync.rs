//! Lies about how far one is, and rubbish for those who ask.

use perturb_consensus::wire::{Beacon, Peer, Response, Topic};
use perturb_types::{Signed, encode};
use rand::Rng;

use super::{Answer, Said, Scene, Strategy};

/// Claims heights that nobody has and answers requests with everything but the truth.
pub(super) struct BadSync;

impl Strategy for BadSync {
    fn say(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        if topic != Topic::Status {
            return None;
        }
        let envelope = encode::decode::<perturb_types::Envelope>("status", bytes, topic.max_bytes()).ok()?;
        let beacon = envelope.open::<Beacon>(&scene.cast.network).ok()?;
        let height = match scene.rng.random_range(0..4) {
            0 => u64::MAX,
            1 => 0,
            _ => beacon.height + scene.rng.random_range(1..1_000),
        };
        let (peer, sent_ms): (Peer, u64) = (beacon.peer, beacon.sent_ms);
        let signed = Signed::sign(scene.pair(), &scene.cast.network, Beacon { height, peer, sent_ms });
        Some(scene.to_all(topic, &encode::encode(signed.envelope())))
    }

    fn answer(&mut self, scene: &mut Scene<'_>, bytes: &[u8]) -> Answer {
        let Ok(response) = encode::decode::<Response>("response", bytes, bytes.len()) else { return Answer::Kept };
        match (scene.rng.random_range(0..6), response) {
            (0, _) => Answer::Dropped,
            (1, _) => Answer::Other(vec![7; 100]),
            (2, _) => Answer::Other(encode::encode(&Response::Blocks(Vec::new()))),
            (3, Response::Blocks(mut blocks)) => {
                // More than anybody asks for.
                let again = blocks.clone();
                while blocks.len() < 200 && !again.is_empty() {
                    blocks.extend(again.iter().cloned());
                }
                Answer::Other(encode::encode(&Response::Blocks(blocks)))
            }
            (4, Response::Blocks(mut blocks)) => {
                // Another header, or another body under the header that was agreed, with its certificate.
                if let Some((block, _)) = blocks.first_mut() {
                    let at = scene.rng.random_range(0..block.len().max(1));
                    if let Some(byte) = block.get_mut(at) {
                        *byte ^= 1;
                    }
                }
                Answer::Other(encode::encode(&Response::Blocks(blocks)))
            }
            (_, Response::Blocks(mut blocks)) => {
                if let Some((_, certificate)) = blocks.first_mut()
                    && let Some(byte) = certificate.last_mut()
                {
                    *byte ^= 1;
                }
                Answer::Other(encode::encode(&Response::Blocks(blocks)))
            }
            (_, Response::Body(Some(mut body))) => {
                if let Some(byte) = body.last_mut() {
                    *byte ^= 1;
                }
                Answer::Other(encode::encode(&Response::Body(Some(body))))
            }
            (_, Response::Body(None)) => Answer::Kept,
        }
    }
}
