//! The rules by which answers are judged: two presets, all numbers integers.
//!
//! With q = 1/255, k the largest 8-bit difference, norm = k·q, rmse the root mean square difference
//! on the 0..1 scale, t the response time, E = min(ε, max):
//!
//! | | `subnet` | `whitepaper` |
//! |---|---|---|
//! | gates | 0.003 ≤ norm ≤ E, max 0.03; SSIM ≥ 0.98; PSNR ≥ 38 dB; label differs | 0.002 ≤ norm ≤ E, ε 0.06, max 0.12; label differs in meaning |
//! | score | 0.7·pert + 0.3·(1 − min(t/T, 1)), pert = 0.7·(1−l)² + 0.3·(1−r)², l = clamp((norm−min)/(E−min)), r = clamp(rmse/E) | 0.7·(1 − min(norm/ε, 1)) + 0.3·(1 − min(t/T, 1)) |
//! | T | 20 s | 60 s |
//! | history | last 50; eligible with 50 processed and a full history; unsolved rounds skipped | last 100; eligible with more than 100 processed |
//! | shares | ranks 1–5: 70, 25, 3, 1.5, 0.5 % over positive scorers | 50, 30, 10 %, ranks 4–10 share 5 % and the rest 5 % by 1/k; blended with the average, γ = 0.7 |
//!
//! [`gates`] decides the gates, [`score`] computes the score, [`judge`] derives verdict and score of
//! a recorded entry again.

pub mod gates;
pub mod judge;
pub mod score;
mod semantic;

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::Millionths;
use serde::{Deserialize, Serialize};

pub use judge::{RecordError, duplicates, judge, judge_round};
pub use score::{score, score_with_margin};
pub use semantic::{DEFAULT_LLM, MAX_LLM_NAME, SemanticRule};

/// One million: the scale of all `u32` parameters named as millionths.
pub const MILLION: u32 = 1_000_000;

/// Scores a history may hold: both presets need at most 100.
pub const MAX_HISTORY_LEN: u32 = 1000;

/// Ranks that an emission schedule may name one by one.
pub const MAX_RANKS: usize = 64;

/// Cells that a transform's field may have along an axis: beyond, it is no longer smooth on a small image.
pub const MAX_CELLS: u8 = 16;

/// Levels that a transform's field may have: a quarter of the range, beyond which photographs clip.
pub const MAX_FIELD: u8 = 64;

/// Which formula the score follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Squared L∞ and RMSE components.
    Subnet,
    /// Linear in L∞.
    Whitepaper,
}

impl Preset {
    /// Its name on the wire and the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subnet => "subnet",
            Self::Whitepaper => "whitepaper",
        }
    }
}

/// How ranks become shares.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emission {
    /// The first ranks get these millionths, renormalised over the positive scorers among them;
    /// everybody else gets nothing.
    Top {
        /// Millionths of rank 1, 2, …
        shares: Vec<u32>,
    },
    /// The first ranks get fixed millionths, the ranks up to `middle_until` share `middle` and all
    /// further ranks share `tail`, in both cases in proportion to 1/rank; renormalised.
    Decaying {
        /// Millionths of rank 1, 2, …
        head: Vec<u32>,
        /// The last rank of the middle group.
        middle_until: u16,
        /// Millionths that the middle group shares.
        middle: u32,
        /// Millionths that the rest shares.
        tail: u32,
    },
}

/// How aggregates and emission shares become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightScheme {
    /// The emission shares alone.
    Emission,
    /// γ·normalize(average) + (1−γ)·normalize(emission), normalised.
    Blend {
        /// γ in millionths.
        gamma: u32,
    },
    /// exp(average / T), normalised, over positive scorers.
    Softmax {
        /// T in millionths, at least 1000.
        temperature: u32,
    },
    /// In proportion to the average.
    Linear,
}

/// The bounds of a round's secret transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct TransformRules {
    /// Whether half of the rounds mirror the image left to right.
    pub flip: bool,
    /// Pixels cropped from each axis in all; the offset within them is secret.
    pub crop: u16,
    /// Largest brightness change, 8-bit levels, either way.
    pub brightness: u8,
    /// Largest change by the smooth field besides, 8-bit levels, either way; 0 for none.
    pub field: u8,
    /// Cells of the field along each axis, at most [`MAX_CELLS`].
    pub cells: u8,
}

