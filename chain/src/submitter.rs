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

use crate::store::{MAX_SUBMISSIONS, StoreError, SubmissionStore};
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
    #[error("{key}: the vector of epoch {given} comes after that of epoch {newer}; it is not submitted")]
    Superseded {
        /// The mechanism.
        key: SubmissionKey,
        /// The epoch given.
        given: u64,
        /// The epoch on file.
        newer: u64,
    },
    /// More mechanisms than are kept.
    #[error("{key}: submissions of {MAX_SUBMISSIONS} mechanisms are kept already")]
    TooMany {
        /// The mechanism that found no room.
        key: SubmissionKey,
    },
    /// The view's task is gone.
    #[error("the view of the chain has ended")]
    ViewClosed,
}

/// All submissions by mechanism, for showing.
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
        let on_file = self.store.load(agreed.key())?;
        let mut submission = admit(on_file, agreed)?;
        self.store.save(&submission)?;
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

    /// Takes up what is on file, and then every vector that comes in, until `agreed` is closed
    /// and everything is over. `status` always holds the latest of every mechanism.
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
        let mut all: Submissions = self.store.load_all()?.into_iter().map(|s| (s.key(), s)).collect();
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
        let key = vector.key();
        if !all.contains_key(&key) && all.len() >= MAX_SUBMISSIONS {
            tracing::error!(error = %SubmitterError::TooMany { key }, "a vector is left out");
            return;
        }
        match admit(all.get(&key).cloned(), vector) {
            Ok(submission) => {
                // Not fatal here: every step saves again before it sends.
                if let Err(e) = self.store.save(&submission) {
                    tracing::error!(error = %e, "a submission could not be saved");
                }
                all.insert(key, submission);
                status.send_replace(all.clone());
            }
            Err(e) => tracing::warn!(error = %e, "a vector is left out"),
        }
    }

    /// One step of the machine. The new state is on disk when this returns `Ok`.
    async fn step(&self, submission: &mut Submission, step: Step, finalized: u64) -> Result<Progress, SubmitterError> {
        let key = submission.key();
        let event = match step {
            Step::Done | Step::WaitForBlock(_) => return Ok(Progress::On),
            Step::Look => self.look(submission).await.map(Event::Looked).map_err(SubmitError::from),
            Step::Sign { nonce } => {
                self.client.sign_weights(&self.pair, &submission.agreed.call, Some(nonce)).await.map(Event::Signed)
            }
            Step::Send(signed) => {
                // Saved before it is sent, whatever happened since it was signed.
                self.store.save(submission)?;
                tracing::info!(%key, epoch = submission.agreed.epoch, extrinsic = %signed.hash, "sending weights");
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
            tracing::info!(%key, epoch = submission.agreed.epoch, landed, state = ?submission.state, "submission over");
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

/// The submission to go on with when `agreed` comes in and `on_file` is there.
fn admit(on_file: Option<Submission>, agreed: AgreedVector) -> Result<Submission, SubmitterError> {
    match on_file {
        Some(s) if s.agreed == agreed => Ok(s),
        Some(s) if s.agreed.epoch > agreed.epoch => {
            Err(SubmitterError::Superseded { key: s.key(), given: agreed.epoch, newer: s.agreed.epoch })
        }
        Some(s) => {
            if !s.is_over() {
                tracing::warn!(key = %s.key(), old = s.agreed.epoch, new = agreed.epoch, "a newer vector replaces one that had not landed");
            }
            Ok(Submission::new(agreed))
        }
        None => Ok(Submission::new(agreed)),
    }
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
    use crate::WeightsCall;
    use crate::submission::State;

    fn agreed(epoch: u64, value: u16) -> AgreedVector {
        AgreedVector {
            call: WeightsCall { netuid: 1, mecid: 0, weights: vec![(0, value)], version_key: 0 },
            epoch,
            reference_block: 10 * epoch,
            expires_after_epoch: None,
        }
    }

    #[test]
    fn the_same_vector_is_taken_up_where_it_was() {
        let mut on_file = Submission::new(agreed(5, 1));
        on_file.state = State::ReadBack { block_number: 60, submitted: None };
        assert_eq!(admit(Some(on_file.clone()), agreed(5, 1)).unwrap(), on_file);
    }

    #[test]
    fn a_later_vector_replaces_an_earlier_one_and_not_the_other_way_round() {
        let on_file = Submission::new(agreed(5, 1));
        assert_eq!(admit(Some(on_file.clone()), agreed(6, 2)).unwrap(), Submission::new(agreed(6, 2)));
        let refused = admit(Some(on_file), agreed(4, 2)).unwrap_err();
        assert!(matches!(refused, SubmitterError::Superseded { given: 4, newer: 5, .. }));
    }
}
