//! What came of the attack on one image.

use std::fmt;
use std::path::Path;

use color_eyre::eyre::{Context, Result};
use perturb_challenge::pixels::Pixels;
use perturb_challenge::report::Report;
use perturb_types::Reason;
use serde::Serialize;

/// What came of the attack on one image. As JSON: everything but the pictures.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The clean image's file.
    pub image: String,
    /// The attack's name.
    pub attack: &'static str,
    /// The model's label of the clean image.
    pub label: u16,
    /// The attack's time, milliseconds; a batch's is shared out evenly.
    pub time_ms: f64,
    /// Forward passes, shared out evenly.
    pub forwards: f64,
    /// Backward passes, shared out evenly.
    pub backwards: f64,
    /// The verifier's report on the answer; none where there is no answer.
    pub verdict: Option<Report>,
    /// The clean image.
    #[serde(skip)]
    pub clean: Pixels,
    /// The answer.
    #[serde(skip)]
    pub adversarial: Option<Pixels>,
}

impl Outcome {
    /// Whether the verifier accepts the answer.
    pub fn success(&self) -> bool {
        self.verdict.as_ref().is_some_and(|v| v.reason == Reason::Success)
    }

    /// The network's score, 0 to 1.
    pub fn score(&self) -> f64 {
        self.verdict.as_ref().map_or(0.0, |v| v.score.as_f64())
    }

    /// The change, amplified until the largest one fills the range; grey is no change.
    pub fn difference(&self) -> Option<Pixels> {
        let adversarial = self.adversarial.as_ref()?;
        let most = self.clean.rgb.iter().zip(&adversarial.rgb).map(|(a, b)| a.abs_diff(*b)).max()?.max(1);
        let gain = 127 / i16::from(most).clamp(1, 127);
        let rgb = self.clean.rgb.iter().zip(&adversarial.rgb);
        let rgb = rgb.map(|(a, b)| (128 + gain * (i16::from(*b) - i16::from(*a))).clamp(0, 255) as u8).collect();
        Pixels::new(self.clean.width, self.clean.height, rgb).ok()
    }

    /// Writes `STEM.adversarial.png` and `STEM.difference.png`, if there is an answer.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path, stem: &str) -> Result<()> {
        let pictures = [("adversarial", self.adversarial.clone()), ("difference", self.difference())];
        for (kind, picture) in pictures {
            let Some(picture) = picture else { continue };
            let path = folder.join(format!("{stem}.{kind}.png"));
            std::fs::write(&path, picture.encode_png()?).wrap_err_with(|| format!("{}", path.display()))?;
        }
        Ok(())
    }

    /// The measurements in words, without the file's name.
    pub fn measurements(&self) -> String {
        let cost = format!("{:.0} forwards, {:.0} backwards, {:.0} ms", self.forwards, self.backwards, self.time_ms);
        let Some(v) = &self.verdict else {
            return format!("nothing found  label {}  {cost}  score 0.000000", self.label);
        };
        let mut line = v.reason.to_string();
        if let Some(m) = &v.measurement {
            let channels = f64::from(m.channels.max(1));
            let percent = 100.0 * f64::from(m.changed) / channels;
            let rmse = (m.sum_squares as f64 / channels).sqrt() / 255.0;
            line += &format!("  k {}  changed {percent:.3} %  rmse {rmse:.6}  ssim {}", m.level, m.ssim);
        }
        if let Some(mdb) = v.psnr_mdb {
            line += &format!("  psnr {:.1} dB", f64::from(mdb) / 1e3);
        }
        if let (Some(predicted), Some(margin)) = (v.predicted, v.margin) {
            line += &format!("  label {} → {predicted}, lead {:.4}", self.label, margin as f64 / 1e6);
        }
        format!("{line}  {cost}  score {}", v.score)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.image, self.measurements())
    }
}

/// All outcomes in one line.
#[derive(Debug, Default)]
pub struct Totals {
    /// Images so far.
    pub images: u32,
    flips: u32,
    score: f64,
    forwards: f64,
    backwards: f64,
    time_ms: f64,
}

impl Totals {
    /// One more.
    pub fn add(&mut self, o: &Outcome) {
        self.images += 1;
        self.flips += u32::from(o.success());
        self.score += o.score();
        self.forwards += o.forwards;
        self.backwards += o.backwards;
        self.time_ms += o.time_ms;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { images, flips, .. } = self;
        let mean = |sum: f64| sum / f64::from((*images).max(1));
        let (score, forwards, backwards) = (mean(self.score), mean(self.forwards), mean(self.backwards));
        write!(
            f,
            "{flips} of {images} flipped  mean score {score:.6}  {forwards:.1} forwards, {backwards:.1} backwards, \
             {:.1} ms an image",
            mean(self.time_ms)
        )
    }
}
