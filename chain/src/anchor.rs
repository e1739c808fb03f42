//! One anchor on its way to the chain, as a pure state machine.
//!
//! ```text
//!         Sign            Send; once its nonce is used up or its era over: Find
//!   Due ───────▶ Signed ────────────────────────────────────────────────────────▶ Anchored
//!    ▲              │ in none of the blocks that could hold it, or failed in one
//!    └──────────────┴───────────────────────── too often, or for good ──────────▶ Failed
//! ```
//!
//! A commitment may be made twice without harm, a remark costs a fee each time. So the signed extrinsic is saved before
//! it is sent, and whatever the pool says of it, another one is signed only when the finalized blocks show that the first
//! did not land and can land no more. What an anchor says is the caller's business ([`AnchorCall`] carries bytes).

use perturb_types::Digest;
use serde::{Deserialize, Serialize};
use subxt::dynamic::Value;
use subxt::ext::scale_value::Composite;

use crate::call::NamedCall;
use crate::{SignedExtrinsic, SubmitError, Submitted};

/// Longest text of a commitment: the chain's longest field of plain bytes.
pub const MAX_TEXT_BYTES: usize = 128;
/// Longest remark that is sent: a fee is asked by length.
pub const MAX_REMARK_BYTES: usize = 1024;
/// Refusals after which nothing new is signed: the next epoch's anchor covers this one.
pub const MAX_ATTEMPTS: u32 = 32;
/// Longest wait in blocks between two attempts.
const MAX_WAIT_BLOCKS: u64 = 16;

/// How an anchor is put on the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorCall {
    /// As the hotkey's commitment on a subnet, in place of its earlier one. Free of fees; the hotkey must be registered.
    Commitment {
        /// The subnet.
        netuid: u16,
        /// The first field: plain bytes.
        #[serde(with = "crate::hash::hex_bytes")]
        text: Vec<u8>,
        /// The other two: SHA-256 digests.
        digests: [Digest; 2],
    },
    /// As a remark with an event. It stays in its block for ever, and costs a fee.
    Remark {
        /// The bytes.
        #[serde(with = "crate::hash::hex_bytes")]
        bytes: Vec<u8>,
    },
}

impl AnchorCall {
    /// The call in any runtime that has these pallets.
    pub(crate) fn call(&self) -> Result<NamedCall, SubmitError> {
        let too_long = |n: usize| SubmitError::CannotEncode(format!("an anchor of {n} bytes"));
        match self {
            Self::Commitment { netuid, text, digests } => {
                if text.len() > MAX_TEXT_BYTES {
                    return Err(too_long(text.len()));
                }
                let field = |name: String, bytes: &[u8]| Value::unnamed_variant(name, [Value::from_bytes(bytes)]);
                let text = field(format!("Raw{}", text.len()), text);
                let digests = digests.iter().map(|digest| field("Sha256".into(), &digest.0));
                let fields = Value::unnamed_composite(std::iter::once(text).chain(digests));
                let info = Value::named_composite([("fields", fields)]);
                let fields = Composite::named([("netuid", Value::u128(u128::from(*netuid))), ("info", info)]);
                Ok(NamedCall { pallet: "Commitments", name: "set_commitment", fields })
            }
            Self::Remark { bytes } if bytes.len() > MAX_REMARK_BYTES => Err(too_long(bytes.len())),
            Self::Remark { bytes } => {
                let fields = Composite::named([("remark", Value::from_bytes(bytes))]);
                Ok(NamedCall { pallet: "System", name: "remark_with_event", fields })
            }
        }
    }
}

/// How far an anchor has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorState {
    /// Nothing that could land is signed.
    Due,
    /// Signed and saved; perhaps sent.
    Signed {
        /// The extrinsic.
        signed: SignedExtrinsic,
    },
    /// In a finalized block.
    Anchored {
        /// Where.
        submitted: Submitted,
    },
    /// Given up; the last refusal says why.
    Failed,
}

