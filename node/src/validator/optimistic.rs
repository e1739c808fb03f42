//! What validators know of each other, the rounds that are checked, the owner's orders, and the optimistic
//! view.
//!
//! The optimistic view shows results before a block has them. It is computed from a copy and marked as
//! what it is; the confirmed view is read from the agreed state alone.

use std::collections::BTreeMap;

use perturb_challenge::history::{RingHistory, pushes};
use perturb_consensus::Verdict;
use perturb_ledger::state::{self, HistoryRow, history_parts, history_prefix};
use perturb_ledger::verdict::{CheckRow, Checked, Finding};
use perturb_ledger::{StateStore, StoreError, Transaction, query};
use perturb_types::{ChallengeId, Hotkey, RoundId, RoundResult};

use super::view::NodeView;
use crate::report::{CheckReport, Optimistic, OptimisticMiner, Orders, PendingRound, ValidatorReport, WaitingOrder};

fn part(millionths: u32) -> f64 {
    f64::from(millionths) / 1e6
}

/// A verdict in words.
fn words(verdict: &Checked) -> String {
    match verdict {
        Checked::Holds => "holds".into(),
        Checked::Unknown => "cannot tell".into(),
        Checked::Fails(finding) => {
            let what = match finding {
                Finding::ImageMissing => "its image cannot be had",
                Finding::ImageWrong => "its image is another",
                Finding::AnswerMissing => "an answer cannot be had",
                Finding::Measurement => "an answer measures otherwise",
                Finding::Label => "the model cannot have said that",
                Finding::Stated => "a stated failure is none",
                Finding::Skipped => "an image that it passed over serves",
            };
            format!("fails: {what}")
        }
    }
}

type Histories = BTreeMap<(Hotkey, Hotkey), RingHistory>;

/// Mean over the validators' means of a miner.
fn mean(histories: &Histories, miner: &Hotkey) -> f64 {
    let own = histories.range((*miner, Hotkey([0; 32]))..).take_while(|((m, _), _)| m == miner);
    let means: Vec<f64> = own.map(|(_, ring)| part(ring.mean().0)).collect();
    if means.is_empty() { 0.0 } else { means.iter().sum::<f64>() / means.len() as f64 }
}

