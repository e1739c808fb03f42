//! Working pays, voting alone does not.
//!
//! The agreed weights pay every validator alike, so that to vote and to run nothing would be the first
//! rational move. What a member of an epoch's set did is counted in the open epoch, by hotkey (another
//! consensus key changes nothing): *rounds* it closed, and *verdicts* it gave on drawn checks. At the
//! close a member is **idle** if of either it did less than half the median over all members, zeros
//! included, where that median is at least `min_work` (0: the rule never binds); of the verdicts, less than
//! half of what the median leaves without its own drawn rounds, which it cannot judge. An idle member's
//! readiness does not count ([`crate::epoch`]), and it waits: it may be a member again
//! [`IDLE_WAIT_EPOCHS`] epochs later. Newcomers are not bound; one that never works so has a place
//! in one epoch of five.
//!
//! *The median is one of voting power*: the least count at which the power of those who did no more
//! reaches half. By heads, many members of little stake would be the median. Liars of less than a third
//! of the power keep it within what honest members did: outworking everybody, they bring it to what
//! the upper quarter of the honest power did at most, doing nothing to the lower quarter's at least.
//! Idle members of a half or more make it zero, and nobody is idle.
//!
//! *Idle members of a third or more stay*, all of them: without them the others hold no quorum of the
//! set that there was. To drop as many as a quorum allows would hand the set to whoever holds a half of
//! the power and outworks the rest.
//!
//! *Rounds are owed where they can be drawn.* In an epoch whose own seed has not come by its end
//! ([`crate::seeds`]), only members of an older set hold keys that draw: nobody is idle for its rounds.
//!
//! Not seen here: whether a round asked anybody (a miner's silence is its validator's word; saying so
//! of all of them makes an outlier), whether a verdict was copied, and a stake that moves to another
//! hotkey, which comes as a newcomer.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::Hotkey;

use crate::execute::Executor;
use crate::state::{self, idle_key, idle_prefix, work_key, work_prefix};
use crate::store::{StateStore, StoreError};
use crate::validators::ValidatorSet;

/// Epochs for which one that was dropped as idle is no member.
pub const IDLE_WAIT_EPOCHS: u64 = 4;

/// What a validator did in the open epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WorkRow {
    /// Rounds closed by a result.
    pub rounds: u64,
    /// Verdicts on drawn checks.
    pub verdicts: u64,
    /// Own rounds that were drawn: the others judge them, it cannot.
    pub own: u64,
}

/// The least count at which the power of those who did no more reaches half of all; pairs of count
/// and power.
fn median(mut counts: Vec<(u64, u64)>) -> u64 {
    counts.sort_unstable();
    let total: u128 = counts.iter().map(|(_, power)| u128::from(*power)).sum();
    let mut sum = 0u128;
    for (count, power) in counts {
        sum += u128::from(power);
        if sum * 2 >= total {
            return count;
        }
    }
    0
}

/// What a member did of one kind of work, and what it did not owe of it.
type Kind = fn(&WorkRow) -> (u64, u64);

const ROUNDS: Kind = |row| (row.rounds, 0);
const VERDICTS: Kind = |row| (row.verdicts, row.own);