/// An anchor with its state. Its serde form is what is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchoring {
    /// The network's epoch that is anchored; a later one covers it.
    pub epoch: u64,
    /// What is put on the chain.
    pub call: AnchorCall,
    /// How far it has come.
    pub state: AnchorState,
    /// Refusals so far.
    pub attempts: u32,
    /// The last refusal and what to do, for people.
    pub last_error: Option<String>,
    /// Finalized height before which nothing is tried.
    pub wake_at_block: u64,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it is over.
    Done,
    /// Wait for a higher finalized block.
    Wait,
    /// Sign the call with the nonce of the finalized head.
    Sign,
    /// Send this and wait for its block.
    Send(SignedExtrinsic),
    /// It can land no more: look whether it did.
    Find(SignedExtrinsic),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An extrinsic was signed.
    Signed(SignedExtrinsic),
    /// It is in a finalized block.
    Landed(Submitted),
    /// It is in none, and can land no more.
    Absent,
    /// It is in a finalized block, where its call failed.
    FailedThere(SubmitError),
    /// It could not be signed, or sending it ended otherwise: it may land yet.
    Refused(SubmitError),
}

impl Anchoring {
    /// An anchor that nothing was done for yet.
    pub fn new(epoch: u64, call: AnchorCall) -> Self {
        Self { epoch, call, state: AnchorState::Due, attempts: 0, last_error: None, wake_at_block: 0 }
    }

    /// Whether nothing more will be done.
    pub fn is_over(&self) -> bool {
        matches!(self.state, AnchorState::Anchored { .. } | AnchorState::Failed)
    }

    /// What to do, by the finalized height and our nonce there.
    pub(crate) fn next(&self, finalized: u64, nonce: u64) -> Step {
        match &self.state {
            AnchorState::Anchored { .. } | AnchorState::Failed => Step::Done,
            AnchorState::Signed { signed } if nonce > signed.nonce || finalized >= signed.expires_at => {
                Step::Find(signed.clone())
            }
            _ if finalized < self.wake_at_block => Step::Wait,
            AnchorState::Due => Step::Sign,
            AnchorState::Signed { signed } => Step::Send(signed.clone()),
        }
    }

    /// Takes in what happened at this finalized height.
    pub(crate) fn apply(&mut self, event: Event, finalized: u64) {
        match event {
            Event::Signed(signed) => self.state = AnchorState::Signed { signed },
            Event::Landed(submitted) => (self.state, self.last_error) = (AnchorState::Anchored { submitted }, None),
            Event::Absent => self.start_again(),
            Event::FailedThere(error) => {
                self.note(&error, finalized);
                self.start_again();
            }
            Event::Refused(error) => {
                self.note(&error, finalized);
                // Where nothing is signed, nothing can land.
                if self.state == AnchorState::Due {
                    self.start_again();
                }
            }
        }
    }

    fn note(&mut self, error: &SubmitError, finalized: u64) {
        self.last_error = Some(format!("{error}. {}", error.what_it_means()));
        self.attempts = if error.is_retryable() { self.attempts.saturating_add(1) } else { MAX_ATTEMPTS };
        let wait = (1u64 << self.attempts.min(16)).min(MAX_WAIT_BLOCKS);
        self.wake_at_block = finalized.saturating_add(wait);
    }

