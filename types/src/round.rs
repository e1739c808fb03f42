//! The records of a round: what a validator signs before it asks, before it sees an answer, and after
//! it has judged.
//!
//! A validator opens a round with a signed [`RoundOpen`] *before* anything is sent. Which miners it asks
//! follows from the lot in it, and with which image from another lot that the result shows
//! ([`crate::vrf`]): it can choose neither. Miners bind
//! themselves to answers that they do not show yet ([`AnswerCommit`]); the validator puts all of these
//! into one signed [`RoundCommits`], and only when a certified state has it do the miners show their
//! answers. One signed [`RoundResult`] closes the round, with an entry for every sampled miner, in the
//! order of the opening, and every answer in it is the one that its miner was bound to. So a validator
//! can neither choose among answers nor invent them, and nobody who sees an answer can still give it.
//! Sequence numbers are contiguous per validator and challenge, from 0.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::encode::{self, Domain};
use crate::envelope::Payload;
use crate::ids::{ChallengeId, Digest, Hotkey, NetworkId};
use crate::keys::HotkeyPair;
use crate::limits;
use crate::vrf::Lot;

/// A fixed-point number in millionths: scores (0 to 1 000 000), shares, SSIM.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Millionths(pub u32);

impl Millionths {
    /// 1.0.
    pub const ONE: Self = Self(1_000_000);
    /// 0.0.
    pub const ZERO: Self = Self(0);

    /// As a float, for people and charts only.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl fmt::Display for Millionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Names one round of the whole network.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
pub struct RoundId {
    /// The validator that runs it.
    pub validator: Hotkey,
    /// The challenge it belongs to.
    pub challenge: ChallengeId,
    /// The validator's running number in this challenge, contiguous from 0.
    pub seq: u64,
}

impl fmt::Display for RoundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.validator.short(), self.challenge, self.seq)
    }
}

/// The 32 bytes that a round's transform (mirror, crop offset, brightness, field) follows from: known to
/// its validator alone until the result shows them.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TransformSecret(pub [u8; 32]);

impl TransformSecret {
    /// That of the image drawn as number `attempt` of a round, whose image lot has this value.
    pub fn of(network: &NetworkId, value: &[u8; 32], attempt: u64) -> Self {
        Self(encode::digest_of(Domain::Transform, network, &(value, attempt)).0)
    }
}

impl fmt::Debug for TransformSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransformSecret(..)")
    }
}

/// What says which image is drawn as number `attempt` of a round, whose image lot has this value: it is
/// the one with this number, modulo how many are left, of those that the validator's pass has not used.
pub fn image_number(network: &NetworkId, value: &[u8; 32], attempt: u64) -> u64 {
    let digest = encode::digest_of(Domain::Drawn, network, &(value, attempt));
    digest.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// What a validator binds itself to before it sends a challenge.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundOpen {
    /// The round.
    pub round: RoundId,
    /// The epoch whose seed and round key draw it: the one that is active.
    pub epoch: u64,
    /// SHA-256 of the PNG that the miners get: the transformed image.
    pub image: Digest,
    /// What draws the miners.
    pub miners: Lot,
    /// The opener's clock, Unix milliseconds: for people, nothing follows from it.
    pub opened_ms: u64,
}

impl Payload for RoundOpen {
    const DOMAIN: Domain = Domain::RoundOpen;
    const NAME: &'static str = "round opening";
    const MAX_BYTES: usize = limits::MAX_ROUND_OPEN_BYTES;
}

/// Why an answer got its score. The wire value is the discriminant.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Reason {
    /// Everything held: the score counts.
    Success = 0,
    /// The bytes are no PNG of the accepted kind.
    DecodeFailed = 1,
    /// Another width or height than the challenge's.
    ShapeMismatch = 2,
    /// A pixel outside the allowed range.
    ValueOutOfRange = 3,
    /// L∞ below the smallest that counts.
    BelowMinDelta = 4,
    /// L∞ above the largest allowed.
    AboveMaxDelta = 5,
    /// SSIM below its gate.
    BelowMinSsim = 6,
    /// PSNR below its gate.
    BelowMinPsnrDb = 7,
    /// The classifier failed on the image.
    ModelInferenceFailed = 8,
    /// The label did not change, or not by the published minimum margin.
    LabelMatchWithOriginal = 9,
    /// Another miner of the round gave the same bytes.
    DuplicateResponse = 10,
    /// No answer, or the image behind a commitment never came or was another.
    ResponseMissing = 11,
    /// The answer came after the deadline.
    Timeout = 12,
    /// The miner's own signature over its answer does not verify.
    BadSignature = 13,
    /// The new label still means the same.
    SemanticMatch = 14,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::DecodeFailed => "decode_failed",
            Self::ShapeMismatch => "shape_mismatch",
            Self::ValueOutOfRange => "value_out_of_range",
            Self::BelowMinDelta => "below_min_delta",
            Self::AboveMaxDelta => "above_max_delta",
            Self::BelowMinSsim => "below_min_ssim",
            Self::BelowMinPsnrDb => "below_min_psnr_db",
            Self::ModelInferenceFailed => "model_inference_failed",
            Self::LabelMatchWithOriginal => "label_match_with_original",
            Self::DuplicateResponse => "duplicate_response",
            Self::ResponseMissing => "response_missing",
            Self::Timeout => "timeout",
            Self::BadSignature => "bad_signature",
            Self::SemanticMatch => "semantic_match",
        })
    }
}

