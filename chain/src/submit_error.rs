//! Why a submission of weights did not land: every refusal the chain documents, by name.
//!
//! A refusal comes in one of two ways. The *pool* refuses before the call is in a block, as RPC
//! error 1010 with one of Subtensor's custom codes or one of Substrate's sentences; the
//! *dispatch* fails inside a block, as an error of the pallet by name. Both become the same
//! variants here, since they mean the same to the operator.

use subxt::rpcs::UserError;

use crate::error::one_line;
use crate::extensions::UnsupportedExtension;
use crate::schedule::ScheduleError;
use crate::timelock::TimelockError;
use crate::{BlockHash, ChainError, PALLET};

/// A submission that failed, or whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The chain could not be asked. Whether the extrinsic arrived is not known.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The runtime wants an extension that cannot be encoded.
    #[error(transparent)]
    Extension(#[from] UnsupportedExtension),
    /// The call does not fit the runtime's metadata.
    #[error("the call cannot be encoded for this runtime: {0}")]
    CannotEncode(String),
    /// The weights could not be timelocked.
    #[error(transparent)]
    Timelock(#[from] TimelockError),
    /// A commit would not be revealed.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The chain's beacon is not the one configured.
    #[error("the chain follows another drand beacon than the one configured: nothing was committed")]
    OtherBeacon,
    /// A sent extrinsic was not finalized in time. Whether it will land is not known.
    #[error("extrinsic {extrinsic} was not finalized within {after_ms} ms")]
    NotFinalizedInTime {
        /// The extrinsic.
        extrinsic: BlockHash,
        /// How long was waited.
        after_ms: u64,
    },

    /// The same extrinsic is in the pool already.
    #[error("the pool has this extrinsic already")]
    AlreadyInPool,
    /// Another extrinsic with this nonce is in the pool.
    #[error("another extrinsic of this hotkey waits in the pool with the same nonce")]
    NonceTaken,
    /// The nonce was used by an extrinsic in a block.
    #[error("the nonce has been used already")]
    NonceUsed,
    /// The nonce is ahead of the chain's.
    #[error("the nonce is ahead of the chain's")]
    NonceAhead,
    /// The extrinsic's era has passed or begins on a fork.
    #[error("the extrinsic's era has passed")]
    EraPassed,
    /// The chain does not accept the signature.
    #[error("the chain does not accept the signature (wrong key, or the runtime was upgraded meanwhile)")]
    BadSignature,
    /// The pool or the block is full.
    #[error("the node has no room for the extrinsic now")]
    NoRoom,
    /// The extrinsic left the pool without getting into a block.
    #[error("the extrinsic was dropped from the pool")]
    Dropped,
    /// The node bans this extrinsic for a while.
    #[error("the node bans this extrinsic for a while")]
    Banned,
    /// The chain demands a fee that the account cannot pay.
    #[error("the account cannot pay the fee")]
    CannotPay,

    /// The subnet does not exist (pool code 3).
    #[error("the subnet does not exist")]
    NoSuchSubnet,
    /// The subnet has no such mechanism.
    #[error("the subnet has no such mechanism")]
    NoSuchMechanism,
    /// Weights of the root network are not set this way.
    #[error("weights of the root network cannot be set")]
    RootNetwork,
    /// As many uids as weights are needed.
    #[error("the call has unequal numbers of uids and weights")]
    UnequalLengths,
    /// More entries than neurons.
    #[error("the vector has more entries than the subnet has neurons")]
    TooManyUids,
    /// The hotkey is not registered (pool codes 4, 10 and 19).
    #[error("the hotkey is not registered on the subnet")]
    NotRegistered,
    /// Too little stake (pool codes 1 and 5).
    #[error("the hotkey has too little stake to set weights")]
    StakeTooLow,
    /// Too little balance (pool code 2).
    #[error("the account's balance is too low")]
    BalanceTooLow,
    /// The version key is below the subnet's.
    #[error("the subnet demands a newer weights version")]
    OldVersionKey,
    /// Too soon after the last update (pool code 6).
    #[error("the last update was too recent")]
    TooFast,
    /// No validator permit.
    #[error("the hotkey has no validator permit")]
    NoPermit,
    /// A uid twice.
    #[error("the vector names a uid twice")]
    DuplicateUids,
    /// A uid that does not exist.
    #[error("the vector names a uid that does not exist")]
    UnknownUid,
    /// Fewer entries than the subnet demands.
    #[error("the vector has too few entries for the subnet")]
    TooFewWeights,
    /// One entry's share is over the limit.
    #[error("an entry's share is over the subnet's limit")]
    MaxWeightExceeded,
    /// The subnet takes commits only.
    #[error("the subnet has commit-reveal on: plain weights are refused")]
    CommitRevealEnabled,
    /// The subnet takes no commits.
    #[error("the subnet has commit-reveal off: commits are refused")]
    CommitRevealDisabled,
    /// Commits too soon after each other.
    #[error("the last commit was too recent")]
    CommittingTooFast,
    /// Ten commits wait to be revealed.
    #[error("too many commits wait to be revealed")]
    TooManyCommits,
    /// A commit of another scheme's version.
    #[error("the chain expects another version of commit-reveal")]
    WrongCommitVersion,
    /// A reveal round that is not acceptable (pool code 15).
    #[error("the reveal round is not acceptable to the chain")]
    BadRevealRound,

    /// The chain dropped a commit without setting its weights.
    #[error("the chain did not reveal the commit into these weights")]
    NotRevealed,

    /// A pool code that is not known here.
    #[error("the pool refused the extrinsic with code {0}")]
    PoolCode(u8),
    /// A refusal of the pool in words that are not known here.
    #[error("the pool refused the extrinsic: {0}")]
    Pool(String),
    /// A dispatch error that is not known here, as `Pallet::Error`.
    #[error("the call failed on the chain: {0}")]
    Dispatch(String),
}

impl SubmitError {
    /// What the refusal means and what to do, in one sentence.
    pub fn what_it_means(&self) -> &'static str {
        match self {
            Self::Chain(_) => {
                "The node cannot be reached or answered with an error; the submission goes on when it returns."
            }
            Self::Extension(_) | Self::CannotEncode(_) => {
                "The chain's runtime has changed its form; update this program."
            }
            Self::NotFinalizedInTime { .. } => "The chain is asked whether it landed before anything is sent again.",
            Self::AlreadyInPool | Self::NonceTaken | Self::NonceUsed => {
                "An earlier submission of this hotkey is under way; the chain is asked which one landed."
            }
            Self::NonceAhead => "An earlier extrinsic of this hotkey is missing; a new one is signed.",
            Self::EraPassed => "The extrinsic waited too long; a new one is signed.",
            Self::BadSignature => {
                "A new one is signed with the runtime's present version; if it goes on, check the hotkey."
            }
            Self::NoRoom | Self::Dropped | Self::Banned => "The node is busy; it is sent again a little later.",
            Self::CannotPay => {
                "On Subtensor weights and commitments are free and remarks are not: fund the hotkey, or anchor by commitment."
            }
            Self::NoSuchSubnet => "Check NETUID and that the endpoint serves the right network.",
            Self::NoSuchMechanism => {
                "The challenge is mapped to a mechanism that the subnet does not have; ask its owner."
            }
            Self::RootNetwork => "NETUID must not be 0.",
            Self::UnequalLengths | Self::DuplicateUids => {
                "The vector is malformed: report this as a fault of this program."
            }
            Self::TooManyUids | Self::UnknownUid => {
                "The subnet shrank since the vector was agreed; the next epoch's vector will fit."
            }
            Self::NotRegistered => "Register this hotkey on the subnet, or check that the key is the right one.",
            Self::StakeTooLow => "The hotkey's stake is below the chain's threshold: add stake or delegation.",
            Self::BalanceTooLow => "The account has too little TAO for this call.",
            Self::OldVersionKey => "The subnet's owner raised the weights version: update this program.",
            Self::TooFast => "The chain allows one update per rate limit; it is sent again when the limit has passed.",
            Self::NoPermit => "The hotkey is not among the subnet's top validators by stake; weights count once it is.",
            Self::TooFewWeights => "The subnet demands more rated miners than the epoch had.",
            Self::MaxWeightExceeded => {
                "The agreed vector was not clipped to the subnet's limit; the next epoch's will be."
            }
            Self::CommitRevealEnabled => {
                "The subnet's owner switched commit-reveal on; the weights are committed instead."
            }
            Self::CommitRevealDisabled => "The subnet's owner switched commit-reveal off; the weights are set plainly.",
            Self::Timelock(_) => "Check the configured beacon; if it is drand's quicknet, report this as a fault.",
            Self::Schedule(ScheduleError::Skipped) => "The commit is made a few blocks later.",
            Self::Schedule(_) => "Commits cannot be made on this subnet until its owner changes its tempo or period.",
            Self::OtherBeacon => {
                "Commits would never open: configure the beacon that the chain follows, or check the endpoint."
            }
            Self::NotRevealed => {
                "The hotkey lost its permit or stake, or the epochs moved past the commit; the weights are sent again."
            }
            Self::CommittingTooFast => "The chain allows one commit per rate limit; it is sent again later.",
            Self::TooManyCommits => "Earlier commits must be revealed first; it is sent again later.",
            Self::WrongCommitVersion => "The chain uses another version of commit-reveal: update this program.",
            Self::BadRevealRound => "The reveal round did not fit the chain's schedule; a new one is computed.",
            Self::PoolCode(_) | Self::Pool(_) | Self::Dispatch(_) => {
                "A refusal this version does not know; see Subtensor's documentation of the error."
            }
        }
    }

    /// Whether it may succeed later in the same epoch, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Chain(e) => e.is_retryable(),
            Self::NotFinalizedInTime { .. }
            | Self::AlreadyInPool
            | Self::NonceTaken
            | Self::NonceUsed
            | Self::NonceAhead
            | Self::EraPassed
            | Self::BadSignature
            | Self::NoRoom
            | Self::Dropped
            | Self::Banned
            | Self::TooFast
            | Self::CommittingTooFast
            | Self::TooManyCommits
            | Self::BadRevealRound
            | Self::NotRevealed
            | Self::Schedule(ScheduleError::Skipped)
            // The switch is read again before the next attempt.
            | Self::CommitRevealEnabled
            | Self::CommitRevealDisabled
            | Self::PoolCode(_)
            | Self::Pool(_)
            // Stake and permits move by themselves within an epoch.
            | Self::StakeTooLow
            | Self::NoPermit
            | Self::Dispatch(_) => true,
            Self::Extension(_)
            | Self::CannotEncode(_)
            | Self::CannotPay
            | Self::NoSuchSubnet
            | Self::NoSuchMechanism
            | Self::RootNetwork
            | Self::UnequalLengths
            | Self::TooManyUids
            | Self::NotRegistered
            | Self::BalanceTooLow
            | Self::OldVersionKey
            | Self::DuplicateUids
            | Self::UnknownUid
            | Self::TooFewWeights
            | Self::MaxWeightExceeded
            | Self::Timelock(_)
            | Self::Schedule(_)
            | Self::OtherBeacon
            | Self::WrongCommitVersion => false,
        }
    }

    /// Whether the extrinsic may be in the pool or in a block nevertheless.
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(
            self,
            Self::Chain(_) | Self::NotFinalizedInTime { .. } | Self::AlreadyInPool | Self::NonceTaken | Self::NonceUsed
        )
    }

    /// The variant for an error that a pallet dispatched.
    pub fn from_dispatch(pallet: &str, error: &str) -> Self {
        if pallet != PALLET {
            return Self::Dispatch(one_line(format_args!("{pallet}::{error}")));
        }
        match error {
            "SubnetNotExists" | "NetworkDoesNotExist" | "SubNetworkDoesNotExist" => Self::NoSuchSubnet,
            "MechanismDoesNotExist" => Self::NoSuchMechanism,
            "CanNotSetRootNetworkWeights" | "CannotSetRootNetworkWeights" | "RegistrationNotPermittedOnRootSubnet" => {
                Self::RootNetwork
            }
            "WeightVecNotEqualSize" | "InputLengthsUnequal" => Self::UnequalLengths,
            "UidsLengthExceedUidsInSubNet" => Self::TooManyUids,
            "HotKeyNotRegisteredInSubNet" | "HotKeyNotRegisteredInNetwork" | "HotKeyAccountNotExists" => {
                Self::NotRegistered
            }
            "NotEnoughStakeToSetWeights" => Self::StakeTooLow,
            "IncorrectWeightVersionKey" => Self::OldVersionKey,
            "SettingWeightsTooFast" => Self::TooFast,
            "NeuronNoValidatorPermit" => Self::NoPermit,
            "DuplicateUids" => Self::DuplicateUids,
            "UidVecContainInvalidOne" => Self::UnknownUid,
            "WeightVecLengthIsLow" => Self::TooFewWeights,
            "MaxWeightExceeded" => Self::MaxWeightExceeded,
            "CommitRevealEnabled" => Self::CommitRevealEnabled,
            "CommitRevealDisabled" => Self::CommitRevealDisabled,
            "CommittingWeightsTooFast" => Self::CommittingTooFast,
            "TooManyUnrevealedCommits" => Self::TooManyCommits,
            "IncorrectCommitRevealVersion" => Self::WrongCommitVersion,
            "InvalidRevealRound" => Self::BadRevealRound,
            other => Self::Dispatch(one_line(format_args!("{pallet}::{other}"))),
        }
    }

    /// The variant for a custom code of Subtensor's pool check. Codes from 25 on differ
    /// between runtimes and stay numbers.
    pub fn from_pool_code(code: u8) -> Self {
        match code {
            1 | 5 => Self::StakeTooLow,
            2 => Self::BalanceTooLow,
            3 => Self::NoSuchSubnet,
            // 19 is named after the uid that is not found: the sender's own.
            4 | 10 | 19 => Self::NotRegistered,
            6 => Self::TooFast,
            15 => Self::BadRevealRound,
            18 => Self::UnequalLengths,
            other => Self::PoolCode(other),
        }
    }

    /// The variant for a JSON-RPC error to a submission; `None` if it is not about the
    /// extrinsic at all.
    pub(crate) fn from_rpc(error: &UserError) -> Option<Self> {
        let data = error.data.as_ref().map(|d| d.get()).unwrap_or_default();
        let text = one_line(format_args!("{} {data}", error.message));
        Some(match error.code {
            1010 => Self::from_invalid(&text),
            1001 | 1002 | 1011 | 1017 | 1018 => Self::Pool(text),
            1012 => Self::Banned,
            1013 => Self::AlreadyInPool,
            1014 => Self::NonceTaken,
            1015 | 1016 => Self::NoRoom,
            _ => return None,
        })
    }

    fn from_invalid(text: &str) -> Self {
        if let Some(code) = custom_code(text) {
            return Self::from_pool_code(code);
        }
        let sentences: [(&str, Self); 8] = [
            ("outdated", Self::NonceUsed),
            ("valid in the future", Self::NonceAhead),
            ("bad signature", Self::BadSignature),
            ("Invalid signing address", Self::BadSignature),
            ("ancient birth block", Self::EraPassed),
            ("exhaust the block limits", Self::NoRoom),
            ("pay some fees", Self::CannotPay),
            ("call is not expected", Self::CannotEncode("the chain does not expect this call".into())),
        ];
        let known = sentences.into_iter().find(|(sentence, _)| text.contains(sentence));
        known.map_or_else(|| Self::Pool(text.to_owned()), |(_, error)| error)
    }
}

