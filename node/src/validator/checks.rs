//! Spot checks: verifies the drawn rounds of other validators again, from the images themselves.
//!
//! The clean image must be the revealed transform of the agreed source image; each answer must give
//! exactly the recorded integers; the model must say the same label, unless the lead of one label over
//! the other is within the agreed tolerance on one of the two machines (different machines may round
//! differently near a tie). Meaning is judged again where every validator's judge says the same; what a
//! language model said is taken from the record. An image is *missing* when neither the round's validator nor any other
//! validator gives it during half of the window.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::Result;
use perturb_challenge::classifier::Classifier;
use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::semantics::{Semantics, SemanticsError};
use perturb_challenge::source::{ImageSource, SourceError};
use perturb_challenge::transform::Transform;
use perturb_challenge::verify::{Verdict, verify};
use perturb_consensus::Verdict as Admission;
use perturb_consensus::wire::{MAX_RESPONSE_BYTES, Request, Response};
use perturb_ledger::spot::{CheckRow, Disagreement, Finding};
use perturb_ledger::{Block, ChallengeSpec, Transaction, query};
use perturb_p2p::{PeerInfo, Protocol, Role};
use perturb_types::limits::{MAX_BLOCK_BYTES, MAX_PNG_BYTES, answer_bytes};
use perturb_types::round::Meaning;
use perturb_types::{Digest, Entry, Hotkey, Reason, RoundId, RoundResult, Signed, encode};
use tokio_util::sync::CancellationToken;

use super::bytes_of;
use super::challenges::Shared;
use super::rounds::until;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// How long one image may take.
const FETCH: Duration = Duration::from_secs(5);

/// Other validators asked for an image that its own validator does not give.
const OTHERS: usize = 3;

/// Verifies the drawn rounds of one challenge.
pub struct Checks {
    /// What every service has.
    pub shared: Shared,
    /// The challenge.
    pub spec: ChallengeSpec,
    /// Its classifier.
    pub classifier: Arc<dyn Classifier>,
    /// Its images.
    pub source: Arc<dyn ImageSource>,
    /// Its judge of meaning.
    pub semantics: Arc<dyn Semantics>,
    /// The end.
    pub stop: CancellationToken,
}

/// The judge whom a record quotes, where asking again may give another answer.
struct Recorded(Meaning);

impl Semantics for Recorded {
    fn name(&self) -> &str {
        "recorded"
    }

    fn compare(&self, _: u16, _: u16) -> Result<Meaning, SemanticsError> {
        Ok(self.0)
    }
}

/// What verifying again came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Holds,
    Fails(Finding),
    /// An image is not to be had now.
    Later(Finding),
    /// This machine cannot tell now: its disk, its model, an image server. Nobody is accused of that.
    Unknown,
}

