//! The JSON form of a challenge and its answer, as the whitepaper describes them.
//!
//! The network itself speaks CBOR ([`perturb_types::wire`]); this form is for tools and services
//! that follow the whitepaper. Images are base64 of RGB PNGs; parts of 0..1 are decimals.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use perturb_types::limits;
use serde::{Deserialize, Serialize};

use crate::pixels::{DecodeError, EncodeError, Pixels, PngLimits};
use crate::rules::Rules;

/// What an answer may do to the image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Constraints {
    /// Always `Linf`.
    pub norm: String,
    /// ε on the 0..1 scale.
    pub epsilon: f64,
    /// Smallest norm that counts.
    pub min_delta: f64,
    /// Largest norm allowed.
    pub max_delta: f64,
    /// Least and largest channel value.
    pub pixel_range: [u8; 2],
}

/// Parts of the score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoringWeights {
    /// Part of the perturbation.
    pub perturbation: f64,
    /// Part of the speed.
    pub speed: f64,
}

/// A challenge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChallengeJson {
    /// Names the task.
    pub task_id: String,
    /// The model to fool.
    pub model: String,
    /// The language model that judges meaning, where one does.
    pub llm_model_hint: String,
    /// base64 of the clean RGB PNG.
    pub image: String,
    /// The clean image's label.
    pub true_label: String,
    /// The constraints.
    pub constraints: Constraints,
    /// The score's parts.
    pub scoring_weights: ScoringWeights,
    /// T, milliseconds.
    pub timeout_ms: u32,
}

/// An answer. Nothing else is asked of a miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerJson {
    /// The task.
    pub task_id: String,
    /// base64 of the perturbed RGB PNG.
    pub perturbed_image: String,
}

/// A text that holds no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Too long for an image of the network.
    #[error("{size} characters of base64, at most {limit} are accepted")]
    TooLong {
        /// Characters given.
        size: usize,
        /// Characters allowed.
        limit: usize,
    },
    /// Not base64.
    #[error("not base64: {0}")]
    Base64(String),
    /// Not an accepted PNG.
    #[error(transparent)]
    Png(#[from] DecodeError),
}

/// The PNG bytes behind a base64 text; the length is checked first.
///
/// # Errors
/// Too long, or not base64.
pub fn png_of(text: &str) -> Result<Vec<u8>, PayloadError> {
    let limit = limits::MAX_PNG_BYTES.div_ceil(3) * 4;
    if text.len() > limit {
        return Err(PayloadError::TooLong { size: text.len(), limit });
    }
    STANDARD.decode(text).map_err(|e| PayloadError::Base64(e.to_string()))
}

/// The image behind a base64 text.
///
/// # Errors
/// See [`PayloadError`].
pub fn image_of(text: &str) -> Result<Pixels, PayloadError> {
    Ok(Pixels::decode_png(&png_of(text)?, &PngLimits::default())?)
}

impl ChallengeJson {
    /// The challenge for `image` under `rules`.
    ///
    /// # Errors
    /// The image cannot be written.
    pub fn new(
        task_id: &str,
        model: &str,
        true_label: &str,
        image: &Pixels,
        rules: &Rules,
        seed: u64,
    ) -> Result<Self, EncodeError> {
        let part = |millionths: u32| f64::from(millionths) / 1e6;
        Ok(Self {
            task_id: task_id.to_owned(),
            model: model.to_owned(),
            llm_model_hint: String::new(),
            image: STANDARD.encode(image.encode_png()?),
            true_label: true_label.to_owned(),
            constraints: Constraints {
                norm: "Linf".to_owned(),
                epsilon: part(rules.epsilon_sent(seed)),
                min_delta: part(rules.min_delta),
                max_delta: part(rules.max_delta),
                pixel_range: [0, 255],
            },
            scoring_weights: ScoringWeights {
                perturbation: part(rules.perturbation_part),
                speed: part(1_000_000 - rules.perturbation_part.min(1_000_000)),
            },
            timeout_ms: rules.timeout_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_challenge_has_the_whitepapers_fields_and_numbers() {
        let image = Pixels::new(2, 2, vec![5; 12]).unwrap();
        let json = ChallengeJson::new("t1", "m", "cat", &image, &Rules::whitepaper(), 3).unwrap();
        let value = serde_json::to_value(&json).unwrap();
        assert_eq!(value["constraints"]["epsilon"], 0.06);
        assert_eq!(value["constraints"]["min_delta"], 0.002);
        assert_eq!(value["constraints"]["max_delta"], 0.12);
        assert_eq!(value["scoring_weights"]["speed"], 0.3);
        assert_eq!(value["timeout_ms"], 60_000);
        assert_eq!(image_of(value["image"].as_str().unwrap()).unwrap(), image);
        assert!(matches!(image_of("%%%"), Err(PayloadError::Base64(_))));
        assert!(matches!(image_of("AAAA"), Err(PayloadError::Png(_))));
        assert!(matches!(png_of(&"A".repeat(6_000_000)), Err(PayloadError::TooLong { .. })));
    }
}
