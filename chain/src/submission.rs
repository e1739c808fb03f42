//! One agreed vector on its way to the chain, as a pure state machine.
//!
//! ```text
//!          Look            Sign             Send            finalized           read back
//!   Due ─────────▶ (looked) ───▶ Signed ──────────▶ InBlock ─────────▶ Finalized ─────────▶ ReadBack
//!    ▲                             │                   │  └─────────▶ Committed ──────────────▲
//!    │                             │                   │  a commit       │      revealed
//!    └──── refused, era over ──────┴───────────────────┘   not revealed ─┘     a lasting refusal ───▶ Failed
//! ```
//!
//! Whether plain weights or a timelocked commit are signed is what the chain says when it is looked at.
//!
//! Exactly once, across crashes and outages, follows from three rules:
//!
//! 1. The signed extrinsic is saved before it is sent. Sending it again is harmless: its nonce
//!    lets it land once.
//! 2. Before anything is sent after a start, an outage or a refusal, the chain is looked at. The
//!    vector has landed if the chain stores it for us with a last update no earlier than the
//!    epoch's reference block; a commit has landed if the chain holds its bytes.
//! 3. A new extrinsic is signed only when the old one can land no more: its nonce is used up in a
//!    *finalized* block, its era is over, or the pool refused it for a reason that excludes it.
//!
//! The machine does no IO and reads no clock; time is the finalized height.

use serde::{Deserialize, Serialize};

use crate::commit::{Commit, WaitingCommit};
use crate::{BlockHash, SignedExtrinsic, SubmitError, Submitted, WeightsCall};

/// Refusals after which a vector is given up: with the waits below, more than an epoch's blocks.
pub const MAX_ATTEMPTS: u32 = 32;
/// Longest wait in blocks between two attempts, unless the chain's rate limit demands more.
const MAX_WAIT_BLOCKS: u64 = 16;

/// A vector that the network agreed on, with what is needed to submit it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreedVector {
    /// The call: subnet, mechanism, the final u16 vector and the version key.
    pub call: WeightsCall,
    /// The network's epoch that the vector comes from; a later one replaces an earlier one.
    pub epoch: u64,
    /// Height of the epoch's chain reference: an update before it is not this one.
    pub reference_block: u64,
    /// The chain's epoch index after which it is too late to begin; `None`: never.
    pub expires_after_epoch: Option<u64>,
}

impl AgreedVector {
    /// What the submission is filed under.
    pub fn key(&self) -> SubmissionKey {
        SubmissionKey { netuid: self.call.netuid, mecid: self.call.mecid, epoch: self.epoch }
    }
}

/// One mechanism of one subnet in one epoch of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubmissionKey {
    /// The subnet.
    pub netuid: u16,
    /// The mechanism.
    pub mecid: u8,
    /// The network's epoch.
    pub epoch: u64,
}

impl SubmissionKey {
    /// Whether both are of the same mechanism.
    pub fn same_mechanism(&self, other: &Self) -> bool {
        (self.netuid, self.mecid) == (other.netuid, other.mecid)
    }
}

impl std::fmt::Display for SubmissionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "subnet {} mechanism {} epoch {}", self.netuid, self.mecid, self.epoch)
    }
}

/// How far a vector has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing that could land is signed.
    Due,
    /// Signed and saved; perhaps sent.
    Signed {
        /// The extrinsic.
        signed: SignedExtrinsic,
    },
    /// Seen in a block that is not finalized.
    InBlock {
        /// The extrinsic.
        signed: SignedExtrinsic,
        /// The block.
        block: BlockHash,
    },
    /// Plain weights, set in a finalized block.
    Finalized {
        /// Where.
        submitted: Submitted,
    },
    /// A commit in a finalized block, which the chain is to reveal.
    Committed {
        /// The commit.
        commit: Commit,
        /// Height of its block.
        block_number: u64,
        /// The extrinsic, if this process saw it land; `None` if the commit was found on the chain.
        submitted: Option<Submitted>,
    },
    /// Read back from the chain's storage and equal to the agreed vector.
    ReadBack {
        /// The block in which it took effect; of a commit, the first in which it was seen revealed.
        block_number: u64,
        /// The extrinsic, if this process saw it land; `None` if it was found on the chain.
        submitted: Option<Submitted>,
    },
    /// Given up.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