/// Exact measurements of an answer against the clean image, on 8-bit channel values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Measurement {
    /// k: the largest absolute difference of a channel value, in 8-bit levels; L∞ is k/255.
    pub level: u8,
    /// The sum of squared differences in squared levels.
    pub sum_squares: u64,
    /// Channel values that differ.
    pub changed: u32,
    /// Channel values of the image: width × height × 3.
    pub channels: u32,
    /// SSIM in millionths, floored at 0.
    pub ssim: Millionths,
}

/// Whether the new label still means the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// An earlier check failed or the rules do not ask.
    #[default]
    NotAsked,
    /// The labels mean the same.
    Same,
    /// The labels mean different things.
    Different,
}

/// What a miner is bound to before it shows its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AnswerCommit {
    /// [`commitment`] to the answer.
    pub commit: Digest,
    /// The miner's sr25519 signature over [`AnswerStatement`].
    pub signature: [u8; 64],
}

/// The commitment of a miner to its answer in a round; `answer` is the SHA-256 of the PNG.
///
/// The hotkey is in it: whoever learns the answer, or only repeats the commitment, has none of its own.
pub fn commitment(network: &NetworkId, round: &RoundId, miner: &Hotkey, answer: &Digest) -> Digest {
    encode::digest_of(Domain::AnswerCommit, network, &(round, miner, answer))
}

/// What a miner signs for its answer (domain [`Domain::Answer`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AnswerStatement {
    /// The round asked.
    pub round: RoundId,
    /// SHA-256 of the PNG it got.
    pub image: Digest,
    /// [`commitment`] to the PNG it answers with.
    pub commit: Digest,
}

impl AnswerStatement {
    /// The statement of a miner whose answer has this digest.
    pub fn of(network: &NetworkId, round: RoundId, image: Digest, miner: &Hotkey, answer: &Digest) -> Self {
        Self { round, image, commit: commitment(network, &round, miner, answer) }
    }

    /// The miner's signature over it.
    pub fn sign(&self, miner: &HotkeyPair, network: &NetworkId) -> AnswerCommit {
        let signature = miner.sign(Domain::Answer, network, &encode::encode(self));
        AnswerCommit { commit: self.commit, signature }
    }

    /// Whether `signature` is `miner`'s.
    #[must_use]
    pub fn verify(&self, miner: &Hotkey, network: &NetworkId, signature: &[u8; 64]) -> bool {
        miner.verify(Domain::Answer, network, &encode::encode(self), signature)
    }
}

/// What the miners of a round are bound to: signed by the validator before it sees any answer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundCommits {
    /// The round.
    pub round: RoundId,
    /// One place per sampled miner, in the opening's order; `None` where nothing came in time.
    pub commits: Vec<Option<AnswerCommit>>,
}

impl Payload for RoundCommits {
    const DOMAIN: Domain = Domain::RoundCommits;
    const NAME: &'static str = "round commits";
    const MAX_BYTES: usize = limits::MAX_ROUND_COMMITS_BYTES;
}

/// What became of one sampled miner.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Entry {
    /// The miner.
    pub miner: Hotkey,
    /// SHA-256 of the PNG it showed, which is the one it was bound to; `None` where it showed none.
    pub answer: Option<Digest>,
    /// Zeros where the answer could not be measured.
    pub measurement: Measurement,
    /// The classifier's label for the answer; the clean label where it was not asked.
    pub predicted: u16,
    /// logit of `predicted` minus logit of the clean label, in millionths; 0 where not asked.
    pub margin: i64,
    /// The semantic verdict.
    pub meaning: Meaning,
    /// From the challenge's sending to the commitment's arrival, rounded up to the rules' time bucket.
    pub time_ms: u32,
    /// The verdict: follows from the fields above.
    pub reason: Reason,
    /// The score: follows from the fields above.
    pub score: Millionths,
}

/// A closed round.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundResult {
    /// The round.
    pub round: RoundId,
    /// The digest of the signed [`RoundOpen`]'s payload.
    pub open: Digest,
    /// What drew the images.
    pub images: Lot,
    /// The images that were drawn and passed over, by their numbers in the challenge's set, in order.
    pub skipped: Vec<u64>,
    /// The one drawn after them, which was used.
    pub source_index: u64,
    /// What its transform follows from.
    pub transform: TransformSecret,
    /// The classifier's label for the transformed clean image.
    pub label: u16,
    /// One entry per sampled miner, in the order of the agreed state's row.
    pub entries: Vec<Entry>,
}

impl Payload for RoundResult {
    const DOMAIN: Domain = Domain::RoundResult;
    const NAME: &'static str = "round result";
    const MAX_BYTES: usize = limits::MAX_ROUND_RESULT_BYTES;
}

