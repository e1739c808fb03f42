//! The vocabulary of the network: keys and ids, integer scores, canonical encoding,
//! signed envelopes, the records of a round, and the limits everything from outside meets.
//!
//! Three rules hold for every type here:
//!
//! 1. **One value, one byte string.** Whatever is hashed or signed is encoded with borsh
//!    ([`encode`]); decoding refuses surplus bytes and anything over the type's limit.
//! 2. **Every digest and signature names its purpose and its network** ([`encode::Domain`],
//!    [`ids::NetworkId`]): bytes signed for one thing can never pose as another.
//! 3. **What is verified is what is used** ([`envelope::Signed`]): the value handed out is
//!    decoded from the very bytes the signature covered.
//!
//! Nothing here does IO, reads a clock or draws randomness of its own.

pub mod beacon;
pub mod encode;
pub mod envelope;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod round;
pub mod secret;
pub mod vrf;
pub mod wire;

pub use beacon::Beacon;
pub use encode::{DecodeError, Domain};
pub use envelope::{Envelope, EnvelopeError, Signed};
pub use ids::{ChallengeId, ConsensusKey, Digest, Hotkey, NetworkId};
pub use keys::{ConsensusPair, HotkeyPair};
pub use round::{
    Entry, Measurement, Millionths, Reason, RoundCommits, RoundId, RoundOpen, RoundResult, RoundReveal, RoundSkip,
};
pub use vrf::{Lot, RoundKey, RoundPair};
