//! Misbehaviour on purpose, for local networks and drills: a network that cannot be seen to refuse
//! bad answers has not shown that it does.

pub mod errands;
mod ties;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_types::Digest;
use perturb_types::limits::MAX_PNG_BYTES;

use crate::model::Model;
use errands::Errands;

/// How a miner behaves.
#[derive(Debug, Default)]
pub struct Drill {
    kind: Kind,
    turn: AtomicU32,
}

#[derive(Clone, Debug, Default)]
enum Kind {
    #[default]
    Honest,
    Garbage,
    Slow(Duration),
    Padding,
    Ties,
    Errands(Errands),
}

/// Pause between two looks for an answer that another fetches.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of a PNG before its second chunk: signature and IHDR.
const HEAD: usize = 33;

/// What a garbage miner does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Garbage {
    WrongShape,
    OutOfRange,
    CleanImage,
    ForgedSignature,
    Silence,
}

const TURNS: [Garbage; 5] =
    [Garbage::WrongShape, Garbage::OutOfRange, Garbage::CleanImage, Garbage::ForgedSignature, Garbage::Silence];

impl Drill {
    /// No misbehaviour.
    pub fn honest() -> Self {
        Self::default()
    }

    /// Wrong shape, far out of range, the clean image, a forged signature and silence, in turn.
    pub fn garbage() -> Self {
        Self { kind: Kind::Garbage, turn: AtomicU32::new(0) }
    }

    /// Good answers, each only after `delay` (or the deadline, if that is sooner).
    pub fn slow(delay: Duration) -> Self {
        Self { kind: Kind::Slow(delay), turn: AtomicU32::new(0) }
    }

    /// Good answers that are as long as any image on the wire may be, with bytes that nothing compresses.
    pub fn padding() -> Self {
        Self { kind: Kind::Padding, turn: AtomicU32::new(0) }
    }

    /// Good answers that two wrong classes share.
    pub fn ties() -> Self {
        Self { kind: Kind::Ties, turn: AtomicU32::new(0) }
    }

    /// No attack at all: a validator of the same owner asks others.
    pub fn errands(errands: Errands) -> Self {
        Self { kind: Kind::Errands(errands), turn: AtomicU32::new(0) }
    }

    /// Whether it tends to misbehave in a way that needs no attack at all.
    pub fn is_garbage(&self) -> bool {
        matches!(self.kind, Kind::Garbage)
    }

    fn now(&self) -> Option<Garbage> {
        let turn = self.turn.load(Ordering::Relaxed) as usize;
        matches!(self.kind, Kind::Garbage).then(|| TURNS[turn % TURNS.len()])
    }

    /// Moves on to the next misbehaviour.
    pub(crate) fn turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this turn is one of silence; moves on.
    pub(crate) fn silent(&self) -> bool {
        let silent = self.now() == Some(Garbage::Silence);
        if self.is_garbage() {
            self.turn();
        }
        silent
    }

    /// What it has without an attack; `None` where it attacks.
    pub(crate) fn unworked(&self, png: &[u8], until: Instant) -> Option<Option<Pixels>> {
        let errands = match &self.kind {
            Kind::Garbage => return Some(None),
            Kind::Errands(errands) => errands,
            _ => return None,
        };
        if let Err(error) = errands.ask(png) {
            tracing::warn!(%error, "the folder for errands");
        }
        let image = Digest::of(png);
        while Instant::now() < until {
            if let Some(answer) = errands.answer(&image) {
                return Some(Pixels::decode_png(&answer, &PngLimits::default()).ok());
            }
            std::thread::sleep(LOOK);
        }
        Some(None)
    }

    /// What it makes of an attack's answer, with the model while it may still be asked.
    pub(crate) fn bent(
        &self,
        model: &mut dyn Model,
        (clean, label): (&Pixels, u16),
        answer: Pixels,
        salt: u64,
    ) -> Pixels {
        match self.kind {
            Kind::Ties => ties::tie(model, clean, label, answer, salt),
            _ => answer,
        }
    }

    /// The image to answer with.
    pub(crate) fn image(&self, clean: &Pixels, found: Option<Pixels>) -> Option<Pixels> {
        match self.now() {
            None => found,
            Some(Garbage::WrongShape) => Pixels::new(1, 1, vec![0; 3]).ok(),
            Some(Garbage::OutOfRange) => {
                let rgb = clean.rgb.iter().map(|x| x.wrapping_add(128)).collect();
                Pixels::new(clean.width, clean.height, rgb).ok()
            }
            Some(Garbage::CleanImage | Garbage::ForgedSignature) => Some(clean.clone()),
            Some(Garbage::Silence) => None,
        }
    }

    /// The bytes to answer with.
    pub(crate) fn bytes(&self, png: Vec<u8>) -> Vec<u8> {
        let Kind::Padding = self.kind else { return png };
        let length = MAX_PNG_BYTES.saturating_sub(png.len()).saturating_sub(12);
        let Some((head, rest)) = png.split_at_checked(HEAD) else { return png };
        // Readers that skip the chunk do not look at its check sum either.
        let mut noise = self.turn.load(Ordering::Relaxed);
        let noise = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        });
        let frame = (length as u32).to_be_bytes();
        let padding = frame.into_iter().chain(*b"noIz").chain(noise.take(length)).chain([0; 4]);
        head.iter().copied().chain(padding).chain(rest.iter().copied()).collect()
    }

    /// The signature to answer with.
    pub(crate) fn signature(&self, mut honest: [u8; 64]) -> [u8; 64] {
        if self.now() == Some(Garbage::ForgedSignature) {
            honest[7] ^= 0x40;
        }
        honest
    }

    /// Waits as a slow miner does.
    pub(crate) fn dawdle(&self, received: Instant, allowed: Duration) {
        if let Kind::Slow(delay) = self.kind {
            let until = received + delay.min(allowed);
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_challenge::pixels::PngLimits;

    #[test]
    fn garbage_takes_each_turn_once_in_five() {
        let d = Drill::garbage();
        let clean = Pixels::new(2, 2, vec![9; 12]).unwrap();
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(d.now().unwrap());
            match d.image(&clean, None) {
                Some(_) => d.turn(),
                None => assert!(d.silent()),
            }
        }
        assert_eq!(seen, [TURNS, TURNS].concat());
    }

    #[test]
    fn padding_is_a_png_of_the_greatest_length_and_no_answer() {
        let clean = Pixels::new(2, 2, vec![9; 12]).unwrap();
        let png = Drill::padding().bytes(clean.encode_png().unwrap());
        assert_eq!(png.len(), MAX_PNG_BYTES);
        assert_eq!(Pixels::decode_png(&png, &PngLimits::default()).unwrap(), clean);
        assert!(Pixels::decode_answer(&png, &clean).is_err());
    }

    #[test]
    fn an_honest_miner_changes_nothing() {
        let d = Drill::honest();
        let clean = Pixels::new(1, 1, vec![9; 3]).unwrap();
        assert_eq!(d.image(&clean, Some(clean.clone())).unwrap().rgb, clean.rgb);
        assert_eq!(d.signature([3; 64]), [3; 64]);
        assert!(d.image(&clean, None).is_none() && !d.silent());
    }
}
