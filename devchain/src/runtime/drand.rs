//! The pallet `Drand`: the beacon's rounds that are on the chain, and the beacon they come from.
//!
//! On the real chain nodes fetch the rounds and bring them in by unsigned extrinsics. Here the block maker signs them
//! itself, or a development call brings them; either way they are in the state before anything uses them.

#![allow(missing_docs, clippy::expect_used)]

pub use pallet::*;

use crate::beacon::{Beacon, QUICKNET_CHAIN_HASH, QUICKNET_GROUP_HASH, QUICKNET_KEY, SCHEME, randomness, verify};
use frame_support::BoundedVec;
use frame_support::pallet_prelude::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen, TypeInfo};
use frame_support::traits::ConstU32;
use sp_io::hashing::sha2_256;

/// Rounds kept: three hours and a half of quicknet's. The real chain keeps a week.
pub const MAX_KEPT_ROUNDS: u64 = 4096;

/// Old rounds that one block removes at most.
const MAX_REMOVED_ROUNDS: u64 = 100;

type Bytes32 = BoundedVec<u8, ConstU32<32>>;

/// A round of the beacon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Pulse {
    /// Its number.
    pub round: u64,
    /// SHA-256 of the signature.
    pub randomness: Bytes32,
    /// 48 bytes.
    pub signature: BoundedVec<u8, ConstU32<144>>,
}

/// Further names of a beacon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Metadata {
    /// What its operators call it.
    pub beacon_id: Bytes32,
}

/// A beacon's public side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct BeaconConfiguration {
    /// 96 bytes in G2.
    pub public_key: BoundedVec<u8, ConstU32<96>>,
    /// Seconds between two rounds; rounded up where the period is no whole number of them.
    pub period: u32,
    /// Unix time of round 1.
    pub genesis_time: u32,
    /// What identifies it.
    pub hash: Bytes32,
    /// What identifies its operators.
    pub group_hash: Bytes32,
    /// Name of the signature scheme.
    pub scheme_id: Bytes32,
    /// Further names.
    pub metadata: Metadata,
}

impl BeaconConfiguration {
    /// The public side of `beacon`.
    #[must_use]
    pub fn of(beacon: &Beacon) -> Self {
        let key = beacon.public_key();
        let (hash, group_hash, name) = match key {
            QUICKNET_KEY => (QUICKNET_CHAIN_HASH, QUICKNET_GROUP_HASH.to_vec(), "quicknet"),
            _ => (sha2_256(&key), Vec::new(), "development"),
        };
        Self {
            public_key: BoundedVec::truncate_from(key.to_vec()),
            period: u32::try_from(beacon.period_ms().div_ceil(1000)).unwrap_or(u32::MAX),
            genesis_time: u32::try_from(beacon.genesis_secs()).unwrap_or(u32::MAX),
            hash: Bytes32::truncate_from(hash.to_vec()),
            group_hash: Bytes32::truncate_from(group_hash),
            scheme_id: Bytes32::truncate_from(SCHEME.as_bytes().to_vec()),
            metadata: Metadata { beacon_id: Bytes32::truncate_from(name.as_bytes().to_vec()) },
        }
    }
}

#[frame_support::pallet]
pub mod pallet {
    use super::{BeaconConfiguration, Pulse};
    use crate::beacon::{Beacon, BeaconSource, NamedBeacon};
    use frame_support::pallet_prelude::*;

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<RuntimeEvent: From<Event<Self>>> {}

    #[pallet::type_value]
    pub fn DefaultBeaconConfig() -> BeaconConfiguration {
        BeaconConfiguration::of(&Beacon::new(&BeaconSource::Named(NamedBeacon::Quicknet)))
    }

    /// The beacon that is followed.
    #[pallet::storage]
    pub type BeaconConfig<T> = StorageValue<_, BeaconConfiguration, ValueQuery, DefaultBeaconConfig>;
    /// round → what the beacon published.
    #[pallet::storage]
    pub type Pulses<T> = StorageMap<_, Blake2_128Concat, u64, Pulse, OptionQuery>;
    /// Newest round stored; 0 for none.
    #[pallet::storage]
    pub type LastStoredRound<T> = StorageValue<_, u64, ValueQuery>;
    /// Oldest round that may be stored still; 0 for none.
    #[pallet::storage]
    pub type OldestStoredRound<T> = StorageValue<_, u64, ValueQuery>;

    /// Indices are the real runtime's.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// Rounds were stored.
        #[codec(index = 1)]
        NewPulse {
            /// Which.
            rounds: Vec<u64>,
        },
    }
}

impl<T: Config> Pallet<T> {
    /// Store the rounds of the chain's own beacon that are due at `now_ms`, and forget old ones.
    pub(crate) fn follow(beacon: &Beacon, now_ms: u64) {
        let due = beacon.due(now_ms, LastStoredRound::<T>::get(), MAX_KEPT_ROUNDS);
        let rounds: Vec<(u64, [u8; 48])> = due.filter_map(|round| Some((round, beacon.sign(round)?))).collect();
        if rounds.is_empty() {
            return;
        }
        for (round, signature) in &rounds {
            Self::store(*round, signature);
        }
        Self::prune();
        Self::deposit_event(Event::NewPulse { rounds: rounds.into_iter().map(|(round, _)| round).collect() });
    }

    /// Store one round that somebody brought, if its signature is the beacon's.
    pub(crate) fn bring(round: u64, signature: &[u8]) -> bool {
        let genuine = round > 0 && verify(&BeaconConfig::<T>::get().public_key, round, signature);
        if genuine {
            Self::store(round, signature);
            Self::prune();
            Self::deposit_event(Event::NewPulse { rounds: vec![round] });
        }
        genuine
    }

    fn store(round: u64, signature: &[u8]) {
        let pulse = Pulse {
            round,
            randomness: BoundedVec::truncate_from(randomness(signature).to_vec()),
            signature: BoundedVec::truncate_from(signature.to_vec()),
        };
        Pulses::<T>::insert(round, pulse);
        LastStoredRound::<T>::mutate(|last| *last = round.max(*last));
        OldestStoredRound::<T>::mutate(|oldest| *oldest = if *oldest == 0 { round } else { *oldest });
    }

    fn prune() {
        let last = LastStoredRound::<T>::get();
        let oldest = OldestStoredRound::<T>::get();
        let keep_from = last.saturating_sub(MAX_KEPT_ROUNDS).saturating_add(1);
        let first_kept = keep_from.min(oldest.saturating_add(MAX_REMOVED_ROUNDS)).max(oldest);
        for round in oldest..first_kept {
            Pulses::<T>::remove(round);
        }
        OldestStoredRound::<T>::put(first_kept);
    }
}
