//! The pallet `Commitments`: one small record for each registered hotkey of a subnet, the latest one only.
//!
//! `set_commitment` takes at most [`MAX_FIELDS`] fields, costs no fee and no deposit, and charges at least
//! [`MIN_CHARGED_BYTES`] of the [`SPACE_PER_EPOCH`] bytes that a hotkey has for each epoch. Fields of the kind
//! `TimelockEncrypted` are opened when their round is on the chain (see `sealed`); `ResetBondsFlag` is stored like any
//! other, there being no bonds to reset.

// The FRAME macros write items of their own, which carry no documentation, and `expect` on what they
// themselves have built.
#![allow(missing_docs, clippy::expect_used)]

pub use pallet::*;

use frame_support::BoundedVec;
use frame_support::pallet_prelude::{ConstU32, Decode, DecodeWithMemTracking, Encode, MaxEncodedLen, TypeInfo};
use scale::EncodeLike;
use scale_info::build::{Fields, Variants};
use scale_info::{Path, Type};

/// Most fields of one commitment.
pub const MAX_FIELDS: u32 = 3;
/// Bytes a hotkey may commit in each epoch of a subnet.
pub const SPACE_PER_EPOCH: u64 = 3100;
/// Bytes that even the smallest commitment is charged.
pub const MIN_CHARGED_BYTES: u64 = 100;
const MAX_RAW: usize = 128;
const MAX_BIG_RAW: u32 = 512;
const MAX_TIMELOCKED: u32 = 1024;

/// One field of a commitment. The first byte says the kind: 0 nothing, 1 to 129 that many bytes less one, then the
/// kinds below from 130 on.
#[derive(Clone, Debug, PartialEq, Eq, DecodeWithMemTracking, MaxEncodedLen)]
pub enum Data {
    /// Nothing.
    None,
    /// Up to 128 bytes.
    Raw(BoundedVec<u8, ConstU32<128>>),
    /// A BLAKE2b-256 digest.
    BlakeTwo256([u8; 32]),
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A Keccak-256 digest.
    Keccak256([u8; 32]),
    /// A SHA3-256 digest.
    ShaThree256([u8; 32]),
    /// A ciphertext for a future round of the beacon.
    TimelockEncrypted {
        /// The ciphertext.
        encrypted: BoundedVec<u8, ConstU32<MAX_TIMELOCKED>>,
        /// The round.
        reveal_round: u64,
    },
    /// On the real chain: resets the bonds of the caller.
    ResetBondsFlag,
    /// Up to 512 bytes.
    BigRaw(BoundedVec<u8, ConstU32<MAX_BIG_RAW>>),
    /// What stays of a ciphertext that could not be opened at its round.
    TimelockRevealFailed {
        /// The ciphertext.
        encrypted: BoundedVec<u8, ConstU32<MAX_TIMELOCKED>>,
        /// The round.
        reveal_round: u64,
    },
}

impl Data {
    /// Bytes it is charged for.
    fn charged(&self) -> u64 {
        match self {
            Self::None | Self::ResetBondsFlag => 0,
            Self::Raw(bytes) => bytes.len() as u64,
            Self::BlakeTwo256(_) | Self::Sha256(_) | Self::Keccak256(_) | Self::ShaThree256(_) => 32,
            Self::TimelockEncrypted { encrypted, .. } | Self::TimelockRevealFailed { encrypted, .. } => {
                encrypted.len() as u64
            }
            Self::BigRaw(bytes) => bytes.len() as u64,
        }
    }
}

