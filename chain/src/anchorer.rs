//! The driver of anchors: does what the machine says, with the chain and a folder.
//!
//! Weights come first: both use the hotkey's nonce, so an anchor is signed only while no vector is under way. Only the
//! newest epoch is worked on, since its anchor covers those before it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use perturb_types::HotkeyPair;
use tokio::sync::{mpsc, watch};

use crate::anchor::{AnchorState, Anchoring, Event, Step};
use crate::folder::Folder;
use crate::submitter::Submissions;
use crate::view::ChainView;
use crate::{ChainClient, State, StoreError, SubmitError, SubmitterError};

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

/// What is to be done for the newest anchor, if it is not over.
fn current(all: &mut Anchors) -> Option<&mut Anchoring> {
    all.values_mut().next_back().filter(|anchor| !anchor.is_over())
}

/// Whether no vector is on its way that needs the hotkey's next nonce.
fn is_free(weights: &Submissions) -> bool {
    weights.values().all(|s| s.is_over() || matches!(s.state, State::Committed { .. }))
}

impl Anchorer {
    /// An anchorer for `pair`; what is in `folder` is taken up again.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(client: ChainClient, folder: impl Into<PathBuf>, pair: HotkeyPair) -> Result<Self, StoreError> {
        Ok(Self { client, pair, folder: Folder::open(folder)? })
    }

    /// Takes up what is on file, and then every anchor that comes in, until `anchors` is closed and the newest is over.
    /// `status` always holds what is kept.
    ///
    /// # Errors
    /// The folder cannot be read at the start, or the view has ended. Later failures of the disk are logged and tried
    /// again: nothing is sent meanwhile.
    pub async fn run(
        self,
        mut anchors: mpsc::Receiver<Anchoring>,
        mut view: watch::Receiver<ChainView>,
        mut weights: watch::Receiver<Submissions>,
        status: watch::Sender<Anchors>,
    ) -> Result<(), SubmitterError> {
        let mut all: Anchors =
            self.folder.read_all::<Anchoring>("anchor-", usize::MAX)?.into_iter().map(|a| (a.epoch, a)).collect();
        let mut open = true;
        loop {
            status.send_replace(all.clone());
            let free = is_free(&weights.borrow_and_update());
            view.borrow_and_update();
            let newest = current(&mut all);
            if !open && newest.is_none() {
                return Ok(());
            }
            // What is signed already has its nonce, and is brought to its end.
            let ready = newest.filter(|anchor| free || matches!(anchor.state, AnchorState::Signed { .. }));
            let pause = match ready {
                None => POLL,
                Some(anchor) => match self.step(anchor).await {
                    Ok(true) => continue,
                    Ok(false) => PAUSE,
                    Err(e) => {
                        tracing::error!(error = %e, "an anchor could not be saved");
                        PAUSE
                    }
                },
            };
            tokio::select! {
                anchor = anchors.recv(), if open => match anchor {
                    Some(anchor) => self.take_in(&mut all, anchor),
                    None => open = false,
                },
                // Whoever ends first ends the other.
                changed = weights.changed() => changed.map_err(|_| SubmitterError::ViewClosed)?,
                changed = view.changed() => changed.map_err(|_| SubmitterError::ViewClosed)?,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes an anchor in, saves it, and forgets the oldest that are too many.
    fn take_in(&self, all: &mut Anchors, anchor: Anchoring) {
        let epoch = anchor.epoch;
        if all.get(&epoch).is_some_and(|known| known.call == anchor.call) {
            return;
        }
        if let Some(old) = all.values().next_back().filter(|old| !old.is_over()) {
            tracing::info!(epoch = old.epoch, by = epoch, "the anchor of a later epoch covers one that had not landed");
        }
        // Not fatal: it is saved again before it is sent.
        if let Err(error) = self.folder.write(&name(epoch), &anchor) {
            tracing::error!(%error, "an anchor could not be saved");
        }
        all.insert(epoch, anchor);
        while all.len() > KEPT_ANCHORS
            && let Some((oldest, _)) = all.pop_first()
        {
            if let Err(error) = self.folder.remove(&name(oldest)) {
                tracing::warn!(%error, "an old anchor could not be forgotten");
            }
        }
    }

    /// One step of the machine; whether there may be another at once. The new state is on disk when this returns `Ok`.
    async fn step(&self, anchor: &mut Anchoring) -> Result<bool, StoreError> {
        let (finalized, nonce) = match self.client.finalized_nonce(self.pair.hotkey()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the chain is away; an anchor waits");
                return Ok(false);
            }
        };
        let outcome = match anchor.next(finalized, nonce) {
            Step::Done | Step::Wait => return Ok(false),
            Step::Sign => self.client.sign_anchor(&self.pair, &anchor.call, nonce).await.map(Event::Signed),
            Step::Send(signed) => {
                // Saved before it is sent, whatever happened since it was signed.
                self.folder.write(&name(anchor.epoch), anchor)?;
                tracing::info!(epoch = anchor.epoch, extrinsic = %signed.hash, "sending an anchor");
                self.client.broadcast(&signed, |_| {}).await.map(Event::Landed)
            }
            Step::Find(signed) => {
                self.client.find(&signed).await.map(|found| found.map_or(Event::Absent, Event::Landed))
            }
        };
        let event = match outcome {
            Ok(event) => event,
            // The chain is away or slow: nothing is known of the anchor by that.
            Err(SubmitError::Chain(error)) if error.is_retryable() => {
                tracing::debug!(%error, "the chain is away; an anchor waits");
                return Ok(false);
            }
            Err(error) => {
                let (epoch, meaning) = (anchor.epoch, error.what_it_means());
                tracing::warn!(epoch, %error, meaning, "an anchor is not on the chain yet");
                Event::Refused(error, finalized)
            }
        };
        anchor.apply(event);
        self.folder.write(&name(anchor.epoch), anchor)?;
        if let AnchorState::Anchored { submitted } = &anchor.state {
            let (epoch, block) = (anchor.epoch, submitted.block_number);
            tracing::info!(epoch, block, extrinsic = %submitted.extrinsic_hash, "anchored");
        }
        Ok(true)
    }
}
