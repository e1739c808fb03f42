//! Validator sets, voting power, quorums.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::encode::{self, Domain};
use perturb_types::{ConsensusKey, Digest, Hotkey, NetworkId, limits};
use serde::{Deserialize, Serialize};

/// The engine multiplies power by three: totals stay below this.
pub const MAX_TOTAL_POWER: u64 = u64::MAX / 3;

/// How stake becomes voting power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerRule {
    /// Everybody has one vote.
    Equal,
    /// Stake in whole TAO, no validator above this part (millionths) of the total.
    Stake {
        /// The largest part of one validator, millionths.
        max_share: u32,
    },
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Validator {
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// The key it votes with.
    pub key: ConsensusKey,
    /// Its voting power, at least 1.
    pub power: u64,
}

/// The members of an epoch, by rising consensus key.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ValidatorSet(Vec<Validator>);

/// A list that is no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Nobody, or too many.
    #[error("a set of {0} validators: 1 to {max} are possible", max = limits::MAX_VALIDATORS)]
    Size(usize),
    /// A key or hotkey twice.
    #[error("{0} is in the set twice")]
    Twice(Hotkey),
    /// Members not by rising consensus key.
    #[error("the members are not by rising consensus key")]
    Order,
    /// No power, or too much in all.
    #[error("voting power: each needs at least 1, all together at most {MAX_TOTAL_POWER}")]
    Power,
}

impl ValidatorSet {
    /// A set; the order is put right.
    ///
    /// # Errors
    /// See [`SetError`].
    pub fn new(mut validators: Vec<Validator>) -> Result<Self, SetError> {
        if validators.is_empty() || validators.len() > limits::MAX_VALIDATORS {
            return Err(SetError::Size(validators.len()));
        }
        validators.sort_by_key(|v| v.key);
        if let Some(w) = validators.windows(2).find(|w| w[0].key == w[1].key) {
            return Err(SetError::Twice(w[1].hotkey));
        }
        let mut hotkeys: Vec<Hotkey> = validators.iter().map(|v| v.hotkey).collect();
        hotkeys.sort_unstable();
        if let Some(w) = hotkeys.windows(2).find(|w| w[0] == w[1]) {
            return Err(SetError::Twice(w[0]));
        }
        let total = validators.iter().try_fold(0u64, |sum, v| sum.checked_add(v.power).filter(|_| v.power > 0));
        match total {
            Some(total) if total <= MAX_TOTAL_POWER => Ok(Self(validators)),
            _ => Err(SetError::Power),
        }
    }

    /// Whether a decoded list is a set in its one order; decoding alone does not say so.
    ///
    /// # Errors
    /// See [`SetError`].
    pub fn validate(&self) -> Result<(), SetError> {
        let set = Self::new(self.0.clone())?;
        if set == *self { Ok(()) } else { Err(SetError::Order) }
    }

    /// The members, by rising consensus key.
    pub fn iter(&self) -> std::slice::Iter<'_, Validator> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a set has a member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member that votes with a key.
    pub fn by_key(&self, key: &ConsensusKey) -> Option<&Validator> {
        self.0.binary_search_by_key(key, |v| v.key).ok().and_then(|i| self.0.get(i))
    }

    /// The member with a hotkey.
    pub fn by_hotkey(&self, hotkey: &Hotkey) -> Option<&Validator> {
        self.0.iter().find(|v| v.hotkey == *hotkey)
    }

    /// The power behind a key.
    pub fn power(&self, key: &ConsensusKey) -> Option<u64> {
        self.by_key(key).map(|v| v.power)
    }

    /// All power.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|v| v.power).sum()
    }

    /// Whether this much power is more than two thirds: weight·3 > total·2.
    pub fn is_quorum(&self, power: u64) -> bool {
        u128::from(power) * 3 > u128::from(self.total()) * 2
    }

    /// The hash that headers carry.
    pub fn hash(&self, network: &NetworkId) -> Digest {
        encode::digest_of(Domain::ValidatorSet, network, self)
    }
}