impl Encode for Data {
    fn encode(&self) -> Vec<u8> {
        let digest = |kind: u8, digest: &[u8; 32]| [&[kind], digest.as_slice()].concat();
        match self {
            Self::None => vec![0],
            Self::Raw(bytes) => [&[bytes.len().min(MAX_RAW) as u8 + 1], bytes.as_slice()].concat(),
            Self::BlakeTwo256(bytes) => digest(130, bytes),
            Self::Sha256(bytes) => digest(131, bytes),
            Self::Keccak256(bytes) => digest(132, bytes),
            Self::ShaThree256(bytes) => digest(133, bytes),
            Self::TimelockEncrypted { encrypted, reveal_round } => (134u8, encrypted, reveal_round).encode(),
            Self::ResetBondsFlag => vec![135],
            Self::BigRaw(bytes) => (136u8, bytes).encode(),
            Self::TimelockRevealFailed { encrypted, reveal_round } => (137u8, encrypted, reveal_round).encode(),
        }
    }
}

impl EncodeLike for Data {}

impl Decode for Data {
    fn decode<I: scale::Input>(input: &mut I) -> Result<Self, scale::Error> {
        Ok(match input.read_byte()? {
            0 => Self::None,
            kind @ 1..=129 => {
                let mut bytes = vec![0; usize::from(kind) - 1];
                input.read(&mut bytes)?;
                Self::Raw(BoundedVec::truncate_from(bytes))
            }
            130 => Self::BlakeTwo256(Decode::decode(input)?),
            131 => Self::Sha256(Decode::decode(input)?),
            132 => Self::Keccak256(Decode::decode(input)?),
            133 => Self::ShaThree256(Decode::decode(input)?),
            134 => Self::TimelockEncrypted { encrypted: Decode::decode(input)?, reveal_round: Decode::decode(input)? },
            135 => Self::ResetBondsFlag,
            136 => Self::BigRaw(Decode::decode(input)?),
            137 => {
                Self::TimelockRevealFailed { encrypted: Decode::decode(input)?, reveal_round: Decode::decode(input)? }
            }
            _ => return Err("unknown kind of commitment data".into()),
        })
    }
}

/// Names one metadata variant for each raw length, `Raw0` with index 1 to `Raw128` with index 129.
macro_rules! raw_variants {
    ($variants:expr; $($length:literal)*) => {
        $variants$(.variant(concat!("Raw", stringify!($length)), |variant| {
            variant.index($length + 1).fields(Fields::unnamed().field(|field| field.ty::<[u8; $length]>()))
        }))*
    };
}

impl TypeInfo for Data {
    type Identity = Self;

    fn type_info() -> Type {
        let variants = Variants::new().variant("None", |variant| variant.index(0));
        let variants = raw_variants!(variants;
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38
            39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74
            75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107
            108 109 110 111 112 113 114 115 116 117 118 119 120 121 122 123 124 125 126 127 128);
        let digest = || Fields::unnamed().field(|field| field.ty::<[u8; 32]>());
        let timelocked = || {
            Fields::named()
                .field(|field| field.name("encrypted").ty::<BoundedVec<u8, ConstU32<MAX_TIMELOCKED>>>())
                .field(|field| field.name("reveal_round").ty::<u64>())
        };
        let variants = variants
            .variant("BlakeTwo256", |variant| variant.index(130).fields(digest()))
            .variant("Sha256", |variant| variant.index(131).fields(digest()))
            .variant("Keccak256", |variant| variant.index(132).fields(digest()))
            .variant("ShaThree256", |variant| variant.index(133).fields(digest()))
            .variant("TimelockEncrypted", |variant| variant.index(134).fields(timelocked()))
            .variant("ResetBondsFlag", |variant| variant.index(135))
            .variant("BigRaw", |variant| {
                variant
                    .index(136)
                    .fields(Fields::unnamed().field(|field| field.ty::<BoundedVec<u8, ConstU32<MAX_BIG_RAW>>>()))
            })
            .variant("TimelockRevealFailed", |variant| variant.index(137).fields(timelocked()));
        Type::builder().path(Path::new("Data", module_path!())).variant(variants)
    }
}

/// What a caller commits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct CommitmentInfo {
    /// The fields.
    pub fields: BoundedVec<Data, ConstU32<MAX_FIELDS>>,
}

