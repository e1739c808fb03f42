//! A recorded round under rules: the verdicts that everyone derives again.

use perturb_challenge::Rules;
use perturb_challenge::rules::{judge, judge_round};
use perturb_types::{Millionths, RoundResult, limits};

use super::canonical;

/// Rules and a result, one behind the other.
pub fn verdict(bytes: &[u8]) {
    let limit = limits::MAX_ROUND_RESULT_BYTES + 4096;
    let Some((rules, result)) = canonical::<(Rules, RoundResult)>(bytes, limit) else { return };
    if rules.validate().is_err() {
        return;
    }
    let holds = judge_round(&rules, &result);
    for entry in &result.entries {
        for duplicate in [false, true] {
            let (_, score) = judge(&rules, result.label, entry, duplicate);
            assert!(score <= Millionths::ONE, "a score of {score}");
        }
        if holds.is_ok() {
            assert!(entry.score <= Millionths::ONE);
        }
        let _ = rules.bucket(entry.time_ms);
    }
    let _ = (rules.cap(), rules.epsilon_sent(result.source_index));
}
