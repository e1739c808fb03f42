//! The driver of submissions: does what the machine says, with the chain and the store.
//!
//! Nothing is sent before the submission that sends it is on disk. While the chain is away it
//! waits for the view to say otherwise, and goes on from where it was. Submissions of several
//! mechanisms go one after the other, since they share the hotkey's nonce.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use perturb_types::HotkeyPair;
use tokio::sync::{mpsc, watch};

use crate::store::{KEPT_EPOCHS, MAX_SUBMISSIONS, StoreError, SubmissionStore};
use crate::submission::{AgreedVector, ChainFacts, Event, Step, Submission, SubmissionKey};
use crate::view::ChainView;
use crate::{ChainClient, ChainError, SubmitError};

/// Pause after a step that the chain or the store refused, unless a new head comes first.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest wait without looking at the view again: heads wake it long before.
const POLL: Duration = Duration::from_secs(30);

/// A submission that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SubmitterError {
    /// What was signed cannot be saved, so it is not sent.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A vector of a later epoch was given for this mechanism before.
    #[error("{key}: its vector comes after that of epoch {newer}; it is not submitted")]
    Superseded {
        /// What was given.
        key: SubmissionKey,
        /// The epoch on file.
        newer: u64,
    },
    /// More submissions than are kept.
    #[error("{key}: {MAX_SUBMISSIONS} submissions are kept already")]
    TooMany {
        /// The one that found no room.
        key: SubmissionKey,
    },
    /// The view's task is gone.
    #[error("the view of the chain has ended")]
    ViewClosed,
}

/// All submissions that are kept, for showing.
pub type Submissions = BTreeMap<SubmissionKey, Submission>;

/// What a step came to.
enum Progress {
    /// Take the next one.
    On,
    /// The chain could not be asked: pause.
    Away,
}

/// Submits agreed vectors for one hotkey.
pub struct Submitter {
    client: ChainClient,
    store: Arc<dyn SubmissionStore>,
    pair: HotkeyPair,
}

impl Submitter {
    /// A submitter for `pair`; what `store` holds is taken up again by [`Submitter::run`].
    pub fn new(client: ChainClient, store: Arc<dyn SubmissionStore>, pair: HotkeyPair) -> Self {
        Self { client, store, pair }
    }

    /// Brings one vector to its end: read back from the chain, or given up. While the chain is
    /// away this waits. A vector that is on file already is taken up where it was, and one
    /// that has landed is returned at once.
    ///
    /// # Errors
    /// The store fails, a later vector is on file, or the view has ended.
    pub async fn drive(
        &self,
        agreed: AgreedVector,
        view: &mut watch::Receiver<ChainView>,
    ) -> Result<Submission, SubmitterError> {
        let key = agreed.key();
        let mut all = self.load()?;
        self.admit(&mut all, agreed)?;
        let Some(mut submission) = all.remove(&key) else { return Err(SubmitterError::TooMany { key }) };
        loop {
            let finalized = view.borrow_and_update().number;
            match submission.next(finalized) {
                Step::Done => return Ok(submission),
                Step::WaitForBlock(_) => wait(view, POLL).await?,
                step => match self.step(&mut submission, step, finalized).await? {
                    Progress::On => {}
                    Progress::Away => wait(view, PAUSE).await?,
                },
            }
        }
    }

    fn load(&self) -> Result<Submissions, StoreError> {
        Ok(self.store.load_all()?.into_iter().map(|s| (s.key(), s)).collect())
    }

    /// Takes a vector in, and saves what changes by it: those of earlier epochs that have not landed are given up,
    /// and the oldest that are over are forgotten.
    fn admit(&self, all: &mut Submissions, agreed: AgreedVector) -> Result<(), SubmitterError> {
        let Admitted { changed, forgotten } = admit(all, agreed)?;
        // Those given up are saved first: after a crash none of them is sent after the new one.
        for key in changed {
            if let Some(submission) = all.get(&key) {
                self.store.save(submission)?;
            }
        }
        forgotten.into_iter().try_for_each(|key| self.store.remove(key).map_err(SubmitterError::from))
    }

    /// Takes up what is on file, and then every vector that comes in, until `agreed` is closed
    /// and everything is over. `status` always holds what is kept.
    ///
    /// # Errors
    /// The store cannot be read at the start, or the view has ended. Later failures of the
    /// store are logged and tried again: nothing is sent meanwhile.
    pub async fn run(
        self,
        mut agreed: mpsc::Receiver<AgreedVector>,
        mut view: watch::Receiver<ChainView>,
        status: watch::Sender<Submissions>,
    ) -> Result<(), SubmitterError> {
        let mut all = self.load()?;
        status.send_replace(all.clone());
        let mut open = true;
        loop {
            while let Ok(vector) = agreed.try_recv() {
                self.take_in(&mut all, vector, &status);
            }
            let finalized = view.borrow_and_update().number;
            if !open && all.values().all(Submission::is_over) {
                return Ok(());
            }
            let ready = all.values_mut().find_map(|s| match s.next(finalized) {
                Step::Done | Step::WaitForBlock(_) => None,
                step => Some((s, step)),
            });
            let pause = match ready {
                None => POLL,
                Some((submission, step)) => match self.step(submission, step, finalized).await {
                    Ok(Progress::On) => {
                        status.send_replace(all.clone());
                        continue;
                    }
                    Ok(Progress::Away) => PAUSE,
                    Err(e) => {
                        tracing::error!(error = %e, "weights are not submitted");
                        PAUSE
                    }
                },
            };
            status.send_replace(all.clone());
            tokio::select! {
                vector = agreed.recv(), if open => match vector {
                    Some(vector) => self.take_in(&mut all, vector, &status),
                    None => open = false,
                },
                waited = wait(&mut view, pause) => waited?,
            }
        }
    }