/// What the chain keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Registration<Balance, BlockNumber> {
    /// Always 0.
    pub deposit: Balance,
    /// Block at which it was committed.
    pub block: BlockNumber,
    /// The fields.
    pub info: CommitmentInfo,
}

/// How much of an epoch's space a hotkey has used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct UsageTracker {
    /// The epoch.
    pub last_epoch: u64,
    /// Bytes charged in it.
    pub used_space: u64,
}

/// Why a ciphertext could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum RevealFailure {
    /// The round's signature is none.
    SignatureDeserialize,
    /// The bytes are no ciphertext.
    CiphertextDeserialize,
    /// It does not open with the round's signature.
    Decrypt,
    /// There is nothing in it.
    EmptyPlaintext,
    /// The round is no longer on the chain.
    PulseExpired,
    /// It names another round itself.
    RoundMismatch,
}

#[frame_support::pallet]
pub mod pallet {
    use super::{CommitmentInfo, Data, MIN_CHARGED_BYTES, Registration, RevealFailure, SPACE_PER_EPOCH, UsageTracker};
    use crate::runtime::primitives::NetUid;
    use crate::runtime::subtensor::{self, SubnetEpochIndex, Uids};
    use frame_support::dispatch::Pays;
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use std::collections::BTreeSet;

    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: subtensor::Config + frame_system::Config<RuntimeEvent: From<Event<Self>>> {}

    /// (netuid, hotkey) → its latest commitment.
    #[pallet::storage]
    pub type CommitmentOf<T: Config> = StorageDoubleMap<
        _,
        Identity,
        NetUid,
        Twox64Concat,
        T::AccountId,
        Registration<u64, BlockNumberFor<T>>,
        OptionQuery,
    >;
    /// (netuid, hotkey) → block of its latest commitment.
    #[pallet::storage]
    pub type LastCommitment<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Twox64Concat, T::AccountId, BlockNumberFor<T>, OptionQuery>;
    /// (netuid, hotkey) → the space it has used in the epoch.
    #[pallet::storage]
    pub type UsedSpaceOf<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Twox64Concat, T::AccountId, UsageTracker, OptionQuery>;

