//! The driver of anchors: does what the machine says, with the chain and a folder.
//!
//! Weights come first: both use the hotkey's nonce, so an anchor is signed only while no vector needs the next one. (A
//! vector that comes while an anchor is signed waits until that has landed or its era is over.) Only the newest epoch's
//! anchor is signed, since it covers those before it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use perturb_types::HotkeyPair;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};

use crate::anchor::{AnchorState, Anchoring, Event, Step};
use crate::folder::Folder;
use crate::submitter::Submissions;
use crate::view::ChainView;
use crate::{ChainClient, ChainError, State, StoreError, SubmitError};

/// Anchors that are kept, so that others can be told where they are.
pub const KEPT_ANCHORS: usize = 256;
/// Pause while the chain is away, unless a new head comes first.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest wait without looking again: heads wake it long before.
const POLL: Duration = Duration::from_secs(30);

/// All anchors that are kept, by epoch.
pub type Anchors = BTreeMap<u64, Anchoring>;

/// Puts anchors on the chain for one hotkey.
pub struct Anchorer {
    client: ChainClient,
    pair: HotkeyPair,
    folder: Folder,
}

fn name(epoch: u64) -> String {
    // Names sort as epochs do.
    format!("anchor-{epoch:020}.json")
}

/// What to work on: one that is signed, for it may land; else the newest, if it is wanted and still due.
fn current(all: &mut Anchors, wanted: bool) -> Option<&mut Anchoring> {
    let signed = all.values().find(|a| matches!(a.state, AnchorState::Signed { .. })).map(|a| a.epoch);
    let newest = all.values().next_back().filter(|a| wanted && a.state == AnchorState::Due).map(|a| a.epoch);
    all.get_mut(&signed.or(newest)?)
}

/// Whether no vector needs the hotkey's next nonce at this finalized height.
fn is_free(weights: &Submissions, finalized: u64) -> bool {
    weights.values().all(|s| match s.state {
        State::Signed { .. } | State::InBlock { .. } => false,
        State::Due => s.wake_at_block > finalized,
        _ => true,
    })
}

/// Takes an anchor in; `false` where one of its epoch is on file that has landed, or may.
fn admit(all: &mut Anchors, anchor: &Anchoring) -> bool {
    let fresh = all.get(&anchor.epoch).is_none_or(|known| {
        let lost = matches!(known.state, AnchorState::Due | AnchorState::Failed);
        lost && known.call != anchor.call
    });
    if fresh {
        all.insert(anchor.epoch, anchor.clone());
    }
    fresh
}