impl Checks {
    /// Runs until the end.
    ///
    /// # Errors
    /// The disk.
    pub async fn run(self) -> Result<()> {
        let mut done: BTreeSet<RoundId> = BTreeSet::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
            let db = self.shared.agreed.database();
            let checks = query::checks(db)?;
            done.retain(|round| checks.iter().any(|(r, _)| r == round));
            let member = query::validators(db)?.by_key(&self.shared.signer.pair()?.public()).is_some();
            for (round, row) in checks {
                if !member || round.challenge != self.spec.id || round.validator == self.shared.me {
                    continue;
                }
                if !done.contains(&round) && self.check(&round, &row).await? {
                    done.insert(round);
                }
            }
        }
    }

    /// Checks one round; true where nothing more is to be done about it.
    async fn check(&self, round: &RoundId, row: &CheckRow) -> Result<bool> {
        let db = self.shared.agreed.database();
        let height = self.shared.driver.status().borrow().height;
        // A node that began with a snapshot has not seen the block: the row names what is asked for.
        let Some(result) = self.result(round, row).await? else { return Ok(false) };
        let finding = match self.verify(&result, row).await? {
            Outcome::Holds => {
                tracing::info!(%round, "a checked round holds");
                return Ok(true);
            }
            Outcome::Later(finding) => {
                let patience = query::parameters(db)?.spot_checks.window_blocks / 2;
                if height < row.drawn.saturating_add(patience) {
                    return Ok(false);
                }
                finding
            }
            Outcome::Fails(finding) => finding,
            Outcome::Unknown => return Ok(false),
        };
        tracing::warn!(%round, ?finding, "a checked round does not hold");
        let d = Disagreement { hotkey: self.shared.me, round: *round, result: row.fresh.result, finding };
        let signed = Signed::sign(&self.shared.signer.pair()?, &self.shared.id, d);
        let transaction = Transaction::Disagreement(signed.into_envelope());
        if let Admission::Reject(why) = self.shared.driver.submit(bytes_of(&transaction)).await {
            tracing::warn!(%round, %why, "the disagreement was refused");
        }
        Ok(true)
    }

    /// The result as it stands in its block, here or with other validators.
    async fn result(&self, round: &RoundId, row: &CheckRow) -> Result<Option<RoundResult>> {
        if let Some(block) = self.shared.agreed.database().block(row.fresh.height)? {
            return self.result_in(&block, row);
        }
        let request = encode::encode(&Request::Blocks { from: row.fresh.height, count: 1 });
        for peer in self.asked(&round.validator) {
            let asked = self.shared.network.request(peer.peer_id, Protocol::Sync, request.clone(), FETCH).await;
            let Ok(Ok(Response::Blocks(blocks))) =
                asked.map(|bytes| encode::decode("response", &bytes, MAX_RESPONSE_BYTES))
            else {
                continue;
            };
            let block = blocks.first().and_then(|(block, _)| encode::decode("block", block, MAX_BLOCK_BYTES).ok());
            // What is used is what the digest in the state names, whoever gave it.
            if let Some(found) = block.and_then(|block| self.result_in(&block, row).transpose()) {
                return found.map(Some);
            }
        }
        Ok(None)
    }

    fn result_in(&self, block: &Block, row: &CheckRow) -> Result<Option<RoundResult>> {
        let found = block.body.transactions.iter().find(|t| t.digest(&self.shared.id) == row.fresh.result);
        let Some(Transaction::RoundResult(envelope)) = found else { return Ok(None) };
        Ok(Some(encode::decode("round result", &envelope.payload, envelope.payload.len())?))
    }

    /// Whom to ask about a round: its validator, and some others.
    fn asked(&self, validator: &Hotkey) -> Vec<PeerInfo> {
        let network = &self.shared.network;
        let others = network.peers();
        let others = others.iter().filter(|p| p.role == Role::Validator && p.hotkey.as_ref() != Some(validator));
        network.peer_of(validator).into_iter().chain(others.take(OTHERS).cloned()).collect()
    }

    async fn verify(&self, result: &RoundResult, row: &CheckRow) -> Result<Outcome> {
        let Some(png) = self.image(&row.fresh.image, &result.round, MAX_PNG_BYTES).await? else {
            return Ok(Outcome::Later(Finding::ImageMissing));
        };
        let clean = match self.clean(result, &png) {
            Ok(clean) => clean,
            Err(outcome) => return Ok(outcome),
        };
        let tolerance = query::parameters(self.shared.agreed.database())?.spot_checks.margin_tolerance;
        match self.same_label(&clean, result.label, tolerance) {
            Outcome::Holds => {}
            other => return Ok(other),
        }
        let most = answer_bytes(clean.width, clean.height);
        for entry in result.entries.iter().filter(|e| e.measurement.channels > 0) {
            let Some(answer) = &entry.answer else { continue };
            let Some(png) = self.image(&answer.digest, &result.round, most).await? else {
                return Ok(Outcome::Later(Finding::AnswerMissing));
            };
            match self.entry(&clean, result.label, entry, &png, tolerance) {
                Outcome::Holds => {}
                other => return Ok(other),
            }
        }
        Ok(Outcome::Holds)
    }

    /// The image that the miners got, where it is what it should be.
    fn clean(&self, result: &RoundResult, png: &[u8]) -> Result<Pixels, Outcome> {
        let wrong = Outcome::Fails(Finding::ImageWrong);
        let Ok(given) = Pixels::decode_png(png, &PngLimits::default()) else { return Err(wrong) };
        if result.source_index >= self.source.len() {
            return Err(wrong);
        }
        let expected = tokio::task::block_in_place(|| {
            let source = self.source.get_until(result.source_index, &until(FETCH, &self.stop))?;
            Ok(Transform::derive(&result.transform, &self.spec.rules.transform).apply(&source.pixels))
        });
        match expected.map_err(|error: SourceError| (error.one_image(), error)) {
            Ok(expected) if given == expected => Ok(given),
            // No honest round can have used an image that nobody can read.
            Ok(_) | Err((true, _)) => Err(wrong),
            Err((false, error)) => {
                tracing::warn!(round = %result.round, %error, "a round cannot be checked now");
                Err(Outcome::Unknown)
            }
        }
    }

    /// Whether the model gives the clean image this label, ties aside.
    fn same_label(&self, clean: &Pixels, label: u16, tolerance: u32) -> Outcome {
        let rows = tokio::task::block_in_place(|| self.classifier.logits(&[clean]));
        let row = match rows.map(|mut rows| rows.pop()) {
            Ok(Some(row)) => row,
            failed => {
                tracing::warn!(?failed, "the model gave nothing: a round cannot be checked now");
                return Outcome::Unknown;
            }
        };
        let own = row.get(usize::from(label)).copied();
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let lead = own.map_or(f64::INFINITY, |own| f64::from(best) - f64::from(own));
        if lead * 1e6 <= f64::from(tolerance) { Outcome::Holds } else { Outcome::Fails(Finding::Label) }
    }

    /// Verifies an entry again.
    fn entry(&self, clean: &Pixels, label: u16, entry: &Entry, png: &[u8], tolerance: u32) -> Outcome {
        let recorded = Recorded(entry.meaning);
        let judge: &dyn Semantics = if self.semantics.repeatable() { self.semantics.as_ref() } else { &recorded };
        let again = tokio::task::block_in_place(|| {
            verify(&self.spec.rules, clean, label, png, self.classifier.as_ref(), judge)
        });
        compare(entry, &again, i64::from(tolerance), i64::from(self.spec.rules.min_margin))
    }

    /// An image of a round by its digest, of so many bytes at the most: from here, from the round's
    /// validator, from other validators.
    async fn image(&self, digest: &Digest, round: &RoundId, most: usize) -> Result<Option<Vec<u8>>> {
        if let Some(png) = self.shared.agreed.database().blob(digest)? {
            return Ok(Some(png));
        }
        for peer in self.asked(&round.validator) {
            let (network, wanted) = (&self.shared.network, digest.0.to_vec());
            let asked = network.request_at_most(peer.peer_id, Protocol::Blob, wanted, most, FETCH).await;
            match asked {
                // What is used is what the digest names, whoever gave it.
                Ok(png) if Digest::of(&png) == *digest => {
                    self.shared.evidence.copy(round, &png)?;
                    return Ok(Some(png));
                }
                Ok(_) => tracing::warn!(peer = %peer.peer_id, %digest, "another image than asked for"),
                Err(error) => tracing::debug!(peer = %peer.peer_id, %error, "an image is not to be had there"),
            }
        }
        Ok(None)
    }
}

