//! The validator's rounds: draw, transform, open, offer, ask, bind, fetch, verify, close.
//!
//! Miners work only for what is agreed and show their answers only once others can do nothing with them.
//! So a round waits for two blocks, the one that has its opening and the one that has what the miners are
//! bound to, and for its deadline.
//!
//! One round is open at a time. Its miners and its image are drawn ([`super::lots`]), not chosen.
//!
//! What must not be lost is stored before it is told: each own transaction until the agreed state shows
//! its effect. After a crash an opened round stays open (it counts against this validator); when it has run
//! out, its images are shown, and the next one goes on with the next number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use color_eyre::eyre::{Context, Result, bail, eyre};
use futures::future::join_all;
use perturb_challenge::classifier::Classifier;
use perturb_challenge::construct::{self, Constructed, Construction, Wanted};
use perturb_challenge::pace::Until;
use perturb_challenge::pixels::Pixels;
use perturb_challenge::rules::Rules;
use perturb_challenge::semantics::{Semantics, Watched};
use perturb_challenge::source::ImageSource;
use perturb_challenge::verify::{Verdict, duplicate_digests, verify_batch};
use perturb_consensus::Verdict as Admission;
use perturb_ledger::seeds::Lots;
use perturb_ledger::state::OpenRow;
use perturb_ledger::{Transaction, images, query};
use perturb_miner::drill::errands::Errands;
use perturb_p2p::NetworkHandle;
use perturb_storage::{Database, Room};
use perturb_types::envelope::Signed;
use perturb_types::wire::{self, Challenge, MinerRequest};
use perturb_types::{
    ChallengeId, Digest, Entry, Hotkey, NetworkId, Reason, RoundCommits, RoundId, RoundOpen, RoundResult, RoundSkip,
    encode, limits,
};
use tokio_util::sync::CancellationToken;

use super::agreed::{Agreed, RoundState};
use super::driver::DriverHandle;
use super::errands;
use super::evidence::Rooms;
use super::exchange::{Asking, Exchange};
use super::lots::{self, Drawing};
use super::pending;
use super::stuck::Stuck;
use crate::keys::Signer;

/// Pause after a round that could not be run.
const RETRY: Duration = Duration::from_secs(1);

/// Time between two looks whether a block has what a round, or the next one, waits for.
const LOOK: Duration = Duration::from_millis(250);

/// Pause before a judge of meaning that is away is asked again about a round's answers.
const JUDGE_RETRY: Duration = Duration::from_secs(5);

/// Time for all that it is asked at a time; what it said by then is kept.
const JUDGE_TIME: Duration = Duration::from_secs(120);

/// What the rounds did, for people and metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rounds opened.
    pub opened: AtomicU64,
    /// Rounds closed.
    pub closed: AtomicU64,
    /// Answers judged.
    pub answers: AtomicU64,
    /// Drawn rounds that this validator found to hold.
    pub holds: AtomicU64,
    /// Drawn rounds that it found to fail.
    pub fails: AtomicU64,
    /// Drawn rounds of which it could not tell.
    pub unknown: AtomicU64,
}

/// One challenge's rounds.
pub struct Rounds {
    /// The network's id.
    pub id: NetworkId,
    /// The challenge.
    pub challenge: ChallengeId,
    /// Its rules.
    pub rules: Rules,
    /// The time from one round's start to the next one's.
    pub interval: Duration,
    /// Miners of a round.
    pub places: usize,
    /// This validator.
    pub me: Hotkey,
    /// Signs with its consensus key.
    pub signer: Signer,
    /// The classifier.
    pub classifier: Arc<dyn Classifier>,
    /// The images.
    pub source: Arc<dyn ImageSource>,
    /// The judge of meaning.
    pub semantics: Arc<dyn Semantics>,
    /// What the images' own labels want.
    pub wanted: Wanted,
    /// The agreed state.
    pub agreed: Arc<Agreed>,
    /// Rows.
    pub database: Database,
    /// Room for images.
    pub rooms: Rooms,
    /// The network.
    pub network: NetworkHandle,
    /// The way to consensus.
    pub driver: DriverHandle,
    /// What was done.
    pub counters: Arc<Counters>,
    /// The round whose images cannot be had.
    pub stuck: Stuck,
    /// In a drill: the images that its own miner wants others to be asked about.
    pub errands: Option<Errands>,
    /// The end.
    pub stop: CancellationToken,
}

