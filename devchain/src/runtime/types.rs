//! The values that the pallet `SubtensorModule` keeps and takes.

use frame_support::BoundedVec;
use frame_support::pallet_prelude::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen, TypeInfo};
use frame_support::traits::ConstU32;
use sp_core::H256;

/// Greatest timelocked commit, in bytes.
pub const MAX_COMMIT_BYTES: u32 = 5000;

/// A timelocked commit as it travels.
pub type CommitBytes = BoundedVec<u8, ConstU32<MAX_COMMIT_BYTES>>;

/// Who committed, at which block, what, and the beacon's round that opens it.
pub type TimelockedCommit<A> = (A, u64, CommitBytes, u64);

/// A commit by hash: the hash, the epoch and the block of the commit, and a number that is no longer used.
pub type HashCommit = (H256, u64, u64, u64);

/// Where a miner serves, as `Axons` keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct AxonInfo {
    /// Block at which it was served.
    pub block: u64,
    /// Version number of the miner's own choosing.
    pub version: u32,
    /// Address: an IPv4 address in the low 32 bits, or an IPv6 address.
    pub ip: u128,
    /// Port, never 0.
    pub port: u16,
    /// 4 or 6.
    pub ip_type: u8,
    /// Protocol number of the miner's own choosing.
    pub protocol: u8,
    /// Free.
    pub placeholder1: u8,
    /// Free.
    pub placeholder2: u8,
}

/// The key with which a neuron identifies itself, as `NeuronCertificates` keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct NeuronCertificate {
    /// The key.
    pub public_key: BoundedVec<u8, ConstU32<64>>,
    /// What kind of key it is, by a number of the neuron's own choosing.
    pub algorithm: u8,
}

/// How a subnet's epoch comes to its consensus. Newer than spec 461: the official SDK asks for it before it signs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum EpochConsensus {
    /// All validators with a permit, by stake.
    #[default]
    Yuma,
    /// The one validator with the greatest stake, who alone has a permit.
    Null,
}
