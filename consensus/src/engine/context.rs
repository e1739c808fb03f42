//! The types with which the engine is instantiated.
//!
//! The value agreed on is a header's digest, the address of a validator is its consensus key, and
//! the proposer of (height, round) is the validator at index `(height + round) mod n` of the set
//! in its canonical order: every validator computes the same one from the set alone.

use std::fmt;
use std::sync::Arc;

use arc_malachitebft_core_types as mbft;
use mbft::{NilOrVal, Round, SignedExtension, VoteType};
use perturb_types::{ConsensusKey, ConsensusPair, Digest};

/// The engine's quorum arithmetic multiplies the total by three and panics on overflow.
pub(crate) const MAX_TOTAL_POWER: u64 = u64::MAX / 3;

/// The engine's context: a name for the types below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ctx;

/// A block height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Height(pub u64);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl mbft::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);
    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }
    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }
    fn as_u64(&self) -> u64 {
        self.0
    }
}

/// A validator's address: its consensus key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address(pub ConsensusKey);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl mbft::Address for Address {}

/// The value agreed on: a header's digest, which is its own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId(pub Digest);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.short())
    }
}

impl mbft::Value for BlockId {
    type Id = Self;
    fn id(&self) -> Self {
        *self
    }
}

/// Ed25519 as the engine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ed25519;

impl mbft::SigningScheme for Ed25519 {
    type DecodingError = String;
    type Signature = [u8; 64];
    type PublicKey = ConsensusKey;
    type PrivateKey = ConsensusPair;
    fn decode_signature(bytes: &[u8]) -> Result<[u8; 64], String> {
        bytes.try_into().map_err(|_| format!("{} bytes are no ed25519 signature", bytes.len()))
    }
    fn encode_signature(signature: &[u8; 64]) -> Vec<u8> {
        signature.to_vec()
    }
    fn decode_public_key(bytes: &[u8]) -> Result<ConsensusKey, String> {
        let key = bytes.try_into().map_err(|_| format!("{} bytes are no ed25519 key", bytes.len()))?;
        Ok(ConsensusKey(key))
    }
    fn encode_public_key(key: &ConsensusKey) -> Vec<u8> {
        key.0.to_vec()
    }
}

/// One validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub address: Address,
    pub power: u64,
}

impl mbft::Validator<Ctx> for Member {
    fn address(&self) -> &Address {
        &self.address
    }
    fn public_key(&self) -> &ConsensusKey {
        &self.address.0
    }
    fn voting_power(&self) -> u64 {
        self.power
    }
}

/// A validator set in its canonical order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set(Arc<Vec<Member>>);

impl Set {
    /// A set from keys and powers in canonical order.
    ///
    /// `None` for what the engine cannot work with: nobody, or a total power above
    /// [`MAX_TOTAL_POWER`].
    pub fn new(members: impl IntoIterator<Item = (ConsensusKey, u64)>) -> Option<Self> {
        let members: Vec<Member> =
            members.into_iter().map(|(key, power)| Member { address: Address(key), power }).collect();
        let total = members.iter().try_fold(0u64, |sum, m| sum.checked_add(m.power))?;
        (!members.is_empty() && total > 0 && total <= MAX_TOTAL_POWER).then(|| Self(Arc::new(members)))
    }

    /// The proposer of a height and round.
    pub fn proposer(&self, height: Height, round: Round) -> &Member {
        let n = self.0.len() as u64;
        let round = u64::from(round.as_u32().unwrap_or(0));
        // Both terms are below 2^32, so the sum cannot overflow; the set is never empty.
        &self.0[((height.0 % n + round % n) % n) as usize]
    }

    /// The power of a key; `None` for a stranger.
    pub fn power(&self, key: &ConsensusKey) -> Option<u64> {
        self.0.iter().find(|m| m.address.0 == *key).map(|m| m.power)
    }

    /// The consensus key of the proposer of a height and round.
    pub fn proposer_key(&self, height: u64, round: u32) -> ConsensusKey {
        self.proposer(Height(height), Round::new(round)).address.0
    }

    /// The whole power.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|m| m.power).sum()
    }
}

