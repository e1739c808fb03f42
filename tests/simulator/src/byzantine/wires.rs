//! Lies about nothing but who hears what, and when.

use perturb_consensus::wire::Topic;
use rand::Rng;

use super::{Answer, Said, Scene, Strategy};

/// Says what the machine says; the lie is in the rounds.
pub(super) struct Plain;

impl Strategy for Plain {}

/// Says nothing at all.
pub(super) struct Mute;

impl Strategy for Mute {
    fn say(&mut self, _scene: &mut Scene<'_>, _topic: Topic, _bytes: &[u8]) -> Option<Vec<Said>> {
        Some(Vec::new())
    }

    fn answer(&mut self, _scene: &mut Scene<'_>, _bytes: &[u8]) -> Answer {
        Answer::Dropped
    }
}

/// Each message reaches a random part of the others.
pub(super) struct Selective;

impl Strategy for Selective {
    fn say(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        let (some, _) = scene.halves();
        Some(some.into_iter().map(|to| Said { to, topic, bytes: bytes.to_vec(), after_ms: 0 }).collect())
    }
}

/// Each message leaves up to four seconds late.
pub(super) struct Late;

impl Strategy for Late {
    fn say(&mut self, scene: &mut Scene<'_>, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        let mut out = scene.to_all(topic, bytes);
        for said in &mut out {
            said.after_ms = scene.rng.random_range(0..4_000);
        }
        Some(out)
    }
}