/// The pallet's errors that a submission of weights may meet.
#[cfg(test)]
pub(crate) const DOCUMENTED: [&str; 17] = [
    "WeightVecNotEqualSize",
    "MechanismDoesNotExist",
    "UidsLengthExceedUidsInSubNet",
    "HotKeyNotRegisteredInSubNet",
    "NotEnoughStakeToSetWeights",
    "IncorrectWeightVersionKey",
    "SettingWeightsTooFast",
    "NeuronNoValidatorPermit",
    "DuplicateUids",
    "UidVecContainInvalidOne",
    "WeightVecLengthIsLow",
    "MaxWeightExceeded",
    "CommitRevealEnabled",
    "CommittingWeightsTooFast",
    "TooManyUnrevealedCommits",
    "IncorrectCommitRevealVersion",
    "CommitRevealDisabled",
];

/// The number in `Custom error: N`.
fn custom_code(text: &str) -> Option<u8> {
    let rest = text.split("Custom error:").nth(1)?.trim_start();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).take(4).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn rpc(code: i32, message: &str, data: Option<&str>) -> Option<SubmitError> {
        let json = match data {
            Some(d) => serde_json::json!({"code": code, "message": message, "data": d}),
            None => serde_json::json!({"code": code, "message": message}),
        };
        let error: UserError = serde_json::from_str(&json.to_string()).unwrap();
        SubmitError::from_rpc(&error)
    }

    #[test]
    fn pool_codes_become_the_refusals_they_stand_for() {
        let invalid = |d| rpc(1010, "Invalid Transaction", Some(d)).unwrap();
        assert_eq!(invalid("Custom error: 1"), SubmitError::StakeTooLow);
        assert_eq!(invalid("Custom error: 3"), SubmitError::NoSuchSubnet);
        assert_eq!(invalid("Custom error: 6"), SubmitError::TooFast);
        assert_eq!(invalid("Custom error: 19"), SubmitError::NotRegistered);
        assert_eq!(invalid("Custom error: 255"), SubmitError::PoolCode(255));
        assert_eq!(invalid("Custom error: 30"), SubmitError::PoolCode(30));
        assert!(matches!(invalid("Custom error: 999"), SubmitError::Pool(_)));
    }

    #[test]
    fn the_pools_sentences_are_understood() {
        let invalid = |d| rpc(1010, "Invalid Transaction", Some(d)).unwrap();
        assert_eq!(invalid("Transaction is outdated"), SubmitError::NonceUsed);
        assert_eq!(invalid("Transaction will be valid in the future"), SubmitError::NonceAhead);
        assert_eq!(invalid("Transaction has a bad signature"), SubmitError::BadSignature);
        assert_eq!(invalid("Transaction has an ancient birth block"), SubmitError::EraPassed);
        assert_eq!(rpc(1013, "Transaction is already imported", None), Some(SubmitError::AlreadyInPool));
        assert_eq!(rpc(1014, "Priority is too low", Some("(1 vs 1)")), Some(SubmitError::NonceTaken));
        assert_eq!(rpc(-32601, "Method not found", None), None);
    }

    #[test]
    fn every_documented_dispatch_error_has_its_variant_and_its_sentence() {
        for name in DOCUMENTED {
            let error = SubmitError::from_dispatch(PALLET, name);
            assert!(!matches!(error, SubmitError::Dispatch(_)), "{name}");
            assert!(!error.what_it_means().is_empty());
        }
        let unknown = SubmitError::from_dispatch("Balances", "InsufficientBalance");
        assert_eq!(unknown, SubmitError::Dispatch("Balances::InsufficientBalance".into()));
    }

    #[test]
    fn what_passes_by_itself_is_retried_and_what_does_not_is_not() {
        assert!(SubmitError::TooFast.is_retryable());
        assert!(SubmitError::NonceUsed.is_retryable() && SubmitError::NonceUsed.outcome_is_unknown());
        assert!(!SubmitError::NotRegistered.is_retryable());
        assert!(SubmitError::CommitRevealEnabled.is_retryable(), "the switch is read again");
        assert!(!SubmitError::OtherBeacon.is_retryable());
        assert!(!SubmitError::TooFast.outcome_is_unknown());
    }
}