/// Compares a recorded entry with what verifying its image again gives.
fn compare(entry: &Entry, again: &Verdict, tolerance: i64, min_margin: i64) -> Outcome {
    if entry.measurement != again.measurement {
        return Outcome::Fails(Finding::Measurement);
    }
    // The clock and other answers decide these; the model was not asked.
    if matches!(entry.reason, Reason::Timeout | Reason::DuplicateResponse | Reason::ModelInferenceFailed) {
        return Outcome::Holds;
    }
    if again.reason == Reason::ModelInferenceFailed {
        return Outcome::Unknown;
    }
    let flips = |reason| reason == Reason::Success || reason == Reason::SemanticMatch;
    let holds = if flips(entry.reason) == flips(again.reason) && entry.predicted == again.predicted {
        (entry.margin - again.margin_millionths).abs() <= tolerance && entry.meaning == again.semantic
    } else {
        // Near a tie, or near the margin that counts as a flip, two machines may differ.
        let near = |margin: i64| margin <= tolerance || (margin - min_margin).abs() <= tolerance;
        near(entry.margin) && near(again.margin_millionths)
    };
    if holds { Outcome::Holds } else { Outcome::Fails(Finding::Label) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_challenge::rules::Rules;
    use perturb_types::round::Answer;
    use perturb_types::{Measurement, Millionths};

    fn verdict(margin: i64) -> Verdict {
        Verdict {
            reason: if margin > 0 { Reason::Success } else { Reason::LabelMatchWithOriginal },
            measurement: Measurement {
                level: 1,
                sum_squares: 100,
                changed: 100,
                channels: 12_288,
                ssim: Millionths(999_000),
            },
            predicted: if margin > 0 { 4 } else { 3 },
            margin_millionths: margin,
            semantic: Meaning::NotAsked,
        }
    }

    fn entry(margin: i64) -> Entry {
        let answer = Answer { digest: Digest([1; 32]), signature: [0; 64] };
        verdict(margin).entry(&Rules::subnet(), 3, Hotkey([2; 32]), answer, 500, false)
    }

    #[test]
    fn the_same_again_holds_and_another_measurement_does_not() {
        let min = i64::from(Rules::subnet().min_margin);
        assert_eq!(compare(&entry(500_000), &verdict(500_000), 50_000, min), Outcome::Holds);
        assert_eq!(compare(&entry(500_000), &verdict(540_000), 50_000, min), Outcome::Holds, "within the tolerance");
        assert_eq!(compare(&entry(500_000), &verdict(560_000), 50_000, min), Outcome::Fails(Finding::Label));
        let mut other = verdict(500_000);
        other.measurement.changed = 99;
        assert_eq!(compare(&entry(500_000), &other, 50_000, min), Outcome::Fails(Finding::Measurement));
    }

    #[test]
    fn another_meaning_than_the_record_says_is_a_wrong_label() {
        let min = i64::from(Rules::subnet().min_margin);
        let mut recorded = entry(500_000);
        recorded.meaning = Meaning::Different;
        let mut again = verdict(500_000);
        (again.semantic, again.reason) = (Meaning::Same, Reason::SemanticMatch);
        assert_eq!(compare(&recorded, &again, 50_000, min), Outcome::Fails(Finding::Label));
        (again.semantic, again.reason) = (Meaning::Different, Reason::Success);
        assert_eq!(compare(&recorded, &again, 50_000, min), Outcome::Holds);
    }

    #[test]
    fn a_model_that_fails_here_accuses_nobody() {
        let min = i64::from(Rules::subnet().min_margin);
        let mut again = verdict(0);
        again.reason = Reason::ModelInferenceFailed;
        assert_eq!(compare(&entry(500_000), &again, 50_000, min), Outcome::Unknown);
    }

    #[test]
    fn a_flip_that_is_none_here_counts_only_away_from_a_tie() {
        let min = i64::from(Rules::subnet().min_margin);
        assert_eq!(compare(&entry(500_000), &verdict(0), 50_000, min), Outcome::Fails(Finding::Label));
        assert_eq!(compare(&entry(min + 20_000), &verdict(0), 50_000, min), Outcome::Holds);
    }
}
