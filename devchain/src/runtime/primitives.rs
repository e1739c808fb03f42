//! The newtypes that Subtensor's runtime puts around its integers.
//!
//! Each encodes as the bare integer; they exist so that the metadata of this chain has the same structure as the
//! metadata of a Subtensor node (spec 461), where clients meet a one-field composite and not a primitive.

use frame_support::pallet_prelude::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen, TypeInfo};
use scale::CompactAs;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, CompactAs,
            MaxEncodedLen, TypeInfo,
        )]
        pub struct $name(pub $inner);

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

newtype!(
    /// Number of a subnet; 0 is the root network.
    NetUid(u16)
);
newtype!(
    /// Number of a mechanism inside a subnet; 0 is the main one.
    MechId(u8)
);
newtype!(
    /// Key of the storage items kept per mechanism: `mecid · 4096 + netuid`.
    NetUidStorageIndex(u16)
);
newtype!(
    /// Amount of a subnet's own token, in rao (10⁻⁹).
    AlphaBalance(u64)
);
newtype!(
    /// Amount of TAO, in rao (10⁻⁹).
    TaoBalance(u64)
);

/// Netuids below this bound share one storage index range per mechanism.
pub const MAX_SUBNETS: u16 = 4096;

impl NetUid {
    /// The root network, on which nobody sets weights.
    pub const ROOT: Self = Self(0);
}

impl MechId {
    /// The mechanism every subnet has.
    pub const MAIN: Self = Self(0);
}

impl NetUidStorageIndex {
    /// Storage index of mechanism `mecid` of subnet `netuid`. It wraps beyond the sixteenth mechanism, which no
    /// subnet can have (see [`MAX_MECHANISMS`]).
    #[must_use]
    pub const fn new(netuid: NetUid, mecid: MechId) -> Self {
        Self((mecid.0 as u16).wrapping_mul(MAX_SUBNETS).wrapping_add(netuid.0))
    }
}

impl From<NetUid> for NetUidStorageIndex {
    fn from(netuid: NetUid) -> Self {
        Self::new(netuid, MechId::MAIN)
    }
}

/// More mechanisms than this do not fit the storage index.
pub const MAX_MECHANISMS: u8 = 16;

/// A binary fixed-point number of 32 integer and 32 fraction bits, as the runtime's metadata shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct FixedI64 {
    /// The number times 2³².
    pub bits: i64,
}

/// A signed binary fixed-point number of 32 fraction bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct FixedI128 {
    /// The number times 2³².
    pub bits: i128,
}

/// An unsigned binary fixed-point number of 64 fraction bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct FixedU128 {
    /// The number times 2⁶⁴.
    pub bits: u128,
}

#[cfg(test)]
mod tests {
    use super::*;
    use scale::Compact;

    #[test]
    fn storage_index_of_a_mechanism_is_mecid_times_4096_plus_netuid() {
        assert_eq!(NetUidStorageIndex::new(NetUid(7), MechId(0)).0, 7);
        assert_eq!(NetUidStorageIndex::new(NetUid(7), MechId(2)).0, 8199);
        assert_eq!(NetUidStorageIndex::new(NetUid(4095), MechId(15)).0, u16::MAX);
    }

    #[test]
    fn newtypes_encode_as_the_bare_integer() {
        assert_eq!(NetUid(513).encode(), 513u16.encode());
        assert_eq!(AlphaBalance(9).encode(), 9u64.encode());
        assert_eq!(Compact(TaoBalance(70_000)).encode(), Compact(70_000u64).encode());
    }
}