/// Everything that is agreed about judging answers of one challenge. Parts of 0..1 are millionths.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Rules {
    /// The formula.
    pub preset: Preset,
    /// ε.
    pub epsilon: u32,
    /// Steps of 0.0001 by which the ε that is *sent* may exceed `epsilon`; see [`Rules::epsilon_sent`].
    pub epsilon_steps: u32,
    /// Smallest L∞ that counts.
    pub min_delta: u32,
    /// Largest L∞ allowed, besides ε.
    pub max_delta: u32,
    /// SSIM gate; 0 for none.
    pub min_ssim: u32,
    /// PSNR gate in thousandths of a decibel; 0 for none.
    pub min_psnr_mdb: u32,
    /// Least lead of the new label's logit over the clean label's, in millionths of a logit, so
    /// that devices which differ in the last bits agree.
    pub min_margin: u32,
    /// Whether the new label must also differ in meaning, and who judges that.
    pub semantic: SemanticRule,
    /// Part of the perturbation in the score; the rest is speed.
    pub perturbation_part: u32,
    /// Part of the level in the `subnet` perturbation; the rest is RMSE.
    pub level_part: u32,
    /// Full bonus for a margin of 10 logits; 0 for none.
    pub margin_bonus: u32,
    /// Full bonus for 8 changed channel values; 0 for none.
    pub changed_bonus: u32,
    /// T: the time at which speed is worth nothing, milliseconds.
    pub timeout_ms: u32,
    /// The last time at which an answer counts, milliseconds.
    pub deadline_ms: u32,
    /// Times are rounded up to a multiple of this, milliseconds.
    pub time_bucket_ms: u32,
    /// N: scores in a history.
    pub history_len: u32,
    /// Rounds a miner must have been in before it can earn.
    pub min_processed: u32,
    /// Whether a round that nobody solved is left out of the histories.
    pub skip_unsolved: bool,
    /// Places of a round reserved for miners that cannot earn yet.
    pub newcomer_part: u32,
    /// Ranks to shares.
    pub emission: Emission,
    /// Shares and averages to weights.
    pub weights: WeightScheme,
    /// Part of everything that goes to the burn uid.
    pub burn: u32,
    /// The secret transform.
    pub transform: TransformRules,
}

/// Rules that contradict themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rules: {field} is {value}: {why}")]
pub struct RulesError {
    /// The parameter.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Rules {
    /// The live subnet's rules of mid-2026.
    #[must_use]
    pub fn subnet() -> Self {
        Self {
            preset: Preset::Subnet,
            epsilon: 60_000,
            epsilon_steps: 1400,
            min_delta: 3_000,
            max_delta: 30_000,
            min_ssim: 980_000,
            min_psnr_mdb: 38_000,
            min_margin: 1_000,
            semantic: SemanticRule::None,
            perturbation_part: 700_000,
            level_part: 700_000,
            margin_bonus: 0,
            changed_bonus: 0,
            timeout_ms: 20_000,
            deadline_ms: 20_000,
            time_bucket_ms: 50,
            history_len: 50,
            min_processed: 50,
            skip_unsolved: true,
            newcomer_part: 200_000,
            emission: Emission::Top { shares: vec![700_000, 250_000, 30_000, 15_000, 5_000] },
            weights: WeightScheme::Emission,
            burn: 0,
            transform: TransformRules { flip: true, crop: 16, brightness: 8, field: 24, cells: 8 },
        }
    }

    /// The whitepaper's rules.
    #[must_use]
    pub fn whitepaper() -> Self {
        Self {
            preset: Preset::Whitepaper,
            epsilon_steps: 0,
            min_delta: 2_000,
            max_delta: 120_000,
            min_ssim: 0,
            min_psnr_mdb: 0,
            semantic: SemanticRule::Wordnet,
            timeout_ms: 60_000,
            deadline_ms: 60_000,
            history_len: 100,
            min_processed: 101,
            skip_unsolved: false,
            emission: Emission::Decaying {
                head: vec![500_000, 300_000, 100_000],
                middle_until: 10,
                middle: 50_000,
                tail: 50_000,
            },
            weights: WeightScheme::Blend { gamma: 700_000 },
            ..Self::subnet()
        }
    }