    /// Nothing of it can land any more.
    fn start_again(&mut self) {
        self.state = if self.attempts >= MAX_ATTEMPTS { AnchorState::Failed } else { AnchorState::Due };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::BlockHash;

    fn due() -> Anchoring {
        Anchoring::new(4, AnchorCall::Remark { bytes: vec![1, 2, 3] })
    }

    fn extrinsic() -> SignedExtrinsic {
        let hash = BlockHash([1; 32]);
        SignedExtrinsic { bytes: vec![9], hash, nonce: 5, signed_at: 100, expires_at: 164, commit: None }
    }

    fn submitted() -> Submitted {
        let (block_hash, extrinsic_hash) = (BlockHash([2; 32]), BlockHash([1; 32]));
        Submitted { block_number: 112, block_hash, index: 1, extrinsic_hash }
    }

    fn signed() -> Anchoring {
        Anchoring { state: AnchorState::Signed { signed: extrinsic() }, ..due() }
    }

    #[test]
    fn what_is_signed_is_sent_again_until_the_blocks_must_show_it() {
        assert_eq!(due().next(100, 5), Step::Sign);
        let mut anchor = due();
        anchor.apply(Event::Signed(extrinsic()), 100);
        assert_eq!(anchor, signed());
        assert_eq!(anchor.next(163, 5), Step::Send(extrinsic()));
        assert_eq!(anchor.next(120, 6), Step::Find(extrinsic()), "something took its nonce");
        assert_eq!(anchor.next(164, 5), Step::Find(extrinsic()), "its era is over");
        anchor.apply(Event::Absent, 164);
        assert_eq!(anchor.next(164, 6), Step::Sign);
    }

    #[test]
    fn whatever_the_pool_says_nothing_new_is_signed_while_the_first_may_land() {
        let words = [
            SubmitError::NonceTaken,
            SubmitError::NonceUsed,
            SubmitError::AlreadyInPool,
            SubmitError::Banned,
            SubmitError::Dropped,
            SubmitError::NoRoom,
            SubmitError::BadSignature,
            SubmitError::CannotPay,
            SubmitError::Pool("?".into()),
        ];
        for error in words {
            let mut anchor = signed();
            for at in 110..160 {
                anchor.apply(Event::Refused(error.clone()), at);
                assert_eq!(anchor.state, signed().state, "{error}");
                assert!(anchor.wake_at_block > at && anchor.next(at, 5) == Step::Wait);
            }
            assert_eq!(anchor.next(164, 5), Step::Find(extrinsic()), "however long the wait");
            anchor.apply(Event::Landed(submitted()), 164);
            assert!(matches!(anchor.state, AnchorState::Anchored { .. }) && anchor.last_error.is_none());
        }
    }

    #[test]
    fn a_refusal_is_tried_again_ever_later_and_then_given_up() {
        let mut anchor = signed();
        let full = || SubmitError::Dispatch("Commitments::SpaceLimitExceeded".into());
        let mut waits = Vec::new();
        while !anchor.is_over() {
            anchor.state = signed().state;
            anchor.apply(Event::FailedThere(full()), 200);
            waits.push(anchor.wake_at_block - 200);
        }
        assert_eq!((&waits[..5], waits.len()), (&[2, 4, 8, 16, 16][..], MAX_ATTEMPTS as usize));
        let mut poor = signed();
        poor.apply(Event::Refused(SubmitError::CannotPay), 110);
        poor.apply(Event::Absent, 164);
        assert_eq!(poor.state, AnchorState::Failed);
        assert!(poor.last_error.as_ref().unwrap().contains("anchor by commitment"), "{poor:?}");
        let mut foreign = due();
        foreign.apply(Event::Refused(SubmitError::CannotEncode("no such call".into())), 110);
        assert!(foreign.is_over(), "nothing was signed, and never will be: {foreign:?}");
    }

    #[test]
    fn an_anchor_reads_back_from_what_is_saved() {
        let digests = [Digest([1; 32]), Digest([2; 32])];
        for call in [due().call, AnchorCall::Commitment { netuid: 2, text: vec![7; 57], digests }] {
            let anchor = Anchoring { call, ..signed() };
            let json = serde_json::to_string(&anchor).unwrap();
            assert_eq!(serde_json::from_str::<Anchoring>(&json).unwrap(), anchor);
        }
    }

    #[test]
    fn what_the_chain_does_not_take_is_not_encoded() {
        let digests = [Digest([1; 32]), Digest([2; 32])];
        let call = |n| AnchorCall::Commitment { netuid: 2, text: vec![7; n], digests };
        assert!(call(MAX_TEXT_BYTES).call().is_ok() && call(MAX_TEXT_BYTES + 1).call().is_err());
        assert!(AnchorCall::Remark { bytes: vec![0; MAX_REMARK_BYTES + 1] }.call().is_err());
    }
}