/// What drew the images of a round that was never closed, all of which are used up: owed before the next one is
/// opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundReveal {
    /// The round.
    pub round: RoundId,
    /// What drew its images.
    pub images: Lot,
}

impl Payload for RoundReveal {
    const DOMAIN: Domain = Domain::RoundReveal;
    const NAME: &'static str = "round reveal";
    const MAX_BYTES: usize = 256;
}

/// A round that is not opened: none of the [`limits::MAX_DRAWS`] images drawn for it serves. They are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundSkip {
    /// The round that would have been opened.
    pub round: RoundId,
    /// The epoch whose seed and round key drew it.
    pub epoch: u64,
    /// What drew its images.
    pub images: Lot,
}

impl Payload for RoundSkip {
    const DOMAIN: Domain = Domain::RoundSkip;
    const NAME: &'static str = "round skip";
    const MAX_BYTES: usize = 256;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::envelope::Signed;
    use crate::keys::ConsensusPair;

    fn round() -> RoundId {
        RoundId { validator: Hotkey([1; 32]), challenge: ChallengeId(2), seq: 3 }
    }

    fn lot() -> Lot {
        Lot { point: [1; 32], proof: [2; 64] }
    }

    #[test]
    fn the_largest_records_fit_their_limits() {
        let open = RoundOpen { round: round(), epoch: 1, image: Digest([1; 32]), miners: lot(), opened_ms: 1 };
        assert!(encode::encode(&open).len() <= RoundOpen::MAX_BYTES);
        let entry = Entry {
            miner: Hotkey([7; 32]),
            answer: Some(Digest([1; 32])),
            measurement: Measurement::default(),
            predicted: 1,
            margin: 1,
            meaning: Meaning::Different,
            time_ms: 1,
            reason: Reason::Success,
            score: Millionths::ONE,
        };
        let result = RoundResult {
            round: round(),
            open: Digest([1; 32]),
            images: lot(),
            skipped: vec![1; limits::MAX_DRAWS],
            source_index: 1,
            transform: TransformSecret([1; 32]),
            label: 1,
            entries: vec![entry; limits::MAX_ROUND_MINERS],
        };
        assert!(encode::encode(&result).len() <= RoundResult::MAX_BYTES);
        let commit = AnswerCommit { commit: Digest([1; 32]), signature: [2; 64] };
        let commits = RoundCommits { round: round(), commits: vec![Some(commit); limits::MAX_ROUND_MINERS] };
        assert!(encode::encode(&commits).len() <= RoundCommits::MAX_BYTES);
        let reveal = RoundReveal { round: round(), images: lot() };
        assert!(encode::encode(&reveal).len() <= RoundReveal::MAX_BYTES);
        let skip = RoundSkip { round: round(), epoch: 1, images: lot() };
        assert!(encode::encode(&skip).len() <= RoundSkip::MAX_BYTES);
    }

    #[test]
    fn an_answer_is_bound_to_round_image_miner_and_bytes() {
        let net = NetworkId([1; 32]);
        let miner = HotkeyPair::from_seed(&[8; 32]).unwrap();
        let s = AnswerStatement::of(&net, round(), Digest([1; 32]), &miner.hotkey(), &Digest([2; 32]));
        let bound = s.sign(&miner, &net);
        assert!(s.verify(&miner.hotkey(), &net, &bound.signature));
        let later = RoundId { seq: 4, ..round() };
        let replayed = AnswerStatement { round: later, ..s };
        assert!(!replayed.verify(&miner.hotkey(), &net, &bound.signature));
        let other = |round: &RoundId, miner: &Hotkey, answer| commitment(&net, round, miner, &Digest(answer));
        assert_eq!(other(&round(), &miner.hotkey(), [2; 32]), bound.commit);
        assert_ne!(other(&later, &miner.hotkey(), [2; 32]), bound.commit);
        assert_ne!(other(&round(), &Hotkey([7; 32]), [2; 32]), bound.commit, "the same bytes of another miner");
        assert_ne!(other(&round(), &miner.hotkey(), [3; 32]), bound.commit);
        assert_ne!(commitment(&NetworkId([2; 32]), &round(), &miner.hotkey(), &Digest([2; 32])), bound.commit);
    }

    #[test]
    fn the_wire_form_of_a_round_opening_is_pinned() {
        let open = RoundOpen {
            round: round(),
            epoch: 5,
            image: Digest([0xaa; 32]),
            miners: Lot { point: [0xbb; 32], proof: [0xcc; 64] },
            opened_ms: 6,
        };
        let expected = [
            "01".repeat(32),
            "0200".into(),
            "0300000000000000".into(),
            "0500000000000000".into(),
            "aa".repeat(32),
            "bb".repeat(32),
            "cc".repeat(64),
            "0600000000000000".into(),
        ]
        .concat();
        assert_eq!(hex::encode(encode::encode(&open)), expected);
        let signed = Signed::sign(&ConsensusPair::from_seed(&[1; 32]), &NetworkId([9; 32]), open);
        assert_eq!(
            hex::encode(encode::encode(signed.envelope())),
            include_str!("../../fixtures/round-open.hex").trim(),
            "the signed form changed: this breaks every peer"
        );
    }
}