/// The members that did less than half of what they owed, of any of these kinds: the median, less what is
/// not theirs to do.
fn idle(set: &ValidatorSet, work: &BTreeMap<Hotkey, WorkRow>, min_work: u32, kinds: &[Kind]) -> BTreeSet<Hotkey> {
    let mut out = BTreeSet::new();
    for of in kinds {
        let of = |hotkey: &Hotkey| of(&work.get(hotkey).copied().unwrap_or_default());
        let median = median(set.iter().map(|m| (of(&m.hotkey).0, m.power)).collect());
        if min_work == 0 || median < u64::from(min_work) {
            continue;
        }
        let is_idle = |hotkey: &Hotkey| {
            let (done, not_owed) = of(hotkey);
            u128::from(done) * 2 < u128::from(median.saturating_sub(not_owed))
        };
        out.extend(set.iter().map(|m| m.hotkey).filter(is_idle));
    }
    out
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    fn count_work(&mut self, validator: &Hotkey, what: impl FnOnce(&mut WorkRow)) -> Result<(), StoreError> {
        let key = work_key(validator);
        let mut row: WorkRow = self.state.get(&key)?.unwrap_or_default();
        what(&mut row);
        self.state.put(key, &row);
        Ok(())
    }

    /// Counts a round that a validator closed.
    pub(crate) fn count_round(&mut self, validator: &Hotkey) -> Result<(), StoreError> {
        self.count_work(validator, |row| row.rounds = row.rounds.saturating_add(1))
    }

    /// Counts a verdict that a member gave on a drawn check.
    ///
    /// # Errors
    /// The state cannot be read.
    pub(crate) fn count_verdict(&mut self, validator: &Hotkey) -> Result<(), StoreError> {
        self.count_work(validator, |row| row.verdicts = row.verdicts.saturating_add(1))
    }

    /// Counts a round that was drawn: its validator owes no verdict on it. Without this, whoever makes an
    /// honest member an outlier, so that its rounds are checked five times as often, would make it idle
    /// beside all who have them to judge.
    pub(crate) fn count_drawn(&mut self, validator: &Hotkey) -> Result<(), StoreError> {
        self.count_work(validator, |row| row.own = row.own.saturating_add(1))
    }

    /// The idle members of the epoch that closes. The next one's counts begin at nothing.
    pub(crate) fn take_idle(&mut self) -> Result<BTreeSet<Hotkey>, StoreError> {
        let mut work = BTreeMap::new();
        for (key, row) in self.state.scan(work_prefix())? {
            if let Some(hotkey) = state::hotkey_after(work_prefix(), &key) {
                work.insert(hotkey, state::parse(&key, &row)?);
            }
            self.state.delete(key);
        }
        let kinds: &[Kind] = if self.seed_is_late()? { &[VERDICTS] } else { &[ROUNDS, VERDICTS] };
        Ok(idle(&self.frame.set, &work, self.parameters().min_work, kinds))
    }

    /// They were dropped from the set of the epoch after this one: they wait.
    pub(crate) fn dismiss(&mut self, idle: &BTreeSet<Hotkey>) {
        let returns = self.frame.meta.epoch.saturating_add(1).saturating_add(IDLE_WAIT_EPOCHS);
        for hotkey in idle {
            self.state.put(idle_key(hotkey), &returns);
        }
    }

    /// Those who may not be members of the epoch after this one. Who may again is forgotten.
    pub(crate) fn waiting(&mut self) -> Result<BTreeSet<Hotkey>, StoreError> {
        let next = self.frame.meta.epoch.saturating_add(1);
        let mut out = BTreeSet::new();
        for (key, row) in self.state.scan(idle_prefix())? {
            if state::parse::<u64>(&key, &row)? <= next {
                self.state.delete(key);
            } else if let Some(hotkey) = state::hotkey_after(idle_prefix(), &key) {
                out.insert(hotkey);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::validators::Validator;
    use perturb_types::ConsensusKey;
    use proptest::prelude::*;

    fn of_both(set: &ValidatorSet, work: &BTreeMap<Hotkey, WorkRow>) -> BTreeSet<Hotkey> {
        idle(set, work, 10, &[ROUNDS, VERDICTS])
    }

    /// Members by power and rounds closed; who of them is idle.
    fn idle_of(members: &[(u64, u64)], min_work: u32) -> Vec<usize> {
        let hotkey = |i: usize| Hotkey([i as u8; 32]);
        let set = members.iter().enumerate();
        let set =
            set.map(|(i, (power, _))| Validator { hotkey: hotkey(i), key: ConsensusKey([i as u8; 32]), power: *power });
        let set = ValidatorSet::new(set.collect()).unwrap();
        let work = members
            .iter()
            .enumerate()
            .map(|(i, m)| (hotkey(i), WorkRow { rounds: m.1, ..WorkRow::default() }))
            .collect();
        let idle = idle(&set, &work, min_work, &[ROUNDS, VERDICTS]);
        (0..members.len()).filter(|i| idle.contains(&hotkey(*i))).collect()
    }

    #[test]
    fn less_than_half_the_median_is_idle_where_there_is_enough_to_do() {
        assert_eq!(idle_of(&[(1, 20), (1, 20), (1, 10), (1, 5), (1, 0)], 10), [4], "the median is 10");
        assert_eq!(idle_of(&[(1, 20), (1, 20), (1, 20), (1, 9), (1, 0)], 10), [3, 4]);
        assert_eq!(idle_of(&[(1, 20), (1, 20), (1, 20), (1, 10), (1, 0)], 10), [4]);
        assert!(idle_of(&[(1, 9), (1, 9), (1, 9), (1, 9), (1, 0)], 10).is_empty(), "too little was done at all");
        assert!(idle_of(&[(1, 20), (1, 20), (1, 20), (1, 0)], 0).is_empty(), "0 never binds");
        assert!(idle_of(&[(1, 20), (1, 20), (1, 0), (1, 0)], 10).is_empty(), "a half that is idle is the median");
    }

    #[test]
    fn who_is_checked_more_often_than_the_others_owes_no_more_verdicts() {
        let hotkey = |i: usize| Hotkey([i as u8; 32]);
        let member = |i: usize| Validator { hotkey: hotkey(i), key: ConsensusKey([i as u8; 32]), power: 1 };
        let set = ValidatorSet::new((0..4).map(member).collect()).unwrap();
        // Four members: ten of each one's rounds are drawn, and fifty of the outlier's.
        let row = |verdicts, own| WorkRow { rounds: 500, verdicts, own };
        let of = |outlier| (0..4).map(|i| (hotkey(i), if i == 0 { outlier } else { row(70, 10) })).collect();
        assert!(of_both(&set, &of(row(30, 50))).is_empty(), "it judged all that it could");
        assert_eq!(of_both(&set, &of(row(9, 50))).len(), 1, "less than half of the twenty that are left");
        assert_eq!(of_both(&set, &of(row(0, 10))).len(), 1);
    }

    #[test]
    fn many_members_of_little_power_are_not_the_median() {
        let mut members = vec![(1, 1000); 30];
        members.extend([(30, 100), (30, 90), (30, 80)]);
        assert!(idle_of(&members, 10).is_empty(), "a quarter of the power outworks the rest tenfold");
        let idle = (0..30).map(|_| (1, 0)).chain([(30, 100), (30, 90), (30, 80)]).collect::<Vec<_>>();
        assert_eq!(idle_of(&idle, 10).len(), 30, "most of the heads are idle, and nobody else is");
    }

    proptest! {
        #[test]
        fn liars_under_a_third_of_the_power_make_no_honest_member_idle(
            honest in proptest::collection::vec((1u64..1000, 60u64..=120), 3..30),
            liars in proptest::collection::vec((1u64..1000, 0u64..100_000), 0..20),
        ) {
            // Honest members do between half and all of the same work.
            let working: u64 = honest.iter().map(|m| m.0).sum();
            let (mut all, mut lying) = (honest.clone(), 0);
            for m in liars {
                if (lying + m.0) * 3 < lying + m.0 + working {
                    lying += m.0;
                    all.push(m);
                }
            }
            let idle = idle_of(&all, 10);
            prop_assert!(idle.iter().all(|i| *i >= honest.len()), "{idle:?} of {all:?}");
            for (i, m) in all.iter().enumerate().filter(|(_, m)| m.1 < 30) {
                prop_assert!(idle.contains(&i), "{m:?} of {all:?} does next to nothing and stays");
            }
        }
    }
}
