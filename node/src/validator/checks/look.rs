//! One look at a drawn round: its evidence is fetched, its source image is made again, and
//! [`perturb_challenge::recheck`] says whether the record is possible.

use std::sync::Arc;
use std::time::{Duration, Instant};

use color_eyre::eyre::Result;
use perturb_challenge::classifier::Classifier;
use perturb_challenge::construct::{Construction, Prepared, Seen, Wanted};
use perturb_challenge::pace::Until;
use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::recheck::{self, Flaw, Recheck, needs_image};
use perturb_challenge::semantics::Semantics;
use perturb_challenge::source::ImageSource;
use perturb_ledger::ChallengeSpec;
use perturb_ledger::verdict::{CheckRow, Finding};
use perturb_types::limits::{MAX_PNG_BYTES, answer_bytes};
use perturb_types::round::TransformSecret;
use perturb_types::{Digest, NetworkId, RoundId, RoundResult};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::evidence::{Evidence, gather};
use crate::validator::rounds::until;

/// How long the images that were passed over may take to come, and then to be looked at. Apart from the
/// patience with its validator: who is slow with answers would else leave no time to look at what it skipped.
const DRAWN: Duration = Duration::from_secs(30);

/// What looking came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Holds,
    Fails(Finding),
    /// An image was not found; that may change.
    Later(Finding),
    /// This machine cannot tell now: its disk, its model, an image server. Nobody is accused of that.
    Unknown,
}

impl From<recheck::Outcome> for Outcome {
    fn from(found: recheck::Outcome) -> Self {
        match found {
            recheck::Outcome::Holds => Self::Holds,
            recheck::Outcome::Unknown => Self::Unknown,
            recheck::Outcome::Fails(Flaw::Measurement) => Self::Fails(Finding::Measurement),
            recheck::Outcome::Fails(Flaw::Label) => Self::Fails(Finding::Label),
            recheck::Outcome::Fails(Flaw::Stated) => Self::Fails(Finding::Stated),
        }
    }
}

/// What a look may cost, so that it ends long before its window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one image.
    pub image: Duration,
    /// For everything that is fetched.
    pub whole: Duration,
}

/// Looks at drawn rounds of one challenge.
pub(super) struct Looker {
    pub spec: ChallengeSpec,
    pub classifier: Arc<dyn Classifier>,
    pub source: Arc<dyn ImageSource>,
    pub semantics: Arc<dyn Semantics>,
    /// What the set's labels want.
    pub wanted: Wanted,
    /// The network's id.
    pub id: NetworkId,
    /// Runs of the model: one at a time, however many looks fetch.
    pub model: Semaphore,
    pub stop: CancellationToken,
}

impl Looker {
    /// Looks at one round.
    ///
    /// # Errors
    /// The disk.
    pub async fn look<E: Evidence>(
        &self,
        evidence: &E,
        round: &RoundId,
        row: &CheckRow,
        tolerance: u32,
        patience: Patience,
    ) -> Result<Outcome> {
        let result = tokio::time::timeout(patience.whole, evidence.result(round, row)).await;
        let Some(result) = result.unwrap_or(Ok(None))? else { return Ok(Outcome::Unknown) };
        // The image first: its sides bound the answers, once it is known to be the right one.
        let began = Instant::now();
        let came = gather(evidence, &[row.fresh.image], round, MAX_PNG_BYTES, patience.image).await?;
        let left = patience.whole.saturating_sub(began.elapsed());
        let Some(png) = came.into_iter().flatten().next() else { return Ok(Outcome::Later(Finding::ImageMissing)) };
        let used = match tokio::task::block_in_place(|| self.used(&result, row, &png)) {
            Ok(used) => used,
            Err(outcome) => return Ok(outcome),
        };
        let clean = used.pixels();
        let wanted: Vec<Digest> = result.entries.iter().filter(|e| needs_image(e)).filter_map(|e| e.answer).collect();
        let fetched = gather(evidence, &wanted, round, answer_bytes(clean.width, clean.height), patience.image);
        // Whoever withholds by being slow withholds.
        let Ok(pngs) = tokio::time::timeout(left, fetched).await else {
            return Ok(Outcome::Later(Finding::AnswerMissing));
        };
        let pngs = pngs?;
        // Before the turn is waited for: a slow source holds nobody's model up.
        let fetching = until(DRAWN, &self.stop);
        let passed = match tokio::task::block_in_place(|| self.passed_over(&result, row, &fetching)) {
            Ok(passed) => passed,
            Err(outcome) => return Ok(outcome),
        };
        let Ok(_turn) = self.model.acquire().await else { return Ok(Outcome::Unknown) };
        Ok(tokio::task::block_in_place(|| match self.drawn(&passed, &used, tolerance) {
            Outcome::Holds => self.judge(&result, clean, &pngs, tolerance),
            other => other,
        }))
    }