    fn take_in(&self, all: &mut Submissions, vector: AgreedVector, status: &watch::Sender<Submissions>) {
        match self.admit(all, vector) {
            Ok(()) => {}
            // Not fatal here: every step saves again before it sends.
            Err(SubmitterError::Store(e)) => tracing::error!(error = %e, "a submission could not be saved"),
            Err(e) => tracing::warn!(error = %e, "a vector is left out"),
        }
        status.send_replace(all.clone());
    }

    /// One step of the machine. The new state is on disk when this returns `Ok`.
    async fn step(&self, submission: &mut Submission, step: Step, finalized: u64) -> Result<Progress, SubmitterError> {
        let key = submission.key();
        let event = match step {
            Step::Done | Step::WaitForBlock(_) => return Ok(Progress::On),
            Step::Look => self.look(submission).await.map(Event::Looked).map_err(SubmitError::from),
            Step::Sign { nonce, commit } => {
                let call = &submission.agreed.call;
                let signed = if commit {
                    self.client.sign_commit(&self.pair, call, Some(nonce)).await
                } else {
                    self.client.sign_weights(&self.pair, call, Some(nonce)).await
                };
                signed.map(Event::Signed)
            }
            Step::Send(signed) => {
                // Saved before it is sent, whatever happened since it was signed.
                self.store.save(submission)?;
                tracing::info!(%key, extrinsic = %signed.hash, commit = ?signed.commit, "sending weights");
                let note = |block| {
                    submission.apply(Event::InBlock(block));
                    if let Err(e) = self.store.save(submission) {
                        // The extrinsic is on file as signed, which is enough to find it again.
                        tracing::warn!(error = %e, "the block of a submission could not be saved");
                    }
                };
                self.client.broadcast(&signed, note).await.map(Event::Finalized)
            }
            Step::ReadBack(submitted) => {
                self.read_back(submission, submitted.block_hash).await.map(Event::ReadBack).map_err(SubmitError::from)
            }
        };
        let progress = match &event {
            Err(SubmitError::Chain(e)) if e.is_retryable() => Progress::Away,
            _ => Progress::On,
        };
        let event = event.unwrap_or_else(|error| {
            tracing::warn!(%key, %error, meaning = error.what_it_means(), "weights are not on the chain yet");
            Event::Refused(error, finalized)
        });
        submission.apply(event);
        self.store.save(submission)?;
        if submission.is_over() {
            let landed = submission.has_landed();
            tracing::info!(%key, landed, state = ?submission.state, "submission over");
        }
        Ok(progress)
    }

    async fn look(&self, submission: &Submission) -> Result<ChainFacts, ChainError> {
        let call = &submission.agreed.call;
        let hotkey = self.pair.hotkey();
        let reader = self.client.reader(None).await?;
        let uid = reader.uid_of(call.netuid, hotkey).await?;
        let (on_chain, last_update) = match uid {
            None => (Vec::new(), 0),
            Some(uid) => {
                let updates = reader.last_update(call.netuid, call.mecid).await?;
                let last_update = updates.get(usize::from(uid)).copied().unwrap_or(0);
                (reader.weights(call.netuid, call.mecid, uid).await?, last_update)
            }
        };
        Ok(ChainFacts {
            finalized: reader.number,
            epoch_index: reader.epoch_index(call.netuid).await?,
            uid,
            on_chain,
            last_update,
            rate_limit: reader.value("WeightsSetRateLimit", (call.netuid,)).await?.unwrap_or(0),
            finalized_nonce: reader.link.nonce(&hotkey.0, Some(reader.hash)).await?,
            best_nonce: reader.link.nonce(&hotkey.0, None).await?,
            commit_reveal: reader.required("CommitRevealWeightsEnabled", (call.netuid,)).await?,
            waiting: reader.waiting_commits(call.netuid, call.mecid, hotkey).await?,
        })
    }

    async fn read_back(&self, submission: &Submission, at: crate::BlockHash) -> Result<Vec<(u16, u16)>, ChainError> {
        let call = &submission.agreed.call;
        let reader = self.client.reader(Some(at)).await?;
        match reader.uid_of(call.netuid, self.pair.hotkey()).await? {
            Some(uid) => reader.weights(call.netuid, call.mecid, uid).await,
            None => Ok(Vec::new()),
        }
    }
}