/// A vector with its state. Its serde form is what is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The vector.
    pub agreed: AgreedVector,
    /// How far it has come.
    pub state: State,
    /// Refusals so far.
    pub attempts: u32,
    /// The last refusal, for people.
    pub last_error: Option<String>,
    /// Finalized height before which nothing is tried.
    pub wake_at_block: u64,
    /// Whether the chain was looked at since the last event that calls for it. Not saved: a
    /// restart always looks first.
    #[serde(skip)]
    looked: bool,
    /// The height from which the chain's rate limit allows an update, as last read.
    #[serde(skip)]
    allowed_from: u64,
    /// Our nonce at the finalized head, as last read.
    #[serde(skip)]
    nonce: u64,
    /// Whether the subnet takes commits alone, as last read.
    #[serde(skip)]
    commit_reveal: bool,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read [`ChainFacts`].
    Look,
    /// Wait for this finalized height.
    WaitForBlock(u64),
    /// Sign the call with this nonce, that of the finalized head that was looked at: should
    /// anything of ours land meanwhile, what is signed now can land no more.
    Sign {
        /// The nonce.
        nonce: u64,
        /// Whether to commit to the weights rather than to set them plainly.
        commit: bool,
    },
    /// Send this extrinsic and wait for its block.
    Send(SignedExtrinsic),
    /// Read the weights at this block.
    ReadBack(Submitted),
    /// Nothing: it is over.
    Done,
}

/// What the chain says about us and the mechanism at its finalized head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFacts {
    /// The finalized height.
    pub finalized: u64,
    /// The subnet's epoch index there.
    pub epoch_index: u64,
    /// Our uid there.
    pub uid: Option<u16>,
    /// Our weights as stored there.
    pub on_chain: Vec<(u16, u16)>,
    /// Block of our last update.
    pub last_update: u64,
    /// Blocks between two updates.
    pub rate_limit: u64,
    /// Our nonce there.
    pub finalized_nonce: u64,
    /// Our nonce at the best block.
    pub best_nonce: u64,
    /// Whether the subnet takes commits alone.
    pub commit_reveal: bool,
    /// Our commits to this mechanism that wait to be revealed.
    pub waiting: Vec<WaitingCommit>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The chain was looked at.
    Looked(ChainFacts),
    /// The call was signed.
    Signed(SignedExtrinsic),
    /// The extrinsic is in a block.
    InBlock(BlockHash),
    /// The extrinsic is in a finalized block, and successful.
    Finalized(Submitted),
    /// Our weights in that block.
    ReadBack(Vec<(u16, u16)>),
    /// Signing, sending or reading failed, at this finalized height.
    Refused(SubmitError, u64),
}

/// A vector's entries by uid, without zeros: the form in which two are compared.
fn normal(weights: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut out: Vec<_> = weights.iter().copied().filter(|(_, w)| *w != 0).collect();
    out.sort_unstable();
    out
}

impl Submission {
    /// A vector of which nothing is known yet.
    pub fn new(agreed: AgreedVector) -> Self {
        Self {
            agreed,
            state: State::Due,
            attempts: 0,
            last_error: None,
            wake_at_block: 0,
            looked: false,
            allowed_from: 0,
            nonce: 0,
            commit_reveal: false,
        }
    }

    /// What it is filed under.
    pub fn key(&self) -> SubmissionKey {
        self.agreed.key()
    }

