//! What speaks against a validator, what it costs, and how it is made good again.
//!
//! A validator's *standing* begins at 1 (a million millionths). At an epoch's close the faults of the
//! epoch are charged by the agreed [`ReputationRule`], and a fixed part is regained. Where the rule
//! says so, the weight of its contributions is its power times its standing; its votes always count
//! with its whole power, so that nothing said here can move a quorum.
//!
//! Only what no miner can cause is a fault. What a validator measures follows from the answers it gets,
//! so that being an outlier is none ([`crate::outliers`]).

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::Hotkey;
use serde::Serialize;

use crate::certificate::Certificate;
use crate::execute::{Executor, TxError};
use crate::genesis::ReputationRule;
use crate::parameters::MILLION;
use crate::state::{self, PARENT_SET, reputation_key, reputation_prefix};
use crate::store::{StateStore, StoreError};
use crate::tx::Snapshot;
use crate::validators::ValidatorSet;

/// Counted faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub struct Faults {
    /// Rounds opened and never closed.
    pub unclosed: u64,
    /// Spot checks for which it was struck.
    pub failed_checks: u64,
    /// Certificates in blocks that lack its vote.
    pub missed_votes: u64,
    /// Proofs of contradicting signatures.
    pub equivocations: u64,
}

/// A validator's reputation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub struct Reputation {
    /// Its standing in millionths.
    pub standing: u32,
    /// Faults of the epoch in the making.
    pub epoch: Faults,
    /// Faults of all closed epochs.
    pub past: Faults,
}

impl Default for Reputation {
    fn default() -> Self {
        Self { standing: MILLION, epoch: Faults::default(), past: Faults::default() }
    }
}

impl Reputation {
    /// Charges the epoch's faults and regains what an epoch gives back. `blocks` is the number of
    /// certificates in which it could have been.
    pub fn settle(&mut self, rule: &ReputationRule, blocks: u64) {
        let f = std::mem::take(&mut self.epoch);
        let late =
            u128::from(f.missed_votes) * u128::from(MILLION) > u128::from(blocks) * u128::from(rule.missed_tolerance);
        let charge = [
            (f.unclosed, rule.unclosed),
            (f.failed_checks, rule.failed_check),
            (f.equivocations, rule.equivocation),
            (u64::from(late), rule.missed_votes),
        ]
        .iter()
        .fold(0u64, |sum, (count, each)| sum.saturating_add(count.saturating_mul(u64::from(*each))));
        let left = u64::from(self.standing).saturating_sub(charge);
        // What was lost in an epoch is not regained in the same.
        let regained = if charge == 0 { u64::from(rule.recovery) } else { 0 };
        self.standing = u32::try_from((left + regained).min(u64::from(MILLION))).unwrap_or(MILLION);
        let p = &mut self.past;
        p.unclosed = p.unclosed.saturating_add(f.unclosed);
        p.failed_checks = p.failed_checks.saturating_add(f.failed_checks);
        p.missed_votes = p.missed_votes.saturating_add(f.missed_votes);
        p.equivocations = p.equivocations.saturating_add(f.equivocations);
    }

    /// The weight of a contribution: power, times standing in millionths where the rule weighs.
    pub fn weight(&self, rule: &ReputationRule, power: u64) -> u64 {
        if rule.weigh { power.saturating_mul(u64::from(self.standing)) } else { power }
    }
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Counts something against a validator.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn blame(&mut self, validator: &Hotkey, what: impl FnOnce(&mut Faults)) -> Result<(), StoreError> {
        let key = reputation_key(validator);
        let mut row: Reputation = self.state.get(&key)?.unwrap_or_default();
        what(&mut row.epoch);
        self.state.put(key, &row);
        Ok(())
    }

    /// Counts the members whose votes the parent's certificate lacks.
    pub(crate) fn count_missed_votes(&mut self, parent: Option<&Certificate>) -> Result<(), TxError> {
        let Some(certificate) = parent else { return Ok(()) };
        let set: ValidatorSet = match self.state.get(PARENT_SET)? {
            Some(set) => set,
            None => self.frame.set.clone(),
        };
        let signed = |key| certificate.signatures.iter().any(|(k, _)| k == key);
        for member in set.iter().filter(|m| !signed(&m.key)) {
            self.blame(&member.hotkey, |f| f.missed_votes += 1)?;
        }
        self.state.accept();
        Ok(())
    }

    /// At an epoch's close: settles everybody, and forgets those who are no longer registered.
    pub(crate) fn settle_reputations(&mut self, snapshot: &Snapshot) -> Result<(), TxError> {
        let rule = self.parameters().reputation;
        let blocks = self.height().saturating_sub(self.frame.meta.epoch_start).max(1);
        for (key, row) in self.state.scan(reputation_prefix())? {
            let Some(hotkey) = state::hotkey_after(reputation_prefix(), &key) else { continue };
            if snapshot.neuron(&hotkey).is_none() {
                self.state.delete(key);
                continue;
            }
            let mut reputation: Reputation = state::parse(&key, &row)?;
            reputation.settle(&rule, blocks);
            self.state.put(key, &reputation);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_cost_standing_and_clean_epochs_give_it_back() {
        let rule = ReputationRule::default();
        let mut r = Reputation::default();
        r.epoch.failed_checks = 2;
        r.settle(&rule, 100);
        assert_eq!((r.standing, r.past.failed_checks, r.epoch), (600_000, 2, Faults::default()));
        for _ in 0..16 {
            r.settle(&rule, 100);
        }
        assert_eq!(r.standing, MILLION, "recovered, and no more than whole");
        r.epoch.equivocations = 3;
        r.settle(&rule, 100);
        assert_eq!(r.standing, 0);
        assert_eq!(r.weight(&rule, 500), 0, "who has no standing moves nothing");
        assert_eq!(r.weight(&ReputationRule { weigh: false, ..rule }, 500), 500);
    }

    #[test]
    fn missed_votes_cost_only_beyond_the_tolerance() {
        let rule = ReputationRule::default();
        let after = |missed| {
            let mut r = Reputation::default();
            r.epoch.missed_votes = missed;
            r.settle(&rule, 100);
            r.standing
        };
        assert_eq!(after(50), MILLION);
        assert_eq!(after(51), MILLION - rule.missed_votes);
    }
}
