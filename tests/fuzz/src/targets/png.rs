//! An answer's PNG: reading it, and the whole verification.

use std::sync::OnceLock;

use perturb_challenge::rules::judge_round;
use perturb_challenge::semantics::Exact;
use perturb_challenge::verify::{verify, verify_batch};
use perturb_challenge::{Classifier, ClassifierError, Pixels, PngLimits, Rules};
use perturb_types::limits::answer_bytes;
use perturb_types::round::TransformSecret;
use perturb_types::{Digest, Hotkey, Lot, Reason, RoundId, RoundResult};

use crate::world::CHALLENGE;

/// Sides of the clean image.
pub const SIDE: u32 = 16;

/// Small limits, so that an input cannot ask for megabytes.
const LIMITS: PngLimits = PngLimits { max_bytes: 1 << 20, max_side: 1024, max_pixels: 1 << 18 };

/// The sum of the channel values, by remainder: most changes flip it.
struct Sum;

impl Classifier for Sum {
    fn name(&self) -> &str {
        "sum"
    }
    fn digest(&self) -> Digest {
        Digest([0; 32])
    }
    fn classes(&self) -> usize {
        4
    }
    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        let sums = images.iter().map(|p| p.rgb.iter().map(|v| usize::from(*v)).sum::<usize>());
        sums.map(|sum| match sum % 13 {
            12 => Err(ClassifierError("an unlucky number".into())),
            n => Ok((0..4).map(|class| if class == n % 4 { 2.0 } else { 1.0 }).collect()),
        })
        .collect()
    }
}

/// The clean image.
pub fn clean() -> &'static Pixels {
    static CLEAN: OnceLock<Pixels> = OnceLock::new();
    CLEAN.get_or_init(|| {
        let rgb = (0..SIDE * SIDE * 3).map(|i| 60 + (i * 7 % 120) as u8).collect();
        Pixels::new(SIDE, SIDE, rgb).unwrap()
    })
}

/// CRC-32 of PNG chunks.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

/// The types of a file's chunks.
fn kinds(bytes: &[u8]) -> Vec<[u8; 4]> {
    let (mut out, mut at) = (Vec::new(), 8usize);
    while let (Some(length), Some(kind)) = (bytes.get(at..at + 4), bytes.get(at + 4..at + 8)) {
        out.push(kind.try_into().unwrap());
        at = at.saturating_add(12).saturating_add(u32::from_be_bytes(length.try_into().unwrap()) as usize);
    }
    out
}

/// The file with fitting check sums: else hardly an input would reach what lies behind them.
fn healed(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 8usize;
    while let Some(length) = out.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let end = at.saturating_add(8).saturating_add(length);
        let Some(body) = out.get(at + 4..end) else { break };
        let sum = crc(body).to_be_bytes();
        let Some(place) = out.get_mut(end..end + 4) else { break };
        place.copy_from_slice(&sum);
        at = end + 4;
    }
    out
}

/// An answer, as it came and with fitting check sums.
pub fn answer(bytes: &[u8]) {
    read(bytes);
    let healed = healed(bytes);
    if healed != bytes {
        read(&healed);
    }
}

fn read(bytes: &[u8]) {
    let shape = Pixels::png_shape(bytes, &LIMITS);
    match Pixels::decode_png(bytes, &LIMITS) {
        Ok(pixels) => {
            assert!(shape == Ok((pixels.width, pixels.height)));
            assert!(pixels.width <= LIMITS.max_side && pixels.height <= LIMITS.max_side);
            assert!(pixels.rgb.len() as u64 == u64::from(pixels.width) * u64::from(pixels.height) * 3);
            let written = pixels.encode_png().unwrap();
            assert!(Pixels::decode_png(&written, &LIMITS).unwrap() == pixels);
        }
        Err(_) if shape.is_err() => assert!(Pixels::decode_png(bytes, &LIMITS).is_err()),
        Err(_) => {}
    }
    if let Ok(answer) = Pixels::decode_answer(bytes, clean()) {
        assert!(bytes.len() <= answer_bytes(SIDE, SIDE) && answer.same_shape(clean()));
        assert!(kinds(bytes).iter().all(|kind| [*b"IHDR", *b"IDAT", *b"IEND"].contains(kind)));
        assert!(Pixels::decode_png(bytes, &LIMITS) == Ok(answer), "an answer is a PNG like any other");
    }
    // The network's limits are larger: only what is small by its own word is tried under them.
    if shape.is_ok() || bytes.len() < 64 {
        judged(bytes);
    }
}

fn judged(bytes: &[u8]) {
    let clean = clean();
    let own = clean.encode_png().unwrap();
    for rules in [Rules::subnet(), Rules::whitepaper()] {
        let one = verify(&rules, clean, 0, bytes, &Sum, &Exact);
        let all = verify_batch(&rules, clean, 0, &[bytes, &own, bytes], &Sum, &Exact);
        assert!(all.len() == 3 && all[0] == one && all[2] == one);
        assert!(all[1].reason == Reason::BelowMinDelta, "the clean image itself: {:?}", all[1]);
        // The record that a validator makes of it is one that everyone derives again.
        let entry = one.entry(&rules, 0, Hotkey([1; 32]), Digest::of(bytes), 500, false);
        let result = RoundResult {
            round: RoundId { validator: Hotkey([2; 32]), challenge: CHALLENGE, seq: 0 },
            open: Digest([0; 32]),
            images: Lot { point: [0; 32], proof: [0; 64] },
            skipped: vec![],
            source_index: 0,
            transform: TransformSecret([0; 32]),
            label: 0,
            entries: vec![entry],
        };
        if let Err(e) = judge_round(&rules, &result) {
            panic!("a verdict that does not follow from its record: {e}");
        }
    }
}