    /// The preset of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "subnet" => Some(Self::subnet()),
            "whitepaper" => Some(Self::whitepaper()),
            _ => None,
        }
    }

    /// The same rules with a history of `n` scores; the preset's distance between N and the
    /// rounds needed to earn is kept.
    #[must_use]
    pub fn with_history_len(mut self, n: u32) -> Self {
        self.min_processed = n.saturating_add(self.min_processed.saturating_sub(self.history_len));
        self.history_len = n;
        self
    }

    /// The other published splits of the subnet: 70/15/15.
    #[must_use]
    pub fn top_70_15_15() -> Emission {
        Emission::Top { shares: vec![700_000, 150_000, 150_000] }
    }

    /// The other published splits of the subnet: 75/20/5.
    #[must_use]
    pub fn top_75_20_5() -> Emission {
        Emission::Top { shares: vec![750_000, 200_000, 50_000] }
    }

    /// The subnet's later bonuses: 0.03 for the margin, 0.01 for the changed values.
    #[must_use]
    pub fn with_bonuses(mut self) -> Self {
        self.margin_bonus = 30_000;
        self.changed_bonus = 10_000;
        self
    }

    /// E = min(ε, max), millionths.
    #[must_use]
    pub fn cap(&self) -> u32 {
        self.epsilon.min(self.max_delta)
    }

    /// The ε that a round's challenge carries: ε + (seed mod steps)/10000, in millionths. It never
    /// binds beside `max_delta` ([`Rules::validate`] sees to that) but belongs to the wire contract.
    #[must_use]
    pub fn epsilon_sent(&self, seed: u64) -> u32 {
        let step = if self.epsilon_steps == 0 { 0 } else { seed % u64::from(self.epsilon_steps) };
        self.epsilon.saturating_add(u32::try_from(step.saturating_mul(100)).unwrap_or(u32::MAX))
    }

    /// A response time as it enters the record: rounded up to the bucket.
    #[must_use]
    pub fn bucket(&self, time_ms: u32) -> u32 {
        let b = self.time_bucket_ms.max(1);
        time_ms.div_ceil(b).saturating_mul(b)
    }

    /// Refuses rules that make no sense, so that the arithmetic below them is total.
    ///
    /// # Errors
    /// The first parameter at fault.
    pub fn validate(&self) -> Result<(), RulesError> {
        let fault = |field, value: u64, why| Err(RulesError { field, value, why });
        let parts = [
            ("epsilon", self.epsilon),
            ("max_delta", self.max_delta),
            ("min_ssim", self.min_ssim),
            ("perturbation_part", self.perturbation_part),
            ("level_part", self.level_part),
            ("margin_bonus", self.margin_bonus),
            ("changed_bonus", self.changed_bonus),
            ("newcomer_part", self.newcomer_part),
            ("burn", self.burn),
        ];
        if let Some((field, value)) = parts.into_iter().find(|(_, v)| *v > Millionths::ONE.0) {
            return fault(field, u64::from(value), "more than the whole, 1000000");
        }
        if self.min_delta >= self.cap() {
            return fault("min_delta", u64::from(self.min_delta), "not below min(epsilon, max_delta)");
        }
        if self.epsilon_steps > 0 && self.epsilon < self.max_delta {
            return fault("epsilon_steps", u64::from(self.epsilon_steps), "would bind: epsilon is below max_delta");
        }
        if self.min_psnr_mdb > gates::MAX_PSNR_MDB {
            return fault("min_psnr_mdb", u64::from(self.min_psnr_mdb), "above 99 dB");
        }
        if self.timeout_ms == 0 || self.deadline_ms == 0 {
            return fault("timeout_ms", u64::from(self.timeout_ms), "timeout and deadline must be positive");
        }
        if self.time_bucket_ms == 0 || !self.deadline_ms.is_multiple_of(self.time_bucket_ms) {
            return fault("time_bucket_ms", u64::from(self.time_bucket_ms), "must divide deadline_ms");
        }
        if self.history_len == 0 || self.history_len > MAX_HISTORY_LEN {
            return fault("history_len", u64::from(self.history_len), "must lie in 1..=1000");
        }
        if let Some(len) = self.semantic.fault() {
            return fault("semantic", len, "the model's name must have 1 to 64 printable characters");
        }
        match &self.weights {
            WeightScheme::Blend { gamma } if *gamma > MILLION => {
                return fault("gamma", u64::from(*gamma), "more than the whole, 1000000");
            }
            WeightScheme::Softmax { temperature } if *temperature < 1000 => {
                return fault("temperature", u64::from(*temperature), "below 0.001");
            }
            _ => {}
        }
        self.validate_transform()?;
        self.validate_emission()
    }

    fn validate_transform(&self) -> Result<(), RulesError> {
        let TransformRules { field: levels, cells, .. } = self.transform;
        let fault = |field, value: u8, why| Err(RulesError { field, value: u64::from(value), why });
        if levels > MAX_FIELD {
            return fault("transform.field", levels, "above 64 levels");
        }
        if cells > MAX_CELLS {
            return fault("transform.cells", cells, "above 16");
        }
        if (levels == 0) != (cells == 0) {
            return fault("transform.cells", cells, "a field has both levels and cells, or neither");
        }
        Ok(())
    }

    fn validate_emission(&self) -> Result<(), RulesError> {
        let (ranks, rest) = match &self.emission {
            Emission::Top { shares } => (shares, 0),
            Emission::Decaying { head, middle, tail, .. } => (head, u64::from(*middle) + u64::from(*tail)),
        };
        let field = "emission";
        if ranks.is_empty() || ranks.len() > MAX_RANKS {
            return Err(RulesError { field, value: ranks.len() as u64, why: "must name 1 to 64 ranks" });
        }
        let sum = ranks.iter().map(|s| u64::from(*s)).sum::<u64>() + rest;
        if ranks.contains(&0) || sum > u64::from(MILLION) {
            return Err(RulesError { field, value: sum, why: "ranks must be positive and sum to at most 1000000" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