    /// Whether it is over, well or badly.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::ReadBack { .. } | State::Failed { .. })
    }

    /// Whether the vector stands on the chain.
    pub fn has_landed(&self) -> bool {
        matches!(self.state, State::ReadBack { .. })
    }

    /// What to do at this finalized height.
    pub fn next(&self, finalized: u64) -> Step {
        match &self.state {
            State::ReadBack { .. } | State::Failed { .. } => Step::Done,
            State::Finalized { submitted } => Step::ReadBack(*submitted),
            _ if self.wake_at_block > finalized => Step::WaitForBlock(self.wake_at_block),
            _ if !self.looked => Step::Look,
            State::Due => Step::Sign { nonce: self.nonce, commit: self.commit_reveal },
            // Looked at, and still waiting.
            State::Committed { .. } => Step::WaitForBlock(finalized.saturating_add(1)),
            State::Signed { signed } | State::InBlock { signed, .. } => Step::Send(signed.clone()),
        }
    }

    /// Takes note of an event. The caller saves the submission before it takes the next step.
    pub fn apply(&mut self, event: Event) {
        if self.is_over() {
            return;
        }
        match event {
            Event::Looked(facts) => self.looked_at(&facts),
            Event::Signed(signed) => {
                if self.state == State::Due {
                    self.state = State::Signed { signed };
                }
            }
            Event::InBlock(block) => {
                if let State::Signed { signed } | State::InBlock { signed, .. } = &self.state {
                    self.state = State::InBlock { signed: signed.clone(), block };
                }
            }
            Event::Finalized(submitted) => self.finalized(submitted),
            Event::ReadBack(on_chain) => self.read_back(&on_chain),
            Event::Refused(error, finalized) => self.refused(&error, finalized),
        }
    }

    fn is_ours(&self, on_chain: &[(u16, u16)]) -> bool {
        // An empty vector is no submission: a fresh registration stores the same.
        let ours = normal(&self.agreed.call.weights);
        !ours.is_empty() && normal(on_chain) == ours
    }

    fn finalized(&mut self, submitted: Submitted) {
        let (State::Signed { signed } | State::InBlock { signed, .. }) = &self.state else { return };
        match signed.commit {
            None => self.state = State::Finalized { submitted },
            Some(commit) => self.committed(commit, submitted.block_number, Some(submitted)),
        }
    }

    fn committed(&mut self, commit: Commit, block_number: u64, submitted: Option<Submitted>) {
        self.state = State::Committed { commit, block_number, submitted };
        self.await_reveal(commit, block_number);
    }

    /// Look again when the commit may have been revealed.
    fn await_reveal(&mut self, commit: Commit, finalized: u64) {
        self.looked = false;
        self.wake_at_block = commit.reveal_block.max(finalized.saturating_add(1));
    }

    fn looked_at(&mut self, facts: &ChainFacts) {
        self.looked = true;
        self.allowed_from = facts.last_update.saturating_add(facts.rate_limit);
        self.nonce = facts.finalized_nonce;
        self.commit_reveal = facts.commit_reveal;
        if facts.uid.is_none() {
            return self.fail(&SubmitError::NotRegistered);
        }
        let waiting = |commit: &Commit| facts.waiting.iter().find(|w| w.digest == commit.digest);
        match &self.state {
            State::Committed { commit, block_number, submitted } => {
                // A node behind the commit's block knows nothing of it.
                return if waiting(commit).is_some() || facts.finalized < *block_number {
                    self.await_reveal(*commit, facts.finalized);
                } else if self.is_ours(&facts.on_chain) {
                    self.state = State::ReadBack { block_number: facts.finalized, submitted: *submitted };
                } else {
                    self.state = State::Due;
                    self.again(&SubmitError::NotRevealed, facts.finalized, false);
                };
            }
            // What was signed before a crash may have landed.
            State::Signed { signed } | State::InBlock { signed, .. } => {
                if let Some((commit, found)) = signed.commit.and_then(|c| Some((c, waiting(&c)?))) {
                    return self.committed(commit, found.block, None);
                }
            }
            _ => {}
        }
        if facts.last_update >= self.agreed.reference_block && self.is_ours(&facts.on_chain) {
            self.state = State::ReadBack { block_number: facts.last_update, submitted: None };
            return;
        }
        match &self.state {
            State::Signed { signed } | State::InBlock { signed, .. } => {
                let used = facts.finalized_nonce > signed.nonce;
                let era_over = facts.finalized.saturating_add(1) >= signed.expires_at;
                if used || era_over {
                    // It did not land and cannot any more: the refusal was in its block, or
                    // another extrinsic took the nonce, or it waited too long.
                    let why = if used { SubmitError::NonceUsed } else { SubmitError::EraPassed };
                    self.again(&why, facts.finalized, false);
                    // Nothing was wrong with the vector: sign anew without a wait.
                    self.wake_at_block = facts.finalized;
                } else if facts.best_nonce > signed.nonce {
                    self.await_finality(facts.finalized);
                }
            }
            State::Due if self.agreed.expires_after_epoch.is_some_and(|last| facts.epoch_index > last) => {
                let reason = format!(
                    "the chain is in epoch {} and the vector of epoch {} could be submitted until {}",
                    facts.epoch_index,
                    self.agreed.epoch,
                    self.agreed.expires_after_epoch.unwrap_or_default()
                );
                self.state = State::Failed { reason };
            }
            State::Due if facts.best_nonce > facts.finalized_nonce => self.await_finality(facts.finalized),
            _ => {}
        }
    }

    /// Gives up a vector that one of a later epoch replaces, unless it stands on the chain already.
    pub fn supersede(&mut self, newer: u64) {
        if !self.is_over() && !matches!(self.state, State::Finalized { .. } | State::Committed { .. }) {
            self.state = State::Failed { reason: format!("the vector of epoch {newer} took its place") };
        }
    }

    /// Something of ours is in a block that is not finalized yet: it may be this vector.
    fn await_finality(&mut self, finalized: u64) {
        self.looked = false;
        self.wake_at_block = finalized.saturating_add(1);
    }

    fn read_back(&mut self, on_chain: &[(u16, u16)]) {
        let State::Finalized { submitted } = self.state else { return };
        self.state = if self.is_ours(on_chain) {
            State::ReadBack { block_number: submitted.block_number, submitted: Some(submitted) }
        } else {
            State::Failed {
                reason: format!(
                    "block {} stores {} entries that differ from the {} agreed: report this as a fault",
                    submitted.block_number,
                    on_chain.len(),
                    self.agreed.call.weights.len()
                ),
            }
        };
    }

    fn refused(&mut self, error: &SubmitError, finalized: u64) {
        if let SubmitError::Chain(e) = error
            && e.is_retryable()
        {
            // The chain is away: no attempt is used up, and it is looked at when it returns.
            self.looked = false;
            self.last_error = Some(error.to_string());
            return;
        }
        if !error.is_retryable() {
            return self.fail(error);
        }
        self.again(error, finalized, error.outcome_is_unknown());
    }

    /// Counts a refusal and arranges the next look. `keep`: the signed extrinsic may still land.
    fn again(&mut self, error: &SubmitError, finalized: u64, keep: bool) {
        self.attempts = self.attempts.saturating_add(1);
        self.last_error = Some(error.to_string());
        self.looked = false;
        if self.attempts >= MAX_ATTEMPTS {
            return self.fail(error);
        }
        if !keep && matches!(self.state, State::Signed { .. } | State::InBlock { .. }) {
            self.state = State::Due;
        }
        let wait = (1u64 << self.attempts.saturating_sub(1).min(6)).min(MAX_WAIT_BLOCKS);
        self.wake_at_block = finalized.saturating_add(wait);
        if matches!(error, SubmitError::TooFast | SubmitError::CommittingTooFast) {
            // The update is accepted in block `allowed_from`, which follows this height.
            self.wake_at_block = self.wake_at_block.max(self.allowed_from.saturating_sub(1));
        }
    }

    fn fail(&mut self, error: &SubmitError) {
        let tries = if self.attempts > 1 { format!(" (after {} attempts)", self.attempts) } else { String::new() };
        self.state = State::Failed { reason: format!("{error}{tries}. {}", error.what_it_means()) };
    }
}

#[cfg(test)]
#[path = "submission_tests.rs"]
mod tests;