    /// Whose commitments have a field that waits for its round.
    #[pallet::storage]
    pub type TimelockedIndex<T: Config> = StorageValue<_, BTreeSet<(NetUid, T::AccountId)>, ValueQuery>;
    /// (netuid, hotkey) → what was opened of its commitments, and at which block; the latest ten.
    #[pallet::storage]
    pub type RevealedCommitments<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Twox64Concat, T::AccountId, Vec<(Vec<u8>, u64)>, OptionQuery>;

    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A hotkey committed.
        #[codec(index = 0)]
        Commitment {
            /// The subnet.
            netuid: NetUid,
            /// The hotkey.
            who: T::AccountId,
        },
        /// A hotkey committed a ciphertext.
        #[codec(index = 1)]
        TimelockCommitment {
            /// The subnet.
            netuid: NetUid,
            /// The hotkey.
            who: T::AccountId,
            /// Round of the beacon that opens it.
            reveal_round: u64,
        },
        /// A ciphertext was opened.
        #[codec(index = 2)]
        CommitmentRevealed {
            /// The subnet.
            netuid: NetUid,
            /// The hotkey.
            who: T::AccountId,
        },
        /// A ciphertext could not be opened.
        #[codec(index = 3)]
        CommitmentRevealFailed {
            /// The subnet.
            netuid: NetUid,
            /// The hotkey.
            who: T::AccountId,
            /// The round.
            reveal_round: u64,
            /// Why not.
            error: RevealFailure,
        },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// The hotkey is not registered on the subnet.
        #[codec(index = 1)]
        AccountNotAllowedCommit,
        /// The epoch's space is used up.
        #[codec(index = 2)]
        SpaceLimitExceeded,
        /// Only the chain itself writes fields of the kind `TimelockRevealFailed`.
        #[codec(index = 4)]
        TimelockRevealFailedNotAllowed,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_: BlockNumberFor<T>) -> Weight {
            Self::open_commitments();
            Weight::zero()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Commit these fields in place of the caller's earlier ones.
        #[pallet::call_index(0)]
        #[pallet::weight((Weight::from_parts(500_000_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn set_commitment(origin: OriginFor<T>, netuid: NetUid, info: Box<CommitmentInfo>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            ensure!(Uids::<T>::contains_key(netuid, &who), Error::<T>::AccountNotAllowedCommit);
            let failed = info.fields.iter().any(|field| matches!(field, Data::TimelockRevealFailed { .. }));
            ensure!(!failed, Error::<T>::TimelockRevealFailedNotAllowed);
            Self::charge(netuid, &who, info.fields.iter().map(Data::charged).sum())?;
            let block = frame_system::Pallet::<T>::block_number();
            let event = match info.fields.iter().find_map(|field| match field {
                Data::TimelockEncrypted { reveal_round, .. } => Some(*reveal_round),
                _ => None,
            }) {
                Some(reveal_round) => Event::TimelockCommitment { netuid, who: who.clone(), reveal_round },
                None => Event::Commitment { netuid, who: who.clone() },
            };
            let timelocked = matches!(event, Event::TimelockCommitment { .. });
            TimelockedIndex::<T>::mutate(|index| {
                let key = (netuid, who.clone());
                if timelocked { index.insert(key) } else { index.remove(&key) }
            });
            CommitmentOf::<T>::insert(netuid, &who, Registration { deposit: 0, block, info: *info });
            LastCommitment::<T>::insert(netuid, &who, block);
            Self::deposit_event(event);
            Ok(())
        }
    }

    impl<T: Config> Pallet<T> {
        fn charge(netuid: NetUid, who: &T::AccountId, bytes: u64) -> Result<(), Error<T>> {
            let epoch = SubnetEpochIndex::<T>::get(netuid);
            let used = UsedSpaceOf::<T>::get(netuid, who).filter(|usage| usage.last_epoch == epoch);
            let before = used.map_or(0, |usage| usage.used_space);
            let used_space = before.saturating_add(bytes.max(MIN_CHARGED_BYTES));
            ensure!(used_space <= SPACE_PER_EPOCH, Error::<T>::SpaceLimitExceeded);
            UsedSpaceOf::<T>::insert(netuid, who, UsageTracker { last_epoch: epoch, used_space });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn data_has_the_chains_encoding() {
        let raw = |bytes: &[u8]| Data::Raw(BoundedVec::truncate_from(bytes.to_vec()));
        assert_eq!(Data::None.encode(), [0]);
        assert_eq!(raw(&[]).encode(), [1]);
        assert_eq!(raw(&[7, 8]).encode(), [3, 7, 8]);
        assert_eq!(raw(&[9; 128]).encode()[0], 129);
        assert_eq!(Data::Sha256([5; 32]).encode(), [&[131][..], &[5; 32]].concat());
        assert_eq!(Data::ResetBondsFlag.encode(), [135]);
        assert_eq!(Data::BigRaw(BoundedVec::truncate_from(vec![1])).encode(), [136, 4, 1]);
        let timelocked = Data::TimelockEncrypted { encrypted: BoundedVec::truncate_from(vec![2]), reveal_round: 3 };
        for data in [Data::None, raw(&[]), raw(&[9; 128]), Data::Keccak256([1; 32]), timelocked] {
            assert_eq!(Data::decode(&mut &data.encode()[..]).unwrap(), data);
        }
        assert!(Data::decode(&mut &[137u8][..]).is_err());
        assert!(Data::decode(&mut &[5u8, 0][..]).is_err());
    }
}