impl NodeView {
    /// `perturb_validators`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn validators(&self) -> Result<Vec<ValidatorReport>, StoreError> {
        let db = self.agreed.database();
        let set = query::validators(db)?;
        let challenges = query::challenges(db)?;
        set.iter()
            .map(|v| {
                let r = query::reputation(db, &v.hotkey)?;
                let work = query::work(db, &v.hotkey)?;
                let mut outlier = [0, 0];
                for spec in &challenges {
                    let row = query::outlier(db, spec.id, &v.hotkey)?;
                    outlier = [outlier[0] + u64::from(row.rejected), outlier[1] + u64::from(row.owners)];
                }
                let both = |of: fn(&perturb_ledger::reputation::Faults) -> u64| [of(&r.epoch), of(&r.past)];
                Ok(ValidatorReport {
                    hotkey: v.hotkey,
                    power: v.power,
                    standing: part(r.standing),
                    unclosed: both(|f| f.unclosed),
                    outlier,
                    work: [work.rounds, work.verdicts],
                    failed_checks: both(|f| f.failed_checks),
                    missed_votes: both(|f| f.missed_votes),
                    equivocations: both(|f| f.equivocations),
                })
            })
            .collect()
    }

    /// `perturb_checks`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn checks(&self) -> Result<Vec<CheckReport>, StoreError> {
        let db = self.agreed.database();
        let (set, window) = (query::validators(db)?, query::parameters(db)?.spot_checks.window_blocks);
        let power = |power: u128| u64::try_from(power).unwrap_or(u64::MAX);
        let report = |(round, row): (RoundId, CheckRow)| {
            let tally = row.tally(&round.validator, &set);
            CheckReport {
                validator: round.validator,
                challenge: round.challenge.0,
                seq: round.seq,
                drawn: row.drawn,
                over: row.drawn.saturating_add(window),
                power: [tally.fails, tally.holds, tally.unknown, tally.outstanding].map(power),
                total: power(tally.total),
                struck: row.struck,
                verdicts: row.verdicts.iter().map(|(who, found)| (*who, words(found))).collect(),
            }
        };
        Ok(query::checks(db)?.into_iter().map(report).collect())
    }

    /// `perturb_orders`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn orders(&self) -> Result<Orders, StoreError> {
        let db = self.agreed.database();
        let meta = query::meta(db)?;
        let waiting = query::orders(db)?.into_iter().map(|(height, nonce, order)| WaitingOrder {
            height,
            nonce,
            order: serde_json::to_value(&order).unwrap_or_default(),
        });
        let height = self.machine.borrow().height;
        Ok(Orders {
            network: self.id,
            height,
            owner: meta.owner,
            nonce: meta.owner_nonce,
            delay: query::parameters(db)?.order_delay_blocks.into(),
            waiting: waiting.collect(),
        })
    }

    /// `perturb_submit`: an owner's order, a key delegation or a pulse of the beacon, from outside.
    ///
    /// # Errors
    /// Anything else, or one that is refused.
    pub async fn submit(&self, text: &str) -> Result<String, String> {
        let bytes = hex::decode(text.trim_start_matches("0x")).map_err(|e| format!("not hex: {e}"))?;
        let transaction = Transaction::decode(&bytes).map_err(|e| e.to_string())?;
        if !matches!(transaction, Transaction::OwnerAction(_) | Transaction::KeyDelegation(_) | Transaction::Pulse(_)) {
            return Err(format!("a {} is not taken here", transaction.name()));
        }
        match self.driver.submit(bytes).await {
            Verdict::Accept => Ok("accepted".into()),
            Verdict::Ignore(why) | Verdict::Reject(why) => Err(why),
        }
    }

    fn histories(&self, challenge: ChallengeId) -> Result<Histories, StoreError> {
        let mut out = Histories::new();
        for (key, row) in self.agreed.database().scan(&history_prefix(challenge))? {
            let Some(names) = history_parts(challenge, &key) else { continue };
            out.insert(names, state::parse::<HistoryRow>(&key, &row)?.ring);
        }
        Ok(out)
    }

    /// `perturb_optimistic`, for the first challenge.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn optimistic(&self) -> Result<Optimistic, StoreError> {
        let db = self.agreed.database();
        let specs = query::challenges(db)?;
        let waiting: Vec<RoundResult> = self.driver.waiting().borrow().clone();
        let Some(spec) = specs.first() else {
            return Ok(Optimistic { confirmed: false, after_height: 0, rounds: Vec::new(), miners: Vec::new() });
        };
        let before = self.histories(spec.id)?;
        let mut after = before.clone();
        let mut touched: BTreeMap<Hotkey, u64> = BTreeMap::new();
        let mut rounds = Vec::new();
        for result in waiting.iter().filter(|r| r.round.challenge == spec.id) {
            for (miner, score) in pushes(&spec.rules, &result.entries) {
                let ring = after.entry((miner, result.round.validator)).or_default();
                ring.push(score, spec.rules.history_len);
                *touched.entry(miner).or_default() += 1;
            }
            rounds.push(PendingRound {
                validator: result.round.validator,
                challenge: result.round.challenge.0,
                seq: result.round.seq,
                scores: result.entries.iter().map(|e| (e.miner, part(e.score.0))).collect(),
            });
        }
        let miners = touched.into_iter().map(|(hotkey, waiting)| OptimisticMiner {
            hotkey,
            confirmed: mean(&before, &hotkey),
            optimistic: mean(&after, &hotkey),
            waiting,
        });
        let after_height = self.machine.borrow().height;
        Ok(Optimistic { confirmed: false, after_height, rounds, miners: miners.collect() })
    }
}