/// Powers of stakes (rao) under a rule, in the same order; each at least 1.
///
/// The cap binds the *result*: the largest c with c ≤ max_share · Σ min(stake, c), so no validator
/// holds more than `max_share` of the power that there is. A cap taken of the raw total would leave
/// one that holds most of the stake a quorum of its own. Where no c fits (fewer validators than
/// 1/max_share), all are equal.
pub fn powers(rule: PowerRule, stakes_rao: &[u64]) -> Vec<u64> {
    match rule {
        PowerRule::Equal => vec![1; stakes_rao.len()],
        PowerRule::Stake { max_share } => {
            let ceiling = MAX_TOTAL_POWER / limits::MAX_VALIDATORS as u64;
            let tao: Vec<u64> = stakes_rao.iter().map(|s| (s / 1_000_000_000).clamp(1, ceiling)).collect();
            let fits = |c: u64| {
                let total: u128 = tao.iter().map(|t| u128::from((*t).min(c))).sum();
                u128::from(c) * 1_000_000 <= total * u128::from(max_share)
            };
            // Σ min(stake, c) is concave in c: what fits is one interval from 0.
            let (mut low, mut high) = (0, tao.iter().copied().max().unwrap_or(0));
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                if fits(middle) { low = middle } else { high = middle - 1 }
            }
            tao.into_iter().map(|t| t.min(low.max(1))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn member(i: u8, power: u64) -> Validator {
        Validator { hotkey: Hotkey([i; 32]), key: ConsensusKey([255 - i; 32]), power }
    }

    #[test]
    fn with_equal_power_a_quorum_is_floor_two_thirds_plus_one() {
        for n in 1..=20u8 {
            let set = ValidatorSet::new((0..n).map(|i| member(i, 1)).collect()).unwrap();
            let need = u64::from(n) * 2 / 3 + 1;
            assert!(set.is_quorum(need) && !set.is_quorum(need - 1), "n = {n}");
        }
    }

    #[test]
    fn doubles_strangers_and_powerless_members_make_no_set() {
        assert!(ValidatorSet::new(vec![]).is_err());
        assert!(ValidatorSet::new(vec![member(1, 1), member(1, 1)]).is_err());
        assert!(ValidatorSet::new(vec![member(1, 0)]).is_err());
        assert!(ValidatorSet::new(vec![member(1, u64::MAX / 2)]).is_err());
        let twice = Validator { key: ConsensusKey([9; 32]), ..member(1, 1) };
        assert!(matches!(ValidatorSet::new(vec![member(1, 1), twice]), Err(SetError::Twice(_))));
        assert_eq!(ValidatorSet(vec![member(1, 1), member(2, 1)]).validate(), Err(SetError::Order));
        assert_eq!(ValidatorSet(vec![member(2, u64::MAX), member(1, u64::MAX)]).validate(), Err(SetError::Power));
        assert_eq!(ValidatorSet(vec![member(2, 1), member(1, 1)]).validate(), Ok(()));
    }

    #[test]
    fn one_that_holds_most_of_the_stake_holds_no_quorum() {
        let tao = |t: &[u64]| t.iter().map(|t| t * 1_000_000_000).collect::<Vec<_>>();
        let stake = |s: &[u64]| powers(PowerRule::Stake { max_share: 250_000 }, &tao(s));
        // c ≤ (c + 10·10)/4 gives c = 33 beside ten of 10.
        assert_eq!(stake(&[900, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10])[..2], [33, 10]);
        assert_eq!(stake(&[70, 70, 70, 70]), [70; 4]);
        assert_eq!(stake(&[70, 50, 60]), [1; 3], "three cannot each hold at most a quarter");
    }

    proptest! {
        #[test]
        fn no_validator_exceeds_its_part(stakes in proptest::collection::vec(any::<u64>(), 4..60)) {
            let p = powers(PowerRule::Stake { max_share: 250_000 }, &stakes);
            let total: u128 = p.iter().map(|x| u128::from(*x)).sum();
            prop_assert!(p.iter().all(|x| u128::from(*x) * 4 <= total && *x > 0));
            prop_assert!(total <= u128::from(MAX_TOTAL_POWER));
        }
    }
}
