//! Spot checks: looks at the drawn rounds of other validators again, from the images themselves, and says
//! of each what it found.
//!
//! The clean image must be the revealed transform of the agreed source image, and every record must be
//! possible ([`perturb_challenge::recheck`]). This member's verdict goes on the record
//! ([`perturb_ledger::verdict`]) once, whatever it is: it holds or fails as soon as that is known; an image
//! is *missing* when neither the round's validator nor any other validator gives it during half of the
//! window; after three quarters of it a member that still cannot tell says so.
//!
//! Rounds are looked at side by side ([`lanes`]), those that were tried least first: one whose images hang
//! delays no other. The model runs for one at a time.

mod evidence;
mod lanes;
mod look;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use color_eyre::eyre::Result;
use perturb_challenge::classifier::Classifier;
use perturb_challenge::construct::Wanted;
use perturb_challenge::semantics::Semantics;
use perturb_challenge::source::ImageSource;
use perturb_consensus::Verdict as Admission;
use perturb_ledger::verdict::{CheckRow, CheckVerdict, Checked};
use perturb_ledger::{ChallengeSpec, Transaction, query};
use perturb_types::{RoundId, Signed};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::bytes_of;
use super::challenges::Shared;
use evidence::Peers;
use lanes::Lanes;
use look::{Looker, Outcome, Patience};

/// Time between two looks at the agreed state.
const EVERY: Duration = Duration::from_secs(2);

/// The longest that one peer, one image and one round's evidence may take, where the window is long.
const MOST: (Duration, Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(30));

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
    /// What its images' labels want.
    pub wanted: Wanted,
    /// The end.
    pub stop: CancellationToken,
}

/// What this node knows of a drawn round beside the agreed row.
#[derive(Default)]
struct Known {
    /// Looks that came to nothing that can be said.
    tries: u32,
    /// Its verdict, from the moment that there is one.
    said: Option<Checked>,
}

/// The service while it runs.
struct Running {
    shared: Shared,
    looker: Arc<Looker>,
    known: BTreeMap<RoundId, Known>,
    lanes: Lanes<Result<Outcome>>,
}

impl Checks {
    /// Runs until the end.
    ///
    /// # Errors
    /// The disk.
    pub async fn run(self) -> Result<()> {
        let stop = self.stop.clone();
        let looker = Arc::new(Looker {
            spec: self.spec,
            classifier: self.classifier,
            source: self.source,
            semantics: self.semantics,
            wanted: self.wanted,
            id: self.shared.id,
            model: Semaphore::new(1),
            stop: self.stop,
        });
        let mut running = Running { shared: self.shared, looker, known: BTreeMap::new(), lanes: Lanes::new() };
        let mut next = tokio::time::Instant::now() + EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(next) => {
                    running.survey().await?;
                    next = tokio::time::Instant::now() + EVERY;
                }
                ended = running.lanes.next() => {
                    let (round, outcome) = ended?;
                    running.conclude(round, outcome?).await?;
                }
            }
        }
    }
}

/// The times of a look: together less than half of the window, after which an image counts as missing.
fn patience(block_interval_ms: u32, window_blocks: u64) -> (Duration, Patience) {
    let window = Duration::from_millis(u64::from(block_interval_ms))
        .saturating_mul(u32::try_from(window_blocks).unwrap_or(u32::MAX));
    let patience = Patience { image: MOST.1.min(window / 6), whole: MOST.2.min(window / 4) };
    (MOST.0.min(window / 12), patience)
}

/// What is to be said, at a height, about a round drawn at another; `None` while looking again may help.
fn verdict(outcome: Outcome, height: u64, drawn: u64, window: u64) -> Option<Checked> {
    let since = height.saturating_sub(drawn);
    match outcome {
        Outcome::Holds => Some(Checked::Holds),
        Outcome::Fails(finding) => Some(Checked::Fails(finding)),
        Outcome::Later(finding) => (since >= window / 2).then_some(Checked::Fails(finding)),
        Outcome::Unknown => (since >= window - window / 4).then_some(Checked::Unknown),
    }
}

impl Running {
    /// Looks at the agreed state: tells verdicts again that no block has, and starts looks.
    async fn survey(&mut self) -> Result<()> {
        let db = self.shared.agreed.database();
        let me = self.shared.me;
        let checks = query::checks(db)?;
        self.known.retain(|round, _| checks.iter().any(|(r, _)| r == round));
        if query::validators(db)?.by_key(&self.shared.signer.pair()?.public()).is_none() {
            return Ok(());
        }
        let is_mine = |(round, row): &(RoundId, CheckRow)| {
            round.challenge == self.looker.spec.id && round.validator != me && !row.verdicts.contains_key(&me)
        };
        let mut due: Vec<(RoundId, CheckRow)> = checks.into_iter().filter(is_mine).collect();
        let tries = |round: &RoundId| self.known.get(round).map_or(0, |k| k.tries);
        due.sort_by_key(|(round, row)| (tries(round), row.drawn));
        let parameters = query::parameters(db)?;
        let rule = parameters.spot_checks;
        let tolerance = rule.margin_tolerance;
        let (peer, patience) = patience(parameters.block_interval_ms, rule.window_blocks);
        for (round, row) in due {
            if let Some(verdict) = self.known.get(&round).and_then(|k| k.said) {
                self.say(round, &row, verdict).await?;
            } else if self.lanes.has_room(&round) {
                let looker = self.looker.clone();
                let peers = Peers { shared: self.shared.clone(), patience: peer };
                let job = async move { looker.look(&peers, &round, &row, tolerance, patience).await };
                self.lanes.start(round, job);
            }
        }
        Ok(())
    }

    /// A look has ended.
    async fn conclude(&mut self, round: RoundId, outcome: Outcome) -> Result<()> {
        let db = self.shared.agreed.database();
        let Some((_, row)) = query::checks(db)?.into_iter().find(|(r, _)| *r == round) else { return Ok(()) };
        let known = self.known.entry(round).or_default();
        known.tries = known.tries.saturating_add(1);
        let height = self.shared.driver.status().borrow().height;
        let window = query::parameters(db)?.spot_checks.window_blocks;
        let Some(verdict) = verdict(outcome, height, row.drawn, window) else { return Ok(()) };
        let counters = &self.shared.counters;
        match verdict {
            Checked::Holds => {
                tracing::info!(%round, "a checked round holds");
                counters.holds.fetch_add(1, Ordering::Relaxed);
            }
            Checked::Fails(finding) => {
                tracing::warn!(%round, ?finding, "a checked round does not hold");
                counters.fails.fetch_add(1, Ordering::Relaxed);
            }
            Checked::Unknown => {
                tracing::warn!(%round, "a drawn round could not be checked here");
                counters.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
        known.said = Some(verdict);
        self.say(round, &row, verdict).await
    }

    /// Hands a verdict over, signed by the key that votes now; one that waits already is ignored.
    async fn say(&self, round: RoundId, row: &CheckRow, verdict: Checked) -> Result<()> {
        let v = CheckVerdict { hotkey: self.shared.me, round, result: row.fresh.result, verdict };
        let signed = Signed::sign(&self.shared.signer.pair()?, &self.shared.id, v);
        let transaction = Transaction::CheckVerdict(signed.into_envelope());
        if let Admission::Reject(why) = self.shared.driver.submit(bytes_of(&transaction)).await {
            tracing::warn!(%round, %why, "the verdict was refused");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
