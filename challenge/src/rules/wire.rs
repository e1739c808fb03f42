//! The rules as a miner gets them: what it needs to aim.

use perturb_types::wire::WireRules;

use super::Rules;

impl Rules {
    /// The wire form for the round of `seed` (which only moves the ε that is sent).
    #[must_use]
    pub fn to_wire(&self, seed: u64) -> WireRules {
        WireRules {
            preset: self.preset.name().to_owned(),
            norm: "Linf".to_owned(),
            epsilon: self.epsilon_sent(seed),
            min_delta: self.min_delta,
            max_delta: self.max_delta,
            min_ssim: self.min_ssim,
            min_psnr_mdb: self.min_psnr_mdb,
            min_margin: self.min_margin,
            timeout_ms: self.timeout_ms,
        }
    }

    /// The preset of the wire form with the numbers it carries; everything else is the preset's.
    /// `None` for an unknown preset or norm, or for numbers that make no sense.
    #[must_use]
    pub fn from_wire(wire: &WireRules) -> Option<Self> {
        let preset = Self::by_name(&wire.preset)?;
        let rules = Self {
            epsilon: wire.epsilon,
            epsilon_steps: 0,
            min_delta: wire.min_delta,
            max_delta: wire.max_delta,
            min_ssim: wire.min_ssim,
            min_psnr_mdb: wire.min_psnr_mdb,
            min_margin: wire.min_margin,
            timeout_ms: wire.timeout_ms,
            deadline_ms: wire.timeout_ms,
            time_bucket_ms: 1,
            ..preset
        };
        (wire.norm == "Linf" && rules.validate().is_ok()).then_some(rules)
    }
}