/// What taking a vector in changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Admitted {
    /// To be saved, in this order.
    changed: Vec<SubmissionKey>,
    /// To be forgotten.
    forgotten: Vec<SubmissionKey>,
}

/// Takes `agreed` into `all`. The same vector is taken up where it was.
fn admit(all: &mut Submissions, agreed: AgreedVector) -> Result<Admitted, SubmitterError> {
    let key = agreed.key();
    let mut admitted = Admitted::default();
    if all.get(&key).is_some_and(|s| s.agreed == agreed) {
        return Ok(admitted);
    }
    let newest = all.keys().rfind(|k| k.same_mechanism(&key)).map_or(key.epoch, |k| k.epoch);
    if newest > key.epoch {
        return Err(SubmitterError::Superseded { key, newer: newest });
    }
    for (old, submission) in all.iter_mut().filter(|(k, s)| k.same_mechanism(&key) && !s.is_over()) {
        submission.supersede(key.epoch);
        if submission.is_over() {
            tracing::warn!(%old, new = key.epoch, "a newer vector replaces one that had not landed");
            admitted.changed.push(*old);
        }
    }
    let of_mechanism: Vec<SubmissionKey> = all.keys().copied().filter(|k| k.same_mechanism(&key)).collect();
    let surplus = (of_mechanism.len() + 1).saturating_sub(KEPT_EPOCHS);
    for old in of_mechanism.into_iter().filter(|k| *k != key).take(surplus) {
        all.remove(&old);
        admitted.changed.retain(|k| *k != old);
        admitted.forgotten.push(old);
    }
    if all.len() >= MAX_SUBMISSIONS && !all.contains_key(&key) {
        return Err(SubmitterError::TooMany { key });
    }
    all.insert(key, Submission::new(agreed));
    admitted.changed.push(key);
    Ok(admitted)
}

/// Waits for the view to change, no longer than `limit`.
async fn wait(view: &mut watch::Receiver<ChainView>, limit: Duration) -> Result<(), SubmitterError> {
    match tokio::time::timeout(limit, view.changed()).await {
        Ok(Ok(())) | Err(_) => Ok(()),
        Ok(Err(_)) => Err(SubmitterError::ViewClosed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::submission::State;
    use crate::{Commit, WeightsCall};

    fn agreed(epoch: u64, value: u16) -> AgreedVector {
        AgreedVector {
            call: WeightsCall { netuid: 1, mecid: 0, weights: vec![(0, value)], version_key: 0 },
            epoch,
            reference_block: 10 * epoch,
            expires_after_epoch: None,
        }
    }

    fn states(all: &Submissions) -> Vec<(u64, bool)> {
        all.iter().map(|(k, s)| (k.epoch, s.is_over())).collect()
    }

    #[test]
    fn the_same_vector_is_taken_up_where_it_was() {
        let mut on_file = Submission::new(agreed(5, 1));
        on_file.state = State::ReadBack { block_number: 60, submitted: None };
        let mut all = Submissions::from([(on_file.key(), on_file.clone())]);
        assert_eq!(admit(&mut all, agreed(5, 1)).unwrap(), Admitted::default());
        assert_eq!(all[&on_file.key()], on_file);
    }

    #[test]
    fn a_later_vector_replaces_an_earlier_one_and_not_the_other_way_round() {
        let mut all = Submissions::new();
        admit(&mut all, agreed(5, 1)).unwrap();
        let admitted = admit(&mut all, agreed(6, 2)).unwrap();
        assert_eq!(admitted.changed.iter().map(|k| k.epoch).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(states(&all), [(5, true), (6, false)]);
        let refused = admit(&mut all, agreed(4, 2)).unwrap_err();
        assert!(matches!(refused, SubmitterError::Superseded { newer: 6, .. }));
    }

    #[test]
    fn a_commit_goes_on_waiting_for_its_reveal_when_the_next_vector_comes() {
        let mut committed = Submission::new(agreed(5, 1));
        let commit = Commit { digest: perturb_types::Digest([1; 32]), round: 9, reveal_block: 70 };
        committed.state = State::Committed { commit, block_number: 60, submitted: None };
        let mut all = Submissions::from([(committed.key(), committed)]);
        admit(&mut all, agreed(6, 2)).unwrap();
        assert_eq!(states(&all), [(5, false), (6, false)]);
    }

    #[test]
    fn the_oldest_epochs_of_a_mechanism_are_forgotten() {
        let mut all = Submissions::new();
        let mut forgotten = Vec::new();
        for epoch in 1..=KEPT_EPOCHS as u64 + 2 {
            forgotten.extend(admit(&mut all, agreed(epoch, 1)).unwrap().forgotten.iter().map(|k| k.epoch));
        }
        assert_eq!((all.len(), forgotten), (KEPT_EPOCHS, vec![1, 2]));
    }
}