    fn construction(&self) -> Construction<'_> {
        Construction {
            rules: &self.spec.rules,
            source: self.source.as_ref(),
            classifier: self.classifier.as_ref(),
            semantics: self.semantics.as_ref(),
            wanted: &self.wanted,
        }
    }

    /// An image that was drawn for a round, made again; nothing where it can serve nobody.
    fn prepare(
        &self,
        row: &CheckRow,
        (attempt, image): (u64, u64),
        until: &Until,
    ) -> Result<Option<Prepared>, Outcome> {
        let secret = TransformSecret::of(&self.id, &row.fresh.value, attempt);
        match self.construction().prepare(image, &secret, until) {
            Ok(prepared) => Ok(prepared.ok()),
            Err(error) => {
                tracing::warn!(image, %error, "an image of a round cannot be looked at now");
                Err(Outcome::Unknown)
            }
        }
    }

    /// The image that was used, where the miners got it.
    fn used(&self, result: &RoundResult, row: &CheckRow, png: &[u8]) -> Result<Prepared, Outcome> {
        let wrong = Outcome::Fails(Finding::ImageWrong);
        let Ok(given) = Pixels::decode_png(png, &PngLimits::default()) else { return Err(wrong) };
        if result.source_index >= self.source.len() {
            return Err(wrong);
        }
        let drawn = (result.skipped.len() as u64, result.source_index);
        match self.prepare(row, drawn, &until(SOURCE, &self.stop))? {
            Some(used) if *used.pixels() == given => Ok(used),
            // No honest round can have used an image that nobody can read.
            _ => Err(wrong),
        }
    }

    /// The images that were drawn before it, as far as they can be read.
    fn passed_over(&self, result: &RoundResult, row: &CheckRow, until: &Until) -> Result<Vec<Prepared>, Outcome> {
        let drawn = (0..).zip(result.skipped.iter().copied());
        drawn.filter_map(|drawn| self.prepare(row, drawn, until).transpose()).collect()
    }

    /// Whether the image that was used serves, and none of those that were passed over.
    fn drawn(&self, passed: &[Prepared], used: &Prepared, tolerance: u32) -> Outcome {
        let until = until(DRAWN, &self.stop);
        let wrong = passed.iter().map(|image| (image, Seen::Serves, Finding::Skipped));
        for (image, wrong, finding) in wrong.chain([(used, Seen::Fails, Finding::ImageWrong)]) {
            match self.construction().look_again(image, tolerance.into(), &until) {
                Ok(seen) if seen == wrong => return Outcome::Fails(finding),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "an image of a round cannot be looked at now");
                    return Outcome::Unknown;
                }
            }
        }
        Outcome::Holds
    }

    fn judge(&self, result: &RoundResult, clean: &Pixels, answers: &[Option<Vec<u8>>], tolerance: u32) -> Outcome {
        let recheck = Recheck {
            rules: &self.spec.rules,
            classifier: self.classifier.as_ref(),
            semantics: self.semantics.as_ref(),
            tolerance,
        };
        match recheck.label(clean, result.label) {
            recheck::Outcome::Holds => {}
            other => return other.into(),
        }
        let mut answers = answers.iter();
        let given: Vec<Option<Vec<u8>>> = result
            .entries
            .iter()
            .map(|e| needs_image(e).then(|| answers.next().cloned().flatten()).flatten())
            .collect();
        let missing = result.entries.iter().zip(&given).any(|(e, png)| needs_image(e) && png.is_none());
        match recheck.answers(clean, result.label, &result.entries, &given) {
            // Those that came are enough to say that it fails, never that it holds.
            recheck::Outcome::Holds | recheck::Outcome::Unknown if missing => Outcome::Later(Finding::AnswerMissing),
            other => other.into(),
        }
    }
}

/// How long the source image may take.
const SOURCE: Duration = Duration::from_secs(5);