impl Anchorer {
    /// An anchorer for `pair`; what is in `folder` is taken up again.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(client: ChainClient, folder: impl Into<PathBuf>, pair: HotkeyPair) -> Result<Self, StoreError> {
        Ok(Self { client, pair, folder: Folder::open(folder)? })
    }

    /// Takes up what is on file, and then every anchor that comes in. Once `anchors` is closed, what is signed is brought
    /// to its end and nothing else. It begins when `weights` is told for the first time; `status` always holds what is
    /// kept. Where the view or the weights end, so does this.
    ///
    /// # Errors
    /// The folder cannot be read at the start. Later failures of the disk are logged and tried again: nothing is sent
    /// meanwhile.
    pub async fn run(
        self,
        mut anchors: mpsc::Receiver<Anchoring>,
        mut view: watch::Receiver<ChainView>,
        mut weights: watch::Receiver<Submissions>,
        status: watch::Sender<Anchors>,
    ) -> Result<(), StoreError> {
        let mut all: Anchors =
            self.folder.read_all::<Anchoring>("anchor-", KEPT_ANCHORS)?.into_iter().map(|a| (a.epoch, a)).collect();
        status.send_replace(all.clone());
        // Before that it is not known whether weights are under way.
        if weights.changed().await.is_err() {
            return Ok(());
        }
        let mut open = true;
        loop {
            loop {
                match anchors.try_recv() {
                    Ok(anchor) => self.take_in(&mut all, &anchor),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        open = false;
                        break;
                    }
                }
            }
            status.send_replace(all.clone());
            let finalized = view.borrow_and_update().number;
            let free = is_free(&weights.borrow_and_update(), finalized);
            let work = current(&mut all, open);
            if !open && work.is_none() {
                return Ok(());
            }
            // What is signed already has its nonce.
            let pause = match work.filter(|a| free || a.state != AnchorState::Due) {
                None => POLL,
                Some(anchor) => match self.step(anchor).await {
                    Ok(Progress::On) => continue,
                    Ok(Progress::Wait) => POLL,
                    Ok(Progress::Away) => PAUSE,
                    Err(e) => {
                        tracing::error!(error = %e, "an anchor could not be saved");
                        PAUSE
                    }
                },
            };
            status.send_replace(all.clone());
            tokio::select! {
                anchor = anchors.recv(), if open => match anchor {
                    Some(anchor) => self.take_in(&mut all, &anchor),
                    None => open = false,
                },
                changed = weights.changed() => if changed.is_err() { return Ok(()) },
                changed = view.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes an anchor in, saves it, and forgets the oldest that are too many.
    fn take_in(&self, all: &mut Anchors, anchor: &Anchoring) {
        if !admit(all, anchor) {
            return;
        }
        // Not fatal: it is saved again before it is sent.
        if let Err(error) = self.folder.write(&name(anchor.epoch), anchor) {
            tracing::error!(%error, "an anchor could not be saved");
        }
        while all.len() > KEPT_ANCHORS
            && let Some((oldest, _)) = all.pop_first()
        {
            if let Err(error) = self.folder.remove(&name(oldest)) {
                tracing::warn!(%error, "an old anchor could not be forgotten");
            }
        }
    }

    /// One step of the machine. The new state is on disk when this returns `Ok`.
    async fn step(&self, anchor: &mut Anchoring) -> Result<Progress, StoreError> {
        let account = match self.client.account(self.pair.hotkey()).await {
            Ok(account) => account,
            Err(error) => return Ok(away(anchor, &error)),
        };
        let outcome = match anchor.next(account.height, account.nonce) {
            Step::Done | Step::Wait => return Ok(Progress::Wait),
            Step::Sign => {
                let signed = self.client.sign_anchor(&self.pair, &anchor.call, account.nonce).await;
                signed.map_or_else(Event::Refused, Event::Signed)
            }
            Step::Send(signed) => {
                // Saved before it is sent, whatever happened since it was signed.
                self.folder.write(&name(anchor.epoch), anchor)?;
                tracing::info!(epoch = anchor.epoch, extrinsic = %signed.hash, "sending an anchor");
                let sent = self.client.broadcast(&signed, |_| {}).await;
                sent.map_or_else(Event::Refused, Event::Landed)
            }
            Step::Find(signed) => match account.find(&signed).await {
                Ok(found) => found.map_or(Event::Absent, Event::Landed),
                Err(SubmitError::Chain(error)) => return Ok(away(anchor, &error)),
                Err(error) => Event::FailedThere(error),
            },
        };
        match &outcome {
            // The chain is away or slow: nothing is known of the anchor by that.
            Event::Refused(SubmitError::Chain(error)) if error.is_retryable() => return Ok(away(anchor, error)),
            Event::Refused(error) | Event::FailedThere(error) => {
                let (epoch, meaning) = (anchor.epoch, error.what_it_means());
                tracing::warn!(epoch, %error, meaning, "an anchor is not on the chain yet");
            }
            Event::Landed(submitted) => {
                let (epoch, block) = (anchor.epoch, submitted.block_number);
                tracing::info!(epoch, block, extrinsic = %submitted.extrinsic_hash, "anchored");
            }
            Event::Signed(_) | Event::Absent => {}
        }
        anchor.apply(outcome, account.height);
        self.folder.write(&name(anchor.epoch), anchor)?;
        Ok(Progress::On)
    }
}

/// What a step came to.
enum Progress {
    /// Take the next one.
    On,
    /// Nothing to do before a higher block.
    Wait,
    /// The chain could not be asked: pause.
    Away,
}

/// The chain could not be asked; why is shown, and changes nothing.
fn away(anchor: &mut Anchoring, error: &ChainError) -> Progress {
    tracing::debug!(%error, "the chain could not be asked; an anchor waits");
    anchor.last_error = Some(error.to_string());
    Progress::Away
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::{AgreedVector, AnchorCall, BlockHash, SignedExtrinsic, Submission, WeightsCall};

    fn anchor(epoch: u64, byte: u8) -> Anchoring {
        Anchoring::new(epoch, AnchorCall::Remark { bytes: vec![byte] })
    }

    fn extrinsic() -> SignedExtrinsic {
        let hash = BlockHash([1; 32]);
        SignedExtrinsic { bytes: vec![9], hash, nonce: 5, signed_at: 100, expires_at: 164, commit: None }
    }

    fn working_on(all: &mut Anchors, wanted: bool) -> Option<u64> {
        current(all, wanted).map(|a| a.epoch)
    }

    #[test]
    fn what_is_signed_comes_to_its_end_before_the_newest_is_signed() {
        let mut all = Anchors::new();
        for epoch in 1..=3 {
            assert!(admit(&mut all, &anchor(epoch, 0)));
        }
        assert_eq!((working_on(&mut all, true), working_on(&mut all, false)), (Some(3), None));
        all.get_mut(&2).unwrap().state = AnchorState::Signed { signed: extrinsic() };
        assert_eq!((working_on(&mut all, true), working_on(&mut all, false)), (Some(2), Some(2)));
        all.get_mut(&2).unwrap().state = AnchorState::Failed;
        all.get_mut(&3).unwrap().state = AnchorState::Failed;
        assert_eq!(working_on(&mut all, true), None, "older ones are covered by the next");
    }

    #[test]
    fn another_kind_of_anchor_takes_the_place_of_one_that_cannot_land() {
        let mut all = Anchors::new();
        assert!(admit(&mut all, &anchor(1, 0)) && !admit(&mut all, &anchor(1, 0)) && admit(&mut all, &anchor(1, 1)));
        all.get_mut(&1).unwrap().state = AnchorState::Signed { signed: extrinsic() };
        assert!(!admit(&mut all, &anchor(1, 2)));
    }

    #[test]
    fn a_vector_that_only_waits_needs_no_nonce() {
        let call = WeightsCall { netuid: 1, mecid: 0, weights: vec![(0, 1)], version_key: 0 };
        let agreed = AgreedVector { call, epoch: 1, reference_block: 0, expires_after_epoch: None };
        let mut vector = Submission::new(agreed);
        let free = |vector: &Submission| is_free(&Submissions::from([(vector.key(), vector.clone())]), 100);
        assert!(!free(&vector));
        vector.wake_at_block = 101;
        assert!(free(&vector));
        vector.state = State::Signed { signed: extrinsic() };
        assert!(!free(&vector));
        vector.state = State::ReadBack { block_number: 90, submitted: None };
        assert!(free(&vector));
    }
}