/// The clean side of a round.
struct Drawn {
    lots: Lots,
    /// The images that were drawn, up to the one that is used.
    images: Vec<u64>,
    made: Constructed,
    image: Digest,
}

/// Keeps an image of a round that room was made for: of what an answer may have at most.
fn keep(room: &mut Room, png: &[u8]) -> Result<()> {
    if !room.keep(png)? {
        // The round is closed all the same: an open one is worse than an image that cannot be shown.
        tracing::error!(bytes = png.len(), "an image is more than the room that was reserved for it");
    }
    Ok(())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What blocks for at most `limit`, and not beyond the end.
pub(super) fn until(limit: Duration, stop: &CancellationToken) -> Until {
    let stop = stop.clone();
    Until::within(limit).unless(move || stop.is_cancelled())
}

/// Verdicts that count. One that the judge of meaning was away for does not, nor one where the model
/// failed that fails at the clean image too: a device out of memory is no fault of the answers.
fn judged(
    rules: &Rules,
    (clean, label): (&Pixels, u16),
    pngs: &[&[u8]],
    classifier: &dyn Classifier,
    semantics: &dyn Semantics,
    until: Until,
) -> Result<Vec<Verdict>> {
    let judge = Watched::new(semantics).until(until);
    let verdicts = verify_batch(rules, clean, label, pngs, classifier, &judge);
    if let Some(error) = judge.into_failure() {
        return Err(error.into());
    }
    if verdicts.iter().any(|v| v.reason == Reason::ModelInferenceFailed) {
        classifier.logits(&[clean])?;
    }
    Ok(verdicts)
}

impl Rounds {
    /// Runs rounds until the end.
    ///
    /// # Errors
    /// None: what goes wrong is told and tried again.
    pub async fn run(self) -> Result<()> {
        let mut status = self.driver.status();
        loop {
            let started = tokio::time::Instant::now();
            let pause = if status.borrow_and_update().voting {
                match self.next().await {
                    Ok(true) => self.interval,
                    Ok(false) => LOOK,
                    Err(error) => {
                        tracing::warn!(error = %format!("{error:#}"), "no round");
                        RETRY
                    }
                }
            } else {
                RETRY
            };
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(started + pause) => {}
            }
        }
    }

    /// Runs the next round, or pays what the last one owes; false where neither can be done now.
    async fn next(&self) -> Result<bool> {
        let state = self.agreed.round_state(self.challenge, &self.me)?;
        if let Some(owed) = &state.unrevealed {
            let round = RoundId { validator: self.me, challenge: self.challenge, seq: owed.seq };
            if state.member && !pending::waits(&self.database, &round)? {
                let of = (self.challenge, self.me);
                let reveal = lots::reveal(&self.signer, &self.id, of, owed)?;
                let reveal = Signed::sign(&self.signer.pair()?, &self.id, reveal);
                self.submit(&round, pending::REVEAL, Transaction::RoundReveal(reveal.into_envelope())).await?;
            }
            return Ok(false);
        }
        let round = RoundId { validator: self.me, challenge: self.challenge, seq: state.next_seq };
        let Some(drawing) = state.drawing.filter(|_| state.member && !state.open && !state.at_cap) else {
            return Ok(false);
        };
        if pending::waits(&self.database, &round)? {
            return Ok(false);
        }
        if state.miners == 0 {
            bail!("no miner is registered");
        }
        self.round(&round, &drawing, &state).await
    }

    async fn round(&self, round: &RoundId, drawing: &Drawing, state: &RoundState) -> Result<bool> {
        let mut room = self.rooms.before_draw()?;
        let Some(drawn) = self.draw(round, drawing, state.may_skip).await? else { return Ok(false) };
        self.rooms.fit(&mut room, &drawn.made.pixels, &drawn.made.png, self.places.min(state.miners))?;
        let open = RoundOpen {
            round: *round,
            epoch: drawing.epoch,
            image: drawn.image,
            miners: drawn.lots.miners,
            opened_ms: now_ms(),
        };
        let open = Signed::sign(&self.signer.pair()?, &self.id, open);
        room.begin(round, state.epoch, self.driver.status().borrow().height);
        keep(&mut room, &drawn.made.png)?;
        self.submit(round, pending::OPEN, Transaction::RoundOpen(open.envelope().clone())).await?;
        self.counters.opened.fetch_add(1, Ordering::Relaxed);

        let row = self.agreed_row(round, |_| true).await?;
        let outcomes = self.ask(round, &drawn, &row.miners).await?;
        for png in outcomes.iter().filter_map(|o| o.png.as_deref()) {
            keep(&mut room, png)?;
        }
        let entries = self.judge(&drawn, outcomes).await?;
        self.close(&open, drawn, entries).await?;
        Ok(true)
    }

    async fn close(&self, open: &Signed<RoundOpen>, drawn: Drawn, entries: Vec<Entry>) -> Result<()> {
        let (round, asked) = (open.round, entries.len());
        let solved = entries.iter().filter(|e| e.reason == Reason::Success).count();
        let mut skipped = drawn.images;
        let source_index = skipped.pop().ok_or_else(|| eyre!("a round of no image"))?;
        let result = RoundResult {
            round,
            open: open.digest(),
            images: drawn.lots.images,
            skipped,
            source_index,
            transform: drawn.made.secret,
            label: drawn.made.label,
            entries,
        };
        let result = Signed::sign(&self.signer.pair()?, &self.id, result);
        self.submit(&round, pending::RESULT, Transaction::RoundResult(result.into_envelope())).await?;
        self.counters.closed.fetch_add(1, Ordering::Relaxed);
        self.counters.answers.fetch_add(asked as u64, Ordering::Relaxed);
        tracing::info!(%round, asked, solved, "round closed");
        Ok(())
    }

    /// Stores an own transaction, then submits it. A refusal is an error; what is merely early is
    /// submitted again by [`super::pending`].
    async fn submit(&self, round: &RoundId, what: &str, transaction: Transaction) -> Result<()> {
        let (bytes, name) = (encode::encode(&transaction), transaction.name());
        pending::store(&self.database, round.challenge, round.seq, what, &bytes)?;
        match self.driver.submit(bytes).await {
            Admission::Reject(why) => {
                pending::forget(&self.database, round.challenge, round.seq, what)?;
                bail!("the {name} of round {round} was refused: {why}")
            }
            Admission::Accept | Admission::Ignore(_) => Ok(()),
        }
    }

    /// Draws lots and makes the challenge; `None` where none of the images serves or they cannot be had, and the
    /// round is skipped.
    async fn draw(&self, round: &RoundId, drawing: &Drawing, may_skip: bool) -> Result<Option<Drawn>> {
        let construction = Construction {
            rules: &self.rules,
            source: self.source.as_ref(),
            classifier: self.classifier.as_ref(),
            semantics: self.semantics.as_ref(),
            wanted: &self.wanted,
        };
        let lots = drawing.lots(&self.signer, &self.id, round)?;
        let of = (round.challenge, self.source.len());
        let upcoming = images::upcoming(&self.database, &self.id, of, self.me, &lots.value)?;
        let until = until(construct::TIME, &self.stop);
        match tokio::task::block_in_place(|| construction.run(&until, &upcoming)) {
            Ok(made) => {
                let images = upcoming.iter().take(made.skipped.saturating_add(1)).map(|(image, _)| *image).collect();
                let made = self.unless_errands(made);
                let image = Digest::of(&made.png);
                Ok(Some(Drawn { lots, images, made, image }))
            }
            Err(error)
                if error.none_serves()
                    || error.of_images() && may_skip && self.stuck.again(round.seq, std::time::Instant::now()) =>
            {
                tracing::warn!(%round, %error, "the round is skipped");
                let skip = RoundSkip { round: *round, epoch: drawing.epoch, images: lots.images };
                let skip = Signed::sign(&self.signer.pair()?, &self.id, skip);
                self.submit(round, pending::SKIP, Transaction::RoundSkip(skip.into_envelope())).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// In a drill, another validator's image instead of the drawn one.
    fn unless_errands(&self, made: Constructed) -> Constructed {
        let foreign = self.errands.as_ref().and_then(|e| errands::foreign(e, self.classifier.as_ref()));
        match foreign {
            Some((pixels, png, label)) => Constructed { pixels, png, label, ..made },
            None => made,
        }
    }

    /// Waits until the agreed state shows a round as it has to be.
    async fn agreed_row(&self, round: &RoundId, shows: impl Fn(&OpenRow) -> bool) -> Result<OpenRow> {
        let mut status = self.driver.status();
        let begun = status.borrow().height;
        let last = begun + query::parameters(&self.database)?.open_round_blocks;
        loop {
            // First: the number of a round that a block opens between the two is still to come.
            let next = query::sequence(&self.database, round.challenge, &round.validator)?.next;
            match query::open_round(&self.database, round.challenge, &round.validator, round.seq)? {
                Some(row) if shows(&row) => return Ok(row),
                None if round.seq < next => bail!("round {round} is no longer open"),
                None if !pending::waits(&self.database, round)? => bail!("the opening of round {round} is void"),
                _ if status.borrow_and_update().height > last => bail!("no block has what round {round} waits for"),
                _ => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => bail!("stopped"),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Offers, challenges, binds and fetches.
    async fn ask(&self, round: &RoundId, drawn: &Drawn, miners: &[Hotkey]) -> Result<Vec<Exchange>> {
        let asking = Asking {
            network: &self.network,
            database: &self.database,
            id: &self.id,
            round: *round,
            image: drawn.image,
            answer_bytes: limits::answer_bytes(drawn.made.pixels.width, drawn.made.pixels.height),
        };
        let ready = join_all(miners.iter().map(|m| asking.ready(m))).await;
        let challenge = Challenge { round: (*round).into(), image: drawn.made.png.clone(), label: drawn.made.label };
        let message = MinerRequest::Challenge(Box::new(challenge));
        let message = wire::to_cbor("challenge", &message).wrap_err("challenge")?;
        let deadline = Duration::from_millis(u64::from(self.rules.deadline_ms));
        let sent = tokio::time::Instant::now();
        let asked = miners.iter().zip(ready).map(|(m, peer)| asking.challenge(*m, peer, &message, deadline));
        let mut outcomes = join_all(asked).await;
        if outcomes.iter().all(|o| o.bound.is_none()) {
            return Ok(outcomes);
        }
        let commits = outcomes.iter().map(|o| o.bound).collect();
        let commits = Signed::sign(&self.signer.pair()?, &self.id, RoundCommits { round: *round, commits });
        self.submit(round, pending::COMMITS, Transaction::RoundCommits(commits.into_envelope())).await?;
        self.agreed_row(round, |row| row.commits.is_some()).await?;
        // Before it no miner shows anything.
        tokio::time::sleep_until(sent + deadline).await;
        join_all(outcomes.iter_mut().map(|o| asking.fetch(o))).await;
        if let Some(errands) = &self.errands {
            errands::hand_over(errands, &drawn.image, &outcomes);
        }
        Ok(outcomes)
    }

    /// Verifies answers. A result without verdicts that count waits, for as long as it could still be
    /// accepted; then the round stays open, which counts against this validator. No round is begun
    /// meanwhile.
    async fn verdicts(&self, drawn: &Drawn, pngs: &[&[u8]]) -> Result<Vec<Verdict>> {
        let height = || self.driver.status().borrow().height;
        let last = height() + query::parameters(&self.database)?.open_round_blocks;
        loop {
            let clean = (&drawn.made.pixels, drawn.made.label);
            let judged = tokio::task::block_in_place(|| {
                let until = until(JUDGE_TIME, &self.stop);
                judged(&self.rules, clean, pngs, self.classifier.as_ref(), self.semantics.as_ref(), until)
            });
            match judged {
                Ok(verdicts) => return Ok(verdicts),
                Err(error) if height() >= last => return Err(error),
                Err(error) => tracing::warn!(%error, "a round's result waits"),
            }
            tokio::time::sleep(JUDGE_RETRY).await;
        }
    }

    async fn judge(&self, drawn: &Drawn, outcomes: Vec<Exchange>) -> Result<Vec<Entry>> {
        let pngs: Vec<&[u8]> = outcomes.iter().filter_map(|o| o.png.as_deref()).collect();
        let shown: Vec<Digest> = pngs.iter().map(|png| Digest::of(png)).collect();
        let doubled = duplicate_digests(&shown);
        let verdicts = self.verdicts(drawn, &pngs).await?;
        let answers = outcomes.iter().filter(|o| o.png.is_some()).map(|o| o.miner).zip(shown.into_iter().zip(verdicts));
        let mut by_miner: HashMap<Hotkey, (Digest, Verdict)> = answers.collect();
        let mut entries = Vec::with_capacity(outcomes.len());
        for o in outcomes {
            let label = drawn.made.label;
            entries.push(match by_miner.remove(&o.miner) {
                Some((answer, verdict)) => {
                    verdict.entry(&self.rules, label, o.miner, answer, o.elapsed_ms, doubled.contains(&answer))
                }
                None => {
                    let reason = if o.forged {
                        Reason::BadSignature
                    } else if o.bound.is_none() && o.elapsed_ms >= self.rules.deadline_ms {
                        Reason::Timeout
                    } else {
                        Reason::ResponseMissing
                    };
                    Verdict::absent(&self.rules, label, o.miner, reason, o.elapsed_ms)
                }
            });
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    use perturb_challenge::classifier::ClassifierError;
    use perturb_challenge::semantics::Exact;

    /// Knows images whose first value is not in its list.
    struct Fails(Vec<u8>);

    impl Classifier for Fails {
        fn name(&self) -> &str {
            "fails"
        }
        fn digest(&self) -> Digest {
            Digest([0; 32])
        }
        fn classes(&self) -> usize {
            2
        }
        fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
            match images.iter().any(|i| self.0.contains(&i.rgb[0])) {
                true => Err(ClassifierError("out of memory".into())),
                false => Ok(images.iter().map(|_| vec![0.0, 1.0]).collect()),
            }
        }
    }

    #[test]
    fn a_model_that_fails_at_the_clean_image_too_judges_nothing() {
        let clean = Pixels::new(32, 32, (0..32 * 32 * 3).map(|i| (i % 200) as u8 + 20).collect()).unwrap();
        let mut answer = clean.clone();
        answer.rgb[0] += 1;
        let png = answer.encode_png().unwrap();
        let of = |fails: &[u8]| {
            judged(&Rules::subnet(), (&clean, 0), &[&png], &Fails(fails.to_vec()), &Exact, Until::within(JUDGE_TIME))
        };
        let reason = |judged: Result<Vec<Verdict>>| judged.unwrap()[0].reason;
        assert_eq!(reason(of(&[])), Reason::Success);
        assert_eq!(reason(of(&[21])), Reason::ModelInferenceFailed, "the answer's own fault");
        assert!(of(&[20, 21]).is_err());
    }
}