impl mbft::ValidatorSet<Ctx> for Set {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn total_voting_power(&self) -> u64 {
        self.total()
    }
    fn get_by_address(&self, address: &Address) -> Option<&Member> {
        self.0.iter().find(|m| m.address == *address)
    }
    fn get_by_index(&self, index: usize) -> Option<&Member> {
        self.0.get(index)
    }
}

/// A vote, without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BareVote {
    pub kind: VoteType,
    pub height: Height,
    pub round: Round,
    pub value: NilOrVal<BlockId>,
    pub voter: Address,
}

impl mbft::Vote<Ctx> for BareVote {
    fn height(&self) -> Height {
        self.height
    }
    fn round(&self) -> Round {
        self.round
    }
    fn value(&self) -> &NilOrVal<BlockId> {
        &self.value
    }
    fn take_value(self) -> NilOrVal<BlockId> {
        self.value
    }
    fn vote_type(&self) -> VoteType {
        self.kind
    }
    fn validator_address(&self) -> &Address {
        &self.voter
    }
    fn extension(&self) -> Option<&SignedExtension<Ctx>> {
        None
    }
    fn take_extension(&mut self) -> Option<SignedExtension<Ctx>> {
        None
    }
    // Extensions are disabled at every height.
    fn extend(self, _: SignedExtension<Ctx>) -> Self {
        self
    }
}

/// A proposal, without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BareProposal {
    pub height: Height,
    pub round: Round,
    pub value: BlockId,
    pub pol_round: Round,
    pub proposer: Address,
}

impl mbft::Proposal<Ctx> for BareProposal {
    fn height(&self) -> Height {
        self.height
    }
    fn round(&self) -> Round {
        self.round
    }
    fn value(&self) -> &BlockId {
        &self.value
    }
    fn take_value(self) -> BlockId {
        self.value
    }
    fn pol_round(&self) -> Round {
        self.pol_round
    }
    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

/// Bodies are gossiped and pulled by the machine, never as parts of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoPart;

impl mbft::ProposalPart<Ctx> for NoPart {
    fn is_first(&self) -> bool {
        true
    }
    fn is_last(&self) -> bool {
        true
    }
}

impl mbft::Context for Ctx {
    type Address = Address;
    type Height = Height;
    type ProposalPart = NoPart;
    type Proposal = BareProposal;
    type Validator = Member;
    type ValidatorSet = Set;
    type Timeouts = mbft::LinearTimeouts;
    type Value = BlockId;
    type Vote = BareVote;
    type Extension = ();
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(&self, set: &'a Set, height: Height, round: Round) -> &'a Member {
        set.proposer(height, round)
    }

    fn new_proposal(
        &self,
        height: Height,
        round: Round,
        value: BlockId,
        pol_round: Round,
        proposer: Address,
    ) -> BareProposal {
        BareProposal { height, round, value, pol_round, proposer }
    }

    fn new_prevote(&self, height: Height, round: Round, value: NilOrVal<BlockId>, voter: Address) -> BareVote {
        BareVote { kind: VoteType::Prevote, height, round, value, voter }
    }

    fn new_precommit(&self, height: Height, round: Round, value: NilOrVal<BlockId>, voter: Address) -> BareVote {
        BareVote { kind: VoteType::Precommit, height, round, value, voter }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_proposer_rotates_over_heights_and_rounds() {
        let set = Set::new((0..4u8).map(|i| (ConsensusKey([i; 32]), 1))).unwrap();
        let at = |h, r| set.proposer(Height(h), Round::new(r)).address.0.0[0];
        assert_eq!([at(1, 0), at(1, 1), at(2, 0), at(4, 0), at(u64::MAX, u32::MAX)], [1, 2, 2, 0, 2]);
    }

    #[test]
    fn a_set_the_engine_would_panic_on_is_refused() {
        assert!(Set::new([]).is_none());
        assert!(Set::new([(ConsensusKey([1; 32]), 0)]).is_none());
        assert!(Set::new([(ConsensusKey([1; 32]), MAX_TOTAL_POWER)]).is_some());
        assert!(Set::new([(ConsensusKey([1; 32]), MAX_TOTAL_POWER + 1)]).is_none());
        assert!(Set::new([(ConsensusKey([1; 32]), u64::MAX), (ConsensusKey([2; 32]), 1)]).is_none());
    }
}
