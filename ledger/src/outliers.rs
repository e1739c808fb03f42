//! Who measures otherwise than the others: shown, checked more often, and never charged.
//!
//! A miner can answer everybody well but one, so that the one looks like an outlier; a validator that
//! favours its own miner is an outlier about that one. Neither says anything by itself. So outliers are
//! counted by the *owners* (coldkeys) of the miners: at an epoch's close, for each challenge, a
//! validator is an outlier for an owner if its contribution to any of the owner's miners was rejected
//! ([`crate::aggregate`]). Who is one for more than half of the owners that it contributed to has its
//! rounds of that challenge drawn for a check [`MORE_CHECKS`] times as often until the next close.
//! Whoever has the coldkeys to make an honest validator one makes it checked, no more.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::{ChallengeId, Hotkey, RoundId};

use crate::epoch::MinerRecord;
use crate::execute::Executor;
use crate::parameters::MILLION;
use crate::state::{outlier_key, outlier_prefix};
use crate::store::{StateStore, StoreError};
use crate::tx::Snapshot;

/// How many times as often the rounds of an outlier are drawn.
pub const MORE_CHECKS: u32 = 5;

/// For how many owners of miners a validator was an outlier in the epoch that closed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OutlierRow {
    /// Owners about whose miners a contribution was rejected.
    pub rejected: u32,
    /// Owners to whose miners it contributed, where the others contributed too.
    pub owners: u32,
}

impl OutlierRow {
    /// Whether it is an outlier for a majority.
    #[must_use]
    pub fn is_majority(&self) -> bool {
        u64::from(self.rejected) * 2 > u64::from(self.owners)
    }

    /// The part of its rounds, in millionths, that is drawn where `rate` is everybody's.
    #[must_use]
    pub fn rate(&self, rate: u32) -> u32 {
        if self.is_majority() { rate.saturating_mul(MORE_CHECKS).min(MILLION) } else { rate }
    }
}

/// One validator's count in an epoch's record.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Outlier {
    /// The validator.
    pub validator: Hotkey,
    /// For how many owners, of how many.
    pub count: OutlierRow,
}

/// Coldkeys.
type Owners = BTreeSet<[u8; 32]>;

/// Counts everybody who contributed to a miner that was scored in this epoch, by rising hotkey.
pub(crate) fn count(miners: &[MinerRecord], snapshot: &Snapshot) -> Vec<Outlier> {
    let mut owners: BTreeMap<Hotkey, [Owners; 2]> = BTreeMap::new();
    for miner in miners.iter().filter(|m| m.kept.is_none()) {
        let Some(aggregate) = &miner.aggregate else { continue };
        let Some(neuron) = snapshot.neuron(&miner.hotkey) else { continue };
        for c in &miner.contributions {
            let [rejected, all] = owners.entry(c.validator).or_default();
            all.insert(neuron.coldkey);
            if aggregate.rejected.contains(&c.validator) {
                rejected.insert(neuron.coldkey);
            }
        }
    }
    let size = |set: Owners| u32::try_from(set.len()).unwrap_or(u32::MAX);
    let row = |[rejected, all]: [Owners; 2]| OutlierRow { rejected: size(rejected), owners: size(all) };
    owners.into_iter().map(|(validator, sets)| Outlier { validator, count: row(sets) }).collect()
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Keeps the counts of a challenge until the next close, in place of the last ones.
    pub(crate) fn keep_outliers(&mut self, challenge: ChallengeId, outliers: &[Outlier]) -> Result<(), StoreError> {
        self.forget_outliers(challenge)?;
        for o in outliers {
            self.state.put(outlier_key(challenge, &o.validator), &o.count);
        }
        Ok(())
    }

    /// Forgets the counts of a challenge.
    pub(crate) fn forget_outliers(&mut self, challenge: ChallengeId) -> Result<(), StoreError> {
        Ok(self.state.delete_all(&outlier_prefix(challenge))?)
    }

    /// The part of a validator's rounds, in millionths, that is drawn for a check.
    pub(crate) fn check_rate(&self, round: &RoundId) -> Result<u32, StoreError> {
        let row: Option<OutlierRow> = self.state.get(&outlier_key(round.challenge, &round.validator))?;
        Ok(row.unwrap_or_default().rate(self.parameters().spot_checks.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_for_more_than_half_of_the_owners_is_checked_more_often() {
        let rate = |rejected, owners, rate| OutlierRow { rejected, owners }.rate(rate);
        assert_eq!((rate(0, 0, 20_000), rate(2, 4, 20_000), rate(3, 4, 20_000)), (20_000, 20_000, 100_000));
        assert_eq!((rate(1, 1, 300_000), rate(1, 1, u32::MAX), rate(1, 1, 0)), (MILLION, MILLION, 0));
    }
}
